//! What opening a file accepts and refuses, and what others do to it.

use std::path::Path;
use std::time::Duration;

use knm_model::{Authority, OperationFilter};
use knm_ports::{Storage, StorageError};
use knm_storage_sqlite::SqliteOptions;
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection};

async fn migrated(file: &Path) -> Storage {
    let storage = knm_storage_sqlite::open(SqliteOptions::new(file))
        .await
        .expect("a file");
    storage.admin.migrate().await.expect("the migrations run");
    storage
}

/// Somebody else who works on the file.
async fn somebody(file: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(file);
    options.connect().await.expect("the same file")
}

#[tokio::test]
async fn the_folder_of_the_file_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deep/down/nodes.db");
    migrated(&file).await.admin.close().await;
    assert!(file.is_file());
    assert!(
        !folder.path().join("deep/down/nodes.db-wal").exists(),
        "the log is folded into the file at the end"
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let cases = [
        folder.path().join("file/nodes.db"),
        folder.path().to_owned(),
        Path::new("/proc/nodes.db").to_owned(),
        Path::new("/proc/data/nodes.db").to_owned(),
    ];
    for file in cases {
        let error = knm_storage_sqlite::open(SqliteOptions::new(&file)).await.err().unwrap();
        assert!(matches!(error, StorageError::Refused { .. }), "{error:?}");
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_corrupt_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.txt");
    let text = "remember the milk\n".repeat(100);
    std::fs::write(&file, &text).unwrap();

    let error = knm_storage_sqlite::open(SqliteOptions::new(&file)).await.err().unwrap();

    assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("notes.txt"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[tokio::test]
async fn the_pool_is_one_connection() {
    let folder = tempfile::tempdir().unwrap();
    let storage = migrated(&folder.path().join("nodes.db")).await;
    futures::future::join_all((0..50).map(|_| storage.admin.ping())).await;
    let pool = storage.admin.pool();
    assert_eq!((pool.max_open, pool.max_idle, pool.open), (1, 1, 1), "{pool:?}");
}

#[tokio::test]
async fn migrating_waits_for_another_process_and_gives_up_after_its_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nodes.db");
    let options = SqliteOptions {
        migration_timeout: Some(Duration::from_millis(200)),
        ..SqliteOptions::new(&file)
    };
    let storage = knm_storage_sqlite::open(options).await.unwrap();
    let mut other = somebody(&file).await;
    let transaction = other.begin_with("BEGIN IMMEDIATE").await.unwrap();

    let error = storage.admin.migrate().await.unwrap_err();

    assert!(matches!(error, StorageError::TimedOut { .. }), "{error:?}");
    transaction.rollback().await.unwrap();
    migrated(&file).await;
}

#[tokio::test]
async fn a_migration_that_was_changed_afterwards_is_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nodes.db");
    let storage = migrated(&file).await;
    let changed = somebody(&file)
        .await
        .execute("UPDATE _sqlx_migrations SET checksum = x'00'")
        .await;
    assert!(0 < changed.unwrap().rows_affected());

    for refused in [
        storage.admin.schema().await.map(drop),
        storage.admin.migrate().await.map(drop),
    ] {
        assert!(matches!(refused, Err(StorageError::Corrupt { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn a_schema_to_which_a_later_version_added_something_is_left_alone_and_any_other_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nodes.db");
    let storage = migrated(&file).await;
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (9999, 'add something', TRUE, x'00', 1)";
    let mut other = somebody(&file).await;
    other.execute(later).await.unwrap();

    assert_eq!(storage.admin.migrate().await.unwrap(), 0);
    let schema = storage.admin.schema().await.unwrap();
    assert_eq!((schema.applied, schema.pending, schema.later), (9999, 0, 1));

    let otherwise = "UPDATE _sqlx_migrations SET description = 'drop something' WHERE version = 9999";
    other.execute(otherwise).await.unwrap();
    for refused in [
        storage.admin.schema().await.map(drop),
        storage.admin.migrate().await.map(drop),
    ] {
        assert!(matches!(refused, Err(StorageError::Corrupt { .. })), "{refused:?}");
    }
}

/// What a version before wrote is read, whichever that was; each of its migrations is a schema that may be found.
#[tokio::test]
async fn every_earlier_schema_is_migrated_with_what_it_holds() {
    let all = sqlx::migrate!("../../migrations/sqlite");
    let count = all.iter().count();
    for before in 1..count {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nodes.db");
        let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
        let mut connection = options.connect().await.unwrap();
        let earlier = Migrator::with_migrations(all.iter().take(before).cloned().collect());
        earlier.run(&mut connection).await.unwrap();
        let known = "INSERT INTO cluster_registrations (name, source, registered_at_unix_ms, changed_at_unix_ms) VALUES ('prod', 'demo', 1, 2)";
        connection.execute(known).await.unwrap();
        connection.close().await.unwrap();

        let storage = knm_storage_sqlite::open(SqliteOptions::new(&file)).await.unwrap();
        let schema = storage.admin.schema().await.unwrap();
        assert_eq!(
            (schema.applied, schema.pending, schema.later),
            (before as i64, count - before, 0)
        );
        assert_eq!(storage.admin.migrate().await.unwrap(), count - before, "from {before}");
        assert_eq!(storage.clusters.list().await.unwrap()[0].name.as_str(), "prod");
    }
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nodes.db");
    let storage = knm_storage_sqlite::open(SqliteOptions::new(&file)).await.unwrap();
    let pending = storage.admin.schema().await.unwrap().pending;
    let mut other = somebody(&file).await;
    other
        .execute("CREATE TABLE cluster_registrations (name TEXT)")
        .await
        .unwrap();

    let error = storage.admin.migrate().await.unwrap_err();

    assert!(matches!(error, StorageError::Internal { .. }), "{error:?}");
    assert_eq!(storage.admin.schema().await.unwrap().pending, pending);
    other.execute("DROP TABLE cluster_registrations").await.unwrap();
    assert_eq!(storage.admin.migrate().await.unwrap(), pending);
}

#[tokio::test]
async fn what_nobody_here_wrote_is_corrupt_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nodes.db");
    let storage = migrated(&file).await;
    let foreign = "INSERT INTO cluster_registrations VALUES ('prod', 'moon', 0, 0)";
    somebody(&file).await.execute(foreign).await.unwrap();

    let error = storage.clusters.list().await.unwrap_err();

    assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("\"moon\""), "{error}");
}

#[tokio::test]
async fn an_operation_that_a_version_before_wrote_may_be_done_by_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nodes.db");
    let storage = migrated(&file).await;
    let mut other = somebody(&file).await;
    // As a replica wrote it that did not know by what operations may be done.
    let before = r#"INSERT INTO operations (id, kind, actor_kind, options_json, strategy_json, dry_run, created_at_unix_ms, state,
            total, done, failed, skipped, excused, last_event, lease_epoch)
        VALUES (randomblob(16), 'cordon', 'anonymous', '{}',
            '{"max_concurrent": 1, "order": "AsGiven", "pause_between": {"secs": 0, "nanos": 0}, "uncordon_after": "Never"}',
            FALSE, 0, 'queued', 1, 0, 0, 0, 0, 1, 0)"#;
    other.execute(before).await.unwrap();

    let found = storage.operations.page(&OperationFilter::default(), None, 9).await;

    let operation = &found.unwrap()[0];
    assert_eq!(operation.authority, Authority::Open);
    // What cannot be read must not become that.
    let damage = "UPDATE operations SET authority_json = '\"everybody\"'";
    other.execute(damage).await.unwrap();
    let error = storage.operations.find(operation.id).await.unwrap_err();
    assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("authority_json"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_create_and_migrate_the_same_file_at_once() {
    for _ in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteOptions::new(folder.path().join("data/nodes.db"));
        let starts = (0..8).map(|_| {
            let options = options.clone();
            tokio::spawn(async move {
                let storage = knm_storage_sqlite::open(options).await?;
                storage.admin.migrate().await
            })
        });
        let mut times_applied = Vec::new();
        for start in futures::future::join_all(starts).await {
            times_applied.push(start.unwrap().unwrap());
        }
        // One of them applied all migrations at once.
        times_applied.sort_unstable();
        assert!(
            times_applied[..7].iter().all(|applied| *applied == 0),
            "{times_applied:?}"
        );
        assert!(0 < times_applied[7], "{times_applied:?}");
    }
}
