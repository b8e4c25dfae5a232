//! The service with some of its roles left out, on a real API server with RBAC.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

use std::path::PathBuf;
use std::time::Duration;

use knm_test_support::cluster::{Cluster, node, pod, rule};
use knm_test_support::patience::wait_for;
use knm_test_support::service::{Service, run};
use knm_test_support::wire::{Reply, Wire};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const NODE: &str = "/api/v1/clusters/test/nodes/worker-1";

/// The roles of the manifests: what each of them allows.
const ROLES: [(&str, &[(&str, &str)]); 5] = [
    (
        "read",
        &[
            ("get", "nodes"),
            ("list", "nodes"),
            ("watch", "nodes"),
            ("list", "pods"),
            ("watch", "pods"),
            ("list", "poddisruptionbudgets.policy"),
            ("list", "daemonsets.apps"),
        ],
    ),
    ("change-nodes", &[("patch", "nodes")]),
    ("evict-pods", &[("create", "pods/eviction")]),
    ("delete-pods", &[("delete", "pods")]),
    (
        "review-access",
        &[
            ("create", "tokenreviews.authentication.k8s.io"),
            ("create", "subjectaccessreviews.authorization.k8s.io"),
        ],
    ),
];

/// A cluster with the roles, and with a node on which a pod runs.
fn cluster() -> Option<Cluster> {
    let cluster = Cluster::start()?;
    for (role, rules) in ROLES {
        let rules: Vec<Value> = rules.iter().map(|(verb, resource)| rule(verb, resource)).collect();
        let role = json!({"metadata": {"name": format!("kube-node-manager-{role}")}, "rules": rules});
        cluster.create(&format!("{RBAC}/clusterroles"), &role);
    }
    cluster.create_nodes([node("worker-1", &json!({}))]);
    cluster.create("/api/v1/namespaces/default/pods", &pod("web-1", "worker-1", "web"));
    Some(cluster)
}

fn bind(cluster: &Cluster, account: &str, role: &str) {
    let binding = json!({
        "metadata": {"name": format!("{account}-{role}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": format!("kube-node-manager-{role}")},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "default"}],
    });
    cluster.create(&format!("{RBAC}/clusterrolebindings"), &binding);
}

/// The account of a service with all roles but one, and a service with it that has found out.
fn without(cluster: &Cluster, left_out: &str, variables: &[(&str, &str)]) -> (String, Service, tempfile::TempDir) {
    let account = format!("without-{left_out}");
    let token = cluster.service_account(&account, &[]);
    for (role, _) in ROLES.iter().filter(|(role, _)| *role != left_out) {
        bind(cluster, &account, role);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = kubeconfig(cluster, &token, &folder);
    let mut all = vec![("KUBECONFIG", path.to_str().unwrap())];
    all.extend(variables);
    let service = Service::start(PROGRAM, &[], &all);
    service.wait_until_ready();
    (account, service, folder)
}

fn kubeconfig(cluster: &Cluster, token: &str, folder: &tempfile::TempDir) -> PathBuf {
    let mut content = cluster.inline_kubeconfig();
    content["users"][0]["user"] = json!({"token": token});
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, content.to_string()).unwrap();
    path
}

/// The features of the cluster that are in this state, as soon as the cluster was asked and these are missing.
fn features(shown: &Value, state: &str) -> Vec<String> {
    let features = shown["permissions"]["features"].as_array().unwrap();
    let found = features.iter().filter(|feature| feature["state"] == state);
    found
        .map(|feature| feature["feature"].as_str().unwrap().to_owned())
        .collect()
}

/// Waits until the service knows that exactly these are missing: the API server learns of bindings a moment after they were made.
fn wait_until_missing(ask: impl Fn() -> Value, missing: &[&str]) -> Value {
    wait_for(&format!("{missing:?} to be missing"), || {
        let shown = ask();
        let is_checked = shown["permissions"]["checked_at"].is_string();
        (is_checked && features(&shown, "missing") == missing).then_some(shown)
    })
}

