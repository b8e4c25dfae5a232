//! Operations over HTTP, on the demo.

use knm_test_support::patience::wait_for;
use knm_test_support::service::Service;
use knm_test_support::wire::{Reply, Wire};
use serde_json::{Value, json};

use crate::{NODES, ask, assert_problem, demo, still};

const OPERATIONS: &str = "/api/v1/operations";
/// Removes whatever runs on a node of the demo.
const EVERYTHING: &str = r#"{"force": true, "ignore_daemonsets": true, "delete_emptydir_data": true}"#;

fn post(service: &Service, path: &str, headers: &[&str], body: &Value) -> Reply {
    let mut wire = Wire::open(service.address());
    wire.send_json("POST", path, headers, body).unwrap()
}

fn everything() -> Value {
    serde_json::from_str(EVERYTHING).unwrap()
}

/// The names of workers whose plans are like this: how many pods are evicted, and how many can never be.
fn workers(service: &Service, is_wanted: impl Fn(u64, u64) -> bool) -> Vec<String> {
    let list = ask(service, "GET", &format!("{NODES}?role=worker"), &[]).json();
    let names = list["items"].as_array().unwrap().iter();
    let names = names.map(|node| node["name"].as_str().unwrap().to_owned());
    let suits = |name: &String| {
        let plan = post(service, &format!("{NODES}/{name}/drain/plan"), &[], &everything()).json();
        let total = |key: &str| plan["totals"][key].as_u64().unwrap();
        is_wanted(total("evict"), total("never"))
    };
    names.filter(suits).collect()
}

fn shown(service: &Service, id: &str) -> Value {
    ask(service, "GET", &format!("{OPERATIONS}/{id}"), &[]).json()
}

fn wait_for_state(service: &Service, id: &str, state: &str) -> Value {
    wait_for(&format!("the operation to be {state}"), || {
        let operation = shown(service, id);
        (operation["state"] == state).then_some(operation)
    })
}

