//! The process and its machine.

use knm_model::Timestamp;
use uuid::Uuid;

/// The time.
#[cfg_attr(feature = "mocks", mockall::automock)]
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// Ids that no two things share.
#[cfg_attr(feature = "mocks", mockall::automock)]
pub trait IdSource: Send + Sync + 'static {
    /// A new UUID v7 for something that begins at `at`: later ones of this source sort behind it, in the same millisecond too, as long as
    /// `at` does not go back.
    fn next(&self, at: Timestamp) -> Uuid;
}

/// Figures of the process and its machine.
#[cfg_attr(feature = "mocks", mockall::automock)]
pub trait SystemStats: Send + Sync + 'static {
    /// Reads the figures of the process. A figure that the operating system does not tell is 0.
    fn process(&self) -> ProcessStats;

    /// The number of live asynchronous tasks of the runtime.
    fn live_tasks(&self) -> u64;

    /// The name of the machine or pod, `unknown` if it has none.
    fn hostname(&self) -> String;
}

/// Figures of the process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessStats {
    /// Memory that it occupies, in bytes.
    pub resident_bytes: u64,
    /// Memory that it reserved, in bytes.
    pub virtual_bytes: u64,
    /// CPU time that it used since it started, user and system, in seconds.
    pub cpu_seconds: f64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// How many it may open.
    pub max_fds: u64,
    /// Threads of the operating system.
    pub threads: u64,
}

/// The metrics of the process in Prometheus' text format.
#[cfg_attr(feature = "mocks", mockall::automock)]
pub trait MetricsExposition: Send + Sync + 'static {
    /// Renders all of them, version 0.0.4 of the format, with HELP and TYPE for each, and forgets those whose label `cluster` is none of `clusters`.
    fn render(&self, clusters: &std::collections::BTreeSet<knm_model::ClusterName>) -> String;
}

/// A clock that stands still until it is set: for tests of services.
#[cfg(feature = "mocks")]
#[derive(Debug)]
pub struct ManualClock(std::sync::Mutex<Timestamp>);

#[cfg(feature = "mocks")]
impl ManualClock {
    /// A clock that shows `text`, an RFC 3339 time.
    ///
    /// # Panics
    /// If `text` is not a time: this is for tests.
    #[expect(
        clippy::expect_used,
        reason = "only built for tests, where a wrong time is a wrong test"
    )]
    pub fn at(text: &str) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self(std::sync::Mutex::new(
            Timestamp::parse(text).expect("an RFC 3339 time"),
        )))
    }

    /// Moves it forward.
    pub fn advance(&self, duration: std::time::Duration) {
        let mut time = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *time = time.plus(duration);
    }
}

#[cfg(feature = "mocks")]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Ids that are counted, for tests: the same in every run.
#[cfg(feature = "mocks")]
#[derive(Debug, Default)]
pub struct CountedIds(std::sync::atomic::AtomicU64);

#[cfg(feature = "mocks")]
impl IdSource for CountedIds {
    fn next(&self, at: Timestamp) -> Uuid {
        let count = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut rest = [0; 10];
        rest[2..].copy_from_slice(&count.to_be_bytes());
        uuid::Builder::from_unix_timestamp_millis(u64::try_from(at.unix_millis()).unwrap_or(0), &rest).into_uuid()
    }
}
