//! Drains of one node, by the rules for draining nodes.

use std::time::Duration;

use knm_model::{AuditAction, AuditOutcome, NodeStatus, OperationKind, OperationState, PodPhase, TargetState, Wish};
use serde_json::json;

use crate::nodes::{node, settle};
use crate::stage::{Stage, budget, node_name, pod, pods_of, request};

#[tokio::test(start_paused = true)]
async fn a_node_is_held_and_drained_when_every_pod_is_gone() {
    let stage = Stage::with(&["a", "b"]).await;
    for name in ["web-1", "web-2"] {
        stage.fleet.put_pod(pod(name, "a"));
    }
    let _replica = stage.replica("one");
    let id = stage.drain(json!({})).await;

    let shown = stage.end(id).await;

    assert_eq!(shown.operation.state, OperationState::Succeeded, "{shown:?}");
    let target = &shown.targets[0];
    assert_eq!(target.state, TargetState::Succeeded);
    assert_eq!(
        pods_of(target),
        [("web-1".to_owned(), "gone"), ("web-2".to_owned(), "gone")]
    );
    assert_eq!(stage.pods("a").await, Vec::<String>::new());
    assert!(!stage.node("a").await.schedulable);
    let holds = stage.holds().await;
    assert_eq!(
        (holds.len(), holds[0].holder.as_str(), holds[0].reason.as_str()),
        (1, "ann", "drain")
    );
    let audit = stage.audit().await;
    assert_eq!(audit.len(), 1, "{audit:?}");
    assert_eq!(
        (audit[0].action, audit[0].operation),
        (AuditAction::NodeDrain, Some(id))
    );
    let completion = audit[0].completion.as_ref().unwrap();
    assert_eq!(completion.outcome, AuditOutcome::Succeeded);
    assert_eq!(completion.before["schedulable"], json!(true));
    assert_eq!(completion.after["schedulable"], json!(false));
}

