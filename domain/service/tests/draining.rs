//! Plans of drains, over a mocked cluster and a simulated fleet.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use knm_cluster_memory::{Fleet, FleetOptions};
use knm_domain::{ClusterHandle, Inventory, InventoryError};
use knm_model::{
    Access, ClusterName, ClusterSource, Controller, DrainOptions, Fit, Grant, NodeName, ObjectName, Permission,
    Permissions, Pod, PodPhase, PodRequests, Rule, Selector, Timestamp, Turn,
};
use knm_ports::{
    ClusterError, ClusterGateway, EvictOptions, Eviction, ManualClock, MockClusterGateway, PodEvent, PodRef,
};
use tokio_util::sync::CancellationToken;

const NOW: &str = "2030-01-01T00:00:00Z";
const NODE: &str = "worker-00001";

fn fleet(nodes: usize) -> Arc<Fleet> {
    Fleet::new(FleetOptions {
        nodes,
        seed: 1,
        change_every: None,
        started_at: Timestamp::parse(NOW).unwrap(),
    })
}

async fn inventory(gateway: Arc<dyn ClusterGateway>) -> Arc<Inventory> {
    inventory_that(gateway, true).await
}

async fn inventory_that(gateway: Arc<dyn ClusterGateway>, watch_pods: bool) -> Arc<Inventory> {
    let handle = ClusterHandle {
        name: ClusterName::parse("test").unwrap(),
        source: ClusterSource::Demo,
        gateway,
        reviews: None,
        watch_pods,
    };
    let inventory = Inventory::start(ManualClock::at(NOW), vec![handle], CancellationToken::new());
    inventory.settled(Duration::from_secs(5)).await;
    // Time passes when nothing else is to be done: the pods were seen.
    tokio::time::sleep(Duration::from_millis(1)).await;
    inventory
}

/// A cluster of two nodes, `control-plane-00000` and [`NODE`], whose pods can be watched.
fn cluster() -> MockClusterGateway {
    let mut gateway = without_pods();
    gateway
        .expect_watch_pods()
        .returning(|| fleet(2).gateway().watch_pods());
    gateway
}

/// The same, as long as nobody watches its pods.
fn without_pods() -> MockClusterGateway {
    let fleet = fleet(2);
    let mut gateway = MockClusterGateway::new();
    gateway
        .expect_watch_nodes()
        .returning(move || fleet.gateway().watch_nodes());
    gateway.expect_server_version().returning(|| Ok("v1.36.0".to_owned()));
    gateway.expect_disruption_budgets().returning(|| Ok(Vec::new()));
    gateway
}