fn send(service: &Service, method: &str, path: &str, body: &Value) -> Reply {
    Wire::open(service.address())
        .send_json(method, path, &[], body)
        .unwrap()
}

fn shown(service: &Service) -> Value {
    service.get("/api/v1/clusters/test").json()
}

/// What an answer says that refuses something because of a role.
fn assert_refused(reply: &Reply, permission: &str, role: &str) {
    assert_eq!(reply.status, 502, "{}", reply.text());
    let problem = reply.json();
    assert_eq!(problem["type"], "urn:kube-node-manager:problem:cluster-refused");
    let detail = problem["detail"].as_str().unwrap();
    for part in [
        format!("the service may not {permission} in cluster test"),
        format!("bind the ClusterRole kube-node-manager-{role} to its account"),
    ] {
        assert!(detail.contains(&part), "{detail}");
    }
}

fn is_untouched(cluster: &Cluster) -> bool {
    let node = cluster.text("/api/v1/nodes/worker-1");
    !node.contains("unschedulable") && !node.contains("kube-node-manager.io/")
}

fn drain() -> Value {
    json!({"ignore_daemonsets": true, "on_cancel": "restore"})
}

fn ends_well(service: &Service, accepted: &Reply) {
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let path = format!("/api/v1/operations/{}", accepted.json()["id"].as_str().unwrap());
    wait_for("the operation to end", || {
        let operation = service.get(&path).json();
        match operation["state"].as_str().unwrap() {
            "queued" | "running" => None,
            state => {
                assert_eq!(state, "succeeded", "{operation}");
                Some(())
            }
        }
    });
}

