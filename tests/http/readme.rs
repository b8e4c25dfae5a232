//! What the README says of the demo, done as it stands there.

use knm_test_support::patience::wait_for;
use knm_test_support::wire::Wire;
use serde_json::{Value, json};

use crate::{NODES, ask, still};

const README: &str = include_str!("../../README.md");
const OPERATIONS: &str = "/api/v1/operations";

/// The JSON that stands between single quotes after `-d` behind this text.
#[track_caller]
fn body_after(text: &str) -> Value {
    let (_, rest) = README.split_once(text).unwrap();
    let (_, rest) = rest.split_once("-d '").unwrap();
    let (body, _) = rest.split_once('\'').unwrap();
    serde_json::from_str(body).unwrap()
}

#[test]
fn the_drain_of_the_readme_is_blocked_by_the_budget_that_it_names_and_can_be_cancelled() {
    let service = still(&[]);
    let body = body_after("nodes/worker-00008/drain");
    let path = format!("{NODES}/worker-00008");
    let mut wire = Wire::open(service.address());
    let accepted = wire.send_json("POST", &format!("{path}/drain"), &[], &body).unwrap();
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let id = accepted.json()["id"].as_str().unwrap().to_owned();
    let operation = format!("{OPERATIONS}/{id}");
    assert_eq!(accepted.header("location"), Some(operation.as_str()));

    let shown = wait_for("the last pods to be blocked or gone", || {
        let shown = ask(&service, "GET", &operation, &[]).json();
        (shown["targets"][0]["message"] == "pods: 1 blocked, 2 gone").then_some(shown)
    });
    let pods = shown["targets"][0]["drain"]["pods"].as_array().unwrap();
    let blocked: Vec<_> = pods.iter().filter(|pod| pod["state"] == "blocked").collect();
    assert_eq!(
        (&blocked[0]["namespace"], &blocked[0]["disruption_budget"]),
        (&json!("payments"), &json!("ledger"))
    );
    assert!(README.contains(blocked[0]["name"].as_str().unwrap()), "{blocked:?}");

    let cancelled = ask(&service, "POST", &format!("{operation}/cancel"), &[]);
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    wait_for("the cancellation", || {
        let shown = ask(&service, "GET", &operation, &[]).json();
        (shown["state"] == "cancelled").then_some(())
    });
    let node = ask(&service, "GET", &path, &[]).json();
    assert_eq!(node["schedulable"], json!(true), "`on_cancel` is `restore`");
    let events = ask(&service, "GET", &format!("{operation}/events"), &[]).text();
    for expected in [
        "event: pod",
        "\"state\":\"terminating\"",
        "\"budget\":\"ledger\"",
        "\"message\":\"the disruption budget ledger allows nothing, ever: as many pods must be healthy as there are\"",
    ] {
        assert!(README.contains(expected), "{expected}");
        assert!(events.contains(expected), "{expected}: {events}");
    }
}

#[test]
fn the_batch_of_the_readme_finds_nodes_and_is_accepted() {
    let service = still(&[]);
    let body = body_after("### Many nodes");
    let mut wire = Wire::open(service.address());
    let accepted = wire
        .send_json("POST", "/api/v1/clusters/demo/operations", &[], &body)
        .unwrap();
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let nodes = accepted.json()["targets"].as_array().map_or(0, Vec::len);
    assert!(1 < nodes, "{nodes} nodes");
}

#[test]
fn the_template_of_the_readme_finds_nodes_that_lack_it() {
    let service = still(&[]);
    let post = |path: &str, body: &Value| {
        let mut wire = Wire::open(service.address());
        wire.send_json("POST", path, &[], body).unwrap()
    };
    let created = post("/api/v1/templates", &body_after("### Templates"));
    assert_eq!(created.status, 201, "{}", created.text());
    let preview = post(
        "/api/v1/templates/gpu/preview",
        &body_after("# which nodes would change, and how"),
    );
    assert_eq!(preview.status, 200, "{}", preview.text());
    assert_ne!(preview.json()["drifted"], json!(0));
    assert_eq!(preview.json()["stale_clusters"], json!([]));
    assert_eq!(
        post("/api/v1/clusters/demo/operations", &body_after("# do it")).status,
        202
    );
    let bound = post("/api/v1/bindings", &body_after("# from now on report what differs"));
    assert_eq!(bound.status, 201, "{}", bound.text());
}
