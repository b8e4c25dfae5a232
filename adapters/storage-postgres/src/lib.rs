//! Storage in PostgreSQL, shared by many replicas.

mod admin;
mod alone;
#[path = "../../storage-sql/tables/api_tokens.rs"]
mod api_tokens;
#[path = "../../storage-sql/tables/audit_log.rs"]
mod audit_log;
#[path = "../../storage-sql/tables/cluster_registrations.rs"]
mod cluster_registrations;
#[path = "../../storage-sql/tables/cordon_holds.rs"]
mod cordon_holds;
#[path = "../../storage-sql/tables/definition_versions.rs"]
mod definition_versions;
mod demand;
mod dialect;
mod holding;
#[path = "../../storage-sql/tables/idempotency_keys.rs"]
mod idempotency_keys;
#[path = "../../storage-sql/tables/leases.rs"]
mod leases;
#[path = "../../storage-sql/tables/operation_work.rs"]
mod operation_work;
#[path = "../../storage-sql/tables/operations.rs"]
mod operations;
mod options;
#[path = "../../storage-sql/tables/registered_clusters.rs"]
mod registered_clusters;
#[path = "../../storage-sql/tables/store_content.rs"]
mod store_content;
mod url;
mod wakes;

use std::sync::Arc;
use std::time::Duration;

use knm_ports::{Storage, StorageError};
pub use knm_storage_sql::describe_metrics;
use knm_storage_sql::{Bell, Dialect, PoolSettings, WatchedPool};
use secrecy::ExposeSecret;
use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, Executor, Postgres};

use crate::admin::PostgresStorageAdmin;
use crate::api_tokens::SqlApiTokens;
use crate::audit_log::SqlAuditLog;
use crate::cluster_registrations::SqlClusterRegistrations;
use crate::cordon_holds::SqlCordonHolds;
use crate::definition_versions::SqlDefinitions;
pub use crate::holding::hold;
use crate::idempotency_keys::SqlIdempotencyKeys;
use crate::leases::SqlLeases;
use crate::operation_work::SqlOperationWork;
use crate::operations::SqlOperations;
pub use crate::options::{PostgresOptions, SslMode};
use crate::registered_clusters::SqlRegisteredClusters;
pub use crate::url::UrlError;
use crate::wakes::PostgresWakes;

/// How long one operation may take, on our side and the server's.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);
/// For the server, in case that nobody waits for the answer any more: its own end of [`OPERATION_TIMEOUT`]. And statements that are no part
/// of a transaction go on with what a row is when they got it, whatever the default is.
const SESSION: &str = "SET statement_timeout = '10s'; SET idle_in_transaction_session_timeout = '5s';
SET default_transaction_isolation = 'read committed'";

