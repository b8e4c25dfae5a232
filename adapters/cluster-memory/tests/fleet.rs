//! What a simulated fleet looks like.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test builds is right, or the test is wrong"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use knm_cluster_memory::{Fleet, FleetOptions};
use knm_model::{Cordon, CordonSource, DisruptionBudget, Node, NodeName, NodeStatus, Pod, Timestamp};
use knm_ports::{EvictOptions, Eviction, NodeEvent, PodEvent, PodRef};

fn fleet(nodes: usize, seed: u64) -> Arc<Fleet> {
    Fleet::new(options(nodes, seed))
}

fn options(nodes: usize, seed: u64) -> FleetOptions {
    FleetOptions {
        nodes,
        seed,
        change_every: None,
        started_at: Timestamp::parse("2030-01-01T00:00:00Z").unwrap(),
    }
}

async fn nodes(fleet: &Arc<Fleet>) -> Vec<Node> {
    match fleet.gateway().watch_nodes().next().await {
        Some(NodeEvent::Replaced(nodes)) => nodes,
        other => panic!("{other:?}"),
    }
}

fn fits(node: &Node) -> bool {
    let taint = |key: &str| node.taints.iter().any(|taint| taint.key == key);
    NodeStatus::of(&node.conditions) == node.status
        && node.schedulable == node.cordon.is_none()
        && taint("node.kubernetes.io/unschedulable") != node.schedulable
        && taint("node-role.kubernetes.io/control-plane") == node.roles().contains(&"control-plane")
        && taint("nvidia.com/gpu") == node.capacity.extended.contains_key("nvidia.com/gpu")
        && node.allocatable.memory_bytes < node.capacity.memory_bytes
}

#[tokio::test]
async fn the_same_seed_makes_the_same_fleet_and_another_one_another() {
    let (one, again, other) = (fleet(200, 7), fleet(200, 7), fleet(200, 8));
    for _ in 0..500 {
        one.change();
        again.change();
    }
    let first = nodes(&one).await;
    assert_eq!(first, nodes(&again).await);
    assert_ne!(first, nodes(&other).await);
    for node in first.iter().take(20) {
        let pods = one.gateway().pods_on_node(&node.name).await.unwrap();
        assert_eq!(pods, again.gateway().pods_on_node(&node.name).await.unwrap());
    }
}

#[tokio::test]
async fn a_fleet_has_a_bit_of_everything_and_each_node_fits_together() {
    let all = nodes(&fleet(10_000, 1)).await;
    assert_eq!(all.len(), 10_000);
    for node in &all {
        assert!(fits(node), "{node:?}");
    }
    let sources: BTreeSet<_> = all
        .iter()
        .filter_map(|node| node.cordon.as_ref().map(|Cordon { source, .. }| source.as_str()))
        .collect();
    // None is ours: nobody could release a hold that was never made.
    let expected = [CordonSource::FirstVersion, CordonSource::Foreign];
    assert_eq!(sources, expected.map(CordonSource::as_str).into());
    let zones: BTreeSet<_> = all.iter().map(|node| node.zone.clone()).collect();
    assert_eq!(zones.len(), 3);
    for status in NodeStatus::ALL {
        assert!(all.iter().any(|node| node.status == status), "{status:?}");
    }
    let mut slices: BTreeMap<_, usize> = BTreeMap::new();
    for node in &all {
        *slices
            .entry(&node.labels["demo.kube-node-manager.io/slice"])
            .or_default() += 1;
    }
    assert_eq!(slices.len(), 10);
    assert!(slices.values().all(|count| *count == 1000));
    let addresses: BTreeSet<_> = all.iter().map(|node| &node.addresses[0].address).collect();
    assert_eq!(addresses.len(), all.len());
}

#[tokio::test]
async fn even_the_demo_fleet_shows_trouble() {
    let all = nodes(&fleet(30, 1)).await;
    assert!(all.iter().any(|node| node.status != NodeStatus::Ready));
    assert!(all.iter().any(|node| !node.schedulable));
    assert!(
        all.iter()
            .any(|node| node.capacity.extended.contains_key("nvidia.com/gpu"))
    );
}

#[tokio::test]
async fn a_long_life_changes_much_and_ruins_nothing() {
    let fleet = fleet(300, 3);
    let before = nodes(&fleet).await;
    for _ in 0..50_000 {
        fleet.change();
    }
    let after = nodes(&fleet).await;
    assert!((290..=310).contains(&after.len()), "{}", after.len());
    for node in &after {
        assert!(fits(node), "{node:?}");
    }
    let ready = after.iter().filter(|node| node.status == NodeStatus::Ready).count();
    let schedulable = after.iter().filter(|node| node.schedulable).count();
    assert!(
        250 < ready && 250 < schedulable,
        "{ready} ready, {schedulable} schedulable"
    );
    let names = |nodes: &[Node]| nodes.iter().map(|node| node.name.clone()).collect::<BTreeSet<_>>();
    assert_ne!(names(&before), names(&after));
}

