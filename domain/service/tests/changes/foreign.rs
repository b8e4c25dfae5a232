//! Cordons of others that come in between, and answers that do not arrive.

use std::time::Duration;

use knm_domain::{Asked, ChangeError, Uncordon};
use knm_model::{
    AuditOutcome, ClusterFeature, CordonSource, HOLDS_ANNOTATION, HoldRequest, HoldState, NodePatch, NotedHold,
    holds_annotation,
};
use knm_ports::{Clock, ClusterError};
use uuid::Uuid;

use crate::meddler::Meddling;
use crate::nodes::settle;
use crate::stage::{Stage, because, by, name};

#[tokio::test(start_paused = true)]
async fn a_cordon_of_somebody_else_between_plan_and_patch_stays_after_us() {
    let stage = Stage::new().await;
    stage.set_schedulable_before_patch(&[false]);

    let held = stage.cordon("ann", "disk").await;

    assert!(held.cordon.unwrap().is_over_foreign());
    assert!(stage.holds().await[0].over_foreign);
    let left = stage.uncordon("ann", Uncordon::default()).await.unwrap();
    assert_eq!(
        (left.schedulable, left.cordon.unwrap().source),
        (false, CordonSource::Foreign)
    );
}

#[tokio::test(start_paused = true)]
async fn a_cordon_of_somebody_else_that_is_lifted_between_plan_and_patch_is_not_kept_up() {
    let stage = Stage::new().await;
    stage.set_schedulable(false).await;
    stage.set_schedulable_before_patch(&[true]);

    let held = stage.cordon("ann", "disk").await;

    assert!(!held.cordon.unwrap().is_over_foreign());
    assert!(!stage.holds().await[0].over_foreign);
    assert!(stage.uncordon("ann", Uncordon::default()).await.unwrap().schedulable);
}

