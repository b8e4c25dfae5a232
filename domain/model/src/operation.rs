//! Operations: whatever takes longer than one call to a cluster, on one node or on many.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    Actor, AuditAction, AuditCompletion, AuditRecord, Authority, ClusterName, Hold, HoldChange, HoldState, NodeName,
    Timestamp,
};

mod detail;
mod query;
mod schedule;
mod state;
mod strategy;

pub use detail::TargetDetail;
pub use query::{OperationQuery, RawOperationQuery};
pub use schedule::{Next, TargetNode};
pub use state::{OperationState, RefusedWish, TargetState, Wish};
pub use strategy::{RawStrategy, Share, Strategy, TargetOrder, UncordonAfter};

/// Something that is done to nodes, step by step, by whichever replica holds its lease.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// A UUID v7: ids sort by the time at which operations were accepted.
    pub id: Uuid,
    /// What is done.
    pub kind: OperationKind,
    /// Who asked for it.
    pub actor: Actor,
    /// By what they may have it done: asked again before each node is begun.
    pub authority: Authority,
    /// The request that asked for it.
    pub request_id: Option<String>,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// The caller's ticket.
    pub ticket: Option<String>,
    /// What was asked for in detail, as it was accepted.
    pub options: Map<String, Value>,
    /// In which order and how many at once.
    pub strategy: Strategy,
    /// Whether nothing is changed: clusters only say what they would do.
    pub dry_run: bool,
    /// The operation whose failed nodes this one tries again.
    pub retry_of: Option<Uuid>,
    /// A SHA-256 of the request that asked for it, if that came under an idempotency key: sent again, it asks for this operation.
    pub idempotency: Option<[u8; 32]>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When its first node was begun.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How far it is.
    pub state: OperationState,
    /// Why it is so, where that is not plain: why it paused, or begins no node.
    pub message: Option<String>,
    /// How many nodes are how far.
    pub progress: OperationProgress,
    /// How many nodes had failed when somebody last resumed it: these do not count again.
    pub excused: u32,
}

/// What is done to the nodes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// They are held.
    Cordon,
    /// Holds are released.
    Uncordon,
    /// They are drained.
    Drain,
    /// Their labels are changed.
    Label,
    /// Their taints are changed.
    Taint,
    /// They get the labels and taints of a template.
    ApplyTemplate,
}

/// How many nodes of an operation are how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationProgress {
    /// All of them.
    pub total: u32,
    /// Those for which it worked.
    pub done: u32,
    /// Those for which it did not.
    pub failed: u32,
    /// Those that were left out: they vanished, or the operation was cancelled before.
    pub skipped: u32,
}

/// What is said instead of what names pods.
const PODS_HIDDEN: &str = "what is told here needs the permission view-pods";

/// A node of an operation, and how far it is.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationTarget {
    /// Its place in the order, counted from 0.
    pub place: u32,
    /// The cluster.
    pub cluster: ClusterName,
    /// The node.
    pub node: NodeName,
    /// Its zone when the operation was accepted.
    pub zone: Option<String>,
    /// How far it is.
    pub state: TargetState,
    /// Why it is so, where that is not plain.
    pub message: Option<String>,
    /// When it was begun.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Its record in the audit log, once it was begun.
    pub audit: Option<Uuid>,
    /// The hold that was made for it.
    pub hold: Option<Uuid>,
    /// What is known beyond that.
    pub detail: TargetDetail,
}

impl OperationTarget {
    /// Leaves out what is told of the pods of a drained node, for somebody who may not see them: messages name them, too.
    pub fn hide_pods(&mut self) {
        if self.message.is_some() {
            self.message = Some(PODS_HIDDEN.to_owned());
        }
        let Some(mut detail) = self.detail.read::<Map<String, Value>>() else {
            return;
        };
        for key in ["notice", "warnings", "pods"] {
            detail.remove(key);
        }
        self.detail = TargetDetail::of(&detail).unwrap_or_default();
    }
}

/// Something that happened to an operation, as its event log keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationEvent {
    /// Its number in its operation, counted from 1 without a gap.
    pub number: u64,
    /// What happened.
    pub event: NewEvent,
}

/// Something that happened to an operation, before the event log numbers it.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// When.
    pub at: Timestamp,
    /// What it is about.
    pub kind: EventKind,
    /// What happened.
    pub data: Map<String, Value>,
}

/// What an event of an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The operation as a whole.
    Operation,
    /// One of its nodes.
    Node,
    /// A pod of one of its nodes.
    Pod,
}

