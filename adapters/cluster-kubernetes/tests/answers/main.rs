//! Odd answers of an API server, and what becomes of them.

mod evictions;
mod permissions;
mod pods;
mod reviews;
mod scripted;

use std::time::Duration;

use futures::StreamExt;
use knm_cluster_kubernetes::{KubernetesCluster, KubernetesOptions, KubernetesSource, OpenError, current_context};
use knm_model::{ClusterName, NodeName};
use knm_ports::{ClusterError, ClusterGateway, NodeEvent, NodeEvents};
use serde_json::{Value, json};
use std::sync::Arc;

use scripted::{Answer, Scripted};

const LIST: &str = "GET /api/v1/nodes?limit";
const NEXT_PAGE: &str = "continue=next";
const WATCH: &str = "GET /api/v1/nodes?watch";
const PODS: &str = "GET /api/v1/pods";

#[tokio::test]
async fn a_watch_that_is_too_old_begins_again_with_a_list() {
    let gone = json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}});
    let server = Scripted::start([
        (LIST, page(&["a"], "5", "")),
        (WATCH, Answer::Lines(format!("{gone}\n"))),
        (LIST, page(&["a", "b"], "9", "")),
        (WATCH, Answer::Begins(String::new())),
    ])
    .await;
    let mut events = open(&server).await.watch_nodes();
    assert_eq!(replaced(&mut events).await, ["a"]);
    assert_eq!(replaced(&mut events).await, ["a", "b"]);
}

#[tokio::test]
async fn a_watch_that_ends_is_opened_again_where_the_last_bookmark_was() {
    let added = json!({"type": "ADDED", "object": node("b", "7")});
    let bookmark = json!({"type": "BOOKMARK", "object": {"kind": "Node", "metadata": {"resourceVersion": "8"}}});
    let server = Scripted::start([
        (LIST, page(&["a"], "5", "")),
        (WATCH, Answer::Lines(format!("{added}\n{bookmark}\n"))),
        (
            WATCH,
            Answer::Begins(format!("{}\n", json!({"type": "DELETED", "object": node("a", "9")}))),
        ),
    ])
    .await;
    let mut events = open(&server).await.watch_nodes();
    assert_eq!(replaced(&mut events).await, ["a"]);
    assert!(matches!(next(&mut events).await, NodeEvent::Applied(node) if node.name.as_str() == "b"));
    assert!(matches!(next(&mut events).await, NodeEvent::Deleted(name) if name.as_str() == "a"));
    let versions: Vec<String> = server
        .seen()
        .into_iter()
        .filter(|head| head.contains("watch=true"))
        .collect();
    assert!(
        versions[0].contains("resourceVersion=5 ") && versions[1].contains("resourceVersion=8 "),
        "{versions:?}"
    );
}

#[tokio::test]
async fn a_list_whose_next_page_is_too_old_is_begun_again() {
    let server = Scripted::start([
        (NEXT_PAGE, refusal(410)),
        (LIST, page(&["a"], "5", "next")),
        (LIST, page(&["b"], "6", "next")),
        (NEXT_PAGE, page(&["c"], "6", "")),
        (WATCH, Answer::Begins(String::new())),
    ])
    .await;
    let mut events = open(&server).await.watch_nodes();
    assert_eq!(replaced(&mut events).await, ["b", "c"]);
}

#[tokio::test]
async fn a_page_that_breaks_off_is_lost_and_not_half_a_list() {
    let Answer::Is(_, _, half) = page(&["b"], "5", "") else {
        unreachable!("a page is a whole answer");
    };
    let server = Scripted::start([
        (NEXT_PAGE, Answer::CutOff(half)),
        (LIST, page(&["a"], "5", "next")),
        (LIST, page(&["a"], "6", "next")),
        (NEXT_PAGE, page(&["b"], "6", "")),
        (WATCH, Answer::Begins(String::new())),
    ])
    .await;
    let mut events = open(&server).await.watch_nodes();
    let first = next(&mut events).await;
    assert!(
        matches!(&first, NodeEvent::Lost(ClusterError::Unavailable { .. })),
        "{first:?}"
    );
    assert_eq!(replaced(&mut events).await, ["a", "b"]);
}

