//! Operations that ended long ago are removed, by one replica.

use std::sync::Arc;
use std::time::Duration;

use knm_domain::{OperationError, OperationKeeper};
use knm_model::{AuditOutcome, OperationKind, Wish};
use knm_ports::{Clock, Leases, ManualClock, MockLeases, MockOperations, Operations, StorageError};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::stage::{Stage, asker, budget, pod, request};

const KEPT: Duration = Duration::from_secs(600);

fn keeper(operations: Arc<dyn Operations>, leases: Arc<dyn Leases>, clock: Arc<dyn Clock>) -> OperationKeeper {
    OperationKeeper {
        operations,
        leases,
        clock,
        owner: "keeper".to_owned(),
        retention: KEPT,
    }
}

/// Leases that this replica gets.
fn ours() -> Arc<MockLeases> {
    let mut leases = MockLeases::new();
    leases.expect_hold().returning(|_, _, _| Ok(true));
    Arc::new(leases)
}

/// Lets `keeper` work for half a minute, which is one round.
async fn one_round(keeper: OperationKeeper) {
    let round = keeper.keep(CancellationToken::new());
    assert!(
        tokio::time::timeout(Duration::from_secs(30), round).await.is_err(),
        "it goes on"
    );
}

/// Cordons node `a`.
async fn done(stage: &Stage) -> Uuid {
    let mut cordon = request(OperationKind::Cordon, &["a"], json!({}));
    cordon.reason = Some("disk".to_owned());
    let id = stage.accept(cordon).await.unwrap().operation.id;
    stage.end(id).await;
    id
}

#[tokio::test(start_paused = true)]
async fn what_ended_long_ago_is_gone_but_for_its_audit_records() {
    let stage = Stage::with(&["a", "b"]).await;
    stage.fleet.put_pod(pod("web-1", "b"));
    stage.fleet.put_budget(budget(0));
    let _replica = stage.replica("one");
    let old = done(&stage).await;
    let blocked = request(OperationKind::Drain, &["b"], json!({}));
    let blocked = stage.accept(blocked).await.unwrap().operation.id;
    tokio::time::sleep(KEPT / 2).await;
    let recent = done(&stage).await;
    let clock = ManualClock::at("2030-01-01T00:00:00Z");
    clock.advance(KEPT + KEPT / 4);
    let storage = &stage.storage;

    one_round(keeper(
        Arc::clone(&storage.operations),
        Arc::clone(&storage.leases),
        clock,
    ))
    .await;

    let found = stage.operations.find(old).await;
    assert!(
        matches!(found, Err(OperationError::Unknown { id }) if id == old),
        "{found:?}"
    );
    let again = stage.operations.retry(old, asker(), None).await;
    assert!(matches!(again, Err(OperationError::Unknown { .. })), "{again:?}");
    let wished = stage.operations.wish(old, Wish::Cancel, &asker()).await;
    assert!(matches!(wished, Err(OperationError::Unknown { .. })), "{wished:?}");
    assert_eq!(stage.events(old).await, []);
    stage.shown(blocked).await;
    stage.shown(recent).await;
    let audit = stage.audit().await;
    let kept = audit.iter().find(|record| record.operation == Some(old)).unwrap();
    assert_eq!(kept.outcome(), Some(AuditOutcome::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn batch_by_batch_goes_until_nothing_is_left() {
    let clock = ManualClock::at("2030-01-03T00:00:00Z");
    let limit = clock.now().minus(KEPT);
    let mut operations = MockOperations::new();
    let mut left = 45;
    operations
        .expect_remove_ended_before()
        .times(3)
        .withf(move |at, _| *at == limit)
        .returning(move |_, limit| {
            let removed = left.min(u64::from(limit));
            left -= removed;
            Ok(removed)
        });
    one_round(keeper(Arc::new(operations), ours(), clock)).await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_takes_too_long_is_removed_one_by_one() {
    let mut operations = MockOperations::new();
    let mut answers = vec![Ok(0), Ok(1), Ok(1), Err(())];
    operations
        .expect_remove_ended_before()
        .times(4)
        .withf(|_, limit| [1, 20].contains(limit))
        .returning(move |_, limit| {
            let answer = answers.pop().unwrap();
            assert_eq!(limit == 1, answer.is_ok());
            answer.map_err(|()| StorageError::TimedOut { limit: KEPT })
        });
    let clock = ManualClock::at("2030-01-03T00:00:00Z");
    one_round(keeper(Arc::new(operations), ours(), clock)).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_without_the_lease_removes_nothing() {
    let mut leases = MockLeases::new();
    leases.expect_hold().times(1..).returning(|_, _, _| Ok(false));
    // Any call panics.
    let operations = Arc::new(MockOperations::new());
    let clock = ManualClock::at("2030-01-03T00:00:00Z");
    one_round(keeper(operations, Arc::new(leases), clock)).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_loses_the_lease_leaves_the_rest_to_others() {
    let mut leases = MockLeases::new();
    let mut answers = vec![false, true];
    leases
        .expect_hold()
        .times(2)
        .returning(move |_, _, _| Ok(answers.pop().unwrap()));
    let mut operations = MockOperations::new();
    operations
        .expect_remove_ended_before()
        .once()
        .returning(|_, limit| Ok(u64::from(limit)));
    let clock = ManualClock::at("2030-01-03T00:00:00Z");
    one_round(keeper(Arc::new(operations), Arc::new(leases), clock)).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_ends_gives_the_lease_to_others() {
    let mut leases = MockLeases::new();
    leases.expect_hold().once().returning(|_, _, _| Ok(true));
    leases
        .expect_release()
        .once()
        .withf(|name, owner| (name, owner) == ("operation-keeper", "keeper"))
        .returning(|_, _| Ok(()));
    let mut operations = MockOperations::new();
    operations.expect_remove_ended_before().once().returning(|_, _| Ok(0));
    let shutdown = CancellationToken::new();
    let clock = ManualClock::at("2030-01-03T00:00:00Z");
    let keeping = tokio::spawn(keeper(Arc::new(operations), Arc::new(leases), clock).keep(shutdown.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    shutdown.cancel();
    keeping.await.unwrap();
}
