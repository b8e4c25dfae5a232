//! TLS without a proxy, over real sockets.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use knm_test_support::patience::wait_for;
use knm_test_support::service::{Service, run};
use knm_test_support::tls::{Authority, Certified};
use knm_test_support::wire::Wire;
use tokio_rustls::rustls::{ClientConfig, ProtocolVersion, version};

use crate::{NODES, PROGRAM, assert_problem};

/// A folder with a certificate as Kubernetes mounts secrets: links to files in a folder that is itself a link, which is exchanged.
struct Secret {
    folder: tempfile::TempDir,
    count: usize,
}

impl Secret {
    fn new(certified: &Certified) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(file), folder.path().join(file)).unwrap();
        }
        let mut secret = Self { folder, count: 0 };
        secret.exchange(certified);
        secret
    }

    fn exchange(&mut self, certified: &Certified) {
        self.count += 1;
        let next = format!("version-{}", self.count);
        let folder = self.folder.path().join(&next);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("tls.crt"), &certified.certificate).unwrap();
        fs::write(folder.join("tls.key"), &certified.key).unwrap();
        let new = self.folder.path().join("..new");
        symlink(next, &new).unwrap();
        fs::rename(new, self.folder.path().join("..data")).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A demo that serves it.
    fn serve(&self, variables: &[(&str, &str)]) -> Service {
        let (certificate, key) = (self.file("tls.crt"), self.file("tls.key"));
        let files = [
            ("KNM__SERVER__TLS__CERT_FILE", certificate.to_str().unwrap()),
            ("KNM__SERVER__TLS__KEY_FILE", key.to_str().unwrap()),
        ];
        let arguments = ["--demo", "--demo-changes-per-second", "0"];
        Service::start(PROGRAM, &arguments, &[&files, variables].concat())
    }
}

/// The certificate that the service shows to a new connection.
fn shown(service: &Service, client: &Arc<ClientConfig>) -> Vec<u8> {
    let wire = Wire::open_tls(service.address(), Arc::clone(client)).unwrap();
    certificate_of(&wire)
}

fn certificate_of(wire: &Wire) -> Vec<u8> {
    wire.tls().unwrap().peer_certificates().unwrap()[0].to_vec()
}

fn wait_for_nodes(service: &Service, client: &Arc<ClientConfig>) {
    wait_for("the nodes", || {
        let mut wire = Wire::open_tls(service.address(), Arc::clone(client)).unwrap();
        (wire.get(NODES, &[]).unwrap().status == 200).then_some(())
    });
}

