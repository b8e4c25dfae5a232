//! What only a real API server shows.

use std::time::Duration;

use futures::StreamExt;
use http::Method;
use knm_cluster_kubernetes::KubernetesOptions;
use knm_ports::{NodeEvent, NodeEvents};
use knm_test_support::api_server::ApiServer;
use serde_json::json;

use crate::options;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_nodes_are_listed_in_pages_once_each() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let server = &server;
    futures::stream::iter(0..1000)
        .for_each_concurrent(16, |number| add_node(server, format!("node-{number:04}")))
        .await;
    let options = KubernetesOptions {
        page_size: 300,
        ..options(server.kubeconfig())
    };
    let gateway = knm_cluster_kubernetes::open(options).await.expect("a cluster").gateway;

    let first = next(&mut gateway.watch_nodes()).await;

    let NodeEvent::Replaced(nodes) = first else {
        panic!("{first:?} instead of all nodes");
    };
    let names: Vec<String> = nodes.iter().map(|node| node.name.to_string()).collect();
    let expected: Vec<String> = (0..1000).map(|number| format!("node-{number:04}")).collect();
    assert_eq!(names, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_after_the_api_server_was_restarted() {
    let Some(mut server) = ApiServer::start().await else {
        return;
    };
    add_node(&server, "before".to_owned()).await;
    let gateway = knm_cluster_kubernetes::open(options(server.kubeconfig()))
        .await
        .expect("a cluster")
        .gateway;
    let mut events = gateway.watch_nodes();
    assert!(matches!(next(&mut events).await, NodeEvent::Replaced(_)));

    server.stop();
    until(&mut events, |event| matches!(event, NodeEvent::Lost(_))).await;
    server.start_again().await;
    add_node(&server, "after".to_owned()).await;

    until(&mut events, |event| match event {
        NodeEvent::Applied(node) => node.name.as_str() == "after",
        NodeEvent::Replaced(nodes) => {
            assert!(!nodes.is_empty());
            nodes.iter().any(|node| node.name.as_str() == "after")
        }
        _ => false,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_hangs_is_noticed() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let gateway = knm_cluster_kubernetes::open(options(server.kubeconfig()))
        .await
        .expect("a cluster")
        .gateway;
    let mut events = gateway.watch_nodes();
    assert!(matches!(next(&mut events).await, NodeEvent::Replaced(_)));

    server.freeze();
    let noticed = until(&mut events, |event| matches!(event, NodeEvent::Lost(_)));
    tokio::time::timeout(Duration::from_secs(18), noticed)
        .await
        .expect("it is noticed");
    server.thaw();

    until(&mut events, |event| {
        matches!(event, NodeEvent::Alive | NodeEvent::Replaced(_))
    })
    .await;
}

async fn add_node(server: &ApiServer, name: String) {
    let body = json!({"metadata": {"name": name}});
    let (status, answer) = server.request(Method::POST, "/api/v1/nodes", Some(&body)).await;
    assert_eq!(status, 201, "{answer}");
}

async fn next(events: &mut NodeEvents) -> NodeEvent {
    tokio::time::timeout(Duration::from_secs(60), events.next())
        .await
        .expect("an event in time")
        .expect("the stream goes on")
}

async fn until(events: &mut NodeEvents, wanted: impl Fn(&NodeEvent) -> bool) {
    while !wanted(&next(events).await) {}
}
