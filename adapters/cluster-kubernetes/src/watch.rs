//! The watch of the nodes: a list in pages, then changes, for ever.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use http::StatusCode;
use knm_model::{Node, NodeName};
use knm_ports::{ClusterError, NodeEvent, NodeEvents};
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::sync::mpsc::{self, Sender};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::connection::{Connection, encoded};
use crate::convert;
use crate::error::Failure;
use crate::lines::Lines;
use crate::metric::{self, Call};
use crate::wire::{Bookmark, EventKind, EventObject, List, Status, WireNode};

const PATH: &str = "/api/v1/nodes";
const LIST: Call = Call {
    verb: "list",
    resource: "nodes",
};
const WATCH: Call = Call {
    verb: "watch",
    resource: "nodes",
};
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
pub(crate) fn nodes(connection: Arc<Connection>) -> NodeEvents {
    let begin = async move {
        let (sender, receiver) = mpsc::channel(WAITING_EVENTS);
        let watcher = Watcher {
            connection,
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

struct Watcher {
    connection: Arc<Connection>,
    events: Sender<NodeEvent>,
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

impl Watcher {
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
                    if self.events.send(NodeEvent::Lost(error)).await.is_err() {
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
        let path = format!(
            "{PATH}?watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}",
            encoded(&position)
        );
        if self.opened {
            metric::watch_restarted(self.connection.cluster());
        }
        let limit = self.connection.request_timeout.min(2 * PROBE_LIMIT);
        let mut lines = Lines::new(self.connection.watch(WATCH, &path, limit).await?);
        self.opened = true;
        if self.lost {
            self.tell(NodeEvent::Alive).await?;
        }
        let started = Instant::now();
        let mut probe = probe(Arc::clone(&self.connection));
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
                    self.tell(NodeEvent::Alive).await?;
                    probe = self::probe(Arc::clone(&self.connection));
                }
            }
        }
    }

    async fn list(&mut self) -> Result<String, End> {
        let (nodes, version) = self.connection.list(LIST, PATH, node).await?;
        self.position = Some(version.clone());
        self.tell(NodeEvent::Replaced(nodes)).await?;
        Ok(version)
    }

    async fn read(&mut self, line: &[u8]) -> Result<(), End> {
        let kind: EventKind = self.parse(line)?;
        match kind.kind.as_str() {
            "ADDED" | "MODIFIED" | "DELETED" => {
                let EventObject { object }: EventObject<WireNode> = self.parse(line)?;
                self.position = Some(object.metadata.resource_version.clone());
                if kind.kind != "DELETED" {
                    if let Some(node) = node(object) {
                        self.tell(NodeEvent::Applied(Box::new(node))).await?;
                    }
                } else if let Ok(name) = NodeName::parse(&object.metadata.name) {
                    self.tell(NodeEvent::Deleted(name)).await?;
                }
            }
            "BOOKMARK" => {
                let EventObject { object }: EventObject<Bookmark> = self.parse(line)?;
                self.position = Some(object.metadata.resource_version);
            }
            "ERROR" => {
                let EventObject { object }: EventObject<Status> = self.parse(line)?;
                let code = StatusCode::from_u16(object.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let failure = Failure::of_status(WATCH, code, &object);
                if !failure.is_expired() {
                    self.position = None;
                }
                return Err(failure.into());
            }
            // A kind that is not known yet tells nothing about the nodes.
            _ => {}
        }
        Ok(())
    }

    /// What cannot be read may have been a change: a list is needed then.
    fn parse<T: DeserializeOwned>(&mut self, line: &[u8]) -> Result<T, End> {
        serde_json::from_slice(line).map_err(|error| {
            self.position = None;
            End::Failed(Failure::unreadable(WATCH, &error))
        })
    }

    async fn tell(&mut self, event: NodeEvent) -> Result<(), End> {
        self.lost = false;
        self.events.send(event).await.map_err(|_| End::Unheard)
    }
}

fn node(wire: WireNode) -> Option<Node> {
    match convert::node(wire) {
        Ok(node) => Some(node),
        Err(error) => {
            tracing::warn!(%error, "a node is left out because its name cannot be read");
            None
        }
    }
}

/// Waits, then asks whether the API server and its storage still answer.
fn probe(connection: Arc<Connection>) -> BoxFuture<'static, Result<(), Failure>> {
    Box::pin(async move {
        tokio::time::sleep(PROBE_PAUSE).await;
        let deadline = Instant::now() + PROBE_LIMIT;
        loop {
            let limit = deadline.saturating_duration_since(Instant::now());
            let answer: Result<List<IgnoredAny>, Failure> = connection.get(LIST, "/api/v1/nodes?limit=1", limit).await;
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
