//! Templates and bindings over HTTP, on the demo.

use knm_test_support::patience::wait_for;
use knm_test_support::service::Service;
use knm_test_support::wire::{Reply, Wire};
use serde_json::{Value, json};

use crate::{NODES, ask, assert_problem, still};

const TEMPLATES: &str = "/api/v1/templates";
const BINDINGS: &str = "/api/v1/bindings";

fn send(service: &Service, method: &str, path: &str, headers: &[&str], body: &Value) -> Reply {
    let mut wire = Wire::open(service.address());
    wire.send_json(method, path, headers, body).unwrap()
}

/// The demo with a template, and the name of one of its workers.
fn with_template() -> (Service, String) {
    let service = still(&[]);
    let created = send(
        &service,
        "POST",
        TEMPLATES,
        &[],
        &json!({
            "name": "gpu", "description": "nodes with a GPU", "labels": {"card": "h100"},
            "taints": [{"key": "example.com/gpu", "value": "yes", "effect": "PreferNoSchedule"}],
        }),
    );
    assert_eq!(created.status, 201, "{}", created.text());
    assert_eq!(created.header("etag"), Some("\"1\""));
    let list = ask(&service, "GET", &format!("{NODES}?role=worker&limit=1"), &[]).json();
    let worker = list["items"][0]["name"].as_str().unwrap().to_owned();
    (service, worker)
}

#[test]
fn a_template_is_written_read_changed_and_deleted() {
    let (service, _) = with_template();
    let path = format!("{TEMPLATES}/gpu");
    let shown = ask(&service, "GET", &path, &[]);
    assert_eq!(shown.header("etag"), Some("\"1\""));
    let template = shown.json();
    assert_eq!(
        (&template["version"], &template["changed_by"], &template["labels"]),
        (&json!(1), &json!("anonymous"), &json!({"card": "h100"}))
    );

    let content = json!({"labels": {"kubernetes.io/os": "bsd"}});
    let changed = send(&service, "PUT", &path, &["If-Match: \"1\""], &content);
    assert_eq!((changed.status, changed.header("etag")), (200, Some("\"2\"")));
    assert_eq!(changed.json()["warnings"].as_array().map(Vec::len), Some(1));
    let stale = send(&service, "PUT", &path, &["If-Match: \"1\""], &content);
    assert_problem(&stale, 412);
    assert_problem(&ask(&service, "DELETE", &path, &["If-Match: \"1\""]), 412);

    assert_eq!(ask(&service, "GET", &format!("{path}?version=1"), &[]).json(), template);
    assert_eq!(ask(&service, "GET", TEMPLATES, &[]).json()["total"], 1);
    let gone = ask(&service, "DELETE", &path, &["If-Match: \"2\""]);
    assert_eq!((gone.status, gone.text().len()), (204, 0));
    assert_problem(&ask(&service, "GET", &path, &[]), 404);
    assert_problem(&ask(&service, "DELETE", &path, &[]), 404);
    let versions = ask(&service, "GET", &format!("{path}/versions"), &[]).json();
    let told: Vec<(u64, bool)> = versions["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["version"].as_u64().unwrap(), one["content"].is_null()))
        .collect();
    assert_eq!(told, [(3, true), (2, false), (1, false)]);
}

#[test]
fn what_is_wrong_is_told() {
    let (service, _) = with_template();
    for (method, path, body, status, expected) in [
        (
            "POST",
            TEMPLATES.to_owned(),
            json!({"name": "gpu", "labels": {"a": "b"}}),
            409,
            "already",
        ),
        (
            "POST",
            TEMPLATES.to_owned(),
            json!({"name": "GPU", "labels": {}}),
            422,
            "'G' at position 1",
        ),
        (
            "POST",
            TEMPLATES.to_owned(),
            json!({"name": "x", "lables": {}}),
            422,
            "lables",
        ),
        (
            "POST",
            TEMPLATES.to_owned(),
            json!({"name": "x", "labels": {"a": "-"}}),
            422,
            "labels.a",
        ),
        (
            "PUT",
            format!("{TEMPLATES}/cpu"),
            json!({"labels": {"a": "b"}}),
            404,
            "no template \"cpu\"",
        ),
        (
            "PUT",
            format!("{TEMPLATES}/gpu"),
            json!({}),
            422,
            "a label or a taint is expected",
        ),
        (
            "POST",
            format!("{TEMPLATES}/gpu/preview"),
            json!({"label_selector": "a in"}),
            422,
            "label_selector",
        ),
        (
            "POST",
            format!("{TEMPLATES}/gpu/preview"),
            json!({"cluster": "moon"}),
            404,
            "moon",
        ),
        (
            "POST",
            format!("{TEMPLATES}/gpu/preview"),
            json!({"version": 9}),
            404,
            "no version 9",
        ),
        (
            "POST",
            BINDINGS.to_owned(),
            json!({"name": "x", "template": "cpu", "label_selector": "a"}),
            422,
            "cpu",
        ),
        (
            "POST",
            BINDINGS.to_owned(),
            json!({"name": "x", "template": "gpu", "label_selector": ""}),
            422,
            "label_selector",
        ),
        (
            "POST",
            BINDINGS.to_owned(),
            json!({"name": "x", "template": "gpu", "label_selector": "a", "cluster": "moon"}),
            422,
            "moon",
        ),
        ("POST", BINDINGS.to_owned(), json!({"name": "x"}), 422, "template"),
        (
            "POST",
            "/api/v1/clusters/demo/operations".to_owned(),
            json!({"kind": "apply_template", "targets": {"label_selector": "a"}, "options": {"template": "cpu"}}),
            422,
            "no template",
        ),
    ] {
        let reply = send(&service, method, &path, &[], &body);
        assert_problem(&reply, status);
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(expected), "{method} {path} {body}: {detail}");
    }
    assert_problem(&ask(&service, "GET", &format!("{TEMPLATES}/gpu?version=0"), &[]), 422);
    assert_problem(&ask(&service, "GET", &format!("{BINDINGS}/none/drift"), &[]), 404);
    assert_problem(&ask(&service, "GET", &format!("{BINDINGS}/none/versions"), &[]), 404);
    assert_eq!(ask(&service, "GET", BINDINGS, &[]).json()["total"], 0);
}

