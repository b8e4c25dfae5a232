//! Migrations that wait, fail, and meet what others did.

use std::time::Duration;

use knm_model::{Authority, OperationFilter};
use knm_ports::{Storage, StorageError};
use knm_storage_postgres::PostgresOptions;
use knm_test_support::postgres::PostgresServer;
use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection};

struct Fixture {
    server: PostgresServer,
    database: String,
    options: PostgresOptions,
}

fn fixture() -> Option<Fixture> {
    let server = PostgresServer::start()?;
    let database = server.create_database();
    let options = PostgresOptions::from_url(&server.url(&database)).expect("a connection string");
    Some(Fixture {
        server,
        database,
        options,
    })
}

impl Fixture {
    async fn open(&self) -> Storage {
        knm_storage_postgres::open(self.options.clone())
            .await
            .expect("a fresh database")
    }

    async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.server.url(&self.database))
            .await
            .expect("a connection")
    }
}

#[tokio::test]
async fn migrating_gives_up_after_its_timeout_and_works_when_the_way_is_free() {
    let Some(mut fixture) = fixture() else {
        return;
    };
    let limit = Duration::from_millis(300);
    fixture.options.migration_timeout = Some(limit);
    let mut other = fixture.connect().await;
    let mut transaction = other.begin().await.unwrap();
    // The migration waits for this transaction: whether the name is free is not decided before it ends.
    sqlx::query("CREATE TABLE cluster_registrations (name TEXT)")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let storage = fixture.open().await;

    let error = storage.admin.migrate().await.unwrap_err();

    assert!(matches!(error, StorageError::TimedOut { .. }), "{error:?}");
    transaction.rollback().await.unwrap();
    fixture.options.migration_timeout = None;
    let pending = storage.admin.schema().await.unwrap().pending;
    assert_eq!(fixture.open().await.admin.migrate().await.unwrap(), pending);
}

/// As `pg_dump` does for as long as it takes.
#[tokio::test]
async fn readers_go_on_while_a_migration_waits_for_somebody_who_holds_a_table() {
    let Some(fixture) = fixture() else {
        return;
    };
    let all = sqlx::migrate!("../../migrations/postgres");
    // The next one adds columns to operations.
    let earlier = Migrator::with_migrations(all.iter().take(7).cloned().collect());
    let (mut holder, mut reader) = (fixture.connect().await, fixture.connect().await);
    earlier.run(&mut holder).await.unwrap();
    let mut transaction = holder.begin().await.unwrap();
    let count = "SELECT count(*) FROM operations";
    sqlx::query(count).execute(&mut *transaction).await.unwrap();
    let storage = fixture.open().await;
    let pending = storage.admin.schema().await.unwrap().pending;
    let migrating = tokio::spawn(async move { storage.admin.migrate().await });

    // Until it waits for the table; a reader who comes then waits for it, and must get its turn.
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'operations'::regclass";
    while fixture.server.run(&fixture.database, waiting) == "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..3 {
        let read = sqlx::query(count).execute(&mut reader);
        let read = tokio::time::timeout(Duration::from_secs(30), read).await;
        read.expect("the reader gets its turn").unwrap();
    }
    assert!(!migrating.is_finished());

    transaction.rollback().await.unwrap();
    assert_eq!(migrating.await.unwrap().unwrap(), pending);
}

#[tokio::test]
async fn a_migration_that_fails_keeps_no_other_replica_out() {
    let Some(fixture) = fixture() else {
        return;
    };
    fixture
        .server
        .run(&fixture.database, "CREATE TABLE cluster_registrations (name TEXT)");
    let (storage, replica) = (fixture.open().await, fixture.open().await);
    let pending = storage.admin.schema().await.unwrap().pending;

    let error = storage.admin.migrate().await.unwrap_err();
    assert!(matches!(error, StorageError::Internal { .. }), "{error:?}");
    assert_eq!(storage.admin.schema().await.unwrap().pending, pending);
    fixture
        .server
        .run(&fixture.database, "DROP TABLE cluster_registrations");

    assert_eq!(replica.admin.migrate().await.unwrap(), pending);
    assert_eq!(storage.admin.schema().await.unwrap().pending, 0);
}

