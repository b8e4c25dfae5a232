//! What nodes tell of their pods, and what states and events have to do with that, on the demo.

use knm_test_support::patience::wait_for;
use knm_test_support::service::Service;
use knm_test_support::wire::Wire;
use serde_json::{Value, json};

use crate::{NODES, PROGRAM, ask, still};

#[test]
fn nodes_tell_what_the_pods_that_have_not_ended_ask_for() {
    let service = still(&[]);
    let list = ask(&service, "GET", NODES, &[]).json();
    for node in list["items"].as_array().unwrap() {
        let name = node["name"].as_str().unwrap();
        let pods = ask(&service, "GET", &format!("{NODES}/{name}/pods"), &[]).json();
        let running = || {
            let pods = pods["items"].as_array().unwrap().iter();
            pods.filter(|pod| pod["phase"] != "succeeded" && pod["phase"] != "failed")
        };
        let sum = |key: &str| running().map(|pod| pod["requests"][key].as_u64().unwrap()).sum::<u64>();
        let requested = &node["requested"];
        assert_eq!(requested["pods"], json!(running().count()), "{name}");
        for key in ["cpu_millicores", "memory_bytes", "ephemeral_storage_bytes"] {
            assert_eq!(requested[key], json!(sum(key)), "{name} {key}");
        }
    }
    let cluster = ask(&service, "GET", "/api/v1/clusters/demo", &[]).json();
    assert_eq!(
        (&cluster["pods"]["stale"], &cluster["pods"]["reason"]),
        (&json!(false), &Value::Null)
    );
    assert!(0 < cluster["pods"]["total"].as_u64().unwrap());
}

#[test]
fn a_tag_of_a_node_is_good_for_a_change_although_it_tells_of_the_pods() {
    let service = still(&[]);
    let list = ask(&service, "GET", &format!("{NODES}?schedulable=true&limit=1"), &[]).json();
    let path = format!("{NODES}/{}", list["items"][0]["name"].as_str().unwrap());
    let tag = ask(&service, "GET", &path, &[]).header("etag").unwrap().to_owned();
    let (state, pods) = tag.trim_matches('"').split_once('+').unwrap();
    assert!(!pods.is_empty(), "{tag}");
    let known = format!("if-none-match: {tag}");
    assert_eq!(ask(&service, "GET", &path, &[&known]).status, 304);
    let older = format!("if-none-match: \"{state}+0\"");
    assert_eq!(ask(&service, "GET", &path, &[&older]).status, 200, "with other pods");

    // As it was before pods came or went.
    let mut wire = Wire::open(service.address());
    let headers = [format!("if-match: \"{state}+0\"")];
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let body = json!({"set": {"team": "storage"}});
    let reply = wire
        .send_json("PATCH", &format!("{path}/labels"), &headers, &body)
        .unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["requested"], list["items"][0]["requested"]);
}

#[test]
fn pods_that_are_not_watched_are_asked_for_and_a_plan_does_not_estimate() {
    let variables = [("KNM__KUBERNETES__WATCH_PODS", "false")];
    let service = Service::start(PROGRAM, &["--demo", "--demo-changes-per-second", "0"], &variables);
    service.wait_until_ready();
    let list = wait_for("the nodes", || {
        let answer = service.get(NODES);
        (answer.status == 200).then(|| answer.json())
    });
    for node in list["items"].as_array().unwrap() {
        assert_eq!(node["requested"], Value::Null);
    }
    assert_eq!(service.get("/api/v1/clusters/demo").json()["pods"], Value::Null);
    assert!(!service.get("/metrics").body.contains("kube_node_manager_cluster_pods"));
    let path = format!("{NODES}/{}", list["items"][0]["name"].as_str().unwrap());
    let pods = service.get(&format!("{path}/pods")).json();
    assert_ne!(pods["total"], json!(0));

    let mut wire = Wire::open(service.address());
    let options = json!({"force": true, "ignore_daemonsets": true, "delete_emptydir_data": true});
    let plan = wire
        .send_json("POST", &format!("{path}/drain/plan"), &[], &options)
        .unwrap();
    assert_eq!(plan.status, 200, "{}", plan.text());
    let fit = &plan.json()["fit"];
    assert_eq!(fit["estimated"], json!(false));
    assert!(
        fit["reason"].as_str().unwrap().contains("kubernetes.watch_pods"),
        "{fit}"
    );
}
