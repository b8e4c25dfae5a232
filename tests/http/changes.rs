//! Changes of nodes over HTTP, on the demo.

use knm_test_support::service::Service;
use knm_test_support::wire::{Reply, Wire};
use serde_json::{Value, json};

use crate::{NODES, ask, assert_problem, still};

/// A node of the demo that is schedulable.
fn node_of(service: &Service) -> String {
    let path = format!("{NODES}?schedulable=true&label_selector=pool%3Dworker&limit=1");
    let list = ask(service, "GET", &path, &[]).json();
    list["items"][0]["name"].as_str().unwrap().to_owned()
}

#[track_caller]
fn send(service: &Service, method: &str, path: &str, headers: &[&str], body: &Value) -> Reply {
    let mut wire = Wire::open(service.address());
    wire.send_json(method, path, headers, body).unwrap()
}

#[test]
fn labels_are_changed_and_the_answer_is_the_node_with_its_tag() {
    let service = still(&[]);
    let path = format!("{NODES}/{}", node_of(&service));
    let before = ask(&service, "GET", &path, &[]);

    let body = json!({"set": {"team": "storage", "empty": ""}, "remove": ["pool", "absent"]});
    let reply = send(&service, "PATCH", &format!("{path}/labels"), &[], &body);

    assert_eq!(reply.status, 200, "{}", reply.text());
    let changed = reply.json();
    assert_eq!(
        (&changed["labels"]["team"], &changed["labels"]["empty"]),
        (&json!("storage"), &json!(""))
    );
    assert_eq!(changed["labels"].get("pool"), None);
    assert_eq!(
        changed["change"]["before"]["labels"],
        json!({"team": null, "empty": null, "pool": "worker"})
    );
    assert_eq!(
        changed["change"]["after"]["labels"],
        json!({"team": "storage", "empty": "", "pool": null})
    );
    assert_eq!(changed["change"]["dry_run"], json!(false));
    assert_ne!(reply.header("etag"), before.header("etag"));
    service.wait_until("the list to follow", || {
        ask(&service, "GET", &path, &[]).header("etag") == reply.header("etag")
    });
}

#[test]
fn a_change_is_made_in_the_state_that_if_match_names_only() {
    let service = still(&[]);
    let path = format!("{NODES}/{}", node_of(&service));
    let tag = ask(&service, "GET", &path, &[]).header("etag").unwrap().to_owned();
    let change = |tag: &str, value: &str| {
        let body = json!({"set": {"team": value}});
        send(
            &service,
            "PATCH",
            &format!("{path}/labels"),
            &[&format!("if-match: {tag}")],
            &body,
        )
    };
    let first = change(&tag, "a");
    assert_eq!(first.status, 200, "{}", first.text());
    assert_problem(&change(&tag, "b"), 412);
    // As a cache or a compressed answer gives it back.
    let weak = format!("W/{}", first.header("etag").unwrap());
    assert_eq!(change(&weak, "b").status, 200);
    assert_eq!(change("*", "c").status, 200);
}

