use knm_model::Role;
use poem::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::stage::{Answer, CLUSTERS, Stage};
use super::*;
use crate::ServerLimits;

/// What exists in the cluster `east`, for the parameters of paths.
struct Things {
    node: String,
    operation: String,
    record: String,
    token: String,
}

fn words(permissions: &[Permission]) -> String {
    let words: Vec<&str> = permissions.iter().map(|permission| permission.as_str()).collect();
    words.join("+")
}

/// Somebody who may do this in these clusters.
fn somebody(clusters: &[&str], permissions: &[Permission]) -> String {
    let parts: Vec<String> = clusters
        .iter()
        .map(|cluster| format!("{cluster}:{}", words(permissions)))
        .collect();
    parts.join(",")
}

fn everybody() -> String {
    somebody(&CLUSTERS, &Permission::ALL)
}

async fn things(stage: &Stage) -> Things {
    let node = stage.node("east");
    let root = everybody();
    let begin = json!({"kind": "label", "targets": {"nodes": [node]}, "options": {"set": {"a": "b"}}});
    let operation = stage
        .done(Method::POST, "/api/v1/clusters/east/operations", &root, begin)
        .await;
    let patch = format!("/api/v1/clusters/east/nodes/{node}/labels");
    stage
        .done(Method::PATCH, &patch, &root, json!({"set": {"team": "storage"}}))
        .await;
    let records = stage.ask(&Method::GET, "/api/v1/audit", Some(&root), None).await;
    stage
        .done(
            Method::POST,
            "/api/v1/templates",
            &root,
            json!({"name": "t", "labels": {"pool": "gpu"}}),
        )
        .await;
    let binding = json!({"name": "b", "template": "t", "cluster": "east", "label_selector": "pool"});
    stage.done(Method::POST, "/api/v1/bindings", &root, binding).await;
    let token = stage
        .done(
            Method::POST,
            "/api/v1/tokens",
            &root,
            json!({"name": "x", "role": "viewer"}),
        )
        .await;
    Things {
        node,
        operation: operation["id"].as_str().unwrap().to_owned(),
        record: records.body["items"][0]["id"].as_str().unwrap().to_owned(),
        token: token["token"]["id"].as_str().unwrap().to_owned(),
    }
}

impl Things {
    fn fill(&self, path: &str) -> String {
        let id = match path {
            "/api/v1/audit/{id}" => &self.record,
            "/api/v1/tokens/{id}" => &self.token,
            _ => &self.operation,
        };
        path.replace("{cluster}", "east")
            .replace("{node}", &self.node)
            .replace("{template}", "t")
            .replace("{binding}", "b")
            .replace("{check}", "ping")
            .replace("{id}", id)
    }
}

/// Every operation of the document: its template, its method and what it needs.
fn operations() -> Vec<(String, Method, Need)> {
    let document: Value = serde_json::from_str(&crate::openapi_json()).unwrap();
    let mut all = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let need = need(path, &method);
            all.push((path.clone(), method, need));
        }
    }
    assert!(40 < all.len(), "the document has its operations");
    all
}

fn is_let_in(answer: &Answer) -> bool {
    !matches!(
        answer.status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND
    )
}

#[test]
fn what_is_under_api_needs_a_caller_and_probes_do_not() {
    for (path, method, need) in operations() {
        let needs_caller = need.part != Part::Public;
        let is_probe = ["/health", "/livez", "/readyz"]
            .iter()
            .any(|probe| path.starts_with(probe));
        assert_eq!(needs_caller, !is_probe, "{method} {path}");
        let is_api = path.starts_with("/api/");
        let is_shown = is_api || path == "/metrics";
        assert_eq!(!need.permissions.is_empty(), is_shown, "{method} {path}");
        assert!(!is_api || need.permissions == [Administer] || need.permissions.contains(&View));
        let changes = method != Method::GET && !path.ends_with("/plan") && !path.ends_with("/preview");
        let may_change = need.permissions.contains(&Change) || need.permissions.contains(&Administer);
        let is_for_admins = path.starts_with("/api/v1/tokens");
        assert!(changes == may_change || is_for_admins, "{method} {path}");
    }
}

