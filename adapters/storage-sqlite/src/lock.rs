//! Who has a file open, and who has it alone.
//!
//! SQLite's own locks last as long as a statement or a transaction: a service that is idle has none. So whoever opens a file holds a lock
//! of the operating system on a file beside it, shared with all others; to move or replace the content takes that lock alone. It ends
//! with the process, however that ends. It is not on the database's file itself: SQLite's own locks would go when ours does, and a file
//! that is replaced takes its locks along. The file stays there: to remove it would let two processes lock two different ones.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

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
    name.push("-lock");
    name.into()
}

fn open(file: &Path) -> io::Result<File> {
    let path = lock_file(file);
    match OpenOptions::new().append(true).create(true).open(&path) {
        // Somebody else's file can be locked, too.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && path.exists() => File::open(path),
        opened => opened,
    }
}

fn taken(locked: Result<(), TryLockError>) -> Result<(), LockError> {
    locked.map_err(|error| match error {
        TryLockError::WouldBlock => LockError::Taken,
        TryLockError::Error(error) => LockError::System(error),
    })
}
