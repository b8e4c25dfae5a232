//! Requests with an `Idempotency-Key`: sent twice, done once.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{Either, ready};
use knm_domain::{Idempotency, Operations, Turn};
use knm_model::{Caller, KeptAnswer, KeyClaim, check_idempotency_key, excerpt};
use poem::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use poem::{Endpoint, Request, Response};
use sha2::{Digest, Sha256};
use tracing::Instrument;
use uuid::Uuid;

use crate::answer::location;
use crate::edge::RequestId;
use crate::gate::caller;
use crate::problem::{Kind, Problem};
use crate::route::{self, UNMATCHED};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says of an answer that it was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// How large an answer may be that is kept. Beyond that a request that is sent again is done again: changes are such that this changes
/// nothing, and operations know the request that they were opened by.
const MOST_KEPT_BYTES: usize = 64 * 1024;

/// A SHA-256 of a request with its caller and its key: what it opens knows it by this, also where nothing is known of its key any more,
/// because what was answered was an error.
#[derive(Clone, Copy)]
pub(crate) struct SentOnce(pub(crate) [u8; 32]);

/// Does requests with a key once, whatever replica they come to, and hands over all others.
pub(crate) struct Once<E> {
    inner: Arc<E>,
    idempotency: Arc<Idempotency>,
    operations: Arc<Operations>,
}

impl<E: Endpoint<Output = Response> + 'static> Once<E> {
    pub(crate) fn new(inner: E, idempotency: Arc<Idempotency>, operations: Arc<Operations>) -> Self {
        Self {
            inner: Arc::new(inner),
            idempotency,
            operations,
        }
    }

    async fn once(&self, request: Request) -> Result<Response, Problem> {
        if request.uri().path() == "/api/v1/tokens" {
            let detail = "there is no idempotency-key here: the answer has a secret, which is not kept";
            return Err(Problem::new(Kind::Malformed, detail));
        }
        let key = key(request.headers())?;
        let asking = caller(&request);
        let caller = asking.identity();
        let (mut request, fingerprint) = fingerprinted(request).await?;
        request.set_data(SentOnce(digest_of(&[caller.as_bytes(), key.as_bytes(), &fingerprint])));
        match self.idempotency.begin(&caller, &key, fingerprint).await? {
            Turn::Work(claim) => self.work(request, claim).await,
            Turn::Answered(answer) => {
                self.check_visible(request.uri().path(), &answer, &asking).await?;
                Ok(replayed(answer))
            }
            Turn::Running => Err(Problem::new(
                Kind::Conflict,
                format!(
                    "the request with the idempotency key \"{}\" is still being worked on",
                    excerpt(&key)
                ),
            )),
            Turn::Different => Err(Problem::new(
                Kind::Invalid,
                format!(
                    "the idempotency key \"{}\" belongs to another request: the same key goes with the same method, path, query and body",
                    excerpt(&key)
                ),
            )),
        }
    }

    /// That `caller` may still see the operation that a kept answer shows: what is in the path of other requests was looked at on the way
    /// here.
    async fn check_visible(&self, path: &str, answer: &KeptAnswer, caller: &Caller) -> Result<(), Problem> {
        if !(200..300).contains(&answer.status) {
            return Ok(());
        }
        let in_path = || {
            path.strip_prefix("/api/v1/operations/")?
                .split('/')
                .next()
                .map(str::to_owned)
        };
        if let Some(id) = accepted(answer).or_else(in_path)
            && let Ok(id) = Uuid::try_parse(&id)
        {
            self.operations.find_visible(id, &caller.access).await?;
        }
        Ok(())
    }

    /// Does the request and keeps its answer, even if whoever sent it leaves.
    async fn work(&self, request: Request, claim: KeyClaim) -> Result<Response, Problem> {
        let (inner, idempotency) = (Arc::clone(&self.inner), Arc::clone(&self.idempotency));
        let request_id = request.data::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
        let work = async move {
            let called = AssertUnwindSafe(inner.call(request)).catch_unwind().await;
            let response = match called {
                Ok(called) => called.unwrap_or_else(poem::Error::into_response),
                Err(panic) => {
                    idempotency.finish(claim, None).await;
                    std::panic::resume_unwind(panic)
                }
            };
            if response.status().is_server_error() {
                // It may work the next time.
                idempotency.finish(claim, None).await;
                return response;
            }
            let (response, answer) = kept(response, &request_id).await;
            idempotency.finish(claim, answer).await;
            response
        };
        match tokio::spawn(work.in_current_span()).await {
            Ok(response) => Ok(response),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Problem::new(Kind::Unavailable, "the service is shutting down")),
            },
        }
    }
}

impl<E: Endpoint<Output = Response> + 'static> Endpoint for Once<E> {
    type Output = Response;

    fn call(&self, request: Request) -> impl Future<Output = poem::Result<Response>> + Send {
        if !request.headers().contains_key(KEY) || *request.method() == Method::GET {
            return Either::Left(self.inner.call(request));
        }
        if changes_nothing(&request) {
            // A key that is none is told all the same.
            return match key(request.headers()) {
                Ok(_) => Either::Left(self.inner.call(request)),
                Err(problem) => Either::Right(ready(Ok(problem.into_response())).boxed()),
            };
        }
        let once = async move { Ok(self.once(request).await.unwrap_or_else(Problem::into_response)) };
        Either::Right(once.boxed())
    }
}

