//! The inventory, fed by a cluster that tells what the test says.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use knm_cluster_memory::{Fleet, FleetOptions};
use knm_domain::{
    ChangeKind, ClusterHandle, ClusterState, EventId, InventoryError, Lagged, SelfCheck, Subscription,
    SubscriptionStart, UnseenReason,
};
use knm_model::{ClusterName, ClusterSource, DrainOptions, NodeName, Timestamp};
use knm_ports::{Clock, ClusterError, NodeEvent};
use support::{Stage, lost, node, replaced, settle};

fn applied(name: &str, version: &str) -> NodeEvent {
    NodeEvent::Applied(Box::new(node(name, version)))
}

fn deleted(name: &str) -> NodeEvent {
    NodeEvent::Deleted(NodeName::parse(name).unwrap())
}

fn names(stage: &Stage) -> Vec<String> {
    let snapshot = stage.inventory.snapshot("test").unwrap();
    snapshot.entries().map(|entry| entry.node().name.to_string()).collect()
}

/// What has been told and not been read yet, as words.
async fn read(subscription: &mut Subscription) -> Vec<String> {
    let mut words = Vec::new();
    while let Ok(Some(change)) = tokio::time::timeout(Duration::from_millis(1), subscription.next()).await {
        words.push(match change.unwrap().kind {
            ChangeKind::Added(entry) => format!("+{}", entry.node().name),
            ChangeKind::Modified(entry) => format!("~{}={}", entry.node().name, entry.node().resource_version),
            ChangeKind::Deleted(entry) => format!("-{}", entry.node().name),
            ChangeKind::Stale { as_of } => format!("stale {as_of}"),
            ChangeKind::Fresh => "fresh".to_owned(),
        });
    }
    words
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_told_nothing_yet_is_connecting() {
    let stage = Stage::new();
    settle().await;

    let status = stage.inventory.cluster("test").unwrap();
    assert_eq!(
        (status.state, status.as_of, status.generation),
        (ClusterState::Connecting, None, 0)
    );
    assert!(matches!(
        stage.inventory.snapshot("test"),
        Err(InventoryError::NotSeenYet { reason: None, .. })
    ));
    assert!(matches!(
        stage.inventory.watch("test", None),
        Err(InventoryError::NotSeenYet { .. })
    ));
    assert!(matches!(
        stage.inventory.snapshot("other"),
        Err(InventoryError::UnknownCluster { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn nodes_are_shown_after_the_first_complete_list_and_not_before() {
    let stage = Stage::new();
    stage.tell([applied("b", "1"), NodeEvent::Alive]).await;
    assert!(stage.inventory.snapshot("test").is_err());
    assert!(stage.inventory.cluster("test").unwrap().stale);

    stage.tell([replaced(&[("c", "1"), ("a", "1")])]).await;

    assert_eq!(names(&stage), ["a", "c"]);
    let status = stage.inventory.cluster("test").unwrap();
    assert_eq!(
        (status.state, status.nodes, status.stale),
        (ClusterState::Healthy, 2, false)
    );
    assert_eq!(status.server_version.as_deref(), Some("v1.36.0"));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_was_never_reached_says_why() {
    let stage = Stage::new();
    stage.tell([lost()]).await;
    assert!(matches!(
        stage.inventory.snapshot("test"),
        Err(InventoryError::NotSeenYet {
            reason: Some(UnseenReason::Unreachable),
            ..
        })
    ));
    assert_eq!(stage.inventory.cluster("test").unwrap().state, ClusterState::Degraded);
}

#[tokio::test(start_paused = true)]
async fn a_burst_makes_one_generation() {
    let stage = Stage::new();
    stage.tell([replaced(&[("a", "1")])]).await;
    let before = stage.inventory.cluster("test").unwrap().generation;

    stage
        .tell((0..500).map(|number| applied(&format!("n-{number}"), "1")))
        .await;

    let status = stage.inventory.cluster("test").unwrap();
    assert_eq!((status.generation, status.nodes), (before + 1, 501));
}

#[tokio::test(start_paused = true)]
async fn what_is_known_already_makes_no_generation_and_no_event() {
    let stage = Stage::new();
    stage.tell([replaced(&[("a", "1"), ("b", "1")])]).await;
    let before = stage.inventory.snapshot("test").unwrap();
    let mut changes = stage.inventory.watch("test", None).unwrap();

    let same = [
        applied("a", "1"),
        replaced(&[("a", "1"), ("b", "1")]),
        deleted("z"),
        NodeEvent::Alive,
    ];
    stage.tell(same).await;

    assert_eq!(stage.inventory.snapshot("test").unwrap().version(), before.version());
    assert!(read(&mut changes).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lost_cluster_keeps_its_nodes_and_says_of_when_they_are() {
    let stage = Stage::new();
    stage.tell([replaced(&[("a", "1")])]).await;
    stage.clock.advance(Duration::from_secs(10));
    stage.tell([NodeEvent::Alive]).await;
    let before = stage.inventory.snapshot("test").unwrap();
    let mut changes = stage.inventory.watch("test", None).unwrap();

    stage.clock.advance(Duration::from_secs(10));
    stage.tell([lost(), lost()]).await;

    let last_seen = Timestamp::parse("2030-01-01T00:00:10Z").unwrap();
    let snapshot = stage.inventory.snapshot("test").unwrap();
    assert_eq!(
        (snapshot.stale(), snapshot.as_of(), snapshot.len()),
        (true, last_seen, 1)
    );
    assert_ne!(snapshot.version(), before.version());
    let status = stage.inventory.cluster("test").unwrap();
    assert_eq!((status.state, status.as_of), (ClusterState::Degraded, Some(last_seen)));
    assert_eq!(status.reason, Some(UnseenReason::Unreachable));

    stage.tell([NodeEvent::Alive]).await;
    let snapshot = stage.inventory.snapshot("test").unwrap();
    assert_eq!(
        (snapshot.stale(), snapshot.as_of().to_string().as_str()),
        (false, "2030-01-01T00:00:20Z")
    );
    assert_eq!(stage.inventory.cluster("test").unwrap().reason, None);
    assert_eq!(read(&mut changes).await, ["stale 2030-01-01T00:00:10Z", "fresh"]);
}

#[tokio::test(start_paused = true)]
async fn silence_for_45_seconds_is_taken_for_a_loss() {
    let stage = Stage::new();
    stage.tell([replaced(&[("a", "1")])]).await;
    tokio::time::sleep(Duration::from_secs(44)).await;
    assert!(!stage.inventory.snapshot("test").unwrap().stale());

    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(stage.inventory.snapshot("test").unwrap().stale());
    assert_eq!(
        stage.inventory.cluster("test").unwrap().reason,
        Some(UnseenReason::TimedOut)
    );

    stage.tell([applied("b", "1")]).await;
    assert!(!stage.inventory.snapshot("test").unwrap().stale());
    assert_eq!(names(&stage), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_list_tells_watchers_what_differs() {
    let stage = Stage::new();
    stage.tell([replaced(&[("a", "1"), ("b", "1"), ("c", "1")])]).await;
    let mut changes = stage.inventory.watch("test", None).unwrap();
    stage
        .tell([lost(), replaced(&[("b", "2"), ("c", "1"), ("d", "1")])])
        .await;
    assert_eq!(
        read(&mut changes).await,
        ["stale 2030-01-01T00:00:00Z", "fresh", "-a", "~b=2", "+d"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_watcher_resumes_where_it_was() {
    let stage = Stage::new();
    stage.tell([replaced(&[("a", "1")])]).await;
    let mut changes = stage.inventory.watch("test", None).unwrap();
    stage.tell([applied("b", "1"), applied("c", "1"), deleted("a")]).await;
    let first = changes.next().await.unwrap().unwrap();

    let mut resumed = stage
        .inventory
        .watch("test", EventId::parse(&first.id.to_string()))
        .unwrap();
    assert!(matches!(resumed.start, SubscriptionStart::Resumed { after } if after == first.id));
    assert_eq!(read(&mut resumed).await, ["+c", "-a"]);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_cannot_resume_is_told_so() {
    let stage = Stage::new();
    stage.tell([replaced(&[("a", "1")])]).await;
    let position = stage.inventory.watch("test", None).unwrap().position;
    let of_another_process = EventId::parse("1-0").unwrap();
    let (epoch, _) = position
        .to_string()
        .split_once('-')
        .map(|(epoch, rest)| (epoch.to_owned(), rest.to_owned()))
        .unwrap();
    let of_the_future = EventId::parse(&format!("{epoch}-7")).unwrap();
    stage
        .tell((0..2049).map(|number| applied("b", &number.to_string())))
        .await;

    for id in [position, of_another_process] {
        let start = stage.inventory.watch("test", Some(id)).unwrap().start;
        assert!(matches!(start, SubscriptionStart::Fresh { resume_failed: true, snapshot } if snapshot.len() == 2));
    }
    let quiet = Stage::new();
    quiet.tell([replaced(&[])]).await;
    let start = quiet.inventory.watch("test", Some(of_the_future)).unwrap().start;
    assert!(matches!(
        start,
        SubscriptionStart::Fresh {
            resume_failed: true,
            ..
        }
    ));
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_is_cut_off_and_told_so_once() {
    let stage = Stage::new();
    stage.tell([replaced(&[("a", "1")])]).await;
    let mut changes = stage.inventory.watch("test", None).unwrap();
    stage
        .tell((0..2049).map(|number| applied("b", &number.to_string())))
        .await;
    assert!(matches!(changes.next().await, Some(Err(Lagged))));
    assert!(changes.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn watching_ends_with_the_service() {
    let stage = Stage::new();
    stage.tell([replaced(&[("a", "1")])]).await;
    let mut changes = stage.inventory.watch("test", None).unwrap();
    stage.shutdown.cancel();
    assert!(changes.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_does_not_tell_its_pods_is_waited_for_ten_seconds() {
    let stage = Stage::new();
    stage.tell([replaced(&[("a", "1")])]).await;
    let asked_at = tokio::time::Instant::now();
    let error = stage.inventory.pods_on_node("test", "a").await.unwrap_err();
    assert!(matches!(
        error,
        InventoryError::Cluster {
            source: ClusterError::TimedOut { .. },
            ..
        }
    ));
    assert_eq!(asked_at.elapsed().as_secs(), 10);
    assert!(matches!(
        stage.inventory.pods_on_node("test", "b").await,
        Err(InventoryError::UnknownNode { .. })
    ));
}

#[test]
fn only_what_an_event_id_is_written_as_is_one() {
    for text in [
        "", "1", "-", "1-", "-1", "g-1", "1-x", "01-1", "1-01", "+1-1", "1-+1", "1-1-1", "A-1",
    ] {
        assert_eq!(EventId::parse(text), None, "{text}");
    }
    assert_eq!(EventId::parse("1f-20").unwrap().to_string(), "1f-20");
}

#[tokio::test(start_paused = true)]
async fn a_drain_of_a_cluster_that_hangs_is_planned_for_ten_seconds() {
    let stage = Stage::new();
    stage.tell([replaced(&[("a", "1")])]).await;
    let error = stage
        .inventory
        .plan_drain("test", "a", &DrainOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        InventoryError::Cluster {
            source: ClusterError::TimedOut { limit },
            ..
        } if limit == Duration::from_secs(10)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_hangs_when_it_is_asked_for_permissions_holds_up_no_other_one_and_is_given_up() {
    let stage = Stage::new();
    let fleet = Fleet::new(FleetOptions {
        nodes: 1,
        seed: 1,
        change_every: None,
        started_at: stage.clock.now(),
    });
    stage.inventory.put(ClusterHandle {
        name: ClusterName::from_any("other"),
        source: ClusterSource::Demo,
        gateway: fleet.gateway(),
        reviews: None,
        watch_pods: false,
    });
    let check = SelfCheck {
        inventory: Arc::clone(&stage.inventory),
        home: None,
    };
    tokio::spawn(check.keep(stage.shutdown.clone()));
    settle().await;
    let permissions = |name: &str| stage.inventory.cluster(name).unwrap().permissions;
    assert!(permissions("other").checked_at.is_some());
    tokio::time::sleep(Duration::from_secs(6)).await;
    let hanging = permissions("test");
    assert_eq!(hanging.checked_at, None);
    assert_eq!(hanging.reason.map(UnseenReason::as_str), Some("timed_out"));
}
