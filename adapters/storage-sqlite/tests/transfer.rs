//! What moves out of and into SQLite files.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use knm_contract::transfer::TransferFixture;
use knm_ports::{HoldError, Purpose, Storage, StorageError, StoreContent};
use knm_storage_sqlite::SqliteOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tempfile::TempDir;

knm_contract::transfer_contract!(fresh_sqlite);

struct File {
    folder: TempDir,
}

impl File {
    fn path(&self) -> PathBuf {
        self.folder.path().join("data/nodes.db")
    }

    fn options(&self) -> SqliteOptions {
        SqliteOptions::new(self.path())
    }
}

#[async_trait]
impl TransferFixture for File {
    async fn hold(&self, purpose: Purpose) -> Result<Arc<dyn StoreContent>, HoldError> {
        knm_storage_sqlite::hold(&self.options(), purpose).await
    }

    async fn open(&self) -> Result<Storage, StorageError> {
        knm_storage_sqlite::open(self.options()).await
    }

    async fn somebody_runs(&self, statement: &'static str) {
        std::fs::create_dir_all(self.folder.path().join("data")).expect("a folder");
        let connect = SqliteConnectOptions::new()
            .filename(self.path())
            .create_if_missing(true);
        let mut connection = connect.connect().await.expect("a file");
        sqlx::raw_sql(statement)
            .execute(&mut connection)
            .await
            .expect("it works");
        connection.close().await.expect("it ends");
    }

    async fn columns(&self) -> BTreeSet<(String, String)> {
        let mut connection = SqliteConnectOptions::new()
            .filename(self.path())
            .connect()
            .await
            .expect("a file");
        let found: Vec<(String, String)> = sqlx::query_as(
            "SELECT tables.name, columns.name FROM sqlite_schema AS tables, pragma_table_xinfo(tables.name) AS columns
            WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND tables.name <> '_sqlx_migrations'",
        )
        .fetch_all(&mut connection)
        .await
        .expect("its columns");
        found.into_iter().collect()
    }
}

async fn fresh_sqlite() -> Option<File> {
    let folder = tempfile::tempdir().expect("a folder of its own");
    Some(File { folder })
}

#[tokio::test]
async fn a_file_that_is_not_there_is_neither_read_nor_made() {
    let file = fresh_sqlite().await.unwrap();

    let error = file.hold(Purpose::Read).await.err().unwrap();
    assert!(matches!(error, HoldError::Missing { .. }), "{error:?}");
    file.hold(Purpose::Rehearse).await.unwrap().close().await;

    assert_eq!(std::fs::read_dir(file.folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn reading_leaves_the_file_as_it_was() {
    let file = fresh_sqlite().await.unwrap();
    let storage = file.open().await.unwrap();
    storage.admin.migrate().await.unwrap();
    storage.admin.close().await;
    let before = std::fs::read(file.path()).unwrap();

    let content = file.hold(Purpose::Read).await.unwrap();
    for table in content.tables() {
        content.rows(table, None).await.unwrap();
    }
    content.close().await;

    assert_eq!(std::fs::read(file.path()).unwrap(), before);
}

#[tokio::test]
async fn a_file_with_an_index_that_lacks_a_row_is_not_read() {
    let file = fresh_sqlite().await.unwrap();
    let storage = file.open().await.unwrap();
    storage.admin.migrate().await.unwrap();
    storage.admin.close().await;
    drop(storage);
    let connect = SqliteConnectOptions::new().filename(file.path());
    let index = "idempotency_keys_claimed_at";
    let mut connection = connect.connect().await.unwrap();
    let (root, sql): (i64, String) = sqlx::query_as("SELECT rootpage, sql FROM sqlite_schema WHERE name = $1")
        .bind(index)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    for statements in [
        format!("PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = '{index}'"),
        "INSERT INTO idempotency_keys (caller, key, fingerprint, claimed_at_unix_ms) VALUES ('me', 'k', zeroblob(32), 1)"
            .to_owned(),
        format!(
            "PRAGMA writable_schema = ON; INSERT INTO sqlite_schema VALUES ('index', '{index}', 'idempotency_keys', {root}, '{sql}')"
        ),
    ] {
        // Each connection reads the schema anew.
        let mut connection = connect.connect().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(statements))
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    }
    connection.close().await.unwrap();

    let error = file.hold(Purpose::Read).await.err().unwrap();

    let text = error.to_string();
    assert!(text.contains("nodes.db is damaged: ") && text.contains(index), "{text}");
}
