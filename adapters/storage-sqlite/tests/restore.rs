//! What a copy is put in the place of, and what it is made of.

use std::ffi::OsStr;
use std::fs;
use std::future::pending;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use knm_ports::{HoldError, Purpose};
use knm_storage_sqlite::{BackupError, Existing, Replaced, SqliteOptions, back_up, restore};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection};
use tempfile::TempDir;

struct Place {
    folder: TempDir,
    options: SqliteOptions,
}

impl Place {
    /// A database, and a backup of it.
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder of its own");
        let options = SqliteOptions::new(folder.path().join("data/nodes.db"));
        let storage = knm_storage_sqlite::open(options.clone()).await.expect("a file");
        storage.admin.migrate().await.expect("the migrations run");
        storage.admin.close().await;
        let place = Self { folder, options };
        back_up(&place.options, &place.backup(), Existing::Refused, pending())
            .await
            .expect("a backup");
        place
    }

    fn backup(&self) -> PathBuf {
        self.folder.path().join("backup")
    }

    async fn restore(&self, options: &SqliteOptions) -> Result<Option<PathBuf>, BackupError> {
        let restored = restore(options, &self.backup(), Replaced::Kept, "replaced", pending()).await?;
        Ok(restored.kept)
    }
}

async fn somebody(file: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(file);
    options.connect().await.expect("the file")
}

