//! The storage contract, in memory.

use knm_contract::storage::StorageFixture;

knm_contract::storage_contract!(fresh_memory);

async fn fresh_memory() -> Option<StorageFixture> {
    let storage = knm_storage_memory::open();
    Some(StorageFixture {
        replica: storage.clone(),
        storage,
        keep: Box::new(()),
    })
}
