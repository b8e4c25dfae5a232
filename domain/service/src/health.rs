//! How the service is: whether its database can be used, and figures of the process.

mod check;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use knm_model::Timestamp;
use knm_ports::{Clock, PoolStatus, ProcessStats, StorageAdmin, StorageKind, SystemStats};
use metrics::{counter, gauge};
use tokio_util::sync::CancellationToken;

use crate::inventory::{ClusterState, ClusterStatus, Inventory};
use crate::metric;
use check::{Checker, DatabaseState};

/// What the service says of itself.
#[derive(Clone, Debug)]
pub struct HealthSettings {
    /// Its name.
    pub service: String,
    /// Its version.
    pub version: String,
    /// The version of Rust that it was built with.
    pub rust_version: String,
}

/// Knows how the service is.
pub struct Health {
    settings: HealthSettings,
    storage: Arc<dyn StorageAdmin>,
    clock: Arc<dyn Clock>,
    stats: Arc<dyn SystemStats>,
    inventory: Arc<Inventory>,
    checker: Checker,
    /// Set by the signal to end, before anything else ends.
    ending: AtomicBool,
    shutdown: CancellationToken,
    started_at: Timestamp,
}

/// What can always be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicHealth {
    /// Name of the service.
    pub service: String,
    /// Version of the service.
    pub version: String,
    /// The time now.
    pub timestamp: Timestamp,
    /// How long it runs.
    pub uptime: Duration,
}

/// Whether requests may be sent here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether they may.
    pub ready: bool,
    /// The database.
    pub database: DatabaseHealth,
    /// Why they may not, while they may not.
    pub reason: Option<NotReady>,
}

/// Why requests should not be sent here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotReady {
    /// The service is about to end.
    ShuttingDown,
    /// The database does not answer, or not in time.
    DatabaseDown,
    /// The schema of the database is older than the program.
    MigrationsPending,
}

/// How the database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseHealth {
    /// Whether it can be used: it answers and its schema is up to date.
    pub healthy: bool,
    /// Its connections.
    pub pool: PoolStatus,
    /// Its technology.
    pub kind: StorageKind,
}

/// All parts together.
#[derive(Clone, Debug, PartialEq)]
pub struct DetailedHealth {
    /// What can always be said.
    pub basic: BasicHealth,
    /// Whether all parts are well.
    pub verdict: Verdict,
    /// Whether the database can be used; nothing else makes the service unavailable.
    pub database_ok: bool,
    /// The database.
    pub database: DatabaseHealth,
    /// Figures of the process.
    pub process: ProcessStats,
    /// Live asynchronous tasks.
    pub live_tasks: u64,
    /// The machine or pod.
    pub hostname: String,
    /// The version of Rust that the service was built with.
    pub rust_version: String,
    /// The clusters, sorted by name.
    pub clusters: Vec<ClusterStatus>,
}

/// Whether all parts are well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// All are.
    Healthy,
    /// One is not.
    Degraded,
}

/// One check by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedCheck {
    /// The name.
    pub name: &'static str,
    /// Whether it passed.
    pub ok: bool,
}

impl Verdict {
    /// `healthy` or `degraded`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
        }
    }
}

impl NotReady {
    /// `shutting_down`, `database_down` or `migrations_pending`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ShuttingDown => "shutting_down",
            Self::DatabaseDown => "database_down",
            Self::MigrationsPending => "migrations_pending",
        }
    }
}

impl Health {
    /// Starts checking the database in the background: every 5 s while it can be used, every 500 ms while it cannot, each check
    /// with a deadline of 2 s. That ends when `shutdown` is cancelled, which also makes the service not ready.
    pub fn start(
        settings: HealthSettings,
        storage: Arc<dyn StorageAdmin>,
        clock: Arc<dyn Clock>,
        stats: Arc<dyn SystemStats>,
        inventory: Arc<Inventory>,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let started_at = clock.now();
        Arc::new(Self {
            checker: Checker::start(Arc::clone(&storage), shutdown.clone()),
            settings,
            storage,
            clock,
            stats,
            inventory,
            ending: AtomicBool::new(false),
            shutdown,
            started_at,
        })
    }

