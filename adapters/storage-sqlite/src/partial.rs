//! A copy on its way: beside the place where it shall be, under a name that nobody takes for it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use knm_storage_sql::Origin;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tempfile::NamedTempFile;
use tokio::io::{AsyncWriteExt as _, BufReader};

use crate::backup::{BackupError, beside, file_failed, unusable};
use crate::folder;

/// How many steps SQLite takes between two looks whether it shall end: less than a millisecond.
const STEPS: i32 = 1_000;
/// How long it may take to end then.
const FAREWELL: Duration = Duration::from_secs(5);
/// How much of a file is copied at once.
const PIECE: usize = 1024 * 1024;

/// A file that only its owner can read, and that goes, with what SQLite keeps beside it, unless it is given a name.
pub(crate) struct Partial {
    file: NamedTempFile,
    journal: Journal,
}

/// What SQLite keeps beside a file that it fills.
struct Journal(PathBuf);

impl Drop for Journal {
    fn drop(&mut self) {
        // SQLite has removed it unless it was cut off.
        drop(fs::remove_file(&self.0));
    }
}

impl Partial {
    /// A new one beside `file`, whose name it will get.
    pub(crate) fn beside(file: &Path) -> Result<Self, BackupError> {
        let mut prefix = OsString::from(".");
        prefix.push(file.file_name().unwrap_or_default());
        prefix.push(".");
        let partial = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".partial")
            .tempfile_in(folder(file))
            .map_err(file_failed(file, "its folder cannot be written to"))?;
        Ok(Self {
            journal: Journal(beside(partial.path(), "-journal")),
            file: partial,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// The file.
    pub(crate) fn as_file(&self) -> &File {
        self.file.as_file()
    }

    /// The file, to give it a name.
    pub(crate) fn into_file(self) -> NamedTempFile {
        drop(self.journal);
        self.file
    }

    /// Writes what the database holds at this moment. Errors name it `shown`.
    pub(crate) async fn fill_from_database(
        &self,
        connect: SqliteConnectOptions,
        origin: &Origin,
        shown: &Path,
        ended: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), BackupError> {
        let Some(name) = self.path().to_str() else {
            let why = "its name or that of its folder is not UTF-8, and SQLite takes no other: choose another one";
            return Err(unusable(shown, why));
        };
        let failed = |error| origin.storage_error("the backup", error);
        let mut connection = connect.connect().await.map_err(failed)?;
        let end = vacuum(&mut connection, name, ended).await;
        if let Some(filled) = end {
            filled.map_err(failed)?;
            return connection.close().await.map_err(|error| failed(error).into());
        }
        Err(BackupError::Interrupted)
    }

    /// Writes what `source` holds, to the disk.
    pub(crate) async fn fill_from_file(&self, source: File) -> io::Result<()> {
        let mut source = BufReader::with_capacity(PIECE, tokio::fs::File::from_std(source));
        let mut copy = tokio::fs::File::from_std(self.as_file().try_clone()?);
        tokio::io::copy_buf(&mut source, &mut copy).await?;
        copy.flush().await?;
        copy.sync_all().await
    }
}

/// Does `work`, unless that is `ended` before.
pub(crate) async fn unless<T>(
    ended: Pin<&mut impl Future<Output = ()>>,
    work: impl Future<Output = Result<T, BackupError>>,
) -> Result<T, BackupError> {
    tokio::select! {
        biased;
        done = work => done,
        () = ended => Err(BackupError::Interrupted),
    }
}

/// Writes the database into the file `name`; `None` if that was ended before. SQLite works in a thread of its own, which would go on when
/// nobody waits for it any more and make its files anew when they have been removed: so it is told to end, and waited for.
async fn vacuum(
    connection: &mut SqliteConnection,
    name: &str,
    ended: Pin<&mut impl Future<Output = ()>>,
) -> Option<Result<(), sqlx::Error>> {
    let shall_end = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&shall_end);
    let mut working = pin!(async {
        let mut handle = connection.lock_handle().await?;
        handle.set_progress_handler(STEPS, move || !told.load(Ordering::Relaxed));
        drop(handle);
        let vacuum = sqlx::query("VACUUM INTO $1").bind(name);
        vacuum.execute(connection).await.map(drop)
    });
    tokio::select! {
        biased;
        done = &mut working => Some(done),
        () = ended => {
            shall_end.store(true, Ordering::Relaxed);
            // One that does not end ends with the process.
            drop(tokio::time::timeout(FAREWELL, working).await);
            None
        }
    }
}
