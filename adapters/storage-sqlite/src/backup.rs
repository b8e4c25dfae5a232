//! Copies of a file, made while others work with it, and put back in its place.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use knm_ports::{HoldError, StorageError};
use knm_storage_sql::TABLES;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};
use tempfile::NamedTempFile;

use crate::holding::{Lacking, lock, origin, unlockable};
use crate::lock::{FileLock, LockError};
use crate::store_content::schema_versions;
use crate::{BUSY_TIMEOUT, SqliteOptions, create_folder};

/// What SQLite keeps beside a file.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

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
/// meanwhile. The file has its name only when it is complete, checked and on the disk.
///
/// # Errors
/// [`BackupError`]; then there is no new file.
pub async fn back_up(options: &SqliteOptions, to: &Path, existing: Existing) -> Result<Contents, BackupError> {
    let origin = origin(options);
    if !options.path.is_file() {
        return Err(HoldError::Missing { place: origin.place }.into());
    }
    let _lock = share(options)?;
    refuse_itself(options, to)?;
    if existing == Existing::Refused && fs::symlink_metadata(to).is_ok() {
        return Err(BackupError::Exists { path: to.to_owned() });
    }
    let copy = temporary(to)?;
    let failed = |error| origin.storage_error("the backup", error);
    let connect = SqliteConnectOptions::new().filename(&options.path).read_only(true);
    let mut connection = connect.busy_timeout(BUSY_TIMEOUT).connect().await.map_err(failed)?;
    let vacuum = sqlx::query("VACUUM INTO $1").bind(copy.path().to_string_lossy().into_owned());
    vacuum.execute(&mut connection).await.map_err(failed)?;
    connection.close().await.map_err(failed)?;

    let contents = examine(copy.path(), to).await?;
    copy.as_file()
        .sync_all()
        .map_err(file_failed(to, "it cannot be written to the disk"))?;
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

/// Puts the file `from` in the place of the database, which nobody has open. What is replaced is kept under a name that ends in `suffix`.
///
/// # Errors
/// [`BackupError`]; then the database is as it was.
pub async fn restore(
    options: &SqliteOptions,
    from: &Path,
    replaced: Replaced,
    suffix: &str,
) -> Result<Restored, BackupError> {
    let file = &options.path;
    let source = File::open(from).map_err(file_failed(from, "it cannot be read"))?;
    if !source.metadata().is_ok_and(|found| found.is_file()) {
        return Err(unusable(from, "it is no file"));
    }
    let log = beside(from, "-wal");
    if log.metadata().is_ok_and(|found| 0 < found.len()) {
        return Err(unusable(
            from,
            "there is a write-ahead log beside it, so it is a database that is or was in use and no backup: `backup` makes one of it",
        ));
    }
    create_folder(file).await?;
    let hold = lock(options, &origin(options), Lacking::Refused)?;
    refuse_itself(options, from)?;
    let mut copy = temporary(file)?;
    let written = tokio::task::spawn_blocking(move || {
        let mut source = source;
        io::copy(&mut source, copy.as_file_mut())?;
        copy.as_file().sync_all()?;
        Ok::<_, io::Error>(copy)
    });
    let copy = written
        .await
        .map_err(io::Error::other)
        .and_then(|written| written)
        .map_err(file_failed(file, "the copy cannot be written"))?;
    let contents = examine(copy.path(), from).await?;
    let kept = replace(options, copy, replaced, suffix).await?;
    sync_folder(file)?;
    hold.end();
    Ok(Restored { contents, kept })
}

/// Gives `copy` the place of the database. There is a whole database in that place at each moment, as long as the old one works.
async fn replace(
    options: &SqliteOptions,
    copy: NamedTempFile,
    replaced: Replaced,
    suffix: &str,
) -> Result<Option<PathBuf>, BackupError> {
    let file = &options.path;
    let old = file.metadata().ok();
    let mut kept = None;
    if let Some(old) = old {
        // Whoever runs the service can open what it could open before.
        let copied = copy
            .as_file()
            .metadata()
            .map_err(file_failed(file, "the copy cannot be looked at"))?;
        if (copied.uid(), copied.gid()) != (old.uid(), old.gid()) {
            chown(copy.path(), Some(old.uid()), Some(old.gid()))
                .map_err(file_failed(file, "the copy cannot be given the owner of the database"))?;
        }
        fs::set_permissions(copy.path(), old.permissions()).map_err(file_failed(
            file,
            "the copy cannot be given the permissions of the database",
        ))?;
        // One that is broken cannot be folded into one file; it is kept as it is.
        drop(fold_log(file).await);
        if replaced == Replaced::Kept {
            let name = beside(file, &format!(".{suffix}"));
            // A second name first, so that there is never none; not every file system has such.
            fs::hard_link(file, &name)
                .or_else(|_| fs::copy(file, &name).map(drop))
                .map_err(file_failed(&name, "the replaced database cannot be kept"))?;
            kept = Some(name);
        }
    }
    // What a log beside it holds would be taken for a part of the new one.
    for companion in COMPANIONS {
        let stale = beside(file, companion);
        let gone = match &kept {
            Some(kept) => fs::rename(&stale, beside(kept, companion)),
            None => fs::remove_file(&stale),
        };
        match gone {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(file_failed(&stale, "it cannot be taken away")(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    copy.persist(file)
        .map_err(|error| file_failed(file, "it cannot be replaced")(error.error))?;
    Ok(kept)
}

/// Writes what is in the log into the file itself.
async fn fold_log(file: &Path) -> Result<(), sqlx::Error> {
    let connect = SqliteConnectOptions::new().filename(file).busy_timeout(BUSY_TIMEOUT);
    let mut connection = connect.connect().await?;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut connection)
        .await?;
    connection.close().await
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
    if schema.wanted < schema.applied {
        let (theirs, ours) = (schema.applied, schema.wanted);
        return Err(unusable(
            shown,
            &format!(
                "it has schema version {theirs} and this program knows those up to {ours}: use the version that made it"
            ),
        ));
    }
    let rows = count(&mut connection).await.map_err(unreadable)?;
    connection.close().await.map_err(unreadable)?;
    let bytes = copy.metadata().map_or(0, |found| found.len());
    Ok(Contents {
        schema: schema.applied,
        rows,
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
        let count: i64 = sqlx::query_scalar(statement).fetch_one(&mut *connection).await?;
        rows.push((table.name, count.unsigned_abs()));
    }
    Ok(rows)
}

fn share(options: &SqliteOptions) -> Result<FileLock, BackupError> {
    FileLock::shared(&options.path).map_err(|error| match error {
        LockError::Taken => HoldError::InUse {
            place: origin(options).place,
        }
        .into(),
        LockError::System(error) => unlockable(options, error).into(),
    })
}

fn refuse_itself(options: &SqliteOptions, other: &Path) -> Result<(), BackupError> {
    let place = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
    match place(other) {
        Some(there) if place(&options.path) == Some(there) => Err(BackupError::Itself { path: other.to_owned() }),
        Some(_) | None => Ok(()),
    }
}

/// A file beside `file` that only its owner can read, and that goes unless it is given a name.
fn temporary(file: &Path) -> Result<NamedTempFile, BackupError> {
    let mut prefix = OsString::from(".");
    prefix.push(file.file_name().unwrap_or_default());
    prefix.push(".");
    tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(".partial")
        .tempfile_in(folder(file))
        .map_err(file_failed(file, "its folder cannot be written to"))
}

fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

/// Only then does the new name outlive a loss of power.
fn sync_folder(file: &Path) -> Result<(), BackupError> {
    let synced = File::open(folder(file)).and_then(|folder| folder.sync_all());
    synced.map_err(file_failed(file, "its folder cannot be written to the disk"))
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn unusable(path: &Path, why: &str) -> BackupError {
    BackupError::Unusable {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}

fn file_failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { path, what, source }
}
