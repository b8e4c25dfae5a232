//! Health and metrics on a port of their own.

use std::net::SocketAddr;

use knm_test_support::service::Service;
use knm_test_support::wire::{Reply, Wire};

use crate::{NODES, PROGRAM, ask, assert_problem};

const ROUTINE: [&str; 9] = [
    "/health",
    "/health/",
    "/health/live",
    "/health/ready",
    "/health/detailed",
    "/livez",
    "/readyz",
    "/readyz/database",
    "/metrics",
];

fn apart(variables: &[(&str, &str)]) -> (Service, SocketAddr) {
    let port = [("KNM__SERVER__MANAGEMENT_PORT", "0")];
    let arguments = ["--demo", "--demo-changes-per-second", "0"];
    let service = Service::start(PROGRAM, &arguments, &[&port, variables].concat());
    let line = service.wait_for_line("health and metrics on port");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = line["fields"]["address"].as_str().unwrap().parse().unwrap();
    service.wait_until("it is ready", || get(address, "/health/ready").status == 200);
    service.wait_for_status(NODES, 200);
    (service, address)
}

fn get(address: SocketAddr, path: &str) -> Reply {
    Wire::open(address).get(path, &[]).unwrap()
}

#[test]
fn each_path_is_on_one_of_the_two_ports() {
    let (service, management) = apart(&[]);
    for path in ROUTINE {
        assert_eq!(get(management, path).status, 200, "{path}");
        let reply = ask(&service, "GET", path, &[]);
        assert_problem(&reply, 404);
        assert!(reply.text().contains("port of their own"), "{}", reply.text());
        assert_problem(&ask(&service, "POST", path, &[]), 404);
    }
    for path in [
        NODES,
        "/api/v1/nodes",
        "/api/v1/audit",
        "/openapi.json",
        "/docs",
        "/nothing",
    ] {
        let reply = get(management, path);
        assert_problem(&reply, 404);
        assert!(reply.text().contains("on this port"), "{}", reply.text());
    }
    for path in [NODES, "/openapi.json"] {
        assert_eq!(ask(&service, "GET", path, &[]).status, 200, "{path}");
    }
}

#[test]
fn the_limits_hold_there_too() {
    let (_service, management) = apart(&[("KNM__SERVER__HEADER_READ_TIMEOUT", "1")]);
    let mut silent = Wire::open(management);
    silent.send("GET /health HTTP/1.1\r\n").unwrap();
    silent.wait_until_closed();
    let long = format!("/health?x={}", "a".repeat(9_000));
    assert_problem(&get(management, &long), 414);
}

#[test]
fn probes_see_that_it_is_not_ready_until_the_last_request_is_answered() {
    let (mut service, management) = apart(&[]);
    let mut half = Wire::open(service.address());
    half.send(format!(
        "GET {NODES} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nhalf"
    ))
    .unwrap();
    service.wait_until("it is in flight", || {
        let text = get(management, "/metrics").text();
        text.contains("kube_node_manager_http_requests_in_flight 2\n")
    });
    service.signal("-TERM");
    service.wait_for_line("shutdown 3/5");
    for _ in 0..3 {
        // New connections, too, though the other port takes none any more.
        let reply = get(management, "/health/ready");
        assert_eq!(
            (reply.status, reply.json()["status"].as_str()),
            (503, Some("not ready"))
        );
        assert_eq!(get(management, "/health/live").status, 200);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    half.send("!").unwrap();
    assert_eq!(half.reply().unwrap().status, 200);
    assert_eq!(service.wait().code(), Some(0));
}

#[test]
fn a_port_that_is_taken_ends_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let variables = [("PORT", "0"), ("KNM__SERVER__MANAGEMENT_PORT", port.as_str())];
    let output = knm_test_support::service::run(PROGRAM, folder.path(), &["serve", "--demo"], &variables);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains(&format!("127.0.0.1:{port} cannot be listened on")),
        "{said}"
    );
}
