//! Operations: what is asked for, and how far they are.

use std::collections::BTreeMap;

use knm_domain::{OperationPage, OperationShown, TargetRequest};
use knm_model::{
    DrainPhase, DrainProgress, DrainedPod, Operation, OperationProgress, OperationState, OperationTarget, PodProgress,
    RawStrategy, Strategy, TargetDetail, TargetState,
};
use poem_openapi::{Enum, Object};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::audit::ActorView;

/// What is to be done to nodes of one cluster.
#[derive(Debug, Deserialize, Object)]
#[oai(rename = "OperationRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct OperationBody {
    /// `cordon`, `uncordon`, `drain`, `label`, `taint` or `apply_template`.
    pub(crate) kind: String,
    /// To which nodes.
    pub(crate) targets: TargetsBody,
    /// Why, in 1 to 500 characters; a cordon needs it.
    #[oai(default)]
    pub(crate) reason: Option<String>,
    /// A ticket, at most 100 characters.
    #[oai(default)]
    pub(crate) ticket: Option<String>,
    /// What exactly, under the keys of the same change of one node: for a cordon `until`; for an uncordon `force`; for a drain those of its
    /// plan; for labels `set` and `remove`; for taints `add`, `remove` and `confirm_no_execute`; for a
    /// template `template`, its name, and perhaps `version` and `confirm_no_execute`.
    #[oai(default)]
    #[serde(default)]
    pub(crate) options: BTreeMap<String, Value>,
    /// In which order and how many at once.
    #[oai(default)]
    #[serde(default)]
    pub(crate) strategy: StrategyBody,
    /// Whether nothing is changed, and clusters only say what they would do.
    #[oai(default)]
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// What is to be done to nodes of several clusters.
#[derive(Debug, Deserialize, Object)]
#[oai(rename = "FleetOperationRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct FleetOperationBody {
    /// `cordon`, `uncordon`, `drain`, `label`, `taint` or `apply_template`.
    pub(crate) kind: String,
    /// To which nodes, cluster by cluster.
    #[oai(validator(max_items = 100))]
    pub(crate) targets: Vec<ClusterTargetsBody>,
    /// Why, in 1 to 500 characters; a cordon needs it.
    #[oai(default)]
    pub(crate) reason: Option<String>,
    /// A ticket, at most 100 characters.
    #[oai(default)]
    pub(crate) ticket: Option<String>,
    /// What exactly, as for the nodes of one cluster.
    #[oai(default)]
    #[serde(default)]
    pub(crate) options: BTreeMap<String, Value>,
    /// In which order and how many at once.
    #[oai(default)]
    #[serde(default)]
    pub(crate) strategy: StrategyBody,
    /// Whether nothing is changed, and clusters only say what they would do.
    #[oai(default)]
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// Which nodes of a cluster: one of both keys.
#[derive(Debug, Default, Deserialize, Object)]
#[oai(rename = "OperationTargets", default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TargetsBody {
    /// Their names, in the order in which they are to be worked on.
    #[oai(validator(max_items = 5000))]
    nodes: Vec<String>,
    /// Those with these labels, in Kubernetes' grammar, sorted by name.
    label_selector: Option<String>,
}

/// Which nodes of which cluster: one of the last two keys.
#[derive(Debug, Deserialize, Object)]
#[oai(rename = "ClusterTargets")]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterTargetsBody {
    /// The cluster's name.
    cluster: String,
    /// Their names, in the order in which they are to be worked on.
    #[oai(default, validator(max_items = 5000))]
    #[serde(default)]
    nodes: Vec<String>,
    /// Those with these labels, in Kubernetes' grammar, sorted by name.
    #[oai(default)]
    #[serde(default)]
    label_selector: Option<String>,
}

/// In which order nodes are worked on, and how many at once.
#[derive(Debug, Default, Deserialize, Object)]
#[oai(rename = "OperationStrategy", default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StrategyBody {
    /// How many nodes may be out of use at once, drained and not ready and schedulable again: a number, or a share of the nodes such as
    /// "25%"; absent: any number.
    max_unavailable: Option<Value>,
    /// The same for each zone by itself.
    max_unavailable_per_zone: Option<Value>,
    /// How many nodes are worked on at once; absent: 1 for drains, 32 for everything else.
    #[oai(validator(minimum(value = "1"), maximum(value = "1000")))]
    max_concurrent: Option<i64>,
    /// `as_given`, `by_zone` or `least_pods_first`; absent: `as_given`.
    order: Option<String>,
    /// How long it waits between the beginnings of two nodes; absent: not at all.
    #[oai(validator(minimum(value = "0"), maximum(value = "86400")))]
    pause_between_seconds: Option<i64>,
    /// How many nodes may fail, as a number or a share such as "10%": with one more it pauses; absent: none.
    max_failures: Option<Value>,
    /// Whether drained nodes are made schedulable again: `never` or, as soon as they are ready, `on_ready`; absent: `never`.
    uncordon_after: Option<String>,
}

