//! What holds for every request: its id, limits, log line and metrics, and that every answer is one that callers can read.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http_body_util::combinators::BoxBody;
use metrics::Gauge;
use poem::http::uri::Scheme;
use poem::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use poem::{Body, Endpoint, Request, Response};
use tokio::time::{Instant, timeout};
use tracing::{Instrument, Span};

use crate::client::ClientAddress;
use crate::compression::{self, Encoding};
use crate::gate::{self, Gate};
use crate::headers::{Visitor, insist_on_tls, secure};
use crate::limit::{Limits, caller_key};
use crate::metric::{REQUESTS_IN_FLIGHT, RequestMetrics};
use crate::problem::{Kind, Problem, shortened};
use crate::route::{self, Paths, UNMATCHED};
use crate::{AppSettings, ServerLimits, parameters, trace};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What holds for every request, around the operations.
pub(crate) struct Edge<E> {
    inner: E,
    gate: Gate,
    settings: AppSettings,
    limits: ServerLimits,
    paths: Paths,
    rates: Limits,
    ids: RequestIds,
    metrics: RequestMetrics,
    in_flight: Gauge,
}

/// The id of a request that changes something, which the audit log keeps.
#[derive(Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// Makes ids that no two requests share: a random part for the process, and a count.
struct RequestIds {
    process: u64,
    count: AtomicU64,
}

impl<E: Endpoint<Output = Response>> Edge<E> {
    pub(crate) fn new(inner: E, gate: Gate, settings: AppSettings, limits: ServerLimits, paths: Paths) -> Self {
        Self {
            inner,
            gate,
            settings,
            rates: Limits::new(&limits),
            limits,
            paths,
            ids: RequestIds {
                process: uuid::Uuid::new_v4().as_u64_pair().1,
                count: AtomicU64::new(0),
            },
            metrics: RequestMetrics::default(),
            in_flight: metrics::gauge!(REQUESTS_IN_FLIGHT),
        }
    }

    async fn answer(&self, mut request: Request) -> Response {
        let started = Instant::now();
        let id = self.ids.of(request.headers());
        let method = method_label(request.method());
        let route = route::template(request.uri().path())
            .filter(|route| self.paths.has(route))
            .unwrap_or(UNMATCHED);
        let routine = route::is_routine(route);
        let traced = match routine {
            true => Span::none(),
            false => trace::request(&request, method, route, &id),
        };
        let span = traced.in_scope(|| match routine {
            true => tracing::debug_span!("request", request_id = id.as_str()),
            false => tracing::info_span!("request", request_id = id.as_str()),
        });
        // Where the log is too quiet for the one, the other holds what is within.
        let span = if span.is_disabled() { traced.clone() } else { span };
        let is_head = request.method() == Method::HEAD;
        let is_by_tls = request.scheme() == &Scheme::HTTPS;
        let encoding = Encoding::negotiate(request.headers());
        let visitor = Visitor::of(request.headers());
        if is_head {
            request.set_method(Method::GET);
        }
        if request.uri().path() == "/health/" {
            *request.uri_mut() = Uri::from_static("/health");
        }
        let address = ClientAddress::of(&request, &self.settings.trusted_proxies);
        request.set_data(address);
        if !matches!(*request.method(), Method::GET | Method::OPTIONS) {
            request.set_data(RequestId(id.clone()));
        }
        self.in_flight.increment(1.0);
        let counted = Counted(&self.in_flight);
        let mut answering = pin!(self.limited(request, route).instrument(span));
        let response = answering.as_mut().await;
        let (mut response, failure) = self.explained(response, &id);
        drop(counted);
        if let Some(encoding) = encoding.filter(|_| is_compressible(&mut response)) {
            response = compression::compressed(response, encoding);
            weaken_tag(response.headers_mut());
        }
        self.finish(&mut response, route, &id, visitor);
        if is_by_tls {
            insist_on_tls(response.headers_mut());
        }
        if is_head {
            drop_body(&mut response);
        }
        let status = response.status();
        let duration = started.elapsed();
        self.metrics
            .count(method, route, status.as_u16(), duration.as_secs_f64());
        answering.span().in_scope(|| match &failure {
            Some(problem) => log_failure(problem, method, route, status, duration),
            None => log(routine, method, route, status, duration),
        });
        trace::answered(&traced, status);
        response
    }