#[tokio::test]
async fn garbage_in_a_list_is_lost_and_never_an_empty_list() {
    for garbage in [
        "<html>",
        "{}",
        "{\"metadata\":{\"resourceVersion\":\"1\"}}",
        "{\"items\":[]}",
        "",
    ] {
        let server = Scripted::start([(LIST, Answer::Is(200, "", garbage.to_owned()))]).await;
        let first = next(&mut open(&server).await.watch_nodes()).await;
        assert!(
            matches!(&first, NodeEvent::Lost(ClusterError::Unreadable { .. })),
            "{garbage}: {first:?}"
        );
    }
}

#[tokio::test]
async fn garbage_in_a_watch_is_lost_and_a_list_follows() {
    let server = Scripted::start([
        (LIST, page(&["a"], "5", "")),
        (WATCH, Answer::Begins("{\"type\":\"ADDED\",\"object\":7}\n".to_owned())),
        (LIST, page(&["b"], "6", "")),
        (WATCH, Answer::Begins(String::new())),
    ])
    .await;
    let mut events = open(&server).await.watch_nodes();
    assert_eq!(replaced(&mut events).await, ["a"]);
    let lost = next(&mut events).await;
    assert!(
        matches!(&lost, NodeEvent::Lost(ClusterError::Unreadable { .. })),
        "{lost:?}"
    );
    assert_eq!(replaced(&mut events).await, ["b"]);
}

#[tokio::test]
async fn each_refusal_is_told_as_what_it_is() {
    type Check = fn(&ClusterError) -> bool;
    let cases: [(u16, Check); 9] = [
        (403, |error| matches!(error, ClusterError::Forbidden { .. })),
        (404, |error| matches!(error, ClusterError::NotFound { .. })),
        (409, |error| matches!(error, ClusterError::Conflict { .. })),
        (410, |error| matches!(error, ClusterError::Conflict { .. })),
        (422, |error| matches!(error, ClusterError::Invalid { .. })),
        (429, |error| {
            matches!(error, ClusterError::TooManyRequests { retry_after: None })
        }),
        (500, |error| matches!(error, ClusterError::Unavailable { .. })),
        (503, |error| matches!(error, ClusterError::Unavailable { .. })),
        (504, |error| matches!(error, ClusterError::Unavailable { .. })),
    ];
    for (status, as_expected) in cases {
        let server = Scripted::start([
            (PODS, refusal(status)),
            (PODS, refusal(status)),
            (PODS, refusal(status)),
        ])
        .await;
        let error = open(&server).await.pods_on_node(&a()).await.expect_err("it is refused");
        assert!(as_expected(&error), "{status}: {error:?}");
    }
}