#[test]
fn without_the_roles_that_change_something_that_is_refused_and_the_rest_works() {
    let Some(cluster) = cluster() else {
        return;
    };
    let _kubelets = cluster.kubelets(Duration::ZERO);
    let label = json!({"set": {"team": "storage"}});
    let labels = format!("{NODE}/labels");
    let drains = format!("{NODE}/drain");

    let (account, service, _folder) = without(&cluster, "change-nodes", &[]);
    let told = wait_until_missing(|| shown(&service), &["change_nodes"]);
    assert_eq!(features(&told, "not_used"), ["review_tokens", "review_access"]);
    let line = service.wait_for_line("the service may not patch nodes in cluster test");
    assert!(
        line.contains("\"role\":\"kube-node-manager-change-nodes\"") && line.contains("WARN"),
        "{line}"
    );
    let permission = "patch nodes";
    assert_refused(&send(&service, "PATCH", &labels, &label), permission, "change-nodes");
    let cordon = send(&service, "POST", &format!("{NODE}/cordon"), &json!({"reason": "disk"}));
    assert_refused(&cordon, permission, "change-nodes");
    let operation = json!({"kind": "label", "targets": {"nodes": ["worker-1"]}, "options": label});
    let accepted = send(&service, "POST", "/api/v1/clusters/test/operations", &operation);
    assert_refused(&accepted, permission, "change-nodes");
    assert_refused(&send(&service, "POST", &drains, &drain()), permission, "change-nodes");
    assert!(is_untouched(&cluster));
    assert_eq!(
        service.get(&format!("{NODE}/pods")).json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    bind(&cluster, &account, "change-nodes");
    wait_for("the label to be set", || {
        (send(&service, "PATCH", &labels, &label).status == 200).then_some(())
    });
    drop(service);

    let (account, service, _folder) = without(&cluster, "evict-pods", &[]);
    wait_until_missing(|| shown(&service), &["evict_pods"]);
    let metrics = service.get("/metrics").body;
    for line in [
        "kube_node_manager_cluster_permissions_missing{cluster=\"test\",feature=\"evict_pods\"} 1",
        "kube_node_manager_cluster_permissions_missing{cluster=\"test\",feature=\"change_nodes\"} 0",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    let permission = "create pods/eviction";
    assert_refused(&send(&service, "POST", &drains, &drain()), permission, "evict-pods");
    let plan = send(&service, "POST", &format!("{NODE}/drain/plan"), &json!({}));
    assert_eq!(plan.status, 200, "{}", plan.text());
    assert!(plan.text().contains("kube-node-manager-evict-pods"), "{}", plan.text());
    assert!(is_untouched(&cluster));
    assert_eq!(
        send(&service, "PATCH", &labels, &json!({"remove": ["team"]})).status,
        200
    );
    bind(&cluster, &account, "evict-pods");
    let accepted = wait_for("the drain to be accepted", || {
        let reply = send(&service, "POST", &drains, &drain());
        (reply.status != 502).then_some(reply)
    });
    ends_well(&service, &accepted);
    let uncordoned = send(&service, "POST", &format!("{NODE}/uncordon"), &json!({}));
    assert_eq!(uncordoned.status, 200, "{}", uncordoned.text());
    drop(service);

    cluster.create("/api/v1/namespaces/default/pods", &pod("web-2", "worker-1", "web"));
    let (account, service, _folder) = without(&cluster, "delete-pods", &[]);
    wait_until_missing(|| shown(&service), &["delete_pods"]);
    let deleting = json!({"disable_eviction": true});
    let forcing = json!({"after_deadline": "force", "timeout_seconds": 60});
    for options in [&deleting, &forcing] {
        assert_refused(&send(&service, "POST", &drains, options), "delete pods", "delete-pods");
    }
    assert!(is_untouched(&cluster));
    let dry = send(&service, "POST", &format!("{drains}?dry_run=true"), &drain());
    ends_well(&service, &dry);
    bind(&cluster, &account, "delete-pods");
    let accepted = wait_for("the drain to be accepted", || {
        let reply = send(&service, "POST", &drains, &deleting);
        (reply.status != 502).then_some(reply)
    });
    ends_well(&service, &accepted);
    assert!(!cluster.has("/api/v1/namespaces/default/pods/web-2"));
}

#[test]
fn without_the_roles_that_only_look_the_service_starts_and_says_what_it_lacks() {
    let Some(cluster) = cluster() else {
        return;
    };
    let (account, service, _folder) = without(&cluster, "read", &[]);
    let missing = [
        "view_nodes",
        "view_pods",
        "watch_pods",
        "view_disruption_budgets",
        "view_daemon_sets",
    ];
    let told = wait_until_missing(|| shown(&service), &missing);
    let first = &told["permissions"]["features"][0];
    assert_eq!(
        (&first["missing"], &first["role"]),
        (
            &json!(["get nodes", "list nodes", "watch nodes"]),
            &json!("kube-node-manager-read")
        )
    );
    let listed = service.get("/api/v1/clusters").json();
    assert_eq!(listed["items"][0]["permissions"], Value::Null);
    assert_eq!(service.get("/health/ready").status, 200);
    bind(&cluster, &account, "read");
    wait_for("the node to be seen", || {
        (service.get(NODE).status == 200).then_some(())
    });
    drop(service);

    let (account, service, _folder) = without(&cluster, "review-access", &[("KNM__AUTH__MODE", "tokens,kubernetes")]);
    let made = run(
        PROGRAM,
        service.folder(),
        &["token", "create", "--name", "me", "--role", "viewer"],
        &[],
    );
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let as_holder = |token: &str, path: &str| {
        let header = format!("authorization: Bearer {token}");
        Wire::open(service.address()).get(path, &[&header]).unwrap()
    };
    let ask = || as_holder(&token, "/api/v1/clusters/test").json();
    wait_until_missing(ask, &["review_tokens", "review_access"]);
    let alice = cluster.service_account("alice", &[rule("get", "nodes"), rule("list", "nodes")]);
    assert_eq!(as_holder(&alice, NODE).status, 503);
    bind(&cluster, &account, "review-access");
    wait_for("somebody of the cluster to be signed in", || {
        (as_holder(&alice, NODE).status == 200).then_some(())
    });
}
