//! What a real API server with RBAC says of people.

use std::collections::BTreeSet;
use std::sync::Arc;

use knm_model::{KubernetesAction, KubernetesIdentity, Permission};
use knm_ports::{AccessReviews, ClusterError};
use knm_test_support::api_server::ApiServer;
use knm_test_support::cluster::rule;
use serde_json::{Value, json};

use crate::driver::rule_of;
use crate::{options, with_token};

const OURS: &str = "https://nodes.example.com";

async fn reviews(server: &ApiServer) -> Arc<dyn AccessReviews> {
    reviews_as(server, None).await
}

/// Of a service with this token instead of an administrator's certificate.
async fn reviews_as(server: &ApiServer, token: Option<&str>) -> Arc<dyn AccessReviews> {
    let mut path = server.kubeconfig();
    if let Some(token) = token {
        path = with_token(&path, token);
    }
    let cluster = knm_cluster_kubernetes::open(options(path)).await.expect("a cluster");
    cluster.reviews
}

fn audiences(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn rules(actions: &[KubernetesAction]) -> Vec<Value> {
    actions.iter().map(rule_of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_has_exactly_the_permissions_that_the_rules_of_the_cluster_give() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let reviews = reviews(&server).await;
    let mut cases: Vec<(String, Vec<Value>, &[Permission])> = vec![
        ("nobody".to_owned(), vec![], &[]),
        // Half of what `view` needs.
        ("half-get".to_owned(), vec![rule("get", "nodes")], &[]),
        ("half-list".to_owned(), vec![rule("list", "nodes")], &[]),
        // Close, and not the same.
        (
            "reads-pods".to_owned(),
            vec![rule("get", "pods"), rule("watch", "pods")],
            &[],
        ),
        (
            "updates".to_owned(),
            vec![rule("update", "nodes"), rule("patch", "nodes/status")],
            &[],
        ),
        ("creates-pods".to_owned(), vec![rule("create", "pods")], &[]),
        ("deletes-many".to_owned(), vec![rule("deletecollection", "pods")], &[]),
        (
            "one-node".to_owned(),
            vec![
                json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "patch"], "resourceNames": ["a"]}),
            ],
            &[],
        ),
        (
            "other-group".to_owned(),
            vec![rule("administer", "service.example.com")],
            &[],
        ),
        ("everything".to_owned(), vec![rule("*", "*.*")], &Permission::ALL),
    ];
    let each = Permission::ALL.map(|permission| [permission]);
    for permission in &each {
        let name = permission[0].as_str().to_owned();
        cases.push((name, rules(permission[0].kubernetes()), permission));
    }
    for (name, rules, expected) in cases {
        let token = server.service_account(&name, &rules).await;
        let known = reviews.identify(&token, &[]).await.expect("an answer");
        let identity = known.expect("somebody");
        assert_eq!(identity.user, format!("system:serviceaccount:default:{name}"));
        let mut allowed = BTreeSet::new();
        for permission in Permission::ALL {
            if reviews.may(&identity, permission).await.expect("an answer") {
                allowed.insert(permission);
            }
        }
        // kubectl tells some of them not apart.
        let stands_for_it = |one: &Permission| expected.iter().any(|other| one.kubernetes() == other.kubernetes());
        let expected: BTreeSet<Permission> = Permission::ALL.into_iter().filter(stands_for_it).collect();
        assert_eq!(allowed, expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_count_and_a_namespace_is_not_the_whole_cluster() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let reviews = reviews(&server).await;
    let administrator = KubernetesIdentity {
        user: "root".to_owned(),
        groups: vec!["system:masters".to_owned()],
        ..KubernetesIdentity::default()
    };
    let token = server.service_account("local", &[]).await;
    let role = json!({"metadata": {"name": "local"}, "rules": [
        {"apiGroups": [""], "resources": ["pods", "pods/eviction"], "verbs": ["*"]}]});
    let binding = json!({"metadata": {"name": "local"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "local"},
        "subjects": [{"kind": "ServiceAccount", "name": "local", "namespace": "default"}]});
    for (path, object) in [("roles", &role), ("rolebindings", &binding)] {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/default/{path}");
        let (status, answer) = server.request(http::Method::POST, &path, Some(object)).await;
        assert_eq!(status, 201, "{answer}");
    }
    let local = reviews
        .identify(&token, &[])
        .await
        .expect("an answer")
        .expect("somebody");
    for permission in Permission::ALL {
        assert!(
            reviews.may(&administrator, permission).await.expect("an answer"),
            "{permission:?}"
        );
        assert!(
            !reviews.may(&local, permission).await.expect("an answer"),
            "{permission:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_taken_for_its_audience_while_it_is_valid() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let reviews = reviews(&server).await;
    let identify = async |token: &str, names: &[&str]| {
        let told = reviews.identify(token, &audiences(names)).await.expect("an answer");
        told.map(|identity| identity.user)
    };
    let somebody = Some("system:serviceaccount:default:alice".to_owned());
    let own = server.service_account("alice", &[]).await;
    let ours = server.service_account_token("alice", &[OURS, "other"]).await;
    assert_eq!(identify(&own, &[]).await, somebody);
    assert_eq!(identify(&own, &[OURS]).await, None);
    assert_eq!(identify(&ours, &[OURS]).await, somebody);
    assert_eq!(identify(&ours, &["mine", OURS]).await, somebody);
    assert_eq!(identify(&ours, &["mine"]).await, None);
    assert_eq!(identify(&ours, &[]).await, None);

    // Signed again without a change it is taken, so what follows is not refused for its signature.
    assert_eq!(identify(&server.signed_again(&ours, |_| ()), &[OURS]).await, somebody);
    let expired = server.signed_again(&ours, |claims| {
        claims["exp"] = json!(claims["iat"].as_i64().expect("a time") - 3600);
        claims["iat"] = json!(claims["iat"].as_i64().expect("a time") - 7200);
        claims["nbf"] = claims["iat"].clone();
    });
    assert_eq!(identify(&expired, &[OURS]).await, None);
    let foreign = server.signed_again(&ours, |claims| claims["iss"] = json!("https://elsewhere.example.com"));
    assert_eq!(identify(&foreign, &[OURS]).await, None);
    let (signed, _) = ours.rsplit_once('.').expect("a signature");
    let unsigned = format!("{signed}.{}", "A".repeat(86));
    for garbage in [
        "garbage",
        "a.b.c",
        "knm_0",
        "\u{0}\r\n\"",
        &unsigned,
        &format!("{ours}x"),
        signed,
    ] {
        assert_eq!(identify(garbage, &[OURS]).await, None, "{garbage}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_may_not_ask_is_told_which_role_it_lacks() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let token = server.service_account("service", &[rule("get", "nodes")]).await;
    let reviews = reviews_as(&server, Some(&token)).await;
    let identity = KubernetesIdentity {
        user: "alice".to_owned(),
        ..KubernetesIdentity::default()
    };
    let refused = |error: ClusterError| matches!(&error, ClusterError::Forbidden { message, .. } if message.contains("system:auth-delegator"));
    assert!(refused(reviews.identify("garbage", &[]).await.expect_err("it may not")));
    assert!(refused(
        reviews.may(&identity, Permission::View).await.expect_err("it may not")
    ));
}