#[tokio::test]
async fn a_busy_server_says_when_to_come_back() {
    let busy = Answer::Is(429, "retry-after: 7\r\n", "too many".to_owned());
    let server = Scripted::start([(PODS, busy)]).await;
    let error = open(&server).await.pods_on_node(&a()).await.expect_err("it is busy");
    let ClusterError::TooManyRequests { retry_after } = error else {
        panic!("{error:?}");
    };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn a_busy_server_is_left_alone_until_the_time_that_it_said() {
    let busy = Answer::Is(429, "retry-after: 60\r\n", "too many".to_owned());
    let server = Scripted::start([(PODS, busy)]).await;
    let gateway = open(&server).await;
    for _ in 0..3 {
        let error = gateway.pods_on_node(&a()).await.expect_err("it is busy");
        let is_told = matches!(&error, ClusterError::TooManyRequests { retry_after: Some(left) } if *left <= Duration::from_secs(60));
        assert!(is_told, "{error:?}");
    }
    assert_eq!(server.seen().len(), 1, "{:?}", server.seen());
}

#[tokio::test]
async fn a_server_that_hangs_is_a_timeout() {
    let server = Scripted::start([(PODS, Answer::Hangs)]).await;
    let error = open(&server).await.pods_on_node(&a()).await.expect_err("nothing comes");
    assert!(matches!(error, ClusterError::TimedOut { limit } if limit == options(&server).request_timeout));
}

#[tokio::test]
async fn a_changed_kubeconfig_is_used_by_the_next_call_a_second_later() {
    let server = Scripted::start([(PODS, page(&[], "1", "")), (PODS, page(&[], "1", ""))]).await;
    let gateway = open(&server).await;
    gateway.pods_on_node(&a()).await.expect("no pods");
    server.write_kubeconfig("second-token");
    tokio::time::sleep(Duration::from_secs(1)).await;
    gateway.pods_on_node(&a()).await.expect("no pods");
    let seen = server.seen();
    assert!(
        seen[0].contains("Bearer first-token") && seen[1].contains("Bearer second-token"),
        "{seen:?}"
    );
    assert!(seen[0].contains("user-agent: kube-node-manager/"), "{seen:?}");
}

#[tokio::test]
async fn several_kubeconfigs_are_taken_together_and_missing_ones_passed_over() {
    let server = Scripted::start([(PODS, page(&[], "1", ""))]).await;
    let write = |name: &str, content: Value| {
        let file = server.kubeconfig().with_file_name(name);
        std::fs::write(&file, content.to_string()).expect("a file");
        file
    };
    let context = json!({"name": "both", "context": {"cluster": "scripted", "user": "second"}});
    let first = write("first", json!({"current-context": "", "contexts": [context]}));
    let user = json!({"name": "second", "user": {"token": "token-of-the-second"}});
    let second = write("second", json!({"current-context": "both", "users": [user]}));
    let missing = server.kubeconfig().with_file_name("missing");
    let path = std::env::join_paths([first, missing, second, server.kubeconfig()]).expect("a list");
    assert_eq!(current_context(path.as_ref()).expect("files").as_deref(), Some("both"));

    let mut options = options(&server);
    options.source = KubernetesSource::Kubeconfig {
        path: path.into(),
        context: None,
    };
    let gateway = knm_cluster_kubernetes::open(options).await.expect("a cluster").gateway;
    gateway.pods_on_node(&a()).await.expect("no pods");
    assert!(
        server.seen()[0].contains("Bearer token-of-the-second"),
        "{:?}",
        server.seen()
    );
}

#[tokio::test]
async fn a_credential_plugin_is_run_again_when_its_token_is_refused() {
    let server = Scripted::start([
        (PODS, page(&[], "1", "")),
        (PODS, refusal(401)),
        (PODS, page(&[], "1", "")),
    ])
    .await;
    let write = |token: &str| std::fs::write(server.plugin_token(), token).expect("a token");
    write("first-token");
    server.write_plugin_kubeconfig();
    let gateway = open(&server).await;
    gateway.pods_on_node(&a()).await.expect("no pods");
    write("second-token");
    gateway.pods_on_node(&a()).await.expect("no pods");
    let tokens: Vec<bool> = server
        .seen()
        .iter()
        .map(|head| head.contains("Bearer second-token"))
        .collect();
    assert_eq!(tokens, [false, false, true]);
}

#[tokio::test]
async fn refused_credentials_are_read_again_once() {
    let server = Scripted::start([(PODS, refusal(401)), (PODS, page(&[], "1", ""))]).await;
    open(&server)
        .await
        .pods_on_node(&a())
        .await
        .expect("the second time they are taken");

    let server = Scripted::start([(PODS, refusal(401)), (PODS, refusal(401))]).await;
    let error = open(&server)
        .await
        .pods_on_node(&a())
        .await
        .expect_err("they are not taken");
    assert!(matches!(error, ClusterError::Unauthenticated { .. }), "{error:?}");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn budgets_of_a_cluster_that_only_knows_the_beta_are_read_and_an_empty_selector_matches_nothing() {
    let budgets = json!({"metadata": {"resourceVersion": "1"}, "items": [
        {"metadata": {"name": "all", "namespace": "team"}, "spec": {"selector": {}}, "status": {"disruptionsAllowed": 1}}]});
    let beta = "GET /apis/policy/v1beta1/";
    let stable = "GET /apis/policy/v1/";
    let answer = Answer::Is(200, "", budgets.to_string());
    let server = Scripted::start([(stable, refusal(404)), (beta, answer.clone()), (beta, answer.clone())]).await;
    let gateway = open(&server).await;
    for _ in 0..2 {
        let listed = gateway.disruption_budgets().await.expect("the budgets");
        assert_eq!((listed[0].name.as_str(), &listed[0].selector), ("all", &None));
    }
    // What is known is not asked again.
    assert_eq!(server.seen().len(), 3);

    let server = Scripted::start([(stable, answer)]).await;
    let listed = open(&server).await.disruption_budgets().await.expect("the budgets");
    assert!(
        listed[0]
            .selector
            .as_ref()
            .is_some_and(|selector| selector.requirements().is_empty())
    );
}

#[tokio::test]
async fn no_error_holds_the_token_or_the_kubeconfig() {
    for status in [401, 403, 500] {
        let server = Scripted::start([(PODS, refusal(status)), (PODS, refusal(status))]).await;
        let error = open(&server).await.pods_on_node(&a()).await.expect_err("it is refused");
        assert!(!format!("{error:?}").contains("first-token"));
    }
    let server = Scripted::start([]).await;
    std::fs::write(server.kubeconfig(), "users: [{name: x, user: {token: [hunter2]}}]").expect("a file");
    let Err(error) = knm_cluster_kubernetes::open(options(&server)).await else {
        panic!("it is no kubeconfig");
    };
    assert!(matches!(error, OpenError::NotAKubeconfig { .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn an_unknown_context_is_named_with_those_that_are_there() {
    let server = Scripted::start([]).await;
    assert_eq!(
        current_context(&server.kubeconfig()).expect("a file"),
        Some("scripted".to_owned())
    );
    let mut options = options(&server);
    options.source = KubernetesSource::Kubeconfig {
        path: server.kubeconfig(),
        context: Some("prod".to_owned()),
    };
    let Err(error) = knm_cluster_kubernetes::open(options).await else {
        panic!("there is no such context");
    };
    assert!(
        error.to_string().contains("prod") && error.to_string().contains("scripted"),
        "{error}"
    );
}

fn options(server: &Scripted) -> KubernetesOptions {
    KubernetesOptions {
        cluster: ClusterName::from_any("scripted"),
        source: KubernetesSource::Kubeconfig {
            path: server.kubeconfig(),
            context: None,
        },
        page_size: 500,
        request_timeout: Duration::from_secs(2),
        max_requests_per_second: 0,
    }
}

async fn cluster(server: &Scripted) -> KubernetesCluster {
    knm_cluster_kubernetes::open(options(server)).await.expect("a cluster")
}

async fn open(server: &Scripted) -> Arc<dyn ClusterGateway> {
    cluster(server).await.gateway
}

fn a() -> NodeName {
    NodeName::parse("a").expect("a name")
}

fn node(name: &str, version: &str) -> Value {
    json!({"kind": "Node", "metadata": {"name": name, "uid": name, "resourceVersion": version}})
}

fn page(names: &[&str], version: &str, next: &str) -> Answer {
    let items: Vec<Value> = names.iter().map(|name| node(name, version)).collect();
    let body = json!({"kind": "NodeList", "metadata": {"resourceVersion": version, "continue": next}, "items": items});
    Answer::Is(200, "", body.to_string())
}

fn refusal(status: u16) -> Answer {
    let body = json!({"kind": "Status", "status": "Failure", "message": "it is refused", "code": status});
    Answer::Is(status, "", body.to_string())
}

async fn next(events: &mut NodeEvents) -> NodeEvent {
    tokio::time::timeout(Duration::from_secs(30), events.next())
        .await
        .expect("an event in time")
        .expect("the stream goes on")
}

async fn replaced(events: &mut NodeEvents) -> Vec<String> {
    match next(events).await {
        NodeEvent::Replaced(nodes) => nodes.into_iter().map(|node| node.name.to_string()).collect(),
        other => unreachable!("{other:?} instead of all nodes"),
    }
}
