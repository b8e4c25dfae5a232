//! The watch of the pods.

use std::time::Duration;

use futures::StreamExt;
use knm_ports::{ClusterError, PodEvent, PodEvents};
use serde_json::{Value, json};

use crate::scripted::{Answer, Scripted};
use crate::{open, refusal};

const LIST: &str = "GET /api/v1/pods?fieldSelector=spec.nodeName%21%3D&limit";
const NEXT_PAGE: &str = "continue=next";
const WATCH: &str = "GET /api/v1/pods?fieldSelector=spec.nodeName%21%3D&watch";

#[tokio::test]
async fn each_page_of_a_list_is_told_as_it_comes_and_a_pod_on_no_node_is_left_out() {
    let mut unscheduled = pod("web-3", "6");
    unscheduled["spec"] = json!({});
    let gone = json!({"type": "DELETED", "object": pod("web-1", "7")});
    let server = Scripted::start([
        (NEXT_PAGE, page(&[pod("web-2", "6"), unscheduled], "6", "")),
        (LIST, page(&[pod("web-1", "6")], "6", "next")),
        (WATCH, Answer::Begins(format!("{gone}\n"))),
    ])
    .await;
    let mut events = open(&server).await.watch_pods();
    let mut words = Vec::new();
    for _ in 0..5 {
        words.push(word(next(&mut events).await));
    }
    assert_eq!(words, ["listing", "web-1", "web-2", "complete", "-uid-web-1"]);
}

#[tokio::test]
async fn a_list_whose_next_page_is_too_old_is_begun_again() {
    let server = Scripted::start([
        (NEXT_PAGE, refusal(410)),
        (LIST, page(&[pod("web-1", "5")], "5", "next")),
        (LIST, page(&[pod("web-2", "6")], "6", "")),
        (WATCH, Answer::Begins(String::new())),
    ])
    .await;
    let mut events = open(&server).await.watch_pods();
    let mut words = Vec::new();
    while words.last().is_none_or(|word| word != "complete") {
        words.push(word(next(&mut events).await));
    }
    assert_eq!(words, ["listing", "web-1", "listing", "web-2", "complete"]);
}

#[tokio::test]
async fn pods_that_may_not_be_watched_are_lost_until_they_may() {
    let server = Scripted::start([
        (LIST, refusal(403)),
        (LIST, refusal(403)),
        (LIST, page(&[pod("web-1", "5")], "5", "")),
        (WATCH, refusal(403)),
        (WATCH, Answer::Begins(String::new())),
    ])
    .await;
    let mut events = open(&server).await.watch_pods();
    let mut words = Vec::new();
    for _ in 0..7 {
        words.push(word(next(&mut events).await));
    }
    let expected = [
        "forbidden",
        "forbidden",
        "listing",
        "web-1",
        "complete",
        "forbidden",
        "alive",
    ];
    assert_eq!(words, expected);
}

fn pod(name: &str, version: &str) -> Value {
    json!({"kind": "Pod", "metadata": {"name": name, "namespace": "team", "uid": format!("uid-{name}"), "resourceVersion": version},
        "spec": {"nodeName": "a"}})
}

fn page(pods: &[Value], version: &str, next: &str) -> Answer {
    let body = json!({"kind": "PodList", "metadata": {"resourceVersion": version, "continue": next}, "items": pods});
    Answer::Is(200, "", body.to_string())
}

async fn next(events: &mut PodEvents) -> PodEvent {
    tokio::time::timeout(Duration::from_secs(30), events.next())
        .await
        .expect("an event in time")
        .expect("the stream goes on")
}

fn word(event: PodEvent) -> String {
    match event {
        PodEvent::Listing => "listing".to_owned(),
        PodEvent::Listed(pods) => {
            let names: Vec<String> = pods.into_iter().map(|pod| pod.name).collect();
            names.join(" ")
        }
        PodEvent::Complete => "complete".to_owned(),
        PodEvent::Applied(pod) => format!("+{}", pod.name),
        PodEvent::Deleted { uid } => format!("-{uid}"),
        PodEvent::Alive => "alive".to_owned(),
        PodEvent::Lost(ClusterError::Forbidden { .. }) => "forbidden".to_owned(),
        PodEvent::Lost(error) => format!("{error:?}"),
    }
}