/// What the README says of roles and operations.
fn tables() -> String {
    let mut text =
        "| permission | lets one | viewer | operator | admin | `force` | with kubectl |\n|---|---|---|---|---|---|---|\n".to_owned();
    for permission in Permission::ALL {
        let meaning = match permission {
            View => "see nodes, operations and the audit log",
            ViewPods => "see the pods on nodes",
            Change => "change labels, taints and cordons, and write templates and bindings",
            Drain => "have pods evicted as disruption budgets allow",
            Force => "drain with `force`, `disable_eviction` or `after_deadline: force`",
            NoExecute => "add `NoExecute` taints to nodes with running pods (`confirm_no_execute`)",
            Administer => "make and revoke API tokens, register clusters",
        };
        let has = |role: Role| {
            if role.permissions().contains(permission) {
                "yes"
            } else {
                ""
            }
        };
        let [viewer, operator, admin] = Role::ALL.map(has);
        let forces = if matches!(permission, Force | NoExecute) {
            "yes"
        } else {
            ""
        };
        let rules: Vec<String> = permission.kubernetes().iter().map(ToString::to_string).collect();
        text.push_str(&format!(
            "| `{}` | {meaning} | {viewer} | {operator} | {admin} | {forces} | {} |\n",
            permission.as_str(),
            rules.join(", ")
        ));
    }
    text.push_str("\n| needs | operations |\n|---|---|\n");
    let mut rows: Vec<(Need, Vec<String>)> = Vec::new();
    for (path, method, need) in operations() {
        if need.part == Part::Public {
            continue;
        }
        let operation = format!("`{method} {}`", path.strip_prefix("/api/v1").unwrap_or(&path));
        match rows.iter_mut().find(|(known, _)| *known == need) {
            Some((_, operations)) => operations.push(operation),
            None => rows.push((need, vec![operation])),
        }
    }
    for (need, operations) in rows {
        let permissions = |words: &[Permission]| {
            let words: Vec<String> = words.iter().map(|word| format!("`{}`", word.as_str())).collect();
            words.join(", ")
        };
        let place = match need.part {
            Part::Public => "nothing",
            Part::Metrics => " of something where `metrics.require_auth` is set, else nothing",
            Part::Docs => "nothing, or any caller where `docs.require_auth` is set",
            Part::Anything => "; shows what one may see",
            Part::SomeOfCluster => " in the cluster",
            Part::Node => " on the node",
            Part::Everything => " without limits",
        };
        let perhaps = match need.perhaps {
            [] => String::new(),
            words => format!("; {} where it is asked for", permissions(words)),
        };
        text.push_str(&format!(
            "| {}{place}{perhaps} | {} |\n",
            permissions(need.permissions),
            operations.join(", ")
        ));
    }
    text
}

#[test]
fn the_readme_says_who_may_do_what() {
    let readme = include_str!("../../../../README.md");
    let tables = tables();
    assert!(readme.contains(&tables), "the README should say:\n{tables}");
}

#[tokio::test]
async fn every_operation_refuses_an_anonymous_caller() {
    let stage = Stage::new().await;
    let things = things(&stage).await;
    for (path, method, need) in operations() {
        let (path, anonymous) = (things.fill(&path), need.part != Part::Public);
        for token in [None, Some("guess"), Some("knm_0123456789abcdef_00")] {
            // No more than a few guesses, or the address would be slowed down.
            if token.is_some() && path != "/api/v1/nodes" {
                continue;
            }
            let answer = stage.ask(&method, &path, token, None).await;
            let refused = answer.status == StatusCode::UNAUTHORIZED;
            assert_eq!(refused, anonymous, "{method} {path}: {}", answer.text);
            if refused {
                assert_eq!(answer.challenge.as_deref(), Some("Bearer realm=\"kube-node-manager\""));
                assert_eq!(
                    answer.body["detail"],
                    crate::problem::NOT_SIGNED_IN,
                    "whatever was wrong"
                );
            }
        }
    }
}

