//! Who may do what, as callers of the built program find it.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

use std::fs;
use std::path::Path;

use knm_test_support::cluster::{Cluster, node, pod, rule};
use knm_test_support::patience::wait_for;
use knm_test_support::service::{Service, run};
use knm_test_support::wire::{Events, Reply, Wire};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");
const TWO_CLUSTERS: &str = "[{name: east, source: {demo: {nodes: 30, seed: 1, changes_per_second: 0}}}, \
     {name: west, source: {demo: {nodes: 30, seed: 2, changes_per_second: 0}}}]";

/// Two clusters, and callers who must sign in with API tokens.
fn closed(variables: &[(&str, &str)]) -> Service {
    let mut all = vec![("KNM__AUTH__MODE", "tokens"), ("KNM__CLUSTERS", TWO_CLUSTERS)];
    all.extend(variables);
    let service = Service::start(PROGRAM, &[], &all);
    service.wait_until_ready();
    service
}

fn command(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = run(PROGRAM, folder, arguments, &[]);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    }
}

/// A token that the command line makes for a running service.
fn token(service: &Service, arguments: &[&str]) -> String {
    let all: Vec<&str> = ["token", "create"].iter().chain(arguments).copied().collect();
    command(service.folder(), &all).unwrap().trim().to_owned()
}

fn ask(service: &Service, method: &str, path: &str, token: &str, body: Option<Value>) -> Reply {
    let header = format!("authorization: Bearer {token}");
    let mut wire = Wire::open(service.address());
    match body {
        Some(body) => wire.send_json(method, path, &[&header], &body).unwrap(),
        None if method == "GET" => wire.get(path, &[&header]).unwrap(),
        None => {
            wire.request(method, path, &[&header]).unwrap();
            wire.reply().unwrap()
        }
    }
}

fn status(service: &Service, method: &str, path: &str, token: &str, body: Option<Value>) -> u16 {
    ask(service, method, path, token, body).status
}

#[test]
fn without_a_token_the_service_is_closed_and_says_how_to_open_it() {
    let service = closed(&[]);
    service.wait_for_line("token create --name me --role admin");
    for path in [
        "/api/v1/clusters",
        "/api/v1/nodes",
        "/api/v1/tokens",
        "/api/v1/clusters/moon",
    ] {
        let mut wire = Wire::open(service.address());
        let refused = wire.get(path, &[]).unwrap();
        assert_eq!(refused.status, 401, "{path}");
        assert_eq!(
            refused.header("www-authenticate"),
            Some("Bearer realm=\"kube-node-manager\"")
        );
        assert!(refused.text().contains("token create"), "{}", refused.text());
    }
    for path in ["/health", "/health/ready", "/metrics", "/openapi.yaml", "/docs"] {
        assert_eq!(service.get(path).status, 200, "{path}");
    }
    assert_eq!(
        service.get("/api/v1/clusters?token=knm_0").status,
        401,
        "a token in a URL is none"
    );
}

#[test]
fn the_command_line_makes_lists_and_revokes_tokens_of_a_running_service() {
    let service = closed(&[]);
    let folder = service.folder();
    let secret = token(&service, &["--name", "me", "--role", "admin"]);
    let id = &secret[4..20];
    assert_eq!(status(&service, "GET", "/api/v1/tokens", &secret, None), 200);
    let listed = command(folder, &["token", "list"]).unwrap();
    assert!(
        listed.contains(id) && listed.contains("valid") && !listed.contains(&secret),
        "{listed}"
    );
    let taken = command(folder, &["token", "create", "--name", "me", "--role", "viewer"]).unwrap_err();
    assert!(taken.contains("\"me\""), "{taken}");
    let wrong = command(
        folder,
        &["token", "create", "--name", "a b", "--role", "root", "--days", "0"],
    )
    .unwrap_err();
    for part in ["\"a b\"", "\"root\"", "1 to 3650"] {
        assert!(wrong.contains(part), "{wrong}");
    }
    let unknown = command(folder, &["token", "revoke", "5f0c9a1be2d34876"]).unwrap_err();
    assert!(unknown.contains("5f0c9a1be2d34876"), "{unknown}");

    let mut stream = Events::open(
        service.address(),
        "/api/v1/clusters/east/watch",
        &[&format!("authorization: Bearer {secret}")],
    );
    command(folder, &["token", "revoke", id]).unwrap();
    wait_for("the token to be worth nothing", || {
        (status(&service, "GET", "/api/v1/tokens", &secret, None) == 401).then_some(())
    });
    let mut last = String::new();
    while let Ok(Some(event)) = stream.next_event() {
        last = event.data;
    }
    assert!(last.contains("signed-out"), "a stream ends with its token: {last}");
}

