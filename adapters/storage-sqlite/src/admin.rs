//! The store as such.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use knm_ports::{ConnectionDemand, PoolStatus, SchemaStatus, StorageAdmin, StorageError, StorageKind};
use knm_storage_sql::{APPLIED, AppliedRow, Origin, WatchedPool, apply_pending, schema_status};
use sqlx::migrate::Migrator;
use sqlx::{Connection, Sqlite, SqliteConnection};

use crate::lock::FileLock;

pub(crate) static MIGRATOR: Migrator = sqlx::migrate!("../../migrations/sqlite");

const MIGRATED_ONCE: &str = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = '_sqlx_migrations'";

pub(crate) struct SqliteStorageAdmin {
    pool: WatchedPool<Sqlite>,
    migration_timeout: Option<Duration>,
    /// Tells others that the file is open, until it is closed.
    lock: Mutex<Option<FileLock>>,
}

impl SqliteStorageAdmin {
    pub(crate) fn new(pool: WatchedPool<Sqlite>, migration_timeout: Option<Duration>, lock: Option<FileLock>) -> Self {
        Self {
            pool,
            migration_timeout,
            lock: Mutex::new(lock),
        }
    }

    /// Waits for other processes as long as it takes: one that migrates may need longer than a writer is patient.
    async fn migrate_in_turn(&self) -> Result<usize, StorageError> {
        loop {
            let (mut held, mut count) = (self.pool.acquire_for_long("migrate").await?, 0);
            match migrate_connection(self.pool.origin(), held.connection(), &mut count).await {
                Ok(()) => return held.release("the schema", Ok(count)),
                Err(StorageError::TimedOut { .. }) => {
                    tracing::info!("waiting for another process to migrate the database")
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[async_trait]
impl StorageAdmin for SqliteStorageAdmin {
    fn kind(&self) -> StorageKind {
        StorageKind::Sqlite
    }

    async fn ping(&self) -> Result<(), StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("ping").await?;
                let answer = sqlx::query("SELECT 1 FROM sqlite_schema LIMIT 1")
                    .execute(held.connection())
                    .await;
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

    /// Whoever shares the file waits for the others, however many there are.
    async fn demand(&self) -> Result<Option<ConnectionDemand>, StorageError> {
        self.ping().await.map(|()| None)
    }

    async fn migrate(&self) -> Result<usize, StorageError> {
        let Some(limit) = self.migration_timeout else {
            return self.migrate_in_turn().await;
        };
        tokio::time::timeout(limit, self.migrate_in_turn())
            .await
            .unwrap_or(Err(StorageError::TimedOut { limit }))
    }

    async fn close(&self) {
        self.pool.close().await;
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

pub(crate) async fn applied(connection: &mut SqliteConnection) -> Result<Vec<AppliedRow>, sqlx::Error> {
    let once: i64 = sqlx::query_scalar(MIGRATED_ONCE).fetch_one(&mut *connection).await?;
    if once == 0 {
        return Ok(Vec::new());
    }
    sqlx::query_as(APPLIED).fetch_all(connection).await
}

/// Applies what is pending, and counts that in `count`. Migrations have no lock of their own in SQLite, so all of them together are one
/// transaction that keeps other writers out.
pub(crate) async fn migrate_connection(
    origin: &Origin,
    connection: &mut SqliteConnection,
    count: &mut usize,
) -> Result<(), StorageError> {
    let failed = |error| origin.storage_error("the schema", error);
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    // What a later version changed must not be migrated further.
    schema_status(&MIGRATOR, &applied(&mut transaction).await.map_err(failed)?)?;
    let mut applied = 0;
    apply_pending(origin, &MIGRATOR, &mut *transaction, &mut applied).await?;
    transaction.commit().await.map_err(failed)?;
    *count += applied;
    Ok(())
}
