//! Who gets an operation.

use std::time::Duration;

use futures::future::join_all;
use knm_model::{Operation, OperationLease, OperationState};
use knm_ports::Storage;
use uuid::Uuid;

use super::StorageFixture;
use super::operations::{open, operation, request};
use super::work::{AFTER_SHORT, LONG, SHORT, claim, step};

/// `claim` MUST give an operation to exactly one of several owners that want it at once.
pub async fn of_several_owners_one_gets_an_operation(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    for number in 1..=20 {
        open(store, &operation(number), &[]).await;
    }
    let owners: Vec<String> = (0..6).map(|number| format!("replica-{number}")).collect();
    let claims = owners.iter().enumerate().map(|(number, owner)| {
        let store = if number % 2 == 0 {
            &fixture.storage
        } else {
            &fixture.replica
        };
        store.work.claim(owner, LONG, 20)
    });
    let mut taken: Vec<Uuid> = Vec::new();
    for claimed in join_all(claims).await {
        taken.extend(claimed.expect("a claim").iter().map(|claim| claim.lease.operation));
    }
    // Whoever skipped what others had locked gets the rest.
    taken.extend(claim(store, "last", LONG).await.iter().map(|lease| lease.operation));
    taken.sort();
    assert_eq!(taken, (1..=20).map(Uuid::from_u128).collect::<Vec<_>>());
}

/// `claim` takes at most as many as were asked for, the oldest first.
pub async fn the_oldest_operations_are_taken_first(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    for number in [3, 1, 2] {
        open(store, &operation(number), &[]).await;
    }
    let taken = store.work.claim("one", LONG, 2).await.expect("a claim");
    let ids: Vec<_> = taken.iter().map(|claim| claim.lease.operation.as_u128()).collect();
    assert_eq!(ids, [1, 2]);
}

/// `claim` MUST give an operation whose lease ran out to another owner, or to the same one, with a higher epoch.
pub async fn an_operation_whose_lease_ran_out_is_taken_over_with_a_higher_epoch(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    open(store, &operation(1), &[]).await;
    let mut epochs = Vec::new();
    for owner in ["one", "two", "two"] {
        let taken = claim(store, owner, SHORT).await;
        assert_eq!((taken.len(), taken[0].owner.as_str()), (1, owner));
        epochs.push(taken[0].epoch);
        tokio::time::sleep(AFTER_SHORT).await;
    }
    assert!(epochs[0] < epochs[1] && epochs[1] < epochs[2], "{epochs:?}");
}

/// `claim` MUST leave operations alone whose state does not want work.
pub async fn only_operations_that_want_work_are_taken(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    for (number, state) in (1..).zip(OperationState::ALL) {
        let one = Operation {
            state,
            ..operation(number)
        };
        open(store, &one, &[]).await;
    }
    let taken = claim(store, "one", LONG).await;
    let wanted: Vec<_> = (1..)
        .zip(OperationState::ALL)
        .filter(|(_, state)| state.wants_work())
        .map(|(number, _)| Uuid::from_u128(number))
        .collect();
    assert_eq!(taken.iter().map(|lease| lease.operation).collect::<Vec<_>>(), wanted);
}

/// `claim` MUST tell of operations whose lease ran out or was handed over that they are taken over.
pub async fn what_another_owner_left_behind_is_taken_over(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    open(store, &operation(1), &[]).await;
    assert!(!takes_over(store, "one", SHORT).await.1, "nobody had it");
    tokio::time::sleep(AFTER_SHORT).await;
    let (lease, is_takeover) = takes_over(store, "two", LONG).await;
    assert!(is_takeover, "the lease ran out");
    store.work.hand_over(&[lease]).await.expect("a hand-over");
    let (lease, is_takeover) = takes_over(store, "three", LONG).await;
    assert!(is_takeover, "it was handed over");
    store.work.release(&[lease]).await.expect("a release");
    assert!(!takes_over(store, "four", LONG).await.1, "it was given back");
}

/// `claim` MUST tell of no others that they are taken over: one that was given back, or paused, is not.
pub async fn what_was_given_back_is_not_taken_over(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    open(store, &operation(1), &[]).await;
    claim(store, "one", SHORT).await;
    tokio::time::sleep(AFTER_SHORT).await;
    let (lease, is_takeover) = takes_over(store, "two", LONG).await;
    assert!(is_takeover, "the lease ran out");
    for (from, to) in [
        (OperationState::Queued, OperationState::Running),
        (OperationState::Running, OperationState::Paused),
    ] {
        step(store, &lease, |step| step.transition = Some((from, to, None))).await;
    }
    assert!(request(store, lease.operation, OperationState::Paused, OperationState::Running).await);
    assert!(!takes_over(store, "three", LONG).await.1, "it was paused and resumed");
}

/// Claims the only operation that is free: whether it is taken over.
async fn takes_over(store: &Storage, owner: &str, ttl: Duration) -> (OperationLease, bool) {
    let mut claimed = store.work.claim(owner, ttl, 100).await.expect("a claim");
    assert_eq!(claimed.len(), 1, "{claimed:?}");
    let claim = claimed.remove(0);
    (claim.lease, claim.is_takeover)
}