/// Operations.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "OperationList")]
pub(crate) struct OperationListView {
    /// The operations, the latest first.
    pub(crate) items: Vec<OperationSummaryView>,
    /// What to ask for the next page with, in `cursor`; null if there is none.
    pub(crate) next_cursor: Option<String>,
}

/// An operation, without its nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "OperationSummary")]
pub(crate) struct OperationSummaryView {
    /// Its id, a UUID; ids sort by time.
    id: String,
    /// What is done: `cordon`, `uncordon`, `drain`, `label`, `taint` or `apply_template`.
    kind: String,
    /// How far it is.
    state: OperationStateView,
    /// Why it is so, where that is not plain; null otherwise.
    message: Option<String>,
    /// How many nodes are how far.
    progress: OperationProgressView,
    /// In how many seconds it may be over; null where that cannot be told.
    eta_seconds: Option<u64>,
    /// Who asked for it.
    actor: ActorView,
    /// The id of the request that asked for it; null if none did.
    request_id: Option<String>,
    /// Why, in the caller's words; null if none were given.
    reason: Option<String>,
    /// The caller's ticket; null if none was given.
    ticket: Option<String>,
    /// What exactly was asked for.
    options: BTreeMap<String, Value>,
    /// In which order and how many at once.
    strategy: StrategyView,
    /// Whether nothing is changed, and clusters only say what they would do.
    dry_run: bool,
    /// The id of the operation whose failed nodes this one tries again; null if none.
    retry_of: Option<String>,
    /// When it was accepted, RFC 3339 in UTC.
    created_at: String,
    /// When it began, RFC 3339 in UTC; null if it did not.
    started_at: Option<String>,
    /// When it ended, RFC 3339 in UTC; null if it did not.
    ended_at: Option<String>,
}

/// An operation with its nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "Operation")]
pub(crate) struct OperationView {
    #[oai(flatten)]
    #[serde(flatten)]
    summary: OperationSummaryView,
    /// Its nodes, in the order in which they are worked on. They were fixed when it was accepted.
    targets: Vec<OperationTargetView>,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[oai(rename = "OperationState", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(crate) enum OperationStateView {
    /// Accepted; nobody works on it yet.
    Queued,
    /// Under way.
    Running,
    /// Nothing new is begun until somebody resumes it.
    Paused,
    /// It is being stopped.
    Cancelling,
    /// It was stopped.
    Cancelled,
    /// It worked for all nodes that are still there.
    Succeeded,
    /// It worked for no node.
    Failed,
    /// It worked for some nodes.
    PartlyFailed,
}

/// How many nodes of an operation are how far.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "OperationProgress")]
pub(crate) struct OperationProgressView {
    /// All of them.
    total: u32,
    /// Those for which it worked.
    done: u32,
    /// Those for which it did not.
    failed: u32,
    /// Those that were left out: they vanished, or the operation was cancelled before.
    skipped: u32,
}

/// In which order nodes are worked on, and how many at once.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "AppliedStrategy")]
pub(crate) struct StrategyView {
    /// How many nodes may be out of use at once, as a number or a share such as `25%`; null: any number.
    max_unavailable: Option<String>,
    /// The same for each zone by itself.
    max_unavailable_per_zone: Option<String>,
    /// How many nodes are worked on at once.
    max_concurrent: u32,
    /// `as_given`, `by_zone` or `least_pods_first`.
    order: String,
    /// How long it waits between the beginnings of two nodes.
    pause_between_seconds: u64,
    /// How many nodes may fail before it pauses; null: any number.
    max_failures: Option<String>,
    /// Whether drained nodes are made schedulable again: `never` or `on_ready`.
    uncordon_after: String,
}

/// A node of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "OperationTarget")]
pub(crate) struct OperationTargetView {
    /// The cluster.
    cluster: String,
    /// The node.
    node: String,
    /// How far it is.
    state: TargetStateView,
    /// Why it is so, or what is waited for; null where that is plain.
    message: Option<String>,
    /// When it was begun, RFC 3339 in UTC; null if it was not.
    started_at: Option<String>,
    /// When it ended, RFC 3339 in UTC; null if it did not.
    ended_at: Option<String>,
    /// The id of its record in the audit log; null before it is begun.
    audit_id: Option<String>,
    /// The id of the hold that was made for it; null if there is none.
    hold_id: Option<String>,
    /// How far its drain is; null if it is not drained, or not yet.
    drain: Option<DrainProgressView>,
}

/// How far a node of an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[oai(rename = "OperationTargetState", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(crate) enum TargetStateView {
    /// Not begun.
    Waiting,
    /// Under way.
    Running,
    /// It worked.
    Succeeded,
    /// It did not work.
    Failed,
    /// The node vanished.
    Skipped,
    /// The operation was cancelled before it was done.
    Cancelled,
}

/// How far the drain of a node is.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "DrainProgress")]
pub(crate) struct DrainProgressView {
    /// What is being done.
    phase: DrainPhaseView,
    /// When its time is up, RFC 3339 in UTC; null if it has all the time.
    deadline: Option<String>,
    /// Whether the time was up and what was left is deleted.
    forced: bool,
    /// What whoever waits should know; null if nothing.
    notice: Option<String>,
    /// What is lost or risked by it, one sentence each.
    warnings: Vec<String>,
    /// The pods that are or were to go.
    pods: Vec<DrainedPodView>,
}

/// What is being done to a node that is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[oai(rename = "DrainPhase", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(crate) enum DrainPhaseView {
    /// It is looked whether all pods may be removed.
    Planning,
    /// The node is held.
    Cordoning,
    /// Pods are removed, or go.
    Removing,
    /// All pods are gone; volumes are waited for.
    Detaching,
    /// It is drained, and made schedulable again when it is ready.
    Returning,
}

/// A pod that is or was to go.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "DrainedPod")]
pub(crate) struct DrainedPodView {
    /// Its namespace.
    namespace: String,
    /// Its name.
    name: String,
    /// The cluster's own id of it.
    uid: String,
    /// How far it is.
    state: PodProgressView,
    /// Since when, RFC 3339 in UTC.
    since: String,
    /// The same as a sentence, in the cluster's words where it said something.
    reason: String,
    /// The name of the disruption budget that blocks it; null if none does.
    disruption_budget: Option<String>,
    /// When it is asked to go again at the earliest, RFC 3339 in UTC; null if that does not matter.
    retry_at: Option<String>,
    /// By when it should be gone, RFC 3339 in UTC; null unless it is on its way out.
    terminating_until: Option<String>,
}

/// How far a pod is that is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[oai(rename = "DrainedPodState", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(crate) enum PodProgressView {
    /// It was not asked to go yet, or will be asked again.
    Waiting,
    /// A disruption budget has no room for it.
    Blocked,
    /// It is on its way out.
    Terminating,
    /// It cannot be found any more.
    Gone,
    /// It stays, and nobody minds.
    Passed,
    /// It cannot be removed.
    Failed,
}

