//! `watch_pods`.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use knm_model::{Controller, Pod, PodPhase, PodRequests};
use knm_ports::{PodEvent, PodEvents};

use super::ClusterFixture;
use super::samples::{node, node_name, pod};

/// No event is that late unless the adapter forgot it.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest silence of a cluster that can be seen, and a little for the machine.
const LONGEST_SILENCE: Duration = Duration::from_secs(17);

/// MUST start with a list of all pods that are on nodes, also of those that ended.
pub async fn watching_pods_starts_with_all_of_them(fixture: &ClusterFixture) {
    for name in ["a", "b"] {
        fixture.driver.put_node(node(name)).await;
    }
    let mut given = pod("team-a", "web-1", "a");
    given.labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    given.controller = Some(Controller {
        api_version: "apps/v1".to_owned(),
        kind: "ReplicaSet".to_owned(),
        name: "web".to_owned(),
    });
    given.requests = PodRequests {
        cpu_millicores: 250,
        memory_bytes: 64 << 20,
        ephemeral_storage_bytes: 1 << 20,
        extended: BTreeMap::new(),
    };
    given.has_empty_dir = true;
    fixture.driver.put_pod(given.clone()).await;
    let mut ended = pod("team-b", "job-1", "b");
    ended.phase = PodPhase::Succeeded;
    fixture.driver.put_pod(ended).await;
    let mut events = fixture.gateway.watch_pods();

    let known = listed(&mut events).await;

    assert_eq!(known.names(), ["job-1", "web-1"]);
    let told = known.pod("web-1");
    assert_eq!((&told.namespace, &told.node), (&given.namespace, &given.node));
    assert_eq!((&told.labels, &told.controller), (&given.labels, &given.controller));
    assert_eq!((&told.requests, told.has_empty_dir), (&given.requests, true));
    let asked = fixture.gateway.pods_on_node(&node_name("a")).await.expect("the pods");
    assert_eq!(asked.iter().collect::<Vec<_>>(), [told]);
    let ended = known.pod("job-1");
    assert_eq!((&ended.node, ended.phase), (&node_name("b"), PodPhase::Succeeded));
}

/// MUST start with a list, also when there is no pod to tell.
pub async fn watching_pods_where_there_are_none_starts_with_an_empty_list(fixture: &ClusterFixture) {
    let mut events = fixture.gateway.watch_pods();
    assert!(listed(&mut events).await.pods.is_empty());
}

/// MUST start with `Lost` while the pods cannot be seen.
pub async fn watching_pods_of_a_lost_cluster_starts_with_lost(fixture: &ClusterFixture) {
    fixture.driver.put_node(node("a")).await;
    fixture.driver.put_pod(pod("team-a", "web-1", "a")).await;
    fixture.driver.lose().await;
    let mut events = fixture.gateway.watch_pods();

    let first = next(&mut events).await;
    assert!(matches!(first, PodEvent::Lost(_)), "{first:?}");

    fixture.driver.recover().await;
    assert_eq!(listed(&mut events).await.names(), ["web-1"]);
}

/// MUST leave out pods that are on no node, and tell each when it comes to one.
pub async fn a_pod_is_told_when_it_comes_to_a_node(fixture: &ClusterFixture) {
    fixture.driver.put_node(node("a")).await;
    fixture.driver.put_unscheduled_pod(pod("team-a", "web-1", "a")).await;
    let mut events = fixture.gateway.watch_pods();
    assert!(listed(&mut events).await.pods.is_empty());

    fixture.driver.put_unscheduled_pod(pod("team-a", "web-2", "a")).await;
    fixture.driver.bind_pod(pod("team-a", "web-1", "a")).await;

    let told = applied(&mut events).await;
    assert_eq!((told.name.as_str(), told.node), ("web-1", node_name("a")));
}

/// MUST tell each later change of a pod, in order for each pod; several may be told as one.
pub async fn changes_of_one_pod_are_told_in_order(fixture: &ClusterFixture) {
    fixture.driver.put_node(node("a")).await;
    let turned = |turn: u32| Pod {
        labels: BTreeMap::from([("turn".to_owned(), turn.to_string())]),
        phase: PodPhase::Running,
        ready: true,
        ..pod("team-a", "web-1", "a")
    };
    fixture.driver.put_pod(turned(0)).await;
    let mut events = fixture.gateway.watch_pods();
    assert!(listed(&mut events).await.pod("web-1").ready);

    for turn in 1..=10 {
        fixture.driver.put_pod(turned(turn)).await;
    }
    fixture
        .driver
        .put_pod(Pod {
            phase: PodPhase::Failed,
            ready: false,
            ..turned(11)
        })
        .await;

    let mut last = 0;
    loop {
        let told = applied(&mut events).await;
        let turn: u32 = told.labels["turn"].parse().expect("a number");
        assert!(last <= turn, "{turn} after {last}");
        last = turn;
        // Labels and status may be changes of their own.
        if told.phase == PodPhase::Failed {
            break assert_eq!((last, told.ready), (11, false));
        }
    }
}

