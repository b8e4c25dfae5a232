//! A file that takes the place of the database.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::NamedTempFile;

use crate::backup::{BackupError, Replaced, beside, file_failed};
use crate::holding::{in_use, origin};
use crate::ownership::Manner;
use crate::{BUSY_TIMEOUT, SqliteOptions};

/// What SQLite keeps beside a file.
pub(crate) const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Gives `copy` the place of the database. There is a whole database in that place at each moment, as long as the old one works. What is
/// replaced is kept under a name that ends in `suffix`, or in that and a number.
pub(crate) async fn replace(
    options: &SqliteOptions,
    copy: NamedTempFile,
    replaced: Replaced,
    suffix: &str,
) -> Result<Option<PathBuf>, BackupError> {
    let file = &options.path;
    let mut kept = None;
    match file.metadata() {
        Ok(old) => {
            take_after(copy.as_file(), &old, file)?;
            fold_log(options).await?;
            if replaced == Replaced::Kept {
                kept = Some(keep(file, suffix)?);
            }
        }
        Err(_) => Manner::of(file)
            .and_then(|manner| manner.give(copy.as_file()))
            .map(drop)
            .map_err(file_failed(file, "the copy cannot be given the owner of its folder"))?,
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

/// Whoever runs the service can open what it could open before.
fn take_after(copy: &File, old: &fs::Metadata, file: &Path) -> Result<(), BackupError> {
    let copied = copy
        .metadata()
        .map_err(file_failed(file, "the copy cannot be looked at"))?;
    if (copied.uid(), copied.gid()) != (old.uid(), old.gid()) {
        fchown(copy, Some(old.uid()), Some(old.gid()))
            .map_err(file_failed(file, "the copy cannot be given the owner of the database"))?;
    }
    copy.set_permissions(old.permissions()).map_err(file_failed(
        file,
        "the copy cannot be given the permissions of the database",
    ))
}

/// Writes what is in the log into the file itself and removes the log. SQLite does that only while nobody else has a connection to the file,
/// so it also finds those who take no lock of ours: an earlier version, `sqlite3`, what replicates the file.
///
/// A file that is broken cannot be folded; it is being replaced, and is kept as it is.
async fn fold_log(options: &SqliteOptions) -> Result<(), BackupError> {
    let origin = origin(options);
    match leave_log(&options.path).await {
        Ok(mode) if mode == "delete" => Ok(()),
        Ok(_) => Err(in_use(&origin).into()),
        Err(error) => match code(&error) {
            // SQLITE_BUSY and SQLITE_LOCKED.
            Some(5 | 6) => Err(in_use(&origin).into()),
            // SQLITE_CORRUPT and SQLITE_NOTADB.
            Some(11 | 26) => Ok(()),
            Some(_) | None => Err(origin.storage_error("the log of the database", error).into()),
        },
    }
}

async fn leave_log(file: &Path) -> Result<String, sqlx::Error> {
    let connect = SqliteConnectOptions::new().filename(file).busy_timeout(BUSY_TIMEOUT);
    let mut connection = connect.connect().await?;
    let mode = sqlx::query_scalar("PRAGMA journal_mode=DELETE")
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(mode)
}

/// The primary result code of SQLite.
fn code(error: &sqlx::Error) -> Option<u32> {
    let code: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// Gives the database a second name, so that it is never without one.
fn keep(file: &Path, suffix: &str) -> Result<PathBuf, BackupError> {
    let mut name = beside(file, &format!(".{suffix}"));
    let mut number = 1;
    loop {
        // Not every file system has second names. One that is taken stays what it is: it may be the database itself.
        let kept = fs::hard_link(file, &name).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Err(error),
            _ => copy_new(file, &name),
        });
        match kept {
            Ok(()) => return Ok(name),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                number += 1;
                name = beside(file, &format!(".{suffix}-{number}"));
            }
            Err(error) => return Err(file_failed(&name, "the replaced database cannot be kept")(error)),
        }
    }
}

fn copy_new(file: &Path, name: &Path) -> io::Result<()> {
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(name)?;
    let copied = File::open(file)
        .and_then(|mut old| {
            io::copy(&mut old, &mut new)?;
            new.set_permissions(old.metadata()?.permissions())
        })
        .and_then(|()| new.sync_all());
    if copied.is_err() {
        // A part of it is of no use to anybody.
        drop(fs::remove_file(name));
    }
    copied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_second_names_gets_a_copy_that_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (file, name) = (folder.path().join("nodes.db"), folder.path().join("kept"));
        fs::write(&file, "one").unwrap();
        copy_new(&file, &name).unwrap();
        fs::write(&file, "two").unwrap();

        let error = copy_new(&file, &name).unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&name).unwrap(), "one");
    }
}
