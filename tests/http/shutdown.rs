//! The end: nothing that was accepted is lost.

use std::time::Duration;

use knm_test_support::service::Service;
use knm_test_support::wire::{Events, Wire};
use serde_json::Value;

use crate::{NODES, assert_problem, busy, demo, still};

/// The last line of the log.
fn last_line(service: &Service) -> Value {
    service.wait_for_line("shutdown 5/5");
    serde_json::from_str(service.lines().last().unwrap()).unwrap()
}

/// Waits until so many requests are in flight.
fn wait_for_in_flight(service: &Service, count: usize) {
    // The one that asks is in flight itself.
    let line = format!("kube_node_manager_http_requests_in_flight {}\n", count + 1);
    service.wait_until(&line, || service.get("/metrics").body.contains(&line));
}

#[test]
fn requests_whose_bodies_are_on_the_way_are_answered() {
    let mut service = still(&[]);
    let mut wires: Vec<Wire> = (0..200).map(|_| Wire::open(service.address())).collect();
    for wire in &mut wires {
        wire.send(format!(
            "GET {NODES} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhalf "
        ))
        .unwrap();
    }
    wait_for_in_flight(&service, 200);
    service.signal("-TERM");
    service.wait_for_line("shutdown 3/5");
    // Longer than any grace.
    std::thread::sleep(Duration::from_millis(300));
    for wire in &mut wires {
        wire.send("there").unwrap();
    }
    for wire in &mut wires {
        let reply = wire.reply().unwrap();
        assert_eq!(reply.json()["items"].as_array().unwrap().len(), 30);
        assert_eq!(reply.header("connection"), Some("close"));
        wire.wait_until_closed();
    }
    assert_eq!(service.wait().code(), Some(0));
    assert_eq!(last_line(&service)["fields"]["cut_off"], 0);
}

#[test]
fn answers_that_are_read_slowly_are_sent_to_their_end() {
    let mut service = demo(&["--demo-nodes", "2000", "--demo-changes-per-second", "0"], &[]);
    let mut wires: Vec<Wire> = (0..50).map(|_| Wire::open(service.address())).collect();
    for wire in &mut wires {
        wire.request("GET", NODES, &[]).unwrap();
    }
    let heads: Vec<_> = wires.iter_mut().map(|wire| wire.head().unwrap()).collect();
    service.signal("-TERM");
    service.wait_for_line("shutdown 3/5");
    std::thread::sleep(Duration::from_millis(300));
    for (wire, head) in wires.iter_mut().zip(heads) {
        let length: usize = head.header("content-length").unwrap().parse().unwrap();
        assert_eq!(wire.rest().unwrap().len(), length);
    }
    assert_eq!(service.wait().code(), Some(0));
    assert_eq!(last_line(&service)["fields"]["cut_off"], 0);
}

#[test]
fn connections_that_were_not_accepted_yet_are_served() {
    let mut service = still(&[("KNM__SERVER__MAX_CONNECTIONS", "1")]);
    let mut first = Wire::open(service.address());
    assert_eq!(first.get("/health/ready", &[]).unwrap().status, 200);
    // They wait in the queue of the operating system, their requests sent.
    let mut waiting: Vec<Wire> = (0..20).map(|_| Wire::open(service.address())).collect();
    for wire in &mut waiting {
        wire.request("GET", NODES, &[]).unwrap();
    }
    service.signal("-TERM");
    for wire in &mut waiting {
        assert_eq!(wire.reply().unwrap().status, 200);
    }
    assert_eq!(service.wait().code(), Some(0));
    assert_eq!(last_line(&service)["fields"]["cut_off"], 0);
}

#[test]
fn requests_that_were_sent_before_the_signal_are_answered_though_nobody_read_them_yet() {
    let mut service = still(&[]);
    let mut wires: Vec<Wire> = (0..100).map(|_| Wire::open(service.address())).collect();
    for wire in &mut wires {
        assert_eq!(wire.get("/health", &[]).unwrap().status, 200);
    }
    // While the process stands still, whatever is sent waits in the operating system, and then comes together with the signal.
    service.signal("-STOP");
    wires.extend((0..100).map(|_| Wire::open(service.address())));
    for wire in &mut wires {
        wire.request("GET", NODES, &[]).unwrap();
    }
    service.signal("-TERM");
    service.signal("-CONT");
    for wire in &mut wires {
        assert_eq!(wire.reply().unwrap().status, 200);
        wire.wait_until_closed();
    }
    assert_eq!(service.wait().code(), Some(0));
    assert_eq!(last_line(&service)["fields"]["cut_off"], 0);
}

