//! Who looks after the holds.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use knm_domain::{NodeChanges, describe_metrics};
use knm_model::{
    ActorKind, AuditAction, AuditOutcome, CordonSource, HOLDS_ANNOTATION, Hold, HoldChange, HoldRequest, HoldState,
    NodePatch, NotedHold, holds_annotation,
};
use knm_ports::{Clock, IdSource, MockCordonHolds, StorageError};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio_util::sync::CancellationToken;

use crate::meddler::Meddling;
use crate::nodes::settle;
use crate::rivals::{Call, Meddled};
use crate::stage::{LEASE, LOOK, Stage, because, by, name};

/// After so many looks a hold on a node that is schedulable is over: a release may have been interrupted before.
const PATIENCE: u32 = 4;

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

#[tokio::test(start_paused = true)]
async fn a_release_that_was_interrupted_is_left_to_whoever_takes_it_over() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    // What is left of an operation that was killed before it could write down that it released the hold.
    stage.set_schedulable(true).await;
    assert!(LEASE < LOOK * (PATIENCE - 1));

    stage.keep(PATIENCE - 1).await;

    assert_eq!(stage.holds().await.len(), 1);
    assert_eq!(stage.audit().await.len(), 1, "nobody says that it was done without us");
}

#[tokio::test(start_paused = true)]
async fn a_cordon_of_somebody_else_survives_the_note_that_is_taken_off() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    let note = holds_annotation(stage.holds().await.iter().map(NotedHold::from));
    stage.set_schedulable(true).await;
    // The keeper saw it schedulable, and will find it cordoned. Whoever uses kubectl leaves our annotation as it is.
    let patch = NodePatch {
        schedulable: Some(false),
        annotations: [(HOLDS_ANNOTATION.to_owned(), note)].into(),
        ..NodePatch::default()
    };
    let gateway = stage.fleet.gateway();
    let cordon = async move {
        gateway.patch_node(&name(), &patch, false).await.unwrap();
    };
    stage.meddler.with(Meddling::Before(cordon.boxed()));

    stage.keep(PATIENCE).await;

    let node = stage.node().await;
    assert_eq!(node.cordon.unwrap().source, CordonSource::Foreign);
    assert_eq!(stage.holds().await, []);
}

/// A request that ends in a minute.
fn for_a_minute(stage: &Stage) -> HoldRequest {
    HoldRequest {
        until: Some(stage.clock.now().plus(Duration::from_secs(60))),
        ..because("disk")
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_got_another_end_since_the_round_began_is_kept() {
    let stage = Stage::new().await;
    let request = for_a_minute(&stage);
    stage.changes.cordon("test", "a", request, by("ann")).await.unwrap();
    settle().await;
    stage.clock.advance(Duration::from_secs(60));
    let holds = Arc::clone(&stage.storage.holds);
    let later = Some(stage.clock.now().plus(Duration::from_secs(60)));
    let prolong = async move {
        let id = holds.unended().await.unwrap()[0].id;
        assert!(holds.change(id, &HoldChange::Until(later)).await.unwrap());
    };
    let changes = stage.changes_with(Meddled::at(&stage, Call::Unended, prolong.boxed()));

    stage.keep_with(&changes, 1).await;

    assert_eq!(stage.holds().await[0].until, later);
    assert!(!stage.node().await.schedulable);
    assert_eq!(stage.audit().await.len(), 1, "nothing was tried");
}

#[tokio::test(start_paused = true)]
async fn a_keeper_that_lost_its_lease_in_the_middle_of_a_round_changes_nothing() {
    let stage = Stage::new().await;
    let request = for_a_minute(&stage);
    stage.changes.cordon("test", "a", request, by("ann")).await.unwrap();
    settle().await;
    stage.clock.advance(Duration::from_secs(60));
    let leases = Arc::clone(&stage.storage.leases);
    let day = Duration::from_secs(24 * 3600);
    let lose = async move {
        leases.release("cordon-holds", "keeper").await.unwrap();
        assert!(leases.hold("cordon-holds", "another replica", day).await.unwrap());
    };
    let changes = stage.changes_with(Meddled::at(&stage, Call::Unended, lose.boxed()));

    stage.keep_with(&changes, 1).await;

    assert_eq!(stage.holds().await.len(), 1);
    assert!(!stage.node().await.schedulable);
}

#[tokio::test(start_paused = true)]
async fn what_was_cordoned_before_stays_so_though_only_the_node_tells_of_it() {
    let stage = Stage::new().await;
    stage.set_schedulable(false).await;
    stage.cordon("ann", "disk").await;
    // What is left of a cordon whose maker was killed after the patch.
    let made = stage.holds().await[0].clone();
    let pending = Hold {
        over_foreign: false,
        state: HoldState::Pending,
        ..made.clone()
    };
    let storage = knm_storage_memory::open();
    storage.holds.add(&pending).await.unwrap();
    let changes = stage.changes_with(Arc::clone(&storage.holds));
    stage.clock.advance(Duration::from_secs(61));

    stage.keep_with(&changes, 1).await;

    assert_eq!(storage.holds.unended().await.unwrap(), [made]);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_cannot_be_told_is_counted_and_told_later() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _shown = metrics::set_default_local_recorder(&recorder);
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    stage.set_schedulable(true).await;
    let held = stage.holds().await;
    let mut holds = MockCordonHolds::new();
    let found = held.clone();
    holds.expect_unended().returning(move || Ok(found.clone()));
    holds.expect_of_node().returning(move |_, _| Ok(held.clone()));
    let away = || StorageError::Unavailable { source: "away".into() };
    holds.expect_change().times(2).returning(move |_, _| Err(away()));
    let changes = stage.changes_with(Arc::new(holds));

    stage.keep_with(&changes, PATIENCE + 1).await;

    let text = recorder.handle().render();
    assert!(text.contains("kube_node_manager_audit_failures_total 2\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_looks_after_holds_no_more_shows_none() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _shown = metrics::set_default_local_recorder(&recorder);
    describe_metrics();
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    let count = |state: &str| {
        let series = format!("kube_node_manager_cordon_holds{{state=\"{state}\"}} ");
        let text = recorder.handle().render();
        let line = text.lines().find_map(|line| line.strip_prefix(&series));
        line.map(str::to_owned)
    };
    let leases = Arc::clone(&stage.storage.leases);
    let shutdown = stage.shutdown.child_token();
    let keeper = Arc::clone(&stage.changes).keep_holds(Arc::clone(&leases), "keeper".to_owned(), LEASE, shutdown);
    let rival = async {
        tokio::time::sleep(LOOK / 2).await;
        assert_eq!(
            (count("pending").as_deref(), count("active").as_deref()),
            (Some("0"), Some("1"))
        );
        leases.release("cordon-holds", "keeper").await.unwrap();
        let day = Duration::from_secs(24 * 3600);
        assert!(leases.hold("cordon-holds", "another replica", day).await.unwrap());
        tokio::time::sleep(LOOK).await;
    };

    tokio::select! {
        () = keeper => unreachable!("nobody ends it"),
        () = rival => {}
    }

    assert_eq!(
        (count("pending").as_deref(), count("active").as_deref()),
        (Some("0"), Some("0"))
    );
}
