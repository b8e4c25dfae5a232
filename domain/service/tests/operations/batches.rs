//! Operations on many nodes.

use std::time::Duration;

use knm_model::{AuditOutcome, NodeStatus, OperationKind, OperationState, TargetState, Wish};
use serde_json::json;

use crate::nodes::{node, settle};
use crate::stage::{Stage, asker, budget, pod, pods_of, request};

const FIVE: [&str; 5] = ["a", "b", "c", "d", "e"];

#[tokio::test(start_paused = true)]
async fn each_kind_changes_all_nodes_with_one_record_each() {
    let stage = Stage::with(&FIVE).await;
    let _replica = stage.replica("one");
    for (kind, options) in [
        (OperationKind::Label, json!({"set": {"team": "web"}})),
        (
            OperationKind::Taint,
            json!({"add": [{"key": "team", "effect": "NoSchedule"}]}),
        ),
        (
            OperationKind::ApplyTemplate,
            json!({"template": "gpu", "version": 1, "confirm_no_execute": false, "content": {"labels": {"pool": "gpu"}}}),
        ),
        (OperationKind::Cordon, json!({})),
        (OperationKind::Uncordon, json!({})),
    ] {
        let mut wanted = request(kind, &FIVE, options);
        wanted.reason = Some("disks".to_owned());
        let before = stage.audit().await.len();
        let id = stage.accept(wanted).await.unwrap().operation.id;
        let shown = stage.end(id).await;
        assert_eq!(shown.operation.state, OperationState::Succeeded, "{shown:?}");
        assert_eq!((shown.operation.progress.done, shown.operation.progress.total), (5, 5));
        let audit = stage.audit().await;
        assert_eq!(audit.len() - before, 5);
        for record in &audit[..5] {
            assert_eq!((record.action, record.operation), (kind.action(), Some(id)));
            let completion = record.completion.as_ref().unwrap();
            assert_eq!(completion.outcome, AuditOutcome::Succeeded);
            assert!(!completion.after.is_empty(), "{record:?}");
        }
        let changed = stage.node("c").await;
        match kind {
            OperationKind::Label => assert_eq!(changed.labels["team"], "web"),
            OperationKind::Taint => assert_eq!(changed.taints[0].key, "team"),
            OperationKind::ApplyTemplate => assert_eq!(changed.labels["pool"], "gpu"),
            OperationKind::Cordon => {
                assert!(!changed.schedulable);
                assert_eq!(stage.holds().await.len(), 5);
            }
            OperationKind::Uncordon | OperationKind::Drain => {
                assert!(changed.schedulable);
                assert_eq!(stage.holds().await, []);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_vanished_is_skipped() {
    let stage = Stage::with(&FIVE).await;
    let id = stage
        .accept(request(OperationKind::Label, &FIVE, json!({"set": {"team": "web"}})))
        .await
        .unwrap()
        .operation
        .id;
    stage.fleet.delete_node(&crate::stage::node_name("b"));
    settle().await;
    let _replica = stage.replica("one");
    let shown = stage.end(id).await;
    assert_eq!(shown.operation.state, OperationState::Succeeded);
    assert_eq!(
        (shown.operation.progress.done, shown.operation.progress.skipped),
        (4, 1)
    );
    assert_eq!(shown.targets[1].state, TargetState::Skipped);
}

#[tokio::test(start_paused = true)]
async fn too_many_failures_pause_it_and_what_failed_can_be_tried_again() {
    let stage = Stage::with(&FIVE).await;
    for name in ["a", "c"] {
        let mut bare = pod(&format!("bare-{name}"), name);
        bare.controller = None;
        stage.fleet.put_pod(bare);
    }
    let _replica = stage.replica("one");
    let id = stage
        .accept(request(OperationKind::Drain, &FIVE, json!({})))
        .await
        .unwrap()
        .operation
        .id;

    let paused = stage
        .until(id, |shown| shown.operation.state == OperationState::Paused)
        .await;
    assert!(paused.operation.message.as_ref().unwrap().contains("max_failures"));
    assert_eq!(
        (paused.operation.progress.failed, paused.operation.progress.left()),
        (1, 4)
    );

    // Somebody looked at it and goes on: the next failure pauses it again.
    stage.wish(id, Wish::Resume).await;
    let again = stage.until(id, |shown| shown.operation.progress.failed == 2).await;
    assert_eq!(again.operation.progress.done, 1);
    stage
        .until(id, |shown| shown.operation.state == OperationState::Paused)
        .await;
    stage.wish(id, Wish::Resume).await;
    let shown = stage.end(id).await;
    assert_eq!(shown.operation.state, OperationState::PartlyFailed);
    assert_eq!((shown.operation.progress.done, shown.operation.progress.failed), (3, 2));

    for name in ["a", "c"] {
        let mut managed = pod(&format!("bare-{name}"), name);
        managed.labels.clear();
        stage.fleet.put_pod(managed);
    }
    let retry = stage.operations.retry(id, asker(), None).await.unwrap();
    let names: Vec<_> = retry.targets.iter().map(|target| target.node.as_str()).collect();
    assert_eq!(
        (names.as_slice(), retry.operation.retry_of),
        (&["a", "c"][..], Some(id))
    );
    let shown = stage.end(retry.operation.id).await;
    assert_eq!(shown.operation.state, OperationState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_paused_operation_begins_nothing_until_it_is_resumed() {
    let stage = Stage::with(&FIVE).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_budget(budget(0));
    let _replica = stage.replica("one");
    let id = stage
        .accept(request(OperationKind::Drain, &FIVE, json!({})))
        .await
        .unwrap()
        .operation
        .id;
    stage.until(id, |shown| !pods_of(&shown.targets[0]).is_empty()).await;
    stage.wish(id, Wish::Pause).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    stage.fleet.put_budget(budget(9));
    tokio::time::sleep(Duration::from_secs(600)).await;
    let shown = stage.shown(id).await;
    assert_eq!(shown.operation.state, OperationState::Paused);
    assert_eq!(stage.pods("a").await, ["web-1"]);
    stage.wish(id, Wish::Resume).await;
    assert_eq!(stage.end(id).await.operation.state, OperationState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_cancelled_in_every_state_before_its_end() {
    for (wait, resumes) in [(0, false), (30, false), (30, true)] {
        let stage = Stage::with(&FIVE).await;
        stage.fleet.put_pod(pod("web-1", "a"));
        stage.fleet.put_budget(budget(0));
        let id = stage
            .accept(request(OperationKind::Drain, &FIVE, json!({"on_cancel": "restore"})))
            .await
            .unwrap()
            .operation
            .id;
        let replica = stage.replica("one");
        if wait == 0 {
            replica.kill();
        }
        tokio::time::sleep(Duration::from_secs(wait)).await;
        if resumes {
            stage.wish(id, Wish::Pause).await;
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        stage.wish(id, Wish::Cancel).await;
        let _replica = stage.replica("two");
        let shown = stage.end(id).await;
        assert_eq!(shown.operation.state, OperationState::Cancelled);
        assert!(
            shown
                .targets
                .iter()
                .all(|target| target.state == TargetState::Cancelled),
            "{shown:?}"
        );
        assert!(stage.node("a").await.schedulable);
        assert_eq!(stage.holds().await, []);
        let refused = stage.operations.wish(id, Wish::Resume, &asker()).await.unwrap_err();
        assert_eq!(refused.to_string(), "an operation that is cancelled cannot be resumed");
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_nodes_are_out_of_use_than_allowed_and_they_are_given_back() {
    let stage = Stage::with(&FIVE).await;
    let _replica = stage.replica("one");
    let mut wanted = request(OperationKind::Drain, &FIVE, json!({}));
    wanted.strategy.max_concurrent = Some(5);
    wanted.strategy.max_unavailable = Some("1".to_owned());
    wanted.strategy.uncordon_after = Some("on_ready".to_owned());
    // The first node does not come back at once.
    let mut broken = node("a", "1");
    broken.status = NodeStatus::NotReady;
    stage.fleet.put_node(broken.clone());
    settle().await;
    let id = stage.accept(wanted).await.unwrap().operation.id;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let shown = stage.shown(id).await;
    let begun = shown
        .targets
        .iter()
        .filter(|target| target.started_at.is_some())
        .count();
    assert_eq!(begun, 1, "{shown:?}");
    assert!(shown.targets[0].message.as_ref().unwrap().contains("when it is ready"));

    broken.status = NodeStatus::Ready;
    broken.schedulable = false;
    stage.fleet.put_node(broken);
    let shown = stage.end(id).await;
    assert_eq!(shown.operation.state, OperationState::Succeeded);
    for pair in shown.targets.windows(2) {
        assert!(pair[0].ended_at <= pair[1].started_at, "{shown:?}");
    }
    for name in FIVE {
        assert!(stage.node(name).await.schedulable, "{name}");
    }
    assert_eq!(stage.holds().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_events_replays_what_was_missed_and_ends_with_the_operation() {
    use futures::StreamExt;
    let stage = Stage::with(&FIVE).await;
    let id = stage
        .accept(request(OperationKind::Label, &FIVE, json!({"set": {"team": "web"}})))
        .await
        .unwrap()
        .operation
        .id;
    let follower = tokio::spawn(stage.operations.follow(id, 0).collect::<Vec<_>>());
    let _replica = stage.replica("one");
    stage.end(id).await;
    let live: Vec<_> = follower
        .await
        .unwrap()
        .into_iter()
        .flat_map(|events| events.unwrap())
        .collect();
    assert_eq!(live, stage.events(id).await);
    assert_eq!(live.last().unwrap().event.data["state"], "succeeded");
    let missed: Vec<_> = stage.operations.follow(id, 3).collect::<Vec<_>>().await;
    let missed: Vec<_> = missed.into_iter().flat_map(|events| events.unwrap()).collect();
    assert_eq!(missed, live[3..]);
}
