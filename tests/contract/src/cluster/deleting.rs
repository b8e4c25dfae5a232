//! Deletions of pods, and what keeps a drained node from being taken away.

use std::time::Duration;

use knm_ports::{EvictOptions, Eviction, PodRef};

use super::ClusterFixture;
use super::evicting::{current, of, running, with_room};
use super::samples::{node, node_name};

/// `delete_pod` MUST leave a pod with another UID alone and return `Replaced`.
pub async fn a_deletion_of_another_uid_deletes_nobody(fixture: &ClusterFixture) {
    let told = running(fixture, "web-1").await;
    let other = PodRef {
        uid: "11111111-2222-3333-4444-555555555555".to_owned(),
        ..of(&told)
    };

    assert_eq!(
        delete(fixture, &other, &EvictOptions::default()).await,
        Eviction::Replaced
    );

    assert_eq!(current(fixture, "web-1").await, Some(told));
}

/// `delete_pod` MUST return `Gone` if there is no pod under this name.
pub async fn a_deletion_of_an_absent_pod_finds_it_gone(fixture: &ClusterFixture) {
    let told = running(fixture, "web-1").await;
    let absent = PodRef {
        name: "web-2".to_owned(),
        ..of(&told)
    };
    assert_eq!(delete(fixture, &absent, &EvictOptions::default()).await, Eviction::Gone);
}

/// `delete_pod` MUST give the pod the grace period that was asked for, or its own if none was.
pub async fn a_deleted_pod_gets_the_grace_period_that_was_asked_for_whatever_budgets_say(fixture: &ClusterFixture) {
    fixture.driver.put_budget(with_room("web", 0)).await;
    for (name, asked, expected) in [("web-1", Some(7), 7), ("web-2", None, 30)] {
        let told = running(fixture, name).await;
        let options = EvictOptions {
            grace_period_seconds: asked,
            dry_run: false,
        };

        assert_eq!(delete(fixture, &of(&told), &options).await, Eviction::Accepted);

        let left = current(fixture, name).await.expect("nobody ended it yet");
        assert!(left.is_terminating());
        assert_eq!(left.deletion_grace, Some(Duration::from_secs(expected)));
    }
}

/// `delete_pod` MUST change nothing with `dry_run`.
pub async fn a_dry_run_of_a_deletion_changes_nothing(fixture: &ClusterFixture) {
    let told = running(fixture, "web-1").await;
    let dry = EvictOptions {
        dry_run: true,
        ..EvictOptions::default()
    };

    assert_eq!(delete(fixture, &of(&told), &dry).await, Eviction::Accepted);

    assert_eq!(current(fixture, "web-1").await, Some(told));
}

/// `attached_volumes` tells the volumes of this node and of no other.
pub async fn the_volumes_attached_to_a_node_are_told(fixture: &ClusterFixture) {
    for name in ["a", "b"] {
        fixture.driver.put_node(node(name)).await;
    }
    fixture.driver.attach_volume(&node_name("a"), "disk-1").await;
    fixture.driver.attach_volume(&node_name("b"), "disk-2").await;

    assert_eq!(attached(fixture, "a").await, ["disk-1"]);
}

/// `attached_volumes` MUST return none for a node without volumes and for one that does not exist.
pub async fn a_node_without_volumes_and_an_unknown_node_have_none_attached(fixture: &ClusterFixture) {
    fixture.driver.put_node(node("a")).await;
    for name in ["a", "ghost"] {
        assert_eq!(attached(fixture, name).await, Vec::<String>::new(), "{name}");
    }
}

async fn attached(fixture: &ClusterFixture, name: &str) -> Vec<String> {
    let told = fixture.gateway.attached_volumes(&node_name(name)).await;
    told.expect("the volumes")
}

async fn delete(fixture: &ClusterFixture, pod: &PodRef, options: &EvictOptions) -> Eviction {
    fixture.gateway.delete_pod(pod, options).await.expect("an answer")
}
