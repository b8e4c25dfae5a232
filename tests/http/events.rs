//! Node changes as server-sent events.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use knm_test_support::service::Service;
use knm_test_support::wire::{Events, SentEvent, Wire};
use serde_json::Value;

use crate::{NODES, ask, assert_problem, demo, still};

const WATCH: &str = "/api/v1/clusters/demo/watch";

fn json(event: &SentEvent) -> Value {
    serde_json::from_str(&event.data).unwrap()
}

#[track_caller]
fn next(events: &mut Events) -> SentEvent {
    events.next_event().unwrap().expect("the stream goes on")
}

/// Opens a stream and reads it until all known nodes were told; the last event that was read has an id.
fn synced(service: &Service) -> (Events, SentEvent) {
    let mut events = Events::open(service.address(), WATCH, &[]);
    loop {
        let event = next(&mut events);
        if event.kind == "synced" {
            return (events, event);
        }
    }
}

fn changing() -> Service {
    demo(&["--demo-changes-per-second", "100"], &[])
}

#[test]
fn a_stream_tells_the_known_nodes_and_then_what_changes() {
    let service = changing();
    let mut events = Events::open(service.address(), WATCH, &[]);
    let start = next(&mut events);
    assert_eq!((start.kind.as_str(), start.id.as_str()), ("snapshot", ""));
    let start = json(&start);
    assert_eq!(
        (&start["cluster"], &start["resumed"], &start["reason"]),
        (&"demo".into(), &false.into(), &Value::Null)
    );
    assert_eq!((&start["total"], &start["stale"]), (&30.into(), &false.into()));
    let mut names = BTreeSet::new();
    for _ in 0..30 {
        let event = next(&mut events);
        // Whoever breaks off here has not seen all: there is nothing to go on after yet.
        assert_eq!((event.kind.as_str(), event.id.as_str()), ("added", ""));
        names.insert(json(&event)["name"].as_str().unwrap().to_owned());
    }
    assert_eq!(names.len(), 30);
    let synced = next(&mut events);
    assert_eq!((synced.kind.as_str(), synced.id.is_empty()), ("synced", false));
    let mut ids = BTreeSet::from([synced.id]);
    for _ in 0..50 {
        let event = next(&mut events);
        assert!(
            matches!(event.kind.as_str(), "added" | "modified" | "deleted"),
            "{event:?}"
        );
        assert!(ids.insert(event.id.clone()), "{} comes twice", event.id);
        assert!(json(&event)["resource_version"].is_string());
    }
}