    /// The answer of the operation, or why there is none.
    async fn limited(&self, mut request: Request, route: &'static str) -> Response {
        let mut caller = caller_key(&request);
        // Whoever looks after this service sees it at its worst, too. Those who sign in are counted when it is known who they are: others at
        // their address take nothing from them.
        if !route::is_routine(route)
            && !route::is_strict(route)
            && let Err(problem) = self.rates.admit(&caller)
        {
            return problem.into_response();
        }
        if let Some(response) = self.answer_to_anybody(&request, route) {
            // Nobody will know who sent it.
            if route::is_strict(route)
                && let Err(problem) = self.rates.admit(&caller)
            {
                return problem.into_response();
            }
            return response;
        }
        // Before anything is read of what a stranger sends.
        let address = request.data::<ClientAddress>().and_then(|address| address.0);
        let admitted = Box::pin(self.gate.admit(&mut request, route, address)).await;
        if route::is_strict(route) {
            // Whoever is refused is counted, too: a stranger for their address.
            caller = caller.signed_in(&gate::caller(&request));
            if let Err(problem) = self.rates.admit(&caller) {
                return problem.into_response();
            }
        }
        if let Err(problem) = admitted {
            return problem.into_response();
        }
        if let Err(problem) = parameters::check(route, &request) {
            return problem.into_response();
        }
        let request = if has_body(request.headers()) {
            // Boxed, as is the operation: the future of a request is moved several times, which costs less when it is small.
            match Box::pin(self.received(request)).await {
                Ok(request) => request,
                Err(problem) => return problem.into_response(),
            }
        } else {
            request
        };
        // With its body: nobody takes a place and lets others wait for a request that is still to come.
        let place = match self.rates.place(route, request.headers(), caller) {
            Ok(place) => place,
            Err(problem) => return problem.into_response(),
        };
        let operation = AssertUnwindSafe(Box::pin(self.inner.call(request))).catch_unwind();
        let outcome = match route::is_stream(route) {
            true => operation.await,
            false => match timeout(self.settings.write_timeout, operation).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    let detail = format!("no answer within {} s", self.settings.write_timeout.as_secs());
                    return Problem::new(Kind::TimedOut, detail).into_response();
                }
            },
        };
        match outcome {
            Ok(Ok(response)) => match place {
                Some(place) => place.kept_by(response),
                None => response,
            },
            Ok(Err(error)) => error.into_response(),
            // The panic hook has logged where and why.
            Err(_) => Problem::new(
                Kind::Internal,
                "this service failed: its log says why, under this request_id",
            )
            .into_response(),
        }
    }

    /// The answer to a request that is the same whoever sent it: what cannot be done here, and what may be.
    fn answer_to_anybody(&self, request: &Request, route: &'static str) -> Option<Response> {
        if self.limits.max_url_bytes < length(request.original_uri()) {
            let detail = format!(
                "the URL has more than the {} bytes that are allowed",
                self.limits.max_url_bytes
            );
            return Some(Problem::new(Kind::UriTooLong, detail).into_response());
        }
        let header_bytes: usize = request
            .headers()
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum();
        if self.limits.max_header_bytes < header_bytes {
            let detail = format!(
                "the headers have {header_bytes} bytes, at most {} are allowed",
                self.limits.max_header_bytes
            );
            return Some(Problem::new(Kind::HeadersTooLarge, detail).into_response());
        }
        if request.version() == Version::HTTP_11 && request.headers().get_all(header::HOST).iter().count() != 1 {
            return Some(Problem::new(Kind::Malformed, "there must be one header host").into_response());
        }
        // CONNECT names no path at all, and OPTIONS may ask about all of them.
        let is_general =
            request.method() == Method::CONNECT || (request.method() == Method::OPTIONS && request.uri().path() == "*");
        if route == UNMATCHED && !is_general {
            if request.uri().path().is_empty() {
                return Some(Problem::new(Kind::Malformed, "the URL has no path").into_response());
            }
            let detail = format!(
                "there is nothing at {:?}: {}",
                shortened(request.uri().path()),
                self.paths.hint()
            );
            return Some(Problem::new(Kind::NotFound, detail).into_response());
        }
        if request.method() == Method::OPTIONS {
            let allowed = Response::builder().header(header::ALLOW, route::allowed(route));
            return Some(allowed.status(StatusCode::NO_CONTENT).finish());
        }
        if !route::allows(route, request.method().as_str()) {
            let detail = format!(
                "{} is not allowed here: {} are",
                shortened(request.method().as_str()),
                route::allowed(route)
            );
            let mut response = Problem::new(Kind::MethodNotAllowed, detail).into_response();
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static(route::allowed(route)));
            return Some(response);
        }
        None
    }

    /// The request with its whole body, which arrives in time and is not too large.
    async fn received(&self, mut request: Request) -> Result<Request, Problem> {
        let limit = self.settings.max_body_bytes;
        let too_large = || {
            Problem::new(
                Kind::TooLarge,
                format!("the body has more than the {limit} bytes that are allowed"),
            )
        };
        let length = request
            .headers()
            .get(header::CONTENT_LENGTH)
            .map(|length| length.to_str().map(str::parse::<usize>));
        let announced = match length {
            None => None,
            Some(Ok(Ok(length))) => Some(length),
            Some(_) => return Err(Problem::new(Kind::Malformed, "content-length is not a number of bytes")),
        };
        if announced.is_some_and(|length| limit < length) {
            return Err(too_large());
        }
        let body = request.take_body();
        match timeout(self.settings.read_timeout, body.into_bytes_limit(limit)).await {
            Ok(Ok(bytes)) => {
                request.set_body(bytes);
                Ok(request)
            }
            Ok(Err(poem::error::ReadBodyError::PayloadTooLarge)) => Err(too_large()),
            Ok(Err(_)) => Err(Problem::new(Kind::Malformed, "the body could not be read to its end")),
            Err(_) => {
                let detail = format!(
                    "the body did not arrive within {} s",
                    self.settings.read_timeout.as_secs()
                );
                Err(Problem::new(Kind::RequestTimeout, detail))
            }
        }
    }

    /// Writes the body of a problem, and says which one it is if it is ours.
    fn explained(&self, mut response: Response, id: &str) -> (Response, Option<Problem>) {
        let status = response.status();
        if !status.is_client_error() && !status.is_server_error() {
            return (response, None);
        }
        let problem = match response.extensions_mut().remove::<Problem>() {
            Some(problem) => problem,
            // Answers such as "not ready" have a body of their own.
            None if response.headers().contains_key(header::CONTENT_TYPE) && !is_unexplained(&response) => {
                return (response, None);
            }
            None => Problem::new(Kind::of(status), Kind::of(status).title()),
        };
        problem.explain(&mut response, id, self.settings.debug_errors);
        let is_ours = problem.kind().status().is_server_error();
        (response, is_ours.then_some(problem))
    }

    fn finish(&self, response: &mut Response, route: &str, id: &str, visitor: Visitor) {
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(id) {
            headers.insert(REQUEST_ID, id);
        }
        secure(headers, route);
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
        visitor.share(headers, route, &self.settings.cors_origins);
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for Edge<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        Ok(self.answer(request).await)
    }
}