/// The names of the files in `folder`.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Waits until a copy in `folder` has grown.
async fn in_the_middle(folder: &Path) {
    loop {
        let has_grown = |name: &String| {
            let file = folder.join(name);
            name.ends_with(".partial") && file.metadata().is_ok_and(|found| 1_000_000 < found.len())
        };
        if names(folder).iter().any(has_grown) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn is_root() -> bool {
    let folder = tempfile::tempdir().expect("a folder of its own");
    let is_root = chown(folder.path(), Some(4_242), None).is_ok();
    if !is_root {
        knm_test_support::skip("root", "to give files to somebody else");
    }
    is_root
}

#[tokio::test]
async fn a_link_to_a_database_and_the_database_have_one_lock_and_the_link_stays() {
    let place = Place::new().await;
    let link = place.folder.path().join("link.db");
    symlink("data/nodes.db", &link).unwrap();
    let through_link = SqliteOptions::new(&link);

    let storage = knm_storage_sqlite::open(place.options.clone()).await.unwrap();
    let error = place.restore(&through_link).await.unwrap_err();
    assert!(matches!(error, BackupError::Hold(HoldError::InUse { .. })), "{error:?}");
    let held = knm_storage_sqlite::hold(&through_link, Purpose::Read).await.err();
    assert!(matches!(held, Some(HoldError::InUse { .. })), "{held:?}");
    storage.admin.close().await;
    let storage = knm_storage_sqlite::open(through_link.clone()).await.unwrap();
    let error = place.restore(&place.options).await.unwrap_err();
    assert!(matches!(error, BackupError::Hold(HoldError::InUse { .. })), "{error:?}");
    storage.admin.close().await;

    let kept = place.restore(&through_link).await.unwrap();
    assert_eq!(
        kept,
        Some(
            place
                .folder
                .path()
                .canonicalize()
                .unwrap()
                .join("data/nodes.db.replaced")
        )
    );
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(!place.folder.path().join("link.db-lock").exists());
}

#[tokio::test]
async fn a_link_to_a_database_that_is_not_there_yet_leads_to_its_lock() {
    let place = Place::new().await;
    let link = place.folder.path().join("link.db");
    symlink("data/new.db", &link).unwrap();

    let storage = knm_storage_sqlite::open(SqliteOptions::new(&link)).await.unwrap();

    assert!(place.folder.path().join("data/new.db-lock").exists());
    assert!(!place.folder.path().join("link.db-lock").exists());
    storage.admin.close().await;
}

#[tokio::test]
async fn somebody_without_our_lock_keeps_a_database_from_being_replaced() {
    let place = Place::new().await;
    let file = &place.options.path;
    let mut other = somebody(file).await;
    other
        .execute("INSERT INTO leases VALUES ('theirs', 'them', 1)")
        .await
        .unwrap();
    let log = file.with_file_name("nodes.db-wal");
    let written = fs::metadata(&log).unwrap().len();
    assert!(0 < written);

    let error = place.restore(&place.options).await.unwrap_err();

    assert!(matches!(error, BackupError::Hold(HoldError::InUse { .. })), "{error:?}");
    assert_eq!(fs::metadata(&log).unwrap().len(), written);
    other.close().await.unwrap();
    let kept = place.restore(&place.options).await.unwrap().unwrap();
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM leases WHERE name = 'theirs'")
        .fetch_one(&mut somebody(&kept).await)
        .await
        .unwrap();
    assert_eq!(count, 1);
}

#[tokio::test]
async fn a_broken_database_is_replaced_and_kept_as_it_was() {
    let place = Place::new().await;
    fs::write(&place.options.path, "remember the milk\n".repeat(500)).unwrap();

    let kept = place.restore(&place.options).await.unwrap().unwrap();

    assert!(fs::read_to_string(kept).unwrap().starts_with("remember"));
}

#[tokio::test]
async fn two_databases_that_are_replaced_at_once_are_both_kept() {
    let place = Place::new().await;
    fs::write(&place.options.path, "one".repeat(500)).unwrap();
    let first = place.restore(&place.options).await.unwrap().unwrap();
    fs::write(&place.options.path, "two".repeat(500)).unwrap();
    let second = place.restore(&place.options).await.unwrap().unwrap();

    assert!(fs::read_to_string(first).unwrap().starts_with("one"));
    assert!(fs::read_to_string(&second).unwrap().starts_with("two"));
    assert!(second.ends_with("nodes.db.replaced-2"), "{}", second.display());
}

#[tokio::test]
async fn what_a_service_would_go_on_with_is_counted() {
    let place = Place::new().await;
    let mut other = somebody(&place.options.path).await;
    for statement in [
        "INSERT INTO operations (id, kind, actor_kind, options_json, strategy_json, dry_run, created_at_unix_ms, state,
            total, done, failed, skipped, excused, last_event, lease_epoch)
        SELECT randomblob(16), 'drain', 'anonymous', '{}', '{}', FALSE, 0, value, 1, 0, 0, 0, 0, 1, 0
        FROM json_each('[\"queued\", \"running\", \"paused\", \"succeeded\"]')",
        "INSERT INTO api_tokens (id, name, hash, role, force, created_at_unix_ms, created_by, expires_at_unix_ms,
            revoked_at_unix_ms, revoked_by)
        VALUES ('0000000000000001', 'good', zeroblob(32), 'admin', 0, 0, 'me', 4102444800000, NULL, NULL),
            ('0000000000000002', 'old', zeroblob(32), 'admin', 0, 0, 'me', 1, NULL, NULL),
            ('0000000000000003', 'revoked', zeroblob(32), 'admin', 0, 0, 'me', 4102444800000, 1, 'me')",
        "INSERT INTO definition_versions (kind, name, version, content_json, changed_at_unix_ms, changed_by)
        VALUES ('binding', 'tells', 1, '{\"template\":\"t\",\"reconcile\":false}', 0, 'me'),
            ('binding', 'repairs', 1, '{\"template\":\"t\",\"reconcile\":false}', 0, 'me'),
            ('binding', 'repairs', 2, '{\"template\":\"t\",\"reconcile\":true}', 0, 'me'),
            ('binding', 'removed', 1, '{\"template\":\"t\",\"reconcile\":true}', 0, 'me'),
            ('binding', 'removed', 2, NULL, 0, 'me'),
            ('template', 't', 1, '{\"reconcile\":true}', 0, 'me')",
    ] {
        other.execute(statement).await.unwrap();
    }
    other.close().await.unwrap();

    let contents = back_up(&place.options, &place.backup(), Existing::Overwritten, pending())
        .await
        .unwrap();

    assert_eq!((contents.unended_operations, contents.active_tokens), (3, 1));
    assert_eq!(contents.repairing_bindings, 1);
}

