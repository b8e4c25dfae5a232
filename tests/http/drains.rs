//! Plans of drains over HTTP, on the demo.

use knm_test_support::service::Service;
use knm_test_support::wire::{Reply, Wire};
use serde_json::{Value, json};

use crate::{NODES, ask, assert_problem, still};

#[track_caller]
fn plan(service: &Service, node: &str, body: &Value) -> Reply {
    let body = body.to_string();
    let mut wire = Wire::open(service.address());
    wire.send(format!(
        "POST {NODES}/{node}/drain/plan HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
    .unwrap();
    wire.reply().unwrap()
}

fn nodes(service: &Service) -> Vec<String> {
    let list = ask(service, "GET", &format!("{NODES}?role=worker"), &[]).json();
    let items = list["items"].as_array().unwrap().iter();
    items.map(|node| node["name"].as_str().unwrap().to_owned()).collect()
}

fn count(plan: &Value, decision: &str) -> usize {
    let pods = plan["pods"].as_array().unwrap();
    pods.iter().filter(|pod| pod["decision"] == decision).count()
}

#[test]
fn without_options_a_plan_refuses_and_says_which_option_lifts_what() {
    let service = still(&[]);
    let node = &nodes(&service)[0];

    let reply = plan(&service, node, &json!({}));

    assert_eq!(reply.status, 200, "{}", reply.text());
    let told = reply.json();
    assert_eq!((&told["refused"], &told["node"]), (&json!(true), &json!(node)));
    assert_eq!(told["totals"]["refuse"], json!(count(&told, "refuse")));
    let pods = told["pods"].as_array().unwrap();
    let agent = pods
        .iter()
        .find(|pod| pod["controller"]["kind"] == "DaemonSet")
        .unwrap();
    assert_eq!(agent["rule"], "daemon_set_not_ignored");
    assert!(
        agent["reason"].as_str().unwrap().contains("ignore_daemonsets"),
        "{agent}"
    );
    assert_eq!(told["fit"]["estimated"], json!(false));
}

#[test]
fn a_plan_tells_turns_budgets_and_places_and_touches_nothing() {
    let service = still(&[]);
    let options = json!({"force": true, "ignore_daemonsets": true, "delete_emptydir_data": true});
    let (mut placed, mut never) = (0, 0);
    for node in nodes(&service) {
        let pods = ask(&service, "GET", &format!("{NODES}/{node}/pods"), &[]).json();

        let reply = plan(&service, &node, &options);

        assert_eq!(reply.status, 200, "{}", reply.text());
        let told = reply.json();
        assert_eq!(told["refused"], json!(false));
        let totals = &told["totals"];
        assert_eq!(
            (&totals["pods"], &totals["evict"]),
            (&pods["total"], &json!(count(&told, "evict")))
        );
        for pod in told["pods"].as_array().unwrap() {
            assert_eq!(pod["turn"].is_null(), pod["decision"] != "evict", "{pod}");
            let closed = |budget: &&Value| budget["closed"] == json!(true) && budget["namespace"] == pod["namespace"];
            if pod["turn"]["state"] == "never" {
                never += 1;
                assert!(
                    told["disruption_budgets"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .any(|one| closed(&one)),
                    "{pod}"
                );
            }
        }
        assert_eq!(told["fit"]["estimated"], json!(true));
        let placements = told["fit"]["placements"].as_array().unwrap();
        placed += placements.iter().filter(|one| one["node"].is_string()).count();
        assert!(placements.iter().all(|one| one["node"] != json!(node)));
        assert!(!told["fit"]["not_considered"].as_array().unwrap().is_empty());
        let after = ask(&service, "GET", &format!("{NODES}/{node}/pods"), &[]).json();
        assert_eq!(after["items"], pods["items"]);
    }
    assert!(0 < placed && 0 < never, "{placed} placed, {never} never");
}

#[test]
fn everything_that_is_wrong_with_the_options_is_told_at_once() {
    let service = still(&[]);
    let node = &nodes(&service)[0];
    let body = json!({"grace_period_seconds": -2, "pod_selector": "a b", "after_deadline": "force", "order": [{}]});
    let reply = plan(&service, node, &body);
    assert_problem(&reply, 422);
    let problem = reply.json();
    let errors = problem["errors"].as_array().unwrap();
    let parameters: Vec<_> = errors
        .iter()
        .map(|error| error["parameter"].as_str().unwrap())
        .collect();
    assert_eq!(
        parameters,
        ["grace_period_seconds", "pod_selector", "order[0]", "after_deadline"]
    );
    assert_eq!(errors[1]["position"], 3);
    // A misspelt option would drain more than was meant.
    assert_problem(&plan(&service, node, &json!({"pod_selectors": "app=web"})), 422);
}

#[test]
fn plans_are_made_for_nodes_that_there_are_by_posting() {
    let service = still(&[]);
    assert_problem(&plan(&service, "absent", &json!({})), 404);
    let path = format!("{NODES}/{}/drain/plan", nodes(&service)[0]);
    let reply = ask(&service, "GET", &path, &[]);
    assert_problem(&reply, 405);
    assert_eq!(reply.header("allow"), Some("OPTIONS, POST"));
}
