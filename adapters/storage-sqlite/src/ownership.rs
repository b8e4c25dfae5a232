//! Whose files are that are made for a database, and who may open them: whoever runs the service must be able to, and nobody else.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Reading and writing, without what folders and programs have besides.
const BITS: u32 = 0o666;
const OWNER_ONLY: u32 = 0o600;
const GROUP_TOO: u32 = 0o660;

/// What a file is like that is made for a database.
pub(crate) enum Manner {
    /// As the database.
    Database(Metadata),
    /// As what is in its folder, for there is none yet.
    Folder(Metadata),
}

/// Whether a file has the owner that it shall have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// It has.
    All,
    /// It is somebody else's, who made it, or of another group.
    NotAll,
}

impl Manner {
    /// What there is for the database in `file`.
    pub(crate) fn of(file: &Path) -> io::Result<Self> {
        match file.metadata() {
            Ok(database) => Ok(Self::Database(database)),
            Err(_) => fs::metadata(crate::folder(file)).map(Self::Folder),
        }
    }

    /// Gives `made` its owner and its permissions, and says whether it has that owner then: only root can give files away, and not everywhere.
    pub(crate) fn give(&self, made: &File) -> io::Result<Given> {
        let own = made.metadata()?;
        let is_roots = own.uid() == 0;
        let (like, mode) = match self {
            Self::Database(database) => (database, database.mode() & BITS),
            Self::Folder(_) if !is_roots => return set_mode(made, OWNER_ONLY).map(|()| Given::All),
            // A volume may be the group's whose root is root's.
            Self::Folder(folder) if folder.mode() & 0o020 == 0 => (folder, OWNER_ONLY),
            Self::Folder(folder) => (folder, GROUP_TOO),
        };
        let has_owner = is_roots || own.uid() == like.uid();
        let given = match (own.uid(), own.gid()) == (like.uid(), like.gid()) {
            true => Ok(()),
            false => fchown(made, is_roots.then_some(like.uid()), Some(like.gid())),
        };
        match given {
            Ok(()) => {
                set_mode(made, mode)?;
                Ok(if has_owner { Given::All } else { Given::NotAll })
            }
            // The second is that of an owner whom a container does not know.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
                ) =>
            {
                Ok(Given::NotAll)
            }
            Err(error) => Err(error),
        }
    }
}

/// Makes the database in `file`, empty, if it is not there. SQLite would make it as the umask says, for everybody to read as a rule.
///
/// To close a file ends the locks of the whole process on it, so nobody goes on to lock it before it is closed here.
pub(crate) fn make(file: &Path) -> io::Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one_at_a_time = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let manner = Manner::of(file)?;
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(OWNER_ONLY)
        .open(file);
    match made {
        Ok(made) => manner.give(&made).map(drop),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Lets those do with `made` what `mode` says.
pub(crate) fn set_mode(made: &File, mode: u32) -> io::Result<()> {
    made.set_permissions(Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(file: &File) -> u32 {
        file.metadata().unwrap().mode() & 0o777
    }

    #[test]
    fn what_is_made_for_a_database_has_its_permissions_whatever_the_umask_is() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("nodes.db");
        fs::write(&database, "").unwrap();
        // As somebody who is not root; only root can become that here, and for everybody else it is so.
        let made = File::create(folder.path().join("nodes.db-lock")).unwrap();
        for file in [&File::open(&database).unwrap(), &made] {
            drop(fchown(file, Some(4_242), Some(4_243)));
        }
        for (masked, wanted) in [(0o600, 0o660), (0o644, 0o600), (0o640, 0o664)] {
            fs::set_permissions(&database, Permissions::from_mode(wanted)).unwrap();
            set_mode(&made, masked).unwrap();

            let given = Manner::of(&database).unwrap().give(&made).unwrap();

            assert_eq!((given, mode(&made)), (Given::All, wanted));
        }
    }

    #[test]
    fn what_is_made_before_there_is_a_database_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("nodes.db");
        let made = File::create(folder.path().join("nodes.db-lock")).unwrap();
        set_mode(&made, 0o644).unwrap();

        let given = Manner::of(&database).unwrap().give(&made).unwrap();

        assert_eq!((given, mode(&made)), (Given::All, 0o600));
    }

    #[test]
    fn a_database_that_is_there_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("nodes.db");
        make(&database).unwrap();
        assert_eq!(mode(&File::open(&database).unwrap()), 0o600);
        fs::set_permissions(&database, Permissions::from_mode(0o644)).unwrap();
        make(&database).unwrap();
        assert_eq!(mode(&File::open(&database).unwrap()), 0o644);
    }
}