#[tokio::test]
async fn a_database_to_which_a_later_version_added_something_is_backed_up_and_restored() {
    let place = Place::new().await;
    let change = |name: &'static str| {
        let file = place.options.path.clone();
        async move {
            let mut other = somebody(&file).await;
            sqlx::query("INSERT OR REPLACE INTO _sqlx_migrations VALUES (9999, $1, 0, TRUE, x'00', 1)")
                .bind(name)
                .execute(&mut other)
                .await
                .unwrap();
            other.close().await.unwrap();
        }
    };
    change("add what nobody knows").await;
    let later = place.folder.path().join("later");
    let backup = || back_up(&place.options, &later, Existing::Overwritten, pending());
    assert_eq!(backup().await.unwrap().schema, 9_999);
    let restored = restore(&place.options, &later, Replaced::Discarded, "", pending())
        .await
        .unwrap();
    assert_eq!(restored.contents.schema, 9_999);

    change("change what everybody knows").await;
    let error = backup().await.unwrap_err();
    assert!(error.to_string().contains("9999"), "{error}");
}

#[tokio::test]
async fn what_root_makes_belongs_to_the_owner_of_the_folder() {
    if !is_root() {
        return;
    }
    let place = Place::new().await;
    for (name, folder_mode, mode) in [("own", 0o755, 0o600), ("shared", 0o775, 0o660)] {
        let folder = place.folder.path().join(name);
        fs::create_dir(&folder).unwrap();
        chown(&folder, Some(4_242), Some(4_243)).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(folder_mode)).unwrap();

        place
            .restore(&SqliteOptions::new(folder.join("nodes.db")))
            .await
            .unwrap();

        for file in ["nodes.db", "nodes.db-lock"] {
            let made = fs::metadata(folder.join(file)).unwrap();
            assert_eq!((made.uid(), made.gid()), (4_242, 4_243), "{file}");
            assert_eq!(made.mode() & mode, mode, "{file}");
        }
        let database = fs::metadata(folder.join("nodes.db")).unwrap();
        assert_eq!(database.mode() & 0o777, mode);
    }
}

#[tokio::test]
async fn a_backup_whose_name_is_no_text_is_refused() {
    let place = Place::new().await;
    let to = place.folder.path().join(OsStr::from_bytes(b"nightly-\xff"));
    let before = fs::read_dir(place.folder.path()).unwrap().count();

    let error = back_up(&place.options, &to, Existing::Refused, pending())
        .await
        .unwrap_err();

    assert!(error.to_string().contains("not UTF-8"), "{error}");
    assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), before);
}

#[tokio::test]
async fn a_copy_that_is_ended_in_the_middle_leaves_nothing() {
    let place = Place::new().await;
    let file = &place.options.path;
    let mut other = somebody(file).await;
    other
        .execute(
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 20000)
            INSERT INTO leases SELECT n, hex(zeroblob(2000)), 1 FROM numbers",
        )
        .await
        .unwrap();
    other.close().await.unwrap();
    let folder = place.folder.path();
    let before = names(folder);
    let to = folder.join("another");

    let ended = in_the_middle(folder);
    let error = back_up(&place.options, &to, Existing::Refused, ended)
        .await
        .unwrap_err();
    assert!(matches!(error, BackupError::Interrupted), "{error:?}");
    assert_eq!(names(folder), before);

    back_up(&place.options, &to, Existing::Refused, pending())
        .await
        .unwrap();
    let data = file.parent().unwrap();
    let (before, ended) = (names(data), in_the_middle(data));
    let restored = restore(&place.options, &to, Replaced::Kept, "replaced", ended).await;
    let error = restored.unwrap_err();
    assert!(matches!(error, BackupError::Interrupted), "{error:?}");
    assert_eq!(names(data), before);
}