#[test]
fn a_template_is_previewed_and_applied() {
    let (service, worker) = with_template();
    let name_selector = json!({"cluster": "demo", "label_selector": format!("kubernetes.io/hostname={worker}")});
    let preview = send(
        &service,
        "POST",
        &format!("{TEMPLATES}/gpu/preview"),
        &[],
        &name_selector,
    )
    .json();
    assert_eq!((&preview["compared"], &preview["drifted"]), (&json!(1), &json!(1)));
    assert_eq!(preview["nodes"][0]["after"]["labels"], json!({"card": "h100"}));

    let accepted = send(
        &service,
        "POST",
        "/api/v1/clusters/demo/operations",
        &[],
        &json!({"kind": "apply_template", "targets": {"nodes": [worker]}, "options": {"template": "gpu"}}),
    );
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    assert_eq!(accepted.json()["options"]["version"], 1);
    wait_for("the node to have it all", || {
        let node = ask(&service, "GET", &format!("{NODES}/{worker}"), &[]).json();
        (node["labels"]["card"] == "h100").then_some(())
    });
    let preview = send(
        &service,
        "POST",
        &format!("{TEMPLATES}/gpu/preview"),
        &[],
        &name_selector,
    )
    .json();
    assert_eq!((&preview["compared"], &preview["drifted"]), (&json!(1), &json!(0)));
    let history = ask(&service, "GET", &format!("{NODES}/{worker}/history"), &[]).json();
    assert_eq!(history["items"][0]["action"], "node.apply_template");
}

