//! The inventory over simulated fleets.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use knm_cluster_memory::{Fleet, FleetOptions};
use knm_domain::{ClusterHandle, ClusterState, Inventory, InventoryError};
use knm_model::{ClusterName, ClusterRegistration, ClusterSource, Timestamp};
use knm_ports::ManualClock;
use tokio_util::sync::CancellationToken;

const NOW: &str = "2030-01-01T00:00:00Z";

fn fleet(nodes: usize) -> Arc<Fleet> {
    Fleet::new(FleetOptions {
        nodes,
        seed: 1,
        change_every: None,
        started_at: Timestamp::parse(NOW).unwrap(),
    })
}

fn name(text: &str) -> ClusterName {
    ClusterName::parse(text).unwrap()
}

async fn inventory(fleets: &[(&str, &Arc<Fleet>)]) -> Arc<Inventory> {
    let handles = fleets.iter().map(|(cluster, fleet)| ClusterHandle {
        name: name(cluster),
        source: ClusterSource::Demo,
        gateway: fleet.gateway(),
        reviews: None,
        watch_pods: true,
    });
    let inventory = Inventory::start(ManualClock::at(NOW), handles.collect(), CancellationToken::new());
    inventory.settled(Duration::from_secs(5)).await;
    inventory
}

#[tokio::test(start_paused = true)]
async fn each_cluster_answers_for_itself_in_the_order_of_the_names() {
    let (lost, seen) = (fleet(10), fleet(200));
    lost.lose();
    let inventory = inventory(&[("west", &seen), ("east", &lost), ("west", &lost)]).await;

    let [(east, nothing), (west, snapshot)] = inventory.snapshots().try_into().unwrap();

    assert_eq!((east.as_str(), west.as_str()), ("east", "west"));
    assert!(matches!(
        nothing,
        Err(InventoryError::NotSeenYet { reason: Some(_), .. })
    ));
    let snapshot = snapshot.unwrap();
    assert_eq!((snapshot.len(), snapshot.entries().count()), (200, 200));
    for entry in snapshot.entries() {
        assert!(Arc::ptr_eq(entry, snapshot.find(entry.node().name.as_str()).unwrap()));
    }
    assert!(snapshot.find("a").is_none() && snapshot.find("zzz").is_none());
    let states: Vec<_> = inventory.clusters().into_iter().map(|cluster| cluster.state).collect();
    assert_eq!(states, [ClusterState::Degraded, ClusterState::Healthy]);
}

#[tokio::test(start_paused = true)]
async fn pods_come_with_the_budgets_of_their_namespace_that_match() {
    let fleet = fleet(60);
    let inventory = inventory(&[("test", &fleet)]).await;
    let (mut protected, mut unprotected) = (BTreeSet::new(), BTreeSet::new());

    for entry in inventory.snapshot("test").unwrap().entries() {
        let node = &entry.node().name;
        for on_node in inventory.pods_on_node("test", node.as_str()).await.unwrap().pods {
            assert_eq!(on_node.pod.node, *node);
            let app = on_node.pod.labels["app"].clone();
            match on_node.budgets.as_slice() {
                [] => drop(unprotected.insert(app)),
                [budget] => {
                    assert_eq!(*budget, app);
                    protected.insert(app);
                }
                several => unreachable!("{several:?}"),
            }
        }
    }

    assert!(protected.contains("web") && unprotected.contains("cilium"));
    assert!(protected.is_disjoint(&unprotected));
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_lost_cluster_are_an_error_of_the_cluster() {
    let fleet = fleet(5);
    let inventory = inventory(&[("test", &fleet)]).await;
    let node = inventory
        .snapshot("test")
        .unwrap()
        .entries()
        .next()
        .unwrap()
        .node()
        .name
        .clone();
    fleet.lose();
    let error = inventory.pods_on_node("test", node.as_str()).await.unwrap_err();
    assert!(matches!(error, InventoryError::Cluster { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_changing_fleet_is_followed_without_a_gap() {
    let fleet = fleet(300);
    let inventory = inventory(&[("test", &fleet)]).await;
    // Bursts of all sizes, some larger than what a watcher may be behind.
    for burst in (0..60).map(|round| round * round / 2) {
        (0..burst).for_each(|_| fleet.change());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    let snapshot = inventory.snapshot("test").unwrap();
    let again = Inventory::start(
        ManualClock::at(NOW),
        vec![ClusterHandle {
            name: name("test"),
            source: ClusterSource::Demo,
            gateway: fleet.gateway(),
            reviews: None,
            watch_pods: true,
        }],
        CancellationToken::new(),
    );
    again.settled(Duration::from_secs(5)).await;

    let listed = again.snapshot("test").unwrap();
    let nodes =
        |snapshot: &knm_domain::Snapshot| snapshot.entries().map(|entry| entry.node().clone()).collect::<Vec<_>>();
    assert!(
        nodes(&snapshot) == nodes(&listed),
        "what was followed is not what is listed"
    );
    assert_ne!(snapshot.version(), listed.version());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_shows_when_it_was_first_registered() {
    let fleet = fleet(1);
    let inventory = inventory(&[("test", &fleet)]).await;
    assert_eq!(inventory.cluster("test").unwrap().registered_at, None);
    let at = Timestamp::parse("2029-05-05T00:00:00Z").unwrap();

    inventory.registered(&["test", "other"].map(|cluster| ClusterRegistration {
        name: name(cluster),
        source: ClusterSource::Demo,
        registered_at: at,
        changed_at: at,
    }));

    assert_eq!(inventory.cluster("test").unwrap().registered_at, Some(at));
}