/// How long a URL is as the caller wrote it, in bytes.
fn length(uri: &Uri) -> usize {
    let origin = match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) => scheme.len() + "://".len() + authority.as_str().len(),
        (_, authority) => authority.map_or(0, |authority| authority.as_str().len()),
    };
    origin + uri.path_and_query().map_or(0, |path| path.as_str().len())
}

/// Whether a body comes with these headers.
fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(|length| length.as_bytes() != b"0")
}

/// Takes a request off the gauge, also when its caller leaves.
struct Counted<'a>(&'a Gauge);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl RequestIds {
    /// The caller's id if it is sane, else a new one.
    fn of(&self, headers: &HeaderMap) -> String {
        let given = headers
            .get(REQUEST_ID)
            .and_then(|id| id.to_str().ok())
            .filter(|id| is_sane(id));
        match given {
            Some(id) => id.to_owned(),
            None => format!(
                "{:016x}{:08x}",
                self.process,
                self.count.fetch_add(1, Ordering::Relaxed)
            ),
        }
    }
}

/// Ids go into logs and headers: short, and nothing that anybody would read as more than an id.
fn is_sane(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Whether an error is in plain text, as the framework writes it.
fn is_unexplained(response: &Response) -> bool {
    let kind = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    response.status() != StatusCode::SERVICE_UNAVAILABLE && kind.starts_with("text/plain")
}

fn is_compressible(response: &mut Response) -> bool {
    let headers = response.headers();
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let is_text = kind.starts_with("application/") || kind.starts_with("text/");
    is_text
        && kind != "text/event-stream"
        && !headers.contains_key(header::CONTENT_ENCODING)
        && body_size(response).is_none_or(|size| compression::WORTHWHILE_BYTES <= size)
}

/// How many bytes the body has, if that is known.
fn body_size(response: &mut Response) -> Option<u64> {
    let body: BoxBody<Bytes, std::io::Error> = response.take_body().into();
    let size = http_body::Body::size_hint(&body).exact();
    response.set_body(Body::from(body));
    size
}

/// The bytes are no longer those that a strong tag names.
fn weaken_tag(headers: &mut HeaderMap) {
    let weak = headers
        .get(header::ETAG)
        .and_then(|tag| tag.to_str().ok())
        .filter(|tag| !tag.starts_with("W/"))
        .and_then(|tag| HeaderValue::from_str(&format!("W/{tag}")).ok());
    if let Some(weak) = weak {
        headers.insert(header::ETAG, weak);
    }
}

/// Only the head of the answer, with the length that the body would have.
fn drop_body(response: &mut Response) {
    let size = body_size(response);
    response.set_body(Body::empty());
    if let Some(size) = size.filter(|_| response.status() != StatusCode::NO_CONTENT) {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    }
}

/// Methods as labels: those that nobody defined are one.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

/// The one line of a request that did not fail in us.
pub(crate) fn log(routine: bool, method: &str, route: &str, status: StatusCode, duration: Duration) {
    let (status, duration_ms) = (status.as_u16(), milliseconds(duration));
    match status {
        // The log tells of those together.
        _ if routine || status == 429 => tracing::debug!(method, route, status, duration_ms, "request"),
        400.. => tracing::warn!(method, route, status, duration_ms, "request"),
        _ => tracing::info!(method, route, status, duration_ms, "request"),
    }
}

/// What failed in us, with all that lies below.
fn log_failure(problem: &Problem, method: &str, route: &str, status: StatusCode, duration: Duration) {
    let (status, duration_ms) = (status.as_u16(), milliseconds(duration));
    match problem.source() {
        Some(error) => tracing::error!(error, method, route, status, duration_ms, "request"),
        None => {
            let detail = problem.detail();
            tracing::error!(detail, method, route, status, duration_ms, "request");
        }
    }
}

/// With whole microseconds.
fn milliseconds(duration: Duration) -> f64 {
    f64::from(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)) / 1_000.0
}

#[cfg(test)]
mod tests;