#[test]
fn a_reader_that_comes_back_misses_nothing_and_gets_nothing_twice() {
    let service = changing();
    let (mut whole, start) = synced(&service);
    let expected: Vec<SentEvent> = (0..120).map(|_| next(&mut whole)).collect();
    let mut got = Vec::new();
    let mut last = start.id;
    // In the header and in the query, in turns.
    for turn in 0..4 {
        let mut events = match turn % 2 {
            0 => Events::open(service.address(), WATCH, &[&format!("last-event-id: {last}")]),
            _ => Events::open(service.address(), &format!("{WATCH}?last_event_id={last}"), &[]),
        };
        let start = next(&mut events);
        assert_eq!(start.kind, "snapshot");
        let view = json(&start);
        assert_eq!(
            (&view["resumed"], &view["reason"], &view["total"]),
            (&true.into(), &Value::Null, &Value::Null)
        );
        for _ in 0..30 {
            let event = next(&mut events);
            last.clone_from(&event.id);
            got.push(event);
        }
        drop(events);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(got, expected);
}

#[test]
fn who_breaks_off_right_after_resuming_loses_nothing() {
    let service = changing();
    let (mut whole, start) = synced(&service);
    let expected: Vec<SentEvent> = (0..20).map(|_| next(&mut whole)).collect();
    let mut events = Events::open(service.address(), WATCH, &[&format!("last-event-id: {}", start.id)]);
    let marker = next(&mut events);
    drop(events);
    // A browser goes on after the last id that it saw, also if that was the marker's.
    let last = if marker.id.is_empty() { start.id } else { marker.id };
    let mut events = Events::open(service.address(), WATCH, &[&format!("last-event-id: {last}")]);
    assert_eq!(json(&next(&mut events))["resumed"], true);
    let got: Vec<SentEvent> = (0..20).map(|_| next(&mut events)).collect();
    assert_eq!(got, expected);
}

#[test]
fn the_header_comes_before_the_query() {
    let service = still(&[]);
    let (_, start) = synced(&service);
    let path = format!("{WATCH}?last_event_id=nonsense");
    let mut events = Events::open(service.address(), &path, &[&format!("last-event-id: {}", start.id)]);
    assert_eq!(json(&next(&mut events))["resumed"], true);
}

#[test]
fn an_id_that_is_not_known_any_more_starts_anew_and_says_so() {
    let other = still(&[]);
    let (_, foreign) = synced(&other);
    let service = changing();
    let mut events = Events::open(service.address(), WATCH, &[&format!("last-event-id: {}", foreign.id)]);
    let start = json(&next(&mut events));
    assert_eq!((&start["resumed"], &start["total"]), (&false.into(), &30.into()));
    assert!(
        start["reason"].as_str().is_some_and(|reason| !reason.is_empty()),
        "{start}"
    );
    assert_eq!(next(&mut events).kind, "added");
}

#[test]
fn an_id_that_is_none_is_a_422() {
    let service = still(&[]);
    for id in [
        "nonsense", "1", "-", "1-", "-1", "a b", "1-2-3", "\"", "../x", "ü", "\u{ff}",
    ] {
        let reply = ask(&service, "GET", WATCH, &[&format!("last-event-id: {id}")]);
        assert_problem(&reply, 422);
        assert_eq!(reply.json()["errors"][0]["parameter"], "last_event_id", "{id}");
    }
    assert_problem(
        &ask(&service, "GET", &format!("{WATCH}?last_event_id=nonsense"), &[]),
        422,
    );
    // An empty one is what a browser sends that has seen none.
    let mut events = Events::open(service.address(), WATCH, &["last-event-id: "]);
    assert_eq!(json(&next(&mut events))["reason"], Value::Null);
}

#[test]
fn a_stream_and_the_list_agree() {
    let service = changing();
    let (mut events, _) = synced(&service);
    let mut versions: BTreeMap<String, String> = BTreeMap::new();
    let text = |node: &Value, key: &str| node[key].as_str().unwrap().to_owned();
    for _ in 0..60 {
        let event = next(&mut events);
        let node = json(&event);
        match event.kind.as_str() {
            "deleted" => versions.remove(&text(&node, "name")),
            _ => versions.insert(text(&node, "name"), text(&node, "resource_version")),
        };
    }
    let list = ask(&service, "GET", NODES, &[]).json();
    for node in list["items"].as_array().unwrap() {
        if let Some(told) = versions.get(node["name"].as_str().unwrap()) {
            let (told, now): (u64, u64) = (told.parse().unwrap(), text(node, "resource_version").parse().unwrap());
            assert!(told <= now, "the list is behind the stream: {}", node["name"]);
        }
    }
}

#[test]
fn a_reader_that_takes_nothing_is_cut_off_and_costs_no_memory() {
    let service = demo(
        &["--demo-nodes", "2000", "--demo-changes-per-second", "2000"],
        &[("KNM__SERVER__WRITE_TIMEOUT", "2")],
    );
    let resident = || {
        let health = service.get("/health/detailed").json();
        health["details"]["system"]["data"]["memory"]["alloc_mb"]
            .as_u64()
            .unwrap()
    };
    let mut readers: Vec<Wire> = (0..10).map(|_| Wire::open(service.address())).collect();
    for reader in &mut readers {
        reader.request("GET", WATCH, &[]).unwrap();
        assert_eq!(reader.head().unwrap().status, 200);
    }
    let before = resident();
    let open = || {
        let metrics = service.get("/metrics").body;
        let line = metrics
            .lines()
            .find(|line| line.starts_with("kube_node_manager_http_connections "));
        line.and_then(|line| line.split(' ').nth(1)?.parse::<f64>().ok())
            .unwrap()
    };
    // The one that asks is open itself, and the one before it perhaps, too.
    let cut_off = (0..3_000).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        open() < 2.0
    });
    assert!(cut_off, "the readers are still served");
    let after = resident();
    assert!(after < before + 64, "{before} MiB became {after} MiB");
    for reader in &mut readers {
        reader.wait_until_closed();
    }
}

#[test]
fn a_reader_that_falls_behind_is_told_so() {
    let service = demo(&["--demo-nodes", "2000", "--demo-changes-per-second", "5000"], &[]);
    let mut events = Events::open(service.address(), WATCH, &[]);
    assert_eq!(next(&mut events).kind, "snapshot");
    // It pauses for less than it may, while more happens than is kept for it.
    std::thread::sleep(Duration::from_secs(5));
    let mut last = SentEvent::default();
    while let Some(event) = events.next_event().unwrap() {
        last = event;
        if last.kind == "end" {
            break;
        }
    }
    assert_eq!(
        (last.kind.as_str(), last.data.as_str()),
        ("end", r#"{"reason":"lagged"}"#)
    );
    assert_eq!(events.next_event().unwrap(), None);
    assert_eq!(ask(&service, "GET", NODES, &[]).status, 200);
}

#[test]
fn a_stream_without_news_says_that_it_is_alive() {
    let service = still(&[("KNM__SERVER__WRITE_TIMEOUT", "1"), ("KNM__SERVER__IDLE_TIMEOUT", "1")]);
    let (mut events, _) = synced(&service);
    // An id here would make a reader forget where it was.
    let beat = next(&mut events);
    assert_eq!((beat.kind.as_str(), beat.id.as_str()), ("heartbeat", ""));
}
