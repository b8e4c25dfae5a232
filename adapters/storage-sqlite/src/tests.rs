//! What is seen from inside only: the state of the one connection, and who holds it.

use std::error::Error;
use std::time::Duration;

use knm_model::{AuditAction, AuditFilter, ClusterName, ClusterRegistration, ClusterSource, NodeName, Timestamp};
use knm_ports::{ClusterRegistrations, StorageAdmin, StorageError};
use knm_storage_sql::{AuditStatements, WatchedPool};
use metrics_exporter_prometheus::PrometheusBuilder;
use sqlx::{Executor, Sqlite};
use tempfile::TempDir;
use uuid::Uuid;

use crate::admin::SqliteStorageAdmin;
use crate::cluster_registrations::SqlClusterRegistrations;
use crate::dialect::PLACE_IN_REASON;
use crate::{SqliteOptions, make, pool};

async fn fresh(change: impl FnOnce(&mut SqliteOptions)) -> (TempDir, WatchedPool<Sqlite>) {
    let folder = tempfile::tempdir().unwrap();
    let mut options = SqliteOptions::new(folder.path().join("nodes.db"));
    change(&mut options);
    make(&options.path).unwrap();
    let pool = pool(&options);
    SqliteStorageAdmin::new(pool.clone(), None, None)
        .migrate()
        .await
        .unwrap();
    (folder, pool)
}

async fn run(pool: &WatchedPool<Sqlite>, statement: &'static str) {
    let mut held = pool.acquire("test").await.unwrap();
    let done = held.connection().execute(statement).await;
    held.release("test", done).unwrap();
}