#[tokio::test]
async fn every_operation_lets_those_in_who_have_what_it_needs_and_refuses_with_one_permission_less() {
    let stage = Stage::new().await;
    let things = things(&stage).await;
    for (template, method, need) in operations() {
        // Whoever revokes the token or deletes what others need goes last, in tests of their own.
        if need.permissions.is_empty() || method == Method::DELETE {
            continue;
        }
        let path = things.fill(&template);
        let enough = somebody(&CLUSTERS, need.permissions);
        let answer = stage.ask(&method, &path, Some(&enough), None).await;
        assert!(
            is_let_in(&answer),
            "{method} {path} as {enough}: {} {}",
            answer.status,
            answer.text
        );
        for missing in need.permissions {
            let left: Vec<Permission> = need.permissions.iter().copied().filter(|one| one != missing).collect();
            let less = somebody(&CLUSTERS, &left);
            let answer = stage.ask(&method, &path, Some(&less), None).await;
            let expected = match need.part {
                // What may not be seen is not there.
                Part::SomeOfCluster | Part::Node if *missing == View => StatusCode::NOT_FOUND,
                _ => StatusCode::FORBIDDEN,
            };
            assert_eq!(answer.status, expected, "{method} {path} as {less}: {}", answer.text);
            if expected == StatusCode::FORBIDDEN {
                let told = answer.body["detail"].as_str().unwrap();
                assert!(told.contains(&format!("permission {}", missing.as_str())), "{told}");
            }
        }
    }
}

