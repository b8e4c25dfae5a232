//! Names of the metrics.

/// How many connections were ever held for longer than the leak threshold.
pub(crate) const CONNECTION_LEAKS: &str = "kube_node_manager_database_connection_leaks_total";

/// Tells the recorder what the metrics of the SQL storage adapters mean.
pub fn describe_metrics() {
    metrics::describe_counter!(
        CONNECTION_LEAKS,
        "Database connections that were held for longer than the leak threshold, each counted once."
    );
}