/// Whether nothing is changed, so that there is nothing to do only once.
fn changes_nothing(request: &Request) -> bool {
    let template = route::template(request.uri().path()).unwrap_or(UNMATCHED);
    let is_dry_run = || {
        let query = request.uri().query().unwrap_or_default();
        query.split('&').any(|pair| pair == "dry_run=true")
    };
    template.ends_with("/drain/plan")
        || template.ends_with("/preview")
        // A drain that is only tried is an operation, too.
        || (is_dry_run() && !template.ends_with("/drain"))
}

fn key(headers: &HeaderMap) -> Result<String, Problem> {
    let mut keys = headers.get_all(KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(Problem::new(
            Kind::Malformed,
            "there must be one header idempotency-key",
        ));
    };
    let text = String::from_utf8_lossy(key.as_bytes()).into_owned();
    check_idempotency_key(&text)
        .map_err(|error| Problem::new(Kind::Malformed, format!("\"{}\": {error}", excerpt(&text))))?;
    Ok(text)
}

/// The request, and what names it among all that could come under the same key.
async fn fingerprinted(mut request: Request) -> Result<(Request, [u8; 32]), Problem> {
    let unreadable = |_| Problem::new(Kind::Malformed, "the body could not be read to its end");
    let body = request.take_body().into_bytes().await.map_err(unreadable)?;
    let known = request
        .headers()
        .get(header::IF_MATCH)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    let digest = digest_of(&[
        request.method().as_str().as_bytes(),
        request.original_uri().to_string().as_bytes(),
        known,
        &body,
    ]);
    request.set_body(body);
    Ok((request, digest))
}

/// A SHA-256 of several parts, none of which can pass for a piece of another one.
fn digest_of(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// The response with its body in memory, and what is kept of it.
async fn kept(mut response: Response, request_id: &str) -> (Response, Option<KeptAnswer>) {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        // Written here, with the id of the request that was done.
        problem.explain(&mut response, request_id, false);
    }
    let Ok(body) = response.take_body().into_bytes().await else {
        return (
            Problem::new(Kind::Internal, "the answer could not be made").into_response(),
            None,
        );
    };
    let text = |name: HeaderName| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        value.map(str::to_owned)
    };
    if MOST_KEPT_BYTES < body.len() {
        response.set_body(body);
        return (response, None);
    }
    let answer = KeptAnswer {
        status: response.status().as_u16(),
        content_type: text(header::CONTENT_TYPE),
        etag: text(header::ETAG),
        body: body.to_vec(),
    };
    response.set_body(body);
    (response, Some(answer))
}

/// The id of the operation that was accepted.
fn accepted(answer: &KeptAnswer) -> Option<String> {
    if answer.status != StatusCode::ACCEPTED.as_u16() {
        return None;
    }
    let body: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    body.get("id")?.as_str().map(str::to_owned)
}

fn replayed(answer: KeptAnswer) -> Response {
    let location = accepted(&answer).map(|id| location(&id));
    let mut response = Response::builder()
        .status(StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK))
        .header(REPLAYED, "true")
        .body(Bytes::from(answer.body));
    for (name, value) in [
        (header::CONTENT_TYPE, answer.content_type),
        (header::ETAG, answer.etag),
        (header::LOCATION, location),
    ] {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn large_answers_are_given_and_not_kept() {
        for (size, is_kept) in [(0, true), (MOST_KEPT_BYTES, true), (MOST_KEPT_BYTES + 1, false)] {
            let (response, answer) = kept(Response::builder().body(vec![b'x'; size]), "id").await;
            assert_eq!(answer.map(|answer| answer.body.len()), is_kept.then_some(size));
            assert_eq!(response.into_body().into_bytes().await.unwrap().len(), size);
        }
    }

    #[test]
    fn what_changes_nothing_is_not_done_only_once() {
        let node = "/api/v1/clusters/c/nodes/n";
        for (method, path, nothing) in [
            (Method::POST, format!("{node}/drain/plan"), true),
            (Method::POST, "/api/v1/templates/t/preview".to_owned(), true),
            (Method::PATCH, format!("{node}/labels?dry_run=true"), true),
            (Method::PATCH, format!("{node}/labels?dry_run=false"), false),
            (Method::POST, format!("{node}/cordon?a=b&dry_run=true"), true),
            (Method::POST, format!("{node}/cordon"), false),
            (Method::POST, format!("{node}/drain?dry_run=true"), false),
            (Method::POST, "/api/v1/operations".to_owned(), false),
        ] {
            let request = Request::builder().method(method).uri_str(&path).finish();
            assert_eq!(changes_nothing(&request), nothing, "{path}");
        }
    }
}
