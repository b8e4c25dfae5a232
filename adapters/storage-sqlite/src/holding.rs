//! A file that nobody else opens meanwhile: to move what is in it.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use knm_ports::{Cell, Column, HoldError, Purpose, StorageError, StoreContent, Table};
use knm_storage_sql::{Dialect, Origin};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection};

use crate::lock::{FileLock, LockError, is_on_read_only_disk};
use crate::store_content::{SqlStoreContent, bind, names};
use crate::{BUSY_TIMEOUT, OPERATION_TIMEOUT, SqliteOptions, create_folder, file_error, make};

/// SQLite's own tables have names that nobody else may give.
pub(crate) const RELATIONS: &str = "SELECT name FROM sqlite_schema
WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name <> '_sqlx_migrations'
ORDER BY name";
/// What is done before a transaction ends: here nothing, the migration says what the planner must know.
pub(crate) const BEFORE_THE_END: &[&str] = &[];
/// Compares indexes with their tables, too. The first fault is enough.
const CHECK: &str = "PRAGMA integrity_check(1)";
/// In KiB. Indexes are filled in no order: what is in memory need not be written again and again.
const CACHE: &str = "-65536";
/// How many values a statement has at most; SQLite allows 32,766.
const MOST_VALUES: usize = 10_000;

/// Holds the file: nobody else has it open or opens it until it is closed.
///
/// # Errors
/// [`HoldError`].
pub async fn hold(options: &SqliteOptions, purpose: Purpose) -> Result<Arc<dyn StoreContent>, HoldError> {
    let options = &options.clone().without_links();
    let origin = origin(options);
    let is_there = is_there(&options.path).await?;
    let (connect, hold) = match (purpose, is_there) {
        (Purpose::Read, false) => return Err(HoldError::Missing { place: origin.place }),
        // As it would be if it were made now.
        (Purpose::Rehearse, false) => (SqliteConnectOptions::new().in_memory(true), Hold::default()),
        (Purpose::Read | Purpose::Rehearse, true) => {
            let hold = lock(options, &origin, Lacking::Fine)?;
            (reading(&options.path)?, hold)
        }
        (Purpose::Fill, _) => {
            create_folder(&options.path).await?;
            let hold = lock(options, &origin, Lacking::Refused)?;
            make(&options.path)?;
            let connect = SqliteConnectOptions::new()
                .filename(&options.path)
                .journal_mode(SqliteJournalMode::Wal)
                .pragma("cache_size", CACHE);
            (connect, hold)
        }
    };
    let connect = connect.foreign_keys(true).busy_timeout(BUSY_TIMEOUT);
    let failed = |error| origin.storage_error("the file", error);
    let mut connection = connect.connect().await.map_err(failed)?;
    begin(&origin, &mut connection, purpose).await?;
    if purpose == Purpose::Read {
        refuse_damage(&origin, &mut connection).await?;
    }
    Ok(Arc::new(SqlStoreContent::new(connection, origin, purpose, hold)))
}

