//! What callers may do to connections.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use knm_test_support::service::Service;
use knm_test_support::wire::Wire;

use crate::{NODES, PROGRAM, ask, demo, still};

const A_MOMENT: Duration = Duration::from_millis(300);

#[test]
fn heads_that_dribble_in_are_cut_off_while_others_are_served() {
    let service = still(&[
        ("KNM__SERVER__HEADER_READ_TIMEOUT", "2"),
        ("KNM__SERVER__IDLE_TIMEOUT", "600"),
    ]);
    let mut dribblers: Vec<Wire> = (0..50).map(|_| Wire::open(service.address())).collect();
    for dribbler in &mut dribblers {
        dribbler.send("GET /health HTTP/1.1\r\nhost: localhost\r\n").unwrap();
    }
    let mut other = Wire::open(service.address());
    // More than two seconds of drops: each alone would look alive.
    for number in 0..25 {
        for dribbler in &mut dribblers {
            // It may be cut off already.
            drop(dribbler.send(format!("x-{number}: a\r\n")));
        }
        assert_eq!(other.get(NODES, &[]).unwrap().status, 200);
        std::thread::sleep(Duration::from_millis(100));
    }
    for dribbler in &mut dribblers {
        dribbler.wait_until_closed();
    }
}

#[test]
fn a_connection_that_never_says_anything_is_closed() {
    let service = still(&[
        ("KNM__SERVER__HEADER_READ_TIMEOUT", "1"),
        ("KNM__SERVER__IDLE_TIMEOUT", "600"),
    ]);
    Wire::open(service.address()).wait_until_closed();
}

#[test]
fn a_second_head_that_dribbles_in_is_cut_off_too() {
    let service = still(&[
        ("KNM__SERVER__HEADER_READ_TIMEOUT", "1"),
        ("KNM__SERVER__IDLE_TIMEOUT", "600"),
    ]);
    let mut wire = Wire::open(service.address());
    assert_eq!(wire.get("/health", &[]).unwrap().status, 200);
    assert!(wire.is_silent_for(Duration::from_millis(1_500)), "an idle one may stay");
    wire.send("GET /health HTTP/1.1\r\n").unwrap();
    wire.wait_until_closed();
}

#[test]
fn a_head_that_begins_with_the_request_before_is_cut_off_too() {
    let service = still(&[
        ("KNM__SERVER__HEADER_READ_TIMEOUT", "1"),
        ("KNM__SERVER__IDLE_TIMEOUT", "1"),
    ]);
    let mut wire = Wire::open(service.address());
    wire.send("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\nGET /health HTTP/1.1\r\nho")
        .unwrap();
    assert_eq!(wire.reply().unwrap().status, 200);
    wire.wait_until_closed();
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let service = still(&[
        ("KNM__SERVER__IDLE_TIMEOUT", "3"),
        ("KNM__SERVER__HEADER_READ_TIMEOUT", "600"),
    ]);
    let mut wire = Wire::open(service.address());
    for _ in 0..3 {
        assert_eq!(wire.get("/health", &[]).unwrap().status, 200);
        assert!(wire.is_silent_for(A_MOMENT));
    }
    wire.wait_until_closed();
}

#[test]
fn one_connection_too_many_waits_until_one_leaves() {
    let service = still(&[("KNM__SERVER__MAX_CONNECTIONS", "3")]);
    let mut others: Vec<Wire> = (0..3).map(|_| Wire::open(service.address())).collect();
    for other in &mut others {
        // Nobody who is answered makes room.
        other
            .send("GET /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n")
            .unwrap();
    }
    let mut last = Wire::open(service.address());
    last.request("GET", "/health", &[]).unwrap();
    assert!(
        last.is_silent_for(Duration::from_millis(1_500)),
        "it is served beyond the limit"
    );
    others.pop();
    assert_eq!(last.reply().unwrap().status, 200);
    for other in &mut others {
        other.send("x").unwrap();
        assert_eq!(other.reply().unwrap().status, 200);
    }
}

#[test]
fn a_limit_of_open_files_leaves_room_for_more_than_callers() {
    let folder = tempfile::tempdir().unwrap();
    let limited = folder.path().join("limited");
    let script = format!("#!/bin/sh\nulimit -S -n 50\nulimit -H -n 200\nexec '{PROGRAM}' \"$@\"\n");
    fs::write(&limited, script).unwrap();
    fs::set_permissions(&limited, fs::Permissions::from_mode(0o755)).unwrap();
    let service = Service::start(
        &limited.display().to_string(),
        &["--demo"],
        &[("KNM__SERVER__HEADER_READ_TIMEOUT", "600")],
    );
    let line = service.wait_for_line("server.max_connections is 10000");
    assert!(line.contains("only 200 files: 100 connections are held"), "{line}");
    service.wait_until_ready();

    let silent: Vec<Wire> = (0..150).map(|_| Wire::open(service.address())).collect();
    std::thread::sleep(Duration::from_millis(1_100));
    let mut other = Wire::open(service.address());
    assert_eq!(other.get("/health/ready", &[]).unwrap().status, 200);

    assert!(
        !service
            .lines()
            .iter()
            .any(|line| line.contains("could not be accepted"))
    );
    drop(silent);
}

