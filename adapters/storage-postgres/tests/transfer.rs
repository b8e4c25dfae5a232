//! What moves out of and into PostgreSQL databases.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use knm_contract::transfer::TransferFixture;
use knm_ports::{Cell, HoldError, Purpose, Storage, StorageError, StoreContent};
use knm_storage_postgres::PostgresOptions;
use knm_test_support::postgres::PostgresServer;
use sqlx::{Connection, PgConnection};

knm_contract::transfer_contract!(fresh_postgres);

struct Database {
    server: PostgresServer,
    name: String,
}

impl Database {
    fn options(&self) -> PostgresOptions {
        PostgresOptions::from_url(&self.server.url(&self.name)).expect("a connection string")
    }
}

#[async_trait]
impl TransferFixture for Database {
    async fn hold(&self, purpose: Purpose) -> Result<Arc<dyn StoreContent>, HoldError> {
        knm_storage_postgres::hold(&self.options(), purpose).await
    }

    async fn open(&self) -> Result<Storage, StorageError> {
        knm_storage_postgres::open(self.options()).await
    }

    async fn somebody_runs(&self, statement: &'static str) {
        self.server.run(&self.name, statement);
    }

    async fn columns(&self) -> BTreeSet<(String, String)> {
        let found = self.server.run(
            &self.name,
            "SELECT table_name, column_name FROM information_schema.columns
            WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations'",
        );
        let columns = found.lines().filter_map(|line| line.split_once('|'));
        columns
            .map(|(table, column)| (table.to_owned(), column.to_owned()))
            .collect()
    }
}

async fn fresh_postgres() -> Option<Database> {
    let server = PostgresServer::start()?;
    let name = server.create_database();
    Some(Database { server, name })
}

#[tokio::test]
async fn while_it_is_held_nobody_writes_with_other_means_either() {
    let Some(database) = fresh_postgres().await else {
        return;
    };
    let content = database.hold(Purpose::Fill).await.unwrap();
    content.create_schema().await.unwrap();
    let rows_after_a_write = || {
        database.server.run(
            &database.name,
            "SET lock_timeout = '100ms';
            DO $$ BEGIN INSERT INTO leases VALUES ('a', 'b', 1); EXCEPTION WHEN lock_not_available THEN NULL; END $$;
            SELECT count(*) FROM leases",
        )
    };
    // The tables are there for others once the transaction that holds them has begun anew, which it has.
    assert_eq!(rows_after_a_write(), "0");
    content.close().await;
    assert_eq!(rows_after_a_write(), "1");
}

#[tokio::test]
async fn what_an_extension_brought_is_no_content() {
    let Some(database) = fresh_postgres().await else {
        return;
    };
    let statements = "CREATE TABLE brought (); ALTER EXTENSION plpgsql ADD TABLE brought";
    database.server.run(&database.name, statements);

    let content = database.hold(Purpose::Rehearse).await.unwrap();

    assert_eq!(content.relations().await.unwrap(), Vec::<String>::new());
    content.close().await;
}

#[tokio::test]
async fn what_postgres_cannot_store_is_named_before_it_is_sent() {
    let Some(database) = fresh_postgres().await else {
        return;
    };
    let content = database.hold(Purpose::Fill).await.unwrap();
    let leases = content.tables().iter().find(|table| table.name == "leases").unwrap();
    let row = [
        Cell::Text("a".to_owned()),
        Cell::Text("b\0".to_owned()),
        Cell::Integer(1),
    ];
    let why = content.misfit(leases, &row).unwrap();
    assert!(why.starts_with("leases.owner: ") && why.contains("NUL"), "{why}");
    content.close().await;
}

/// As VACUUM does, and what makes an index beside others.
#[tokio::test]
async fn that_somebody_else_has_locked_a_table_is_told_in_other_words_than_that_a_service_has_it_open() {
    let Some(database) = fresh_postgres().await else {
        return;
    };
    let storage = database.open().await.unwrap();
    storage.admin.migrate().await.unwrap();
    storage.admin.close().await;
    let mut other = PgConnection::connect(&database.server.url(&database.name))
        .await
        .unwrap();
    let mut transaction = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE leases IN SHARE UPDATE EXCLUSIVE MODE")
        .execute(&mut *transaction)
        .await
        .unwrap();

    let error = database.hold(Purpose::Read).await.err().unwrap();

    let text = error.to_string();
    assert!(
        text.contains("somebody has locked its tables") && text.contains("pg_locks"),
        "{text}"
    );
    transaction.rollback().await.unwrap();
    database.hold(Purpose::Read).await.unwrap().close().await;
}

/// The lock of the connection that listens is missing until that has heard itself, and while it is away.
#[tokio::test]
async fn a_service_and_a_command_are_known_by_their_sessions_where_nothing_listens() {
    let Some(database) = fresh_postgres().await else {
        return;
    };
    let service = PostgresOptions {
        instance: Some("pod-1/7".to_owned()),
        ..database.options()
    };
    for (options, name) in [
        (service, "\"kube-node-manager pod-1/7\""),
        (database.options(), "\"kube-node-manager\""),
    ] {
        let storage = knm_storage_postgres::open(options).await.unwrap();
        storage.admin.migrate().await.unwrap();
        storage.admin.ping().await.unwrap();
        for purpose in [Purpose::Read, Purpose::Fill, Purpose::Rehearse] {
            let error = database.hold(purpose).await.err().unwrap();
            assert!(matches!(error, HoldError::InUse { .. }), "{error:?}");
            assert!(error.to_string().contains(name), "{error}");
        }
        storage.admin.close().await;
        // The server may show sessions that are ending for a moment more: that is waited for.
        database.hold(Purpose::Read).await.unwrap().close().await;
    }
}

/// What others commit while a lock is waited for must be told, whatever level the database has for transactions that say nothing.
#[tokio::test]
async fn what_was_committed_while_the_tables_were_waited_for_is_told_at_every_level() {
    let Some(database) = fresh_postgres().await else {
        return;
    };
    let storage = database.open().await.unwrap();
    storage.admin.migrate().await.unwrap();
    storage.admin.close().await;
    database.server.run(
        &database.name,
        &format!(
            "ALTER DATABASE {} SET default_transaction_isolation = 'serializable'",
            database.name
        ),
    );
    let mut other = PgConnection::connect(&database.server.url(&database.name))
        .await
        .unwrap();
    let mut transaction = other.begin().await.unwrap();
    sqlx::query("INSERT INTO leases VALUES ('late', 'them', 1)")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let options = database.options();
    let holding = tokio::spawn(async move { knm_storage_postgres::hold(&options, Purpose::Read).await });
    let mut looks = 0;
    while database
        .server
        .run(&database.name, "SELECT count(*) FROM pg_locks WHERE NOT granted")
        == "0"
    {
        looks += 1;
        assert!(looks < 300, "nobody waits for the tables");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }

    transaction.commit().await.unwrap();

    let content = holding.await.unwrap().unwrap();
    let leases = content.tables().iter().find(|table| table.name == "leases").unwrap();
    assert_eq!(content.count(leases).await.unwrap(), 1);
    content.close().await;
}