#[tokio::test(start_paused = true)]
async fn a_cordon_of_somebody_else_between_look_and_release_stays() {
    // Somebody uncordoned the node before, or does so in between.
    for (before, steps) in [(true, &[false][..]), (false, &[true, false][..])] {
        let stage = Stage::new().await;
        stage.cordon("ann", "disk").await;
        if before {
            stage.set_schedulable(true).await;
        }
        stage.set_schedulable_before_patch(steps);

        let left = stage.uncordon("ann", Uncordon::default()).await.unwrap();

        assert_eq!(
            (left.schedulable, left.cordon.unwrap().source),
            (false, CordonSource::Foreign)
        );
        assert_eq!(stage.holds().await, []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_could_not_be_changed_keeps_its_end() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    let request = HoldRequest {
        until: Some(stage.clock.now().plus(Duration::from_secs(60))),
        ..because("disk")
    };

    stage.meddler.with(Meddling::invalid());
    let refused = stage.changes.cordon("test", "a", request.clone(), by("ann")).await;
    assert!(matches!(refused, Err(ChangeError::Refused { .. })), "{refused:?}");
    // The node changes, and the caller knows only the state before.
    stage.set_schedulable_before_patch(&[false]);
    let known = Asked {
        known: Some(vec![stage.node().await.version()]),
        ..by("ann")
    };
    let stale = stage.changes.cordon("test", "a", request, known).await;
    assert!(matches!(stale, Err(ChangeError::Stale { .. })), "{stale:?}");

    let holds = stage.holds().await;
    assert_eq!(
        (holds.len(), holds[0].until, holds[0].state),
        (1, None, HoldState::Active)
    );
}

#[tokio::test(start_paused = true)]
async fn a_cordon_that_is_repeated_because_nobody_knew_holds() {
    let stage = Stage::new().await;
    stage.meddler.with(Meddling::Lost);
    let unknown = stage
        .changes
        .cordon("test", "a", because("disk"), by("ann"))
        .await
        .unwrap_err();
    assert!(unknown.is_uncertain(), "{unknown:?}");
    assert_eq!(stage.holds().await[0].state, HoldState::Pending);
    settle().await;

    stage.cordon("ann", "disk").await;

    let holds = stage.holds().await;
    assert_eq!((holds.len(), holds[0].state), (1, HoldState::Active));
    let outcomes: Vec<_> = stage.audit().await.iter().map(|record| record.outcome()).collect();
    assert_eq!(outcomes, [Some(AuditOutcome::Succeeded), Some(AuditOutcome::Unknown)]);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_could_not_be_asked_leaves_no_doubt() {
    let stage = Stage::new().await;
    stage.fleet.lose();

    let failed = stage
        .changes
        .cordon("test", "a", because("disk"), by("ann"))
        .await
        .unwrap_err();

    assert!(!failed.is_uncertain(), "{failed:?}");
    assert_eq!(stage.audit().await[0].outcome(), Some(AuditOutcome::Failed));
    assert_eq!(stage.holds().await, []);
}

#[tokio::test(start_paused = true)]
async fn what_a_policy_forbids_is_told_in_the_words_of_the_cluster_and_what_rules_forbid_with_the_role() {
    let stage = Stage::new().await;
    let forbidden = |action| {
        Meddling::Refused(ClusterError::Forbidden {
            action,
            message: "the webhook guard says: not today".to_owned(),
        })
    };

    stage.meddler.with(forbidden(None));
    let refused = stage.changes.cordon("test", "a", because("disk"), by("ann")).await;
    let Err(error @ ChangeError::Refused { .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        error.to_string(),
        "cluster test refuses the change: the webhook guard says: not today"
    );

    stage
        .meddler
        .with(forbidden(Some(ClusterFeature::ChangeNodes.needs()[0])));
    let refused = stage.changes.cordon("test", "a", because("disk"), by("ann")).await;
    let Err(ChangeError::Inventory(error)) = refused else {
        panic!("{refused:?}");
    };
    let told = error.refusal().unwrap();
    assert!(told.contains("kube-node-manager-change-nodes"), "{told}");
}

/// Puts the store back to a state before the hold of `bob`, which only the node tells of.
async fn hold_without_the_store(stage: &Stage) -> NotedHold {
    let hold = NotedHold {
        id: Some(Uuid::from_u128(77)),
        by: Some("bob".to_owned()),
        reason: Some("broken".to_owned()),
        ..NotedHold::default()
    };
    let patch = NodePatch {
        schedulable: Some(false),
        annotations: [(HOLDS_ANNOTATION.to_owned(), holds_annotation([hold.clone()]))].into(),
        ..NodePatch::default()
    };
    stage.fleet.gateway().patch_node(&name(), &patch, false).await.unwrap();
    settle().await;
    hold
}

#[tokio::test(start_paused = true)]
async fn a_hold_of_which_only_the_node_tells_keeps_it_cordoned_when_another_one_runs_out() {
    let stage = Stage::new().await;
    let request = HoldRequest {
        until: Some(stage.clock.now().plus(Duration::from_secs(60))),
        ..because("disk")
    };
    stage.changes.cordon("test", "a", request, by("ann")).await.unwrap();
    let hold = hold_without_the_store(&stage).await;

    stage.clock.advance(Duration::from_secs(60));
    stage.keep(1).await;

    assert_eq!(stage.holds().await, []);
    let node = stage.node().await;
    assert_eq!((node.schedulable, node.cordon.unwrap().holds), (false, vec![hold]));
    let force = Uncordon {
        force: true,
        ..Uncordon::default()
    };
    let freed = stage.uncordon("ann", force).await.unwrap();
    assert_eq!((freed.schedulable, freed.cordon), (true, None));
}

#[tokio::test(start_paused = true)]
async fn a_hold_of_which_only_the_node_tells_stays_beside_others() {
    let stage = Stage::new().await;
    let hold = hold_without_the_store(&stage).await;

    let held = stage.cordon("ann", "disk").await.cordon.unwrap();
    let by: Vec<_> = held.holds.iter().map(|hold| hold.by.as_deref()).collect();
    assert_eq!(by, [Some("ann"), Some("bob")]);

    let left = stage.uncordon("ann", Uncordon::default()).await.unwrap();
    assert_eq!((left.schedulable, left.cordon.unwrap().holds), (false, vec![hold]));
}
