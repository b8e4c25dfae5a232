//! Who has a file open, and who has it alone.
//!
//! SQLite's own locks tell too little: a service that has the file open but no connection to it at that moment has none, and nobody can
//! take one for as long as a file is replaced. So whoever opens a file holds a lock of the operating system on a file beside it, shared
//! with all others; to move or replace the content takes that lock alone. It ends with the process, however that ends. It is not on the
//! database's file itself: SQLite's own locks would go when ours does, and a file that is replaced takes its locks along. The file stays
//! there: to remove it would let two processes lock two different ones.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::ownership::{Given, Manner, set_mode};

/// What its name ends in.
pub(crate) const LOCK: &str = "-lock";
const EVERYBODY_READS: u32 = 0o444;
/// What Linux says where the locks of a network cannot be had (`ENOLCK`).
const NO_LOCKS: i32 = 37;

/// A lock that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

/// Why there is no lock.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Somebody has the file open, or has it alone.
    Taken,
    /// This file system has no locks.
    Unsupported(io::Error),
    /// The operating system refuses.
    System(io::Error),
}

impl FileLock {
    /// Waits for nobody: a lock shared with all others who have `file` open.
    pub(crate) fn shared(file: &Path) -> Result<Self, LockError> {
        let lock = open(file).map_err(LockError::System)?;
        taken(lock.try_lock_shared())?;
        Ok(Self { _file: lock })
    }

    /// Waits for nobody: a lock that keeps all others out.
    pub(crate) fn alone(file: &Path) -> Result<Self, LockError> {
        let lock = open(file).map_err(LockError::System)?;
        taken(lock.try_lock())?;
        Ok(Self { _file: lock })
    }
}

/// The file that is locked for the database in `file`.
pub(crate) fn lock_file(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(LOCK);
    name.into()
}

/// Whether nothing can be written to the file system of the database in `file`, whose lock was asked for before.
pub(crate) fn is_on_read_only_disk(file: &Path) -> bool {
    let opened = OpenOptions::new().append(true).create(true).open(lock_file(file));
    opened.is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem)
}

fn open(file: &Path) -> io::Result<File> {
    let path = lock_file(file);
    match OpenOptions::new().append(true).create_new(true).open(&path) {
        Ok(made) => {
            // Without permissions of its own it is a lock, too.
            drop(dress(&made, file));
            Ok(made)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open_existing(&path),
        Err(error) => Err(error),
    }
}

/// Whoever can open the database can open its lock, and who cannot open the one cannot keep others out with the other. Where the lock cannot
/// be the owner's of the database, that one can read it at least, which is enough to lock it.
fn dress(made: &File, file: &Path) -> io::Result<()> {
    match Manner::of(file)?.give(made)? {
        Given::All => Ok(()),
        Given::NotAll => set_mode(made, made.metadata()?.mode() & 0o666 | EVERYBODY_READS),
    }
}

fn open_existing(path: &Path) -> io::Result<File> {
    match OpenOptions::new().append(true).open(path) {
        // Somebody else's file can be locked, too, and one that cannot be written.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            File::open(path)
        }
        opened => opened,
    }
}

fn taken(locked: Result<(), TryLockError>) -> Result<(), LockError> {
    locked.map_err(|error| match error {
        TryLockError::WouldBlock => LockError::Taken,
        TryLockError::Error(error)
            if error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(NO_LOCKS) =>
        {
            LockError::Unsupported(error)
        }
        TryLockError::Error(error) => LockError::System(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_locks_is_told_from_a_lock_that_is_refused() {
        // ENOSYS, EOPNOTSUPP, ENOLCK; EIO.
        for number in [38, 95, 37] {
            let answer = taken(Err(TryLockError::Error(io::Error::from_raw_os_error(number))));
            assert!(matches!(answer, Err(LockError::Unsupported(_))), "{answer:?}");
        }
        let answer = taken(Err(TryLockError::Error(io::Error::from_raw_os_error(5))));
        assert!(matches!(answer, Err(LockError::System(_))), "{answer:?}");
    }
}
