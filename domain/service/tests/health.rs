//! Health, with a database that does what the test says.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test builds is right, or the test is wrong"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use knm_domain::{Health, HealthSettings, NamedCheck, NotReady, Verdict};
use knm_ports::{
    ConnectionDemand, MockSystemStats, PoolStatus, ProcessStats, SchemaStatus, StorageAdmin, StorageError, StorageKind,
};
use support::{Stage, lost, replaced, settle};
use tokio::time::Instant;

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Well,
    Broken,
    Hanging,
    Outdated,
}

/// Counts the pings, those that are under way, and the questions for its schema.
struct Database {
    mood: std::sync::Mutex<Mood>,
    pings: AtomicUsize,
    under_way: Arc<()>,
    schemas: AtomicUsize,
}

impl Database {
    fn new(mood: Mood) -> Arc<Self> {
        Arc::new(Self {
            mood: std::sync::Mutex::new(mood),
            pings: AtomicUsize::new(0),
            under_way: Arc::new(()),
            schemas: AtomicUsize::new(0),
        })
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }

    fn pings(&self) -> usize {
        self.pings.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl StorageAdmin for Database {
    fn kind(&self) -> StorageKind {
        StorageKind::Postgres
    }

    async fn ping(&self) -> Result<(), StorageError> {
        self.pings.fetch_add(1, Ordering::SeqCst);
        let _under_way = Arc::clone(&self.under_way);
        match self.mood() {
            Mood::Well | Mood::Outdated => Ok(()),
            Mood::Broken => Err(StorageError::Unavailable {
                source: "connection refused".into(),
            }),
            Mood::Hanging => std::future::pending().await,
        }
    }

    fn pool(&self) -> PoolStatus {
        PoolStatus {
            max_open: 25,
            open: 3,
            in_use: 1,
            idle: 2,
            ..PoolStatus::default()
        }
    }

    async fn schema(&self) -> Result<SchemaStatus, StorageError> {
        self.schemas.fetch_add(1, Ordering::SeqCst);
        let pending = usize::from(self.mood() == Mood::Outdated);
        Ok(SchemaStatus {
            applied: 1,
            pending,
            later: 0,
        })
    }

    async fn demand(&self) -> Result<Option<ConnectionDemand>, StorageError> {
        panic!("health asks for no connections")
    }

    async fn migrate(&self) -> Result<usize, StorageError> {
        panic!("health migrates nothing")
    }

    async fn close(&self) {
        panic!("health closes nothing")
    }
}

fn health(stage: &Stage, database: &Arc<Database>) -> Arc<Health> {
    let mut stats = MockSystemStats::new();
    stats.expect_process().return_const(ProcessStats::default());
    stats.expect_live_tasks().return_const(7_u64);
    stats.expect_hostname().returning(|| "pod-abc123".to_owned());
    let settings = HealthSettings {
        service: "kube-node-manager".to_owned(),
        version: "2.0.0".to_owned(),
        rust_version: "1.95.0".to_owned(),
    };
    Health::start(
        settings,
        database.clone(),
        stage.clock.clone(),
        Arc::new(stats),
        stage.inventory.clone(),
        stage.shutdown.clone(),
    )
}

async fn reason(health: &Health) -> Option<NotReady> {
    let readiness = health.readiness().await;
    assert_eq!(readiness.ready, readiness.reason.is_none());
    readiness.reason
}

#[tokio::test(start_paused = true)]
async fn a_database_that_answers_makes_the_service_ready() {
    let (stage, database) = (Stage::new(), Database::new(Mood::Well));
    let readiness = health(&stage, &database).readiness().await;
    assert!(readiness.ready && readiness.database.healthy);
    assert_eq!(
        (readiness.database.pool.max_open, readiness.database.kind),
        (25, StorageKind::Postgres)
    );
}

#[tokio::test(start_paused = true)]
async fn a_hanging_database_fails_the_probe_after_two_seconds_and_its_ping_is_dropped() {
    let (stage, database) = (Stage::new(), Database::new(Mood::Hanging));
    let health = health(&stage, &database);
    // At different times within the life of a ping, none is held for longer.
    for pause in [0, 300, 1100, 1900] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let asked_at = Instant::now();
        assert_eq!(reason(&health).await, Some(NotReady::DatabaseDown));
        assert!(
            asked_at.elapsed() <= Duration::from_millis(2001),
            "{:?}",
            asked_at.elapsed()
        );
        assert!(Arc::strong_count(&database.under_way) <= 2, "pings pile up");
    }
    stage.shutdown.cancel();
    settle().await;
    assert_eq!(Arc::strong_count(&database.under_way), 1);
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_probes_causes_few_pings() {
    for mood in [Mood::Well, Mood::Broken] {
        let (stage, database) = (Stage::new(), Database::new(mood));
        let health = health(&stage, &database);
        for _ in 0..1000 {
            join_all((0..10).map(|_| health.readiness())).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // 10,000 probes in 10 s.
        assert!((10..=45).contains(&database.pings()), "{} pings", database.pings());
    }
}

#[tokio::test(start_paused = true)]
async fn without_probes_a_healthy_database_is_pinged_every_five_seconds() {
    let (stage, database) = (Stage::new(), Database::new(Mood::Well));
    let _health = health(&stage, &database);
    tokio::time::sleep(Duration::from_secs(51)).await;
    assert_eq!(database.pings(), 11);
    assert_eq!(database.schemas.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_probe_sees_a_failure_and_a_recovery_within_a_quarter_of_a_second() {
    let (stage, database) = (Stage::new(), Database::new(Mood::Well));
    let health = health(&stage, &database);
    assert_eq!(reason(&health).await, None);
    for (mood, wanted) in [(Mood::Broken, Some(NotReady::DatabaseDown)), (Mood::Well, None)] {
        database.set(mood);
        tokio::time::sleep(Duration::from_millis(251)).await;
        assert_eq!(reason(&health).await, wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn pending_migrations_make_it_not_ready_until_they_are_applied() {
    let (stage, database) = (Stage::new(), Database::new(Mood::Outdated));
    let health = health(&stage, &database);
    assert_eq!(reason(&health).await, Some(NotReady::MigrationsPending));
    let failed: Vec<_> = health.checks().await.into_iter().filter(|check| !check.ok).collect();
    assert_eq!(
        failed,
        [NamedCheck {
            name: "migrations",
            ok: false
        }]
    );

    database.set(Mood::Well);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(reason(&health).await, None);
    assert!(health.checks().await.iter().all(|check| check.ok));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_makes_it_not_ready_at_once_and_without_a_ping() {
    let (stage, database) = (Stage::new(), Database::new(Mood::Well));
    let health = health(&stage, &database);
    assert_eq!(reason(&health).await, None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = database.pings();

    health.begin_shutdown();

    assert_eq!(reason(&health).await, Some(NotReady::ShuttingDown));
    assert_eq!(database.pings(), before);
    let failed: Vec<_> = health.checks().await.into_iter().filter(|check| !check.ok).collect();
    assert_eq!(
        failed,
        [NamedCheck {
            name: "shutdown",
            ok: false
        }]
    );
}

#[tokio::test(start_paused = true)]
async fn only_the_database_makes_the_service_unavailable() {
    let (stage, database) = (Stage::new(), Database::new(Mood::Well));
    let health = health(&stage, &database);
    stage.tell([replaced(&[("a", "1")])]).await;
    let all = health.detailed().await;
    assert_eq!(
        (all.verdict, all.database_ok, all.clusters.len()),
        (Verdict::Healthy, true, 1)
    );

    stage.tell([lost()]).await;
    let all = health.detailed().await;
    assert_eq!((all.verdict, all.database_ok), (Verdict::Degraded, true));
    assert_eq!(reason(&health).await, None);

    stage.tell([replaced(&[("a", "1")])]).await;
    database.set(Mood::Broken);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let all = health.detailed().await;
    assert_eq!((all.verdict, all.database_ok), (Verdict::Degraded, false));
}

#[tokio::test(start_paused = true)]
async fn uptime_is_counted_from_the_start() {
    let (stage, database) = (Stage::new(), Database::new(Mood::Well));
    let health = health(&stage, &database);
    stage.clock.advance(Duration::from_secs(9015));
    let basic = health.basic();
    assert_eq!(basic.uptime, Duration::from_secs(9015));
    assert_eq!(basic.timestamp.to_whole_seconds(), "2030-01-01T02:30:15Z");
}
