//! The storage contract on a file to which a later version has added columns and tables: during a rolling update, and after a way back, this
//! version reads and writes there.

use knm_contract::storage::StorageFixture;
use knm_storage_sqlite::SqliteOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};

knm_contract::storage_contract!(@rows later_sqlite);

const TABLES: &str =
    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> '_sqlx_migrations'";
const LATER: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
    VALUES (9999, 'add what nobody knows', TRUE, x'00', 1)";

async fn later_sqlite() -> Option<StorageFixture> {
    let folder = tempfile::tempdir().expect("a folder of its own");
    let file = folder.path().join("nodes.db");
    let options = SqliteOptions::new(&file);
    let open = || knm_storage_sqlite::open(options.clone());
    let storage = open().await.expect("a new file");
    storage.admin.migrate().await.expect("the migrations run");

    let connect = SqliteConnectOptions::new().filename(&file);
    let mut later = connect.connect().await.expect("the same file");
    let tables: Vec<String> = sqlx::query_scalar(TABLES)
        .fetch_all(&mut later)
        .await
        .expect("the tables");
    assert!(10 < tables.len(), "{tables:?}");
    for table in tables {
        for column in ["later_name TEXT", "later_count INTEGER NOT NULL DEFAULT 7"] {
            let add = format!("ALTER TABLE {table} ADD COLUMN {column}");
            later.execute(AssertSqlSafe(add)).await.expect("a column can be added");
        }
    }
    later
        .execute("CREATE TABLE later_things (name TEXT NOT NULL)")
        .await
        .expect("a table can be added");
    later.execute(LATER).await.expect("it is noted");
    let schema = storage.admin.schema().await.expect("it is accepted");
    assert_eq!((schema.pending, schema.later), (0, 1));
    Some(StorageFixture {
        storage,
        replica: open().await.expect("the same file"),
        keep: Box::new(folder),
    })
}
