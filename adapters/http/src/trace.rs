//! Requests as they are seen in traces. What the names of fields mean is told in `adapters/telemetry`; where nobody traces, nothing of this
//! is done.

use poem::Request;
use poem::http::{HeaderMap, StatusCode};
use tracing::Span;
use tracing::field::Empty;

use crate::route::UNMATCHED;

const TRACEPARENT: &str = "traceparent";

/// The span of a request. It says which route was asked for and neither its path nor its query: these hold whatever callers like.
pub(crate) fn request(request: &Request, method: &'static str, route: &'static str, id: &str) -> Span {
    let span = tracing::info_span!(
        target: "otel", "http request", otel.kind = "server", otel.parent = parent(request.headers()),
        otel.name = Empty, otel.failed = Empty, otel.ended = Empty,
        http.request.method = known(method), http.route = Empty, url.scheme = Empty,
        http.response.status_code = Empty, error.type = Empty, request_id = id,
    );
    if !span.is_disabled() {
        let name = match method {
            "other" => "HTTP",
            method => method,
        };
        span.record("url.scheme", request.scheme().as_str());
        if route == UNMATCHED {
            span.record("otel.name", name);
        } else {
            span.record("otel.name", format!("{name} {route}"));
            span.record("http.route", route);
        }
    }
    span
}

/// Notes what came of a request. The span ends: what goes on beside or after the answer, such as the body of a stream, is no part of it.
pub(crate) fn answered(span: &Span, status: StatusCode) {
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("error.type", status.as_str());
        span.record("otel.failed", true);
    }
    span.record("otel.ended", true);
}

/// Where the caller is, as it says. Several headers say nothing.
fn parent(headers: &HeaderMap) -> Option<&str> {
    let mut told = headers.get_all(TRACEPARENT).iter();
    match (told.next(), told.next()) {
        (Some(one), None) => one.to_str().ok(),
        (None, _) | (Some(_), Some(_)) => None,
    }
}

/// Methods as the conventions of OpenTelemetry write them.
fn known(method: &'static str) -> &'static str {
    match method {
        "other" => "_OTHER",
        method => method,
    }
}