/// MUST tell which pods are gone.
pub async fn a_removed_pod_is_told(fixture: &ClusterFixture) {
    fixture.driver.put_node(node("a")).await;
    for name in ["web-1", "web-2"] {
        fixture.driver.put_pod(pod("team-a", name, "a")).await;
    }
    let mut events = fixture.gateway.watch_pods();
    let mut known = listed(&mut events).await;

    fixture.driver.remove_pod("team-a", "web-1").await;

    while known.names() != ["web-2"] {
        known.fold(next(&mut events).await);
    }
}

/// MUST never end by itself, and tell what happened while the pods could not be seen. MUST NOT call a list complete that an error cut short.
pub async fn pods_are_told_again_when_a_lost_cluster_is_found(fixture: &ClusterFixture) {
    fixture.driver.put_node(node("a")).await;
    for name in ["changed", "removed"] {
        fixture.driver.put_pod(pod("team-a", name, "a")).await;
    }
    let mut events = fixture.gateway.watch_pods();
    let mut known = listed(&mut events).await;

    fixture.driver.lose().await;
    loop {
        match next(&mut events).await {
            PodEvent::Lost(_) => break,
            PodEvent::Alive => {}
            other => unreachable!("{other:?} instead of the loss"),
        }
    }
    let mut changed = pod("team-a", "changed", "a");
    changed.phase = PodPhase::Running;
    fixture.driver.put_pod(changed).await;
    fixture.driver.put_pod(pod("team-a", "added", "a")).await;
    fixture.driver.remove_pod("team-a", "removed").await;
    // It keeps trying meanwhile.
    let pause = tokio::time::sleep(Duration::from_secs(2));
    tokio::pin!(pause);
    loop {
        tokio::select! {
            event = events.next() => {
                known.fold(event.expect("the stream goes on"));
                assert_eq!(known.names(), ["changed", "removed"]);
            }
            () = &mut pause => break,
        }
    }
    fixture.driver.recover().await;

    while known.names() != ["added", "changed"] || known.pod("changed").phase != PodPhase::Running {
        known.fold(next(&mut events).await);
    }
}

/// MUST tell `Alive` or another event at least every 15 s while the pods can be seen.
pub async fn quiet_pods_tell_that_they_are_there(fixture: &ClusterFixture) {
    let mut events = fixture.gateway.watch_pods();
    listed(&mut events).await;
    for _ in 0..2 {
        let event = tokio::time::timeout(LONGEST_SILENCE, events.next())
            .await
            .expect("an event in time")
            .expect("the stream goes on");
        assert!(matches!(event, PodEvent::Alive), "{event:?}");
    }
}

/// What somebody knows who follows the events.
#[derive(Default)]
struct Known {
    /// By their ids.
    pods: BTreeMap<String, Pod>,
    list: Option<BTreeMap<String, Pod>>,
}

impl Known {
    /// Whether a list became complete.
    fn fold(&mut self, event: PodEvent) -> bool {
        match event {
            PodEvent::Listing => self.list = Some(BTreeMap::new()),
            PodEvent::Listed(pods) => {
                let list = self.list.as_mut().expect("a list that began");
                list.extend(pods.into_iter().map(|pod| (pod.uid.clone(), pod)));
            }
            PodEvent::Complete => {
                self.pods = self.list.take().expect("a list that began");
                return true;
            }
            PodEvent::Applied(pod) => drop(self.pods.insert(pod.uid.clone(), *pod)),
            PodEvent::Deleted { uid } => drop(self.pods.remove(&uid)),
            PodEvent::Alive | PodEvent::Lost(_) => {}
        }
        false
    }

    /// Sorted.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.pods.values().map(|pod| pod.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    fn pod(&self, name: &str) -> &Pod {
        let found = self.pods.values().find(|pod| pod.name == name);
        found.expect("a pod of this name")
    }
}

async fn next(events: &mut PodEvents) -> PodEvent {
    tokio::time::timeout(PATIENCE, events.next())
        .await
        .expect("an event in time")
        .expect("the stream goes on")
}

/// What is known after the list that the watch starts with, or finds when the cluster is back.
async fn listed(events: &mut PodEvents) -> Known {
    let mut known = Known::default();
    while !known.fold(next(events).await) {}
    known
}

async fn applied(events: &mut PodEvents) -> Pod {
    loop {
        match next(events).await {
            PodEvent::Applied(pod) => return *pod,
            PodEvent::Alive => {}
            other => unreachable!("{other:?} instead of a change"),
        }
    }
}
