//! Operations that were asked for by a request that may be sent again.

use futures::future::join_all;
use knm_model::{Operation, OperationFilter, OperationKind};
use knm_ports::StorageError;

use super::StorageFixture;
use super::operations::{event, open, operation, page, target, texts, time};

/// `open` MUST return `Conflict` if the same request opened another operation, and leave that one as it was.
pub async fn a_request_opens_one_operation(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    open(store, &asked(1, 7), &[]).await;
    open(store, &asked(2, 8), &[]).await;
    // Without a request there is nothing to keep apart.
    for number in [3, 4] {
        open(store, &operation(number), &[]).await;
    }
    let again = [&fixture.storage, &fixture.replica].map(|store| async move {
        let again = Operation {
            kind: OperationKind::Label,
            ..asked(5, 7)
        };
        store.operations.open(&again, &[target(0, "a")], &event("again")).await
    });
    for answer in join_all(again).await {
        assert!(matches!(answer, Err(StorageError::Conflict { .. })), "{answer:?}");
    }
    let of_request = OperationFilter {
        idempotency: asked(1, 7).idempotency,
        ..OperationFilter::default()
    };
    assert_eq!(page(store, &of_request, None, 9).await, [1]);
    assert_eq!(page(store, &OperationFilter::default(), None, 9).await, [4, 3, 2, 1]);
    assert_eq!(texts(store, asked(1, 7).id, 0).await, ["accepted"]);
}

/// `open` MUST return `Conflict` if the same request opened another operation, also if both are opened at once.
pub async fn of_two_operations_for_one_request_one_is_opened(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    let opened = (1..=6).map(|number| {
        let store = if number % 2 == 0 {
            &fixture.storage
        } else {
            &fixture.replica
        };
        async move { store.operations.open(&asked(number, 7), &[], &event("accepted")).await }
    });
    let opened = join_all(opened).await;
    assert_eq!(opened.iter().filter(|opened| opened.is_ok()).count(), 1, "{opened:?}");
    assert_eq!(page(store, &OperationFilter::default(), None, 9).await.len(), 1);
}

/// `open` MUST let a request open another operation when the one before was accepted more than a day earlier.
pub async fn a_request_may_come_again_after_a_day(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    open(store, &asked(1, 7), &[]).await;
    let at = |at| Operation {
        created_at: time(at),
        ..asked(2, 7)
    };
    let early = at("2030-01-02T00:00:00Z");
    let early = store.operations.open(&early, &[], &event("early")).await;
    assert!(matches!(early, Err(StorageError::Conflict { .. })), "{early:?}");
    open(store, &at("2030-01-02T00:00:00.001Z"), &[]).await;
    let of_request = OperationFilter {
        idempotency: asked(1, 7).idempotency,
        ..OperationFilter::default()
    };
    assert_eq!(page(store, &of_request, None, 9).await, [2]);
    let found = store.operations.find(operation(1).id).await;
    assert_eq!(found.expect("a look-up"), Some(operation(1)));
}

fn asked(number: u128, request: u8) -> Operation {
    Operation {
        idempotency: Some([request; 32]),
        ..operation(number)
    }
}
