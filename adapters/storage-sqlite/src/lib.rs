//! Storage in one SQLite file, for laptops and small installations.
//!
//! The pool is always one connection. Several processes may share the file on one machine; they wait for each other.

mod admin;
#[path = "../../storage-sql/tables/api_tokens.rs"]
mod api_tokens;
#[path = "../../storage-sql/tables/audit_log.rs"]
mod audit_log;
mod backup;
#[path = "../../storage-sql/tables/cluster_registrations.rs"]
mod cluster_registrations;
#[path = "../../storage-sql/tables/cordon_holds.rs"]
mod cordon_holds;
#[path = "../../storage-sql/tables/definition_versions.rs"]
mod definition_versions;
mod dialect;
mod holding;
#[path = "../../storage-sql/tables/idempotency_keys.rs"]
mod idempotency_keys;
#[path = "../../storage-sql/tables/leases.rs"]
mod leases;
mod lock;
#[path = "../../storage-sql/tables/operation_work.rs"]
mod operation_work;
#[path = "../../storage-sql/tables/operations.rs"]
mod operations;
mod ownership;
mod partial;
#[path = "../../storage-sql/tables/registered_clusters.rs"]
mod registered_clusters;
mod replacing;
#[path = "../../storage-sql/tables/store_content.rs"]
mod store_content;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use knm_ports::{Storage, StorageAdmin as _, StorageError};
pub use knm_storage_sql::describe_metrics;
use knm_storage_sql::{Bell, Dialect, PoolSettings, WatchedPool};
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{Connection, Sqlite};

use crate::admin::SqliteStorageAdmin;
use crate::api_tokens::SqlApiTokens;
use crate::audit_log::SqlAuditLog;
pub use crate::backup::{BackupError, Contents, Existing, Replaced, Restored, back_up, restore};
use crate::cluster_registrations::SqlClusterRegistrations;
use crate::cordon_holds::SqlCordonHolds;
use crate::definition_versions::SqlDefinitions;
pub use crate::holding::hold;
use crate::idempotency_keys::SqlIdempotencyKeys;
use crate::leases::SqlLeases;
use crate::lock::{FileLock, LockError};
use crate::operation_work::SqlOperationWork;
use crate::operations::SqlOperations;
use crate::registered_clusters::SqlRegisteredClusters;

/// How long a writer waits for another one, in this process or in another.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one operation may take. It leaves room for [`BUSY_TIMEOUT`].
const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);

/// How to open a file.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// The file. It is created if it is not there, and its folder too.
    pub path: PathBuf,
    /// From when on the connection is replaced; zero: never.
    pub max_lifetime: Duration,
    /// From when on a held connection counts as leaked.
    pub leak_threshold: Duration,
    /// How long to wait for the connection.
    pub acquire_timeout: Duration,
    /// How long all migrations together may take, `None`: as long as they need.
    pub migration_timeout: Option<Duration>,
}

impl SqliteOptions {
    /// The file at `path`, and defaults for the rest.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            max_lifetime: Duration::from_secs(3600),
            leak_threshold: Duration::from_secs(30),
            acquire_timeout: Duration::from_secs(5),
            migration_timeout: Some(Duration::from_secs(300)),
        }
    }

    /// The same for the file itself if the path is a link: there is one lock of a file, and its log is beside it, by whatever name it is
    /// opened.
    fn without_links(self) -> Self {
        Self {
            path: without_links(&self.path),
            ..self
        }
    }
}

/// Opens the file and makes sure that it can be written. Migrations are another step.
///
/// # Errors
/// [`StorageError::Refused`] that names the file if it cannot be created, read or written, or while its content is moved or replaced;
/// [`StorageError::Full`] if there is no room.
pub async fn open(options: SqliteOptions) -> Result<Storage, StorageError> {
    create_folder(&options.path).await?;
    let options = options.without_links();
    let (lock, migration_timeout) = (share(&options)?, options.migration_timeout);
    make(&options.path)?;
    let pool = pool(&options);
    let admin = SqliteStorageAdmin::new(pool.clone(), migration_timeout, lock);
    if let Err(error) = check_writable(&pool).await {
        admin.close().await;
        return Err(reason(&options.path, error).await);
    }
    let bell = Bell::default();
    Ok(Storage {
        admin: Arc::new(admin),
        clusters: Arc::new(SqlClusterRegistrations::new(pool.clone())),
        tokens: Arc::new(SqlApiTokens::new(pool.clone())),
        registered: Arc::new(SqlRegisteredClusters::new(pool.clone())),
        holds: Arc::new(SqlCordonHolds::new(pool.clone())),
        audit: Arc::new(SqlAuditLog::new(pool.clone())),
        keys: Arc::new(SqlIdempotencyKeys::new(pool.clone())),
        leases: Arc::new(SqlLeases::new(pool.clone())),
        operations: Arc::new(SqlOperations::new(pool.clone(), bell.clone())),
        work: Arc::new(SqlOperationWork::new(pool.clone(), bell.clone())),
        wakes: Arc::new(bell),
        definitions: Arc::new(SqlDefinitions::new(pool)),
    })
}