#[test]
fn the_first_token_comes_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let secret = command(folder.path(), &["token", "generate"]).unwrap();
    let file = folder.path().join("token");
    fs::write(&file, &secret).unwrap();
    let service = closed(&[("KNM__AUTH__BOOTSTRAP_TOKEN_FILE", file.to_str().unwrap())]);
    let made = json!({"name": "ci", "role": "operator", "force": true});
    let reply = wait_for("the token to be taken over", || {
        let reply = ask(&service, "POST", "/api/v1/tokens", secret.trim(), Some(made.clone()));
        (reply.status != 401).then_some(reply)
    });
    assert_eq!(reply.status, 201, "{}", reply.text());
    assert_eq!(reply.header("cache-control"), Some("no-store"));

    fs::write(&file, "admin123\n").unwrap();
    let variables = [
        ("KNM__AUTH__BOOTSTRAP_TOKEN_FILE", file.to_str().unwrap()),
        ("KNM__CLUSTERS", "[]"),
        ("PORT", "0"),
    ];
    let refused = run(PROGRAM, folder.path(), &["serve"], &variables);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && told.contains("bootstrap_token_file") && !told.contains("admin123"),
        "{told}"
    );
}

#[test]
fn a_viewer_an_operator_and_one_of_another_cluster_may_do_what_the_table_says() {
    let service = closed(&[]);
    let viewer = token(&service, &["--name", "viewer", "--role", "viewer"]);
    let operator = token(
        &service,
        &["--name", "operator", "--role", "operator", "--cluster", "east"],
    );
    let other = token(
        &service,
        &["--name", "other", "--role", "operator", "--cluster", "west"],
    );
    let forcing = token(&service, &["--name", "forcing", "--role", "operator", "--force"]);
    let list = ask(
        &service,
        "GET",
        "/api/v1/clusters/east/nodes?role=worker",
        &viewer,
        None,
    )
    .json();
    let node = list["items"][0]["name"].as_str().unwrap();
    let path = format!("/api/v1/clusters/east/nodes/{node}");
    let cordon = || Some(json!({"reason": "disk"}));
    assert_eq!(
        status(&service, "POST", &format!("{path}/cordon"), &viewer, cordon()),
        403
    );
    assert_eq!(
        status(&service, "POST", &format!("{path}/cordon"), &other, cordon()),
        404
    );
    let cordoned = ask(&service, "POST", &format!("{path}/cordon"), &operator, cordon());
    assert_eq!(cordoned.status, 200, "{}", cordoned.text());
    assert_eq!(
        cordoned.json()["cordon"]["by"],
        "operator",
        "the name of the token stands on the node"
    );

    let names = |token: &str| {
        let clusters = ask(&service, "GET", "/api/v1/clusters", token, None).json();
        let items = clusters["items"].as_array().unwrap().clone();
        items
            .iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&viewer), ["east", "west"]);
    assert_eq!(names(&operator), ["east"]);
    assert_eq!(names(&other), ["west"]);

    let records = |token: &str| ask(&service, "GET", "/api/v1/audit", token, None).json()["items"].clone();
    let record = &records(&viewer)[0];
    assert_eq!(
        (&record["actor"]["name"], &record["actor"]["kind"]),
        (&json!("operator"), &json!("token"))
    );
    assert_eq!(
        records(&other),
        json!([]),
        "what was done in another cluster is not theirs to see"
    );
    let id = record["id"].as_str().unwrap();
    assert_eq!(
        status(&service, "GET", &format!("/api/v1/audit/{id}"), &other, None),
        404
    );

    let drain = |options: Value| {
        Some(json!({"kind": "drain", "targets": {"nodes": [node]}, "options": options, "dry_run": true}))
    };
    let operations = "/api/v1/clusters/east/operations";
    assert_eq!(
        status(
            &service,
            "POST",
            operations,
            &operator,
            drain(json!({"ignore_daemonsets": true}))
        ),
        202
    );
    assert_eq!(
        status(
            &service,
            "POST",
            operations,
            &operator,
            drain(json!({"disable_eviction": true}))
        ),
        403
    );
    let forced = ask(
        &service,
        "POST",
        operations,
        &forcing,
        drain(json!({"disable_eviction": true})),
    );
    assert_eq!(forced.status, 202, "{}", forced.text());
    let operation = format!("/api/v1/operations/{}", forced.json()["id"].as_str().unwrap());
    assert_eq!(status(&service, "GET", &operation, &viewer, None), 200);
    assert_eq!(status(&service, "GET", &operation, &other, None), 404);
    assert_eq!(
        status(&service, "POST", &format!("{operation}/cancel"), &viewer, None),
        403
    );
    for token in [&viewer, &operator, &other, &forcing] {
        assert_eq!(status(&service, "GET", "/api/v1/tokens", token, None), 403);
    }
}

