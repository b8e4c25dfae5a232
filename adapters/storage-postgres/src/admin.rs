//! The store as such.

use std::time::Duration;

use async_trait::async_trait;
use knm_ports::{ConnectionDemand, PoolStatus, SchemaStatus, StorageAdmin, StorageError, StorageKind};
use knm_storage_sql::{APPLIED, AppliedRow, Origin, WatchedPool, apply_pending, schema_status};
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Executor, PgConnection, Postgres};

use crate::{check_connection, demand};

pub(crate) static MIGRATOR: Migrator = sqlx::migrate!("../../migrations/postgres");

/// The longest that a ping waits for a connection, and for the reason why there is none.
const PING_PATIENCE: Duration = Duration::from_secs(2);
/// How long a migration keeps others waiting for what it itself waits for, and how long it lets them go on then.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// As the server, the role and the database have them.
const NO_LIMITS: &str = "RESET statement_timeout; RESET lock_timeout";
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

    /// Waits for whoever uses what is to be changed, such as a backup, in short turns: others who come meanwhile would wait behind us.
    async fn migrate_in_turns(&self) -> Result<usize, StorageError> {
        let (mut count, mut is_told) = (0, false);
        loop {
            // Not pooled again: when a migration fails, the lock that keeps other replicas out ends with the connection.
            let mut held = self.pool.acquire_for_long("migrate").await?;
            let (origin, connection) = (self.pool.origin(), held.connection());
            let outcome = migrate_within(origin, connection, self.migration_timeout, &mut count).await;
            drop(held);
            match outcome {
                Err(StorageError::TimedOut { .. }) => {
                    if !is_told {
                        tracing::info!(
                            "somebody uses what is to be migrated, or migrates: it is tried again until database.migration_timeout"
                        );
                    }
                    is_told = true;
                    tokio::time::sleep(LOCK_PATIENCE).await;
                }
                outcome => return outcome.map(|()| count),
            }
        }
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

    async fn demand(&self) -> Result<Option<ConnectionDemand>, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("demand").await?;
                let asked = demand::ask(held.connection(), self.pool.status().max_open).await;
                held.release("demand", asked).map(Some)
            })
            .await
    }

    async fn migrate(&self) -> Result<usize, StorageError> {
        let Some(limit) = self.migration_timeout else {
            return self.migrate_in_turns().await;
        };
        tokio::time::timeout(limit, self.migrate_in_turns())
            .await
            .unwrap_or(Err(StorageError::TimedOut { limit }))
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

/// Applies what is pending over a connection that is in no transaction, and counts that in `count`, also where it fails in the end. It waits
/// for others only for a moment, and each of its statements takes at most `limit`.
pub(crate) async fn migrate_within(
    origin: &Origin,
    connection: &mut PgConnection,
    limit: Option<Duration>,
    count: &mut usize,
) -> Result<(), StorageError> {
    // The server stops by itself when nobody waits any more; 0 is no limit.
    let limit = limit.map_or(0, |limit| limit.as_millis().max(1));
    for (name, limit) in [
        ("statement_timeout", limit),
        ("lock_timeout", LOCK_PATIENCE.as_millis()),
    ] {
        sqlx::query("SELECT set_config($1, $2, false)")
            .bind(name)
            .bind(limit.to_string())
            .execute(&mut *connection)
            .await
            .map_err(|error| origin.storage_error("the schema", error))?;
    }
    let outcome = migrate_connection(origin, connection, count).await;
    // Behind a proxy the session goes on for others. One that is broken has no limits either.
    let reset = connection.execute(sqlx::raw_sql(NO_LIMITS));
    drop(tokio::time::timeout(LOCK_PATIENCE, reset).await);
    outcome
}

async fn migrate_connection(
    origin: &Origin,
    connection: &mut PgConnection,
    count: &mut usize,
) -> Result<(), StorageError> {
    let failed = |error| origin.storage_error("the schema", error);
    // What a later version changed must not be migrated further.
    schema_status(&MIGRATOR, &applied(connection).await.map_err(failed)?)?;
    apply_pending(origin, &MIGRATOR, connection, count).await
}

pub(crate) async fn applied(connection: &mut PgConnection) -> Result<Vec<AppliedRow>, sqlx::Error> {
    if !sqlx::query_scalar(MIGRATED_ONCE).fetch_one(&mut *connection).await? {
        return Ok(Vec::new());
    }
    sqlx::query_as(APPLIED).fetch_all(connection).await
}

#[cfg(test)]
mod tests {
    use knm_test_support::postgres::PostgresServer;
    use sqlx::Connection;

    use super::*;
    use crate::PostgresOptions;

    #[tokio::test]
    async fn a_session_that_migrated_has_no_limits_of_its_own() {
        let Some(server) = PostgresServer::start() else {
            return;
        };
        let url = server.url(&server.create_database());
        let options = PostgresOptions::from_url(&url).expect("a connection string");
        let mut connection = PgConnection::connect(&url).await.expect("a connection");
        let limit = Some(Duration::from_secs(60));

        migrate_within(&crate::holding::origin(&options), &mut connection, limit, &mut 0)
            .await
            .expect("the migrations run");

        for name in ["statement_timeout", "lock_timeout"] {
            let now: String = sqlx::query_scalar("SELECT current_setting($1)")
                .bind(name)
                .fetch_one(&mut connection)
                .await
                .expect("a setting");
            assert_eq!(now, "0", "{name}");
        }
    }
}
