//! Node changes as server-sent events.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream};
use knm_domain::{ChangeKind, EventId, NodeChange, NodeEntry, Sight, Subscription, SubscriptionStart};
use knm_model::{Caller, QueryError, excerpt};
use poem::http::HeaderMap;
use poem::web::Data;
use poem::web::sse::Event;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::EventStream;
use poem_openapi::{Object, OpenApi};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Group;
use crate::Shared;
use crate::answer::json;
use crate::list::rendered;
use crate::problem::{Failure, OfWatch, Problem};

/// How often a stream without news says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(crate) struct WatchApi;

/// The start of a stream.
#[derive(Object, Serialize)]
#[oai(rename = "WatchStart")]
struct StartView {
    /// The cluster.
    cluster: String,
    /// Whether the stream goes on where the reader was: then only what it missed follows, else each known node as `added`.
    resumed: bool,
    /// Why it does not go on where the reader was, null if it does or nobody asked for it.
    reason: Option<String>,
    /// How many nodes are known, null when resumed.
    total: Option<u64>,
    /// When this state of the nodes was seen, RFC 3339 in UTC; null when resumed.
    as_of: Option<String>,
    /// Whether the cluster cannot be seen at the moment, null when resumed.
    stale: Option<bool>,
}

/// The end of a stream.
#[derive(Serialize)]
struct EndView {
    reason: &'static str,
}

/// What was known last, and when.
#[derive(Serialize)]
struct StaleView {
    as_of: String,
}

/// One event: its kind is in the line `event`, its id (to go on with after a pause) in `id`, its data as JSON in `data`.
///
/// `snapshot` starts the stream and `synced` follows when all known nodes were told; `added`, `modified` and `deleted` carry a node; `stale` and `fresh` tell that the cluster cannot be seen
/// any more, and again; `heartbeat` comes when nothing else does; `end` is the last one and says why.
#[derive(Object)]
#[oai(rename = "WatchEvent")]
pub(crate) struct WatchEventView {
    #[oai(skip)]
    kind: &'static str,
    #[oai(skip)]
    id: String,
    /// The data of the event, as JSON.
    data: String,
}

#[OpenApi]
impl WatchApi {
    /// Watch the nodes of a cluster
    ///
    /// Server-sent events: `snapshot` first, then each known node as `added`, then `synced`, then changes as they come (`added`, `modified`, `deleted`,
    /// `stale`, `fresh`), and a `heartbeat` every 15 s without any. A reader that comes back with `Last-Event-ID` gets what it missed, or is
    /// told that it cannot and starts anew. A reader that falls too far behind gets `end` with `lagged`; when the cluster is removed or gets other
    /// credentials, `end` with `cluster_gone`.
    #[oai(
        path = "/api/v1/clusters/:cluster/watch",
        method = "get",
        tag = "Group::Nodes",
        operation_id = "watchNodes"
    )]
    async fn watch(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
        /// The cluster's name.
        cluster: Path<String>,
        /// The id of the last event that was read, for readers that cannot send the header `Last-Event-ID`, which comes first.
        last_event_id: Query<Option<String>>,
        headers: &HeaderMap,
    ) -> Result<EventStream<futures::stream::BoxStream<'static, WatchEventView>>, Failure<OfWatch>> {
        let visible = shared.inventory.visible_to(&caller.access);
        let known = visible.cluster(&cluster.0)?;
        let asked = headers
            .get("last-event-id")
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let after = match asked.or(last_event_id.0).filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => Some(EventId::parse(&text).ok_or_else(|| Problem::invalid(vec![unknown_id(&text)]))?),
        };
        let sight = Sight::of(&caller.access, &cluster.0);
        // Somebody who sees some of the nodes is told what becomes of those, which takes to know what was told before.
        let resume_after = after.filter(|_| matches!(sight, Sight::Everything));
        let mut subscription = shared.inventory.watch(&cluster.0, resume_after)?;
        if let SubscriptionStart::Fresh {
            snapshot,
            resume_failed,
        } = &mut subscription.start
        {
            *snapshot = visible.narrowed_snapshot(Arc::clone(snapshot));
            *resume_failed = after.is_some();
        }
        let reader = Reader {
            cluster: cluster.0.clone(),
            subscription,
            sight,
            shutdown: shared.shutdown.clone(),
            shut_out: shared.follower(&caller, vec![known.name]).shut_out().boxed(),
            stage: Stage::Start,
        };
        let stream = events(reader);
        Ok(EventStream::new(futures::StreamExt::boxed(stream))
            .to_event(|event: WatchEventView| Event::message(event.data).event_type(event.kind).id(event.id)))
    }
}