#[test]
fn an_open_connection_hears_that_the_service_is_not_ready_any_more() {
    let mut service = still(&[]);
    let mut wire = Wire::open(service.address());
    assert_eq!(wire.get("/health/ready", &[]).unwrap().status, 200);
    // A request whose body is on the way is answered whatever time it takes.
    wire.send("GET /health/ready HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n")
        .unwrap();
    let mut idle = Wire::open(service.address());
    assert_eq!(idle.get("/health/ready", &[]).unwrap().status, 200);
    service.signal("-TERM");
    service.wait_for_line("shutdown 1/5");
    wire.send("x").unwrap();
    let reply = wire.reply().unwrap();
    assert_eq!(
        (reply.status, reply.json()["status"].as_str()),
        (503, Some("not ready"))
    );
    // Within the grace also one that was idle; after it, the connection is closed.
    if let Ok(reply) = idle.get("/health/ready", &[]) {
        assert_eq!(reply.status, 503);
    }
    idle.wait_until_closed();
    assert_eq!(service.wait().code(), Some(0));
}

#[test]
fn what_never_ends_is_cut_off_and_counted() {
    let mut service = still(&[("KNM__SERVER__SHUTDOWN_TIMEOUT", "1")]);
    let mut wires: Vec<Wire> = (0..7).map(|_| Wire::open(service.address())).collect();
    for wire in &mut wires {
        wire.send(format!(
            "GET {NODES} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhalf "
        ))
        .unwrap();
    }
    wait_for_in_flight(&service, 7);
    service.signal("-TERM");
    assert_eq!(service.wait().code(), Some(0));
    let last = last_line(&service);
    assert_eq!(last["fields"]["cut_off"], 7, "{last}");
    for wire in &mut wires {
        wire.wait_until_closed();
    }
}

#[test]
fn idle_connections_and_half_sent_heads_do_not_hold_the_end() {
    let mut service = still(&[("KNM__SERVER__SHUTDOWN_TIMEOUT", "1")]);
    let mut idle = Wire::open(service.address());
    assert_eq!(idle.get("/health", &[]).unwrap().status, 200);
    let mut half = Wire::open(service.address());
    half.send("GET /health HTT").unwrap();
    service.signal("-TERM");
    assert_eq!(service.wait().code(), Some(0));
    assert_eq!(last_line(&service)["fields"]["cut_off"], 0);
}

#[test]
fn event_streams_get_a_last_event() {
    let mut service = demo(&["--demo-changes-per-second", "50"], &[]);
    let path = "/api/v1/clusters/demo/watch";
    let mut streams: Vec<Events> = (0..5).map(|_| Events::open(service.address(), path, &[])).collect();
    for stream in &mut streams {
        while stream.next_event().unwrap().unwrap().kind != "synced" {}
    }
    service.signal("-TERM");
    for stream in &mut streams {
        let mut last = None;
        while let Some(event) = stream.next_event().unwrap() {
            last = Some(event);
        }
        let last = last.unwrap();
        assert_eq!(
            (last.kind.as_str(), last.data.as_str()),
            ("end", r#"{"reason":"shutdown"}"#)
        );
    }
    assert_eq!(service.wait().code(), Some(0));
    let last = last_line(&service);
    assert_eq!(last["fields"]["cut_off"], 0, "{last}");
    // Far from the 30 s that requests in flight may take.
    assert!(last["fields"]["took_ms"].as_u64().unwrap() < 20_000, "{last}");
}

#[test]
fn who_asks_for_a_stream_at_the_end_is_told_at_once() {
    let mut service = still(&[]);
    let mut wire = Wire::open(service.address());
    wire.send("GET /api/v1/clusters/demo/watch HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n")
        .unwrap();
    let mut other = Wire::open(service.address());
    other.send("GET /nothing HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    assert_problem(&other.reply().unwrap(), 404);
    service.signal("-TERM");
    service.wait_for_line("shutdown 3/5");
    wire.send("x").unwrap();
    assert_eq!(
        wire.reply().unwrap().text(),
        "event: end\ndata: {\"reason\":\"shutdown\"}\n\n"
    );
    assert_eq!(service.wait().code(), Some(0));
}

#[test]
fn streams_that_nobody_reads_do_not_hold_the_end_for_ever() {
    let mut service = busy(
        &["--demo-nodes", "10000", "--demo-changes-per-second", "1000"],
        &[("KNM__SERVER__SHUTDOWN_TIMEOUT", "1")],
    );
    let mut wires: Vec<Wire> = (0..3).map(|_| Wire::open(service.address())).collect();
    for wire in &mut wires {
        wire.request("GET", "/api/v1/clusters/demo/watch", &[]).unwrap();
        assert_eq!(wire.head().unwrap().status, 200);
    }
    service.signal("-TERM");
    assert_eq!(service.wait().code(), Some(0));
    for wire in &mut wires {
        wire.wait_until_closed();
    }
}