#[test]
fn an_operation_whose_token_is_revoked_begins_no_more_nodes() {
    let service = closed(&[]);
    let operator = token(&service, &["--name", "operator", "--role", "operator"]);
    let viewer = token(&service, &["--name", "viewer", "--role", "viewer"]);
    // One node after the other: all but the first few are still to be begun when the token is revoked.
    let body = json!({
        "kind": "label", "targets": {"label_selector": ""}, "options": {"set": {"a": "b"}},
        "strategy": {"max_concurrent": 1, "pause_between_seconds": 4, "max_failures": "100%"},
    });
    let accepted = ask(
        &service,
        "POST",
        "/api/v1/clusters/east/operations",
        &operator,
        Some(body),
    )
    .json();
    let operation = format!("/api/v1/operations/{}", accepted["id"].as_str().unwrap());
    wait_for("the first node to be done", || {
        let shown = ask(&service, "GET", &operation, &viewer, None).json();
        (shown["progress"]["done"] == 1).then_some(())
    });
    command(service.folder(), &["token", "revoke", &operator[4..20]]).unwrap();
    let ended = wait_for("the operation to end", || {
        let shown = ask(&service, "GET", &operation, &viewer, None).json();
        (shown["state"] == "partly_failed").then_some(shown)
    });
    let failed: Vec<&Value> = ended["targets"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|target| target["state"] == "failed")
        .collect();
    assert!(25 <= failed.len(), "{ended}");
    assert!(
        failed
            .iter()
            .all(|target| target["message"] == "not begun: token \"operator\" was revoked"),
        "{failed:?}"
    );
}

#[test]
fn nobody_signs_in_only_where_nobody_else_can_come() {
    let folder = tempfile::tempdir().unwrap();
    let variables = [
        ("KNM__AUTH__MODE", "none"),
        ("KNM__SERVER__HOST", "0.0.0.0"),
        ("PORT", "0"),
    ];
    let refused = run(PROGRAM, folder.path(), &["serve"], &variables);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(78), "{told}");
    assert!(
        told.contains("auth.mode") && told.contains("0.0.0.0") && told.contains("loopback"),
        "{told}"
    );
    let demo = Service::start(
        PROGRAM,
        &["--demo"],
        &[("KNM__AUTH__MODE", "tokens"), ("KNM__SERVER__HOST", "0.0.0.0")],
    );
    demo.wait_until_ready();
    assert_eq!(demo.get("/api/v1/clusters").status, 200, "the demo needs no sign-in");
    assert!(demo.address().ip().is_loopback());
}

