//! Requests under keys.

use std::sync::Arc;

use async_trait::async_trait;
use knm_model::{KeptAnswer, KeyClaim, KnownRequest, Timestamp};
use knm_ports::{IdempotencyKeys, StorageError};

use crate::{Memory, rounded};

pub(crate) struct MemoryIdempotencyKeys(pub(crate) Arc<Memory>);

/// What stands under the key of a caller.
pub(crate) struct Claimed {
    at: Timestamp,
    request: KnownRequest,
}

#[async_trait]
impl IdempotencyKeys for MemoryIdempotencyKeys {
    async fn claim(
        &self,
        claim: &KeyClaim,
        expired_before: Timestamp,
        abandoned_before: Timestamp,
    ) -> Result<Option<KnownRequest>, StorageError> {
        let mut tables = self.0.open()?;
        if let Some(Claimed { at, request }) = tables.keys.get(&name(claim)) {
            let is_expired = *at < rounded(expired_before);
            let is_abandoned =
                *at < rounded(abandoned_before) && request.answer.is_none() && request.fingerprint == claim.fingerprint;
            if !is_expired && !is_abandoned {
                return Ok(Some(request.clone()));
            }
        }
        let claimed = Claimed {
            at: rounded(claim.at),
            request: KnownRequest {
                fingerprint: claim.fingerprint,
                answer: None,
            },
        };
        tables.keys.insert(name(claim), claimed);
        Ok(None)
    }

    async fn answer(&self, claim: &KeyClaim, answer: &KeptAnswer) -> Result<(), StorageError> {
        let mut tables = self.0.open()?;
        let claimed = tables.keys.get_mut(&name(claim));
        if let Some(claimed) = claimed.filter(|claimed| claimed.at == rounded(claim.at)) {
            claimed.request.answer = Some(answer.clone());
        }
        Ok(())
    }

    async fn forget(&self, claim: &KeyClaim) -> Result<(), StorageError> {
        let mut tables = self.0.open()?;
        let is_it = |claimed: &Claimed| claimed.at == rounded(claim.at) && claimed.request.answer.is_none();
        if tables.keys.get(&name(claim)).is_some_and(is_it) {
            tables.keys.remove(&name(claim));
        }
        Ok(())
    }

    async fn remove_before(&self, at: Timestamp) -> Result<u64, StorageError> {
        let mut tables = self.0.open()?;
        let before = tables.keys.len();
        tables.keys.retain(|_, claimed| rounded(at) <= claimed.at);
        Ok((before - tables.keys.len()) as u64)
    }
}

fn name(claim: &KeyClaim) -> (String, String) {
    (claim.caller.clone(), claim.key.clone())
}