#[test]
fn tls_1_2_and_1_3_are_served_and_http_1_1_within_them() {
    let authority = Authority::new();
    let service = Secret::new(&authority.certify(2099)).serve(&[]);
    for (offered, spoken) in [
        (&version::TLS12, ProtocolVersion::TLSv1_2),
        (&version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let mut client = Arc::unwrap_or_clone(authority.client_of(&[offered]));
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut wire = Wire::open_tls(service.address(), Arc::new(client)).unwrap();
        assert_eq!(wire.tls().unwrap().protocol_version(), Some(spoken));
        assert_eq!(wire.tls().unwrap().alpn_protocol(), Some(&b"http/1.1"[..]));
        for _ in 0..2 {
            let reply = wire.get("/health", &[]).unwrap();
            assert_eq!(reply.status, 200);
            assert_eq!(reply.header("strict-transport-security"), Some("max-age=31536000"));
        }
        assert_problem(&wire.get("/nothing", &["connection: close"]).unwrap(), 404);
        // In order: with a farewell, without which nobody could tell that it is the end.
        assert_eq!(wire.rest().unwrap(), b"");
    }
    let client = Arc::unwrap_or_clone(authority.client());
    let only = |protocol: &[u8]| {
        let mut client = client.clone();
        client.alpn_protocols = vec![protocol.to_vec()];
        Wire::open_tls(service.address(), Arc::new(client))
    };
    assert!(only(b"http/1.1").is_ok());
    let refused = only(b"h2").unwrap_err().to_string();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
}

#[test]
fn large_answers_and_bodies_go_through_tls() {
    let authority = Authority::new();
    let secret = Secret::new(&authority.certify(2099));
    let service = secret.serve(&[("KNM__SERVER__MAX_BODY_BYTES", "2000000")]);
    let client = authority.client();
    wait_for_nodes(&service, &client);
    let mut wire = Wire::open_tls(service.address(), client).unwrap();
    let list = wire.get(NODES, &[]).unwrap();
    assert_eq!(list.json()["items"].as_array().unwrap().len(), 30);
    let body = serde_json::json!({ "set": { "a": "x".repeat(1_500_000) } });
    let refused = wire.send_json("PATCH", &format!("{NODES}/nobody/labels"), &[], &body);
    assert_problem(&refused.unwrap(), 422);
}

#[test]
fn who_speaks_without_tls_is_told_and_whoever_speaks_nothing_known_is_closed() {
    let authority = Authority::new();
    let service = Secret::new(&authority.certify(2099)).serve(&[]);
    let mut plain = Wire::open(service.address());
    plain.request("GET", "/health", &[]).unwrap();
    let reply = plain.reply().unwrap();
    assert_problem(&reply, 400);
    assert!(reply.text().contains("https://"), "{}", reply.text());
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(plain.rest().unwrap(), b"", "it ends in order");

    let mut nonsense = Wire::open(service.address());
    nonsense.send([0x16, 0x03, 0x01, 0xff, 0xff, 0x00]).unwrap();
    nonsense.wait_until_closed();
    let mut nothing = Wire::open(service.address());
    nothing.send([0; 100]).unwrap();
    nothing.wait_until_closed();
    assert!(Wire::open_tls(service.address(), authority.client()).is_ok());
}

#[test]
fn slow_and_silent_greetings_are_cut_off_while_others_are_served() {
    let authority = Authority::new();
    let service = Secret::new(&authority.certify(2099)).serve(&[
        ("KNM__SERVER__HEADER_READ_TIMEOUT", "2"),
        ("KNM__SERVER__IDLE_TIMEOUT", "600"),
    ]);
    let mut silent: Vec<Wire> = (0..50).map(|_| Wire::open(service.address())).collect();
    let mut slow: Vec<Wire> = (0..50).map(|_| Wire::open(service.address())).collect();
    let mut other = Wire::open_tls(service.address(), authority.client()).unwrap();
    // A record of 512 bytes that comes byte by byte, for longer than the two seconds.
    let record = [&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc][..], &[3; 503]].concat();
    for byte in &record[..25] {
        for wire in &mut slow {
            // It may be cut off already.
            drop(wire.send([*byte]));
        }
        assert_eq!(other.get("/health", &[]).unwrap().status, 200);
        assert!(Wire::open_tls(service.address(), authority.client()).is_ok());
        std::thread::sleep(Duration::from_millis(100));
    }
    for wire in silent.iter_mut().chain(&mut slow) {
        wire.wait_until_closed();
    }
    // After the greeting a connection has to say something, too.
    Wire::open_tls(service.address(), authority.client())
        .unwrap()
        .wait_until_closed();
}

#[test]
fn who_does_not_greet_makes_room_for_others() {
    let authority = Authority::new();
    let service = Secret::new(&authority.certify(2099)).serve(&[
        ("KNM__SERVER__MAX_CONNECTIONS", "3"),
        ("KNM__SERVER__HEADER_READ_TIMEOUT", "600"),
    ]);
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(Wire::open(service.address()));
        // So that there is a first one.
        std::thread::sleep(Duration::from_millis(100));
    }
    silent[1].send([0x16, 0x03]).unwrap();
    let mut newcomers = Vec::new();
    for wire in &mut silent {
        let mut other = Wire::open_tls(service.address(), authority.client()).unwrap();
        assert_eq!(other.get("/health", &[]).unwrap().status, 200);
        wire.wait_until_closed();
        newcomers.push(other);
    }
}

