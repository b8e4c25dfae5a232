//! Calls to one API server: credentials that are renewed, deadlines, metrics.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use knm_model::ClusterName;
use knm_ports::ClusterError;
use kube::Client;
use kube::client::Body;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::Instrument;

use crate::KubernetesOptions;
use crate::credentials::{self, KubernetesSource};
use crate::error::{self, Failure};
use crate::metric::{self, Call};
use crate::pace::Pace;
use crate::trace;
use crate::wire::List;

/// Refused credentials are not read more often than that.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);
/// How often it is looked whether the files of the credentials changed: not with each request of many.
const LOOK_AT_FILES_EVERY: Duration = Duration::from_secs(1);
/// How often a list is begun again because its pages got too old.
pub(crate) const LIST_ATTEMPTS: u32 = 3;

pub(crate) struct Connection {
    cluster: ClusterName,
    source: KubernetesSource,
    page_size: u32,
    pub(crate) request_timeout: Duration,
    pace: Pace,
    current: Arc<Mutex<Current>>,
}

/// What is asked of an API server.
pub(crate) struct Question<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    /// Its media type and bytes; `None` for questions that only read.
    pub(crate) body: Option<(&'static str, Bytes)>,
}

impl<'a> Question<'a> {
    fn get(path: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            body: None,
        }
    }
}

/// A whole answer, whatever it says.
pub(crate) struct Reply {
    pub(crate) code: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// When the server says that it may be tried again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        error::retry_after(&self.headers)
    }
}

struct Current {
    /// Made for the first request.
    client: Option<Client>,
    fingerprint: u64,
    /// Counts the clients, so that a refusal of an older one renews nothing.
    generation: u64,
    renewed_at: Option<Instant>,
    /// When the files of the credentials were looked at last.
    looked_at: Option<Instant>,
}

impl Connection {
    pub(crate) fn new(options: KubernetesOptions, fingerprint: u64) -> Self {
        Self {
            cluster: options.cluster,
            source: options.source,
            page_size: options.page_size.max(1),
            request_timeout: options.request_timeout,
            pace: Pace::new(options.max_requests_per_second),
            current: Arc::new(Mutex::new(Current {
                client: None,
                fingerprint,
                generation: 0,
                renewed_at: None,
                looked_at: None,
            })),
        }
    }

    /// The same client at another pace.
    pub(crate) fn at(&self, pace: Pace) -> Self {
        Self {
            cluster: self.cluster.clone(),
            source: self.source.clone(),
            page_size: self.page_size,
            request_timeout: self.request_timeout,
            pace,
            current: Arc::clone(&self.current),
        }
    }

    pub(crate) fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// Reads one answer.
    pub(crate) async fn get<T: DeserializeOwned>(&self, call: Call, path: &str, limit: Duration) -> Result<T, Failure> {
        self.ask(call, &Question::get(path), limit).await
    }

    /// Asks for a change and reads the answer.
    pub(crate) async fn change<T: DeserializeOwned>(&self, call: Call, question: &Question<'_>) -> Result<T, Failure> {
        self.ask(call, question, self.request_timeout).await
    }

    /// Asks for a change whose refusals are answers, too. Whoever reads them says whether one of them asks for silence, see [`Connection::hush`].
    pub(crate) async fn reply(&self, call: Call, question: &Question<'_>) -> Result<Reply, Failure> {
        let work = async {
            let (head, body) = self.knock(call, question).await?.into_parts();
            Ok(Reply {
                code: head.status,
                headers: head.headers,
                body: whole(body).await?,
            })
        };
        self.deadline(call, self.request_timeout, work).await
    }

    /// Asks nothing for so long, because the server said so.
    pub(crate) fn hush(&self, time: Duration) {
        self.pace.hush(time);
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        call: Call,
        question: &Question<'_>,
        limit: Duration,
    ) -> Result<T, Failure> {
        let body = self.deadline(call, limit, self.fetch(call, question)).await?;
        serde_json::from_slice(&body).map_err(|error| Failure::unreadable(call, &error))
    }

