//! One step on one node of an operation: what it needs, and what comes of it.

use std::sync::Arc;
use std::time::Duration;

use knm_model::{
    AuditCompletion, AuditOutcome, EventKind, Hold, HoldChange, HoldState, NewEvent, Operation, OperationState,
    OperationTarget, TargetState, Timestamp,
};
use knm_ports::{Clock, chain};
use metrics::counter;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::room::{Blocks, Facts, Leaving};
use super::runner::{Handover, Heard, OwnPod};
use crate::changes::{Asked, ChangeError, NodeChanges, Target};
use crate::inventory::{Inventory, InventoryError};
use crate::metric;
use crate::sign_in::SignIn;

/// How long a node rests whose cluster could not be asked.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// What steps work with.
pub(super) struct Bench {
    pub(super) inventory: Arc<Inventory>,
    pub(super) changes: Arc<NodeChanges>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) facts: Facts,
    pub(super) leaving: Leaving,
    pub(super) blocks: Blocks,
    /// The pod that this process runs in.
    pub(super) own_pod: Option<OwnPod>,
    /// How many pods of a cluster may be on their way out at once.
    pub(super) most_leaving: Option<usize>,
    pub(super) handover: Handover,
    /// Tells what those may do who asked for operations.
    pub(super) sign_in: Arc<SignIn>,
}

impl Bench {
    /// Forgets an operation that is not worked on any more.
    pub(super) fn forget(&self, operation: Uuid) {
        self.leaving.forget_operation(operation);
        self.blocks.forget(operation);
    }
}

/// What a step may rely on while it works.
pub(super) struct Permit {
    heard: watch::Receiver<Heard>,
    /// Whether this replica has just taken the node up: nobody worked on it before, perhaps for long.
    pub(super) is_first: bool,
}

impl Permit {
    pub(super) fn new(heard: watch::Receiver<Heard>, is_first: bool) -> Self {
        Self { heard, is_first }
    }

    /// Whether the operation is still ours and nobody has paused or cancelled it, as far as is known.
    pub(super) fn holds(&self) -> bool {
        let heard = *self.heard.borrow();
        let is_wanted = match heard.state {
            OperationState::Queued | OperationState::Running => true,
            OperationState::Paused
            | OperationState::Cancelling
            | OperationState::Cancelled
            | OperationState::Succeeded
            | OperationState::Failed
            | OperationState::PartlyFailed => false,
        };
        is_wanted && Instant::now() < heard.valid_until
    }
}

/// What came of a step.
pub(super) struct TargetStep {
    /// The node of the operation, as it is now.
    pub(super) target: OperationTarget,
    /// What happened.
    pub(super) events: Vec<NewEvent>,
    /// Holds that are about to be brought onto the node.
    pub(super) holds: Vec<Hold>,
    /// Holds that moved on.
    pub(super) hold_states: Vec<(Uuid, HoldState)>,
    /// Holds that changed beyond that.
    pub(super) hold_changes: Vec<(Uuid, HoldChange)>,
    /// What came of the change, if that is known now.
    pub(super) completion: Option<AuditCompletion>,
    /// How long nothing needs to be done.
    pub(super) rest: Duration,
}

impl TargetStep {
    /// Nothing happened yet.
    pub(super) fn of(target: OperationTarget) -> Self {
        Self {
            target,
            events: Vec::new(),
            holds: Vec::new(),
            hold_states: Vec::new(),
            hold_changes: Vec::new(),
            completion: None,
            rest: Duration::ZERO,
        }
    }

    /// The node is ended.
    pub(super) fn end(
        mut self,
        state: TargetState,
        message: Option<String>,
        changed: (Map<String, Value>, Map<String, Value>),
        now: Timestamp,
    ) -> Self {
        let outcome = match state {
            TargetState::Succeeded => AuditOutcome::Succeeded,
            TargetState::Failed
            | TargetState::Skipped
            | TargetState::Cancelled
            | TargetState::Waiting
            | TargetState::Running => AuditOutcome::Failed,
        };
        let (before, after) = changed;
        self.completion = Some(AuditCompletion {
            outcome,
            at: now,
            error: message.clone().filter(|_| outcome == AuditOutcome::Failed),
            before,
            after,
        });
        self.target.state = state;
        self.target.message = message;
        self.target.ended_at = Some(now);
        self.events.push(target_event(&self.target, now));
        self
    }

