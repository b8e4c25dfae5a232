//! What clusters do not let the service do is refused before anything is changed.

use knm_domain::{InventoryError, OperationError};
use knm_model::{Access, AuditOutcome, ClusterFeature, OperationFilter, OperationKind, OperationState, TargetState};
use serde_json::{Value, json};

use crate::nodes::settle;
use crate::stage::{Stage, pod, request};

/// A cluster that withholds these features, which is known.
async fn without(features: &[ClusterFeature]) -> Stage {
    let stage = Stage::with(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    for feature in features {
        stage.fleet.withhold(*feature);
    }
    stage.check_permissions().await;
    stage
}

async fn refusal(stage: &Stage, kind: OperationKind, options: Value) -> Option<String> {
    let mut wanted = request(kind, &["a"], options);
    wanted.reason = Some("disk".to_owned());
    match stage.accept(wanted).await {
        Ok(_) => None,
        Err(OperationError::Inventory(error @ InventoryError::NotAllowed { .. })) => Some(error.to_string()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_the_cluster_does_not_let_the_service_do_is_not_accepted() {
    let forcing = || json!({"after_deadline": "force", "timeout_seconds": 60});
    let deleting = || json!({"disable_eviction": true});
    let kinds = || {
        [
            (OperationKind::Drain, json!({})),
            (OperationKind::Drain, deleting()),
            (OperationKind::Drain, forcing()),
            (OperationKind::Cordon, json!({})),
            (OperationKind::Label, json!({"set": {"a": "b"}})),
        ]
    };
    for (feature, refused) in [
        (ClusterFeature::EvictPods, [true, false, true, false, false]),
        (ClusterFeature::DeletePods, [false, true, true, false, false]),
        (ClusterFeature::ChangeNodes, [true, true, true, true, true]),
        (ClusterFeature::ViewPods, [true, true, true, false, false]),
        (ClusterFeature::ViewBudgets, [true, true, true, false, false]),
        (ClusterFeature::ViewDaemonSets, [true, true, true, false, false]),
    ] {
        let stage = without(&[feature]).await;
        for ((kind, options), refused) in kinds().into_iter().zip(refused) {
            let told = refusal(&stage, kind, options.clone()).await;
            assert_eq!(told.is_some(), refused, "{feature:?}: {kind:?} {options}");
            if let Some(told) = told {
                for part in [&feature.needs()[0].to_string(), "cluster test", feature.role()] {
                    assert!(told.contains(part), "{told}");
                }
            }
        }
        // Nobody works on what was accepted.
        assert!(stage.node("a").await.schedulable);
    }
}

#[tokio::test(start_paused = true)]
async fn several_permissions_that_are_missing_are_told_at_once_and_nothing_is_stored() {
    let stage = without(&[ClusterFeature::EvictPods, ClusterFeature::ChangeNodes]).await;
    let told = refusal(&stage, OperationKind::Drain, json!({})).await.unwrap();
    assert!(
        told.contains("patch nodes") && told.contains("create pods/eviction"),
        "{told}"
    );
    let (filter, access) = (OperationFilter::default(), Access::unlimited());
    let all = stage.operations.page(&filter, None, None, &access);
    assert_eq!(all.await.unwrap().operations, []);
}

#[tokio::test(start_paused = true)]
async fn what_was_missing_is_asked_again_before_anything_is_refused() {
    let stage = without(&[ClusterFeature::EvictPods]).await;
    assert!(refusal(&stage, OperationKind::Drain, json!({})).await.is_some());
    stage.fleet.grant(ClusterFeature::EvictPods);
    // Long before the next check.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let _replica = stage.replica("one");
    let id = stage.drain(json!({})).await;
    assert_eq!(stage.end(id).await.operation.state, OperationState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_does_not_answer_that_question_is_tried() {
    let stage = without(&[ClusterFeature::EvictPods]).await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    stage.fleet.lose();
    assert_eq!(refusal(&stage, OperationKind::Drain, json!({})).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_drain_whose_permission_went_after_it_was_accepted_leaves_the_node_alone() {
    let stage = Stage::with(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.check_permissions().await;
    let id = stage.drain(json!({})).await;
    stage.fleet.withhold(ClusterFeature::EvictPods);
    stage.check_permissions().await;
    let _replica = stage.replica("one");

    let shown = stage.end(id).await;

    let target = &shown.targets[0];
    assert_eq!(target.state, TargetState::Failed);
    let message = target.message.as_deref().unwrap();
    assert!(message.contains("kube-node-manager-evict-pods"), "{message}");
    assert!(stage.node("a").await.schedulable);
    assert_eq!(stage.pods("a").await, ["web-1"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_found_to_be_forbidden_while_it_is_done_says_what_would_help() {
    // Nothing is known, because nobody checked.
    let stage = Stage::with(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.withhold(ClusterFeature::ChangeNodes);
    let _replica = stage.replica("one");
    let labelled = stage
        .accept(request(OperationKind::Label, &["a"], json!({"set": {"a": "b"}})))
        .await;
    let shown = stage.end(labelled.unwrap().operation.id).await;
    let message = shown.targets[0].message.clone().unwrap();
    assert!(
        message.contains("the service may not patch nodes in cluster test")
            && message.contains("kube-node-manager-change-nodes"),
        "{message}"
    );
    assert_eq!(
        stage.audit().await[0].completion.as_ref().unwrap().outcome,
        AuditOutcome::Failed
    );

    stage.fleet.grant(ClusterFeature::ChangeNodes);
    stage.fleet.withhold(ClusterFeature::EvictPods);
    let shown = stage.end(stage.drain(json!({})).await).await;
    let message = shown.targets[0].message.clone().unwrap();
    assert!(
        message.contains("team/web-1") && message.contains("kube-node-manager-evict-pods"),
        "{message}"
    );
    assert_eq!(stage.pods("a").await, ["web-1"]);
    settle().await;
}
