//! The service as a whole, on the built binary.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use knm_test_support::service::Service;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");

fn demo(arguments: &[&str], variables: &[(&str, &str)]) -> Service {
    let arguments: Vec<&str> = ["--demo"].iter().chain(arguments).copied().collect();
    let service = Service::start(PROGRAM, &arguments, variables);
    service.wait_until_ready();
    service
}

#[test]
fn the_first_lines_say_what_runs() {
    let service = demo(&[], &[]);
    for text in [
        "\"starting\"",
        "no configuration file",
        "storage opened",
        "cluster watched",
        "server starting on port",
    ] {
        service.wait_for_line(text);
    }
}

#[test]
fn a_json_line_has_the_promised_frame() {
    let service = demo(&[], &[("SERVICE_NAME", "nodes"), ("INSTANCE_ID", "pod-1")]);
    let line = service.wait_for_line("server starting on port");
    let value: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&value["service"], &value["hostname"], &value["level"]),
        (&"nodes".into(), &"pod-1".into(), &"INFO".into())
    );
    assert_eq!(value["fields"]["port"], service.address().port().to_string());
    assert_eq!(value["fields"]["mode"], "release");
    assert_eq!(
        value["timestamp"].as_str().unwrap().len(),
        "2023-12-07T10:30:00.123456789Z".len()
    );
    assert!(
        value["caller"].as_str().unwrap().starts_with("src/servers.rs:"),
        "{line}"
    );
    let mut place = 0;
    for key in [
        "timestamp",
        "level",
        "service",
        "version",
        "hostname",
        "message",
        "caller",
        "fields",
    ] {
        let at = line.find(&format!("\"{key}\":")).unwrap();
        assert!(place <= at, "{key} is out of order in {line}");
        place = at;
    }
}

#[test]
fn health_answers_have_the_promised_shape() {
    let service = demo(&[], &[]);
    let basic = service.get("/health").json();
    assert_eq!(
        (&basic["status"], &basic["service"]),
        (&"healthy".into(), &"kube-node-manager".into())
    );
    assert!(basic["uptime"].as_str().unwrap().ends_with('s') && basic["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(service.get("/health/live").json()["status"], "alive");
    let detailed = service.get("/health/detailed").json();
    assert_eq!(detailed["details"]["database"]["data"]["max_open_connections"], 1);
    assert!(detailed["details"]["system"]["data"]["memory"]["alloc_mb"].is_u64());
    assert!(detailed["details"]["runtime"]["go_version"].is_null());
    assert!(
        detailed["details"]["runtime"]["rust_version"]
            .as_str()
            .unwrap()
            .starts_with("1.")
    );
}

#[test]
fn each_signal_ends_everything_in_order_with_exit_code_0() {
    for signal in ["TERM", "INT"] {
        let mut service = demo(&[], &[]);
        service.signal(&format!("-{signal}"));
        assert_eq!(service.wait().code(), Some(0));
        let lines = service.lines().join("\n");
        assert!(lines.contains(&format!("\"signal\":\"SIG{signal}\"")), "{lines}");
        let mut place = 0;
        for step in 1..=5 {
            let step = format!("shutdown {step}/5");
            let at = lines
                .find(&step)
                .unwrap_or_else(|| panic!("{step} is missing in {lines}"));
            assert!(place <= at, "{step} is out of order in {lines}");
            place = at;
        }
        let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        assert_eq!(last["fields"]["cut_off"], 0);
        assert!(last["fields"]["took_ms"].is_u64());
    }
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let mut service = demo(&["--demo-nodes", "10000"], &[]);
    service.wait_for_status("/api/v1/clusters/demo/nodes", 200);
    // Somebody who asks for more than all buffers hold and does not read holds the first shutdown.
    let mut stuck = TcpStream::connect(service.address()).unwrap();
    for _ in 0..8 {
        stuck
            .write_all(b"GET /api/v1/clusters/demo/nodes HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .unwrap();
    }
    stuck.read_exact(&mut [0]).unwrap();
    service.signal("-INT");
    service.wait_for_line("shutdown 3/5");
    service.signal("-INT");
    assert_eq!(service.wait().code(), Some(130));
}

#[test]
fn sighup_reads_the_logging_section_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, "logging:\n  level: info\n").unwrap();
    let service = demo(&["--config", file.to_str().unwrap()], &[]);
    std::fs::write(&file, "logging:\n  level: debug\n").unwrap();
    service.signal("-HUP");
    assert!(
        service
            .wait_for_line("logging read again")
            .contains("\"level\":\"debug\"")
    );
    std::fs::write(&file, "logging:\n  level: loud\n").unwrap();
    service.signal("-HUP");
    let line = service.wait_for_line("the log stays as it is");
    assert!(
        line.contains("logging.level") && line.contains("loud") && line.contains("config.yaml"),
        "it says why: {line}"
    );
    assert_eq!(service.get("/health/live").status, 200);
    assert!(
        service
            .wait_for_line("\"route\":\"/health/live\"")
            .contains("\"DEBUG\""),
        "the level is still the one before"
    );
}

#[test]
fn the_demo_serves_its_nodes_and_leaves_no_folder_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut service = demo(
        &["--demo-nodes", "12"],
        &[("TMPDIR", temporary.path().to_str().unwrap())],
    );
    assert!(service.address().ip().is_loopback());
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 1);
    service.wait_for_status("/api/v1/clusters/demo/nodes", 200);
    service.signal("-TERM");
    assert_eq!(service.wait().code(), Some(0));
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}