    /// What can always be said.
    #[must_use]
    pub fn basic(&self) -> BasicHealth {
        let timestamp = self.clock.now();
        BasicHealth {
            service: self.settings.service.clone(),
            version: self.settings.version.clone(),
            timestamp,
            uptime: timestamp.since(self.started_at),
        }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether requests may be sent here, within 2 s: from what was found within the last 250 ms, or else after looking now.
    pub async fn readiness(&self) -> Readiness {
        let state = match self.is_ending() {
            true => self.checker.last(),
            false => self.checker.recent().await,
        };
        self.readiness_of(state)
    }

    /// All parts together, within 2 s.
    pub async fn detailed(&self) -> DetailedHealth {
        let state = match self.shutdown.is_cancelled() {
            true => self.checker.last(),
            false => self.checker.recent().await,
        };
        let database = self.database(state);
        let clusters = self.inventory.clusters();
        let one_degraded = clusters.iter().any(|cluster| match cluster.state {
            ClusterState::Degraded => true,
            ClusterState::Connecting | ClusterState::Healthy => false,
        });
        let verdict = match database.healthy && !one_degraded {
            true => Verdict::Healthy,
            false => Verdict::Degraded,
        };
        DetailedHealth {
            basic: self.basic(),
            verdict,
            database_ok: database.healthy,
            database,
            process: self.stats.process(),
            live_tasks: self.stats.live_tasks(),
            hostname: self.stats.hostname(),
            rust_version: self.settings.rust_version.clone(),
            clusters,
        }
    }

    /// What readiness consists of, one by one.
    pub async fn checks(&self) -> Vec<NamedCheck> {
        let ending = self.is_ending();
        let state = match ending {
            true => self.checker.last(),
            false => self.checker.recent().await,
        };
        let migrated = match state {
            DatabaseState::Usable => true,
            DatabaseState::MigrationsPending => false,
            DatabaseState::Down | DatabaseState::NotChecked => self.checker.was_migrated(),
        };
        let check = |name, ok| NamedCheck { name, ok };
        vec![
            check("database", state.answers()),
            check("migrations", migrated),
            check("shutdown", !ending),
        ]
    }

    /// Makes the service not ready, from here on.
    pub fn begin_shutdown(&self) {
        self.ending.store(true, Ordering::SeqCst);
    }

    /// Sets the gauges of the service, its database and its process. Called right before metrics are rendered.
    pub fn observe(&self) {
        let state = self.checker.last();
        let is = |truth: bool| f64::from(u8::from(truth));
        gauge!(metric::UP).set(is(self.readiness_of(state).ready));
        gauge!(metric::DATABASE_UP).set(is(state.answers()));
        gauge!(metric::START_TIME).set(self.started_at.unix_seconds());
        let (version, rust_version) = (self.settings.version.clone(), self.settings.rust_version.clone());
        gauge!(metric::BUILD_INFO, "version" => version, "rust_version" => rust_version).set(1.0);

        let pool = self.storage.pool();
        for (state, count) in [("open", pool.open), ("in_use", pool.in_use), ("idle", pool.idle)] {
            gauge!(metric::DATABASE_CONNECTIONS, "state" => state).set(f64::from(count));
        }
        gauge!(metric::DATABASE_CONNECTIONS_MAX).set(f64::from(pool.max_open));

        let process = self.stats.process();
        gauge!(metric::MEMORY_USAGE).set(process.resident_bytes as f64);
        gauge!(metric::GOROUTINES).set(self.stats.live_tasks() as f64);
        gauge!(metric::PROCESS_RESIDENT).set(process.resident_bytes as f64);
        gauge!(metric::PROCESS_VIRTUAL).set(process.virtual_bytes as f64);
        gauge!(metric::PROCESS_OPEN_FDS).set(process.open_fds as f64);
        gauge!(metric::PROCESS_MAX_FDS).set(process.max_fds as f64);
        gauge!(metric::PROCESS_THREADS).set(process.threads as f64);
        gauge!(metric::PROCESS_START_TIME).set(self.started_at.unix_seconds());
        counter!(metric::PROCESS_CPU).absolute(process.cpu_seconds as u64);
    }

    fn readiness_of(&self, state: DatabaseState) -> Readiness {
        let reason = match state {
            _ if self.is_ending() => Some(NotReady::ShuttingDown),
            DatabaseState::Usable => None,
            DatabaseState::MigrationsPending => Some(NotReady::MigrationsPending),
            DatabaseState::Down | DatabaseState::NotChecked => Some(NotReady::DatabaseDown),
        };
        Readiness {
            ready: reason.is_none(),
            database: self.database(state),
            reason,
        }
    }

    fn database(&self, state: DatabaseState) -> DatabaseHealth {
        DatabaseHealth {
            healthy: state == DatabaseState::Usable,
            pool: self.storage.pool(),
            kind: self.storage.kind(),
        }
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst) || self.shutdown.is_cancelled()
    }
}
