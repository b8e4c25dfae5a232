//! Requests with an `Idempotency-Key`: sent twice, done once.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::Either;
use knm_domain::{Idempotency, Turn};
use knm_model::{KeptAnswer, KeyClaim, check_idempotency_key, excerpt};
use poem::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use poem::{Endpoint, Request, Response};
use sha2::{Digest, Sha256};
use tracing::Instrument;

use crate::answer::location;
use crate::edge::RequestId;
use crate::gate::caller;
use crate::problem::{Kind, Problem};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says of an answer that it was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A SHA-256 of a request with its caller and its key: what it opens knows it by this, also where nothing is known of its key any more,
/// because what was answered was an error.
#[derive(Clone, Copy)]
pub(crate) struct SentOnce(pub(crate) [u8; 32]);

/// Does requests with a key once, whatever replica they come to, and hands over all others.
pub(crate) struct Once<E> {
    inner: Arc<E>,
    idempotency: Arc<Idempotency>,
}

impl<E: Endpoint<Output = Response> + 'static> Once<E> {
    pub(crate) fn new(inner: E, idempotency: Arc<Idempotency>) -> Self {
        Self {
            inner: Arc::new(inner),
            idempotency,
        }
    }

    async fn once(&self, request: Request) -> Result<Response, Problem> {
        if request.uri().path() == "/api/v1/tokens" {
            let detail = "there is no idempotency-key here: the answer has a secret, which is not kept";
            return Err(Problem::new(Kind::Malformed, detail));
        }
        let key = key(request.headers())?;
        let caller = caller(&request).identity();
        let (mut request, fingerprint) = fingerprinted(request).await?;
        request.set_data(SentOnce(digest_of(&[caller.as_bytes(), key.as_bytes(), &fingerprint])));
        match self.idempotency.begin(&caller, &key, fingerprint).await? {
            Turn::Work(claim) => self.work(request, claim).await,
            Turn::Answered(answer) => Ok(replayed(answer)),
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
        if *request.method() == Method::GET || !request.headers().contains_key(KEY) {
            return Either::Left(self.inner.call(request));
        }
        let once = async move { Ok(self.once(request).await.unwrap_or_else(Problem::into_response)) };
        Either::Right(once.boxed())
    }
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
    let answer = KeptAnswer {
        status: response.status().as_u16(),
        content_type: text(header::CONTENT_TYPE),
        etag: text(header::ETAG),
        body: body.to_vec(),
    };
    response.set_body(body);
    (response, Some(answer))
}

/// Where what was accepted can be followed: its id says so.
fn accepted_at(answer: &KeptAnswer) -> Option<String> {
    if answer.status != StatusCode::ACCEPTED.as_u16() {
        return None;
    }
    let body: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    Some(location(body.get("id")?.as_str()?))
}

fn replayed(answer: KeptAnswer) -> Response {
    let location = accepted_at(&answer);
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
