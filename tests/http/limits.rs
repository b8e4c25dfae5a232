//! What callers may ask for, and what they may write.

use knm_test_support::service::Service;
use knm_test_support::wire::{Events, Reply, Wire};
use serde_json::{Value, json};

use crate::{NODES, ask, assert_problem, still};

const WATCH: &str = "/api/v1/clusters/demo/watch";

/// The answers to twenty requests that come at once.
fn twenty(service: &Service, path: &str, header: &str) -> Vec<Reply> {
    let mut wire = Wire::open(service.address());
    let one = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{header}\r\n");
    wire.send(one.repeat(20)).unwrap();
    (0..20).map(|_| wire.reply().unwrap()).collect()
}

fn post(service: &Service, path: &str, body: &Value) -> Reply {
    Wire::open(service.address())
        .send_json("POST", path, &[], body)
        .unwrap()
}

fn some_node(service: &Service) -> String {
    let list = ask(service, "GET", &format!("{NODES}?limit=1"), &[]).json();
    list["items"][0]["name"].as_str().unwrap().to_owned()
}

#[test]
fn a_caller_that_asks_too_much_waits_and_others_do_not() {
    let service = still(&[
        ("KNM__LIMITS__CALLER_REQUESTS_PER_SECOND", "1"),
        ("KNM__SERVER__TRUSTED_PROXIES", "127.0.0.1"),
    ]);
    let first = "x-forwarded-for: 192.0.2.1\r\n";
    for path in [NODES, "/nothing", "/docs"] {
        let replies = twenty(&service, path, first);
        let last = replies.last().unwrap();
        assert_problem(last, 429);
        assert!(last.text().contains("more than 1 requests a second"), "{}", last.text());
        let wait: u64 = last.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=2).contains(&wait), "{wait}");
    }
    let other = ["x-forwarded-for: 192.0.2.2"];
    assert_eq!(ask(&service, "GET", NODES, &other).status, 200);
    // Whoever looks after the service is never refused, nor what it asks counted.
    for path in ["/health", "/livez", "/readyz", "/metrics", "/health/ready"] {
        assert!(
            twenty(&service, path, first).iter().all(|reply| reply.status == 200),
            "{path}"
        );
    }
    let metrics = ask(&service, "GET", "/metrics", &[]).text();
    assert!(metrics.contains("route=\"/docs\",status=\"429\""), "{metrics}");
    let told = |text: &str| service.lines().iter().filter(|line| line.contains(text)).count();
    assert_eq!(told("requests were refused because there were too many"), 1);
    assert_eq!(told("\"status\":429"), 0, "not one line for each");
}

#[test]
fn all_callers_together_have_a_rate_too() {
    let service = still(&[
        ("KNM__LIMITS__REQUESTS_PER_SECOND", "1"),
        ("KNM__SERVER__TRUSTED_PROXIES", "127.0.0.1"),
    ]);
    let mut refused = 0;
    for number in 0..20 {
        let header = format!("x-forwarded-for: 192.0.2.{number}");
        let reply = ask(&service, "GET", "/openapi.json", &[&header]);
        if reply.status == 429 {
            refused += 1;
            assert!(reply.text().contains("all callers together"), "{}", reply.text());
        }
    }
    assert!(0 < refused);
}

