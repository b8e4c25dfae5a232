//! The store as such.

use std::time::Duration;

use async_trait::async_trait;
use knm_ports::{PoolStatus, SchemaStatus, StorageAdmin, StorageError, StorageKind};
use knm_storage_sql::{Origin, WatchedPool, apply_pending, schema_status};
use sqlx::migrate::{AppliedMigration, Migrate, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgConnection, Postgres};

use crate::check_connection;

pub(crate) static MIGRATOR: Migrator = sqlx::migrate!("../../migrations/postgres");

/// The longest that a ping waits for a connection, and for the reason why there is none.
const PING_PATIENCE: Duration = Duration::from_secs(2);
const MIGRATED_ONCE: &str = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";

pub(crate) struct PostgresStorageAdmin {
    pool: WatchedPool<Postgres>,
    connect: PgConnectOptions,
    acquire_timeout: Duration,
    migration_timeout: Option<Duration>,
}

impl PostgresStorageAdmin {
    pub(crate) fn new(
        pool: WatchedPool<Postgres>,
        connect: PgConnectOptions,
        acquire_timeout: Duration,
        migration_timeout: Option<Duration>,
    ) -> Self {
        Self {
            pool,
            connect,
            acquire_timeout,
            migration_timeout,
        }
    }

    /// How long a ping waits for a connection. It ends before a health check gives up, so that the check learns the reason.
    fn patience(&self) -> Duration {
        self.acquire_timeout.min(PING_PATIENCE)
    }

    /// Why the pool gave no connection: it tries again and again and does not tell.
    async fn why_not(&self) -> StorageError {
        let limit = self.patience();
        match check_connection(&self.pool, self.connect.clone(), limit / 8).await {
            Ok(()) | Err(StorageError::TimedOut { .. }) => StorageError::TimedOut { limit },
            Err(known) => known,
        }
    }

    /// The connection is not pooled again: when a migration fails, the lock that keeps other replicas out ends with the connection.
    async fn migrate_alone(&self) -> Result<usize, StorageError> {
        let mut held = self.pool.acquire_for_long("migrate").await?;
        // The server stops by itself when nobody waits any more; 0 is no limit.
        let limit = self.migration_timeout.map_or(0, |limit| limit.as_millis().max(1));
        sqlx::query("SELECT set_config('statement_timeout', $1, false)")
            .bind(limit.to_string())
            .execute(held.connection())
            .await
            .map_err(|error| self.pool.origin().storage_error("the schema", error))?;
        migrate_connection(self.pool.origin(), held.connection()).await
    }
}

#[async_trait]
impl StorageAdmin for PostgresStorageAdmin {
    fn kind(&self) -> StorageKind {
        StorageKind::Postgres
    }

    async fn ping(&self) -> Result<(), StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = match tokio::time::timeout(self.patience() * 3 / 4, self.pool.acquire("ping")).await {
                    Ok(held) => held?,
                    Err(_) => return Err(self.why_not().await),
                };
                let answer = sqlx::query("SELECT 1").execute(held.connection()).await;
                held.release("ping", answer).map(drop)
            })
            .await
    }

    fn pool(&self) -> PoolStatus {
        self.pool.status()
    }

    async fn schema(&self) -> Result<SchemaStatus, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("schema").await?;
                let applied = applied(held.connection()).await;
                schema_status(&MIGRATOR, &held.release("the schema", applied)?)
            })
            .await
    }

    async fn migrate(&self) -> Result<usize, StorageError> {
        let Some(limit) = self.migration_timeout else {
            return self.migrate_alone().await;
        };
        tokio::time::timeout(limit, self.migrate_alone())
            .await
            .unwrap_or(Err(StorageError::TimedOut { limit }))
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

/// Applies what is pending over a connection that is in no transaction.
pub(crate) async fn migrate_connection(origin: &Origin, connection: &mut PgConnection) -> Result<usize, StorageError> {
    apply_pending(origin, &MIGRATOR, connection).await
}

pub(crate) async fn applied(connection: &mut PgConnection) -> Result<Vec<AppliedMigration>, sqlx::Error> {
    if !sqlx::query_scalar(MIGRATED_ONCE).fetch_one(&mut *connection).await? {
        return Ok(Vec::new());
    }
    Ok(connection.list_applied_migrations("_sqlx_migrations").await?)
}
