//! The storage contract on a database to which a later version has added columns and tables: during a rolling update, and after a way back,
//! this version reads and writes there.

use std::sync::OnceLock;

use knm_contract::storage::StorageFixture;
use knm_storage_postgres::PostgresOptions;
use knm_test_support::postgres::PostgresServer;

knm_contract::storage_contract!(@rows later_postgres);

async fn later_postgres() -> Option<StorageFixture> {
    static SERVER: OnceLock<Option<PostgresServer>> = OnceLock::new();
    let server = SERVER.get_or_init(PostgresServer::start).as_ref()?;
    let database = server.create_database();
    let options = PostgresOptions::from_url(&server.url(&database)).expect("a connection string");
    let options = PostgresOptions {
        // Many tests share the server.
        max_open_conns: 10,
        ..options
    };
    let open = || knm_storage_postgres::open(options.clone());
    let storage = open().await.expect("a fresh database");
    storage.admin.migrate().await.expect("the migrations run");
    server.migrate_to_later(&database);
    let schema = storage.admin.schema().await.expect("it is accepted");
    assert_eq!((schema.pending, schema.later), (0, 1));
    Some(StorageFixture {
        storage,
        replica: open().await.expect("the same database"),
        keep: Box::new(()),
    })
}
