//! Operations: accepted here, stored, and worked on by whichever replica has their lease.

mod accept;
mod begin;
mod changing;
mod draining;
mod error;
mod follower;
mod keeper;
mod permitting;
mod room;
mod runner;
mod step;
mod task;
mod traced;
mod waiting;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use knm_model::{
    Access, Caller, ClusterName, EventKind, IDEMPOTENCY_KEPT, NewEvent, Operation, OperationEvent, OperationFilter,
    OperationKind, OperationTarget, Permission, QueryError, RawStrategy, Ruling, TargetState, Wish, Work,
};
use knm_ports::{Clock, IdSource, Operations as OperationStore, StorageError, Wakes};
use serde_json::{Map, Value, json};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

pub use error::OperationError;
pub use keeper::OperationKeeper;
pub use runner::{OperationRunner, OwnPod, RunnerSettings};

use self::follower::Follower;
use self::waiting::Waiting;
use crate::inventory::Inventory;
use crate::visible::Visible;

/// How many operations a page has if nobody says.
const USUAL_PAGE: u32 = 100;
/// How many operations are looked at for a page of somebody who may not see all of them.
const MOST_LOOKED_AT: u32 = 100;

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
    /// Who, and what they may do.
    pub caller: Caller,
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
        self.accept_once(request, asker, None).await
    }

    /// The same for a request that may be sent again, of which `once` is a SHA-256: the operation that it asked for the first time.
    ///
    /// # Errors
    /// [`OperationError`]; then nothing is done, unless the store did something and could not say so.
    pub async fn accept_once(
        &self,
        request: OperationRequest,
        asker: Asker,
        once: Option<[u8; 32]>,
    ) -> Result<OperationShown, OperationError> {
        let access = Arc::clone(&asker.caller.access);
        if let Some(known) = self.asked_for_by(once, &access).await? {
            return Ok(known);
        }
        let now = self.clock.now();
        let accepted = accept::accept(&self.inventory, request, asker, self.ids.next(now), now)?;
        let mut accepted = accepted.allowed_by_clusters(&self.inventory).await?;
        accepted.operation.idempotency = once;
        self.open(accepted, &access).await
    }

    /// The operation that a request asked for before, as far as it may be seen still.
    async fn asked_for_by(
        &self,
        request: Option<[u8; 32]>,
        access: &Access,
    ) -> Result<Option<OperationShown>, OperationError> {
        if request.is_none() {
            return Ok(None);
        }
        let filter = OperationFilter {
            idempotency: request,
            from: Some(self.clock.now().minus(IDEMPOTENCY_KEPT)),
            ..OperationFilter::default()
        };
        match self.store.page(&filter, None, 1).await?.first() {
            Some(known) => self.find_visible(known.id, access).await.map(Some),
            None => Ok(None),
        }
    }

    async fn open(&self, accepted: OperationShown, access: &Access) -> Result<OperationShown, OperationError> {
        let operation = &accepted.operation;
        let event = NewEvent::new(
            operation.created_at,
            EventKind::Operation,
            [
                ("state", json!(operation.state.as_str())),
                ("kind", json!(operation.kind.as_str())),
                ("by", json!(operation.actor.label())),
                ("reason", json!(operation.reason)),
                ("retry_of", json!(operation.retry_of)),
                ("nodes", json!(operation.progress.total)),
            ],
        );
        match self.store.open(operation, &accepted.targets, &event).await {
            Ok(()) => {}
            Err(error @ StorageError::Conflict { .. }) => {
                let known = self.asked_for_by(operation.idempotency, access).await?;
                return known.ok_or(OperationError::Storage(error));
            }
            Err(error) => return Err(error.into()),
        }
        tracing::info!(
            operation = %operation.id, kind = operation.kind.as_str(), nodes = operation.progress.total,
            "operation accepted"
        );
        traced::accepted(operation);
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

    /// An operation with its nodes, for somebody who may see all of them. What is told of pods is left out for nodes whose pods they may not
    /// see.
    ///
    /// # Errors
    /// [`OperationError::Unknown`], also for whoever may not see one of its nodes, or what the store says.
    pub async fn find_visible(&self, id: Uuid, access: &Access) -> Result<OperationShown, OperationError> {
        let mut shown = self.find(id).await?;
        let visible = self.inventory.visible_to(access);
        if !sees(visible, &shown.targets) {
            return Err(OperationError::Unknown { id });
        }
        if shown.operation.kind == OperationKind::Drain {
            for target in &mut shown.targets {
                if !sees_pods(visible, target) {
                    target.hide_pods();
                }
            }
        }
        Ok(shown)
    }

    /// Operations that satisfy `filter`, the latest first, all of whose nodes may be seen. For somebody who does not see everything no more
    /// than 100 are looked at, whatever `limit` says, because the nodes of each are read for that: a page may be shorter than `limit`, or
    /// empty, although there are more. The next one goes on.
    ///
    /// # Errors
    /// What the store says.
    pub async fn page(
        &self,
        filter: &OperationFilter,
        before: Option<Uuid>,
        limit: Option<u32>,
        access: &Access,
    ) -> Result<OperationPage, OperationError> {
        let limit = limit.unwrap_or(USUAL_PAGE);
        let visible = self.inventory.visible_to(access);
        let looked_at = match visible.is_everything() {
            true => limit,
            false => MOST_LOOKED_AT,
        };
        // One more tells whether there is a next page.
        let read = self.store.page(filter, before, looked_at.saturating_add(1)).await?;
        let [limit, looked_at] = [limit, looked_at].map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        let (count, now) = (read.len(), self.clock.now());
        let (mut operations, mut next, mut place) = (Vec::new(), None, 0);
        for operation in read.into_iter().take(looked_at) {
            if limit <= operations.len() {
                break;
            }
            place += 1;
            next = Some(operation.id);
            if visible.is_everything() || sees(visible, &self.store.targets(operation.id).await?) {
                let eta = operation.eta_seconds(now);
                operations.push((operation, eta));
            }
        }
        Ok(OperationPage {
            next: next.filter(|_| place < count),
            operations,
        })
    }

    /// Cancels, pauses or resumes an operation. What is wished already is no error. It is shown as by [`Operations::find_visible`].
    ///
    /// # Errors
    /// [`OperationError`]; then it stays as it was.
    pub async fn wish(&self, id: Uuid, wish: Wish, asker: &Asker) -> Result<OperationShown, OperationError> {
        loop {
            let found = self.store.find(id).await?.ok_or(OperationError::Unknown { id })?;
            self.check_wish(&found, wish, &asker.caller.access).await?;
            let wanted = found.state.wished(wish)?;
            if wanted == found.state {
                break;
            }
            let event = NewEvent::new(
                self.clock.now(),
                EventKind::Operation,
                [
                    ("state", json!(wanted.as_str())),
                    ("by", json!(asker.caller.actor.label())),
                ],
            );
            // It may have moved on meanwhile: then the wish is looked at anew.
            if self.store.request(id, found.state, wanted, &event).await? {
                tracing::info!(operation = %id, wish = wish.as_str(), by = asker.caller.actor.label(), "operation was asked to change");
                break;
            }
        }
        self.find_visible(id, &asker.caller.access).await
    }

    /// Whether somebody may wish something of an operation: whoever has it go on, may have it done; whoever stops it, may change its nodes.
    async fn check_wish(&self, operation: &Operation, wish: Wish, access: &Access) -> Result<(), OperationError> {
        let targets = self.store.targets(operation.id).await?;
        let visible = self.inventory.visible_to(access);
        if !sees(visible, &targets) {
            return Err(OperationError::Unknown { id: operation.id });
        }
        let needed = match wish {
            Wish::Cancel | Wish::Pause => &[Permission::View, Permission::Change][..],
            Wish::Resume => needs(operation),
        };
        for OperationTarget { cluster, node, .. } in &targets {
            let ruling = visible.decide(needed, cluster.as_str(), Some(node.as_str()));
            accept::permitted(ruling, cluster, node)?;
        }
        Ok(())
    }

    /// Accepts a new operation for the nodes of an ended one for which it did not work and that are still there; `once` as in
    /// [`Operations::accept_once`].
    ///
    /// # Errors
    /// [`OperationError`]; then nothing is done.
    pub async fn retry(
        &self,
        id: Uuid,
        asker: Asker,
        once: Option<[u8; 32]>,
    ) -> Result<OperationShown, OperationError> {
        let access = Arc::clone(&asker.caller.access);
        if let Some(known) = self.asked_for_by(once, &access).await? {
            return Ok(known);
        }
        let OperationShown { operation, targets, .. } = self.find_visible(id, &access).await?;
        if !operation.state.is_ended() {
            return Err(OperationError::NotEnded {
                id,
                state: operation.state,
            });
        }
        let failed = |target: &OperationTarget| matches!(target.state, TargetState::Failed | TargetState::Cancelled);
        let mut earlier: Vec<OperationTarget> = targets.into_iter().filter(failed).collect();
        if earlier.is_empty() {
            return Err(OperationError::NothingFailed { id });
        }
        for cluster in earlier
            .iter()
            .map(|target| target.cluster.clone())
            .collect::<BTreeSet<_>>()
        {
            let snapshot = self.inventory.visible_to(&access).snapshot(cluster.as_str())?;
            earlier.retain(|target| target.cluster != cluster || snapshot.find(target.node.as_str()).is_some());
        }
        if earlier.is_empty() {
            return Err(OperationError::NothingLeft { id });
        }
        let request = OperationRequest {
            kind: operation.kind,
            targets: requested(&earlier),
            reason: operation.reason,
            ticket: operation.ticket,
            options: operation.options,
            strategy: RawStrategy::default(),
            dry_run: operation.dry_run,
            retry_of: Some(id),
        };
        let now = self.clock.now();
        let accepted = accept::accept(&self.inventory, request, asker, self.ids.next(now), now)?;
        let mut accepted = accepted.allowed_by_clusters(&self.inventory).await?;
        accepted.operation.strategy = operation.strategy;
        accepted.operation.idempotency = once;
        if operation.kind == OperationKind::Drain {
            // The node keeps the hold that it has, so that the end of this drain gives it back. Both lists are in the same order.
            for (target, earlier) in accepted.targets.iter_mut().zip(&earlier) {
                target.hold = earlier.hold;
            }
        }
        self.open(accepted, &access).await
    }

    /// Whether somebody who read the event with the number `after` can go on behind it; 0 reads all. Returns the clusters that it is about.
    /// The events of a drain tell of its pods: they are for those who may see the pods of all of its nodes.
    ///
    /// # Errors
    /// [`OperationError::Unknown`], [`OperationError::NotPermitted`], [`OperationError::Invalid`] for an event that is not there, or what the store says.
    pub async fn check_follow(
        &self,
        id: Uuid,
        after: u64,
        access: &Access,
    ) -> Result<Vec<ClusterName>, OperationError> {
        let shown = self.find_visible(id, access).await?;
        if shown.operation.kind == OperationKind::Drain {
            let visible = self.inventory.visible_to(access);
            if let Some(target) = shown.targets.iter().find(|target| !sees_pods(visible, target)) {
                return Err(OperationError::NotPermitted {
                    permission: Permission::ViewPods,
                    cluster: target.cluster.clone(),
                    node: target.node.clone(),
                });
            }
        }
        let clusters: BTreeSet<ClusterName> = shown.targets.into_iter().map(|target| target.cluster).collect();
        let clusters = clusters.into_iter().collect();
        if after == 0 || self.has_event(id, after).await? {
            return Ok(clusters);
        }
        // Numbers have no gaps, so the last one is between one that is there and one that is not.
        let (mut last, mut above) = (0, after);
        while last + 1 < above {
            let middle = last + (above - last) / 2;
            match self.has_event(id, middle).await? {
                true => last = middle,
                false => above = middle,
            }
        }
        let message = format!("\"{after}\" is not the id of an event of this operation: the last one is {last}");
        let errors = vec![QueryError::new("last_event_id", message)];
        Err(OperationError::Invalid { errors })
    }

    async fn has_event(&self, id: Uuid, number: u64) -> Result<bool, StorageError> {
        let found = self.store.events_after(id, number.saturating_sub(1), 1).await?;
        Ok(found.iter().any(|event| event.number == number))
    }

    /// The events of an operation after the one with the number `after`, and what happens from now on, until it is over. Whoever follows it
    /// may do so on any replica.
    pub fn follow(
        self: &Arc<Self>,
        id: Uuid,
        after: u64,
    ) -> impl Stream<Item = Result<Vec<OperationEvent>, StorageError>> + Send + use<> {
        let start = Follower::new(Arc::clone(self), id, after);
        futures::stream::unfold(start, Follower::advance)
    }
}

