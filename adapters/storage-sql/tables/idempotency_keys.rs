//! Table `idempotency_keys`.

use async_trait::async_trait;
use knm_model::{KeptAnswer, KeyClaim, KnownRequest, Timestamp};
use knm_ports::{IdempotencyKeys, StorageError};
use knm_storage_sql::{KnownRequestRow, WatchedPool, known_request};

use crate::dialect::Driver;

const WHAT: &str = "idempotency key";

const CLAIM: &str = "INSERT INTO idempotency_keys (caller, key, fingerprint, claimed_at_unix_ms) VALUES ($1, $2, $3, $4)
    ON CONFLICT (caller, key) DO UPDATE SET fingerprint = excluded.fingerprint, claimed_at_unix_ms = excluded.claimed_at_unix_ms,
        status = NULL, content_type = NULL, etag = NULL, body = NULL
    WHERE idempotency_keys.claimed_at_unix_ms < $5
        OR (idempotency_keys.claimed_at_unix_ms < $6 AND idempotency_keys.status IS NULL
            AND idempotency_keys.fingerprint = excluded.fingerprint)";
const KNOWN: &str =
    "SELECT fingerprint, status, content_type, etag, body FROM idempotency_keys WHERE caller = $1 AND key = $2";
const ANSWER: &str = "UPDATE idempotency_keys SET status = $4, content_type = $5, etag = $6, body = $7
    WHERE caller = $1 AND key = $2 AND claimed_at_unix_ms = $3";
const FORGET: &str = "DELETE FROM idempotency_keys
    WHERE caller = $1 AND key = $2 AND claimed_at_unix_ms = $3 AND status IS NULL";
const REMOVE_BEFORE: &str = "DELETE FROM idempotency_keys WHERE claimed_at_unix_ms < $1";

pub(crate) struct SqlIdempotencyKeys {
    pool: WatchedPool<Driver>,
}

impl SqlIdempotencyKeys {
    pub(crate) fn new(pool: WatchedPool<Driver>) -> Self {
        Self { pool }
    }

    async fn known(&self, claim: &KeyClaim) -> Result<Option<KnownRequest>, StorageError> {
        let mut held = self.pool.acquire("idempotency_keys.known").await?;
        let row = sqlx::query_as::<_, KnownRequestRow>(KNOWN)
            .bind(claim.caller.as_str())
            .bind(claim.key.as_str())
            .fetch_optional(held.connection())
            .await;
        held.release(WHAT, row)?.map(known_request).transpose()
    }
}

#[async_trait]
impl IdempotencyKeys for SqlIdempotencyKeys {
    async fn claim(
        &self,
        claim: &KeyClaim,
        expired_before: Timestamp,
        abandoned_before: Timestamp,
    ) -> Result<Option<KnownRequest>, StorageError> {
        self.pool
            .within_deadline(async {
                loop {
                    let mut held = self.pool.acquire("idempotency_keys.claim").await?;
                    let done = sqlx::query(CLAIM)
                        .bind(claim.caller.as_str())
                        .bind(claim.key.as_str())
                        .bind(claim.fingerprint.as_slice())
                        .bind(claim.at.unix_millis())
                        .bind(expired_before.unix_millis())
                        .bind(abandoned_before.unix_millis())
                        .execute(held.connection())
                        .await;
                    if held.release(WHAT, done)?.rows_affected() == 1 {
                        return Ok(None);
                    }
                    // Who had it may have forgotten it meanwhile.
                    if let Some(known) = self.known(claim).await? {
                        return Ok(Some(known));
                    }
                }
            })
            .await
    }

    async fn answer(&self, claim: &KeyClaim, answer: &KeptAnswer) -> Result<(), StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("idempotency_keys.answer").await?;
                let done = sqlx::query(ANSWER)
                    .bind(claim.caller.as_str())
                    .bind(claim.key.as_str())
                    .bind(claim.at.unix_millis())
                    .bind(i16::try_from(answer.status).unwrap_or(i16::MAX))
                    .bind(answer.content_type.as_deref())
                    .bind(answer.etag.as_deref())
                    .bind(answer.body.as_slice())
                    .execute(held.connection())
                    .await;
                held.release(WHAT, done).map(drop)
            })
            .await
    }

    async fn forget(&self, claim: &KeyClaim) -> Result<(), StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("idempotency_keys.forget").await?;
                let done = sqlx::query(FORGET)
                    .bind(claim.caller.as_str())
                    .bind(claim.key.as_str())
                    .bind(claim.at.unix_millis())
                    .execute(held.connection())
                    .await;
                held.release(WHAT, done).map(drop)
            })
            .await
    }

    async fn remove_before(&self, at: Timestamp) -> Result<u64, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("idempotency_keys.remove_before").await?;
                let done = sqlx::query(REMOVE_BEFORE)
                    .bind(at.unix_millis())
                    .execute(held.connection())
                    .await;
                Ok(held.release(WHAT, done)?.rows_affected())
            })
            .await
    }
}
