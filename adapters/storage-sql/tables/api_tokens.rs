//! Table `api_tokens`.

use async_trait::async_trait;
use knm_model::{ApiToken, Timestamp, TokenId};
use knm_ports::{ApiTokens, StorageError};
use knm_storage_sql::{ApiTokenRow, WatchedPool, api_token, clusters_json};

use crate::dialect::Driver;

const WHAT: &str = "API token";

const LIST: &str = "SELECT id, name, hash, role, force, clusters_json, nodes, created_at_unix_ms, created_by, expires_at_unix_ms, \
    revoked_at_unix_ms, revoked_by, last_used_at_unix_ms FROM api_tokens ORDER BY created_at_unix_ms DESC, id";
const FIND: &str = "SELECT id, name, hash, role, force, clusters_json, nodes, created_at_unix_ms, created_by, expires_at_unix_ms, \
    revoked_at_unix_ms, revoked_by, last_used_at_unix_ms FROM api_tokens WHERE id = $1";
const INSERT: &str =
    "INSERT INTO api_tokens (id, name, hash, role, force, clusters_json, nodes, created_at_unix_ms, created_by, \
    expires_at_unix_ms, revoked_at_unix_ms, revoked_by, last_used_at_unix_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
/// It finds those that are revoked, too, and leaves them as they are: that there is none is told from that by the count of rows.
const REVOKE: &str = "UPDATE api_tokens SET revoked_at_unix_ms = coalesce(revoked_at_unix_ms, $2), \
    revoked_by = coalesce(revoked_by, $3) WHERE id = $1";
const USED: &str = "UPDATE api_tokens SET last_used_at_unix_ms = $2
    WHERE id = $1 AND (last_used_at_unix_ms IS NULL OR last_used_at_unix_ms < $2)";

pub(crate) struct SqlApiTokens {
    pool: WatchedPool<Driver>,
}

impl SqlApiTokens {
    pub(crate) fn new(pool: WatchedPool<Driver>) -> Self {
        Self { pool }
    }
}

#[async_trait]
impl ApiTokens for SqlApiTokens {
    async fn list(&self) -> Result<Vec<ApiToken>, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("api_tokens.list").await?;
                let rows = sqlx::query_as::<_, ApiTokenRow>(LIST)
                    .fetch_all(held.connection())
                    .await;
                held.release(WHAT, rows)?.into_iter().map(api_token).collect()
            })
            .await
    }

    async fn find(&self, id: TokenId) -> Result<Option<ApiToken>, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("api_tokens.find").await?;
                let row = sqlx::query_as::<_, ApiTokenRow>(FIND)
                    .bind(id.to_string())
                    .fetch_optional(held.connection())
                    .await;
                held.release(WHAT, row)?.map(api_token).transpose()
            })
            .await
    }

    async fn insert(&self, token: &ApiToken) -> Result<(), StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("api_tokens.insert").await?;
                let done = sqlx::query(INSERT)
                    .bind(token.id.to_string())
                    .bind(token.name.as_str())
                    .bind(token.hash.as_slice())
                    .bind(token.grant.role.as_str())
                    .bind(token.grant.force)
                    .bind(token.grant.clusters.as_ref().map(clusters_json))
                    .bind(token.grant.nodes.as_deref())
                    .bind(token.created_at.unix_millis())
                    .bind(token.created_by.as_str())
                    .bind(token.expires_at.unix_millis())
                    .bind(token.revoked.as_ref().map(|(at, _)| at.unix_millis()))
                    .bind(token.revoked.as_ref().map(|(_, by)| by.as_str()))
                    .bind(token.last_used_at.map(Timestamp::unix_millis))
                    .execute(held.connection())
                    .await;
                held.release(WHAT, done).map(drop)
            })
            .await
    }

    async fn revoke(&self, id: TokenId, at: Timestamp, by: &str) -> Result<(), StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("api_tokens.revoke").await?;
                let done = sqlx::query(REVOKE)
                    .bind(id.to_string())
                    .bind(at.unix_millis())
                    .bind(by)
                    .execute(held.connection())
                    .await;
                match held.release(WHAT, done)?.rows_affected() {
                    0 => Err(StorageError::NotFound { what: WHAT }),
                    _ => Ok(()),
                }
            })
            .await
    }

    async fn used(&self, id: TokenId, at: Timestamp) -> Result<(), StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("api_tokens.used").await?;
                let done = sqlx::query(USED)
                    .bind(id.to_string())
                    .bind(at.unix_millis())
                    .execute(held.connection())
                    .await;
                held.release(WHAT, done).map(drop)
            })
            .await
    }
}