#[tokio::test]
async fn a_backup_takes_no_name_that_belongs_to_the_database() {
    let place = Place::new().await;
    let storage = knm_storage_sqlite::open(place.options.clone()).await.unwrap();
    storage.admin.ping().await.unwrap();
    symlink("data", place.folder.path().join("other way")).unwrap();
    for folder in ["data", "other way"] {
        for ending in ["-wal", "-shm", "-journal", "-lock"] {
            let to = place.folder.path().join(format!("{folder}/nodes.db{ending}"));
            for existing in [Existing::Refused, Existing::Overwritten] {
                let error = back_up(&place.options, &to, existing, pending()).await.unwrap_err();
                assert!(matches!(error, BackupError::Companion { .. }), "{error:?}");
                assert!(error.to_string().contains(ending), "{error}");
            }
        }
    }
    let elsewhere = place.folder.path().join("nodes.db-wal");
    back_up(&place.options, &elsewhere, Existing::Refused, pending())
        .await
        .unwrap();
    storage.tokens.list().await.unwrap();
    storage.admin.close().await;
}

#[tokio::test]
async fn a_database_that_cannot_be_looked_at_is_not_said_to_be_missing() {
    let place = Place::new().await;
    let to = place.folder.path().join("another");
    // Root may enter every folder; nobody enters a file.
    let within = SqliteOptions::new(place.options.path.join("nodes.db"));

    let error = back_up(&within, &to, Existing::Refused, pending()).await.unwrap_err();

    assert!(error.to_string().contains("it cannot be looked at: "), "{error}");
    let missing = SqliteOptions::new(place.folder.path().join("none.db"));
    let error = back_up(&missing, &to, Existing::Refused, pending()).await.unwrap_err();
    assert!(
        matches!(error, BackupError::Hold(HoldError::Missing { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn what_is_no_backup_leaves_no_trace_where_the_database_would_be() {
    let place = Place::new().await;
    let options = SqliteOptions::new(place.folder.path().join("new/nodes.db"));
    let whole = fs::read(place.backup()).unwrap();
    let mut damaged = whole.clone();
    damaged[8_192..12_288].fill(7);
    for bytes in [
        b"remember the milk\n".repeat(500),
        whole[..whole.len() / 2].to_vec(),
        damaged,
    ] {
        fs::write(place.backup(), bytes).unwrap();

        let error = place.restore(&options).await.unwrap_err();

        assert!(matches!(error, BackupError::Unusable { .. }), "{error:?}");
        assert_eq!(names(place.folder.path()), ["backup", "data"]);
    }
    fs::write(place.backup(), whole).unwrap();
    place.restore(&options).await.unwrap();
}

#[tokio::test]
async fn a_new_database_is_its_owners_alone_and_one_that_is_there_stays_as_it_is() {
    let place = Place::new().await;
    let mode = |file: &Path| fs::metadata(file).unwrap().mode() & 0o777;
    let (opened, filled) = (
        place.folder.path().join("opened.db"),
        place.folder.path().join("filled.db"),
    );
    let service = || async {
        let storage = knm_storage_sqlite::open(SqliteOptions::new(&opened)).await.unwrap();
        storage.admin.migrate().await.unwrap();
        storage
    };

    let storage = service().await;
    for ending in ["", "-wal", "-lock"] {
        let file = place.folder.path().join(format!("opened.db{ending}"));
        assert_eq!(mode(&file), 0o600, "{ending}");
    }
    storage.admin.close().await;
    let content = knm_storage_sqlite::hold(&SqliteOptions::new(&filled), Purpose::Fill).await;
    content.unwrap().close().await;
    assert_eq!(mode(&filled), 0o600);

    fs::set_permissions(&opened, fs::Permissions::from_mode(0o640)).unwrap();
    fs::remove_file(place.folder.path().join("opened.db-lock")).unwrap();
    service().await.admin.close().await;
    assert_eq!(mode(&opened), 0o640);
    assert_eq!(mode(&place.folder.path().join("opened.db-lock")), 0o640);
}
