//! Operations: accepted here, stored, and worked on by whichever replica has their lease.

mod accept;
mod changing;
mod draining;
mod error;
mod keeper;
mod room;
mod runner;
mod step;
mod task;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use knm_model::{
    Actor, EventKind, NewEvent, Operation, OperationEvent, OperationFilter, OperationKind, OperationState,
    OperationTarget, RawStrategy, TargetState, Wish,
};
use knm_ports::{Clock, IdSource, Operations as OperationStore, StorageError, Wakes};
use metrics::histogram;
use serde_json::{Map, Value, json};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

pub use error::OperationError;
pub use keeper::OperationKeeper;
pub use runner::{OperationRunner, OwnPod, RunnerSettings};

use self::waiting::{News, Waiting};
use crate::inventory::Inventory;
use crate::metric;

/// How many operations a page has if nobody says.
const USUAL_PAGE: u32 = 100;
/// How many events are read at once.
const EVENTS_AT_ONCE: u32 = 500;

/// Accepts operations, shows them, and takes wishes about them.
pub struct Operations {
    inventory: Arc<Inventory>,
    store: Arc<dyn OperationStore>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    /// After how long the event log is read though nobody told of new events.
    look_every: Duration,
    /// Those who are woken when something may be new.
    waiting: Arc<Waiting>,
    /// Wakes them, as long as there are operations.
    _waking: AbortOnDropHandle<()>,
}

/// What somebody wants to be done.
#[derive(Clone, Debug)]
pub struct OperationRequest {
    /// What is done.
    pub kind: OperationKind,
    /// To which nodes.
    pub targets: Vec<TargetRequest>,
    /// Why.
    pub reason: Option<String>,
    /// The ticket.
    pub ticket: Option<String>,
    /// What exactly, see [`Work::parse`](knm_model::Work::parse).
    pub options: Map<String, Value>,
    /// In which order and how many at once.
    pub strategy: RawStrategy,
    /// Whether clusters only say what they would do.
    pub dry_run: bool,
    /// The operation whose failed nodes are tried again.
    pub retry_of: Option<Uuid>,
}

/// Nodes of one cluster that somebody wants something to be done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRequest {
    /// The cluster's name.
    pub cluster: String,
    /// Names of nodes, in the order in which they are to be worked on.
    pub nodes: Vec<String>,
    /// Instead of names: those with these labels.
    pub label_selector: Option<String>,
}

/// Who asks, and by which request.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Who.
    pub actor: Actor,
    /// The request.
    pub request_id: Option<String>,
}

/// An operation with its nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationShown {
    /// The operation.
    pub operation: Operation,
    /// Its nodes in their order.
    pub targets: Vec<OperationTarget>,
    /// In how many seconds it may be over.
    pub eta_seconds: Option<u64>,
}

/// Operations, and where to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationPage {
    /// The operations, the latest first, each with the seconds after which it may be over.
    pub operations: Vec<(Operation, Option<u64>)>,
    /// The last of them if there are more: what the next page begins after.
    pub next: Option<Uuid>,
}

impl Operations {
    /// Operations on nodes of the clusters of `inventory`, kept in `store`. Those who follow one, and the runner, look when `wakes` says so;
    /// without that, followers look after `look_every`. It must be called on a tokio runtime.
    pub fn new(
        inventory: Arc<Inventory>,
        store: Arc<dyn OperationStore>,
        wakes: &dyn Wakes,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
        look_every: Duration,
    ) -> Arc<Self> {
        let waiting = Arc::new(Waiting::default());
        let waking = tokio::spawn(Arc::clone(&waiting).pass_on(wakes.listen()));
        Arc::new(Self {
            inventory,
            store,
            clock,
            ids,
            look_every,
            waiting,
            _waking: AbortOnDropHandle::new(waking),
        })
    }