/// Whether all nodes of an operation may be seen.
fn sees(visible: Visible<'_>, targets: &[OperationTarget]) -> bool {
    visible.is_everything()
        || targets
            .iter()
            .all(|target| visible.sees(target.cluster.as_str(), Some(target.node.as_str())))
}

/// Whether the pods of a node may be seen.
fn sees_pods(visible: Visible<'_>, target: &OperationTarget) -> bool {
    let needed = [Permission::View, Permission::ViewPods];
    visible.decide(&needed, target.cluster.as_str(), Some(target.node.as_str())) == Ruling::Allowed
}

/// What somebody must be allowed to do to have an operation done; everything, if that cannot be read any more.
fn needs(operation: &Operation) -> &'static [Permission] {
    let (reason, ticket) = (operation.reason.as_deref(), operation.ticket.as_deref());
    let work = Work::parse(operation.kind, reason, ticket, &operation.options, operation.created_at);
    work.map_or(&Permission::ALL, |work| work.needs())
}

/// What asks for these nodes, in their order.
fn requested(targets: &[OperationTarget]) -> Vec<TargetRequest> {
    let same_cluster = targets.chunk_by(|one, next| one.cluster == next.cluster);
    let request = |some: &[OperationTarget]| TargetRequest {
        cluster: some
            .first()
            .map(|target| target.cluster.to_string())
            .unwrap_or_default(),
        nodes: some.iter().map(|target| target.node.to_string()).collect(),
        label_selector: None,
    };
    same_cluster.map(request).collect()
}
