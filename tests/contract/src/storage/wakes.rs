//! Wakes.

use std::time::Duration;

use futures::StreamExt;
use knm_model::{OperationLease, OperationState};
use knm_ports::{Wake, WakeStream};
use uuid::Uuid;

use super::StorageFixture;
use super::operations::{event, open, operation, request, texts};
use super::work::{claim, step};

/// How long a wake may take before the test fails: generous, because machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(60);

/// `listen` MUST tell of operations that were opened, moved because of a wish, or handed over, once that can be read.
pub async fn who_listens_is_told_of_work_once_it_can_be_read(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    let id = operation(1).id;
    let mut wakes = [store.wakes.listen(), store.wakes.listen()];

    open(store, &operation(1), &[]).await;
    for wakes in &mut wakes {
        until(wakes, Wake::Work(id)).await;
    }
    assert_eq!(store.operations.find(id).await.expect("a look-up"), Some(operation(1)));

    let taken = claim(store, "one", LONG).await;
    let mut wakes = store.wakes.listen();
    assert!(request(store, id, OperationState::Queued, OperationState::Cancelling).await);
    until(&mut wakes, Wake::Work(id)).await;
    assert_eq!(texts(store, id, 0).await, ["accepted", "cancelling"]);

    let mut wakes = store.wakes.listen();
    store.work.hand_over(&taken).await.expect("a hand-over");
    until(&mut wakes, Wake::Work(id)).await;
    assert_eq!(claim(store, "two", LONG).await.len(), 1);
}

/// `listen` MUST tell of operations of which a step was written that has events, once they can be read.
pub async fn who_listens_is_told_of_events_once_they_can_be_read(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    let id = operation(1).id;
    open(store, &operation(1), &[]).await;
    let taken = claim(store, "one", LONG).await;
    let mut wakes = store.wakes.listen();

    step(store, &taken[0], |step| step.events.push(event("something"))).await;

    until(&mut wakes, Wake::Events(id)).await;
    assert_eq!(texts(store, id, 1).await, ["something"]);
}

/// `listen` MUST tell nothing of what was not written; that something without news was written, and a lease given back, is no news.
pub async fn who_listens_is_told_nothing_of_what_was_not_written(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    for number in 1..=3 {
        open(store, &operation(number), &[]).await;
    }
    let taken = claim(store, "one", LONG).await;
    let mut wakes = store.wakes.listen();

    let again = store.operations.open(&operation(1), &[], &event("again")).await;
    assert!(again.is_err(), "the id is taken");
    assert!(!request(store, operation(2).id, OperationState::Paused, OperationState::Running).await);
    let late = OperationLease {
        epoch: 99,
        ..taken[2].clone()
    };
    step(store, &late, |step| step.events.push(event("late"))).await;
    step(store, &taken[2], |_| {}).await;
    store.work.release(&taken).await.expect("a release");

    open(store, &operation(4), &[]).await;
    let heard = until(&mut wakes, Wake::Work(operation(4).id)).await;
    let others: Vec<Wake> = heard.into_iter().filter(|wake| *wake != Wake::Missed).collect();
    assert_eq!(others, []);
}

/// `listen` MUST tell whoever listens too slowly to be told everything that something was missed.
pub async fn who_listens_too_slowly_is_told_that_something_was_missed(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    open(store, &operation(1), &[]).await;
    let mut wakes = store.wakes.listen();
    let many: Vec<OperationLease> = (0..5_000)
        .map(|number| OperationLease {
            operation: Uuid::from_u128(number),
            owner: "one".to_owned(),
            epoch: 1,
        })
        .collect();
    store.work.hand_over(&many).await.expect("a hand-over");
    open(store, &operation(9_999), &[]).await;

    let heard = until(&mut wakes, Wake::Work(operation(9_999).id)).await;

    assert!(heard.contains(&Wake::Missed) && heard.len() < 5_000, "{}", heard.len());
}

/// What is told before `expected`.
async fn until(wakes: &mut WakeStream, expected: Wake) -> Vec<Wake> {
    let mut before = Vec::new();
    let heard = async {
        while let Some(wake) = wakes.next().await {
            if wake == expected {
                return;
            }
            before.push(wake);
        }
        unreachable!("the stream ended");
    };
    let is_heard = tokio::time::timeout(PATIENCE, heard).await.is_ok();
    assert!(is_heard, "{expected:?} was never told, only {before:?}");
    before
}