/// Opens a pool, after connecting once: what is wrong with the address, the credentials or the certificate shows here. Migrations are
/// another step.
///
/// # Errors
/// [`StorageError::Refused`] if the server refuses us or we refuse its certificate; [`StorageError::Unavailable`] or
/// [`StorageError::TimedOut`] if it cannot be reached.
pub async fn open(options: PostgresOptions) -> Result<Storage, StorageError> {
    check_root_cert(&options).await?;
    let connect = connect_options(&options);
    let settings = PoolSettings {
        dialect: Dialect::Postgres,
        place: holding::origin(&options).place,
        max_open: options.max_open_conns,
        max_idle: options.max_idle_conns,
        max_lifetime: (!options.max_lifetime.is_zero()).then_some(options.max_lifetime),
        acquire_timeout: options.acquire_timeout,
        operation_timeout: OPERATION_TIMEOUT,
        leak_threshold: options.leak_threshold,
    };
    let sessions = PoolOptions::<Postgres>::new().after_connect(|connection, _| {
        Box::pin(async move { connection.execute(sqlx::raw_sql(SESSION)).await.map(drop) })
    });
    let pool = WatchedPool::new(settings, sessions, connect.clone());
    let checked = async {
        check_connection(&pool, connect.clone(), options.acquire_timeout).await?;
        alone::refuse_unless_free(&pool).await
    };
    if let Err(error) = checked.await {
        pool.close().await;
        return Err(error);
    }
    let bell = Bell::default();
    let wakes = PostgresWakes::new(bell.clone(), pool.clone(), &connect, options.acquire_timeout);
    Ok(Storage {
        admin: Arc::new(PostgresStorageAdmin::new(
            pool.clone(),
            connect,
            options.acquire_timeout,
            options.migration_timeout,
        )),
        clusters: Arc::new(SqlClusterRegistrations::new(pool.clone())),
        tokens: Arc::new(SqlApiTokens::new(pool.clone())),
        registered: Arc::new(SqlRegisteredClusters::new(pool.clone())),
        holds: Arc::new(SqlCordonHolds::new(pool.clone())),
        audit: Arc::new(SqlAuditLog::new(pool.clone())),
        keys: Arc::new(SqlIdempotencyKeys::new(pool.clone())),
        leases: Arc::new(SqlLeases::new(pool.clone())),
        operations: Arc::new(SqlOperations::new(pool.clone(), bell.clone())),
        work: Arc::new(SqlOperationWork::new(pool.clone(), bell)),
        wakes: Arc::new(wakes),
        definitions: Arc::new(SqlDefinitions::new(pool)),
    })
}

/// Connects once beside the pool: the pool tries again and again until its time is up and then no longer knows why.
async fn check_connection(
    pool: &WatchedPool<Postgres>,
    connect: PgConnectOptions,
    limit: Duration,
) -> Result<(), StorageError> {
    match tokio::time::timeout(limit, connect.connect()).await {
        Ok(Ok(mut connection)) => {
            let is_free = tokio::time::timeout(limit, alone::is_free(&mut connection)).await;
            // Whether the server says goodbye is of no interest.
            drop(connection.close().await);
            match is_free {
                Ok(Ok(true)) => Ok(()),
                Ok(Ok(false)) => Err(alone::taken(pool.origin())),
                Ok(Err(error)) => Err(pool.origin().storage_error("the connection", error)),
                Err(_) => Err(StorageError::TimedOut { limit }),
            }
        }
        Ok(Err(error)) => Err(pool.origin().storage_error("the connection", error)),
        Err(_) => Err(StorageError::TimedOut { limit }),
    }
}

async fn check_root_cert(options: &PostgresOptions) -> Result<(), StorageError> {
    let Some(path) = &options.ssl_root_cert else {
        return Ok(());
    };
    match tokio::fs::metadata(path).await {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(StorageError::Refused {
            message: format!("the root certificate {} is not a file", path.display()),
            source: None,
        }),
        Err(error) => Err(StorageError::Refused {
            message: format!("the root certificate {} cannot be read: {error}", path.display()),
            source: Some(error.into()),
        }),
    }
}

fn connect_options(options: &PostgresOptions) -> PgConnectOptions {
    // Every part is set here, so that none comes from PGPASSWORD and the like: the configuration is what the program says it is.
    let connect = PgConnectOptions::new_without_pgpass()
        .host(&options.host)
        .port(options.port)
        .database(&options.database)
        .username(&options.username)
        .password(options.password.expose_secret())
        .application_name(&demand::application_name(options.instance.as_deref()))
        .ssl_mode(match options.ssl_mode {
            SslMode::Disable => PgSslMode::Disable,
            SslMode::Prefer => PgSslMode::Prefer,
            SslMode::Require => PgSslMode::Require,
            SslMode::VerifyCa => PgSslMode::VerifyCa,
            SslMode::VerifyFull => PgSslMode::VerifyFull,
        });
    match &options.ssl_root_cert {
        Some(path) => connect.ssl_root_cert(path),
        None => connect,
    }
}
