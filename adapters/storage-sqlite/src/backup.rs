//! Copies of a file, made while others work with it, and put back in its place.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;

use knm_ports::{HoldError, StorageError};
use knm_storage_sql::TABLES;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};

use crate::dialect::now_unix_ms;
use crate::holding::{Lacking, in_use, is_there, lock, origin, reading, unlockable, warn_of_no_lock};
use crate::lock::{FileLock, LOCK, LockError};
use crate::partial::{Partial, unless};
use crate::replacing::{COMPANIONS, replace};
use crate::store_content::schema_versions;
use crate::{BUSY_TIMEOUT, SqliteOptions, create_folder, folder, without_links};

/// Operations that a service goes on with as soon as it runs.
const UNENDED: &str = "SELECT count(*) FROM operations WHERE state IN ('queued', 'running', 'paused', 'cancelling')";
const ACTIVE_TOKENS: &str = concat!(
    "SELECT count(*) FROM api_tokens WHERE revoked_at_unix_ms IS NULL AND expires_at_unix_ms > ",
    now_unix_ms!()
);

/// Bindings whose latest version is not their removal and repairs nodes.
const REPAIRING: &str =
    "SELECT count(*) FROM definition_versions AS latest WHERE kind = 'binding' AND content_json ->> '$.reconcile'
    AND NOT EXISTS (SELECT 1 FROM definition_versions AS later
        WHERE later.kind = latest.kind AND later.name = latest.name AND later.version > latest.version)";

/// What becomes of a file that is in the way of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and there is no backup.
    Refused,
    /// The backup takes its place, once it is complete.
    Overwritten,
}

/// What becomes of the database that is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// It is kept beside the new one.
    Kept,
    /// It is removed.
    Discarded,
}

/// What a copy holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The version of its schema.
    pub schema: i64,
    /// How many rows each table has.
    pub rows: Vec<(&'static str, u64)>,
    /// How many operations are not over.
    pub unended_operations: u64,
    /// How many API tokens are accepted.
    pub active_tokens: u64,
    /// How many bindings of templates repair nodes.
    pub repairing_bindings: u64,
    /// How large the file is.
    pub bytes: u64,
}

/// What was done to put a copy back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What the database holds now.
    pub contents: Contents,
    /// Where the one that was replaced is.
    pub kept: Option<PathBuf>,
}

/// Why there is no copy, or none was put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database is not there, or others have it.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// The database says no.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is a file of this name.
    #[error("{} exists already; --overwrite replaces it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The copy is the database itself.
    #[error("{} is the database itself", path.display())]
    Itself {
        /// The file.
        path: PathBuf,
    },
    /// The copy would be a part of the database.
    #[error("{} is the name of a file that belongs to the database: choose another one", path.display())]
    Companion {
        /// The file.
        path: PathBuf,
    },
    /// It was to end before it was done.
    #[error("interrupted")]
    Interrupted,
    /// The copy is of no use.
    #[error("{} cannot be used: {why}", path.display())]
    Unusable {
        /// The copy.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file system says no.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        #[source]
        /// What lies below.
        source: io::Error,
    },
}

/// Writes what the database holds at this moment into the file `to`, which nobody but its owner can read. Others may work with the database
/// meanwhile. The file has its name only when it is complete, checked and on the disk. It ends before that when `ended` does.
///
/// # Errors
/// [`BackupError`]; then there is no new file.
pub async fn back_up(
    options: &SqliteOptions,
    to: &Path,
    existing: Existing,
    ended: impl Future<Output = ()>,
) -> Result<Contents, BackupError> {
    let mut ended = pin!(ended);
    let options = &options.clone().without_links();
    let origin = origin(options);
    if !is_there(&options.path).await? {
        return Err(HoldError::Missing { place: origin.place }.into());
    }
    let _lock = share(options)?;
    refuse_itself(options, to)?;
    refuse_companion(options, to)?;
    if existing == Existing::Refused && fs::symlink_metadata(to).is_ok() {
        return Err(BackupError::Exists { path: to.to_owned() });
    }
    let copy = Partial::beside(to)?;
    let connect = reading(&options.path)?.busy_timeout(BUSY_TIMEOUT);
    copy.fill_from_database(connect, &origin, to, ended.as_mut()).await?;
    let contents = unless(ended, examine(copy.path(), to)).await?;
    copy.as_file()
        .sync_all()
        .map_err(file_failed(to, "it cannot be written to the disk"))?;
    let copy = copy.into_file();
    let persisted = match existing {
        Existing::Refused => copy.persist_noclobber(to),
        Existing::Overwritten => copy.persist(to),
    };
    persisted.map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists { path: to.to_owned() },
        _ => file_failed(to, "it cannot be given its name")(error.error),
    })?;
    sync_folder(to)?;
    Ok(contents)
}