/// The right to work on an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OperationLease {
    /// The operation.
    pub operation: Uuid,
    /// The replica.
    pub owner: String,
    /// How often the operation changed hands: nobody else has this number.
    pub epoch: u64,
}

/// A lease that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationClaim {
    /// The lease.
    pub lease: OperationLease,
    /// Whether another owner left the operation behind: its lease ran out, or it handed it over. One that was given back because there was
    /// nothing to do, such as one that was paused, is not taken over.
    pub is_takeover: bool,
}

/// What a replica writes down of an operation that it works on: all of it or nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationStep {
    /// When.
    pub at: Timestamp,
    /// From which state to which the operation moves, and why. From one state to the same it only changes its message.
    pub transition: Option<(OperationState, OperationState, Option<String>)>,
    /// How many nodes are how far.
    pub progress: OperationProgress,
    /// Nodes that changed.
    pub targets: Vec<OperationTarget>,
    /// What happened.
    pub events: Vec<NewEvent>,
    /// Changes of nodes that are about to be tried.
    pub intents: Vec<AuditRecord>,
    /// What came of changes that were tried.
    pub completions: Vec<(Uuid, AuditCompletion)>,
    /// Holds that are about to be brought onto nodes.
    pub holds: Vec<Hold>,
    /// Holds that moved on.
    pub hold_states: Vec<(Uuid, HoldState)>,
    /// Holds that changed beyond that.
    pub hold_changes: Vec<(Uuid, HoldChange)>,
}

/// Whether a step was written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepOutcome {
    /// It was. Somebody may have asked for something meanwhile: this is the operation's state now.
    Written(OperationState),
    /// Nothing was: the lease ran out, or somebody else has it.
    LeaseLost,
    /// Nothing was: somebody moved the operation to this state meanwhile.
    OtherState(OperationState),
}

/// How much there is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationBacklog {
    /// How many operations are in each state that is not an end; states that none is in are left out.
    pub by_state: BTreeMap<OperationState, u64>,
    /// When the oldest queued one was accepted.
    pub oldest_queued: Option<Timestamp>,
}

/// Which operations a reader wants: those that satisfy everything that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationFilter {
    /// With a node in this cluster.
    pub cluster: Option<ClusterName>,
    /// With a node of this name.
    pub node: Option<NodeName>,
    /// Of this kind.
    pub kind: Option<OperationKind>,
    /// In one of these states; empty: in any.
    pub states: Vec<OperationState>,
    /// Of the actor who is called this, exactly, see [`Actor::label`].
    pub actor: Option<String>,
    /// Accepted from this time on.
    pub from: Option<Timestamp>,
    /// Accepted before this time.
    pub until: Option<Timestamp>,
    /// Asked for by this request, see [`Operation::idempotency`].
    pub idempotency: Option<[u8; 32]>,
}

impl OperationKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Cordon,
        Self::Uncordon,
        Self::Drain,
        Self::Label,
        Self::Taint,
        Self::ApplyTemplate,
    ];

    /// `cordon`, `uncordon`, `drain`, `label`, `taint` or `apply_template`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cordon => "cordon",
            Self::Uncordon => "uncordon",
            Self::Drain => "drain",
            Self::Label => "label",
            Self::Taint => "taint",
            Self::ApplyTemplate => "apply_template",
        }
    }

    /// Reads [`OperationKind::as_str`] back, `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// What the audit log calls it, for each node.
    #[must_use]
    pub fn action(self) -> AuditAction {
        match self {
            Self::Cordon => AuditAction::NodeCordon,
            Self::Uncordon => AuditAction::NodeUncordon,
            Self::Drain => AuditAction::NodeDrain,
            Self::Label => AuditAction::NodeLabel,
            Self::Taint => AuditAction::NodeTaint,
            Self::ApplyTemplate => AuditAction::NodeApplyTemplate,
        }
    }
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Operation, Self::Node, Self::Pod];

    /// `operation`, `node` or `pod`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operation => "operation",
            Self::Node => "node",
            Self::Pod => "pod",
        }
    }

    /// Reads [`EventKind::as_str`] back, `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl OperationProgress {
    /// Counts `targets`.
    pub fn of<'a>(targets: impl IntoIterator<Item = &'a OperationTarget>) -> Self {
        let mut progress = Self::default();
        for target in targets {
            progress.total += 1;
            match target.state {
                TargetState::Waiting | TargetState::Running => {}
                TargetState::Succeeded => progress.done += 1,
                TargetState::Failed => progress.failed += 1,
                TargetState::Skipped | TargetState::Cancelled => progress.skipped += 1,
            }
        }
        progress
    }

    /// How many nodes are not ended.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.total.saturating_sub(self.done + self.failed + self.skipped)
    }

    /// How an operation ended whose nodes are all ended.
    #[must_use]
    pub fn end(&self) -> OperationState {
        match (self.failed, self.done + self.skipped) {
            (0, _) => OperationState::Succeeded,
            (_, 0) => OperationState::Failed,
            (_, _) => OperationState::PartlyFailed,
        }
    }
}

