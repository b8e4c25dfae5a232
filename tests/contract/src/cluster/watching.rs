//! `watch_nodes`.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use knm_model::{Node, NodeName, NodeStatus, Taint, TaintEffect};
use knm_ports::{ClusterError, NodeEvent, NodeEvents};

use super::samples::{condition, node, node_name};
use super::{ClusterDriver, ClusterFixture};

/// No event is that late unless the adapter forgot it.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest silence of a cluster that can be seen, and a little for the machine.
const LONGEST_SILENCE: Duration = Duration::from_secs(17);

/// MUST start with `Replaced` with all nodes.
pub async fn watching_starts_with_all_nodes(fixture: &ClusterFixture) {
    for name in ["b", "a", "c"] {
        fixture.driver.put_node(node(name)).await;
    }
    let mut events = fixture.gateway.watch_nodes();

    let nodes = replaced(&mut events).await;

    let names: Vec<String> = nodes.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let (told, given) = (&nodes[&node_name("a")], node("a"));
    assert_eq!(told.capacity, given.capacity);
    assert_eq!(told.status, NodeStatus::Ready);
    assert!(told.schedulable && told.cordon.is_none());
    assert!(!told.uid.is_empty() && !told.resource_version.is_empty());
}

/// MUST start with `Replaced`, also when there is no node to tell.
pub async fn watching_an_empty_cluster_starts_with_no_nodes(fixture: &ClusterFixture) {
    let mut events = fixture.gateway.watch_nodes();
    assert!(replaced(&mut events).await.is_empty());
}

/// MUST start with `Lost` while the cluster cannot be seen.
pub async fn watching_a_lost_cluster_starts_with_lost(fixture: &ClusterFixture) {
    fixture.driver.put_node(node("a")).await;
    fixture.driver.lose().await;
    let mut events = fixture.gateway.watch_nodes();

    let first = next(&mut events).await;
    assert!(matches!(first, NodeEvent::Lost(_)), "{first:?}");

    fixture.driver.recover().await;
    assert_eq!(replaced_after_lost(&mut events).await.len(), 1);
}

/// MUST tell each later change of a node: it is new.
pub async fn a_new_node_is_told(fixture: &ClusterFixture) {
    let mut events = fixture.gateway.watch_nodes();
    replaced(&mut events).await;

    fixture.driver.put_node(node("a")).await;

    assert_eq!(applied(&mut events).await.name.as_str(), "a");
}

/// MUST tell each later change of a node: labels, taints, schedulability and conditions.
pub async fn a_changed_node_is_told_with_all_that_changed(fixture: &ClusterFixture) {
    fixture.driver.put_node(node("a")).await;
    let mut events = fixture.gateway.watch_nodes();
    replaced(&mut events).await;
    let taint = Taint {
        key: "example.com/dedicated".to_owned(),
        value: "gpu".to_owned(),
        effect: TaintEffect::NoExecute,
        added_at: None,
    };
    let mut changed = labelled("a", "tier", "gold");
    changed.taints = vec![taint.clone()];
    changed.schedulable = false;
    changed.status = NodeStatus::NotReady;
    changed.conditions = vec![condition("DiskPressure", "True"), condition("Ready", "False")];

    fixture.driver.put_node(changed).await;

    // Setting the status may be a change of its own after the others.
    let told = applied_until(&mut events, |node| {
        node.status == NodeStatus::NotReady && node.labels.contains_key("tier")
    })
    .await;
    assert_eq!(told.labels["tier"], "gold");
    assert_eq!((told.schedulable, told.cordon.is_some()), (false, true));
    assert!(
        told.taints
            .iter()
            .any(|one| (&one.key, &one.value, one.effect) == (&taint.key, &taint.value, taint.effect)),
        "{:?}",
        told.taints
    );
    let conditions: Vec<(&str, &str)> = told
        .conditions
        .iter()
        .map(|one| (one.kind.as_str(), one.status.as_str()))
        .collect();
    assert_eq!(conditions, [("DiskPressure", "True"), ("Ready", "False")]);
}

