//! What failed is tried again.

use std::time::Duration;

use knm_domain::{OperationError, OperationShown};
use knm_model::{OperationKind, OperationState, Wish};
use serde_json::json;

use crate::nodes::settle;
use crate::stage::{Stage, asker, budget, node_name, pod, request};

fn names(shown: &OperationShown) -> Vec<&str> {
    shown.targets.iter().map(|target| target.node.as_str()).collect()
}

/// A drain of all nodes that ended because its time was up, with a pod left on each.
async fn failed(stage: &Stage, nodes: &[&str]) -> OperationShown {
    for name in nodes {
        stage.fleet.put_pod(pod(&format!("web-{name}"), name));
    }
    stage.fleet.put_budget(budget(0));
    let mut wanted = request(OperationKind::Drain, nodes, json!({"timeout_seconds": 10}));
    wanted.strategy.max_concurrent = Some(9);
    let id = stage.accept(wanted).await.unwrap().operation.id;
    let shown = stage.end(id).await;
    assert_eq!(shown.operation.state, OperationState::Failed, "{shown:?}");
    shown
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_gone_are_left_out_and_the_others_keep_their_holds() {
    let stage = Stage::with(&["a", "b", "c"]).await;
    let _replica = stage.replica("one");
    let before = failed(&stage, &["a", "b", "c"]).await;
    stage.fleet.delete_node(&node_name("b"));
    settle().await;

    let retry = stage
        .operations
        .retry(before.operation.id, asker(), None)
        .await
        .unwrap();

    assert_eq!(names(&retry), ["a", "c"]);
    assert_eq!(retry.operation.strategy, before.operation.strategy);
    for (again, earlier) in [(0, 0), (1, 2)] {
        assert!(retry.targets[again].hold.is_some());
        assert_eq!(retry.targets[again].hold, before.targets[earlier].hold);
    }
}

#[tokio::test(start_paused = true)]
async fn there_is_nothing_to_try_again_when_all_nodes_are_gone() {
    let stage = Stage::with(&["a"]).await;
    let _replica = stage.replica("one");
    let before = failed(&stage, &["a"]).await;
    stage.fleet.delete_node(&node_name("a"));
    settle().await;
    let error = stage
        .operations
        .retry(before.operation.id, asker(), None)
        .await
        .unwrap_err();
    assert!(matches!(error, OperationError::NothingLeft { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_was_cancelled_is_tried_again() {
    let stage = Stage::with(&["a", "b", "c"]).await;
    let _replica = stage.replica("one");
    let mut wanted = request(OperationKind::Label, &["a", "b", "c"], json!({"set": {"team": "web"}}));
    wanted.strategy.max_concurrent = Some(1);
    wanted.strategy.pause_between_seconds = Some(600);
    let id = stage.accept(wanted).await.unwrap().operation.id;
    stage.until(id, |shown| shown.operation.progress.done == 1).await;
    stage.wish(id, Wish::Cancel).await;
    stage.end(id).await;
    let retry = stage.operations.retry(id, asker(), None).await.unwrap();
    assert_eq!(names(&retry), ["b", "c"]);
    let shown = stage.end(retry.operation.id).await;
    assert_eq!(shown.operation.state, OperationState::Succeeded);
    assert_eq!(stage.node("c").await.labels["team"], "web");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_sent_again_asks_for_the_same_operation() {
    let stage = Stage::with(&["a", "b"]).await;
    let _replica = stage.replica("one");
    let once = Some([7; 32]);
    let wanted = || request(OperationKind::Label, &["a", "b"], json!({"set": {"team": "web"}}));
    let accept = async |once| stage.operations.accept_once(wanted(), asker(), once).await.unwrap();
    let first = accept(once).await;
    stage.fleet.delete_node(&node_name("b"));
    settle().await;
    let again = accept(once).await;
    assert_eq!(again.operation.id, first.operation.id);
    assert_eq!(names(&again), ["a", "b"]);
    let other = stage
        .operations
        .accept_once(
            request(OperationKind::Label, &["a"], json!({"set": {"team": "web"}})),
            asker(),
            Some([8; 32]),
        )
        .await
        .unwrap();
    assert_ne!(other.operation.id, first.operation.id);

    let before = failed(&stage, &["a"]).await.operation.id;
    let retry = async || stage.operations.retry(before, asker(), Some([9; 32])).await.unwrap();
    assert_eq!(retry().await.operation.id, retry().await.operation.id);

    tokio::time::sleep(Duration::from_secs(24 * 3600 + 1)).await;
    let late = stage.operations.accept_once(
        request(OperationKind::Label, &["a"], json!({"set": {"team": "web"}})),
        asker(),
        once,
    );
    assert_ne!(late.await.unwrap().operation.id, first.operation.id);
}
