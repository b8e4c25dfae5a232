//! Pods that are watched, and the nodes that are shown with them.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

#[path = "support/nodes.rs"]
mod nodes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use knm_domain::{ClusterHandle, ClusterState, Inventory, UnseenReason};
use knm_model::{ClusterName, ClusterSource, NodeName, Pod, PodPhase, PodRequests, Resources};
use knm_ports::{ClusterError, ManualClock, MockClusterGateway, NodeEvent, PodEvent};
use metrics_exporter_prometheus::PrometheusBuilder;
use nodes::{node, settle};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// An inventory of one cluster, `test`, that tells of its nodes and pods what the test sends.
struct Stage {
    inventory: Arc<Inventory>,
    tells: mpsc::UnboundedSender<NodeEvent>,
    tells_pods: mpsc::UnboundedSender<PodEvent>,
}

impl Stage {
    /// Whoever asks for the pods of a node is told `web-2`.
    fn new() -> Self {
        let (tells, mut events) = mpsc::unbounded_channel();
        let (tells_pods, mut pod_events) = mpsc::unbounded_channel();
        let mut gateway = MockClusterGateway::new();
        gateway
            .expect_watch_nodes()
            .return_once(|| stream::poll_fn(move |context| events.poll_recv(context)).boxed());
        gateway
            .expect_watch_pods()
            .return_once(|| stream::poll_fn(move |context| pod_events.poll_recv(context)).boxed());
        gateway.expect_pods_on_node().returning(|_| Ok(vec![pod("web-2", "a")]));
        gateway.expect_disruption_budgets().returning(|| Ok(Vec::new()));
        gateway.expect_server_version().returning(|| Ok("v1.36.0".to_owned()));
        let handle = ClusterHandle {
            name: ClusterName::from_any("test"),
            source: ClusterSource::Demo,
            gateway: Arc::new(gateway),
            reviews: None,
            watch_pods: true,
        };
        let clock = ManualClock::at("2030-01-01T00:00:00Z");
        Self {
            inventory: Inventory::start(clock, vec![handle], CancellationToken::new()),
            tells,
            tells_pods,
        }
    }

    /// Lets the cluster tell all of this at once, and waits until it was taken in.
    async fn tell(&self, events: impl IntoIterator<Item = NodeEvent>) {
        for event in events {
            self.tells.send(event).unwrap();
        }
        settle().await;
    }