impl TargetsBody {
    pub(crate) fn request(self, cluster: String) -> TargetRequest {
        TargetRequest {
            cluster,
            nodes: self.nodes,
            label_selector: self.label_selector,
        }
    }
}

impl ClusterTargetsBody {
    pub(crate) fn request(self) -> TargetRequest {
        TargetRequest {
            cluster: self.cluster,
            nodes: self.nodes,
            label_selector: self.label_selector,
        }
    }
}

impl StrategyBody {
    pub(crate) fn raw(&self) -> RawStrategy {
        RawStrategy {
            max_unavailable: share(self.max_unavailable.as_ref()),
            max_unavailable_per_zone: share(self.max_unavailable_per_zone.as_ref()),
            max_concurrent: self.max_concurrent,
            order: self.order.clone(),
            pause_between_seconds: self.pause_between_seconds,
            max_failures: share(self.max_failures.as_ref()),
            uncordon_after: self.uncordon_after.clone(),
        }
    }
}

/// A share as a text; what is neither a number nor a text is refused with it.
fn share(given: Option<&Value>) -> Option<String> {
    match given? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

impl OperationListView {
    pub(crate) fn of(page: &OperationPage) -> Self {
        let items = page.operations.iter();
        Self {
            items: items
                .map(|(operation, eta)| OperationSummaryView::of(operation, *eta))
                .collect(),
            next_cursor: page.next.map(|id| id.to_string()),
        }
    }
}

impl OperationView {
    pub(crate) fn of(shown: &OperationShown) -> Self {
        Self {
            summary: OperationSummaryView::of(&shown.operation, shown.eta_seconds),
            targets: shown.targets.iter().map(OperationTargetView::of).collect(),
        }
    }
}

impl OperationSummaryView {
    fn of(operation: &Operation, eta_seconds: Option<u64>) -> Self {
        Self {
            id: operation.id.to_string(),
            kind: operation.kind.as_str().to_owned(),
            state: operation.state.into(),
            message: operation.message.clone(),
            progress: OperationProgressView::of(operation.progress),
            eta_seconds,
            actor: ActorView::of(&operation.actor),
            request_id: operation.request_id.clone(),
            reason: operation.reason.clone(),
            ticket: operation.ticket.clone(),
            options: operation.options.clone().into_iter().collect(),
            strategy: StrategyView::of(&operation.strategy),
            dry_run: operation.dry_run,
            retry_of: operation.retry_of.map(|id| id.to_string()),
            created_at: operation.created_at.to_string(),
            started_at: operation.started_at.map(|time| time.to_string()),
            ended_at: operation.ended_at.map(|time| time.to_string()),
        }
    }
}

impl From<OperationState> for OperationStateView {
    fn from(state: OperationState) -> Self {
        match state {
            OperationState::Queued => Self::Queued,
            OperationState::Running => Self::Running,
            OperationState::Paused => Self::Paused,
            OperationState::Cancelling => Self::Cancelling,
            OperationState::Cancelled => Self::Cancelled,
            OperationState::Succeeded => Self::Succeeded,
            OperationState::Failed => Self::Failed,
            OperationState::PartlyFailed => Self::PartlyFailed,
        }
    }
}

impl OperationProgressView {
    fn of(progress: OperationProgress) -> Self {
        Self {
            total: progress.total,
            done: progress.done,
            failed: progress.failed,
            skipped: progress.skipped,
        }
    }
}

impl StrategyView {
    fn of(strategy: &Strategy) -> Self {
        Self {
            max_unavailable: strategy.max_unavailable.map(|share| share.describe()),
            max_unavailable_per_zone: strategy.max_unavailable_per_zone.map(|share| share.describe()),
            max_concurrent: strategy.max_concurrent,
            order: strategy.order.as_str().to_owned(),
            pause_between_seconds: strategy.pause_between.as_secs(),
            max_failures: strategy.max_failures.map(|share| share.describe()),
            uncordon_after: strategy.uncordon_after.as_str().to_owned(),
        }
    }
}

impl OperationTargetView {
    fn of(target: &OperationTarget) -> Self {
        Self {
            cluster: target.cluster.to_string(),
            node: target.node.to_string(),
            state: match target.state {
                TargetState::Waiting => TargetStateView::Waiting,
                TargetState::Running => TargetStateView::Running,
                TargetState::Succeeded => TargetStateView::Succeeded,
                TargetState::Failed => TargetStateView::Failed,
                TargetState::Skipped => TargetStateView::Skipped,
                TargetState::Cancelled => TargetStateView::Cancelled,
            },
            message: target.message.clone(),
            started_at: target.started_at.map(|time| time.to_string()),
            ended_at: target.ended_at.map(|time| time.to_string()),
            audit_id: target.audit.map(|id| id.to_string()),
            hold_id: target.hold.map(|id| id.to_string()),
            drain: drain(&target.detail),
        }
    }
}

/// How far the drain is that is stored like this; `None` for anything else.
fn drain(detail: &TargetDetail) -> Option<DrainProgressView> {
    /// What every drain says of itself.
    #[derive(Deserialize)]
    struct Phased {
        #[serde(rename = "phase")]
        _phase: IgnoredAny,
    }
    detail.read::<Phased>()?;
    let progress: DrainProgress = detail.read()?;
    Some(DrainProgressView {
        phase: match progress.phase {
            DrainPhase::Planning => DrainPhaseView::Planning,
            DrainPhase::Cordoning => DrainPhaseView::Cordoning,
            DrainPhase::Removing => DrainPhaseView::Removing,
            DrainPhase::Detaching => DrainPhaseView::Detaching,
            DrainPhase::Returning => DrainPhaseView::Returning,
        },
        deadline: progress.deadline.map(|time| time.to_string()),
        forced: progress.forced,
        notice: progress.notice,
        warnings: progress.warnings,
        pods: progress.pods.iter().map(DrainedPodView::of).collect(),
    })
}

impl DrainedPodView {
    fn of(pod: &DrainedPod) -> Self {
        let (state, until) = match &pod.state {
            PodProgress::Waiting { .. } => (PodProgressView::Waiting, None),
            PodProgress::Blocked { .. } => (PodProgressView::Blocked, None),
            PodProgress::Terminating { until } => (PodProgressView::Terminating, *until),
            PodProgress::Gone => (PodProgressView::Gone, None),
            PodProgress::Passed { .. } => (PodProgressView::Passed, None),
            PodProgress::Failed { .. } => (PodProgressView::Failed, None),
        };
        Self {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            state,
            since: pod.since.to_string(),
            reason: pod.state.explanation(),
            disruption_budget: pod.state.budget().map(str::to_owned),
            retry_at: pod
                .retry_at
                .filter(|_| !pod.state.is_over())
                .map(|time| time.to_string()),
            terminating_until: until.map(|time| time.to_string()),
        }
    }
}
