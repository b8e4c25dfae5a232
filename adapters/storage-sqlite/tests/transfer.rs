//! What moves out of and into SQLite files.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use knm_contract::transfer::TransferFixture;
use knm_ports::{HoldError, Purpose, Storage, StorageError, StoreContent};
use knm_storage_sqlite::SqliteOptions;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
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
