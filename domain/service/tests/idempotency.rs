//! Requests that may be sent twice and are done once.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

use std::sync::Arc;
use std::time::Duration;

use knm_domain::{Idempotency, Turn};
use knm_model::{KeptAnswer, KeyClaim};
use knm_ports::{ManualClock, MockIdempotencyKeys, StorageError};
use tokio_util::sync::CancellationToken;

const ASKED: [u8; 32] = [1; 32];
const OTHER: [u8; 32] = [2; 32];

struct Stage {
    clock: Arc<ManualClock>,
    idempotency: Arc<Idempotency>,
}

impl Stage {
    fn new() -> Self {
        let clock = ManualClock::at("2030-01-01T00:00:00Z");
        let keys = knm_storage_memory::open().keys;
        Self {
            idempotency: Arc::new(Idempotency::new(keys, clock.clone())),
            clock,
        }
    }

    async fn begin(&self, fingerprint: [u8; 32]) -> Turn {
        self.idempotency.begin("ann", "k", fingerprint).await.unwrap()
    }

    async fn work(&self) -> KeyClaim {
        match self.begin(ASKED).await {
            Turn::Work(claim) => claim,
            other => unreachable!("{other:?}"),
        }
    }
}

fn answer() -> KeptAnswer {
    KeptAnswer {
        status: 200,
        content_type: None,
        etag: Some("\"a-1\"".to_owned()),
        body: b"{}".to_vec(),
    }
}

#[tokio::test]
async fn a_request_is_done_once_and_answered_alike() {
    let stage = Stage::new();
    let claim = stage.work().await;
    assert_eq!(stage.begin(ASKED).await, Turn::Running);
    assert_eq!(stage.begin(OTHER).await, Turn::Different);
    stage.idempotency.finish(claim, Some(answer())).await;
    stage.clock.advance(Duration::from_secs(24 * 3600));
    assert_eq!(stage.begin(ASKED).await, Turn::Answered(answer()));
    assert_eq!(stage.begin(OTHER).await, Turn::Different);
}

#[tokio::test]
async fn after_a_day_a_key_is_free_again() {
    let stage = Stage::new();
    let claim = stage.work().await;
    stage.idempotency.finish(claim, Some(answer())).await;
    stage.clock.advance(Duration::from_millis(24 * 3600 * 1000 + 1));
    assert!(matches!(stage.begin(OTHER).await, Turn::Work(_)));
}

#[tokio::test]
async fn a_request_that_failed_may_be_sent_again() {
    let stage = Stage::new();
    let claim = stage.work().await;
    stage.idempotency.finish(claim, None).await;
    stage.work().await;
}

#[tokio::test]
async fn a_request_whose_replica_is_gone_is_done_again() {
    let stage = Stage::new();
    stage.work().await;
    stage.clock.advance(Duration::from_secs(120));
    assert_eq!(stage.begin(ASKED).await, Turn::Running);
    stage.clock.advance(Duration::from_millis(1));
    assert_eq!(stage.begin(OTHER).await, Turn::Different);
    stage.work().await;
}

#[tokio::test]
async fn without_a_store_nothing_is_done() {
    let mut keys = MockIdempotencyKeys::new();
    keys.expect_claim()
        .returning(|_, _, _| Err(StorageError::Unavailable { source: "away".into() }));
    let idempotency = Idempotency::new(Arc::new(keys), ManualClock::at("2030-01-01T00:00:00Z"));
    assert!(idempotency.begin("ann", "k", ASKED).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_could_not_be_kept_is_kept_later() {
    let mut keys = MockIdempotencyKeys::new();
    keys.expect_claim().returning(|_, _, _| Ok(None));
    let mut failures = 3;
    keys.expect_answer().times(4).returning(move |_, kept| {
        assert_eq!(*kept, answer());
        match failures {
            0 => Ok(()),
            _ => {
                failures -= 1;
                Err(StorageError::Unavailable { source: "away".into() })
            }
        }
    });
    let idempotency = Idempotency::new(Arc::new(keys), ManualClock::at("2030-01-01T00:00:00Z"));
    let Turn::Work(claim) = idempotency.begin("ann", "k", ASKED).await.unwrap() else {
        unreachable!("the key is free");
    };
    idempotency.finish(claim, Some(answer())).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_over_are_removed() {
    let mut keys = MockIdempotencyKeys::new();
    let yesterday = "2029-12-31T00:00:00Z";
    keys.expect_remove_before()
        .withf(move |at| at.to_string() == yesterday)
        .times(3)
        .returning(|_| Ok(0));
    let clock = ManualClock::at("2030-01-01T00:00:00Z");
    let sweeping = Arc::new(Idempotency::new(Arc::new(keys), clock)).sweep(CancellationToken::new());
    let _ = tokio::time::timeout(Duration::from_secs(1_900), sweeping).await;
}
