//! Real file systems without room and without write permission. Only root may mount those; elsewhere these tests say that they are
//! skipped, and the unit tests of the crate bring about the same errors of SQLite by its own means.

use std::error::Error;
use std::future::pending;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use knm_model::{ClusterName, ClusterRegistration, ClusterSource, Timestamp};
use knm_ports::{Cell, Purpose, StorageError};
use knm_storage_sqlite::{BackupError, Existing, SqliteOptions};
use tempfile::TempDir;

/// A file system in memory of a few hundred KiB.
struct FileSystem {
    folder: TempDir,
}

impl FileSystem {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=384k", "tmpfs"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self { folder });
        }
        knm_test_support::skip("mounts", "to mount a small file system");
        None
    }

    fn make_read_only(&self) {
        let status = Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(self.folder.path())
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "the file system can be remounted"
        );
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("nodes.db")
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        // Lazily: a connection of a failed test may still be open.
        drop(Command::new("umount").arg("--lazy").arg(self.folder.path()).status());
    }
}

fn registration(number: usize) -> ClusterRegistration {
    let time = Timestamp::from_unix_millis(0).expect("1970");
    ClusterRegistration {
        name: ClusterName::from_any(&format!("{number:0>60}")),
        source: ClusterSource::Demo,
        registered_at: time,
        changed_at: time,
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_that_names_the_file_and_what_was_stored_stays() {
    let Some(disk) = FileSystem::mount() else {
        return;
    };
    let storage = knm_storage_sqlite::open(SqliteOptions::new(disk.file())).await.unwrap();
    storage.admin.migrate().await.unwrap();
    let mut stored = 0;
    let error = loop {
        match storage.clusters.insert(&registration(stored)).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StorageError::Full { .. }), "{error:?}");
    let source = error.source().unwrap().to_string();
    assert!(source.contains(&disk.file().display().to_string()), "{source}");
    assert_eq!(storage.clusters.list().await.unwrap().len(), stored);
    storage.admin.close().await;
}

#[tokio::test]
async fn a_disk_without_room_for_a_new_file_is_an_error_that_names_it() {
    let Some(disk) = FileSystem::mount() else {
        return;
    };
    let fill = std::fs::write(disk.folder.path().join("fill"), vec![0; 1024 * 1024]);
    assert!(fill.is_err(), "the disk is larger than it should be");

    let opened = knm_storage_sqlite::open(SqliteOptions::new(disk.file())).await;

    let error = opened.err().unwrap();
    assert!(matches!(error, StorageError::Full { .. }), "{error:?}");
    let source = error.source().unwrap().to_string();
    assert!(source.contains(&disk.file().display().to_string()), "{source}");
}

#[tokio::test]
async fn a_file_on_a_read_only_disk_is_refused_by_name() {
    let Some(disk) = FileSystem::mount() else {
        return;
    };
    let storage = knm_storage_sqlite::open(SqliteOptions::new(disk.file())).await.unwrap();
    storage.admin.migrate().await.unwrap();
    storage.admin.close().await;
    drop(storage);
    disk.make_read_only();
    let new = disk.folder.path().join("data/other.db");

    for file in [disk.file(), new] {
        let error = knm_storage_sqlite::open(SqliteOptions::new(&file)).await.err().unwrap();

        assert!(matches!(error, StorageError::Refused { .. }), "{error:?}");
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_disk_that_becomes_full_while_a_file_is_filled_leaves_it_empty() {
    let Some(disk) = FileSystem::mount() else {
        return;
    };
    let options = SqliteOptions::new(disk.file());
    let content = knm_storage_sqlite::hold(&options, Purpose::Fill).await.unwrap();
    content.create_schema().await.unwrap();
    let leases = content.tables().iter().find(|table| table.name == "leases").unwrap();
    let mut number = 0;
    let error = loop {
        let row = vec![
            Cell::Text(format!("{number:0>8}")),
            Cell::Text("x".repeat(100_000)),
            Cell::Integer(1),
        ];
        number += 1;
        let put = content.put(leases, vec![row]).await;
        let kept = match put {
            Ok(()) if 20 < number => content.keep().await,
            put => put,
        };
        if let Err(error) = kept {
            break error;
        }
    };
    assert!(matches!(error, StorageError::Full { .. }), "{error:?}");
    content.close().await;

    let content = knm_storage_sqlite::hold(&options, Purpose::Read).await.unwrap();
    assert_eq!(content.count(leases).await.unwrap(), 0);
    content.close().await;
}

#[tokio::test]
async fn a_backup_onto_a_full_disk_leaves_nothing_there() {
    let Some(disk) = FileSystem::mount() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions::new(folder.path().join("nodes.db"));
    let storage = knm_storage_sqlite::open(options.clone()).await.unwrap();
    storage.admin.migrate().await.unwrap();
    let fill = std::fs::write(disk.folder.path().join("fill"), vec![0; 1024 * 1024]);
    assert!(fill.is_err(), "the disk is larger than it should be");

    let backup = knm_storage_sqlite::back_up(&options, &disk.file(), Existing::Refused, pending()).await;

    let error = backup.err().unwrap();
    assert!(
        matches!(error, BackupError::Storage(StorageError::Full { .. })),
        "{error:?}"
    );
    let left = std::fs::read_dir(disk.folder.path()).unwrap();
    let names: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["fill"]);
    storage.admin.close().await;
}

#[tokio::test]
async fn a_database_on_a_read_only_disk_is_read_and_backed_up_unless_a_log_is_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    for log in ["", "what was written last"] {
        let Some(disk) = FileSystem::mount() else {
            return;
        };
        let options = SqliteOptions::new(disk.file());
        let storage = knm_storage_sqlite::open(options.clone()).await.unwrap();
        storage.admin.migrate().await.unwrap();
        storage.admin.close().await;
        drop(storage);
        // The disk of another version, or one that was unmounted in time.
        std::fs::remove_file(disk.folder.path().join("nodes.db-lock")).unwrap();
        std::fs::write(disk.folder.path().join("nodes.db-wal"), log).unwrap();
        disk.make_read_only();

        let read = knm_storage_sqlite::hold(&options, Purpose::Read).await;
        let backup = knm_storage_sqlite::back_up(
            &options,
            &folder.path().join("backup"),
            Existing::Overwritten,
            pending(),
        )
        .await;

        if log.is_empty() {
            let content = read.unwrap();
            assert!(0 < content.schema().await.unwrap().applied);
            content.close().await;
            backup.unwrap();
        } else {
            let (read, backup) = (read.err().unwrap().to_string(), backup.unwrap_err().to_string());
            assert!(read.contains("copy both files elsewhere"), "{read}");
            assert!(backup.contains("copy both files elsewhere"), "{backup}");
        }
    }
}