    /// Lets the cluster tell all of this of its pods at once, and waits until the nodes are shown with it.
    async fn tell_pods(&self, events: impl IntoIterator<Item = PodEvent>) {
        for event in events {
            self.tells_pods.send(event).unwrap();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        settle().await;
    }
}

fn pod(name: &str, node: &str) -> Pod {
    Pod {
        namespace: "team".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        node: NodeName::parse(node).unwrap(),
        labels: BTreeMap::new(),
        phase: PodPhase::Running,
        ready: true,
        controller: None,
        requests: PodRequests {
            cpu_millicores: 250,
            ..PodRequests::default()
        },
        created_at: None,
        deletion_at: None,
        deletion_grace: None,
        is_mirror: false,
        has_empty_dir: false,
        priority: 0,
        priority_class: None,
        node_selector: BTreeMap::new(),
        node_terms: None,
        tolerations: Vec::new(),
    }
}

fn replaced(nodes: &[(&str, &str)]) -> NodeEvent {
    NodeEvent::Replaced(nodes.iter().map(|(name, version)| node(name, version)).collect())
}

fn listed(pods: &[Pod]) -> [PodEvent; 3] {
    [PodEvent::Listing, PodEvent::Listed(pods.to_vec()), PodEvent::Complete]
}

fn applied(pod: Pod) -> PodEvent {
    PodEvent::Applied(Box::new(pod))
}

fn pods_lost() -> PodEvent {
    PodEvent::Lost(ClusterError::Forbidden {
        action: None,
        message: "pods is forbidden".to_owned(),
    })
}

fn asked(pods: u64) -> Option<Resources> {
    Some(Resources {
        cpu_millicores: 250 * pods,
        pods,
        ..Resources::default()
    })
}

/// What a node is shown with.
fn shown(stage: &Stage, node: &str) -> Option<Resources> {
    let snapshot = stage.inventory.snapshot("test").unwrap();
    snapshot.find(node).unwrap().requested().cloned()
}

#[tokio::test(start_paused = true)]
async fn nodes_are_shown_with_what_their_pods_ask_for() {
    let stage = Stage::new();
    stage.tell([replaced(&[("a", "1"), ("b", "1")])]).await;
    let ended = Pod {
        phase: PodPhase::Succeeded,
        ..pod("job-1", "a")
    };
    let begun = [PodEvent::Listing, PodEvent::Listed(vec![pod("web-1", "a"), ended])];
    stage.tell_pods(begun).await;
    assert_eq!(shown(&stage, "a"), None, "the list is not complete");

    stage
        .tell_pods([PodEvent::Listed(vec![pod("web-2", "a")]), PodEvent::Complete])
        .await;
    assert_eq!((shown(&stage, "a"), shown(&stage, "b")), (asked(2), asked(0)));

    let gone = PodEvent::Deleted {
        uid: "uid-web-1".to_owned(),
    };
    stage.tell_pods([gone, applied(pod("web-3", "b"))]).await;
    assert_eq!((shown(&stage, "a"), shown(&stage, "b")), (asked(1), asked(1)));
}

#[tokio::test(start_paused = true)]
async fn pods_make_one_snapshot_a_second_and_no_change_of_a_node() {
    let stage = Stage::new();
    stage.tell([replaced(&[("a", "1"), ("b", "1")])]).await;
    stage.tell_pods(listed(&[])).await;
    let before = stage.inventory.snapshot("test").unwrap();
    let mut changes = stage.inventory.watch("test", None).unwrap();

    let many = (0..500).map(|number| applied(pod(&format!("web-{number}"), "a")));
    stage.tell_pods(many).await;

    let after = stage.inventory.snapshot("test").unwrap();
    assert_ne!(after.version(), before.version());
    assert_eq!(stage.inventory.cluster("test").unwrap().generation, 3);
    assert_eq!(shown(&stage, "a"), asked(500));
    assert_eq!(
        after.find("a").unwrap().node().version(),
        before.find("a").unwrap().node().version()
    );
    // What did not change is not made anew.
    assert!(Arc::ptr_eq(after.find("b").unwrap(), before.find("b").unwrap()));
    let told = tokio::time::timeout(Duration::from_secs(5), changes.next()).await;
    assert!(told.is_err(), "{told:?}");
    assert_eq!(stage.inventory.snapshot("test").unwrap().version(), after.version());
}

#[tokio::test(start_paused = true)]
async fn a_changed_node_keeps_its_pods_and_a_new_one_gets_them() {
    let stage = Stage::new();
    stage.tell([replaced(&[("a", "1")])]).await;
    stage.tell_pods(listed(&[pod("web-1", "a"), pod("web-2", "b")])).await;

    let told = |name| NodeEvent::Applied(Box::new(node(name, "2")));
    stage.tell([told("a"), told("b")]).await;
    assert_eq!(shown(&stage, "a"), asked(1));

    stage.tell_pods([]).await;
    assert_eq!(shown(&stage, "b"), asked(1));
}

#[tokio::test(start_paused = true)]
async fn pods_that_cannot_be_seen_leave_the_nodes_alone() {
    let stage = Stage::new();
    stage.tell([replaced(&[("a", "1")])]).await;
    stage.tell_pods([pods_lost()]).await;
    let status = stage.inventory.cluster("test").unwrap();
    assert_eq!((status.state, status.stale), (ClusterState::Healthy, false));
    let pods = status.pods.unwrap();
    assert_eq!((pods.stale, pods.reason), (true, Some(UnseenReason::Forbidden)));
    assert_eq!((pods.pods, pods.as_of), (0, None));

    stage.tell_pods(listed(&[pod("web-1", "a")])).await;
    let pods = stage.inventory.cluster("test").unwrap().pods.unwrap();
    assert_eq!((pods.pods, pods.stale, pods.reason), (1, false, None));
    assert!(pods.as_of.is_some());

    // What is known stays, and a list that was cut short changes nothing that is shown.
    stage.tell_pods([PodEvent::Listing, pods_lost()]).await;
    let pods = stage.inventory.cluster("test").unwrap().pods.unwrap();
    assert_eq!((pods.pods, pods.stale), (1, true));
    assert_eq!(shown(&stage, "a"), asked(1));

    stage
        .tell([NodeEvent::Lost(ClusterError::Unavailable {
            source: "connection refused".into(),
        })])
        .await;
    assert_eq!(shown(&stage, "a"), asked(1));
}

#[tokio::test(start_paused = true)]
async fn pods_that_are_silent_for_45_seconds_are_taken_for_lost() {
    let stage = Stage::new();
    stage.tell([replaced(&[("a", "1")])]).await;
    stage.tell_pods(listed(&[pod("web-1", "a")])).await;
    tokio::time::sleep(Duration::from_secs(46)).await;
    let pods = stage.inventory.cluster("test").unwrap().pods.unwrap();
    assert_eq!(pods.reason, Some(UnseenReason::TimedOut));

    stage.tell_pods([PodEvent::Alive]).await;
    assert!(!stage.inventory.cluster("test").unwrap().pods.unwrap().stale);
}

#[tokio::test(start_paused = true)]
async fn the_pods_on_a_node_are_those_that_are_watched_while_they_can_be_seen() {
    let stage = Stage::new();
    stage.tell([replaced(&[("a", "1")])]).await;
    let found = async || {
        let found = stage.inventory.pods_on_node("test", "a").await.unwrap();
        found.pods.into_iter().map(|found| found.pod.name).collect::<Vec<_>>()
    };
    assert_eq!(found().await, ["web-2"], "nothing was seen yet");
    stage.tell_pods(listed(&[pod("web-1", "a")])).await;
    assert_eq!(found().await, ["web-1"]);
    stage.tell_pods([pods_lost()]).await;
    assert_eq!(found().await, ["web-2"], "they cannot be seen");
    stage.tell_pods([PodEvent::Alive]).await;
    assert_eq!(found().await, ["web-1"]);
    stage.tell_pods([PodEvent::Listing]).await;
    assert_eq!(found().await, ["web-2"], "a new list is on its way");
}

#[tokio::test(start_paused = true)]
async fn pods_are_counted_in_metrics() {
    let stage = Stage::new();
    let recorder = PrometheusBuilder::new().build_recorder();
    let rendered = || {
        metrics::with_local_recorder(&recorder, || stage.inventory.observe());
        recorder.handle().render()
    };
    let up = |number: u8| format!("kube_node_manager_cluster_pods_up{{cluster=\"test\"}} {number}\n");
    assert!(rendered().contains(&up(0)), "{}", rendered());

    stage.tell_pods(listed(&[pod("web-1", "a"), pod("web-2", "b")])).await;

    let now = rendered();
    let counted = now.contains("kube_node_manager_cluster_pods{cluster=\"test\"} 2\n");
    assert!(counted && now.contains(&up(1)), "{now}");
}