#[test]
fn a_dry_run_shows_the_difference_and_changes_nothing() {
    let service = still(&[]);
    let path = format!("{NODES}/{}", node_of(&service));
    let before = ask(&service, "GET", &path, &[]);
    for (method, part, body) in [
        ("PATCH", "labels", json!({"set": {"team": "x"}})),
        (
            "PATCH",
            "taints",
            json!({"add": [{"key": "k", "effect": "NoSchedule"}]}),
        ),
        ("POST", "cordon", json!({"reason": "try"})),
    ] {
        let reply = send(&service, method, &format!("{path}/{part}?dry_run=true"), &[], &body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let change = &reply.json()["change"];
        assert_eq!(change["dry_run"], json!(true));
        assert_ne!(change["after"], json!({}), "{part}");
        assert_eq!(reply.header("etag"), None);
    }
    assert_eq!(ask(&service, "GET", &path, &[]).body, before.body);
}

#[test]
fn taints_are_added_and_removed_by_key_and_effect() {
    let service = still(&[]);
    let path = format!("{NODES}/{}/taints", node_of(&service));
    let taints = |reply: &Reply| {
        assert_eq!(reply.status, 200, "{}", reply.text());
        let taints = reply.json()["taints"].as_array().unwrap().clone();
        let own = taints
            .iter()
            .filter(|taint| taint["key"] == "k")
            .map(|taint| taint["effect"].clone());
        own.collect::<Vec<_>>()
    };
    let add = json!({"add": [{"key": "k", "value": "v", "effect": "NoSchedule"}, {"key": "k", "effect": "PreferNoSchedule"}]});
    assert_eq!(
        taints(&send(&service, "PATCH", &path, &[], &add)),
        ["NoSchedule", "PreferNoSchedule"]
    );
    let remove = json!({"remove": [{"key": "k", "effect": "NoSchedule"}]});
    assert_eq!(
        taints(&send(&service, "PATCH", &path, &[], &remove)),
        ["PreferNoSchedule"]
    );
    assert!(taints(&send(&service, "PATCH", &path, &[], &json!({"remove": [{"key": "k"}]}))).is_empty());

    let evicting = json!({"add": [{"key": "k", "effect": "NoExecute"}]});
    let refused = send(&service, "PATCH", &path, &[], &evicting);
    assert_problem(&refused, 409);
    assert!(refused.text().contains("confirm_no_execute"), "{}", refused.text());
    let confirmed = json!({"add": [{"key": "k", "effect": "NoExecute"}], "confirm_no_execute": true});
    assert_eq!(taints(&send(&service, "PATCH", &path, &[], &confirmed)), ["NoExecute"]);
}

#[test]
fn a_cordon_holds_until_it_is_released() {
    let service = still(&[]);
    let path = format!("{NODES}/{}", node_of(&service));
    let cordon = json!({"reason": "disk errors", "ticket": "OPS-1", "until": "2999-01-01T00:00:00Z"});
    let held = send(&service, "POST", &format!("{path}/cordon"), &[], &cordon);
    assert_eq!(held.status, 200, "{}", held.text());
    let held = held.json();
    assert_eq!(held["schedulable"], json!(false));
    assert_eq!(held["cordon"]["source"], json!("kube_node_manager"));
    let hold = &held["cordon"]["holds"][0];
    assert_eq!(
        (&hold["reason"], &hold["ticket"], &hold["by"]),
        (&json!("disk errors"), &json!("OPS-1"), &json!("anonymous"))
    );
    assert_eq!(hold["until"], json!("2999-01-01T00:00:00Z"));

    let second = send(
        &service,
        "POST",
        &format!("{path}/cordon"),
        &[],
        &json!({"reason": "kernel"}),
    )
    .json();
    assert_eq!(second["cordon"]["holds"].as_array().unwrap().len(), 2);
    let one = json!({"hold": hold["id"]});
    let left = send(&service, "POST", &format!("{path}/uncordon"), &[], &one).json();
    assert_eq!(
        (&left["schedulable"], &left["cordon"]["reason"]),
        (&json!(false), &json!("kernel"))
    );
    assert!(
        left["change"]["warnings"][0]
            .as_str()
            .unwrap()
            .contains("stays cordoned"),
        "{left}"
    );
    assert_problem(&send(&service, "POST", &format!("{path}/uncordon"), &[], &one), 404);

    // Without a body it releases what the caller holds.
    let mut wire = Wire::open(service.address());
    wire.request("POST", &format!("{path}/uncordon"), &["content-length: 0"])
        .unwrap();
    let free = wire.reply().unwrap();
    assert_eq!(free.status, 200, "{}", free.text());
    assert_eq!(
        (&free.json()["schedulable"], &free.json()["cordon"]),
        (&json!(true), &Value::Null)
    );
}

#[test]
fn a_foreign_cordon_is_released_by_force_only() {
    let service = still(&[]);
    let cordoned = ask(&service, "GET", &format!("{NODES}?schedulable=false"), &[]).json();
    let foreign = cordoned["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|node| node["cordon"]["source"] != "kube_node_manager")
        .expect("the demo has nodes that others cordoned");
    let path = format!("{NODES}/{}/uncordon", foreign["name"].as_str().unwrap());
    assert_problem(&send(&service, "POST", &path, &[], &json!({})), 409);
    let freed = send(
        &service,
        "POST",
        &path,
        &[],
        &json!({"force": true, "reason": "it was forgotten"}),
    );
    assert_eq!((freed.status, &freed.json()["schedulable"]), (200, &json!(true)));
}

#[test]
fn what_is_wrong_with_a_change_is_told_at_once_and_nothing_is_done() {
    let service = still(&[]);
    let path = format!("{NODES}/{}", node_of(&service));
    let before = ask(&service, "GET", &path, &[]).body;
    for (method, part, body, parameters) in [
        (
            "PATCH",
            "labels",
            json!({"set": {"-a": "x", "b": "not fine"}}),
            vec!["set", "set.b"],
        ),
        ("PATCH", "labels", json!({}), vec!["set"]),
        (
            "PATCH",
            "labels?dry_run=yes",
            json!({"remove": ["a b"]}),
            vec!["dry_run", "remove"],
        ),
        (
            "PATCH",
            "taints",
            json!({"add": [{"key": "k", "effect": "Never"}]}),
            vec!["add"],
        ),
        (
            "POST",
            "cordon",
            json!({"reason": "", "until": "soon"}),
            vec!["reason", "until"],
        ),
        (
            "POST",
            "cordon",
            json!({"reason": "x", "until": "2020-01-01T00:00:00Z"}),
            vec!["until"],
        ),
        (
            "POST",
            "uncordon",
            json!({"hold": "x", "reason": "a\nb"}),
            vec!["reason", "hold"],
        ),
    ] {
        let reply = send(&service, method, &format!("{path}/{part}"), &[], &body);
        assert_problem(&reply, 422);
        let problem = reply.json();
        let told: Vec<_> = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["parameter"].as_str().unwrap())
            .collect();
        assert_eq!(told, parameters, "{part} {body}: {problem}");
    }
    for (kind, body, status, expected) in [
        ("application/json", r#"{"set": {"a": 1}}"#, 422, "expected a string"),
        ("application/json", r#"{"sett": {}}"#, 422, "unknown field `sett`"),
        ("application/json", "{", 400, "line 1"),
        ("text/plain", "{}", 415, "application/json is expected"),
    ] {
        let (kind, length) = (
            format!("content-type: {kind}"),
            format!("content-length: {}", body.len()),
        );
        let mut wire = Wire::open(service.address());
        wire.request("PATCH", &format!("{path}/labels"), &[&kind, &length])
            .unwrap();
        wire.send(body).unwrap();
        let reply = wire.reply().unwrap();
        assert_problem(&reply, status);
        assert!(reply.text().contains(expected), "{}", reply.text());
    }
    assert_problem(&send(&service, "POST", &format!("{path}/cordon"), &[], &json!({})), 422);
    assert_problem(
        &send(
            &service,
            "POST",
            &format!("{NODES}/nobody/cordon"),
            &[],
            &json!({"reason": "x"}),
        ),
        404,
    );
    let elsewhere = "/api/v1/clusters/nowhere/nodes/a/labels";
    assert_problem(
        &send(&service, "PATCH", elsewhere, &[], &json!({"set": {"a": "b"}})),
        404,
    );
    assert_eq!(ask(&service, "GET", &path, &[]).body, before);
}

#[test]
fn paths_of_changes_say_which_methods_they_take() {
    let service = still(&[]);
    let path = format!("{NODES}/{}", node_of(&service));
    for (part, allowed) in [
        ("labels", "OPTIONS, PATCH"),
        ("taints", "OPTIONS, PATCH"),
        ("cordon", "OPTIONS, POST"),
        ("uncordon", "OPTIONS, POST"),
    ] {
        let options = ask(&service, "OPTIONS", &format!("{path}/{part}"), &[]);
        assert_eq!((options.status, options.header("allow")), (204, Some(allowed)));
        for method in ["GET", "HEAD", "PUT", "DELETE"] {
            let refused = ask(&service, method, &format!("{path}/{part}"), &["content-length: 0"]);
            assert_eq!(
                (refused.status, refused.header("allow")),
                (405, Some(allowed)),
                "{method} {part}"
            );
        }
    }
}

#[test]
fn a_request_with_a_key_is_done_once_and_answered_alike() {
    let service = still(&[]);
    let path = format!("{NODES}/{}/cordon", node_of(&service));
    let cordon = |key: &str, reason: &str| {
        let key = format!("idempotency-key: {key}");
        send(&service, "POST", &path, &[&key], &json!({"reason": reason}))
    };
    let first = cordon("k1", "disk");
    let again = cordon("k1", "disk");
    assert_eq!(
        (first.status, first.header("idempotency-replayed")),
        (200, None),
        "{}",
        first.text()
    );
    assert_eq!(
        (again.status, again.header("idempotency-replayed")),
        (200, Some("true"))
    );
    assert_eq!((&first.body, first.header("etag")), (&again.body, again.header("etag")));
    assert_problem(&cordon("k1", "another disk"), 422);
    assert_eq!(cordon("k2", "disk").status, 200);

    let records = ask(&service, "GET", "/api/v1/audit?action=node.cordon", &[]).json();
    assert_eq!(records["items"].as_array().unwrap().len(), 2, "k1 and k2: {records}");

    // What was refused is refused alike, with the id of the first request in the body.
    let refused = cordon("k3", "");
    assert_problem(&refused, 422);
    let again = cordon("k3", "");
    assert_eq!((again.status, &again.body), (422, &refused.body));
    assert_eq!(again.header("content-type"), Some("application/problem+json"));
}

#[test]
fn what_changes_nothing_is_not_kept_and_its_key_is_ignored() {
    let service = still(&[]);
    let path = format!("{NODES}/{}", node_of(&service));
    let key = ["idempotency-key: k"];
    for (method, part, body) in [
        ("POST", "drain/plan", json!({})),
        ("PATCH", "labels?dry_run=true", json!({"set": {"a": "b"}})),
        ("POST", "cordon?dry_run=true", json!({"reason": "disk"})),
    ] {
        for _ in 0..2 {
            let reply = send(&service, method, &format!("{path}/{part}"), &key, &body);
            assert_eq!(
                (reply.status, reply.header("idempotency-replayed")),
                (200, None),
                "{part}"
            );
        }
    }
    // The key is free.
    let reply = send(
        &service,
        "POST",
        &format!("{path}/cordon"),
        &key,
        &json!({"reason": "disk"}),
    );
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[test]
fn one_of_several_requests_with_a_key_at_once_is_done() {
    let service = still(&[]);
    let path = format!("{NODES}/{}/labels", node_of(&service));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let send = || {
            send(
                &service,
                "PATCH",
                &path,
                &["idempotency-key: k"],
                &json!({"set": {"a": "b"}}),
            )
            .status
        };
        let asked: Vec<_> = (0..16).map(|_| scope.spawn(send)).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(
        statuses.contains(&200) && statuses.iter().all(|status| [200, 409].contains(status)),
        "{statuses:?}"
    );
    let records = ask(&service, "GET", "/api/v1/audit?action=node.label", &[]).json();
    assert_eq!(records["items"].as_array().unwrap().len(), 1, "{records}");
}

#[test]
fn a_key_that_is_none_is_refused() {
    let service = still(&[]);
    let path = format!("{NODES}/{}/uncordon", node_of(&service));
    let long = format!("idempotency-key: {}", "k".repeat(256));
    for headers in [
        vec!["idempotency-key:"],
        vec!["idempotency-key: \u{e4}"],
        vec![long.as_str()],
        vec!["idempotency-key: a", "idempotency-key: b"],
    ] {
        assert_problem(&send(&service, "POST", &path, &headers, &json!({})), 400);
    }
}
