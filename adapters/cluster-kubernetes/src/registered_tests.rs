//! What is refused of credentials that somebody sent, and when they end.

use std::path::PathBuf;

use knm_model::RawClusterAccess;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::json;

use super::*;

const ALLOWING: AccessRules = AccessRules {
    allow_loopback: true,
    allow_insecure_tls: false,
};
const STRICT: AccessRules = AccessRules {
    allow_loopback: false,
    allow_insecure_tls: false,
};

fn opener(rules: AccessRules) -> KubernetesOpener {
    KubernetesOpener {
        page_size: 500,
        request_timeout: Duration::from_secs(5),
        max_requests_per_second: 0,
        rules,
    }
}

/// A certificate that ends on the first day of 2031, and its key.
fn certificate() -> (String, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.not_after = date_time_ymd(2031, 1, 1);
    (params.self_signed(&key).unwrap().pem(), key)
}

fn with_certificate(certificate: &str, key: &str) -> ClusterCredentials {
    let data = |text: &str| STANDARD.encode(text);
    let text = json!({
        "current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "a", "user": "ann"}}],
        "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:6443", "certificate-authority-data": data(certificate)}}],
        "users": [{"name": "ann", "user": {"client-certificate-data": data(certificate), "client-key-data": data(key)}}],
    });
    let raw = RawClusterAccess {
        kubeconfig: Some(text.to_string().into()),
        ..RawClusterAccess::default()
    };
    ClusterCredentials::parse(&raw, &ALLOWING).unwrap()
}

fn with_token(server: &str, authority: Option<&str>, name: Option<&str>) -> ClusterCredentials {
    let raw = RawClusterAccess {
        server: Some(server.to_owned()),
        token: Some("hunter2".to_owned().into()),
        certificate_authority: authority.map(str::to_owned),
        tls_server_name: name.map(str::to_owned),
        ..RawClusterAccess::default()
    };
    ClusterCredentials::parse(&raw, &ALLOWING).unwrap()
}

async fn refused(credentials: &ClusterCredentials) -> &'static str {
    match opener(ALLOWING).check(credentials).await {
        Err(OpenRefused::Unusable { field, message }) => {
            assert!(!message.contains("hunter2"), "{message}");
            field
        }
        other => unreachable!("{other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_tells_until_when_it_is_good() {
    let (pem, key) = certificate();
    let credentials = with_certificate(&pem, &key.serialize_pem());
    let until = opener(ALLOWING).check(&credentials).await.unwrap();
    assert_eq!(until.unwrap().to_string(), "2031-01-01T00:00:00Z");
    let token = with_token("https://10.0.0.1", Some(&pem), None);
    assert_eq!(opener(STRICT).check(&token).await, Ok(None));
}

#[tokio::test]
async fn certificates_keys_and_names_that_cannot_be_used_are_refused() {
    let (pem, key) = certificate();
    let (_, other) = certificate();
    let mismatch = with_certificate(&pem, &other.serialize_pem());
    assert_eq!(refused(&mismatch).await, "client certificate");
    let broken = "-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n";
    assert_eq!(refused(&with_certificate(&pem, broken)).await, "client certificate");
    let no_certificate = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
    let authority = with_token("https://10.0.0.1", Some(no_certificate), None);
    assert_eq!(refused(&authority).await, "certificate_authority");
    let name = with_token("https://10.0.0.1", Some(&pem), Some("not a name"));
    assert_eq!(refused(&name).await, "tls_server_name");
    drop(key);
}

#[tokio::test]
async fn a_name_that_leads_to_where_no_server_may_be_is_refused_with_each_connection() {
    let name = || "localhost".parse::<Name>().unwrap();
    assert!(Guarded(ALLOWING).call(name()).await.is_ok());
    let refused = Guarded(STRICT).call(name()).await;
    assert!(matches!(refused, Err(LookUpError::Refused(_))), "{refused:?}");

    // The look-up at the registration, with what was parsed while loopback was allowed.
    let (pem, _) = certificate();
    let credentials = with_token("https://localhost:1", Some(&pem), None);
    let at_registration = opener(STRICT).check(&credentials).await;
    assert!(
        matches!(at_registration, Err(OpenRefused::Unusable { field: "server", .. })),
        "{at_registration:?}"
    );

    // The client itself, whatever was checked before.
    let sent = SentCredentials {
        credentials,
        rules: STRICT,
    };
    let client = sent.client(sent.config().unwrap()).unwrap();
    let request = http::Request::get("/version").body(Body::empty()).unwrap();
    let failure = crate::error::Failure::from(client.send(request).await.unwrap_err());
    assert!(
        matches!(failure.error, knm_ports::ClusterError::Disallowed { .. }),
        "{:?}",
        failure.error
    );
}

#[tokio::test]
async fn what_was_allowed_once_is_not_asked_when_the_rules_are_stricter() {
    let (pem, _) = certificate();
    let gateway = opener(STRICT).open(
        &ClusterName::from_any("a"),
        &with_token("https://127.0.0.1:1", Some(&pem), None),
    );
    let error = gateway.unwrap().gateway.server_version().await.unwrap_err();
    assert!(
        knm_ports::chain(&error).contains("loopback"),
        "{}",
        knm_ports::chain(&error)
    );
}

#[test]
fn nothing_secret_is_shown_of_what_a_client_is_made_of() {
    let (pem, _) = certificate();
    let sent = SentCredentials {
        credentials: with_token("https://10.0.0.1", Some(&pem), None),
        rules: STRICT,
    };
    let shown = format!("{sent:?} {:?}", sent.config().unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_kubeconfig_file_tells_server_user_and_expiry() {
    let (pem, _) = certificate();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    let write = |server: &str, user: serde_json::Value| {
        let text = json!({
            "current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "a", "user": "ann"}}],
            "clusters": [{"name": "a", "cluster": {"server": server}}], "users": [{"name": "ann", "user": user}],
        });
        std::fs::write(&path, text.to_string()).unwrap();
    };
    let source = |path: PathBuf| KubernetesSource::Kubeconfig { path, context: None };
    let look = || crate::access(&source(path.clone()));

    write(
        "https://10.0.0.1:6443",
        json!({"client-certificate-data": STANDARD.encode(&pem)}),
    );
    let access = look().unwrap();
    assert_eq!(
        (access.server.as_str(), access.user.as_str()),
        ("https://10.0.0.1:6443/", "ann")
    );
    assert_eq!(access.expires_at.unwrap().to_string(), "2031-01-01T00:00:00Z");
    std::fs::write(folder.path().join("ann.crt"), &pem).unwrap();
    write("https://10.0.0.1:6443", json!({"client-certificate": "ann.crt"}));
    assert!(look().unwrap().expires_at.is_some());
    write(
        "https://10.0.0.1:6443",
        json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "false"}}),
    );
    assert_eq!(look().unwrap().expires_at, None);
    write("https://ann:hunter2@10.0.0.1", json!({}));
    assert_eq!(look(), None);
    assert_eq!(crate::access(&KubernetesSource::InCluster), None);
}
