//! Table `leases`.

use std::time::Duration;

use async_trait::async_trait;
use knm_ports::{Leases, StorageError};
use knm_storage_sql::WatchedPool;

use crate::dialect::{Driver, now_unix_ms};

const WHAT: &str = "lease";

const HOLD: &str = concat!(
    "INSERT INTO leases (name, owner, expires_at_unix_ms) VALUES ($1, $2, ",
    now_unix_ms!(),
    " + $3) ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, expires_at_unix_ms = excluded.expires_at_unix_ms \
        WHERE leases.owner = excluded.owner OR leases.expires_at_unix_ms <= ",
    now_unix_ms!()
);
const RELEASE: &str = "DELETE FROM leases WHERE name = $1 AND owner = $2";

pub(crate) struct SqlLeases {
    pool: WatchedPool<Driver>,
}

impl SqlLeases {
    pub(crate) fn new(pool: WatchedPool<Driver>) -> Self {
        Self { pool }
    }
}

#[async_trait]
impl Leases for SqlLeases {
    async fn hold(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("leases.hold").await?;
                let done = sqlx::query(HOLD)
                    .bind(name)
                    .bind(owner)
                    .bind(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX / 2))
                    .execute(held.connection())
                    .await;
                Ok(0 < held.release(WHAT, done)?.rows_affected())
            })
            .await
    }

    async fn release(&self, name: &str, owner: &str) -> Result<(), StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("leases.release").await?;
                let done = sqlx::query(RELEASE)
                    .bind(name)
                    .bind(owner)
                    .execute(held.connection())
                    .await;
                held.release(WHAT, done).map(drop)
            })
            .await
    }
}
