//! Metrics in Prometheus' text format.

use std::collections::BTreeSet;

use knm_model::ClusterName;
use knm_ports::MetricsExposition;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

use crate::TelemetryError;
use crate::recorder::RecorderByCluster;

/// Upper bounds for everything that is a duration: from a cached answer to the longest deadline.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];
/// The metric of how long operations take: some wait on budgets for hours.
const OPERATIONS: &str = "kube_node_manager_operation_duration_seconds";
/// Its upper bounds: from a second to four hours.
const OPERATION_SECONDS: [f64; 13] = [
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0,
];

/// The metrics of this process.
#[derive(Clone)]
pub struct PrometheusExposition(RecorderByCluster);

/// Collects the metrics of this process from here on.
///
/// # Errors
/// [`TelemetryError::Metrics`] if they are collected already.
pub fn install_metrics() -> Result<PrometheusExposition, TelemetryError> {
    let recorder = RecorderByCluster::new(builder).map_err(|error| TelemetryError::Metrics(error.to_string()))?;
    metrics::set_global_recorder(recorder.clone()).map_err(|error| TelemetryError::Metrics(error.to_string()))?;
    Ok(PrometheusExposition(recorder))
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Full(OPERATIONS.to_owned()), &OPERATION_SECONDS)
}

impl PrometheusExposition {
    /// Folds what was observed into its buckets, and forgets what is told of all clusters but these. Call it every few seconds: until then
    /// observations take memory.
    pub fn fold(&self, clusters: &BTreeSet<ClusterName>) {
        self.0.keep(clusters);
        self.0.fold();
    }
}

impl MetricsExposition for PrometheusExposition {
    fn render(&self, clusters: &BTreeSet<ClusterName>) -> String {
        self.0.keep(clusters);
        self.0.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_buckets_and_everything_has_help_and_type() {
        let exposition = install_metrics().unwrap();
        crate::describe_metrics();
        metrics::describe_histogram!("knm_test_duration_seconds", "How long a test takes.");
        metrics::histogram!("knm_test_duration_seconds").record(0.003);
        metrics::histogram!(OPERATIONS).record(90.0);
        exposition.fold(&BTreeSet::new());

        let text = exposition.render(&BTreeSet::new());
        assert!(
            text.contains("# HELP knm_test_duration_seconds How long a test takes.\n"),
            "{text}"
        );
        assert!(text.contains("# TYPE knm_test_duration_seconds histogram\n"), "{text}");
        assert!(
            text.contains("knm_test_duration_seconds_bucket{le=\"0.0025\"} 0\n"),
            "{text}"
        );
        assert!(
            text.contains("knm_test_duration_seconds_bucket{le=\"0.005\"} 1\n"),
            "{text}"
        );
        for (bound, count) in [("1", 0), ("60", 0), ("120", 1), ("14400", 1)] {
            let line = format!("{OPERATIONS}_bucket{{le=\"{bound}\"}} {count}\n");
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
        assert!(text.contains("kube_node_manager_log_lines_dropped_total 0\n"), "{text}");
        assert!(install_metrics().is_err());
    }
}