/// Puts the file `from` in the place of the database, which nobody has open. What is replaced is kept under a name that ends in `suffix`. It
/// ends when `ended` does, unless the copy is complete and takes its place.
///
/// # Errors
/// [`BackupError`]; then the database is as it was.
pub async fn restore(
    options: &SqliteOptions,
    from: &Path,
    replaced: Replaced,
    suffix: &str,
    ended: impl Future<Output = ()>,
) -> Result<Restored, BackupError> {
    let mut ended = pin!(ended);
    let options = &options.clone().without_links();
    let file = &options.path;
    let source = File::open(from).map_err(file_failed(from, "it cannot be read"))?;
    if !source.metadata().is_ok_and(|found| found.is_file()) {
        return Err(unusable(from, "it is no file"));
    }
    let log = beside(&without_links(from), "-wal");
    if log.metadata().is_ok_and(|found| 0 < found.len()) {
        return Err(unusable(
            from,
            "there is a write-ahead log beside it, so it is a database that is or was in use and no backup: `backup` makes one of it",
        ));
    }
    refuse_itself(options, from)?;
    // What is of no use leaves no trace where the database is.
    unless(ended.as_mut(), examine(from, from)).await?;
    create_folder(file).await?;
    let hold = lock(options, &origin(options), Lacking::Refused)?;
    let copy = Partial::beside(file)?;
    let written = async {
        let written = copy.fill_from_file(source).await;
        written.map_err(file_failed(file, "the copy cannot be written"))
    };
    unless(ended.as_mut(), written).await?;
    let contents = unless(ended, examine(copy.path(), from)).await?;
    let kept = replace(options, copy.into_file(), replaced, suffix).await?;
    sync_folder(file)?;
    hold.end();
    Ok(Restored { contents, kept })
}

/// Whether the copy is whole and from this program, and what is in it. Errors name it `shown`.
async fn examine(copy: &Path, shown: &Path) -> Result<Contents, BackupError> {
    let connect = SqliteConnectOptions::new()
        .filename(copy)
        .read_only(true)
        .immutable(true);
    let unreadable = |error: sqlx::Error| unusable(shown, &format!("it is no whole SQLite database: {error}"));
    let mut connection = connect.connect().await.map_err(unreadable)?;
    let faults: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check")
        .fetch_all(&mut connection)
        .await
        .map_err(unreadable)?;
    if faults != ["ok"] {
        let first = faults.first().map_or("it does not say why", String::as_str);
        return Err(unusable(shown, &format!("it is damaged: {first}")));
    }
    let strangers = sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut connection).await;
    if !strangers.map_err(unreadable)?.is_empty() {
        return Err(unusable(shown, "rows in it refer to rows that are not there"));
    }
    let options = SqliteOptions::new(shown);
    let schema = schema_versions(&origin(&options), &mut connection).await?;
    if schema.applied == 0 {
        return Err(unusable(shown, "it holds no schema of kube-node-manager"));
    }
    let rows = count(&mut connection).await.map_err(unreadable)?;
    let is_there = |table: &str| rows.iter().any(|(name, _)| *name == table);
    let (mut unended_operations, mut active_tokens, mut repairing_bindings) = (0, 0, 0);
    if is_there("operations") {
        unended_operations = ask(&mut connection, UNENDED).await.map_err(unreadable)?;
    }
    if is_there("api_tokens") {
        active_tokens = ask(&mut connection, ACTIVE_TOKENS).await.map_err(unreadable)?;
    }
    if is_there("definition_versions") {
        repairing_bindings = ask(&mut connection, REPAIRING).await.map_err(unreadable)?;
    }
    connection.close().await.map_err(unreadable)?;
    let bytes = copy.metadata().map_or(0, |found| found.len());
    Ok(Contents {
        schema: schema.applied,
        rows,
        unended_operations,
        active_tokens,
        repairing_bindings,
        bytes,
    })
}

async fn count(connection: &mut SqliteConnection) -> Result<Vec<(&'static str, u64)>, sqlx::Error> {
    let there: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table'")
        .fetch_all(&mut *connection)
        .await?;
    let mut rows = Vec::new();
    // An earlier version of the schema lacks some.
    for table in TABLES
        .iter()
        .filter(|table| there.iter().any(|name| name == table.name))
    {
        let statement = AssertSqlSafe(format!("SELECT count(*) FROM {}", table.name));
        rows.push((table.name, ask(connection, statement).await?));
    }
    Ok(rows)
}

async fn ask(connection: &mut SqliteConnection, count: impl sqlx::SqlSafeStr) -> Result<u64, sqlx::Error> {
    let found: i64 = sqlx::query_scalar(count).fetch_one(connection).await?;
    Ok(found.unsigned_abs())
}

/// There is none where nobody can write, or where the file system has no locks.
fn share(options: &SqliteOptions) -> Result<Option<FileLock>, BackupError> {
    match FileLock::shared(&options.path) {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Taken) => Err(in_use(&origin(options)).into()),
        Err(LockError::Unsupported(error)) => {
            warn_of_no_lock(&options.path, &error);
            Ok(None)
        }
        Err(LockError::System(error)) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(None),
        Err(LockError::System(error)) => Err(unlockable(options, error).into()),
    }
}

fn refuse_itself(options: &SqliteOptions, other: &Path) -> Result<(), BackupError> {
    match is_same(other, &options.path) {
        true => Err(BackupError::Itself { path: other.to_owned() }),
        false => Ok(()),
    }
}

/// A file of such a name would be taken for a part of the database, if it did not replace one.
fn refuse_companion(options: &SqliteOptions, to: &Path) -> Result<(), BackupError> {
    let is_companion = COMPANIONS.iter().chain([&LOCK]).any(|ending| {
        let companion = beside(&options.path, ending);
        companion.file_name() == to.file_name()
    });
    match is_companion && is_same(folder(to), folder(&options.path)) {
        true => Err(BackupError::Companion { path: to.to_owned() }),
        false => Ok(()),
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
    place(one).is_some_and(|there| place(other) == Some(there))
}

/// Only then does the new name outlive a loss of power.
fn sync_folder(file: &Path) -> Result<(), BackupError> {
    let synced = File::open(folder(file)).and_then(|folder| folder.sync_all());
    synced.map_err(file_failed(file, "its folder cannot be written to the disk"))
}

pub(crate) fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

pub(crate) fn unusable(path: &Path, why: &str) -> BackupError {
    BackupError::Unusable {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}

pub(crate) fn file_failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { path, what, source }
}
