//! Requests that may be sent twice and are done once.

use async_trait::async_trait;
use knm_model::{KeptAnswer, KeyClaim, KnownRequest, Timestamp};

use crate::StorageError;

/// Which requests came under which key, and what was answered. Times are stored to the millisecond.
///
/// Contract cases: `knm_contract::storage`.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait IdempotencyKeys: Send + Sync + 'static {
    /// Claims a key: `None` if the request may be worked on now, else what is known under the key.
    ///
    /// - MUST let exactly one of several requests claim a key that they want at once.
    /// - MUST tell the fingerprint and the answer of the request that claimed the key before.
    /// - MUST give a key away anew if it was claimed before `expired_before`, with all that was known under it forgotten.
    /// - MUST give a key without an answer to a request with the same fingerprint anew if it was claimed before `abandoned_before`.
    /// - MUST keep keys of different callers apart.
    async fn claim(
        &self,
        claim: &KeyClaim,
        expired_before: Timestamp,
        abandoned_before: Timestamp,
    ) -> Result<Option<KnownRequest>, StorageError>;

    /// Keeps the answer to the request that claimed this key at this time.
    ///
    /// - MUST do nothing if the key was given away anew meanwhile.
    async fn answer(&self, claim: &KeyClaim, answer: &KeptAnswer) -> Result<(), StorageError>;

    /// Forgets that the request claimed this key, so that it may be sent again.
    ///
    /// - MUST do nothing if the key was given away anew meanwhile, or has an answer.
    async fn forget(&self, claim: &KeyClaim) -> Result<(), StorageError>;

    /// Forgets all keys that were claimed before `at`; returns how many.
    ///
    /// - MUST keep the others.
    async fn remove_before(&self, at: Timestamp) -> Result<u64, StorageError>;
}
