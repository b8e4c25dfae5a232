//! Metrics of requests.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use metrics::{Counter, Histogram};

pub(crate) const REQUESTS: &str = "kube_node_manager_http_requests_total";
pub(crate) const REQUEST_DURATION: &str = "kube_node_manager_http_request_duration_seconds";
pub(crate) const REQUESTS_IN_FLIGHT: &str = "kube_node_manager_http_requests_in_flight";
pub(crate) const CONNECTIONS: &str = "kube_node_manager_http_connections";

pub(crate) const CONNECTIONS_CLOSED: &str = "kube_node_manager_http_connections_closed_total";
pub(crate) const CERTIFICATE_EXPIRY: &str = "kube_node_manager_tls_certificate_expiry_time_seconds";

/// Describes the metrics of this crate to the recorder.
pub fn describe_metrics() {
    metrics::describe_counter!(
        REQUESTS,
        "Requests that were answered, by method, route template and status."
    );
    metrics::describe_histogram!(
        REQUEST_DURATION,
        "Seconds from a request's head to its answer's, by method, route template and status."
    );
    metrics::describe_gauge!(REQUESTS_IN_FLIGHT, "Requests that are being answered.");
    metrics::describe_gauge!(CONNECTIONS, "Connections that are open.");
    metrics::describe_counter!(
        CONNECTIONS_CLOSED,
        "Silent connections that were closed to make room for others."
    );
    metrics::describe_gauge!(
        CERTIFICATE_EXPIRY,
        "When the certificate that is served ends, in seconds since 1970; not there without TLS."
    );
}

type Labels = (&'static str, &'static str, u16);

/// The series of requests, looked up once each: their labels are few.
#[derive(Default)]
pub(crate) struct RequestMetrics {
    series: RwLock<HashMap<Labels, Arc<(Counter, Histogram)>>>,
}

impl RequestMetrics {
    pub(crate) fn count(&self, method: &'static str, route: &'static str, status: u16, seconds: f64) {
        let labels = (method, route, status);
        let known = self
            .series
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&labels)
            .cloned();
        let series = known.unwrap_or_else(|| {
            let labelled = [
                ("method", method.to_owned()),
                ("route", route.to_owned()),
                ("status", status.to_string()),
            ];
            let series = Arc::new((
                metrics::counter!(REQUESTS, &labelled),
                metrics::histogram!(REQUEST_DURATION, &labelled),
            ));
            self.series
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(labels, Arc::clone(&series));
            series
        });
        series.0.increment(1);
        series.1.record(seconds);
    }
}