#[tokio::test(start_paused = true)]
async fn a_drain_goes_on_until_pods_are_gone_and_tells_each_of_their_states() {
    let stage = Stage::with(&["a", "b"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    let _replica = stage.replica("one");
    let id = stage.drain(json!({"grace_period_seconds": 2})).await;
    stage.end(id).await;

    let events = stage.events(id).await;
    let numbers: Vec<u64> = events.iter().map(|event| event.number).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let told: Vec<String> = events
        .iter()
        .map(|event| {
            format!(
                "{} {}",
                event.event.kind.as_str(),
                event.event.data["state"].as_str().unwrap()
            )
        })
        .collect();
    let expected = [
        "operation queued",
        "operation running",
        "node running",
        "pod waiting",
        "pod terminating",
        "pod gone",
        "node succeeded",
        "operation succeeded",
    ];
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_a_disruption_budget_is_waited_for_and_never_answered_with_a_delete() {
    let stage = Stage::with(&["a", "b"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_pod(pod("other-1", "a"));
    stage.fleet.put_budget(budget(0));
    let _replica = stage.replica("one");
    let id = stage.drain(json!({})).await;
    tokio::time::sleep(Duration::from_secs(600)).await;

    let shown = stage.shown(id).await;
    assert_eq!(shown.operation.state, OperationState::Running);
    assert_eq!(
        pods_of(&shown.targets[0]),
        [("other-1".to_owned(), "gone"), ("web-1".to_owned(), "blocked")]
    );
    assert_eq!(stage.pods("a").await, ["web-1"]);

    stage.fleet.put_budget(budget(1));
    assert_eq!(stage.end(id).await.operation.state, OperationState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn if_one_pod_may_not_be_removed_none_is_and_the_node_is_left_alone() {
    let stage = Stage::with(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    let mut local = pod("local-1", "a");
    local.has_empty_dir = true;
    stage.fleet.put_pod(local);
    let mut bare = pod("bare-1", "a");
    bare.controller = None;
    stage.fleet.put_pod(bare);
    let _replica = stage.replica("one");
    let id = stage.drain(json!({})).await;

    let shown = stage.end(id).await;

    assert_eq!(shown.operation.state, OperationState::Failed);
    let message = shown.targets[0].message.clone().unwrap();
    assert!(
        message.contains("team/local-1") && message.contains("team/bare-1"),
        "{message}"
    );
    assert!(
        message.contains("delete_emptydir_data") && message.contains("force"),
        "{message}"
    );
    assert_eq!(stage.pods("a").await.len(), 3);
    assert!(stage.node("a").await.schedulable);
    assert_eq!(stage.holds().await, []);
    assert_eq!(stage.audit().await[0].outcome(), Some(AuditOutcome::Failed));
}

#[tokio::test(start_paused = true)]
async fn what_was_cordoned_before_us_stays_cordoned_after_us() {
    let stage = Stage::with(&["a"]).await;
    stage.set_schedulable("a", false).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_budget(budget(0));
    let _replica = stage.replica("one");
    let id = stage.drain(json!({"on_cancel": "restore"})).await;
    stage.until(id, |shown| !pods_of(&shown.targets[0]).is_empty()).await;

    stage.wish(id, Wish::Cancel).await;
    assert_eq!(stage.end(id).await.operation.state, OperationState::Cancelled);

    assert!(!stage.node("a").await.schedulable);
    assert_eq!(stage.holds().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_drain_leaves_the_node_cordoned_or_as_it_was() {
    for (on_cancel, schedulable, holds) in [("keep_cordoned", false, 1), ("restore", true, 0)] {
        let stage = Stage::with(&["a"]).await;
        stage.fleet.put_pod(pod("web-1", "a"));
        stage.fleet.put_budget(budget(0));
        let _replica = stage.replica("one");
        let id = stage.drain(json!({"on_cancel": on_cancel})).await;
        stage.until(id, |shown| pods_of(&shown.targets[0]).len() == 1).await;

        stage.wish(id, Wish::Cancel).await;
        let shown = stage.end(id).await;

        assert_eq!(shown.operation.state, OperationState::Cancelled);
        assert_eq!(shown.targets[0].state, TargetState::Cancelled);
        assert_eq!(stage.node("a").await.schedulable, schedulable, "{on_cancel}");
        assert_eq!(stage.holds().await.len(), holds, "{on_cancel}");
        assert_eq!(stage.pods("a").await, ["web-1"]);
        assert_eq!(stage.audit().await[0].outcome(), Some(AuditOutcome::Failed));
    }
}

#[tokio::test(start_paused = true)]
async fn a_person_who_uncordons_a_node_during_its_drain_is_obeyed() {
    let stage = Stage::with(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_budget(budget(0));
    let _replica = stage.replica("one");
    let id = stage.drain(json!({})).await;
    stage.until(id, |shown| pods_of(&shown.targets[0]).len() == 1).await;

    stage.set_schedulable("a", true).await;
    stage.fleet.put_budget(budget(1));
    let shown = stage.end(id).await;

    assert_eq!(shown.operation.state, OperationState::Failed);
    assert!(shown.targets[0].message.as_ref().unwrap().contains("uncordoned"));
    assert_eq!(stage.pods("a").await, ["web-1"]);
    assert!(stage.node("a").await.schedulable);
}

#[tokio::test(start_paused = true)]
async fn a_drain_whose_time_is_up_fails_and_names_what_is_left() {
    let stage = Stage::with(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_budget(budget(0));
    let _replica = stage.replica("one");
    let id = stage.drain(json!({"timeout_seconds": 30})).await;

    let shown = stage.end(id).await;

    assert_eq!(shown.operation.state, OperationState::Failed);
    let message = shown.targets[0].message.clone().unwrap();
    assert!(
        message.contains("time is up") && message.contains("team/web-1"),
        "{message}"
    );
    assert_eq!(stage.pods("a").await, ["web-1"]);
    let took = shown
        .operation
        .ended_at
        .unwrap()
        .since(shown.operation.started_at.unwrap());
    assert!((30..36).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn after_the_deadline_what_is_left_is_deleted_if_asked_for_and_the_audit_log_says_so() {
    let stage = Stage::with(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_budget(budget(0));
    let _replica = stage.replica("one");
    let id = stage
        .drain(json!({"timeout_seconds": 30, "after_deadline": "force"}))
        .await;

    let shown = stage.end(id).await;

    assert_eq!(shown.operation.state, OperationState::Succeeded);
    assert_eq!(stage.pods("a").await, Vec::<String>::new());
    let audit = stage.audit().await;
    let deleted = &audit[0].completion.as_ref().unwrap().after["deleted_after_deadline"];
    assert!(deleted[0].as_str().unwrap().starts_with("team/web-1"), "{deleted}");
}

#[tokio::test(start_paused = true)]
async fn disable_eviction_deletes_pods_whatever_budgets_say() {
    let stage = Stage::with(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_budget(budget(0));
    let _replica = stage.replica("one");
    let id = stage.drain(json!({"disable_eviction": true})).await;
    assert_eq!(stage.end(id).await.operation.state, OperationState::Succeeded);
    assert_eq!(stage.pods("a").await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_lost_kubelet_is_named_and_its_pods_can_be_passed() {
    for (skip, state) in [(0, OperationState::Running), (60, OperationState::Succeeded)] {
        let stage = Stage::with(&["a"]).await;
        let mut silent = node("a", "1");
        silent.status = NodeStatus::Unknown;
        stage.fleet.put_node(silent);
        settle().await;
        let mut stuck = pod("web-1", "a");
        stuck.deletion_grace = Some(Duration::from_secs(30));
        stuck.deletion_at = Some(stage.clock.now().plus(Duration::from_secs(30)));
        stage.fleet.put_pod(stuck);
        let _replica = stage.replica("one");
        let id = stage.drain(json!({"skip_wait_for_delete_timeout_seconds": skip})).await;
        tokio::time::sleep(Duration::from_secs(120)).await;

        let shown = stage.shown(id).await;
        assert_eq!(shown.operation.state, state);
        if state == OperationState::Running {
            let message = shown.targets[0].message.clone().unwrap();
            assert!(message.contains("kubelet"), "{message}");
            assert!(message.contains("skip_wait_for_delete_timeout_seconds"), "{message}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_fails_to_cordon_evicts_nobody() {
    let stage = Stage::with(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    let _replica = stage.replica("one");
    stage.fleet.lose();
    let id = stage.drain(json!({})).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let shown = stage.shown(id).await;
    assert_eq!(shown.operation.state, OperationState::Running);
    assert!(
        shown.targets[0].message.as_ref().unwrap().contains("asked again"),
        "{shown:?}"
    );
    stage.fleet.recover();
    assert_eq!(stage.end(id).await.operation.state, OperationState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_goes_away_in_between_is_waited_for() {
    let stage = Stage::with(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_budget(budget(0));
    let _replica = stage.replica("one");
    let id = stage.drain(json!({})).await;
    stage.until(id, |shown| pods_of(&shown.targets[0]).len() == 1).await;
    stage.fleet.lose();
    tokio::time::sleep(Duration::from_secs(300)).await;
    stage.fleet.put_budget(budget(1));
    stage.fleet.recover();
    assert_eq!(stage.end(id).await.operation.state, OperationState::Succeeded);
    assert_eq!(stage.audit().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn volumes_are_waited_for_if_asked_for() {
    let stage = Stage::with(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.attach_volume(node_name("a"), "disk-1");
    let _replica = stage.replica("one");
    let id = stage.drain(json!({"wait_for_volume_detach": true})).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let shown = stage.shown(id).await;
    assert_eq!(shown.operation.state, OperationState::Running);
    assert!(
        shown.targets[0].message.as_ref().unwrap().contains("disk-1"),
        "{shown:?}"
    );
    stage.fleet.detach_volume(&node_name("a"), "disk-1");
    assert_eq!(stage.end(id).await.operation.state, OperationState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn pods_are_waited_for_until_they_end_by_themselves() {
    let stage = Stage::with(&["a"]).await;
    stage.fleet.put_pod(pod("job-1", "a"));
    let _replica = stage.replica("one");
    let id = stage.drain(json!({"wait_for_completion": "app=job"})).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.state(id).await, OperationState::Running);
    assert_eq!(stage.pods("a").await, ["job-1"]);
    let mut done = pod("job-1", "a");
    done.phase = PodPhase::Succeeded;
    stage.fleet.put_pod(done);
    assert_eq!(stage.end(id).await.operation.state, OperationState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_changes_nothing_and_tells_what_would_be() {
    let stage = Stage::with(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    let _replica = stage.replica("one");
    let mut dry = request(OperationKind::Drain, &["a"], json!({}));
    dry.dry_run = true;
    let id = stage.accept(dry).await.unwrap().operation.id;
    let shown = stage.end(id).await;
    assert_eq!(shown.operation.state, OperationState::Succeeded);
    assert!(
        shown.targets[0]
            .message
            .as_ref()
            .unwrap()
            .contains("1 pods would be removed"),
        "{shown:?}"
    );
    assert!(stage.node("a").await.schedulable);
    assert_eq!(
        (
            stage.pods("a").await.len(),
            stage.audit().await.len(),
            stage.holds().await.len()
        ),
        (1, 0, 0)
    );
}