/// MUST tell each later change of a node: it is gone.
pub async fn a_deleted_node_is_told(fixture: &ClusterFixture) {
    for name in ["a", "b"] {
        fixture.driver.put_node(node(name)).await;
    }
    let mut events = fixture.gateway.watch_nodes();
    replaced(&mut events).await;

    fixture.driver.delete_node(&node_name("a")).await;

    loop {
        match next(&mut events).await {
            NodeEvent::Deleted(name) => break assert_eq!(name.as_str(), "a"),
            NodeEvent::Alive | NodeEvent::Applied(_) => {}
            other => unreachable!("{other:?} instead of the deletion"),
        }
    }
}

/// MUST tell changes in order for each node; several may be told as one.
pub async fn changes_of_one_node_are_told_in_order(fixture: &ClusterFixture) {
    fixture.driver.put_node(labelled("a", "turn", "0")).await;
    let mut events = fixture.gateway.watch_nodes();
    replaced(&mut events).await;

    for turn in 1..=20 {
        fixture.driver.put_node(labelled("a", "turn", &turn.to_string())).await;
    }

    let mut last = 0;
    while last < 20 {
        let turn: u32 = applied(&mut events).await.labels["turn"].parse().expect("a number");
        assert!(last <= turn, "{turn} after {last}");
        last = turn;
    }
}

/// Two watchers do not take events from each other.
pub async fn each_watcher_is_told_everything(fixture: &ClusterFixture) {
    let (mut one, mut other) = (fixture.gateway.watch_nodes(), fixture.gateway.watch_nodes());
    replaced(&mut one).await;
    replaced(&mut other).await;

    fixture.driver.put_node(node("a")).await;

    for events in [&mut one, &mut other] {
        assert_eq!(applied(events).await.name.as_str(), "a");
    }
}

/// MUST never end by itself: it tells `Lost`, tries again, and goes on.
pub async fn a_lost_cluster_is_told_and_found_again(fixture: &ClusterFixture) {
    fixture.driver.put_node(node("a")).await;
    let mut events = fixture.gateway.watch_nodes();
    replaced(&mut events).await;

    for round in ["1", "2"] {
        fixture.driver.lose().await;
        lost(&mut events).await;
        fixture.driver.recover().await;
        fixture.driver.put_node(labelled("a", "round", round)).await;

        sees(&mut events, |nodes| {
            nodes
                .values()
                .any(|node| node.labels.get("round").is_some_and(|label| label == round))
        })
        .await;
    }
}

/// MUST tell `Replaced` or go on where it was: nothing that happened meanwhile is missed.
pub async fn what_changed_while_the_cluster_was_lost_is_told(fixture: &ClusterFixture) {
    for name in ["changed", "deleted"] {
        fixture.driver.put_node(node(name)).await;
    }
    let mut events = fixture.gateway.watch_nodes();
    let mut known = replaced(&mut events).await;

    fixture.driver.lose().await;
    lost(&mut events).await;
    meanwhile(fixture.driver.as_ref()).await;
    fixture.driver.recover().await;

    let as_expected = |nodes: &BTreeMap<NodeName, Node>| {
        let names: Vec<&str> = nodes.keys().map(NodeName::as_str).collect();
        names == ["added", "changed"] && nodes[&node_name("changed")].labels.contains_key("meanwhile")
    };
    while !as_expected(&known) {
        fold(&mut known, next(&mut events).await);
    }
}

