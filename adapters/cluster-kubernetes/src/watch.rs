//! Watches: a list in pages, then changes, for ever.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use http::StatusCode;
use knm_ports::ClusterError;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::sync::mpsc::{self, Sender};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::connection::{Connection, LIST_ATTEMPTS, encoded, with_query};
use crate::error::Failure;
use crate::lines::Lines;
use crate::metric::{self, Call};
use crate::wire::{Bookmark, EventKind, EventObject, List, Meta, Status};

/// What is watched, and how it is told.
pub(crate) trait Watched: Default + Send + 'static {
    /// One object, as far as it is read.
    type Wire: DeserializeOwned + Send;
    /// What is told.
    type Event: Send + 'static;

    /// The path of the objects, with a query that selects among them if need be.
    const PATH: &'static str;
    /// Their name in metrics and errors.
    const RESOURCE: &'static str;

    fn meta(wire: &Self::Wire) -> &Meta;
    /// The first page of a list is here; pages before it are void.
    fn begin(&mut self) -> Option<Self::Event>;
    fn page(&mut self, objects: Vec<Self::Wire>) -> Option<Self::Event>;
    /// There are no more pages.
    fn complete(&mut self) -> Self::Event;
    fn applied(wire: Self::Wire) -> Option<Self::Event>;
    fn deleted(wire: Self::Wire) -> Option<Self::Event>;
    fn alive() -> Self::Event;
    fn lost(error: ClusterError) -> Self::Event;
}
/// How long the API server is asked to keep a watch open.
const WATCH_SECONDS: u32 = 290;
/// A watch is silent while nothing changes, and so is a broken network: each pause is followed by a small question with this limit, and
/// both together are less than the 15 s that the port promises.
const PROBE_PAUSE: Duration = Duration::from_secs(8);
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// A watch that ended earlier than this is not opened again at once.
const SHORT_WATCH: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(400);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// The longest that a busy API server can send us away for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);
/// Events that wait for a slow reader; beyond it the API server waits.
const WAITING_EVENTS: usize = 256;

/// Nothing happens before the stream is first polled, and all ends when it is dropped.
pub(crate) fn open<W: Watched>(connection: Arc<Connection>) -> BoxStream<'static, W::Event> {
    let begin = async move {
        let (sender, receiver) = mpsc::channel(WAITING_EVENTS);
        let watcher = Watcher {
            connection,
            watched: W::default(),
            events: sender,
            position: None,
            lost: false,
            opened: false,
        };
        let guard = AbortOnDrop(tokio::spawn(watcher.run()));
        stream::unfold((receiver, guard), |(mut receiver, guard)| async move {
            let event = receiver.recv().await?;
            Some((event, (receiver, guard)))
        })
    };
    stream::once(begin).flatten().boxed()
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Watcher<W: Watched> {
    connection: Arc<Connection>,
    watched: W,
    events: Sender<W::Event>,
    /// The version up to which everything was told; `None`: a list is needed.
    position: Option<String>,
    lost: bool,
    opened: bool,
}