#[tokio::test]
async fn budgets_match_pods_and_count_them() {
    let fleet = fleet(100, 1);
    let gateway = fleet.gateway();
    let mut pods = Vec::new();
    for node in nodes(&fleet).await {
        pods.extend(gateway.pods_on_node(&node.name).await.unwrap());
    }
    let unique: BTreeSet<_> = pods.iter().map(|pod| (&pod.namespace, &pod.name)).collect();
    assert_eq!(unique.len(), pods.len());
    let budgets = gateway.disruption_budgets().await.unwrap();
    assert!(!budgets.is_empty());
    for budget in budgets {
        let protected: Vec<_> = pods.iter().filter(|pod| budget.matches(pod)).collect();
        let healthy = protected.iter().filter(|pod| pod.ready).count();
        assert_eq!(
            (budget.expected_pods as usize, budget.current_healthy as usize),
            (protected.len(), healthy)
        );
        assert!(budget.desired_healthy <= budget.expected_pods);
    }
    let kinds: BTreeSet<_> = pods
        .iter()
        .map(|pod| pod.controller.as_ref().map(|controller| controller.kind.as_str()))
        .collect();
    let wanted = [
        None,
        Some("DaemonSet"),
        Some("Job"),
        Some("ReplicaSet"),
        Some("StatefulSet"),
    ];
    assert_eq!(kinds, wanted.into());
}

#[tokio::test(start_paused = true)]
async fn a_fleet_changes_as_often_as_it_was_told_to() {
    let fleet = Fleet::new(FleetOptions {
        change_every: Some(Duration::from_millis(2)),
        ..options(50, 1)
    });
    let mut events = fleet.gateway().watch_nodes();
    let Some(NodeEvent::Replaced(all)) = events.next().await else {
        panic!("no list");
    };
    let mut known: BTreeMap<NodeName, Node> = all.into_iter().map(|node| (node.name.clone(), node)).collect();
    let mut told = 0;
    while let Ok(Some(event)) = tokio::time::timeout_at(deadline(), events.next()).await {
        told += 1;
        match event {
            NodeEvent::Applied(node) => drop(known.insert(node.name.clone(), *node)),
            NodeEvent::Deleted(name) => drop(known.remove(&name)),
            other => panic!("{other:?}"),
        }
        if told == 500 {
            break;
        }
    }
    assert_eq!(told, 500);
    assert_eq!(known.into_values().collect::<Vec<_>>(), nodes(&fleet).await);
}

fn deadline() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_millis(50)
}

/// Lets the fleet's clock pass this many seconds: it stands still otherwise.
fn pass(fleet: &Fleet, seconds: usize) {
    for _ in 0..seconds {
        fleet.change();
    }
}

async fn pods(fleet: &Arc<Fleet>) -> Vec<Pod> {
    let mut pods = Vec::new();
    for node in nodes(fleet).await {
        pods.extend(fleet.gateway().pods_on_node(&node.name).await.unwrap());
    }
    pods
}

async fn evict(fleet: &Arc<Fleet>, pod: &Pod) -> Eviction {
    let pod = PodRef {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
    };
    fleet.gateway().evict(&pod, &EvictOptions::default()).await.unwrap()
}

async fn budget(fleet: &Arc<Fleet>, name: &str) -> DisruptionBudget {
    let budgets = fleet.gateway().disruption_budgets().await.unwrap();
    budgets.into_iter().find(|budget| budget.name == name).unwrap()
}

#[tokio::test]
async fn an_evicted_pod_ends_and_is_replaced_elsewhere_and_its_budget_recovers() {
    let fleet = fleet(100, 1);
    let before = budget(&fleet, "cart").await;
    let all = pods(&fleet).await;
    let cart = all.iter().find(|pod| pod.labels["app"] == "cart" && pod.ready).unwrap();

    assert_eq!(evict(&fleet, cart).await, Eviction::Accepted);

    let left = fleet.gateway().pods_on_node(&cart.node).await.unwrap();
    let going = left.iter().find(|pod| pod.uid == cart.uid).unwrap();
    assert_eq!(going.deletion_grace, Some(Duration::from_secs(30)));
    let during = budget(&fleet, "cart").await;
    assert_eq!(during.disruptions_allowed + 1, before.disruptions_allowed);
    assert_eq!(during.current_healthy + 1, before.current_healthy);

    pass(&fleet, 9);
    let now = pods(&fleet).await;
    assert!(now.iter().all(|pod| pod.uid != cart.uid));
    let known: BTreeSet<_> = all.iter().map(|pod| &pod.uid).collect();
    let [successor] = now.iter().filter(|pod| !known.contains(&pod.uid)).collect::<Vec<_>>()[..] else {
        panic!("one pod takes its place");
    };
    assert_eq!(
        (&successor.labels, &successor.controller),
        (&cart.labels, &cart.controller)
    );
    assert!(successor.node != cart.node && successor.ready && successor.name != cart.name);
    assert_eq!(evict(&fleet, cart).await, Eviction::Gone);
}