#[tokio::test]
async fn a_migration_that_was_changed_afterwards_is_corrupt() {
    let Some(fixture) = fixture() else {
        return;
    };
    let storage = fixture.open().await;
    storage.admin.migrate().await.unwrap();
    fixture
        .server
        .run(&fixture.database, "UPDATE _sqlx_migrations SET checksum = '\\x00'");

    for refused in [
        storage.admin.schema().await.map(drop),
        storage.admin.migrate().await.map(drop),
    ] {
        assert!(matches!(refused, Err(StorageError::Corrupt { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn a_schema_to_which_a_later_version_added_something_is_left_alone_and_any_other_is_refused() {
    let Some(fixture) = fixture() else {
        return;
    };
    let storage = fixture.open().await;
    storage.admin.migrate().await.unwrap();
    fixture.server.run(
        &fixture.database,
        "INSERT INTO _sqlx_migrations VALUES (9999, 'add something', now(), true, '\\x00', 1)",
    );

    assert_eq!(storage.admin.migrate().await.unwrap(), 0);
    let schema = storage.admin.schema().await.unwrap();
    assert_eq!((schema.applied, schema.pending, schema.later), (9999, 0, 1));

    fixture.server.run(
        &fixture.database,
        "UPDATE _sqlx_migrations SET description = 'drop something' WHERE version = 9999",
    );
    for refused in [
        storage.admin.schema().await.map(drop),
        storage.admin.migrate().await.map(drop),
    ] {
        assert!(matches!(refused, Err(StorageError::Corrupt { .. })), "{refused:?}");
    }
}

/// What a version before wrote is read, whichever that was; each of its migrations is a schema that may be found.
#[tokio::test]
async fn every_earlier_schema_is_migrated_with_what_it_holds() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let all = sqlx::migrate!("../../migrations/postgres");
    let count = all.iter().count();
    for before in 1..count {
        let database = server.create_database();
        let url = server.url(&database);
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let earlier = Migrator::with_migrations(all.iter().take(before).cloned().collect());
        earlier.run(&mut connection).await.unwrap();
        server.run(
            &database,
            "INSERT INTO cluster_registrations (name, source, registered_at_unix_ms, changed_at_unix_ms) VALUES ('prod', 'demo', 1, 2)",
        );

        let storage = knm_storage_postgres::open(PostgresOptions::from_url(&url).unwrap())
            .await
            .unwrap();
        let schema = storage.admin.schema().await.unwrap();
        assert_eq!(
            (schema.applied, schema.pending, schema.later),
            (before as i64, count - before, 0)
        );
        assert_eq!(storage.admin.migrate().await.unwrap(), count - before, "from {before}");
        assert_eq!(storage.clusters.list().await.unwrap()[0].name.as_str(), "prod");
        storage.admin.close().await;
    }
}

#[tokio::test]
async fn an_operation_that_a_version_before_wrote_may_be_done_by_everybody() {
    let Some(fixture) = fixture() else {
        return;
    };
    let storage = fixture.open().await;
    storage.admin.migrate().await.unwrap();
    // As a replica wrote it that did not know by what operations may be done.
    fixture.server.run(
        &fixture.database,
        r#"INSERT INTO operations (id, kind, actor_kind, options_json, strategy_json, dry_run, created_at_unix_ms, state,
                total, done, failed, skipped, excused, last_event, lease_epoch)
            VALUES (gen_random_uuid(), 'cordon', 'anonymous', '{}',
                '{"max_concurrent": 1, "order": "AsGiven", "pause_between": {"secs": 0, "nanos": 0}, "uncordon_after": "Never"}',
                FALSE, 0, 'queued', 1, 0, 0, 0, 0, 1, 0)"#,
    );

    let found = storage.operations.page(&OperationFilter::default(), None, 9).await;

    let operation = &found.unwrap()[0];
    assert_eq!(operation.authority, Authority::Open);
    // What cannot be read must not become that.
    fixture.server.run(
        &fixture.database,
        "UPDATE operations SET authority_json = '\"everybody\"'",
    );
    let error = storage.operations.find(operation.id).await.unwrap_err();
    assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("authority_json"), "{error}");
}

#[tokio::test]
async fn what_nobody_here_wrote_is_corrupt_and_named() {
    let Some(fixture) = fixture() else {
        return;
    };
    let storage = fixture.open().await;
    storage.admin.migrate().await.unwrap();
    fixture.server.run(
        &fixture.database,
        "INSERT INTO cluster_registrations VALUES ('prod', 'moon', 0, 0)",
    );

    let error = storage.clusters.list().await.unwrap_err();

    assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("\"moon\""), "{error}");
}