fn unknown_id(text: &str) -> QueryError {
    let text = excerpt(text);
    let message = format!("\"{text}\" is not the id of an event: the id of an event of this stream is expected");
    QueryError::new("last_event_id", message)
}

/// Where a stream is.
enum Stage {
    Start,
    /// The known nodes that were not told yet.
    Known(std::vec::IntoIter<Arc<NodeEntry>>),
    Changes,
    Ended,
}

struct Reader {
    cluster: String,
    subscription: Subscription,
    sight: Sight,
    shutdown: CancellationToken,
    shut_out: BoxFuture<'static, ()>,
    stage: Stage,
}

fn events(reader: Reader) -> impl Stream<Item = WatchEventView> {
    futures::stream::unfold(reader, |mut reader| async move {
        reader.next().await.map(|event| (event, reader))
    })
}

impl Reader {
    async fn next(&mut self) -> Option<WatchEventView> {
        if self.shutdown.is_cancelled() && !matches!(self.stage, Stage::Ended) {
            return Some(self.end("shutdown"));
        }
        match &mut self.stage {
            Stage::Start => Some(self.start()),
            Stage::Known(entries) => match entries.next() {
                Some(entry) => Some(node("added", String::new(), &entry)),
                None => {
                    self.stage = Stage::Changes;
                    // Only now: whoever goes on after this id has seen all nodes.
                    let position = self.subscription.position.to_string();
                    Some(event("synced", position, &serde_json::json!({})))
                }
            },
            Stage::Changes => Some(self.change().await),
            Stage::Ended => None,
        }
    }

    fn start(&mut self) -> WatchEventView {
        let cluster = self.cluster.clone();
        let mut id = String::new();
        let view = match &self.subscription.start {
            SubscriptionStart::Resumed { .. } => {
                self.stage = Stage::Changes;
                id = self.subscription.position.to_string();
                StartView {
                    cluster,
                    resumed: true,
                    reason: None,
                    total: None,
                    as_of: None,
                    stale: None,
                }
            }
            SubscriptionStart::Fresh {
                snapshot,
                resume_failed,
            } => {
                let view = StartView {
                    cluster,
                    resumed: false,
                    reason: resume_failed.then(|| "what was missed is not known any more".to_owned()),
                    total: Some(u64::try_from(snapshot.len()).unwrap_or(u64::MAX)),
                    as_of: Some(snapshot.as_of().to_string()),
                    stale: Some(snapshot.stale()),
                };
                let entries: Vec<Arc<NodeEntry>> = snapshot.entries().cloned().collect();
                self.sight.told(entries.iter());
                self.stage = Stage::Known(entries.into_iter());
                view
            }
        };
        event("snapshot", id, &view)
    }

    async fn change(&mut self) -> WatchEventView {
        let silent_until = Instant::now() + HEARTBEAT;
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return self.end("shutdown"),
                () = &mut self.shut_out => return self.end("signed-out"),
                change = self.subscription.next() => match change {
                    Some(Ok(change)) => {
                        if let Some(change) = self.sight.of_change(change) {
                            return told(&change);
                        }
                    }
                    Some(Err(_)) => return self.end("lagged"),
                    None if self.shutdown.is_cancelled() => return self.end("shutdown"),
                    None => return self.end("cluster_gone"),
                },
                () = sleep_until(silent_until) => return event("heartbeat", String::new(), &serde_json::json!({})),
            }
        }
    }

    fn end(&mut self, reason: &'static str) -> WatchEventView {
        self.stage = Stage::Ended;
        event("end", String::new(), &EndView { reason })
    }
}

fn told(change: &NodeChange) -> WatchEventView {
    let id = change.id.to_string();
    match &change.kind {
        ChangeKind::Added(entry) => node("added", id, entry),
        ChangeKind::Modified(entry) => node("modified", id, entry),
        ChangeKind::Deleted(entry) => node("deleted", id, entry),
        ChangeKind::Stale { as_of } => event(
            "stale",
            id,
            &StaleView {
                as_of: as_of.to_string(),
            },
        ),
        ChangeKind::Fresh => event("fresh", id, &serde_json::json!({})),
    }
}

fn node(kind: &'static str, id: String, entry: &NodeEntry) -> WatchEventView {
    WatchEventView {
        kind,
        id,
        data: String::from_utf8_lossy(rendered(entry)).into_owned(),
    }
}

fn event(kind: &'static str, id: String, view: &impl Serialize) -> WatchEventView {
    WatchEventView {
        kind,
        id,
        data: String::from_utf8_lossy(&json(view)).into_owned(),
    }
}
