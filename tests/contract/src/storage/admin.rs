//! The store as such.

use std::time::Duration;

use knm_model::{AuditFilter, ClusterName, OperationFilter};
use knm_ports::StorageError;

use super::StorageFixture;
use super::audit::{completion, intent};
use super::clusters::registration;
use super::tokens::token;

/// `ping` MUST work before the first migration.
pub async fn a_ping_works_before_the_first_migration(fixture: &StorageFixture) {
    fixture.storage.admin.ping().await.expect("a round trip");
}

/// `pool` MUST report as many open connections as there are in use and idle together, and at most as many as may be open.
pub async fn the_pool_adds_up(fixture: &StorageFixture) {
    let storage = fixture.migrated().await;
    for _ in 0..20 {
        storage.admin.ping().await.expect("a round trip");
        let pool = storage.admin.pool();
        assert_eq!(pool.open, pool.in_use + pool.idle, "{pool:?}");
        assert!(0 < pool.max_open && pool.open <= pool.max_open, "{pool:?}");
        assert!(pool.max_idle <= pool.max_open, "{pool:?}");
        assert_eq!(pool.leaks, 0, "{pool:?}");
    }
}

/// `schema` MUST report nothing pending after `migrate`.
pub async fn nothing_is_pending_after_migrating(fixture: &StorageFixture) {
    let admin = &fixture.migrated().await.admin;
    let schema = admin.schema().await.expect("the schema can be read");
    assert_eq!(schema.pending, 0, "{schema:?}");
}

/// `migrate` MUST apply all that `schema` reported as pending.
pub async fn migrating_applies_all_that_was_pending(fixture: &StorageFixture) {
    let admin = &fixture.storage.admin;
    let before = admin.schema().await.expect("the schema of an empty store can be read");
    assert_eq!(before.applied, 0, "{before:?}");
    let count = admin.migrate().await.expect("the migrations run");
    assert_eq!(count, before.pending);
}

/// `migrate` MUST do nothing and return 0 when nothing is pending.
pub async fn migrating_again_does_nothing(fixture: &StorageFixture) {
    let storage = fixture.migrated().await;
    let stored = registration("prod");
    storage.clusters.insert(&stored).await.expect("the name is free");
    let before = storage.admin.schema().await.expect("the schema can be read");

    assert_eq!(storage.admin.migrate().await.expect("there is nothing to do"), 0);

    assert_eq!(storage.admin.schema().await.expect("the schema can be read"), before);
    assert_eq!(storage.clusters.list().await.expect("the list"), [stored]);
}

/// `migrate` MUST be safe to be called by several replicas at once: each migration is applied once.
pub async fn two_replicas_migrate_at_once_and_each_migration_is_applied_once(fixture: &StorageFixture) {
    let (one, other) = (&fixture.storage.admin, &fixture.replica.admin);
    let pending = one.schema().await.expect("the schema can be read").pending;

    let (by_one, by_other) = tokio::join!(one.migrate(), other.migrate());

    let applied = by_one.expect("the first replica finishes") + by_other.expect("the second replica finishes");
    assert_eq!(applied, pending);
    for admin in [one, other] {
        assert_eq!(admin.schema().await.expect("the schema can be read").pending, 0);
    }
}

/// `demand` MUST count this process, once it has a connection.
pub async fn whoever_shares_a_store_counts_itself(fixture: &StorageFixture) {
    let admin = &fixture.storage.admin;
    admin.ping().await.expect("it answers");
    if let Some(demand) = admin.demand().await.expect("the store tells") {
        assert!(
            1 <= demand.replicas && 1 <= demand.each && 1 <= demand.allowed,
            "{demand:?}"
        );
    }
}

/// `close` MUST make every later call of every port of this store fail with `Unavailable`.
pub async fn a_closed_store_is_unavailable_to_every_call(fixture: &StorageFixture) {
    let storage = fixture.migrated().await;
    let name = ClusterName::from_any("prod");
    storage.admin.close().await;

    let (admin, clusters) = (&storage.admin, &storage.clusters);
    unavailable("ping", admin.ping().await);
    unavailable("schema", admin.schema().await);
    unavailable("demand", admin.demand().await);
    unavailable("migrate", admin.migrate().await);
    unavailable("list", clusters.list().await);
    unavailable("find", clusters.find(&name).await);
    unavailable("insert", clusters.insert(&registration("prod")).await);
    unavailable("replace", clusters.replace(&registration("prod")).await);
    unavailable("remove", clusters.remove(&name).await);
    let (tokens, used) = (&storage.tokens, token(1));
    unavailable("list", tokens.list().await);
    unavailable("find", tokens.find(used.id).await);
    unavailable("insert", tokens.insert(&used).await);
    unavailable("revoke", tokens.revoke(used.id, used.created_at, "ann").await);
    unavailable("used", tokens.used(used.id, used.created_at).await);
    unavailable("list", storage.registered.list().await);
    let (audit, record, came_of_it) = (&storage.audit, intent(1), completion());
    unavailable("open", audit.open(&record).await);
    unavailable("complete", audit.complete(record.id, &came_of_it).await);
    unavailable("find", audit.find(record.id).await);
    unavailable("page", audit.page(&AuditFilter::default(), None, 1).await);
    unavailable("give_up", audit.give_up(record.at, &came_of_it).await);
    unavailable("remove_before", audit.remove_before(record.at, 1).await);
    unavailable("hold", storage.leases.hold("a", "b", Duration::from_secs(1)).await);
    unavailable("unended", storage.holds.unended().await);
    unavailable("is_known", storage.holds.is_known(record.id).await);
    unavailable("remove_before", storage.keys.remove_before(record.at).await);
    unavailable("release", storage.leases.release("a", "b").await);
    let (operations, work, some) = (&storage.operations, &storage.work, record.id);
    unavailable("find", operations.find(some).await);
    unavailable("targets", operations.targets(some).await);
    unavailable("page", operations.page(&OperationFilter::default(), None, 1).await);
    unavailable("events_after", operations.events_after(some, 0, 1).await);
    unavailable("claim", work.claim("a", Duration::from_secs(1), 1).await);
    unavailable("renew", work.renew("a", Duration::from_secs(1)).await);
    unavailable("release", work.release(&[]).await);
    unavailable("hand_over", work.hand_over(&[]).await);
    unavailable(
        "remove_ended_before",
        operations.remove_ended_before(record.at, 1).await,
    );
    unavailable("backlog", work.backlog().await);
    assert_eq!(admin.pool().open, 0);
}

/// `close` MUST do nothing when the store is closed already.
pub async fn closing_twice_is_fine(fixture: &StorageFixture) {
    let storage = fixture.migrated().await;
    storage.admin.close().await;
    storage.admin.close().await;
    unavailable("ping", storage.admin.ping().await);
}

fn unavailable<T: std::fmt::Debug>(call: &str, result: Result<T, StorageError>) {
    assert!(
        matches!(result, Err(StorageError::Unavailable { .. })),
        "{call}: {result:?}"
    );
}
