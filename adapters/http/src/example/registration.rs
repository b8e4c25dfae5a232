//! Examples of clusters, and of those that are registered while the service runs.

use knm_domain::PermissionsStatus;
use knm_model::{ClusterFeature, FeatureState, FeatureStatus, Timestamp};
use serde_json::{Value, json};

use super::time;
use crate::view::PermissionsView;

/// A cluster of the configuration, as the list has it.
pub(super) fn listed(time: Timestamp) -> Value {
    json!({
        "name": "demo", "source": "demo", "state": "healthy", "reason": null, "nodes": 30, "as_of": time,
        "stale": false, "server_version": "v1.36.0", "registered_at": time, "server": null, "user": null,
        "credentials_expire_at": null, "credentials_expire_soon": false, "warnings": [],
        "pods": {"total": 512, "stale": false, "as_of": time, "reason": null}, "permissions": null,
    })
}

/// The same alone: its pods may not be deleted.
pub(super) fn configured(time: Timestamp) -> Value {
    let state = |feature| match feature {
        ClusterFeature::DeletePods => FeatureState::Missing,
        ClusterFeature::ReviewTokens | ClusterFeature::ReviewAccess => FeatureState::NotUsed,
        ClusterFeature::ViewNodes
        | ClusterFeature::ViewPods
        | ClusterFeature::WatchPods
        | ClusterFeature::ViewBudgets
        | ClusterFeature::ViewDaemonSets
        | ClusterFeature::ChangeNodes
        | ClusterFeature::EvictPods => FeatureState::Available,
    };
    let mut cluster = listed(time);
    cluster["permissions"] = json!(permissions(Some(time), state));
    cluster
}

fn permissions(checked_at: Option<Timestamp>, state: impl Fn(ClusterFeature) -> FeatureState) -> PermissionsView {
    let status = |feature: ClusterFeature| FeatureStatus {
        feature,
        state: state(feature),
        missing: match state(feature) {
            FeatureState::Missing => feature.needs().to_vec(),
            FeatureState::Available | FeatureState::NotKnown | FeatureState::NotUsed => Vec::new(),
        },
    };
    PermissionsView::of(&PermissionsStatus {
        checked_at,
        reason: None,
        features: ClusterFeature::ALL.map(status).into(),
    })
}

/// A registered cluster, moments after it was registered.
pub(super) fn registered() -> Value {
    json!({
        "name": "east", "source": "registered", "state": "connecting", "reason": null, "nodes": 0, "as_of": null,
        "stale": true, "server_version": null, "registered_at": time(), "server": "https://east.example.com:6443/", "user": "node-manager",
        "credentials_expire_at": "2030-01-08T00:00:00Z", "credentials_expire_soon": true,
        "warnings": ["its credentials end at 2030-01-08T00:00:00Z: replace them before"],
        "pods": {"total": 0, "stale": true, "as_of": null, "reason": null},
        "permissions": permissions(None, |_| FeatureState::NotKnown),
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
