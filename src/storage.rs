//! Opens the store that the configuration asks for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use knm_ports::{HoldError, Purpose, Storage, StorageError, StorageKind, StoreContent};
use secrecy::SecretString;

/// The database.
#[derive(Debug)]
#[cfg_attr(
    not(all(feature = "sqlite", feature = "postgres")),
    expect(
        dead_code,
        reason = "the configuration knows every store, also those that are left out"
    )
)]
pub struct DatabaseSettings {
    pub kind: StorageKind,
    /// The file, for SQLite.
    pub path: PathBuf,
    /// The connection string, for PostgreSQL; it replaces the parts below.
    pub url: Option<SecretString>,
    pub host: String,
    pub port: u16,
    pub database: String,
    pub username: String,
    pub password: SecretString,
    pub ssl_mode: String,
    pub ssl_root_cert: Option<PathBuf>,
    pub max_open_conns: u32,
    pub max_idle_conns: u32,
    pub max_lifetime: Duration,
    pub acquire_timeout: Duration,
    pub leak_threshold: Duration,
    pub auto_migrate: bool,
    /// How long migrations may take, `None`: as long as they need.
    pub migration_timeout: Option<Duration>,
    /// Where it is, for people: without any secret.
    pub place: String,
    /// What the server sees this process as, if it is one of the replicas that serve.
    pub instance: Option<String>,
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// This build leaves the adapter out.
    #[error("database.type {kind} is not part of this build: build with the feature \"{kind}\"")]
    #[cfg(not(all(feature = "sqlite", feature = "postgres", feature = "memory")))]
    NotBuilt {
        /// The kind, which is the feature's name, too.
        kind: &'static str,
    },
    /// The connection string or the SSL mode is of no use.
    #[cfg(feature = "postgres")]
    #[error("{0}")]
    Options(String),
    /// The store does not open.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The store cannot be held.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// A copy of a file is not made or not put back.
    #[cfg(feature = "sqlite")]
    #[error(transparent)]
    Backup(#[from] knm_storage_sqlite::BackupError),
    /// What is in memory cannot be moved.
    #[error("database.type memory keeps nothing that could be moved")]
    NothingKept,
    /// Only files can be copied.
    #[error("{command} is for SQLite, and database.type is {kind}{advice}")]
    NoFile {
        /// The command.
        command: &'static str,
        /// The kind.
        kind: &'static str,
        /// What to use.
        advice: &'static str,
    },
}

/// What becomes of a file that is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InTheWay {
    /// Of a backup: nothing is written. Of what is restored: it is kept under another name.
    Kept,
    /// It is replaced.
    Replaced,
}