#[test]
fn another_certificate_is_served_when_its_files_change_and_open_connections_go_on() {
    let authority = Authority::new();
    let mut secret = Secret::new(&authority.certify(2098));
    let service = secret.serve(&[]);
    let client = authority.client();
    let mut open = Wire::open_tls(service.address(), Arc::clone(&client)).unwrap();
    assert_eq!(open.get("/health", &[]).unwrap().status, 200);
    let first = certificate_of(&open);
    assert_eq!(shown(&service, &client), first);

    secret.exchange(&authority.certify(2099));
    wait_for("the second certificate", || {
        (shown(&service, &client) != first).then_some(())
    });
    let second = shown(&service, &client);
    let metrics = open.get("/metrics", &[]).unwrap();
    assert_eq!(metrics.status, 200, "the open connection goes on");
    let ends = "kube_node_manager_tls_certificate_expiry_time_seconds 4070908800\n";
    assert!(metrics.text().contains(ends), "{}", metrics.text());

    // A pair that does not fit changes nothing and is told once, however often it is looked at.
    let broken = Certified {
        certificate: authority.certify(2099).certificate,
        key: authority.certify(2099).key,
    };
    secret.exchange(&broken);
    service.wait_for_line("the certificate stays as it is");
    for _ in 0..3 {
        service.signal("-HUP");
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(shown(&service, &client), second);
    let warnings = |text: &str| service.lines().iter().filter(|line| line.contains(text)).count();
    assert_eq!(warnings("the certificate stays as it is"), 1);
    assert_eq!(open.get("/health", &[]).unwrap().status, 200);
    let told = service.lines().concat();
    assert!(
        !told.contains("PRIVATE KEY") && !told.contains(&broken.key[30..60]),
        "{told}"
    );
}

#[test]
fn a_certificate_that_has_ended_is_warned_of() {
    let authority = Authority::new();
    let service = Secret::new(&authority.certify(2020)).serve(&[]);
    let line = service.wait_for_line("the certificate has ended");
    assert!(
        line.contains("WARN") && line.contains("2020-01-01") && line.contains("tls.crt"),
        "{line}"
    );
    assert!(Wire::open_tls(service.address(), authority.client()).is_err());
}

#[test]
fn files_that_cannot_be_served_end_the_start_with_their_names() {
    let authority = Authority::new();
    let (one, other) = (authority.certify(2099), authority.certify(2099));
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("one.crt", &one.certificate);
    write("one.key", &one.key);
    write("other.key", &other.key);
    write("empty", "");
    for (certificate, key, named) in [
        ("missing.crt", "one.key", "missing.crt"),
        ("one.crt", "missing.key", "missing.key"),
        ("empty", "one.key", "empty"),
        ("one.crt", "empty", "empty"),
        ("one.crt", "other.key", "other.key"),
        ("one.crt", "", "server.tls.key_file is missing"),
        ("", "one.key", "server.tls.cert_file is missing"),
    ] {
        let variables = [
            ("PORT", "0"),
            ("KNM__SERVER__TLS__CERT_FILE", certificate),
            ("KNM__SERVER__TLS__KEY_FILE", key),
        ];
        let output = run(PROGRAM, folder.path(), &["serve", "--demo"], &variables);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        let last = said
            .lines()
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join("\n");
        assert!(
            last.contains("error: ") && last.contains(named),
            "{certificate} {key}: {said}"
        );
        assert!(!said.contains("PRIVATE"), "{said}");
    }
}

#[test]
fn the_end_waits_for_requests_by_tls_and_not_for_greetings() {
    let authority = Authority::new();
    let mut service = Secret::new(&authority.certify(2099)).serve(&[]);
    let client = authority.client();
    wait_for_nodes(&service, &client);
    let mut silent = Wire::open(service.address());
    let mut idle = Wire::open_tls(service.address(), Arc::clone(&client)).unwrap();
    assert_eq!(idle.get("/health", &[]).unwrap().status, 200);
    let mut half = Wire::open_tls(service.address(), client).unwrap();
    half.send(format!(
        "GET {NODES} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nhalf"
    ))
    .unwrap();
    service.wait_until("it is in flight", || {
        let text = idle.get("/metrics", &[]).unwrap().text();
        text.contains("kube_node_manager_http_requests_in_flight 2\n")
    });
    service.signal("-TERM");
    service.wait_for_line("shutdown 3/5");
    silent.wait_until_closed();
    idle.wait_until_closed();
    half.send("!").unwrap();
    assert_eq!(half.reply().unwrap().status, 200);
    assert_eq!(service.wait().code(), Some(0));
}
