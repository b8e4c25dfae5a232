//! Certificates for a server with TLS.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::programs::Programs;

/// Writes `root.pem`, and `server.pem` and `server.key` for the host `localhost`, into `folder`.
pub(super) fn write(programs: &Programs, folder: &Path) {
    let root_key = KeyPair::generate().expect("a key");
    let mut root = CertificateParams::new(Vec::new()).expect("no names");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.distinguished_name.push(DnType::CommonName, "test root");
    let root_certificate = root.self_signed(&root_key).expect("a root certificate");

    let key = KeyPair::generate().expect("a key");
    let server = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = server
        .signed_by(&key, &Issuer::new(root, root_key))
        .expect("a server certificate");

    fs::write(folder.join("root.pem"), root_certificate.pem()).expect("the root certificate's file");
    let server_file = folder.join("server.pem");
    fs::write(&server_file, certificate.pem()).expect("the certificate's file");
    programs.give_to_server_user(&server_file);
    let key_file = folder.join("server.key");
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&key_file)
        .and_then(|mut file| file.write_all(key.serialize_pem().as_bytes()))
        .expect("the key's file");
    programs.give_to_server_user(&key_file);
}