#[test]
fn a_drain_is_accepted_followed_and_done() {
    let service = still(&[]);
    let node = &workers(&service, |evict, never| 0 < evict && never == 0)[0];

    let reply = post(&service, &format!("{NODES}/{node}/drain"), &[], &everything());

    assert_eq!(reply.status, 202, "{}", reply.text());
    let accepted = reply.json();
    let id = accepted["id"].as_str().unwrap();
    assert_eq!(reply.header("location"), Some(format!("{OPERATIONS}/{id}").as_str()));
    assert_eq!(
        (&accepted["kind"], &accepted["targets"][0]["node"]),
        (&json!("drain"), &json!(node))
    );

    let mut wire = Wire::open(service.address());
    let stream = wire.get(&format!("{OPERATIONS}/{id}/events"), &[]).unwrap();
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    let text = stream.text();
    for expected in [
        "event: pod",
        "\"state\":\"terminating\"",
        "\"state\":\"gone\"",
        "\"state\":\"succeeded\"",
        "\"reason\":\"over\"",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    // Whoever comes back gets what it missed.
    let rest = ask(
        &service,
        "GET",
        &format!("{OPERATIONS}/{id}/events"),
        &["last-event-id: 3"],
    )
    .text();
    assert!(rest.starts_with("id: 4\n"), "{rest}");
    assert_eq!(text[text.find("id: 4\n").unwrap()..], rest);

    let operation = shown(&service, id);
    assert_eq!(operation["state"], "succeeded");
    assert_eq!(
        operation["progress"],
        json!({"total": 1, "done": 1, "failed": 0, "skipped": 0})
    );
    let pods = operation["targets"][0]["drain"]["pods"].as_array().unwrap();
    assert!(pods.iter().all(|pod| pod["state"] == "gone"), "{pods:?}");
    let drained = ask(&service, "GET", &format!("{NODES}/{node}"), &[]).json();
    assert_eq!(drained["cordon"]["holds"][0]["id"], operation["targets"][0]["hold_id"]);
    let audit = ask(&service, "GET", &format!("/api/v1/audit?operation={id}"), &[]).json();
    assert_eq!(audit["items"].as_array().unwrap().len(), 1);
    assert_eq!(audit["items"][0]["id"], operation["targets"][0]["audit_id"]);
}

#[test]
fn a_budget_blocks_a_drain_which_can_be_paused_resumed_and_cancelled() {
    let service = still(&[]);
    let node = &workers(&service, |evict, never| never == 1 && 1 < evict)[0];
    let options =
        json!({"force": true, "ignore_daemonsets": true, "delete_emptydir_data": true, "on_cancel": "restore"});
    let id = post(&service, &format!("{NODES}/{node}/drain"), &[], &options).json()["id"].clone();
    let id = id.as_str().unwrap();
    let blocked = wait_for("a blocked pod", || {
        let pods = shown(&service, id)["targets"][0]["drain"]["pods"].clone();
        let blocked = pods.as_array()?.iter().find(|pod| pod["state"] == "blocked").cloned();
        let others = pods.as_array()?.iter().filter(|pod| pod["state"] == "gone").count();
        blocked.filter(|_| 0 < others)
    });
    let budget = blocked["disruption_budget"].as_str().unwrap();
    assert!(blocked["reason"].as_str().unwrap().contains(budget), "{blocked}");

    let wish = |wish: &str| post(&service, &format!("{OPERATIONS}/{id}/{wish}"), &[], &json!({}));
    for (name, state) in [
        ("pause", "paused"),
        ("pause", "paused"),
        ("resume", "running"),
        ("resume", "running"),
    ] {
        let reply = wish(name);
        assert_eq!(
            (reply.status, reply.json()["state"].clone()),
            (200, json!(state)),
            "{name}"
        );
    }
    assert_problem(&wish("retry"), 409);
    assert_eq!(wish("cancel").status, 200);
    let cancelled = wait_for_state(&service, id, "cancelled");
    assert_eq!(cancelled["targets"][0]["state"], "cancelled");
    let node = ask(&service, "GET", &format!("{NODES}/{node}"), &[]).json();
    assert_eq!((&node["schedulable"], &node["cordon"]), (&json!(true), &Value::Null));
    assert_eq!(wish("cancel").status, 200);
    let refused = wish("resume");
    assert_problem(&refused, 409);
    assert!(
        refused
            .text()
            .contains("an operation that is cancelled cannot be resumed")
    );
}

#[test]
fn a_batch_changes_many_nodes_in_the_order_that_was_asked_for() {
    let service = still(&[]);
    let wanted = json!({
        "kind": "label", "targets": {"label_selector": "!node-role.kubernetes.io/control-plane"},
        "options": {"set": {"team": "web"}}, "strategy": {"order": "by_zone", "max_concurrent": 4},
    });
    let reply = post(
        &service,
        "/api/v1/clusters/demo/operations",
        &["idempotency-key: k"],
        &wanted,
    );
    assert_eq!(reply.status, 202, "{}", reply.text());
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    let again = post(
        &service,
        "/api/v1/clusters/demo/operations",
        &["idempotency-key: k"],
        &wanted,
    );
    assert_eq!(
        (again.status, again.header("idempotency-replayed")),
        (202, Some("true"))
    );
    assert_eq!(again.header("location"), reply.header("location"));

    let done = wait_for_state(&service, &id, "succeeded");

    let labelled = ask(
        &service,
        "GET",
        &format!("{NODES}?label_selector=team%3Dweb&limit=1"),
        &[],
    )
    .json();
    assert_eq!(done["progress"]["done"], labelled["total"]);
    let zones: Vec<String> = done["targets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|target| {
            let node = ask(
                &service,
                "GET",
                &format!("{NODES}/{}", target["node"].as_str().unwrap()),
                &[],
            )
            .json();
            node["zone"].to_string()
        })
        .collect();
    assert!(zones.is_sorted(), "{zones:?}");

    let across = json!({
        "kind": "label", "options": {"remove": ["team"]}, "strategy": {"order": "least_pods_first"},
        "targets": [{"cluster": "demo", "label_selector": "team=web"}],
    });
    let reply = post(&service, OPERATIONS, &[], &across);
    assert_eq!(reply.status, 202, "{}", reply.text());
    wait_for_state(&service, reply.json()["id"].as_str().unwrap(), "succeeded");

    let list = |query: &str| {
        let list = ask(&service, "GET", &format!("{OPERATIONS}?{query}"), &[]).json();
        list["items"].as_array().unwrap().len()
    };
    assert_eq!(
        (list("kind=label"), list("kind=drain"), list("state=queued,running")),
        (2, 0, 0)
    );
    assert_eq!(
        (
            list("cluster=demo&limit=1"),
            list("cluster=moon"),
            list("actor=anonymous")
        ),
        (1, 0, 2)
    );
    let node = done["targets"][0]["node"].as_str().unwrap();
    let accepted = done["created_at"].as_str().unwrap();
    assert_eq!(
        (
            list(&format!("node={node}")),
            list(&format!("cluster=demo&node={node}&kind=drain")),
            list("node=ghost")
        ),
        (2, 0, 0)
    );
    // `until` leaves out what was accepted at that moment.
    assert_eq!(
        (
            list(&format!("from={accepted}")),
            list(&format!("until={accepted}")),
            list("from=2001-01-01T00:00:00Z&until=2001-01-02T00:00:00Z")
        ),
        (2, 0, 0)
    );
}

