//! Examples of clusters that are registered while the service runs.

use serde_json::{Value, json};

use super::time;

/// A registered cluster, moments after it was registered.
pub(super) fn registered() -> Value {
    json!({
        "name": "east", "source": "registered", "state": "connecting", "reason": null, "nodes": 0, "as_of": null,
        "stale": true, "server_version": null, "registered_at": time(), "server": "https://east.example.com:6443/", "user": "node-manager",
        "credentials_expire_at": "2030-01-08T00:00:00Z", "credentials_expire_soon": true,
        "warnings": ["its credentials end at 2030-01-08T00:00:00Z: replace them before"],
        "pods": {"total": 0, "stale": true, "as_of": null, "reason": null},
    })
}

/// What came of a test.
pub(super) fn test() -> Value {
    json!({"ok": false, "checks": [
        {"name": "version", "ok": true, "answer": "v1.36.0", "reason": null, "took_seconds": 0.012},
        {"name": "list_nodes", "ok": false, "answer": null, "reason": "the cluster does not let us see what we ask for", "took_seconds": 0.009},
    ]})
}

/// What is sent.
pub(super) fn credentials() -> Value {
    json!({
        "server": "https://east.example.com:6443",
        "certificate_authority": "-----BEGIN CERTIFICATE-----\nMIIB…\n-----END CERTIFICATE-----\n",
        "token": "eyJhbGciOi…",
    })
}