#[test]
fn a_caller_has_so_many_event_streams_and_one_more_when_it_closes_one() {
    let service = still(&[("KNM__LIMITS__STREAMS_PER_CALLER", "2")]);
    let mut open: Vec<Events> = (0..2).map(|_| Events::open(service.address(), WATCH, &[])).collect();
    for stream in &mut open {
        assert!(stream.next_event().unwrap().is_some());
    }
    let refused = ask(&service, "GET", WATCH, &[]);
    assert_problem(&refused, 429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(ask(&service, "GET", NODES, &[]).status, 200);
    // What is not there needs no place.
    assert_problem(&ask(&service, "GET", "/api/v1/clusters/nowhere/watch", &[]), 404);
    open.pop();
    service.wait_until("a stream may be opened", || {
        let mut wire = Wire::open(service.address());
        wire.request("GET", WATCH, &[]).unwrap();
        wire.head().unwrap().status == 200
    });
}

#[test]
fn a_request_names_so_many_things_and_no_more() {
    let service = still(&[]);
    let node = some_node(&service);
    let many: serde_json::Map<_, _> = (0..101).map(|number| (format!("k{number}"), json!(""))).collect();
    let taints: Vec<_> = (0..20_000)
        .map(|number| json!({"key": format!("k{number}"), "effect": "NoSchedule"}))
        .collect();
    let selector = vec!["k"; 101].join(",");
    let target = json!({"cluster": "demo", "label_selector": "a"});
    let large = json!({"set": many});
    for (method, path, body, limit) in [
        ("PATCH", format!("{NODES}/{node}/labels"), large, "at most 100"),
        (
            "PATCH",
            format!("{NODES}/{node}/taints"),
            json!({"add": taints}),
            "at most 100",
        ),
        (
            "POST",
            format!("{NODES}/{node}/drain/plan"),
            json!({"pod_selector": selector}),
            "at most 100 requirements",
        ),
        (
            "POST",
            "/api/v1/operations".to_owned(),
            json!({"kind": "uncordon", "targets": vec![target; 101]}),
            "101 clusters are too many: at most 100",
        ),
    ] {
        let reply = Wire::open(service.address())
            .send_json(method, &path, &[], &body)
            .unwrap();
        assert_problem(&reply, 422);
        assert!(reply.text().contains(limit), "{}", reply.text());
    }
    let reply = ask(&service, "GET", &format!("{NODES}?label_selector={selector}"), &[]);
    assert_problem(&reply, 422);
    assert!(reply.text().contains("at most 100 requirements"), "{}", reply.text());
}

#[test]
fn characters_that_forge_lines_or_hide_what_is_written_are_named_and_refused() {
    let service = still(&[]);
    let node = some_node(&service);
    for (character, named) in [
        ("\r\nx-forged: 1", "\\\\r"),
        ("\u{0}", "\\\\0"),
        ("\u{1b}[31m", "\\\\u{1b}"),
        ("\u{85}", "\\\\u{85}"),
        ("\u{2028}", "\\\\u{2028}"),
        ("\u{202e}", "\\\\u{202e}"),
        ("\u{2066}", "\\\\u{2066}"),
        ("\u{feff}", "\\\\u{feff}"),
    ] {
        let text = format!("disk{character}full");
        let targets = json!({"nodes": [node]});
        for (path, body) in [
            (format!("{NODES}/{node}/cordon"), json!({"reason": text})),
            (
                format!("{NODES}/{node}/cordon"),
                json!({"reason": "fine", "ticket": text}),
            ),
            (format!("{NODES}/{node}/uncordon"), json!({"reason": text})),
            (format!("{NODES}/{node}/drain"), json!({"reason": text})),
            (
                "/api/v1/clusters/demo/operations".to_owned(),
                json!({"kind": "cordon", "targets": targets, "reason": text}),
            ),
            (
                "/api/v1/clusters/demo/operations".to_owned(),
                json!({"kind": "cordon", "targets": targets, "reason": "fine", "ticket": text}),
            ),
        ] {
            let reply = post(&service, &path, &body);
            assert_problem(&reply, 422);
            assert!(reply.text().contains(named), "{path} {body}: {}", reply.text());
            assert_eq!(reply.header("x-forged"), None);
        }
        for (path, body) in [
            ("/api/v1/templates", json!({"name": text, "labels": {"a": "b"}})),
            (
                "/api/v1/templates",
                json!({"name": "t", "description": text, "labels": {"a": "b"}}),
            ),
            ("/api/v1/templates", json!({"name": "t", "labels": {text.clone(): "b"}})),
            ("/api/v1/templates", json!({"name": "t", "labels": {"a": text}})),
            (
                "/api/v1/bindings",
                json!({"name": text, "template": "t", "label_selector": "a"}),
            ),
            (
                "/api/v1/clusters/demo/operations",
                json!({"kind": text, "targets": targets}),
            ),
            (
                "/api/v1/clusters/demo/operations",
                json!({"kind": "cordon", "reason": "a", "targets": {"nodes": [text]}}),
            ),
        ] {
            assert_problem(&post(&service, path, &body), 422);
        }
    }
    let kept = ask(&service, "GET", "/api/v1/audit", &[]).json();
    assert_eq!(kept["items"], json!([]));
}

#[test]
fn names_that_no_node_has_never_lead_to_another_route() {
    let service = still(&[]);
    let node = some_node(&service);
    for name in [
        "..",
        "%2e%2e",
        "%2e%2e%2f..",
        "a%2f..%2fb",
        &format!("{node}%2fcordon"),
        &format!("{node}%00"),
        &format!("{node}%0d%0a"),
        &format!("{node}%20"),
        &format!("..%2fnodes%2f{node}"),
        "%ff",
        "%c0%ae%c0%ae",
    ] {
        for action in ["cordon", "uncordon", "drain", "drain/plan"] {
            let reply = post(&service, &format!("{NODES}/{name}/{action}"), &json!({"reason": "a"}));
            assert!(
                matches!(reply.status, 400 | 404 | 422),
                "{name}/{action}: {}",
                reply.status
            );
            assert_problem(&reply, reply.status);
        }
    }
    for path in [
        format!("{NODES}/{node}/../{node}/cordon"),
        format!("{NODES}/{node}/./cordon"),
    ] {
        assert_problem(&post(&service, &path, &json!({"reason": "a"})), 404);
    }
    let after = ask(&service, "GET", &format!("{NODES}?schedulable=false"), &[]).json();
    let audit = ask(&service, "GET", "/api/v1/audit?outcome=succeeded", &[]).json();
    assert_eq!(audit["items"], json!([]), "{after}");
}

#[test]
fn bodies_that_mean_two_things_or_nest_for_ever_are_refused() {
    let service = still(&[]);
    let path = format!("{NODES}/{}/labels", some_node(&service));
    let deep = 100_000;
    for (body, told) in [
        (
            r#"{"set":{"a":"1"},"set":{"a":"2"}}"#.as_bytes().to_vec(),
            "the key \\\"set\\\" comes twice",
        ),
        (
            r#"{"set":{"team":"1","team":"2"}}"#.as_bytes().to_vec(),
            "the key \\\"team\\\" comes twice",
        ),
        (
            [b"{\"set\":".repeat(deep), b"}".repeat(deep)].concat(),
            "recursion limit",
        ),
        (b"[".repeat(deep), "recursion limit"),
        (b"{\"set\":{\"a\":\"\xff\"}}".to_vec(), "the body"),
    ] {
        let mut wire = Wire::open(service.address());
        let length = format!("content-length: {}", body.len());
        wire.request("PATCH", &path, &["content-type: application/json", &length])
            .unwrap();
        wire.send(&body).unwrap();
        let reply = wire.reply().unwrap();
        assert_problem(&reply, 400);
        assert!(reply.text().contains(told), "{}", reply.text());
    }
    assert_eq!(ask(&service, "GET", "/health", &[]).status, 200);
}
