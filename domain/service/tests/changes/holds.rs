//! Cordons that hold.

use std::sync::Arc;
use std::time::Duration;

use knm_domain::{ChangeError, NodeChanges, Uncordon};
use knm_model::{ActorKind, AuditAction, AuditOutcome, CordonSource, Hold, HoldRequest, HoldState, Timestamp};
use knm_ports::{Clock, IdSource};
use tokio_util::sync::CancellationToken;

use crate::nodes::settle;
use crate::stage::{LEASE, LOOK, Stage, by, name};

/// After so many looks a hold on a node that is schedulable is over: a release may have been interrupted before.
const PATIENCE: u32 = 4;

#[tokio::test(start_paused = true)]
async fn a_node_is_schedulable_again_when_its_last_hold_is_released() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    let held = stage.cordon("bob", "kernel").await;
    let cordon = held.cordon.unwrap();
    assert_eq!(cordon.source, CordonSource::KubeNodeManager);
    let noted: Vec<_> = cordon.holds.iter().map(|hold| hold.by.as_deref().unwrap()).collect();
    assert_eq!(noted, ["ann", "bob"]);

    let after_ann = stage.uncordon("ann", Uncordon::default()).await.unwrap();
    assert!(!after_ann.schedulable);
    assert_eq!(after_ann.cordon.unwrap().by.as_deref(), Some("bob"));

    let after_bob = stage.uncordon("bob", Uncordon::default()).await.unwrap();
    assert_eq!((after_bob.schedulable, after_bob.cordon), (true, None));
    assert_eq!(stage.holds().await, []);
}

#[tokio::test(start_paused = true)]
async fn holds_of_others_are_released_by_name_or_force_only() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    stage.cordon("bob", "kernel").await;

    let refused = stage.uncordon("eve", Uncordon::default()).await;
    let Err(ChangeError::HeldByOthers { holders, .. }) = refused else {
        unreachable!("{refused:?}");
    };
    assert_eq!(holders, ["ann (disk)", "bob (kernel)"]);

    let ann = stage.holds().await[0].id;
    let named = Uncordon {
        hold: Some(ann),
        ..Uncordon::default()
    };
    assert!(!stage.uncordon("eve", named.clone()).await.unwrap().schedulable);
    let gone = stage.uncordon("eve", named).await;
    assert!(matches!(gone, Err(ChangeError::UnknownHold { .. })), "{gone:?}");

    let force = Uncordon {
        force: true,
        ..Uncordon::default()
    };
    assert!(stage.uncordon("eve", force).await.unwrap().schedulable);
    assert_eq!(stage.holds().await, []);
}

#[tokio::test(start_paused = true)]
async fn the_same_hold_again_only_gets_another_end() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    let until = Timestamp::parse("2030-02-01T00:00:00Z").ok();
    let request = HoldRequest {
        reason: "disk".to_owned(),
        ticket: None,
        until,
    };

    let changed = stage.changes.cordon("test", "a", request, by("ann")).await.unwrap();

    let holds = stage.holds().await;
    assert_eq!((holds.len(), holds[0].until), (1, until));
    let noted = changed.node.cordon.unwrap().holds;
    assert_eq!((noted.len(), noted[0].until), (1, until));
}