    /// Nothing could be done now; it is tried again.
    pub(super) fn again(mut self, message: String, now: Timestamp) -> Self {
        if self.target.message.as_ref() != Some(&message) {
            self.target.message = Some(message);
            self.events.push(target_event(&self.target, now));
        }
        self.rest = AFTER_FAILURE;
        self
    }

    /// What an error of a change means: the node is tried again, or ended.
    pub(super) fn failed(self, error: &ChangeError, now: Timestamp) -> Self {
        let nothing = || (Map::new(), Map::new());
        match error {
            ChangeError::Inventory(InventoryError::UnknownNode { .. }) => self.end(
                TargetState::Skipped,
                Some("the node is gone".to_owned()),
                nothing(),
                now,
            ),
            ChangeError::Inventory(InventoryError::Cluster { source, .. })
                if source.is_transient() || source.is_uncertain() =>
            {
                self.again(
                    format!("the cluster did not do it and is asked again: {}", chain(error)),
                    now,
                )
            }
            ChangeError::Unanswered { .. } => self.again(format!("the cluster is asked again: {}", chain(error)), now),
            ChangeError::Inventory(InventoryError::NotSeenYet { .. })
            | ChangeError::Holds { .. }
            | ChangeError::Contended { .. }
            | ChangeError::ShuttingDown => self.again(chain(error), now),
            ChangeError::Inventory(
                InventoryError::NotAllowed { .. }
                | InventoryError::Cluster { .. }
                | InventoryError::UnknownCluster { .. },
            )
            | ChangeError::NotRecorded { .. }
            | ChangeError::Stale { .. }
            | ChangeError::Refused { .. }
            | ChangeError::NeedsConfirmation { .. }
            | ChangeError::HeldByOthers { .. }
            | ChangeError::Foreign { .. }
            | ChangeError::GuardedLabel { .. }
            | ChangeError::UnknownHold { .. } => {
                let message = error.refusal().unwrap_or_else(|| chain(error));
                self.end(TargetState::Failed, Some(message), nothing(), now)
            }
        }
    }
}

/// In whose name nodes are changed.
pub(super) fn asked(operation: &Operation) -> Asked {
    Asked {
        actor: operation.actor.clone(),
        request_id: operation.request_id.clone(),
        known: None,
        dry_run: operation.dry_run,
    }
}

/// The node of the cluster that a target is.
pub(super) fn node_of(bench: &Bench, target: &OperationTarget) -> Result<Target, ChangeError> {
    bench.changes.target(target.cluster.as_str(), target.node.as_str())
}

/// Stops a node whose operation was cancelled; nothing is being done to it now.
pub(super) fn cancelled(operation: &Operation, target: OperationTarget, now: Timestamp) -> TargetStep {
    let is_begun = target.state == TargetState::Running && !operation.dry_run;
    let message = match is_begun {
        true => "the operation was cancelled after the change was begun: it is not known whether the node was changed",
        false => "the operation was cancelled before anything was changed",
    };
    let nothing = (Map::new(), Map::new());
    let mut step = TargetStep::of(target).end(TargetState::Cancelled, Some(message.to_owned()), nothing, now);
    if is_begun && let Some(completion) = &mut step.completion {
        // Whoever worked on it before may have died, or heard no answer, just after it sent the change.
        completion.outcome = AuditOutcome::Unknown;
    }
    step
}

/// The event that tells how far a node is.
pub(super) fn target_event(target: &OperationTarget, now: Timestamp) -> NewEvent {
    NewEvent::new(
        now,
        EventKind::Node,
        [
            ("cluster", json!(target.cluster.as_str())),
            ("node", json!(target.node.as_str())),
            ("state", json!(target.state.as_str())),
            ("message", json!(target.message)),
        ],
    )
}

/// Counts a node that is ended.
pub(super) fn count_end(operation: &Operation, target: &OperationTarget) {
    let labels = [("kind", operation.kind.as_str()), ("result", target.state.as_str())];
    counter!(metric::OPERATION_NODES, &labels).increment(1);
}
