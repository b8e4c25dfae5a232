//! An issuer with TLS.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use crate::scripted::ScriptedIssuer;
use crate::signing::TestKey;
use crate::{claims, options, unavailable, why};

/// An authority's certificate, and a server's that it signed for this name.
fn certificates(name: &str) -> (String, TlsAcceptor) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("no names");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).expect("a certificate").pem();
    let key = KeyPair::generate().expect("a key");
    let server = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let certificate = server.signed_by(&key, &Issuer::new(ca, ca_key)).expect("a certificate");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        )
        .expect("a certificate");
    (ca_pem, TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn an_issuer_is_believed_whose_certificate_the_configured_authority_signed_and_no_other() {
    let key = TestKey::p256("k");
    let file = tempfile::NamedTempFile::new().expect("a file");
    let (authority, own) = certificates("127.0.0.1");
    let (_, of_another_authority) = certificates("127.0.0.1");
    std::fs::write(file.path(), &authority).expect("a file");
    for (acceptor, is_believed) in [(own, true), (of_another_authority, false)] {
        let issuer = ScriptedIssuer::start_with_tls(&[&key], acceptor).await;
        let mut options = options(&issuer);
        options.ca_file = Some(file.path().to_owned());
        let tokens = knm_identity_oidc::open(options)
            .await
            .expect("options that can be used");
        let token = key.token("ES256", &claims(&issuer));
        match is_believed {
            true => assert_eq!(why(&tokens, &token).await, ""),
            false => {
                let told = unavailable(&tokens, &token).await;
                assert!(told.contains("certificate"), "{told}");
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not_believed() {
    let key = TestKey::p256("k");
    let file = tempfile::NamedTempFile::new().expect("a file");
    let (authority, acceptor) = certificates("id.example.com");
    std::fs::write(file.path(), &authority).expect("a file");
    let issuer = ScriptedIssuer::start_with_tls(&[&key], acceptor).await;
    let mut options = options(&issuer);
    options.ca_file = Some(file.path().to_owned());
    let tokens = knm_identity_oidc::open(options)
        .await
        .expect("options that can be used");
    let told = unavailable(&tokens, &key.token("ES256", &claims(&issuer))).await;
    assert!(told.contains("certificate"), "{told}");
}

#[tokio::test]
async fn keys_without_tls_are_not_believed_of_an_issuer_with_it() {
    let key = TestKey::p256("k");
    let file = tempfile::NamedTempFile::new().expect("a file");
    let (authority, acceptor) = certificates("127.0.0.1");
    std::fs::write(file.path(), &authority).expect("a file");
    let issuer = ScriptedIssuer::start_with_tls(&[&key], acceptor).await;
    let plain = issuer.url().replace("https", "http") + "/keys";
    issuer.say_about_itself(&serde_json::json!({"issuer": issuer.url(), "jwks_uri": plain}));
    let mut options = options(&issuer);
    options.ca_file = Some(file.path().to_owned());
    let tokens = knm_identity_oidc::open(options)
        .await
        .expect("options that can be used");
    let told = unavailable(&tokens, &key.token("ES256", &claims(&issuer))).await;
    assert!(told.contains("must have its keys at https"), "{told}");
}
