//! The storage contract, on a PostgreSQL server.

use knm_contract::storage::StorageFixture;
use knm_storage_postgres::PostgresOptions;
use knm_test_support::postgres::PostgresServer;

knm_contract::storage_contract!(fresh_postgres);

async fn fresh_postgres() -> Option<StorageFixture> {
    let server = PostgresServer::start()?;
    let options = PostgresOptions::from_url(&server.url(&server.create_database())).expect("a connection string");
    let open = || knm_storage_postgres::open(options.clone());
    Some(StorageFixture {
        storage: open().await.expect("a fresh database"),
        replica: open().await.expect("the same database"),
        keep: Box::new(server),
    })
}