#[test]
fn what_is_wrong_is_told_with_what_is_allowed() {
    let service = still(&[]);
    let operations = "/api/v1/clusters/demo/operations";
    let node = &workers(&service, |_, _| true)[0];
    for (path, body, status, expected) in [
        (format!("{NODES}/ghost/drain"), json!({}), 404, "ghost"),
        ("/api/v1/clusters/moon/nodes/a/drain".to_owned(), json!({}), 404, "moon"),
        (format!("{NODES}/{node}/drain"), json!({"forse": true}), 422, "`forse`"),
        (
            format!("{NODES}/{node}/drain"),
            json!({"grace_period_seconds": -2, "on_cancel": "x"}),
            422,
            "on_cancel",
        ),
        (format!("{NODES}/{node}/drain?dry_run=maybe"), json!({}), 422, "maybe"),
        (format!("{NODES}/{node}/drain"), json!({"reason": " "}), 422, "reason"),
        (
            operations.to_owned(),
            json!({"kind": "reboot", "targets": {"nodes": [node]}}),
            422,
            "uncordon, drain",
        ),
        (
            operations.to_owned(),
            json!({"kind": "drain", "targets": {}}),
            422,
            "label_selector",
        ),
        (operations.to_owned(), json!({"kind": "drain"}), 422, "targets"),
        (
            operations.to_owned(),
            json!({"kind": "cordon", "targets": {"nodes": [node]}}),
            422,
            "reason",
        ),
        (
            operations.to_owned(),
            json!({"kind": "drain", "targets": {"nodes": [node, "ghost"]}, "strategy": {"max_unavailable": 0}}),
            422,
            "ghost",
        ),
        (
            operations.to_owned(),
            json!({"kind": "drain", "targets": {"nodes": [node]}, "strategy": {"max_unavailable": "0%"}}),
            422,
            "nothing would ever begin",
        ),
        (
            operations.to_owned(),
            json!({"kind": "label", "targets": {"nodes": [node]}, "options": {"set": {"a b": "c"}}}),
            422,
            "a b",
        ),
        (
            OPERATIONS.to_owned(),
            json!({"kind": "drain", "targets": []}),
            422,
            "no node",
        ),
        (format!("{OPERATIONS}/1/cancel"), json!({}), 404, "no operation"),
        (
            format!("{OPERATIONS}/01b8dac5-b400-7000-8000-00000000000b/retry"),
            json!({}),
            404,
            "no operation",
        ),
    ] {
        let reply = post(&service, &path, &[], &body);
        assert_problem(&reply, status);
        assert!(reply.text().contains(expected), "{path} {body}: {}", reply.text());
    }
    for (target, status, expected) in [
        (format!("{OPERATIONS}/1"), 404, "no operation"),
        (format!("{OPERATIONS}/1/events"), 404, "no operation"),
        (format!("{OPERATIONS}?kind=reboot&limit=0"), 422, "reboot"),
        (format!("{OPERATIONS}?state=running,lost"), 422, "lost"),
    ] {
        let reply = ask(&service, "GET", &target, &[]);
        assert_problem(&reply, status);
        assert!(reply.text().contains(expected), "{target}: {}", reply.text());
    }
    let dry = post(
        &service,
        &format!("{NODES}/{node}/drain?dry_run=true"),
        &[],
        &everything(),
    )
    .json();
    let id = dry["id"].as_str().unwrap();
    wait_for("the dry run to end", || {
        shown(&service, id)["ended_at"].is_string().then_some(())
    });
    let untouched = ask(&service, "GET", &format!("{NODES}/{node}"), &[]).json();
    assert_eq!(untouched["schedulable"], json!(true));
    let reply = ask(
        &service,
        "GET",
        &format!("{OPERATIONS}/{id}/events"),
        &["last-event-id: first"],
    );
    assert_problem(&reply, 422);
    let later = format!("{OPERATIONS}/{id}/events?last_event_id=99");
    let reply = ask(&service, "GET", &later, &[]);
    assert_problem(&reply, 422);
    assert!(
        reply.text().contains("99") && reply.text().contains("the last one is "),
        "{}",
        reply.text()
    );
}

#[test]
fn steps_on_many_nodes_at_once_share_the_one_connection_of_sqlite() {
    let service = demo(&["--demo-nodes", "200", "--demo-changes-per-second", "0"], &[]);
    let wanted = json!({
        "kind": "cordon", "targets": {"label_selector": "!node-role.kubernetes.io/control-plane"}, "reason": "kernel update",
        "strategy": {"max_concurrent": 150},
    });
    let id = post(&service, "/api/v1/clusters/demo/operations", &[], &wanted).json()["id"].clone();
    let done = wait_for_state(&service, id.as_str().unwrap(), "succeeded");
    assert_eq!(done["progress"]["done"], done["progress"]["total"]);
    let lines = service.lines();
    assert!(
        !lines.iter().any(|line| line.contains("waits for the database")),
        "{lines:#?}"
    );
}
