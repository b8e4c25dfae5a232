//! The storage contract, on SQLite files.

use knm_contract::storage::StorageFixture;
use knm_storage_sqlite::SqliteOptions;

knm_contract::storage_contract!(fresh_sqlite);

async fn fresh_sqlite() -> Option<StorageFixture> {
    let folder = tempfile::tempdir().expect("a folder of its own");
    let options = SqliteOptions::new(folder.path().join("data/nodes.db"));
    let open = || knm_storage_sqlite::open(options.clone());
    Some(StorageFixture {
        storage: open().await.expect("a new file"),
        replica: open().await.expect("the same file"),
        keep: Box::new(folder),
    })
}
