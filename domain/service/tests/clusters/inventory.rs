use std::time::Duration;

use knm_domain::ClusterHandle;
use knm_model::{ClusterName, ClusterSource};

use crate::stage::{Replica, fleet};

fn handle(name: &str, nodes: usize) -> ClusterHandle {
    ClusterHandle {
        name: ClusterName::from_any(name),
        source: ClusterSource::Registered,
        gateway: fleet(nodes).gateway(),
        reviews: None,
        watch_pods: true,
    }
}

#[tokio::test]
async fn clusters_come_and_go_in_their_order() {
    let replica = Replica::on(&knm_storage_memory::open(), None);
    for name in ["z", "a", "m"] {
        replica.inventory.put(handle(name, 2));
    }
    replica.settled().await;
    assert_eq!(replica.names(), ["a", "configured", "m", "z"]);
    assert_eq!(replica.nodes("m"), 2);
    assert!(replica.inventory.remove(&ClusterName::from_any("m")));
    assert!(!replica.inventory.remove(&ClusterName::from_any("m")));
    assert_eq!(replica.names(), ["a", "configured", "z"]);
    assert!(replica.inventory.handle("m").is_err());
    assert_eq!(replica.nodes("z"), 2);
}

#[tokio::test]
async fn who_follows_a_cluster_that_goes_or_is_replaced_is_told_that_it_ended_and_the_others_are_not() {
    let replica = Replica::on(&knm_storage_memory::open(), None);
    replica.inventory.put(handle("a", 2));
    replica.inventory.put(handle("b", 2));
    replica.settled().await;
    let mut gone = replica.inventory.watch("a", None).unwrap();
    let mut replaced = replica.inventory.watch("b", None).unwrap();
    let mut stays = replica.inventory.watch("configured", None).unwrap();
    let resumable = replaced.position;
    let before = replica.inventory.snapshot("b").unwrap().version();

    replica.inventory.remove(&ClusterName::from_any("a"));
    replica.inventory.put(handle("b", 3));

    assert!(gone.next().await.is_none());
    assert!(replaced.next().await.is_none());
    let silent = tokio::time::timeout(Duration::from_millis(100), stays.next()).await;
    assert!(silent.is_err(), "{:?}", silent.map(|one| one.is_none()));
    replica.settled().await;
    assert_eq!(replica.nodes("b"), 3);
    // Neither tags nor ids of the one before are those of the next one.
    assert_ne!(replica.inventory.snapshot("b").unwrap().version(), before);
    let again = replica.inventory.watch("b", Some(resumable)).unwrap();
    assert!(matches!(
        again.start,
        knm_domain::SubscriptionStart::Fresh {
            resume_failed: true,
            ..
        }
    ));
}

#[tokio::test]
async fn the_tasks_of_a_cluster_end_with_it() {
    let replica = Replica::on(&knm_storage_memory::open(), None);
    replica.settled().await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = tasks();
    replica.inventory.put(handle("a", 2));
    replica.settled().await;
    assert!(before < tasks());
    replica.inventory.put(handle("a", 2));
    replica.settled().await;
    replica.inventory.remove(&ClusterName::from_any("a"));
    for _ in 0..100 {
        if tasks() == before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(tasks(), before);
}

#[tokio::test]
async fn the_names_of_clusters_are_those_that_there_are_now() {
    let replica = Replica::on(&knm_storage_memory::open(), None);
    let name = ClusterName::from_any("a");
    replica.inventory.put(handle("a", 1));
    assert!(replica.inventory.names().contains(&name));
    replica.inventory.remove(&name);
    assert!(!replica.inventory.names().contains(&name));
    replica.inventory.put(handle("a", 1));
    assert!(replica.inventory.names().contains(&name));
}
