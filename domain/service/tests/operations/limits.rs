//! How many nodes of an operation are worked on, may fail, and may be out of use.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use knm_domain::OperationShown;
use knm_model::{AuditOutcome, EventKind, OperationEvent, OperationKind, OperationState, TargetState, Wish};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::json;

use crate::around::Slow;
use crate::nodes::{node, settle};
use crate::stage::{Stage, budget, node_name, pod, request};
use crate::through::through;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("node-{number:03}")).collect()
}

fn started(shown: &OperationShown) -> Vec<&str> {
    let begun = shown.targets.iter().filter(|target| target.started_at.is_some());
    begun.map(|target| target.node.as_str()).collect()
}

fn messages(events: &[OperationEvent]) -> Vec<String> {
    let of_operation = events.iter().filter(|event| event.event.kind == EventKind::Operation);
    let told = of_operation.filter_map(|event| event.event.data.get("message")?.as_str());
    told.map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn a_pause_after_too_many_failures_waits_for_the_steps_under_way_and_keeps_what_comes_of_them() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let names = names(40);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let stage = Stage::seen_through(&names, false, |inner| {
        through(Arc::new(Slow {
            patch_seconds: 5,
            refused: Some(node_name("node-003")),
            ..Slow::new(inner)
        }))
    })
    .await;
    let _replica = stage.replica("one");
    let mut wanted = request(OperationKind::Label, &names, json!({"set": {"team": "web"}}));
    wanted.strategy.max_concurrent = Some(32);
    let id = stage.accept(wanted).await.unwrap().operation.id;

    let shown = stage
        .until(id, |shown| shown.operation.state == OperationState::Paused)
        .await;
    tokio::time::sleep(Duration::from_secs(60)).await;

    assert!(shown.operation.message.as_ref().unwrap().contains("max_failures"));
    assert_eq!(shown, stage.shown(id).await, "nothing is begun after the pause");
    let mut changed = 0;
    for target in &shown.targets {
        let is_changed = stage.node(target.node.as_str()).await.labels.contains_key("team");
        assert_eq!(target.state == TargetState::Succeeded, is_changed, "{target:?}");
        changed += usize::from(is_changed);
    }
    assert_eq!((changed, shown.operation.progress.failed), (31, 1));
    let audit = stage.audit().await;
    let with = |outcome| audit.iter().filter(|record| record.outcome() == Some(outcome)).count();
    assert_eq!(
        (audit.len(), with(AuditOutcome::Succeeded), with(AuditOutcome::Failed)),
        (32, 31, 1)
    );
    let text = metrics.render();
    assert!(
        text.contains("kube_node_manager_operation_leases_lost_total 0"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn steps_of_more_nodes_than_are_worked_on_at_once_are_waited_for() {
    let names = names(100);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let pods_seconds = Arc::default();
    let slow = Arc::clone(&pods_seconds);
    let stage = Stage::seen_through(&names, false, |inner| {
        through(Arc::new(Slow {
            pods_seconds,
            ..Slow::new(inner)
        }))
    })
    .await;
    stage.fleet.put_budget(budget(0));
    for name in &names {
        stage.fleet.put_pod(pod(&format!("web-{name}"), name));
    }
    let _replica = stage.replica("one");
    let mut wanted = request(OperationKind::Drain, &names, json!({}));
    wanted.strategy.max_concurrent = Some(100);
    let id = stage.accept(wanted).await.unwrap().operation.id;
    stage
        .until(id, |shown| {
            let told = shown.targets.iter().filter_map(|target| target.message.as_ref());
            told.filter(|message| message.contains("blocked")).count() == 100
        })
        .await;
    // All of them want to look again, and a look takes long now: the clock tells if somebody does not wait for that.
    slow.store(8, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(120)).await;
    slow.store(0, Ordering::Relaxed);
    stage.fleet.put_budget(budget(100));
    let shown = stage.end(id).await;
    assert_eq!(shown.operation.state, OperationState::Succeeded);
    assert!(stage.clock_was_read() < 10_000, "{}", stage.clock_was_read());
}

#[tokio::test(start_paused = true)]
async fn while_a_cluster_is_not_seen_a_limit_lets_nothing_begin_and_the_operation_says_so() {
    let stage = Stage::with(&["a", "b", "c"]).await;
    let mut wanted = request(OperationKind::Drain, &["a", "b", "c"], json!({}));
    wanted.strategy.max_concurrent = Some(3);
    wanted.strategy.max_unavailable = Some("2".to_owned());
    let id = stage.accept(wanted).await.unwrap().operation.id;
    stage.fleet.lose();
    settle().await;
    let _replica = stage.replica("one");
    tokio::time::sleep(Duration::from_secs(60)).await;

    let shown = stage.shown(id).await;
    assert_eq!(
        (shown.operation.state, started(&shown)),
        (OperationState::Running, vec![])
    );
    assert!(
        shown
            .operation
            .message
            .as_ref()
            .unwrap()
            .contains("cluster test is not seen"),
        "{shown:?}"
    );

    stage.fleet.recover();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let shown = stage.shown(id).await;
    assert_eq!(started(&shown).len(), 2, "{shown:?}");
    let told = shown.operation.message.clone().unwrap();
    assert!(told.contains("max_unavailable 2"), "{told}");

    // Somebody gives one back, and one that was removed is waited for no longer.
    stage.set_schedulable("a", true).await;
    let shown = stage.end(id).await;
    assert_eq!(shown.operation.message, None);
    let told = messages(&stage.events(id).await);
    assert_eq!(told.len(), 2, "each is told once: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_that_is_removed_makes_room_for_the_next_one() {
    let stage = Stage::with(&["a", "b"]).await;
    let mut wanted = request(OperationKind::Drain, &["a", "b"], json!({}));
    wanted.strategy.max_unavailable = Some("1".to_owned());
    let _replica = stage.replica("one");
    let id = stage.accept(wanted).await.unwrap().operation.id;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(started(&stage.shown(id).await), ["a"]);
    stage.fleet.delete_node(&node_name("a"));
    let shown = stage.end(id).await;
    assert_eq!(shown.operation.state, OperationState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn no_more_nodes_of_a_zone_are_out_of_use_than_allowed() {
    let names = ["a1", "a2", "b1", "b2"];
    let stage = Stage::with(&names).await;
    for name in names {
        let mut zoned = node(name, "2");
        zoned.zone = Some(name[..1].to_owned());
        stage.fleet.put_node(zoned);
    }
    settle().await;
    let mut wanted = request(OperationKind::Drain, &names, json!({}));
    wanted.strategy.max_concurrent = Some(4);
    wanted.strategy.max_unavailable_per_zone = Some("50%".to_owned());
    let _replica = stage.replica("one");
    let id = stage.accept(wanted).await.unwrap().operation.id;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let shown = stage.shown(id).await;
    assert_eq!(started(&shown), ["a1", "b1"]);
    assert_eq!(shown.targets[0].zone.as_deref(), Some("a"));
    let told = shown.operation.message.unwrap();
    assert!(
        told.contains("of zone a") && told.contains("max_unavailable_per_zone 50%"),
        "{told}"
    );

    // The zone is that of the beginning, whatever is told of the node now.
    let mut back = node("b1", "9");
    back.zone = Some("a".to_owned());
    stage.fleet.put_node(back);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(started(&stage.shown(id).await), ["a1", "b1", "b2"]);
    stage.set_schedulable("a1", true).await;
    let shown = stage.end(id).await;
    assert_eq!(shown.operation.state, OperationState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_nodes_may_fail_before_it_pauses() {
    let names = ["a", "b", "c", "d", "e"];
    let stage = Stage::with(&names).await;
    for name in ["a", "c", "d"] {
        let mut bare = pod(&format!("bare-{name}"), name);
        bare.controller = None;
        stage.fleet.put_pod(bare);
    }
    let _replica = stage.replica("one");
    let mut wanted = request(OperationKind::Drain, &names, json!({}));
    // Two of five.
    wanted.strategy.max_failures = Some("40%".to_owned());
    let id = stage.accept(wanted).await.unwrap().operation.id;
    let paused = stage
        .until(id, |shown| shown.operation.state == OperationState::Paused)
        .await;
    assert_eq!(
        (started(&paused), paused.operation.progress.failed),
        (vec!["a", "b", "c", "d"], 3)
    );
    assert!(paused.operation.message.as_ref().unwrap().contains("max_failures 40%"));
    stage.wish(id, Wish::Resume).await;
    assert_eq!(stage.end(id).await.operation.state, OperationState::PartlyFailed);
}

#[tokio::test(start_paused = true)]
async fn the_nodes_are_those_of_the_beginning() {
    let stage = Stage::with(&["a", "b"]).await;
    let mut wanted = request(OperationKind::Label, &[], json!({"set": {"team": "web"}}));
    wanted.targets[0].label_selector = Some("!control".to_owned());
    let id = stage.accept(wanted).await.unwrap().operation.id;
    stage.fleet.put_node(node("c", "1"));
    settle().await;
    let _replica = stage.replica("one");
    let shown = stage.end(id).await;
    assert_eq!(started(&shown), ["a", "b"]);
    assert!(stage.node("c").await.labels.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_operation_across_clusters_counts_the_nodes_of_all_of_them_together() {
    let stage = Stage::with_two(&["a", "b"], &["a", "c"]).await;
    let mut wanted = request(OperationKind::Cordon, &["a", "b"], json!({}));
    wanted.reason = Some("disks".to_owned());
    wanted.strategy.max_concurrent = Some(1);
    let mut other = wanted.targets[0].clone();
    "other".clone_into(&mut other.cluster);
    other.nodes = vec!["c".to_owned(), "a".to_owned()];
    wanted.targets.push(other);
    let _replica = stage.replica("one");
    let id = stage.accept(wanted).await.unwrap().operation.id;
    let shown = stage.end(id).await;
    assert_eq!(
        (shown.operation.state, shown.operation.progress.done),
        (OperationState::Succeeded, 4)
    );
    let order: Vec<_> = shown
        .targets
        .iter()
        .map(|target| (target.cluster.as_str(), target.node.as_str()))
        .collect();
    assert_eq!(order, [("test", "a"), ("test", "b"), ("other", "c"), ("other", "a")]);
    for pair in shown.targets.windows(2) {
        assert!(pair[0].ended_at <= pair[1].started_at, "one at a time: {shown:?}");
    }
    assert_eq!((stage.audit().await.len(), stage.holds().await.len()), (4, 4));
}
