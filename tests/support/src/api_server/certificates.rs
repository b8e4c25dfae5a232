//! The keys of a cluster: its authority, the server, an administrator and service accounts.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// Writes `ca.crt`, `server.crt`, `server.key`, `admin.crt`, `admin.key`, `sa.pub` and `sa.key`.
pub(super) fn write(folder: &Path) {
    let ca_key = key();
    let mut ca = CertificateParams::new(Vec::new()).expect("no names");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "test cluster");
    store(folder, "ca.crt", &ca.self_signed(&ca_key).expect("a certificate").pem());
    let issuer = Issuer::new(ca, ca_key);

    let names = ["127.0.0.1", "localhost"].map(str::to_owned);
    let mut server = CertificateParams::new(names).expect("names");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    sign(folder, "server", &server, &issuer);

    let mut admin = CertificateParams::new(Vec::new()).expect("no names");
    admin.distinguished_name.push(DnType::CommonName, "admin");
    admin
        .distinguished_name
        .push(DnType::OrganizationName, "system:masters");
    admin.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    sign(folder, "admin", &admin, &issuer);

    let accounts = key();
    store(folder, "sa.pub", &accounts.public_key_pem());
    store(folder, "sa.key", &accounts.serialize_pem());
}

/// Writes a kubeconfig of the administrator for a server at this port.
pub(super) fn write_kubeconfig(folder: &Path, name: &str, port: u16) -> PathBuf {
    let path = folder.join(name);
    let file = |name: &str| folder.join(name).display().to_string();
    let content = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority": file("ca.crt")}}],
        "users": [{"name": "admin", "user": {
            "client-certificate": file("admin.crt"), "client-key": file("admin.key")}}],
    });
    fs::write(&path, content.to_string()).expect("a kubeconfig");
    path
}

fn sign(folder: &Path, name: &str, params: &CertificateParams, issuer: &Issuer<'_, KeyPair>) {
    let key = key();
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    store(folder, &format!("{name}.crt"), &certificate.pem());
    store(folder, &format!("{name}.key"), &key.serialize_pem());
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn store(folder: &Path, name: &str, content: &str) {
    fs::write(folder.join(name), content).expect("a file in our own folder");
}