#[test]
fn a_binding_reports_drift_and_repairs_it_if_it_is_asked_to() {
    let (service, worker) = with_template();
    let mut content = json!({
        "template": "gpu", "cluster": "demo", "label_selector": format!("kubernetes.io/hostname={worker}"),
    });
    let mut named = content.clone();
    named["name"] = json!("gpu-nodes");
    let created = send(&service, "POST", BINDINGS, &["Idempotency-Key: once"], &named);
    assert_eq!(created.status, 201, "{}", created.text());
    let again = send(&service, "POST", BINDINGS, &["Idempotency-Key: once"], &named);
    assert_eq!((again.status, again.header("etag")), (201, Some("\"1\"")));

    let path = format!("{BINDINGS}/gpu-nodes");
    let drift = ask(&service, "GET", &format!("{path}/drift"), &[]).json();
    assert_eq!(drift["nodes"][0]["node"], json!(worker));
    let used = ask(&service, "DELETE", &format!("{TEMPLATES}/gpu"), &[]);
    assert_problem(&used, 409);

    content["reconcile"] = json!(true);
    let changed = send(&service, "PUT", &path, &["If-Match: \"1\""], &content);
    assert_eq!(
        (changed.status, changed.json()["reconcile"].as_bool()),
        (200, Some(true))
    );
    wait_for("the repair", || {
        let drift = ask(&service, "GET", &format!("{path}/drift"), &[]).json();
        (drift["drifted"] == 0).then_some(())
    });
    let audit = ask(&service, "GET", "/api/v1/audit?actor=binding/gpu-nodes", &[]).json();
    assert_eq!(audit["items"].as_array().map(Vec::len), Some(1), "{audit}");
    assert_eq!(audit["items"][0]["actor"]["kind"], "service");
    assert_eq!(ask(&service, "DELETE", &path, &[]).status, 204);
    assert_eq!(ask(&service, "DELETE", &format!("{TEMPLATES}/gpu"), &[]).status, 204);
}

#[test]
fn a_binding_is_listed_read_changed_and_deleted_by_who_knows_its_version() {
    let (service, _) = with_template();
    let mut content = json!({"template": "gpu", "label_selector": "card"});
    let mut named = content.clone();
    named["name"] = json!("cards");
    assert_eq!(send(&service, "POST", BINDINGS, &[], &named).status, 201);
    assert_problem(&send(&service, "POST", BINDINGS, &[], &named), 409);

    let path = format!("{BINDINGS}/cards");
    let shown = ask(&service, "GET", &path, &[]);
    assert_eq!((shown.status, shown.header("etag")), (200, Some("\"1\"")));
    let list = ask(&service, "GET", BINDINGS, &[]).json();
    assert_eq!((&list["total"], &list["items"][0]), (&json!(1), &shown.json()));

    let mut unknown = content.clone();
    unknown["template"] = json!("cpu");
    let refused = send(&service, "PUT", &path, &[], &unknown);
    assert_problem(&refused, 422);
    assert_eq!(refused.json()["errors"][0]["parameter"], "template");

    content["label_selector"] = json!("card=h100");
    let changed = send(&service, "PUT", &path, &["If-Match: \"1\""], &content);
    assert_eq!((changed.status, changed.header("etag")), (200, Some("\"2\"")));
    assert_problem(&send(&service, "PUT", &path, &["If-Match: \"1\""], &content), 412);
    assert_problem(&ask(&service, "DELETE", &path, &["If-Match: \"1\""]), 412);
    assert_eq!(ask(&service, "DELETE", &path, &["If-Match: \"2\""]).status, 204);

    let versions = ask(&service, "GET", &format!("{path}/versions"), &[]).json();
    let told: Vec<_> = versions["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["version"].as_u64(), one["content"]["label_selector"].as_str()))
        .collect();
    assert_eq!(
        told,
        [(Some(3), None), (Some(2), Some("card=h100")), (Some(1), Some("card"))]
    );
    assert_problem(&ask(&service, "GET", &path, &[]), 404);
}