/// Whether there is a file. That a folder may not be entered does not say that there is nothing in it.
pub(crate) async fn is_there(file: &Path) -> Result<bool, StorageError> {
    match tokio::fs::metadata(file).await {
        Ok(found) if found.is_file() => Ok(true),
        Ok(_) => Err(file_error(file, "it is no file", io::ErrorKind::IsADirectory.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(file_error(file, "it cannot be looked at", error)),
    }
}

/// How to read a file whose lock was asked for before. SQLite reads one in write-ahead mode only where it can make files beside it, or if it
/// is told that the file does not change.
pub(crate) fn reading(file: &Path) -> Result<SqliteConnectOptions, StorageError> {
    let connect = SqliteConnectOptions::new().filename(file).read_only(true);
    if !is_on_read_only_disk(file) {
        return Ok(connect);
    }
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    if Path::new(&log).metadata().is_ok_and(|found| 0 < found.len()) {
        let what = "there is a write-ahead log beside it, which cannot be read on a disk without write access: copy both files elsewhere";
        return Err(file_error(file, what, io::ErrorKind::ReadOnlyFilesystem.into()));
    }
    Ok(connect.immutable(true))
}

/// Where errors come from.
pub(crate) fn origin(options: &SqliteOptions) -> Origin {
    Origin {
        dialect: Dialect::Sqlite,
        place: format!("sqlite file {}", options.path.display()),
        statement_timeout: OPERATION_TIMEOUT,
    }
}

/// What keeps others out.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    lock: Mutex<Option<FileLock>>,
}

impl Hold {
    /// Lets others in.
    pub(crate) fn end(&self) {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// What becomes of it where the file of the lock is not there and cannot be made.
pub(crate) enum Lacking {
    /// Nobody has the database open who could write to it: whoever opens it makes that file.
    Fine,
    /// It is an error.
    Refused,
}

/// Keeps others out.
pub(crate) fn lock(options: &SqliteOptions, origin: &Origin, lacking: Lacking) -> Result<Hold, HoldError> {
    match (FileLock::alone(&options.path), lacking) {
        (Ok(lock), _) => Ok(Hold {
            lock: Mutex::new(Some(lock)),
        }),
        (Err(LockError::Taken), _) => Err(in_use(origin)),
        (Err(LockError::System(error)), Lacking::Fine)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) && !crate::lock::lock_file(&options.path).exists() =>
        {
            Ok(Hold::default())
        }
        (Err(LockError::Unsupported(error) | LockError::System(error)), _) => Err(unlockable(options, error).into()),
    }
}

/// Somebody has it open. A file does not tell who.
pub(crate) fn in_use(origin: &Origin) -> HoldError {
    HoldError::InUse {
        place: origin.place.clone(),
        sessions: Vec::new(),
    }
}

/// Its lock cannot be had, for no fault of others.
pub(crate) fn unlockable(options: &SqliteOptions, error: io::Error) -> StorageError {
    file_error(
        &options.path,
        "the file beside it whose name ends in -lock cannot be locked",
        error,
    )
}

/// Applies all migrations.
pub(crate) async fn migrate(
    _hold: &Hold,
    origin: &Origin,
    connection: &mut SqliteConnection,
) -> Result<(), StorageError> {
    crate::admin::migrate_connection(origin, connection, &mut 0).await
}

/// Rows are read by an index: one that lacks some would lose them without a word.
async fn refuse_damage(origin: &Origin, connection: &mut SqliteConnection) -> Result<(), StorageError> {
    let found = sqlx::query_scalar(CHECK).fetch_one(connection).await;
    let found: String = found.map_err(|error| origin.storage_error("the file", error))?;
    match found.as_str() {
        "ok" => Ok(()),
        fault => Err(StorageError::Corrupt {
            what: "the file",
            message: format!(
                "{} is damaged: {fault}; a damaged index is made anew by REINDEX",
                origin.place
            ),
        }),
    }
}

/// What works without a lock goes on, for a service ran there before there were any.
pub(crate) fn warn_of_no_lock(file: &Path, error: &io::Error) {
    tracing::warn!(
        file = %file.display(),
        error = error as &dyn std::error::Error,
        "this file system has no locks: nothing keeps two programs from replacing the database under each other, and migrate-data and \
         restore refuse to work here"
    );
}

/// Begins the transaction.
pub(crate) async fn begin(
    origin: &Origin,
    connection: &mut SqliteConnection,
    purpose: Purpose,
) -> Result<(), StorageError> {
    let statement = match purpose {
        Purpose::Read | Purpose::Rehearse => "BEGIN",
        Purpose::Fill => "BEGIN IMMEDIATE",
    };
    let begun = sqlx::query(statement).execute(connection).await;
    begun.map(drop).map_err(|error| origin.storage_error("the file", error))
}

/// Why a column cannot hold a value: here each can hold what a column of another store can.
pub(crate) fn misfit(_column: &Column, _cell: &Cell) -> Option<String> {
    None
}

/// Adds rows, many by one statement.
pub(crate) async fn put(
    connection: &mut SqliteConnection,
    table: &'static Table,
    rows: Vec<Vec<Cell>>,
) -> Result<(), sqlx::Error> {
    let most = (MOST_VALUES / table.columns.len()).max(1);
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let some: Vec<Vec<Cell>> = rows.by_ref().take(most).collect();
        let mut query = sqlx::query(AssertSqlSafe(insert(table, some.len())));
        for cell in some.into_iter().flatten() {
            query = bind(query, cell);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

fn insert(table: &Table, rows: usize) -> String {
    let row = format!("({})", vec!["?"; table.columns.len()].join(", "));
    format!(
        "INSERT INTO {} ({}) VALUES {}",
        table.name,
        names(table.columns),
        vec![row; rows].join(", ")
    )
}