#[test]
fn who_was_silent_for_longest_makes_room_for_others() {
    let service = still(&[
        ("KNM__SERVER__MAX_CONNECTIONS", "4"),
        ("KNM__SERVER__HEADER_READ_TIMEOUT", "600"),
        ("KNM__SERVER__IDLE_TIMEOUT", "600"),
    ]);
    let mut idle = Wire::open(service.address());
    assert_eq!(idle.get("/health", &[]).unwrap().status, 200);
    let mut dribbling = Wire::open(service.address());
    dribbling.send("GET /hea").unwrap();
    std::thread::sleep(A_MOMENT);
    let mut nothing = Wire::open(service.address());
    let mut busy = Wire::open(service.address());
    busy.send("GET /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n")
        .unwrap();
    // Each comes into the place of the one that was silent for longest, and is then silent itself.
    let mut newcomers = Vec::new();
    for leaving in [&mut idle, &mut dribbling, &mut nothing] {
        let mut newcomer = Wire::open(service.address());
        assert_eq!(newcomer.get("/health", &[]).unwrap().status, 200);
        leaving.wait_until_closed();
        newcomers.push(newcomer);
    }
    busy.send("x").unwrap();
    assert_eq!(busy.reply().unwrap().status, 200);
    let metrics = newcomers[2].get("/metrics", &[]).unwrap().text();
    let mut lines = metrics.lines();
    let closed = lines.find_map(|line| line.strip_prefix("kube_node_manager_http_connections_closed_total "));
    assert!(3 <= closed.unwrap().parse().unwrap(), "{metrics}");
}

#[test]
fn a_reader_that_takes_nothing_is_cut_off() {
    let service = demo(
        &["--demo-nodes", "5000", "--demo-changes-per-second", "0"],
        &[
            ("KNM__SERVER__WRITE_TIMEOUT", "1"),
            ("KNM__SERVER__MAX_CONNECTIONS", "1"),
        ],
    );
    let mut stuck = Wire::open(service.address());
    for _ in 0..8 {
        stuck.request("GET", NODES, &[]).unwrap();
    }
    // Nobody else is served until the only place is free again.
    assert_eq!(ask(&service, "GET", "/health", &[]).status, 200);
    stuck.wait_until_closed();
}

#[test]
fn a_reader_that_takes_little_at_a_time_makes_room_for_others() {
    let service = demo(
        &["--demo-nodes", "5000", "--demo-changes-per-second", "0"],
        &[
            ("KNM__SERVER__WRITE_TIMEOUT", "2"),
            ("KNM__SERVER__MAX_CONNECTIONS", "1"),
        ],
    );
    let mut slow = TcpStream::connect(service.address()).unwrap();
    // Compressed, so that each answer is made while it is taken.
    let wish = format!("GET {NODES} HTTP/1.1\r\nhost: localhost\r\naccept-encoding: gzip\r\n\r\n");
    slow.write_all(wish.repeat(100).as_bytes()).unwrap();
    let reader = std::thread::spawn(move || {
        let mut piece = vec![0; 8 * 1024];
        // Each piece alone would look alive: for all of them it would take minutes.
        while slow.read(&mut piece).is_ok_and(|count| 0 < count) {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    assert_eq!(ask(&service, "GET", "/health", &[]).status, 200);
    reader.join().unwrap();
}

#[test]
fn a_body_has_its_time_in_all_and_not_per_piece() {
    let service = still(&[("KNM__SERVER__READ_TIMEOUT", "1")]);
    let mut wire = Wire::open(service.address());
    wire.send(format!(
        "GET {NODES} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n"
    ))
    .unwrap();
    for _ in 0..13 {
        // It may be cut off already.
        drop(wire.send("x"));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(wire.reply().unwrap().status, 408);
}

#[test]
fn requests_that_come_at_once_are_answered_in_their_order() {
    let service = still(&[]);
    let mut wire = Wire::open(service.address());
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    wire.send([one("/health"), one(NODES), one("/nothing"), one("/health/live")].concat())
        .unwrap();
    assert_eq!(wire.reply().unwrap().json()["status"], "healthy");
    assert!(wire.reply().unwrap().json()["items"].is_array());
    assert_eq!(wire.reply().unwrap().status, 404);
    assert_eq!(wire.reply().unwrap().json()["status"], "alive");
}

#[test]
fn the_first_version_of_http_1_is_spoken_too() {
    let service = still(&[]);
    for path in ["/health", NODES] {
        let mut wire = Wire::open(service.address());
        // It knows no header host, and no chunks.
        wire.send(format!("GET {path} HTTP/1.0\r\naccept-encoding: gzip\r\n\r\n"))
            .unwrap();
        let reply = wire.reply().unwrap();
        assert_eq!(
            (reply.status, reply.header("transfer-encoding")),
            (200, None),
            "{reply:?}"
        );
        wire.wait_until_closed();
    }
    let mut wire = Wire::open(service.address());
    for _ in 0..2 {
        wire.send("GET /health HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            .unwrap();
        let reply = wire.reply().unwrap();
        assert_eq!((reply.status, reply.header("connection")), (200, Some("keep-alive")));
    }
}