fn pod(name: &str, kind: &str) -> Pod {
    Pod {
        namespace: "team".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        node: NodeName::parse(NODE).unwrap(),
        labels: BTreeMap::new(),
        phase: PodPhase::Running,
        ready: true,
        controller: Some(Controller {
            api_version: "apps/v1".to_owned(),
            kind: kind.to_owned(),
            name: "agent".to_owned(),
        }),
        requests: PodRequests::default(),
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

fn with_pods(pods: &[Pod]) -> MockClusterGateway {
    on_the_node(cluster(), pods)
}

fn on_the_node(mut gateway: MockClusterGateway, pods: &[Pod]) -> MockClusterGateway {
    let pods = pods.to_vec();
    gateway
        .expect_pods_on_node()
        .withf(|node| node.as_str() == NODE)
        .returning(move |_| Ok(pods.clone()));
    let agent = ObjectName {
        namespace: "team".to_owned(),
        name: "agent".to_owned(),
    };
    gateway
        .expect_daemon_sets()
        .returning(move || Ok(BTreeSet::from([agent.clone()])));
    gateway
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_made_of_what_the_cluster_tells_now() {
    let gateway = with_pods(&[pod("agent-1", "DaemonSet"), pod("web-1", "ReplicaSet")]);
    let inventory = inventory(Arc::new(gateway)).await;
    let options = DrainOptions {
        ignore_daemonsets: true,
        ..DrainOptions::default()
    };

    let preview = inventory.plan_drain("test", NODE, &options).await.unwrap();

    let rules: Vec<_> = preview.plan.pods().iter().map(|planned| planned.verdict.rule).collect();
    assert_eq!(rules, [Rule::DaemonSetIgnored, Rule::Removable]);
    assert_eq!(preview.as_of, Timestamp::parse(NOW).unwrap());
    // The other node has a taint.
    let Fit::Estimated { placements, nodes: 1 } = preview.fit else {
        unreachable!("{:?}", preview.fit);
    };
    assert_eq!((placements.len(), placements[0].node.as_ref()), (1, None));
}

#[tokio::test(start_paused = true)]
async fn whoever_sees_some_nodes_is_not_told_where_else_pods_could_go() {
    let inventory = inventory(Arc::new(with_pods(&[pod("web-1", "ReplicaSet")]))).await;
    let plan = async |nodes: Option<&str>| {
        let access = Access::new(vec![Grant {
            permissions: Permissions::of(&[Permission::View, Permission::ViewPods]),
            clusters: None,
            nodes: nodes.map(|text| Selector::parse(text).unwrap()),
        }]);
        let visible = inventory.visible_to(&access);
        visible
            .plan_drain("test", NODE, &DrainOptions::default())
            .await
            .unwrap()
    };
    assert!(matches!(plan(None).await.fit, Fit::Estimated { .. }));
    let limited = plan(Some("!nothing")).await;
    assert_eq!(limited.plan.totals().at_once, 1);
    let Fit::NotEstimated { reason } = limited.fit else {
        unreachable!("{:?}", limited.fit);
    };
    assert!(reason.contains("all nodes"), "{reason}");
}

/// Why a plan does not estimate where the pods could go.
async fn why_no_fit(inventory: &Inventory) -> String {
    let plan = inventory.plan_drain("test", NODE, &DrainOptions::default()).await;
    let preview = plan.unwrap();
    assert_eq!(preview.plan.totals().at_once, 1);
    match preview.fit {
        Fit::NotEstimated { reason } => reason,
        Fit::Estimated { .. } => unreachable!("{:?}", preview.fit),
    }
}

fn telling(events: impl Fn() -> Vec<PodEvent> + Send + 'static) -> MockClusterGateway {
    let mut gateway = on_the_node(without_pods(), &[pod("web-1", "ReplicaSet")]);
    gateway
        .expect_watch_pods()
        .returning(move || stream::iter(events()).chain(stream::pending()).boxed());
    gateway
}

#[tokio::test(start_paused = true)]
async fn room_is_not_estimated_where_pods_are_not_watched_and_the_setting_is_named() {
    let gateway = on_the_node(without_pods(), &[pod("web-1", "ReplicaSet")]);
    let inventory = inventory_that(Arc::new(gateway), false).await;
    let why = why_no_fit(&inventory).await;
    assert!(why.contains("kubernetes.watch_pods"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn room_is_not_estimated_before_all_pods_were_seen() {
    let begun = telling(|| vec![PodEvent::Listing, PodEvent::Listed(vec![pod("web-1", "ReplicaSet")])]);
    let why = why_no_fit(inventory(Arc::new(begun)).await.as_ref()).await;
    assert!(why.contains("not seen yet"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn room_is_not_estimated_while_pods_cannot_be_seen() {
    let forbidden = || {
        PodEvent::Lost(ClusterError::Forbidden {
            action: None,
            message: "pods is forbidden at https://192.0.2.1".to_owned(),
        })
    };
    for seen_before in [false, true] {
        let gateway = telling(move || match seen_before {
            true => vec![PodEvent::Listing, PodEvent::Complete, forbidden()],
            false => vec![forbidden()],
        });
        let why = why_no_fit(inventory(Arc::new(gateway)).await.as_ref()).await;
        assert!(
            why.contains("does not let us see") && !why.contains("192.0.2.1"),
            "{why}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_without_the_pods_of_the_node_is_none() {
    let mut gateway = cluster();
    gateway
        .expect_pods_on_node()
        .returning(|_| Err(ClusterError::TooManyRequests { retry_after: None }));
    gateway.expect_daemon_sets().returning(|| Ok(BTreeSet::new()));
    let inventory = inventory(Arc::new(gateway)).await;

    let plan = inventory.plan_drain("test", NODE, &DrainOptions::default()).await;
    assert!(matches!(
        plan,
        Err(InventoryError::Cluster {
            source: ClusterError::TooManyRequests { .. },
            ..
        })
    ));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_node_asks_the_cluster_nothing() {
    let inventory = inventory(Arc::new(cluster())).await;
    let plan = inventory.plan_drain("test", "c", &DrainOptions::default()).await;
    assert!(matches!(plan, Err(InventoryError::UnknownNode { .. })), "{plan:?}");
    let plan = inventory.plan_drain("other", NODE, &DrainOptions::default()).await;
    assert!(matches!(plan, Err(InventoryError::UnknownCluster { .. })), "{plan:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_plan_says_of_a_fleet_is_what_its_evictions_say() {
    let fleet = fleet(60);
    let gateway = fleet.gateway();
    let inventory = inventory(gateway.clone()).await;
    let options = DrainOptions {
        force: true,
        ignore_daemonsets: true,
        delete_emptydir_data: true,
        ..DrainOptions::default()
    };
    let snapshot = inventory.snapshot("test").unwrap();
    let (mut now, mut not_now) = (0, 0);
    for entry in snapshot.entries() {
        let name = entry.node().name.as_str();
        // Others are drained meanwhile: each plan sees what is left of the budgets.
        let preview = inventory.plan_drain("test", name, &options).await.unwrap();
        assert!(matches!(preview.fit, Fit::Estimated { .. }));
        for planned in preview.plan.evictions() {
            let pod = PodRef {
                namespace: planned.pod.namespace.clone(),
                name: planned.pod.name.clone(),
                uid: planned.pod.uid.clone(),
            };
            let answer = gateway.evict(&pod, &EvictOptions::default()).await.unwrap();
            let goes = planned.turn == Some(Turn::Round(1));
            assert_eq!(answer == Eviction::Accepted, goes, "{planned:?}: {answer:?}");
            *if goes { &mut now } else { &mut not_now } += 1;
        }
    }
    assert!(0 < now && 0 < not_now, "{now} and {not_now}");
}
