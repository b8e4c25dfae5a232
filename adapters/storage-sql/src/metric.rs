//! Names of the metrics.

use metrics::{Counter, Histogram, Unit};

/// How many connections were ever held for longer than the leak threshold.
pub(crate) const CONNECTION_LEAKS: &str = "kube_node_manager_database_connection_leaks_total";
const ACQUIRE_TIMEOUTS: &str = "kube_node_manager_database_acquire_timeouts_total";
const ACQUIRE_DURATION: &str = "kube_node_manager_database_acquire_duration_seconds";

/// Tells the recorder what the metrics of the SQL storage adapters mean.
pub fn describe_metrics() {
    metrics::describe_counter!(
        CONNECTION_LEAKS,
        "Database connections that were held for longer than the leak threshold, each counted once."
    );
    metrics::describe_counter!(
        ACQUIRE_TIMEOUTS,
        "How often a database connection was waited for in vain because all were in use."
    );
    metrics::describe_histogram!(
        ACQUIRE_DURATION,
        Unit::Seconds,
        "How long a database connection was waited for, in vain or not."
    );
}

/// What waiting for a connection of the pool counts.
pub(crate) struct Waits {
    timeouts: Counter,
    durations: Histogram,
}

impl Waits {
    pub(crate) fn new() -> Self {
        let timeouts = metrics::counter!(ACQUIRE_TIMEOUTS);
        // So that the series is there before the first one: rates need it.
        timeouts.increment(0);
        Self {
            timeouts,
            durations: metrics::histogram!(ACQUIRE_DURATION),
        }
    }

    /// Counts a wait that ended.
    pub(crate) fn ended(&self, took: std::time::Duration) {
        self.durations.record(took.as_secs_f64());
    }

    /// Counts that it was in vain.
    pub(crate) fn in_vain(&self) {
        self.timeouts.increment(1);
    }
}
