//! Requests that may be sent twice and are done once.

use std::sync::Arc;
use std::time::Duration;

use knm_model::{IDEMPOTENCY_KEPT, KeptAnswer, KeyClaim};
use knm_ports::{Clock, IdempotencyKeys, StorageError};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// After this time without an answer whoever worked on a request is gone: no request takes that long.
const ABANDONED: Duration = Duration::from_secs(120);
/// How often keys that are over are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// How often it is tried again to keep an answer, after one second first and twice as long each time.
const ATTEMPTS: u32 = 6;

/// Keeps requests from being done twice.
pub struct Idempotency {
    keys: Arc<dyn IdempotencyKeys>,
    clock: Arc<dyn Clock>,
}

/// What is to be done with a request under a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is to be done, and then [`Idempotency::finish`]ed.
    Work(KeyClaim),
    /// It was done: this was the answer.
    Answered(KeptAnswer),
    /// It is being done.
    Running,
    /// The key belongs to another request.
    Different,
}

impl Idempotency {
    /// Keeps the keys in `keys`.
    #[must_use]
    pub fn new(keys: Arc<dyn IdempotencyKeys>, clock: Arc<dyn Clock>) -> Self {
        Self { keys, clock }
    }

    /// Decides about a request of `caller` under `key`, which [`check_idempotency_key`](knm_model::check_idempotency_key) accepts.
    ///
    /// # Errors
    /// [`StorageError`]; then the request must not be done.
    pub async fn begin(&self, caller: &str, key: &str, fingerprint: [u8; 32]) -> Result<Turn, StorageError> {
        let now = self.clock.now();
        let claim = KeyClaim {
            caller: caller.to_owned(),
            key: key.to_owned(),
            fingerprint,
            at: now,
        };
        let known = self
            .keys
            .claim(&claim, now.minus(IDEMPOTENCY_KEPT), now.minus(ABANDONED))
            .await?;
        Ok(match known {
            None => Turn::Work(claim),
            Some(known) if known.fingerprint != fingerprint => Turn::Different,
            Some(known) => known.answer.map_or(Turn::Running, Turn::Answered),
        })
    }

    /// Keeps the answer; `None` forgets the request, so that it may be sent again.
    ///
    /// While an answer cannot be kept, the next request with this key is told to wait, and after a while done again: changes are such that
    /// this changes nothing, and operations know the request that they were opened by.
    pub async fn finish(&self, claim: KeyClaim, answer: Option<KeptAnswer>) {
        let kept = match &answer {
            Some(answer) => self.keys.answer(&claim, answer).await,
            None => self.keys.forget(&claim).await,
        };
        let Err(error) = kept else {
            return;
        };
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the answer to a request with an idempotency key could not be kept"
        );
        let Some(answer) = answer.filter(|_| error.is_transient()) else {
            return;
        };
        let keys = Arc::clone(&self.keys);
        let again = async move {
            for attempt in 0..ATTEMPTS {
                tokio::time::sleep(Duration::from_secs(1 << attempt)).await;
                match keys.answer(&claim, &answer).await {
                    Err(error) if error.is_transient() => {}
                    Ok(()) | Err(_) => return,
                }
            }
            tracing::error!(
                "the answer to a request with an idempotency key was not kept: it is done again if it is sent again"
            );
        };
        tokio::spawn(again.in_current_span());
    }

    /// Removes what is over until `shutdown`. Replicas may do so at the same time.
    pub async fn sweep(self: Arc<Self>, shutdown: CancellationToken) {
        while shutdown
            .run_until_cancelled(tokio::time::sleep(SWEEP_EVERY))
            .await
            .is_some()
        {
            if let Err(error) = self.keys.remove_before(self.clock.now().minus(IDEMPOTENCY_KEPT)).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "idempotency keys that are over could not be removed"
                );
            }
        }
    }
}