async fn ask<T>(pool: &WatchedPool<Sqlite>, question: &'static str) -> T
where
    T: Send + Unpin + sqlx::Type<Sqlite> + for<'r> sqlx::Decode<'r, Sqlite>,
{
    let mut held = pool.acquire("test").await.unwrap();
    let answer = sqlx::query_scalar(question).fetch_one(held.connection()).await;
    held.release("test", answer).unwrap()
}

fn registration(number: usize) -> ClusterRegistration {
    ClusterRegistration {
        name: ClusterName::from_any(&format!("{number:0>60}")),
        source: ClusterSource::Demo,
        registered_at: Timestamp::from_unix_millis(0).unwrap(),
        changed_at: Timestamp::from_unix_millis(0).unwrap(),
    }
}

#[tokio::test]
async fn the_connection_logs_ahead_checks_foreign_keys_and_waits_for_others() {
    let (_folder, pool) = fresh(|_| {}).await;
    assert_eq!(ask::<String>(&pool, "PRAGMA journal_mode").await, "wal");
    assert_eq!(ask::<i64>(&pool, "PRAGMA foreign_keys").await, 1);
    assert_eq!(ask::<i64>(&pool, "PRAGMA busy_timeout").await, 5000);
}

#[tokio::test]
async fn every_filter_of_the_audit_log_walks_the_index_that_leaves_the_fewest_records() {
    let (_folder, pool) = fresh(|_| {}).await;
    let statements = AuditStatements::<Sqlite>::new(PLACE_IN_REASON);
    let time = Timestamp::from_unix_millis(0);
    let cluster = || Some(ClusterName::from_any("prod"));
    let everything = AuditFilter {
        cluster: cluster(),
        node: NodeName::parse("worker-1").ok(),
        actor: Some("ada".to_owned()),
        action: Some(AuditAction::NodeDrain),
        outcome: Some(None),
        from: time,
        until: time,
        reason: Some("disk".to_owned()),
        operation: Some(Uuid::nil()),
    };
    let alone = AuditFilter::default;
    let cases = [
        (alone(), "sqlite_autoindex_audit_records_1"),
        (
            AuditFilter {
                cluster: cluster(),
                ..alone()
            },
            "audit_records_of_cluster ",
        ),
        (
            AuditFilter {
                node: everything.node.clone(),
                ..alone()
            },
            "audit_records_of_node ",
        ),
        (
            AuditFilter {
                actor: everything.actor.clone(),
                ..alone()
            },
            "audit_records_of_actor ",
        ),
        (
            AuditFilter {
                action: everything.action,
                ..alone()
            },
            "audit_records_of_action ",
        ),
        (
            AuditFilter {
                outcome: everything.outcome,
                ..alone()
            },
            "audit_records_of_outcome ",
        ),
        (
            AuditFilter {
                from: time,
                until: time,
                reason: everything.reason.clone(),
                ..alone()
            },
            "sqlite_autoindex_audit_records_1 (id>? AND id<?)",
        ),
        (
            AuditFilter {
                cluster: cluster(),
                node: everything.node.clone(),
                action: everything.action,
                outcome: everything.outcome,
                ..alone()
            },
            "audit_records_of_cluster_and_node ",
        ),
        (
            AuditFilter {
                node: None,
                operation: None,
                ..everything.clone()
            },
            "audit_records_of_actor ",
        ),
        (everything, "audit_records_of_operation "),
    ];
    for (filter, index) in cases {
        let statement = statements.page(&filter, None, 100).into_string();
        let explained = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        let mut held = pool.acquire("test").await.unwrap();
        let plan = sqlx::query_as::<_, (i64, i64, i64, String)>(explained)
            .fetch_all(held.connection())
            .await;
        let plan = held.release("test", plan).unwrap();
        assert!(
            matches!(&plan[..], [(_, _, _, step)] if step.contains(index)),
            "{index}: {plan:?}"
        );
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_that_names_the_file_and_reading_goes_on() {
    let (_folder, pool) = fresh(|_| {}).await;
    // The file may not grow beyond what it is, as on a disk without room.
    run(&pool, "PRAGMA max_page_count = 1").await;
    let clusters = SqlClusterRegistrations::new(pool);
    let mut stored = 0;
    let error = loop {
        match clusters.insert(&registration(stored)).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StorageError::Full { .. }), "{error:?}");
    let source = error.source().unwrap().to_string();
    assert!(source.contains("nodes.db"), "{source}");
    assert_eq!(clusters.list().await.unwrap().len(), stored);
}

#[tokio::test]
async fn a_file_for_reading_only_is_an_error_that_names_the_file_and_reading_goes_on() {
    let (_folder, pool) = fresh(|_| {}).await;
    run(&pool, "PRAGMA query_only = ON").await;
    let clusters = SqlClusterRegistrations::new(pool);

    let error = clusters.insert(&registration(1)).await.unwrap_err();

    assert!(matches!(error, StorageError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("nodes.db"), "{error}");
    assert_eq!(clusters.list().await.unwrap(), []);
}

#[tokio::test]
async fn the_connection_is_replaced_when_it_lived_long_enough() {
    let (_folder, pool) = fresh(|options| options.max_lifetime = Duration::from_millis(100)).await;
    run(&pool, "CREATE TEMP TABLE marks (mark INTEGER)").await;
    // What is temporary ends with the connection.
    let marks = "SELECT count(*) FROM sqlite_temp_schema";
    let mut rounds = 0;
    while ask::<i64>(&pool, marks).await != 0 {
        rounds += 1;
        assert!(rounds < 1000, "the connection lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_connection_that_is_held_for_too_long_is_counted_once_and_measured() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    knm_storage_sql::describe_metrics();
    let (_folder, pool) = fresh(|options| options.leak_threshold = Duration::from_millis(20)).await;
    let before = recorder.handle().render();
    assert!(
        before.contains("kube_node_manager_database_connection_leaks_total 0"),
        "{before}"
    );

    let held = pool.acquire("test.hold").await.unwrap();
    let mut rounds = 0;
    while pool.status().leaks == 0 {
        rounds += 1;
        assert!(rounds < 1000, "nobody noticed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Several more inspections must not count it again.
    tokio::time::sleep(Duration::from_millis(100)).await;
    held.release("test", Ok(())).unwrap();

    assert_eq!(pool.status().leaks, 1);
    let after = recorder.handle().render();
    assert!(
        after.contains("kube_node_manager_database_connection_leaks_total 1"),
        "{after}"
    );
}

#[tokio::test]
async fn whoever_finds_no_free_connection_is_told_so_in_time_and_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let waits = || {
        let text = recorder.handle().render();
        let value = |name: &str| {
            let name = format!("kube_node_manager_database_acquire_{name} ");
            text.lines()
                .find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok())
        };
        (value("timeouts_total"), value("duration_seconds_count"))
    };
    // Long enough for a slow machine to open the file within it.
    let limit = Duration::from_secs(1);
    let (_folder, pool) = fresh(|options| options.acquire_timeout = limit).await;
    let held = pool.acquire("test.hold").await.unwrap();
    let (timeouts, waited) = waits();
    assert_eq!(timeouts, Some(0), "it is there before the first one");

    let refused = pool.acquire("test.wait").await.err();

    assert!(
        matches!(refused, Some(StorageError::TimedOut { limit: told }) if told == limit),
        "{refused:?}"
    );
    assert_eq!(waits(), (Some(1), waited.map(|count| count + 1)));
    // Who gives up before the pool does waited in vain, too.
    let given_up = tokio::time::timeout(limit / 5, pool.acquire("test.wait")).await;
    assert!(given_up.is_err());
    assert_eq!(waits(), (Some(2), waited.map(|count| count + 2)));
    held.release("test", Ok(())).unwrap();
    pool.acquire("test.wait").await.unwrap();
    assert_eq!(waits(), (Some(2), waited.map(|count| count + 3)));
}

#[tokio::test]
async fn a_connection_whose_holder_gave_up_is_not_used_again() {
    let (_folder, pool) = fresh(|_| {}).await;
    let mut held = pool.acquire("test").await.unwrap();
    held.connection()
        .execute("CREATE TEMP TABLE marks (mark INTEGER)")
        .await
        .unwrap();
    drop(held);
    assert_eq!(pool.status().open, 0);
    assert_eq!(ask::<i64>(&pool, "SELECT count(*) FROM sqlite_temp_schema").await, 0);
}
