//! The storage contract on a file to which a later version has added columns and tables: during a rolling update, and after a way back, this
//! version reads and writes there.

use knm_contract::storage::StorageFixture;
use knm_storage_sqlite::SqliteOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use tempfile::TempDir;
use tokio::sync::OnceCell;

knm_contract::storage_contract!(@rows later_sqlite);

const NAME: &str = "nodes.db";
const TABLES: &str =
    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> '_sqlx_migrations'";
const LATER: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
    VALUES (9999, 'add what nobody knows', TRUE, x'00', 1)";

/// A copy of one file for all: to make each anew takes a hundred writes to the disk.
async fn later_sqlite() -> Option<StorageFixture> {
    static FILE: OnceCell<TempDir> = OnceCell::const_new();
    let made = FILE.get_or_init(make).await;
    let folder = tempfile::tempdir().expect("a folder of its own");
    let file = folder.path().join(NAME);
    std::fs::copy(made.path().join(NAME), &file).expect("a copy");
    let options = SqliteOptions::new(&file);
    let open = || knm_storage_sqlite::open(options.clone());
    let storage = open().await.expect("the copy");
    let schema = storage.admin.schema().await.expect("it is accepted");
    assert_eq!((schema.pending, schema.later), (0, 1));
    Some(StorageFixture {
        storage,
        replica: open().await.expect("the same file"),
        keep: Box::new(folder),
    })
}

async fn make() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder of its own");
    let file = folder.path().join(NAME);
    let storage = knm_storage_sqlite::open(SqliteOptions::new(&file))
        .await
        .expect("a new file");
    storage.admin.migrate().await.expect("the migrations run");
    storage.admin.close().await;

    let connect = SqliteConnectOptions::new().filename(&file);
    let mut later = connect.connect().await.expect("the same file");
    let tables: Vec<String> = sqlx::query_scalar(TABLES)
        .fetch_all(&mut later)
        .await
        .expect("the tables");
    assert!(10 < tables.len(), "{tables:?}");
    let mut transaction = later.begin().await.expect("a transaction");
    for table in tables {
        for column in ["later_name TEXT", "later_count INTEGER NOT NULL DEFAULT 7"] {
            let add = format!("ALTER TABLE {table} ADD COLUMN {column}");
            transaction
                .execute(AssertSqlSafe(add))
                .await
                .expect("a column can be added");
        }
    }
    for statement in ["CREATE TABLE later_things (name TEXT NOT NULL)", LATER] {
        transaction.execute(statement).await.expect("it can be added");
    }
    transaction.commit().await.expect("it is written");
    // What is still in the log is folded into the file.
    later.close().await.expect("it closes");
    folder
}