#[test]
fn metrics_and_the_document_need_a_caller_if_that_is_wanted() {
    let service = closed(&[
        ("KNM__METRICS__REQUIRE_AUTH", "true"),
        ("KNM__DOCS__REQUIRE_AUTH", "true"),
    ]);
    let viewer = token(&service, &["--name", "viewer", "--role", "viewer"]);
    for path in ["/metrics", "/docs", "/openapi.json", "/openapi.yaml"] {
        assert_eq!(service.get(path).status, 401, "{path}");
        assert_eq!(status(&service, "GET", path, &viewer, None), 200, "{path}");
    }
    assert_eq!(service.get("/health/ready").status, 200);
}

#[test]
fn who_may_do_it_with_kubectl_may_do_it_here() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    cluster.create_nodes([node("worker-1", &json!({}))]);
    let read = || vec![rule("get", "nodes"), rule("list", "nodes")];
    let with = |verb: &str, resource: &str| {
        let mut rules = read();
        rules.push(rule(verb, resource));
        rules
    };
    let nobody = cluster.service_account("nobody", &[]);
    let reader = cluster.service_account("reader", &read());
    let patcher = cluster.service_account("patcher", &with("patch", "nodes"));
    let mut drains = with("patch", "nodes");
    drains.push(rule("create", "pods/eviction"));
    let drainer = cluster.service_account("drainer", &drains);
    drains.push(rule("delete", "pods"));
    let forcer = cluster.service_account("forcer", &drains);
    let elsewhere = cluster.service_account_token("reader", &["https://elsewhere.example.com"]);
    let service = Service::start(
        PROGRAM,
        &[],
        &[
            ("KUBECONFIG", &cluster.kubeconfig().display().to_string()),
            ("KNM__AUTH__MODE", "kubernetes"),
        ],
    );
    service.wait_until_ready();
    let path = "/api/v1/clusters/test/nodes/worker-1";
    wait_for("the node to be seen", || {
        (status(&service, "GET", path, &reader, None) == 200).then_some(())
    });
    let cordon = || Some(json!({"reason": "disk"}));
    let gentle = || Some(json!({"ignore_daemonsets": true}));
    let forced = || Some(json!({"disable_eviction": true}));
    for (who, expected) in [
        (&nobody, [404, 404, 404, 404]),
        (&elsewhere, [401, 401, 401, 401]),
        (&"a.b.c".to_owned(), [401, 401, 401, 401]),
        (&reader, [200, 403, 403, 403]),
        (&patcher, [200, 200, 403, 403]),
        (&drainer, [200, 200, 202, 403]),
        (&forcer, [200, 200, 202, 202]),
    ] {
        let found = [
            status(&service, "GET", path, who, None),
            status(&service, "POST", &format!("{path}/cordon"), who, cordon()),
            status(&service, "POST", &format!("{path}/drain?dry_run=true"), who, gentle()),
            status(&service, "POST", &format!("{path}/drain?dry_run=true"), who, forced()),
        ];
        assert_eq!(found, expected, "{}", &who[..5]);
    }
    let record = ask(&service, "GET", "/api/v1/audit", &reader, None).json()["items"][0].clone();
    assert_eq!(record["actor"]["kind"], "kubernetes");
    let name = record["actor"]["name"].as_str().unwrap();
    assert!(name.starts_with("system:serviceaccount:default:"), "{name}");
    // Pods are a resource of their own.
    cluster.create("/api/v1/namespaces/default/pods", &pod("web-1", "worker-1", "web"));
    assert_eq!(status(&service, "GET", &format!("{path}/pods"), &reader, None), 403);
}
