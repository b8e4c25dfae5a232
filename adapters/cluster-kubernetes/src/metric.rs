//! Metrics of the requests to API servers.

use std::time::Duration;

use knm_model::{ClusterName, KubernetesAction};

const REQUESTS: &str = "kube_node_manager_kubernetes_requests_total";
const DURATION: &str = "kube_node_manager_kubernetes_request_duration_seconds";
const WATCH_RESTARTS: &str = "kube_node_manager_cluster_watch_restarts_total";

/// Tells the recorder what the metrics of this crate mean.
pub fn describe_metrics() {
    metrics::describe_counter!(
        REQUESTS,
        "Requests to the API server; the code is its status, or timeout or error when there was none."
    );
    metrics::describe_histogram!(
        DURATION,
        metrics::Unit::Seconds,
        "Time until the API server answered; of a watch, until it began."
    );
    metrics::describe_counter!(
        WATCH_RESTARTS,
        "How often a watch had to be opened again, by what it watches: nodes or pods."
    );
}

/// What is asked of which resource, for labels and errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) verb: &'static str,
    pub(crate) resource: &'static str,
}

impl Call {
    /// What the rules of the cluster must allow for it; `None` for what everybody may do.
    pub(crate) fn action(self) -> Option<KubernetesAction> {
        KubernetesAction::of_request(self.verb, self.resource)
    }
}

pub(crate) fn request(cluster: &ClusterName, call: Call, code: String, took: Duration) {
    let cluster = cluster.as_str().to_owned();
    metrics::counter!(REQUESTS, "cluster" => cluster.clone(), "verb" => call.verb, "resource" => call.resource, "code" => code)
        .increment(1);
    metrics::histogram!(DURATION, "cluster" => cluster, "verb" => call.verb, "resource" => call.resource)
        .record(took.as_secs_f64());
}

/// Shows the counters of restarts before the first one: a rate is only seen from a value that was there.
pub(crate) fn watch_known(cluster: &ClusterName, resource: &'static str) {
    metrics::counter!(WATCH_RESTARTS, "cluster" => cluster.as_str().to_owned(), "resource" => resource).increment(0);
}

pub(crate) fn watch_restarted(cluster: &ClusterName, resource: &'static str) {
    metrics::counter!(WATCH_RESTARTS, "cluster" => cluster.as_str().to_owned(), "resource" => resource).increment(1);
}