enum End {
    /// Nobody listens any more.
    Unheard,
    /// The API server or the network closed the watch; it may be opened again.
    Closed {
        lived: Duration,
    },
    Failed(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl<W: Watched> Watcher<W> {
    const LIST: Call = Call {
        verb: "list",
        resource: W::RESOURCE,
    };
    const WATCH: Call = Call {
        verb: "watch",
        resource: W::RESOURCE,
    };

    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let Err(end) = self.session().await;
            match end {
                End::Unheard => return,
                End::Closed { lived } if SHORT_WATCH <= lived => pause = FIRST_PAUSE,
                End::Closed { .. } => {
                    tokio::time::sleep(jittered(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                // A list is what helps, at once the first time.
                End::Failed(failure) if failure.is_expired() && self.position.take().is_some() => {}
                End::Failed(Failure { error, .. }) => {
                    let wait = jittered(pause).max(asked_to_wait(&error));
                    self.lost = true;
                    if self.events.send(W::lost(error)).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(wait).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Lists if it must, then watches until that ends.
    async fn session(&mut self) -> Result<std::convert::Infallible, End> {
        let position = match &self.position {
            Some(position) => position.clone(),
            None => self.list().await?,
        };
        let query = format!(
            "watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}",
            encoded(&position)
        );
        let path = with_query(W::PATH, &query);
        let limit = self.connection.request_timeout.min(2 * PROBE_LIMIT);
        let mut lines = Lines::new(self.connection.watch(Self::WATCH, &path, limit).await?);
        if std::mem::replace(&mut self.opened, true) {
            metric::watch_restarted(self.connection.cluster(), W::RESOURCE);
        }
        if self.lost {
            self.tell(W::alive()).await?;
        }
        let started = Instant::now();
        let mut probe = probe::<W>(Arc::clone(&self.connection));
        loop {
            tokio::select! {
                line = lines.next() => match line {
                    Ok(Some(line)) => self.read(&line).await?,
                    Ok(None) => return Err(End::Closed { lived: started.elapsed() }),
                    Err(failure) if matches!(failure.error, ClusterError::Unreadable { .. }) => {
                        self.position = None;
                        return Err(failure.into());
                    }
                    // A connection may be cut by anything between; whether the cluster is lost shows when it is opened again.
                    Err(_) => return Err(End::Closed { lived: started.elapsed() }),
                },
                answer = &mut probe => {
                    answer?;
                    self.tell(W::alive()).await?;
                    probe = self::probe::<W>(Arc::clone(&self.connection));
                }
            }
        }
    }

    /// Tells everything; a list whose pages got too old is begun again.
    async fn list(&mut self) -> Result<String, End> {
        let mut attempt = 1;
        loop {
            match self.list_once().await {
                Err(End::Failed(failure)) if failure.is_expired() && attempt < LIST_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    async fn list_once(&mut self) -> Result<String, End> {
        let mut next = String::new();
        loop {
            let page: List<W::Wire> = self.connection.page(Self::LIST, W::PATH, &next).await?;
            let begun = match next.is_empty() {
                true => self.watched.begin(),
                false => None,
            };
            let told = self.watched.page(Vec::from(page.items));
            for event in begun.into_iter().chain(told) {
                self.tell(event).await?;
            }
            next = page.metadata.next;
            if next.is_empty() {
                let version = page.metadata.resource_version;
                self.position = Some(version.clone());
                let complete = self.watched.complete();
                self.tell(complete).await?;
                return Ok(version);
            }
        }
    }

    async fn read(&mut self, line: &[u8]) -> Result<(), End> {
        let kind: EventKind = self.parse(line)?;
        match kind.kind.as_str() {
            "ADDED" | "MODIFIED" | "DELETED" => {
                let EventObject { object }: EventObject<W::Wire> = self.parse(line)?;
                self.position = Some(W::meta(&object).resource_version.clone());
                let event = match kind.kind.as_str() {
                    "DELETED" => W::deleted(object),
                    _ => W::applied(object),
                };
                if let Some(event) = event {
                    self.tell(event).await?;
                }
            }
            "BOOKMARK" => {
                let EventObject { object }: EventObject<Bookmark> = self.parse(line)?;
                self.position = Some(object.metadata.resource_version);
            }
            "ERROR" => {
                let EventObject { object }: EventObject<Status> = self.parse(line)?;
                let code = StatusCode::from_u16(object.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let failure = Failure::of_status(Self::WATCH, code, &object);
                if !failure.is_expired() {
                    self.position = None;
                }
                return Err(failure.into());
            }
            // A kind that is not known yet tells nothing about the objects.
            _ => {}
        }
        Ok(())
    }

    /// What cannot be read may have been a change: a list is needed then.
    fn parse<T: DeserializeOwned>(&mut self, line: &[u8]) -> Result<T, End> {
        serde_json::from_slice(line).map_err(|error| {
            self.position = None;
            End::Failed(Failure::unreadable(Self::WATCH, &error))
        })
    }

    async fn tell(&mut self, event: W::Event) -> Result<(), End> {
        self.lost = false;
        self.events.send(event).await.map_err(|_| End::Unheard)
    }
}

/// Waits, then asks whether the API server and its storage still answer.
fn probe<W: Watched>(connection: Arc<Connection>) -> BoxFuture<'static, Result<(), Failure>> {
    Box::pin(async move {
        tokio::time::sleep(PROBE_PAUSE).await;
        let deadline = Instant::now() + PROBE_LIMIT;
        let path = with_query(W::PATH, "limit=1");
        loop {
            let limit = deadline.saturating_duration_since(Instant::now());
            let answer: Result<List<IgnoredAny>, Failure> = connection.get(Watcher::<W>::LIST, &path, limit).await;
            match answer.map_err(|failure| failure.error) {
                // One that is too busy for questions is there, and the watch is open.
                Ok(_) | Err(ClusterError::TooManyRequests { .. }) => return Ok(()),
                // A connection that was kept may be the one thing that broke.
                Err(ClusterError::Unavailable { .. }) if Instant::now() + PROBE_LIMIT / 2 < deadline => {
                    tokio::time::sleep(PROBE_LIMIT / 10).await;
                }
                Err(error) => return Err(Failure { code: None, error }),
            }
        }
    })
}

fn asked_to_wait(error: &ClusterError) -> Duration {
    match error {
        ClusterError::TooManyRequests {
            retry_after: Some(wait),
        } => (*wait).min(LONGEST_RETRY_AFTER),
        _ => Duration::ZERO,
    }
}

/// Between half and all of `pause`, so that replicas do not return together.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 1000;
    pause / 2 + pause / 2 * u32::try_from(random).unwrap_or_default() / 1000
}
