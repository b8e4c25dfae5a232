//! The audit log of a service with which little or nothing was tried yet. `tests/audit.rs` has many records.

use knm_test_support::wire::Wire;
use serde_json::json;

use crate::{NODES, ask, assert_problem, still};

const HISTORY: &str = "/api/v1/clusters/demo/nodes/gone-long-ago/history";

#[test]
fn nothing_was_tried_yet_as_a_list_and_as_lines() {
    let service = still(&[]);
    for path in ["/api/v1/audit", HISTORY, "/api/v1/audit?cluster=removed&limit=1000"] {
        let list = ask(&service, "GET", path, &[]);
        assert_eq!(list.status, 200, "{}", list.text());
        assert_eq!(list.header("content-type"), Some("application/json"));
        assert_eq!(list.json(), serde_json::json!({"items": [], "next_cursor": null}));
        assert!(list.all("vary").contains(&"accept"), "{list:?}");

        let lines = ask(&service, "GET", path, &["accept: application/x-ndjson"]);
        assert_eq!((lines.status, lines.body.len()), (200, 0));
        assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    }
}

#[test]
fn the_story_of_a_node_is_its_own() {
    let service = still(&[]);
    let list = ask(
        &service,
        "GET",
        &format!("{NODES}?role=worker&schedulable=true&limit=2"),
        &[],
    )
    .json();
    let name = |place: usize| list["items"][place]["name"].as_str().unwrap().to_owned();
    for (place, reason) in [(0, "disk"), (1, "fan")] {
        let mut wire = Wire::open(service.address());
        let path = format!("{NODES}/{}/cordon", name(place));
        let reply = wire.send_json("POST", &path, &[], &json!({"reason": reason})).unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let history = ask(&service, "GET", &format!("{NODES}/{}/history", name(0)), &[]).json();
    let items = history["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "{history}");
    assert_eq!(
        (&items[0]["node"], &items[0]["reason"], &items[0]["outcome"]),
        (&json!(name(0)), &json!("disk"), &json!("succeeded"))
    );
    let filtered = format!("{NODES}/{}/history?action=node.drain", name(0));
    assert_eq!(ask(&service, "GET", &filtered, &[]).json()["items"], json!([]));
    assert_eq!(
        ask(&service, "GET", "/api/v1/audit", &[]).json()["items"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
}

#[test]
fn what_is_not_there_is_a_404() {
    let service = still(&[]);
    for path in [
        "/api/v1/audit/01b8dac5-b400-7000-8000-00000000000a",
        "/api/v1/audit/nonsense",
        "/api/v1/audit/",
        "/api/v1/clusters/nowhere/nodes/a/history",
        "/api/v1/clusters/nowhere/nodes/a/history?limit=x",
        "/api/v1/clusters/demo/nodes/No_Name/history",
    ] {
        assert_problem(&ask(&service, "GET", path, &[]), 404);
    }
}

#[test]
fn all_wrong_parameters_are_told_at_once() {
    let service = still(&[]);
    let query = "action=node.explode&outcome=happy&from=yesterday&until=%00&reason=&operation=7&limit=1001&cursor=x";
    for (list, more) in [("/api/v1/audit", "&cluster=Prod&node=a_b&actor="), (HISTORY, "&actor=")] {
        for accept in ["accept: application/json", "accept: application/x-ndjson"] {
            let reply = ask(&service, "GET", &format!("{list}?{query}{more}"), &[accept]);
            assert_problem(&reply, 422);
            let expected = query.matches('=').count() + more.matches('=').count();
            assert_eq!(
                reply.json()["errors"].as_array().unwrap().len(),
                expected,
                "{}",
                reply.text()
            );
        }
    }
    let unknown = ask(&service, "GET", &format!("{HISTORY}?node=a"), &[]);
    assert_problem(&unknown, 422);
}
