//! The holds of operations.

use std::sync::Arc;

use futures::FutureExt;
use knm_model::{
    ActorKind, AuditOutcome, CordonSource, HoldState, NodePatch, OperationKind, OperationState, Timestamp,
};
use serde_json::json;

use crate::meddler::{Meddler, Meddling};
use crate::nodes::settle;
use crate::stage::{Stage, node_name, pod, request};
use crate::through::through;

/// A cluster with the node `a`, and who meddles with its patches.
async fn meddled() -> (Stage, Arc<Meddler>) {
    let mut meddler = None;
    let stage = Stage::seen_through(&["a"], false, |gateway| {
        let made = Meddler::new(gateway);
        meddler = Some(Arc::clone(&made));
        through(made)
    });
    let stage = stage.await;
    (stage, meddler.unwrap())
}

/// Somebody with kubectl who does one after the other before the next patch arrives.
fn set_schedulable_before_patch(stage: &Stage, meddler: &Meddler, steps: &'static [bool]) {
    let gateway = stage.fleet.gateway();
    let work = async move {
        for schedulable in steps {
            let patch = NodePatch {
                schedulable: Some(*schedulable),
                ..NodePatch::default()
            };
            gateway.patch_node(&node_name("a"), &patch, false).await.unwrap();
        }
    };
    meddler.with(Meddling::Before(work.boxed()));
}