impl Operation {
    /// In how many seconds it may be over, if its nodes go on as fast as until now; `None` where that cannot be told.
    #[must_use]
    pub fn eta_seconds(&self, now: Timestamp) -> Option<u64> {
        let started = self.started_at?;
        let ended = self.progress.total - self.progress.left();
        if self.state != OperationState::Running || ended == 0 {
            return None;
        }
        let taken = now.since(started).as_secs_f64();
        // At least a second while something is left: 0 would look like the end.
        Some(
            (taken / f64::from(ended) * f64::from(self.progress.left()))
                .ceil()
                .max(1.0) as u64,
        )
    }
}

impl OperationStep {
    /// A step that changes nothing yet.
    #[must_use]
    pub fn at(at: Timestamp, progress: OperationProgress) -> Self {
        Self {
            at,
            transition: None,
            progress,
            targets: Vec::new(),
            events: Vec::new(),
            intents: Vec::new(),
            completions: Vec::new(),
            holds: Vec::new(),
            hold_states: Vec::new(),
            hold_changes: Vec::new(),
        }
    }
}

impl NewEvent {
    /// An event whose data are `fields`.
    #[must_use]
    pub fn new<const N: usize>(at: Timestamp, kind: EventKind, fields: [(&str, Value); N]) -> Self {
        let data = fields.into_iter().filter(|(_, value)| !value.is_null());
        Self {
            at,
            kind,
            data: data.map(|(key, value)| (key.to_owned(), value)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(total: u32, done: u32, failed: u32, skipped: u32) -> OperationProgress {
        OperationProgress {
            total,
            done,
            failed,
            skipped,
        }
    }

    #[test]
    fn an_operation_ends_as_its_nodes_did() {
        for (counts, state) in [
            (progress(2, 2, 0, 0), OperationState::Succeeded),
            (progress(2, 1, 0, 1), OperationState::Succeeded),
            (progress(2, 0, 2, 0), OperationState::Failed),
            (progress(2, 1, 1, 0), OperationState::PartlyFailed),
            (progress(2, 0, 1, 1), OperationState::PartlyFailed),
            (progress(0, 0, 0, 0), OperationState::Succeeded),
        ] {
            assert_eq!(counts.end(), state, "{counts:?}");
        }
    }

    #[test]
    fn words_are_read_back() {
        for kind in OperationKind::ALL {
            assert_eq!(OperationKind::parse(kind.as_str()), Some(kind));
        }
        for kind in EventKind::ALL {
            assert_eq!(EventKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!((OperationKind::parse("reboot"), EventKind::parse("")), (None, None));
    }

    #[test]
    fn the_end_is_told_when_something_is_known_of_it() {
        let start = Timestamp::parse("2030-01-01T00:00:00Z").unwrap();
        let mut operation = Operation {
            id: Uuid::from_u128(1),
            kind: OperationKind::Drain,
            actor: Actor::anonymous(None),
            authority: Authority::Open,
            request_id: None,
            reason: None,
            ticket: None,
            options: Map::new(),
            strategy: Strategy::of(OperationKind::Drain),
            dry_run: false,
            retry_of: None,
            idempotency: None,
            created_at: start,
            started_at: Some(start),
            ended_at: None,
            state: OperationState::Running,
            message: None,
            progress: progress(10, 3, 1, 0),
            excused: 0,
        };
        let later = start.plus(std::time::Duration::from_secs(40));
        assert_eq!(operation.eta_seconds(later), Some(60));
        assert_eq!(operation.eta_seconds(start), Some(1));
        operation.progress = progress(10, 0, 0, 0);
        assert_eq!(operation.eta_seconds(later), None);
        operation.progress = progress(10, 3, 1, 0);
        operation.state = OperationState::Paused;
        assert_eq!(operation.eta_seconds(later), None);
    }
}