/// Tells those who want the file for themselves that it is open. Where there is no file but something else, opening it says so.
fn share(options: &SqliteOptions) -> Result<Option<FileLock>, StorageError> {
    if options.path.is_dir() {
        return Ok(None);
    }
    match FileLock::shared(&options.path) {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Unsupported(error)) => {
            holding::warn_of_no_lock(&options.path, &error);
            Ok(None)
        }
        Err(LockError::System(error)) => Err(holding::unlockable(options, error)),
        Err(LockError::Taken) => Err(StorageError::Refused {
            message: format!(
                "sqlite file {}: migrate-data or restore works on it; try again when that has ended",
                options.path.display()
            ),
            source: None,
        }),
    }
}

/// SQLite opens only what is there.
fn make(file: &Path) -> Result<(), StorageError> {
    ownership::make(file).map_err(|error| file_error(file, "it cannot be made", error))
}

fn pool(options: &SqliteOptions) -> WatchedPool<Sqlite> {
    let settings = PoolSettings {
        dialect: Dialect::Sqlite,
        place: format!("sqlite file {}", options.path.display()),
        max_open: 1,
        max_idle: 1,
        max_lifetime: (!options.max_lifetime.is_zero()).then_some(options.max_lifetime),
        acquire_timeout: options.acquire_timeout,
        operation_timeout: OPERATION_TIMEOUT,
        leak_threshold: options.leak_threshold,
    };
    let connect = SqliteConnectOptions::new()
        .filename(&options.path)
        .journal_mode(SqliteJournalMode::Wal)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    WatchedPool::new(settings, PoolOptions::new(), connect)
}

/// The file that `path` leads to, also if it is not there yet. A path that is no link stays as it was written.
fn without_links(path: &Path) -> PathBuf {
    let Ok(target) = path.read_link() else {
        return path.to_owned();
    };
    match path.canonicalize() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => without_links(&folder(path).join(target)),
        // Links that lead to each other, for example: opening it says so.
        Err(_) => path.to_owned(),
    }
}

fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

async fn create_folder(file: &Path) -> Result<(), StorageError> {
    let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    let Err(error) = tokio::fs::create_dir_all(folder).await else {
        return Ok(());
    };
    Err(file_error(file, "its folder cannot be created", error))
}

/// SQLite says of a file that it cannot open just that; the operating system says why. It is asked only when nobody has the file open any
/// more: closing it ends the locks of the whole process.
async fn reason(file: &Path, error: StorageError) -> StorageError {
    if !matches!(error, StorageError::Refused { .. }) {
        return error;
    }
    match tokio::fs::OpenOptions::new().append(true).create(true).open(file).await {
        Ok(_) => error,
        Err(reason) => file_error(file, "it cannot be opened for writing", reason),
    }
}

fn file_error(file: &Path, what: &str, error: io::Error) -> StorageError {
    let message = format!("sqlite file {}: {what}: {error}", file.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageError::Full {
            source: io::Error::new(error.kind(), message).into(),
        },
        _ => StorageError::Refused {
            message,
            source: Some(error.into()),
        },
    }
}

/// SQLite opens a file without write permission for reading only and says so at the first change: this is one that changes nothing.
async fn check_writable(pool: &WatchedPool<Sqlite>) -> Result<(), StorageError> {
    let mut held = pool.acquire("open").await?;
    let locked = async {
        let transaction = held.connection().begin_with("BEGIN IMMEDIATE").await?;
        transaction.rollback().await
    };
    let locked = locked.await;
    held.release("the file", locked)
}