/// MUST NOT tell an empty `Replaced` because of an error.
pub async fn a_lost_cluster_never_looks_empty(fixture: &ClusterFixture) {
    fixture.driver.put_node(node("a")).await;
    let mut events = fixture.gateway.watch_nodes();
    let mut known = replaced(&mut events).await;

    fixture.driver.lose().await;
    lost(&mut events).await;
    // It keeps trying meanwhile.
    let pause = tokio::time::sleep(Duration::from_secs(3));
    tokio::pin!(pause);
    loop {
        tokio::select! {
            event = events.next() => {
                fold(&mut known, event.expect("the stream goes on"));
                assert_eq!(known.len(), 1);
            }
            () = &mut pause => break,
        }
    }
    fixture.driver.recover().await;
    fixture.driver.put_node(node("b")).await;
    while known.len() < 2 {
        fold(&mut known, next(&mut events).await);
        assert!(!known.is_empty());
    }
}

/// MUST tell `Alive` or another event at least every 15 s while the cluster can be seen.
pub async fn a_quiet_cluster_tells_that_it_is_alive(fixture: &ClusterFixture) {
    let mut events = fixture.gateway.watch_nodes();
    replaced(&mut events).await;
    for _ in 0..2 {
        let event = tokio::time::timeout(LONGEST_SILENCE, events.next())
            .await
            .expect("an event in time")
            .expect("the stream goes on");
        assert!(matches!(event, NodeEvent::Alive), "{event:?}");
    }
}

async fn meanwhile(driver: &dyn ClusterDriver) {
    driver.put_node(node("added")).await;
    driver.put_node(labelled("changed", "meanwhile", "yes")).await;
    driver.delete_node(&node_name("deleted")).await;
}

fn labelled(name: &str, key: &str, value: &str) -> Node {
    let mut node = node(name);
    node.labels.insert(key.to_owned(), value.to_owned());
    node
}

async fn next(events: &mut NodeEvents) -> NodeEvent {
    tokio::time::timeout(PATIENCE, events.next())
        .await
        .expect("an event in time")
        .expect("the stream goes on")
}

async fn replaced(events: &mut NodeEvents) -> BTreeMap<NodeName, Node> {
    match next(events).await {
        NodeEvent::Replaced(nodes) => by_name(nodes),
        other => unreachable!("{other:?} instead of all nodes"),
    }
}

async fn replaced_after_lost(events: &mut NodeEvents) -> BTreeMap<NodeName, Node> {
    loop {
        match next(events).await {
            NodeEvent::Replaced(nodes) => return by_name(nodes),
            NodeEvent::Lost(_) => {}
            other => unreachable!("{other:?} instead of all nodes"),
        }
    }
}

async fn lost(events: &mut NodeEvents) -> ClusterError {
    loop {
        match next(events).await {
            NodeEvent::Lost(error) => return error,
            NodeEvent::Alive | NodeEvent::Applied(_) | NodeEvent::Replaced(_) => {}
            other @ NodeEvent::Deleted(_) => unreachable!("{other:?} instead of the loss"),
        }
    }
}

async fn applied(events: &mut NodeEvents) -> Node {
    applied_until(events, |_| true).await
}

async fn applied_until(events: &mut NodeEvents, wanted: impl Fn(&Node) -> bool) -> Node {
    loop {
        match next(events).await {
            NodeEvent::Applied(node) if wanted(&node) => return *node,
            NodeEvent::Applied(_) | NodeEvent::Alive => {}
            other => unreachable!("{other:?} instead of a change"),
        }
    }
}

async fn sees(events: &mut NodeEvents, wanted: impl Fn(&BTreeMap<NodeName, Node>) -> bool) {
    let mut known = BTreeMap::new();
    while !wanted(&known) {
        fold(&mut known, next(events).await);
    }
}

fn fold(known: &mut BTreeMap<NodeName, Node>, event: NodeEvent) {
    match event {
        NodeEvent::Replaced(nodes) => *known = by_name(nodes),
        NodeEvent::Applied(node) => drop(known.insert(node.name.clone(), *node)),
        NodeEvent::Deleted(name) => drop(known.remove(&name)),
        NodeEvent::Alive | NodeEvent::Lost(_) => {}
    }
}

fn by_name(nodes: Vec<Node>) -> BTreeMap<NodeName, Node> {
    nodes.into_iter().map(|node| (node.name.clone(), node)).collect()
}