    /// Accepts an operation: from then on it is done, whatever happens to this process. Its nodes are fixed.
    ///
    /// # Errors
    /// [`OperationError`]; then nothing is done.
    pub async fn accept(&self, request: OperationRequest, asker: Asker) -> Result<OperationShown, OperationError> {
        let now = self.clock.now();
        let accepted = accept::accept(&self.inventory, request, asker, self.ids.next(now), now)?;
        let operation = &accepted.operation;
        let event = NewEvent::new(
            now,
            EventKind::Operation,
            [
                ("state", json!(operation.state.as_str())),
                ("kind", json!(operation.kind.as_str())),
                ("by", json!(operation.actor.label())),
                ("reason", json!(operation.reason)),
                ("nodes", json!(operation.progress.total)),
            ],
        );
        self.store.open(operation, &accepted.targets, &event).await?;
        tracing::info!(
            operation = %operation.id, kind = operation.kind.as_str(), nodes = operation.progress.total,
            "operation accepted"
        );
        Ok(accepted)
    }

    /// An operation with its nodes.
    ///
    /// # Errors
    /// [`OperationError::Unknown`], or what the store says.
    pub async fn find(&self, id: Uuid) -> Result<OperationShown, OperationError> {
        let operation = self.store.find(id).await?.ok_or(OperationError::Unknown { id })?;
        let targets = self.store.targets(id).await?;
        Ok(OperationShown {
            eta_seconds: operation.eta_seconds(self.clock.now()),
            operation,
            targets,
        })
    }

    /// Operations that satisfy `filter`, the latest first.
    ///
    /// # Errors
    /// What the store says.
    pub async fn page(
        &self,
        filter: &OperationFilter,
        before: Option<Uuid>,
        limit: Option<u32>,
    ) -> Result<OperationPage, OperationError> {
        let limit = limit.unwrap_or(USUAL_PAGE);
        // One more tells whether there is a next page.
        let mut found = self.store.page(filter, before, limit.saturating_add(1)).await?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let is_last = found.len() <= limit;
        found.truncate(limit);
        let now = self.clock.now();
        Ok(OperationPage {
            next: found.last().map(|last| last.id).filter(|_| !is_last),
            operations: found
                .into_iter()
                .map(|operation| {
                    let eta = operation.eta_seconds(now);
                    (operation, eta)
                })
                .collect(),
        })
    }

    /// Cancels, pauses or resumes an operation. What is wished already is no error.
    ///
    /// # Errors
    /// [`OperationError`]; then it stays as it was.
    pub async fn wish(&self, id: Uuid, wish: Wish, asker: &Asker) -> Result<OperationShown, OperationError> {
        loop {
            let found = self.store.find(id).await?.ok_or(OperationError::Unknown { id })?;
            let wanted = found.state.wished(wish)?;
            if wanted == found.state {
                break;
            }
            let event = NewEvent::new(
                self.clock.now(),
                EventKind::Operation,
                [("state", json!(wanted.as_str())), ("by", json!(asker.actor.label()))],
            );
            // It may have moved on meanwhile: then the wish is looked at anew.
            if self.store.request(id, found.state, wanted, &event).await? {
                tracing::info!(operation = %id, wish = wish.as_str(), by = asker.actor.label(), "operation was asked to change");
                break;
            }
        }
        self.find(id).await
    }