#[tokio::test]
async fn every_operation_hides_a_cluster_from_callers_of_another_one() {
    let stage = Stage::new().await;
    let things = things(&stage).await;
    let other = somebody(&["west"], &Permission::ALL);
    for (template, method, need) in operations() {
        let path = things.fill(&template);
        let answer = stage.ask(&method, &path, Some(&other), None).await;
        let expected = match need.part {
            Part::Public | Part::Metrics | Part::Docs => continue,
            Part::SomeOfCluster | Part::Node => StatusCode::NOT_FOUND,
            // The home of the service is `east`, and it does not know them as somebody who administers.
            Part::Everything => StatusCode::FORBIDDEN,
            Part::Anything if template.contains("/templates") => continue,
            Part::Anything if path == template && method == Method::GET => StatusCode::OK,
            // What is missing in the body is told first.
            Part::Anything if path == template => continue,
            Part::Anything => StatusCode::NOT_FOUND,
        };
        assert_eq!(answer.status, expected, "{method} {path}: {}", answer.text);
        assert!(
            !answer.text.contains("\"east\"") || answer.status == StatusCode::NOT_FOUND,
            "{method} {path}: {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn what_may_not_be_seen_looks_as_if_it_were_not_there() {
    let stage = Stage::new().await;
    let things = things(&stage).await;
    let other = somebody(&["west"], &Permission::ALL);
    for (hidden, absent) in [
        ("/api/v1/clusters/east", "/api/v1/clusters/moon"),
        ("/api/v1/clusters/east/nodes", "/api/v1/clusters/moon/nodes"),
    ] {
        let hidden = stage.ask(&Method::GET, hidden, Some(&other), None).await;
        let absent = stage.ask(&Method::GET, absent, Some(&other), None).await;
        assert_eq!(hidden.status, absent.status);
        let (told, expected) = (&hidden.body["detail"], &absent.body["detail"]);
        assert_eq!(
            told.as_str().unwrap().replace("east", "moon"),
            expected.as_str().unwrap()
        );
    }
    for body in [
        json!({"kind": "cordon", "reason": "x", "targets": [{"cluster": "east", "nodes": [things.node]}]}),
        json!({"kind": "cordon", "reason": "x", "targets": [{"cluster": "moon", "nodes": [things.node]}]}),
    ] {
        let answer = stage
            .ask(&Method::POST, "/api/v1/operations", Some(&other), Some(&body))
            .await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text);
    }
}

#[tokio::test]
async fn what_the_body_asks_for_is_decided_too() {
    let stage = Stage::new().await;
    let things = things(&stage).await;
    let changes = somebody(&["east"], &[View, Change]);
    let drains = somebody(&["east"], &[View, Change, Drain]);
    let forces = somebody(&["east"], &[View, Change, Drain, Force]);
    let operation = |options: Value| json!({"kind": "drain", "targets": {"nodes": [things.node]}, "options": options});
    let gentle = json!({"ignore_daemonsets": true});
    let forced = [
        json!({"force": true}),
        json!({"disable_eviction": true}),
        json!({"timeout_seconds": 60, "after_deadline": "force"}),
    ];
    let taint = json!({"add": [{"key": "a", "effect": "NoExecute"}], "confirm_no_execute": true});
    let evicts = somebody(&["east"], &[View, Change, NoExecute]);
    let taints = format!("/api/v1/clusters/east/nodes/{}/taints", things.node);
    let bulk = json!({"kind": "taint", "targets": {"nodes": [things.node]}, "options": taint});
    for (token, expected) in [(&changes, [403, 403]), (&evicts, [200, 202])] {
        let single = stage.ask(&Method::PATCH, &taints, Some(token), Some(&taint)).await;
        let many = stage
            .ask(
                &Method::POST,
                "/api/v1/clusters/east/operations",
                Some(token),
                Some(&bulk),
            )
            .await;
        assert_eq!(
            [single.status.as_u16(), many.status.as_u16()],
            expected,
            "{}{}",
            single.text,
            many.text
        );
    }
    let binding = json!({"name": "evicting", "template": "t", "label_selector": "pool", "reconcile": true, "confirm_no_execute": true});
    for (permissions, expected) in [(&[View, Change][..], 403), (&[View, Change, NoExecute], 201)] {
        let token = somebody(&CLUSTERS, permissions);
        let answer = stage
            .ask(&Method::POST, "/api/v1/bindings", Some(&token), Some(&binding))
            .await;
        assert_eq!(answer.status.as_u16(), expected, "{}", answer.text);
    }
    let path = "/api/v1/clusters/east/operations";
    let drain = format!("/api/v1/clusters/east/nodes/{}/drain", things.node);
    let status = async |token: &str, path: &str, body: &Value| {
        let answer = stage.ask(&Method::POST, path, Some(token), Some(body)).await;
        answer.status.as_u16()
    };
    assert_eq!(status(&changes, path, &operation(gentle.clone())).await, 403);
    assert_eq!(status(&drains, path, &operation(gentle.clone())).await, 202);
    assert_eq!(status(&drains, &drain, &gentle).await, 202);
    for options in forced {
        assert_eq!(
            status(&drains, path, &operation(options.clone())).await,
            403,
            "{options}"
        );
        assert_eq!(status(&drains, &drain, &options).await, 403, "{options}");
        assert_eq!(
            status(&forces, path, &operation(options.clone())).await,
            202,
            "{options}"
        );
    }
}

#[tokio::test]
async fn limits_to_nodes_hold_everywhere() {
    let stage = Stage::new().await;
    let things = things(&stage).await;
    let root = everybody();
    // The node with this label is the one that was labelled in the beginning.
    let new = json!({"name": "storage", "role": "operator", "nodes": "team=storage"});
    let made = stage.done(Method::POST, "/api/v1/tokens", &root, new).await;
    let token = made["secret"].as_str().unwrap();
    // The change is seen by watching.
    while stage.ask(&Method::GET, "/api/v1/nodes", Some(token), None).await.body["total"] != 1 {
        tokio::task::yield_now().await;
    }
    let get = async |path: &str| stage.ask(&Method::GET, path, Some(token), None).await;
    let list = get("/api/v1/clusters/east/nodes").await;
    assert_eq!(list.body["items"][0]["name"], things.node.as_str());
    assert_eq!(get("/api/v1/clusters/east/summary").await.body["nodes"], 1);
    assert_eq!(get("/api/v1/clusters/east").await.body["nodes"], 1);
    let others = stage.inventory.snapshot("east").unwrap();
    let other = others
        .entries()
        .find(|entry| entry.node().name.as_str() != things.node)
        .unwrap();
    let (own, other) = (things.node.as_str(), other.node().name.as_str());
    for part in ["", "/pods", "/history"] {
        assert_eq!(
            get(&format!("/api/v1/clusters/east/nodes/{own}{part}")).await.status,
            StatusCode::OK,
            "{part}"
        );
        let hidden = get(&format!("/api/v1/clusters/east/nodes/{other}{part}")).await;
        assert_eq!(hidden.status, StatusCode::NOT_FOUND, "{part}");
    }
    let cordon = async |node: &str| {
        let path = format!("/api/v1/clusters/east/nodes/{node}/cordon");
        stage
            .ask(&Method::POST, &path, Some(token), Some(&json!({"reason": "x"})))
            .await
            .status
    };
    assert_eq!(cordon(own).await, StatusCode::OK);
    assert_eq!(cordon(other).await, StatusCode::NOT_FOUND);
    let label = async |key: &str| {
        let path = format!("/api/v1/clusters/east/nodes/{own}/labels");
        let body = json!({"set": {key: "x"}});
        stage.ask(&Method::PATCH, &path, Some(token), Some(&body)).await
    };
    let guarded = label("team").await;
    assert_eq!(guarded.status, StatusCode::FORBIDDEN, "{}", guarded.text);
    assert_eq!(label("rack").await.status, StatusCode::OK);
    let plan = format!("/api/v1/clusters/east/nodes/{own}/drain/plan");
    let plan = stage.ask(&Method::POST, &plan, Some(token), Some(&json!({}))).await;
    assert_eq!(plan.body["fit"]["estimated"], false, "{}", plan.text);
    let all = json!({"kind": "cordon", "reason": "x", "targets": {"label_selector": ""}});
    let accepted = stage
        .done(Method::POST, "/api/v1/clusters/east/operations", token, all)
        .await;
    assert_eq!(accepted["progress"]["total"], 1, "a selector finds what may be seen");
    let foreign = json!({"kind": "cordon", "reason": "x", "targets": {"nodes": [other]}});
    let foreign = stage
        .done(Method::POST, "/api/v1/clusters/east/operations", &root, foreign)
        .await;
    let id = foreign["id"].as_str().unwrap();
    assert_eq!(
        get(&format!("/api/v1/operations/{id}")).await.status,
        StatusCode::NOT_FOUND
    );
    let listed = get("/api/v1/operations").await;
    assert!(!listed.text.contains(id), "{}", listed.text);
    assert_eq!(get("/api/v1/tokens").await.status, StatusCode::FORBIDDEN);
    assert_eq!(get("/api/v1/clusters/west/nodes").await.body["total"], 0);
}

#[tokio::test]
async fn an_answer_is_not_repeated_to_whoever_may_not_see_its_operation_any_more() {
    let stage = Stage::new().await;
    let things = things(&stage).await;
    let root = everybody();
    let new = json!({"name": "storage", "role": "operator", "nodes": "team=storage"});
    let made = stage.done(Method::POST, "/api/v1/tokens", &root, new).await;
    let token = made["secret"].as_str().unwrap();
    let sees = async |total: u64| {
        while stage.ask(&Method::GET, "/api/v1/nodes", Some(token), None).await.body["total"] != total {
            tokio::task::yield_now().await;
        }
    };
    sees(1).await;
    let begin = json!({"kind": "cordon", "reason": "x", "targets": [{"cluster": "east", "nodes": [things.node]}]});
    let once = async |path: &str, key: &str, body: Option<&Value>| {
        let key = [("idempotency-key", key)];
        stage.ask_with(&Method::POST, path, Some(token), body, &key).await
    };
    let accepted = once("/api/v1/operations", "k", Some(&begin)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{}", accepted.text);
    assert_eq!(once("/api/v1/operations", "k", Some(&begin)).await.body, accepted.body);
    let cancel = format!("/api/v1/operations/{}/cancel", accepted.body["id"].as_str().unwrap());
    let cancelled = once(&cancel, "c", None).await;
    assert_eq!(cancelled.status, StatusCode::OK, "{}", cancelled.text);
    assert_eq!(once(&cancel, "c", None).await.body, cancelled.body);

    let labels = format!("/api/v1/clusters/east/nodes/{}/labels", things.node);
    stage
        .done(Method::PATCH, &labels, &root, json!({"set": {"team": "web"}}))
        .await;
    sees(0).await;
    let again = once("/api/v1/operations", "k", Some(&begin)).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND, "{}", again.text);
    assert_eq!(once(&cancel, "c", None).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_token_is_shown_once_and_revoked_for_good() {
    let stage = Stage::new().await;
    let root = everybody();
    let made = stage
        .done(
            Method::POST,
            "/api/v1/tokens",
            &root,
            json!({"name": "ci", "role": "viewer"}),
        )
        .await;
    let (secret, id) = (made["secret"].as_str().unwrap(), made["token"]["id"].as_str().unwrap());
    assert_eq!(
        stage
            .ask(&Method::GET, "/api/v1/nodes", Some(secret), None)
            .await
            .status,
        StatusCode::OK
    );
    let listed = stage.ask(&Method::GET, "/api/v1/tokens", Some(&root), None).await;
    assert!(listed.text.contains(id) && !listed.text.contains(secret));
    let again = stage
        .ask(
            &Method::POST,
            "/api/v1/tokens",
            Some(&root),
            Some(&json!({"name": "ci", "role": "viewer"})),
        )
        .await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    let path = format!("/api/v1/tokens/{id}");
    assert_eq!(
        stage.ask(&Method::DELETE, &path, Some(&root), None).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        stage.ask(&Method::DELETE, &path, Some(&root), None).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        stage
            .ask(&Method::GET, "/api/v1/nodes", Some(secret), None)
            .await
            .status,
        StatusCode::UNAUTHORIZED
    );
    let unknown = stage
        .ask(&Method::DELETE, "/api/v1/tokens/nothing", Some(&root), None)
        .await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn requests_of_strangers_count_for_their_address_and_those_of_others_there_do_not() {
    for (method, path, first) in [
        (Method::GET, "/api/v1/nodes", 401),
        (Method::GET, "/api/v1/clusters/moon", 401),
        (Method::DELETE, "/api/v1/nodes", 405),
        (Method::OPTIONS, "/api/v1/nodes", 204),
    ] {
        let stage = Stage::with_limits(ServerLimits {
            caller_requests_per_second: 1,
            ..ServerLimits::of_tests()
        })
        .await;
        let strangers = (0..20).map(|_| stage.ask(&method, path, None, None));
        let answers = futures::future::join_all(strangers).await;
        let with = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
        assert!(10 < with(429), "{method} {path}");
        assert_eq!(with(first) + with(429), 20, "{method} {path}");
        let known = somebody(&CLUSTERS, &[View]);
        let answer = stage.ask(&Method::GET, "/api/v1/nodes", Some(&known), None).await;
        assert_eq!(answer.status, StatusCode::OK, "after {method} {path}");
        // Whoever signed in counts for themselves, also when they are refused.
        let refused = (0..20).map(|_| stage.ask(&Method::GET, "/api/v1/tokens", Some(&known), None));
        let answers = futures::future::join_all(refused).await;
        assert!(
            answers
                .iter()
                .any(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS)
        );
    }
}