#[tokio::test]
async fn evictions_stop_where_a_budget_is_used_up_and_go_on_when_it_recovered() {
    let fleet = fleet(100, 1);
    let allowed = budget(&fleet, "web").await.disruptions_allowed as usize;
    let all = pods(&fleet).await;
    let mut web = all.iter().filter(|pod| pod.labels["app"] == "web" && pod.ready);
    for pod in web.by_ref().take(allowed) {
        assert_eq!(evict(&fleet, pod).await, Eviction::Accepted);
    }
    let next = web.next().unwrap();
    let answer = evict(&fleet, next).await;
    assert!(
        matches!(&answer, Eviction::Blocked { budget: Some(name), .. } if name == "web"),
        "{answer:?}"
    );

    pass(&fleet, 4);
    let answer = evict(&fleet, next).await;
    assert!(
        matches!(answer, Eviction::Blocked { .. }),
        "replaced and not ready: {answer:?}"
    );
    pass(&fleet, 8);
    assert_eq!(evict(&fleet, next).await, Eviction::Accepted);
}

#[tokio::test]
async fn a_stateful_pod_comes_back_under_its_name_as_another_pod() {
    let fleet = fleet(100, 1);
    let all = pods(&fleet).await;
    let kafka = all
        .iter()
        .find(|pod| pod.labels["app"] == "kafka" && pod.ready)
        .unwrap();
    assert_eq!(evict(&fleet, kafka).await, Eviction::Accepted);
    pass(&fleet, 4);
    let now = pods(&fleet).await;
    let again = now
        .iter()
        .find(|pod| pod.name == kafka.name && pod.namespace == kafka.namespace)
        .unwrap();
    assert!(again.uid != kafka.uid && !again.ready);
    assert_eq!(evict(&fleet, kafka).await, Eviction::Replaced);
}

#[tokio::test(start_paused = true)]
async fn whoever_follows_the_pods_of_a_long_life_knows_those_that_there_are() {
    let fleet = fleet(100, 5);
    let mut events = fleet.gateway().watch_pods();
    let mut known: BTreeMap<String, Pod> = BTreeMap::new();
    for round in 0..40 {
        let now = pods(&fleet).await;
        for pod in now.iter().skip(round).step_by(31) {
            evict(&fleet, pod).await;
        }
        pass(&fleet, 25);
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(5), events.next()).await {
            match event {
                PodEvent::Listing => known.clear(),
                PodEvent::Listed(pods) => known.extend(pods.into_iter().map(|pod| (pod.uid.clone(), pod))),
                PodEvent::Applied(pod) => drop(known.insert(pod.uid.clone(), *pod)),
                PodEvent::Deleted { uid } => drop(known.remove(&uid)),
                PodEvent::Complete | PodEvent::Alive => {}
                PodEvent::Lost(error) => panic!("{error:?}"),
            }
        }
        let wanted: BTreeMap<String, Pod> = pods(&fleet)
            .await
            .into_iter()
            .map(|pod| (pod.uid.clone(), pod))
            .collect();
        assert_eq!(known, wanted, "in round {round}");
    }
}

#[tokio::test]
async fn nodes_have_as_many_pods_as_wished_and_each_can_be_found_and_evicted() {
    let fleet = Fleet::with_pods_per_node(options(20, 7), 30);
    let gateway = fleet.gateway();
    let mut uids = std::collections::BTreeSet::new();
    for node in nodes(&fleet).await {
        let pods = gateway.pods_on_node(&node.name).await.unwrap();
        assert_eq!(pods.len(), 30, "{}", node.name);
        uids.extend(pods.into_iter().map(|pod| pod.uid));
    }
    assert_eq!(uids.len(), 600);

    let first = nodes(&fleet).await.swap_remove(0).name;
    let pods = gateway.pods_on_node(&first).await.unwrap();
    let filler = pods.into_iter().find(|pod| pod.namespace == "load").unwrap();
    let wanted = PodRef {
        namespace: filler.namespace,
        name: filler.name,
        uid: filler.uid,
    };
    let evicted = gateway.evict(&wanted, &EvictOptions::default()).await.unwrap();
    assert_eq!(evicted, Eviction::Accepted);
}