    /// Accepts a new operation for the nodes of an ended one for which it did not work.
    ///
    /// # Errors
    /// [`OperationError`]; then nothing is done.
    pub async fn retry(&self, id: Uuid, asker: Asker) -> Result<OperationShown, OperationError> {
        let OperationShown { operation, targets, .. } = self.find(id).await?;
        if !operation.state.is_ended() {
            return Err(OperationError::NotEnded {
                id,
                state: operation.state,
            });
        }
        let mut again: Vec<TargetRequest> = Vec::new();
        for target in &targets {
            if !matches!(target.state, TargetState::Failed | TargetState::Cancelled) {
                continue;
            }
            let (cluster, node) = (target.cluster.to_string(), target.node.to_string());
            match again.last_mut() {
                Some(last) if last.cluster == cluster => last.nodes.push(node),
                _ => again.push(TargetRequest {
                    cluster,
                    nodes: vec![node],
                    label_selector: None,
                }),
            }
        }
        if again.is_empty() {
            return Err(OperationError::NothingFailed { id });
        }
        let strategy = operation.strategy.clone();
        let request = OperationRequest {
            kind: operation.kind,
            targets: again,
            reason: operation.reason,
            ticket: operation.ticket,
            options: operation.options,
            strategy: RawStrategy::default(),
            dry_run: operation.dry_run,
            retry_of: Some(id),
        };
        let now = self.clock.now();
        let mut accepted = accept::accept(&self.inventory, request, asker, self.ids.next(now), now)?;
        accepted.operation.strategy = strategy;
        let event = NewEvent::new(
            now,
            EventKind::Operation,
            [
                ("state", json!(OperationState::Queued.as_str())),
                ("kind", json!(operation.kind.as_str())),
                ("by", json!(accepted.operation.actor.label())),
                ("retry_of", json!(id)),
                ("nodes", json!(accepted.operation.progress.total)),
            ],
        );
        self.store.open(&accepted.operation, &accepted.targets, &event).await?;
        Ok(accepted)
    }

    /// The events of an operation after the one with the number `after`, and what happens from now on, until it is over. Whoever follows it
    /// may do so on any replica.
    pub fn follow(
        self: &Arc<Self>,
        id: Uuid,
        after: u64,
    ) -> impl Stream<Item = Result<Vec<OperationEvent>, StorageError>> + Send + use<> {
        let start = Follower {
            operations: Arc::clone(self),
            id,
            after,
            news: self.waiting.follow(id),
            is_over: false,
            is_live: false,
        };
        futures::stream::unfold(start, Follower::advance)
    }
}

/// Somebody who follows an operation.
struct Follower {
    operations: Arc<Operations>,
    id: Uuid,
    after: u64,
    news: News,
    is_over: bool,
    /// Whether everything until now was read: what comes now did not happen before the reader came.
    is_live: bool,
}

impl Follower {
    async fn advance(mut self) -> Option<(Result<Vec<OperationEvent>, StorageError>, Self)> {
        if self.is_over {
            return None;
        }
        loop {
            if self.is_live {
                self.news.next(self.operations.look_every).await;
            }
            match self.read().await {
                Ok(events) if events.is_empty() && self.is_over => return None,
                Ok(events) if events.is_empty() => {}
                Ok(events) => return Some((Ok(events), self)),
                Err(error) => {
                    self.is_over = true;
                    return Some((Err(error), self));
                }
            }
        }
    }

    async fn read(&mut self) -> Result<Vec<OperationEvent>, StorageError> {
        let store = &self.operations.store;
        // A reader who comes when it is over may have seen the event that says so. Before its events: what is over now has no later ones.
        let was_over = match self.is_live {
            true => false,
            false => store
                .find(self.id)
                .await?
                .is_none_or(|operation| operation.state.is_ended()),
        };
        let events = store.events_after(self.id, self.after, EVENTS_AT_ONCE).await?;
        if let Some(last) = events.last() {
            self.after = last.number;
        }
        if self.is_live {
            let now = self.operations.clock.now();
            for event in &events {
                histogram!(metric::OPERATION_EVENT_LAG).record(now.since(event.event.at).as_secs_f64());
            }
        }
        let is_complete = u32::try_from(events.len()).is_ok_and(|count| count < EVENTS_AT_ONCE);
        self.is_over = is_complete && (was_over || events.iter().any(is_end));
        // While there are more of them, they are still those of before.
        self.is_live = is_complete;
        Ok(events)
    }
}

/// Whether the event is the last one of its operation.
fn is_end(event: &OperationEvent) -> bool {
    let state = event.event.data.get("state").and_then(Value::as_str);
    let state = state.and_then(OperationState::parse);
    event.event.kind == EventKind::Operation && state.is_some_and(OperationState::is_ended)
}