#[tokio::test(start_paused = true)]
async fn what_was_cordoned_before_us_stays_cordoned_after_us() {
    let stage = Stage::new().await;
    stage.set_schedulable(false).await;

    let refused = stage.uncordon("ann", Uncordon::default()).await;
    assert!(matches!(refused, Err(ChangeError::Foreign { .. })), "{refused:?}");

    stage.cordon("ann", "disk").await;
    stage.cordon("bob", "kernel").await;
    stage.uncordon("ann", Uncordon::default()).await.unwrap();
    let left = stage.uncordon("bob", Uncordon::default()).await.unwrap();
    assert!(!left.schedulable);
    assert_eq!(left.cordon.unwrap().source, CordonSource::Foreign);

    let force = Uncordon {
        force: true,
        ..Uncordon::default()
    };
    assert!(stage.uncordon("ann", force).await.unwrap().schedulable);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_could_not_be_brought_onto_the_node_is_gone() {
    let stage = Stage::new().await;
    stage.fleet.delete_node(&name());
    let request = HoldRequest {
        reason: "disk".to_owned(),
        ticket: None,
        until: None,
    };
    let outcome = stage.changes.cordon("test", "a", request, by("ann")).await;
    assert!(outcome.is_err());
    assert_eq!(stage.holds().await, []);
}

#[tokio::test(start_paused = true)]
async fn holds_that_ran_out_are_released() {
    let stage = Stage::new().await;
    let request = HoldRequest {
        reason: "disk".to_owned(),
        ticket: Some("OPS-1".to_owned()),
        until: Some(stage.clock.now().plus(Duration::from_secs(60))),
    };
    stage.changes.cordon("test", "a", request, by("ann")).await.unwrap();
    settle().await;

    stage.keep(2).await;
    assert!(!stage.node().await.schedulable);
    stage.clock.advance(Duration::from_secs(60));
    stage.keep(1).await;

    assert!(stage.node().await.schedulable);
    assert_eq!(stage.holds().await, []);
    let record = &stage.audit().await[0];
    assert_eq!(
        (record.action, record.actor.kind),
        (AuditAction::NodeUncordon, ActorKind::Service)
    );
    assert!(record.reason.as_ref().unwrap().contains("ann"), "{record:?}");
    assert_eq!(record.completion.as_ref().unwrap().outcome, AuditOutcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_cannot_be_released_is_not_tried_at_every_look() {
    let stage = Stage::new().await;
    let request = HoldRequest {
        reason: "disk".to_owned(),
        ticket: None,
        until: Some(stage.clock.now().plus(Duration::from_secs(1))),
    };
    stage.changes.cordon("test", "a", request, by("ann")).await.unwrap();
    settle().await;
    stage.clock.advance(Duration::from_secs(60));
    // Unreachable clusters are left alone altogether.
    stage.fleet.lose();
    settle().await;
    stage.keep(5).await;
    assert_eq!(stage.audit().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn somebody_who_uncordons_by_kubectl_ends_the_holds() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    stage.set_schedulable(true).await;

    stage.keep(PATIENCE).await;

    assert!(stage.node().await.schedulable, "nobody fights");
    assert_eq!(stage.holds().await, []);
    let record = &stage.audit().await[0];
    assert_eq!(
        (record.action, record.actor.kind),
        (AuditAction::NodeUncordon, ActorKind::Outside)
    );
    // Whoever cordons it next without us has nothing to do with the old hold.
    stage.set_schedulable(false).await;
    assert_eq!(stage.node().await.cordon.unwrap().source, CordonSource::Foreign);
}

#[tokio::test(start_paused = true)]
async fn a_new_hold_does_not_bring_back_those_that_kubectl_ended() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    stage.set_schedulable(true).await;

    let held = stage.cordon("bob", "kernel").await;

    let noted = held.cordon.unwrap().holds;
    assert_eq!((noted.len(), noted[0].by.as_deref()), (1, Some("bob")));
    assert_eq!(stage.holds().await.len(), 1);
    assert!(stage.uncordon("bob", Uncordon::default()).await.unwrap().schedulable);
}

#[tokio::test(start_paused = true)]
async fn the_holds_of_a_node_that_is_gone_end() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    stage.fleet.delete_node(&name());
    settle().await;

    stage.keep(PATIENCE).await;

    assert_eq!(stage.holds().await, []);
    assert_eq!(stage.audit().await[0].actor.kind, ActorKind::Outside);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_cordon_is_settled_by_what_stands_on_the_node() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    let noted = stage.holds().await[0].clone();
    let pending = |id| Hold {
        id,
        state: HoldState::Pending,
        ..noted.clone()
    };
    let storage = knm_storage_memory::open();
    storage.holds.add(&pending(noted.id)).await.unwrap();
    let other = stage.ids.next(stage.clock.now());
    storage.holds.add(&pending(other)).await.unwrap();
    let changes = NodeChanges::new(
        Arc::clone(&stage.inventory),
        Arc::clone(&storage.audit),
        Arc::clone(&storage.holds),
        stage.clock.clone(),
        stage.ids.clone(),
    );

    let keep = || {
        let leases = Arc::clone(&storage.leases);
        Arc::clone(&changes).keep_holds(leases, "keeper".to_owned(), LEASE, CancellationToken::new())
    };
    let _ = tokio::time::timeout(LOOK * 2, keep()).await;
    assert_eq!(
        storage.holds.unended().await.unwrap().len(),
        2,
        "its maker may still be at it"
    );
    stage.clock.advance(Duration::from_secs(61));
    let _ = tokio::time::timeout(LOOK * 2, keep()).await;

    let left = storage.holds.unended().await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].id, left[0].state), (noted.id, HoldState::Active));
}

#[tokio::test(start_paused = true)]
async fn only_the_keeper_looks_after_holds() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    stage.set_schedulable(true).await;
    let leases = Arc::clone(&stage.storage.leases);
    let day = Duration::from_secs(24 * 3600);
    assert!(leases.hold("cordon-holds", "another replica", day).await.unwrap());
    let other = Arc::clone(&stage.changes).keep_holds(leases, "keeper".to_owned(), LEASE, CancellationToken::new());
    let _ = tokio::time::timeout(LOOK * 10, other).await;
    assert_eq!(stage.holds().await.len(), 1);
}