#[tokio::test(start_paused = true)]
async fn drains_of_the_same_node_hold_it_each_for_itself() {
    let stage = Stage::with(&["a"]).await;
    let _replica = stage.replica("one");
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_pod(pod("web-2", "a"));

    let mut holds = Vec::new();
    for _ in 0..2 {
        let drain = stage.drain(json!({})).await;
        let shown = stage.end(drain).await;
        assert_eq!(shown.operation.state, OperationState::Succeeded, "{shown:?}");
        holds.extend(shown.targets[0].hold);
    }

    assert_ne!(holds[0], holds[1]);
    let stored: Vec<_> = stage.holds().await.iter().map(|hold| (hold.id, hold.state)).collect();
    holds.sort();
    assert_eq!(stored, [(holds[0], HoldState::Active), (holds[1], HoldState::Active)]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_leaves_a_hold_of_the_same_reason_alone() {
    let stage = Stage::with(&["a"]).await;
    let _replica = stage.replica("one");
    let mut cordon = request(OperationKind::Cordon, &["a"], json!({"until": "2030-02-01T00:00:00Z"}));
    cordon.reason = Some("drain".to_owned());
    let cordon = stage.accept(cordon).await.unwrap().operation.id;
    stage.end(cordon).await;
    let before = stage.holds().await;

    let drain = stage.drain(json!({})).await;
    stage.end(drain).await;

    let after = stage.holds().await;
    assert_eq!((before.len(), after.len()), (1, 2));
    assert_eq!(after[0], before[0]);
}

#[tokio::test(start_paused = true)]
async fn the_same_cordon_again_only_gets_another_end_once_it_is_on_the_node() {
    let (stage, meddler) = meddled().await;
    let _replica = stage.replica("one");
    let cordon = |options| {
        let mut cordon = request(OperationKind::Cordon, &["a"], options);
        cordon.reason = Some("disk".to_owned());
        cordon
    };
    let first = stage.accept(cordon(json!({}))).await.unwrap().operation.id;
    stage.end(first).await;

    meddler.with(Meddling::invalid());
    let until = json!({"until": "2030-02-01T00:00:00Z"});
    let refused = stage.accept(cordon(until.clone())).await.unwrap().operation.id;
    assert_eq!(stage.end(refused).await.operation.state, OperationState::Failed);
    let holds = stage.holds().await;
    assert_eq!(
        (holds.len(), holds[0].until, holds[0].state),
        (1, None, HoldState::Active)
    );

    let again = stage.accept(cordon(until)).await.unwrap().operation.id;
    assert_eq!(stage.end(again).await.operation.state, OperationState::Succeeded);
    let (until, holds) = (Timestamp::parse("2030-02-01T00:00:00Z").ok(), stage.holds().await);
    assert_eq!((holds.len(), holds[0].until), (1, until));
    assert_eq!(stage.node("a").await.cordon.unwrap().holds[0].until, until);
}

#[tokio::test(start_paused = true)]
async fn a_cordon_of_somebody_else_that_comes_in_between_stays_after_a_drain() {
    let (stage, meddler) = meddled().await;
    let _replica = stage.replica("one");
    set_schedulable_before_patch(&stage, &meddler, &[false]);

    let mut drain = request(OperationKind::Drain, &["a"], json!({}));
    drain.strategy.uncordon_after = Some("on_ready".to_owned());
    let drain = stage.accept(drain).await.unwrap().operation.id;

    assert_eq!(stage.end(drain).await.operation.state, OperationState::Succeeded);
    let cordon = stage.node("a").await.cordon.unwrap();
    assert_eq!(cordon.source, CordonSource::Foreign);
    assert_eq!(stage.holds().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_drain_tells_once_of_holds_that_somebody_else_ended() {
    let stage = Stage::with(&["a"]).await;
    let _replica = stage.replica("one");
    let mut cordon = request(OperationKind::Cordon, &["a"], json!({}));
    cordon.reason = Some("disk".to_owned());
    let cordon = stage.accept(cordon).await.unwrap().operation.id;
    stage.end(cordon).await;
    stage.set_schedulable("a", true).await;

    let drain = stage.drain(json!({})).await;
    stage.end(drain).await;

    let holds = stage.holds().await;
    assert_eq!((holds.len(), holds[0].reason.as_str()), (1, "drain"));
    let audit = stage.audit().await;
    let outside: Vec<_> = audit
        .iter()
        .filter(|record| record.actor.kind == ActorKind::Outside)
        .collect();
    assert_eq!(outside.len(), 1, "{audit:?}");
    assert_eq!(outside[0].outcome(), Some(AuditOutcome::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_somebody_ends_before_it_is_on_the_node_is_made_anew() {
    let (stage, meddler) = meddled().await;
    let _replica = stage.replica("one");
    let (holds, clock) = (Arc::clone(&stage.storage.holds), Arc::clone(&stage.clock));
    let end = async move {
        let id = holds.unended().await.unwrap()[0].id;
        assert!(holds.advance(id, HoldState::Ended, clock.now()).await.unwrap());
    };
    meddler.with(Meddling::Before(end.boxed()));

    let drain = stage.drain(json!({})).await;

    let shown = stage.end(drain).await;
    assert_eq!(shown.operation.state, OperationState::Succeeded, "{shown:?}");
    let holds = stage.holds().await;
    assert_eq!(
        (holds.len(), holds[0].state, holds[0].over_foreign),
        (1, HoldState::Active, false)
    );
    let noted: Vec<_> = stage
        .node("a")
        .await
        .cordon
        .unwrap()
        .holds
        .iter()
        .map(|hold| hold.id)
        .collect();
    assert_eq!(noted, [Some(holds[0].id)]);
}

#[tokio::test(start_paused = true)]
async fn the_difference_is_told_though_the_answer_to_the_change_was_lost() {
    let (stage, meddler) = meddled().await;
    let _replica = stage.replica("one");
    for (kind, options, before, after) in [
        (
            OperationKind::Label,
            json!({"set": {"team": "web"}}),
            json!({"labels": {"team": null}}),
            json!({"labels": {"team": "web"}}),
        ),
        (
            OperationKind::Taint,
            json!({"add": [{"key": "team", "effect": "NoSchedule"}]}),
            json!({"taints": []}),
            json!({"taints": ["team=:NoSchedule"]}),
        ),
        (
            OperationKind::ApplyTemplate,
            json!({"template": "gpu", "version": 1, "confirm_no_execute": false, "content": {"labels": {"pool": "gpu"}}}),
            json!({"labels": {"pool": null}}),
            json!({"labels": {"pool": "gpu"}}),
        ),
        (
            OperationKind::Cordon,
            json!({}),
            json!({"holds": [], "schedulable": true}),
            json!({"holds": [{"by": "ann", "reason": "disk", "ticket": null}], "schedulable": false}),
        ),
        (
            OperationKind::Uncordon,
            json!({}),
            json!({"holds": [{"by": "ann", "reason": "disk", "ticket": null}], "schedulable": false}),
            json!({"holds": [], "schedulable": true}),
        ),
    ] {
        let mut wanted = request(kind, &["a"], options);
        wanted.reason = Some("disk".to_owned());
        meddler.with(Meddling::Lost);

        let id = stage.accept(wanted).await.unwrap().operation.id;

        let shown = stage.end(id).await;
        assert_eq!(shown.operation.state, OperationState::Succeeded, "{shown:?}");
        let completion = stage.audit().await[0].completion.clone().unwrap();
        assert_eq!(
            (json!(completion.before), json!(completion.after)),
            (before, after),
            "{kind:?}"
        );
        settle().await;
    }
}