/// What a copy of a file holds.
#[derive(Debug)]
pub struct Copied {
    /// The version of its schema.
    pub schema: i64,
    /// How many rows each table has.
    pub rows: Vec<(&'static str, u64)>,
    /// How many operations a service goes on with.
    pub unended_operations: u64,
    /// How many API tokens are accepted.
    pub active_tokens: u64,
    /// How many bindings of templates repair nodes.
    pub repairing_bindings: u64,
    /// How large it is.
    pub bytes: u64,
    /// Where the database is that it replaced.
    pub kept: Option<PathBuf>,
}

/// Opens the store. Migrations are another step.
///
/// # Errors
/// [`OpenError`]: there is no falling back to another store.
pub async fn open(settings: &DatabaseSettings) -> Result<Storage, OpenError> {
    match settings.kind {
        #[cfg(feature = "sqlite")]
        StorageKind::Sqlite => Ok(knm_storage_sqlite::open(sqlite_options(settings)).await?),
        #[cfg(not(feature = "sqlite"))]
        StorageKind::Sqlite => Err(not_built(settings.kind)),
        #[cfg(feature = "postgres")]
        StorageKind::Postgres => Ok(knm_storage_postgres::open(postgres_options(settings)?).await?),
        #[cfg(not(feature = "postgres"))]
        StorageKind::Postgres => Err(not_built(settings.kind)),
        #[cfg(feature = "memory")]
        StorageKind::Memory => Ok(knm_storage_memory::open()),
        #[cfg(not(feature = "memory"))]
        StorageKind::Memory => Err(not_built(settings.kind)),
    }
}

/// How the database's server shows this process. Processes on one machine may have one name, and each container has a process 1; an id may
/// be the same for all replicas.
#[must_use]
pub fn instance(id: Option<&str>, host: &str, process: u32) -> String {
    match id {
        Some(id) if id != host => format!("{id}/{host}/{process}"),
        Some(_) | None => format!("{host}/{process}"),
    }
}

/// Holds the store, so that nobody else opens it.
///
/// # Errors
/// [`OpenError`].
pub async fn hold(settings: &DatabaseSettings, purpose: Purpose) -> Result<Arc<dyn StoreContent>, OpenError> {
    match settings.kind {
        #[cfg(feature = "sqlite")]
        StorageKind::Sqlite => Ok(knm_storage_sqlite::hold(&sqlite_options(settings), purpose).await?),
        #[cfg(not(feature = "sqlite"))]
        StorageKind::Sqlite => {
            let _ = purpose;
            Err(not_built(settings.kind))
        }
        #[cfg(feature = "postgres")]
        StorageKind::Postgres => Ok(knm_storage_postgres::hold(&postgres_options(settings)?, purpose).await?),
        #[cfg(not(feature = "postgres"))]
        StorageKind::Postgres => Err(not_built(settings.kind)),
        StorageKind::Memory => Err(OpenError::NothingKept),
    }
}

/// Writes what the file of the database holds into the file `to`, unless it is `ended` before that is done.
///
/// # Errors
/// [`OpenError`].
pub async fn back_up(
    settings: &DatabaseSettings,
    to: &Path,
    in_the_way: InTheWay,
    ended: impl Future<Output = ()>,
) -> Result<Copied, OpenError> {
    match settings.kind {
        #[cfg(feature = "sqlite")]
        StorageKind::Sqlite => {
            let existing = match in_the_way {
                InTheWay::Kept => knm_storage_sqlite::Existing::Refused,
                InTheWay::Replaced => knm_storage_sqlite::Existing::Overwritten,
            };
            let contents = knm_storage_sqlite::back_up(&sqlite_options(settings), to, existing, ended).await?;
            Ok(copied(contents, None))
        }
        #[cfg(not(feature = "sqlite"))]
        StorageKind::Sqlite => {
            let _ = (to, in_the_way, ended);
            Err(not_built(settings.kind))
        }
        StorageKind::Postgres => Err(no_file(settings.kind, "backup", ": use pg_dump")),
        StorageKind::Memory => Err(no_file(settings.kind, "backup", ", which keeps nothing")),
    }
}

/// Puts the file `from` in the place of the file of the database, unless it is `ended` before that is done. What is replaced has a name that
/// ends in `suffix` afterwards.
///
/// # Errors
/// [`OpenError`].
pub async fn restore(
    settings: &DatabaseSettings,
    from: &Path,
    in_the_way: InTheWay,
    suffix: &str,
    ended: impl Future<Output = ()>,
) -> Result<Copied, OpenError> {
    match settings.kind {
        #[cfg(feature = "sqlite")]
        StorageKind::Sqlite => {
            let replaced = match in_the_way {
                InTheWay::Kept => knm_storage_sqlite::Replaced::Kept,
                InTheWay::Replaced => knm_storage_sqlite::Replaced::Discarded,
            };
            let restored =
                knm_storage_sqlite::restore(&sqlite_options(settings), from, replaced, suffix, ended).await?;
            Ok(copied(restored.contents, restored.kept))
        }
        #[cfg(not(feature = "sqlite"))]
        StorageKind::Sqlite => {
            let _ = (from, in_the_way, suffix, ended);
            Err(not_built(settings.kind))
        }
        StorageKind::Postgres => Err(no_file(settings.kind, "restore", ": use pg_restore")),
        StorageKind::Memory => Err(no_file(settings.kind, "restore", ", which keeps nothing")),
    }
}

fn no_file(kind: StorageKind, command: &'static str, advice: &'static str) -> OpenError {
    OpenError::NoFile {
        command,
        kind: kind.as_str(),
        advice,
    }
}

#[cfg(feature = "sqlite")]
fn copied(contents: knm_storage_sqlite::Contents, kept: Option<PathBuf>) -> Copied {
    Copied {
        schema: contents.schema,
        rows: contents.rows,
        unended_operations: contents.unended_operations,
        active_tokens: contents.active_tokens,
        repairing_bindings: contents.repairing_bindings,
        bytes: contents.bytes,
        kept,
    }
}

/// Says what is wrong with a connection string, without showing it. A build without PostgreSQL cannot tell and leaves it to
/// [`open`], which refuses it.
///
/// # Errors
/// A sentence about the problem.
pub fn check_postgres_url(url: &str) -> Result<(), String> {
    #[cfg(feature = "postgres")]
    return knm_storage_postgres::PostgresOptions::from_url(url)
        .map(drop)
        .map_err(|error| error.to_string());
    #[cfg(not(feature = "postgres"))]
    {
        let _ = url;
        Ok(())
    }
}

/// Tells what the metrics of the stores mean.
pub fn describe_metrics() {
    #[cfg(feature = "sqlite")]
    knm_storage_sqlite::describe_metrics();
    #[cfg(feature = "postgres")]
    knm_storage_postgres::describe_metrics();
}

#[cfg(not(all(feature = "sqlite", feature = "postgres", feature = "memory")))]
fn not_built(kind: StorageKind) -> OpenError {
    OpenError::NotBuilt { kind: kind.as_str() }
}

#[cfg(feature = "sqlite")]
fn sqlite_options(settings: &DatabaseSettings) -> knm_storage_sqlite::SqliteOptions {
    knm_storage_sqlite::SqliteOptions {
        path: settings.path.clone(),
        max_lifetime: settings.max_lifetime,
        leak_threshold: settings.leak_threshold,
        acquire_timeout: settings.acquire_timeout,
        migration_timeout: settings.migration_timeout,
    }
}

#[cfg(feature = "postgres")]
fn postgres_options(settings: &DatabaseSettings) -> Result<knm_storage_postgres::PostgresOptions, OpenError> {
    use knm_storage_postgres::{PostgresOptions, SslMode};
    use secrecy::ExposeSecret as _;

    let wrong = |what: String| OpenError::Options(what);
    let address = match &settings.url {
        Some(url) => PostgresOptions::from_url(url.expose_secret()).map_err(|error| wrong(error.to_string()))?,
        None => PostgresOptions {
            host: settings.host.clone(),
            port: settings.port,
            database: settings.database.clone(),
            username: settings.username.clone(),
            password: settings.password.clone(),
            ssl_mode: SslMode::parse(&settings.ssl_mode)
                .ok_or_else(|| wrong(format!("database.ssl_mode: \"{}\" is not known", settings.ssl_mode)))?,
            ssl_root_cert: settings.ssl_root_cert.clone(),
            ..PostgresOptions::default()
        },
    };
    Ok(PostgresOptions {
        max_open_conns: settings.max_open_conns,
        max_idle_conns: settings.max_idle_conns,
        max_lifetime: settings.max_lifetime,
        leak_threshold: settings.leak_threshold,
        acquire_timeout: settings.acquire_timeout,
        migration_timeout: settings.migration_timeout,
        instance: settings.instance.clone(),
        ..address
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_with_one_id_are_told_apart_by_their_hosts() {
        assert_eq!(instance(None, "pod-1", 1), "pod-1/1");
        assert_eq!(instance(Some("pod-1"), "pod-1", 1), "pod-1/1");
        assert_eq!(instance(Some("prod"), "pod-1", 1), "prod/pod-1/1");
        assert_eq!(instance(Some("prod"), "pod-2", 1), "prod/pod-2/1");
    }
}