    /// Reads a whole list in pages, each turned into what is kept before the next one is asked for, and its resource version.
    pub(crate) async fn list<W: DeserializeOwned, T>(
        &self,
        call: Call,
        path: &str,
        keep: impl Fn(W) -> Option<T>,
    ) -> Result<(Vec<T>, String), Failure> {
        let mut attempt = 1;
        loop {
            match self.list_once(call, path, &keep).await {
                Err(failure) if failure.is_expired() && attempt < LIST_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    /// Opens a watch; the answer goes on for as long as the API server likes.
    pub(crate) async fn watch(&self, call: Call, path: &str, limit: Duration) -> Result<Body, Failure> {
        self.deadline(call, limit, self.send(call, &Question::get(path)))
            .await
            .map(Response::into_body)
    }

    async fn list_once<W: DeserializeOwned, T>(
        &self,
        call: Call,
        path: &str,
        keep: &impl Fn(W) -> Option<T>,
    ) -> Result<(Vec<T>, String), Failure> {
        let mut kept = Vec::new();
        let mut next = String::new();
        loop {
            let page: List<W> = self.page(call, path, &next).await?;
            kept.extend(Vec::from(page.items).into_iter().filter_map(keep));
            if page.metadata.next.is_empty() {
                return Ok((kept, page.metadata.resource_version));
            }
            next = page.metadata.next;
        }
    }

    /// Reads one page of a list: the first, or the one that the page before called `next`.
    pub(crate) async fn page<W: DeserializeOwned>(
        &self,
        call: Call,
        path: &str,
        next: &str,
    ) -> Result<List<W>, Failure> {
        let mut page_path = with_query(path, &format!("limit={}", self.page_size));
        if !next.is_empty() {
            page_path.push_str("&continue=");
            page_path.push_str(&encoded(next));
        }
        self.get(call, &page_path, self.request_timeout).await
    }

    async fn deadline<T>(
        &self,
        call: Call,
        limit: Duration,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let started = Instant::now();
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            metric::request(&self.cluster, call, "timeout".to_owned(), started.elapsed());
            Err(Failure::timed_out(limit))
        })
    }

    async fn fetch(&self, call: Call, question: &Question<'_>) -> Result<Bytes, Failure> {
        whole(self.send(call, question).await?.into_body()).await
    }

    /// Sends a request; an answer that is no success is a failure.
    async fn send(&self, call: Call, question: &Question<'_>) -> Result<Response<Body>, Failure> {
        let answer = self.knock(call, question).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        let body = whole(body).await.unwrap_or_default();
        let failure = Failure::refused(call, head.status, &head.headers, &body);
        if let ClusterError::TooManyRequests {
            retry_after: Some(time),
        } = failure.error
        {
            self.hush(time);
        }
        Err(failure)
    }

    /// Sends a request; with credentials that are refused, once more with those that are to be had now.
    async fn knock(&self, call: Call, question: &Question<'_>) -> Result<Response<Body>, Failure> {
        let (client, generation) = self.client().await?;
        let answer = self.traced(&client, call, question, 0).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        match self.renewed(generation).await {
            Some(client) => self.traced(&client, call, question, 1).await,
            None => Ok(answer),
        }
    }

    /// Sends a request, as a span of the trace that it belongs to, if there is one. The API server is not told of that trace: who it belongs
    /// to may be somebody else, and what its audit log keeps of callers is none of their business.
    async fn traced(
        &self,
        client: &Client,
        call: Call,
        question: &Question<'_>,
        repetition: u32,
    ) -> Result<Response<Body>, Failure> {
        let span = trace::request(&self.cluster, call, question.method.as_str(), repetition);
        let answer = self.send_with(client, call, question).instrument(span.clone()).await;
        trace::answered(&span, answer.as_ref().ok().map(Response::status));
        answer
    }

    async fn send_with(&self, client: &Client, call: Call, question: &Question<'_>) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder()
            .method(question.method.clone())
            .uri(question.path)
            .header(http::header::ACCEPT, "application/json");
        if let Some((content_type, _)) = &question.body {
            request = request.header(http::header::CONTENT_TYPE, *content_type);
        }
        let body = question.body.as_ref().map(|(_, body)| body.clone());
        let request = request
            .body(body.map_or_else(Body::empty, |body| Body::from(body.to_vec())))
            .map_err(|_| Failure::unavailable("the request could not be made"))?;
        let _turn = self.pace.turn().await?;
        let started = Instant::now();
        let answer = client.send(request).await;
        let code = answer
            .as_ref()
            .map_or_else(|_| "error".to_owned(), |answer| answer.status().as_u16().to_string());
        metric::request(&self.cluster, call, code, started.elapsed());
        Ok(answer?)
    }

    /// The client, a new one if the file of its credentials changed.
    async fn client(&self) -> Result<(Client, u64), Failure> {
        let mut current = self.current.lock().await;
        let is_known = |at: Instant| at.elapsed() < LOOK_AT_FILES_EVERY;
        if let (Some(client), true) = (&current.client, current.looked_at.is_some_and(is_known)) {
            return Ok((client.clone(), current.generation));
        }
        let fingerprint = self.source.fingerprint().await;
        current.looked_at = Some(Instant::now());
        let changed = fingerprint.is_some_and(|one| one != current.fingerprint);
        if let (Some(client), false) = (&current.client, changed) {
            return Ok((client.clone(), current.generation));
        }
        match (self.make().await, &current.client) {
            (Ok((client, fingerprint)), _) => {
                current.replace(client.clone(), fingerprint);
                Ok((client, current.generation))
            }
            // Somebody may be writing the file; what worked until now may still do.
            (Err(_), Some(client)) => Ok((client.clone(), current.generation)),
            (Err(failure), None) => Err(failure),
        }
    }

    /// A client with credentials read again, `None` if that was tried already.
    async fn renewed(&self, generation: u64) -> Option<Client> {
        let mut current = self.current.lock().await;
        if current.generation != generation {
            return current.client.clone();
        }
        if current.renewed_at.is_some_and(|last| last.elapsed() < RENEWAL_PAUSE) {
            return None;
        }
        current.renewed_at = Some(Instant::now());
        let (client, fingerprint) = self.make().await.ok()?;
        current.replace(client.clone(), fingerprint);
        Some(client)
    }

    async fn make(&self) -> Result<(Client, u64), Failure> {
        let made = self
            .source
            .load()
            .await
            .map_err(|error| Failure::unavailable(error.to_string()))?;
        Ok((
            credentials::client(self.source.clone(), made.config).await?,
            made.fingerprint,
        ))
    }
}

impl Current {
    fn replace(&mut self, client: Client, fingerprint: u64) {
        self.client = Some(client);
        self.fingerprint = fingerprint;
        self.generation += 1;
    }
}

async fn whole(body: Body) -> Result<Bytes, Failure> {
    let collected = body.collect().await;
    collected
        .map(http_body_util::Collected::to_bytes)
        .map_err(|error| Failure::from(kube::Error::Service(error.into())))
}

/// A path that may have a query already, with one more parameter or several.
pub(crate) fn with_query(path: &str, query: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}{query}")
}

/// A value as it stands in a path or query.
pub(crate) fn encoded(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}
