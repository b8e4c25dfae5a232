//! Requests to API servers as they are seen in traces. What the names of fields mean is told in `adapters/telemetry`; where nobody traces,
//! nothing of this is done.

use http::StatusCode;
use knm_model::ClusterName;
use tracing::Span;
use tracing::field::Empty;

use crate::metric::Call;

/// The span of a request, which is the `repetition`th with other credentials after the first. It has no status where no answer came in time.
pub(crate) fn request(cluster: &ClusterName, call: Call, method: &str, repetition: u32) -> Span {
    let span = tracing::info_span!(
        target: "otel", "kubernetes request", otel.kind = "client", otel.name = Empty, otel.failed = Empty,
        k8s.cluster.name = cluster.as_str(), k8s.verb = call.verb, k8s.resource = call.resource,
        http.request.method = method, http.request.resend_count = Empty, http.response.status_code = Empty,
        error.type = Empty,
    );
    if !span.is_disabled() {
        span.record("otel.name", format!("{} {}", call.verb, call.resource));
        if 0 < repetition {
            span.record("http.request.resend_count", repetition);
        }
    }
    span
}

/// Notes the status of the answer, or that there was none.
pub(crate) fn answered(span: &Span, status: Option<StatusCode>) {
    if span.is_disabled() {
        return;
    }
    if let Some(status) = status {
        span.record("http.response.status_code", status.as_u16());
    }
    let is_error = |status: &StatusCode| status.is_client_error() || status.is_server_error();
    if status.as_ref().is_none_or(is_error) {
        span.record("error.type", status.as_ref().map_or("unreachable", StatusCode::as_str));
        span.record("otel.failed", true);
    }
}
