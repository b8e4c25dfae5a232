//! What a drain would do.

use std::collections::BTreeMap;

use knm_domain::DrainPreview;
use knm_model::{
    Barrier, Decision, DrainTotals, Fit, NOT_CONSIDERED, Placement, PlannedBudget, PlannedPod, Turn, UnhealthyPods,
    Warning,
};
use poem_openapi::{Enum, Object};
use serde::Serialize;

use super::pod::{ControllerView, PodPhaseView, PodRequestsView};

/// What a drain would do to a node.
#[derive(Clone, Debug, Serialize, Object)]
#[oai(rename = "DrainPlan")]
pub(crate) struct DrainPlanView {
    /// The cluster.
    cluster: String,
    /// The node.
    node: String,
    /// When the cluster was asked, RFC 3339 in UTC.
    as_of: String,
    /// Whether a pod may not be removed under these options: then none is.
    refused: bool,
    /// All pods of the node, sorted by namespace and name.
    pods: Vec<PlannedPodView>,
    /// The disruption budgets that match pods to be removed, sorted by namespace and name.
    disruption_budgets: Vec<PlannedBudgetView>,
    /// Where the removed pods could go.
    fit: FitView,
    /// Sums over the pods.
    totals: DrainTotalsView,
    /// What to know besides.
    warnings: Vec<String>,
}

/// What becomes of a pod.
#[derive(Clone, Debug, Serialize, Object)]
#[oai(rename = "PlannedPod")]
struct PlannedPodView {
    /// Its namespace.
    namespace: String,
    /// Its name.
    name: String,
    /// The cluster's own id of this pod.
    uid: String,
    /// How far it is in its life.
    phase: PodPhaseView,
    /// The owner that manages it; null if nobody does.
    controller: Option<ControllerView>,
    /// What it asks of a node.
    requests: PodRequestsView,
    /// The name of its priority class; null if it has none.
    priority_class: Option<String>,
    /// When its deletion was asked for, RFC 3339 in UTC; null unless it was.
    terminating_since: Option<String>,
    /// What is done about it.
    decision: DecisionView,
    /// The rule that decided, in snake case.
    rule: String,
    /// The same as a sentence; of a refusal, with the option that lifts it.
    reason: String,
    /// What is lost with it.
    warnings: Vec<PodWarningView>,
    /// Its place in `order`, counted from 0.
    tier: usize,
    /// The names of the disruption budgets in its namespace that protect it, sorted.
    disruption_budgets: Vec<String>,
    /// When it can be removed; null unless it is to be.
    turn: Option<TurnView>,
}

/// What is done about a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[oai(rename = "DrainDecision", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum DecisionView {
    /// It is removed.
    Evict,
    /// It stays, and the drain does not mind.
    Skip,
    /// It may not be removed, so none of the node's pods is.
    Refuse,
    /// It goes by itself: the drain waits for that.
    Wait,
}

/// What is lost with a pod that is removed.
#[derive(Clone, Debug, Serialize, Object)]
#[oai(rename = "PodWarning")]
struct PodWarningView {
    /// In snake case.
    kind: String,
    /// As a sentence.
    message: String,
}

/// When a pod can be removed.
#[derive(Clone, Debug, Serialize, Object)]
#[oai(rename = "EvictionTurn")]
struct TurnView {
    /// Whether it can be at all.
    state: TurnStateView,
    /// The round in which it can, counted from 1; null if it cannot. A round begins when the pods of the one before are replaced.
    round: Option<u32>,
    /// What stands in the way, in snake case: `no_room`, `closed`, `several_budgets` or `earlier_tier`; null if nothing does.
    barrier: Option<String>,
    /// The same as a sentence.
    reason: Option<String>,
}

/// Whether a pod can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[oai(rename = "EvictionTurnState", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum TurnStateView {
    /// At once.
    Now,
    /// After the pods of earlier rounds.
    Later,
    /// Not before something else happens.
    Blocked,
    /// Not until somebody changes a disruption budget or the number of pods.
    Never,
}

/// A disruption budget that matches pods to be removed.
#[derive(Clone, Debug, Serialize, Object)]
#[oai(rename = "PlannedDisruptionBudget")]
struct PlannedBudgetView {
    /// Its namespace.
    namespace: String,
    /// Its name.
    name: String,
    /// How many pods to be removed it matches.
    pods: usize,
    /// How many of its pods may be evicted now.
    disruptions_allowed: u32,
    /// How many of its pods are healthy.
    current_healthy: u32,
    /// How many must be.
    desired_healthy: u32,
    /// How many pods it counts.
    expected_pods: u32,
    /// Whether it allows nothing, ever: as many pods must be healthy as there are.
    closed: bool,
    /// Which of its pods that are not ready may be evicted.
    unhealthy_pods: UnhealthyPodsView,
}

/// When a disruption budget lets go of pods that are not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[oai(rename = "UnhealthyPods", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum UnhealthyPodsView {
    /// While as many pods are healthy as must be.
    IfHealthyBudget,
    /// Always.
    AlwaysAllow,
}

/// Where the removed pods could go. This is an estimate: only the scheduler knows.
#[derive(Clone, Debug, Serialize, Object)]
#[oai(rename = "DrainFit")]
struct FitView {
    /// Whether there is an estimate.
    estimated: bool,
    /// Why there is none; null if there is one.
    reason: Option<String>,
    /// How many nodes there are to choose from: ready, schedulable and not the drained one. Null if there is no estimate.
    nodes: Option<usize>,
    /// How many pods have no place; null if there is no estimate.
    homeless: Option<usize>,
    /// The pods that are started again elsewhere, each on the first node with room for it, in the order of their evictions.
    placements: Vec<PlacementView>,
    /// What the scheduler looks at and this estimate does not.
    not_considered: Vec<String>,
}

/// Where a pod could go.
#[derive(Clone, Debug, Serialize, Object)]
#[oai(rename = "PodPlacement")]
struct PlacementView {
    /// The pod's namespace.
    namespace: String,
    /// The pod's name.
    name: String,
    /// A node with room for it, given the pods before it; null if there is none.
    node: Option<String>,
    /// If there is none: what stands in the way, and on how many nodes.
    obstacles: BTreeMap<String, usize>,
}

/// Sums over the pods of a plan.
#[derive(Clone, Debug, Serialize, Object)]
#[oai(rename = "DrainTotals")]
struct DrainTotalsView {
    /// All pods of the node.
    pods: usize,
    /// Those that are to be removed.
    evict: usize,
    /// Those that stay.
    skip: usize,
    /// Those that stand in the way.
    refuse: usize,
    /// Those that go by themselves.
    wait: usize,
    /// Of those to be removed: can go at once.
    now: usize,
    /// Of those to be removed: can go in a later round.
    later: usize,
    /// Of those to be removed: wait for something else.
    blocked: usize,
    /// Of those to be removed: cannot go.
    never: usize,
    /// How many rounds there are.
    rounds: u32,
    /// What those to be removed ask for together.
    requests: PodRequestsView,
}

impl DrainPlanView {
    pub(crate) fn of(preview: &DrainPreview) -> Self {
        Self {
            cluster: preview.cluster.to_string(),
            node: preview.node.name.to_string(),
            as_of: preview.as_of.to_string(),
            refused: preview.plan.is_refused(),
            pods: preview.plan.pods().iter().map(PlannedPodView::of).collect(),
            disruption_budgets: preview.plan.budgets().iter().map(PlannedBudgetView::of).collect(),
            fit: FitView::of(&preview.fit),
            totals: DrainTotalsView::of(&preview.plan.totals()),
            warnings: preview.warnings.clone(),
        }
    }
}

impl PlannedPodView {
    fn of(planned: &PlannedPod) -> Self {
        let (pod, verdict) = (&planned.pod, &planned.verdict);
        Self {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            phase: PodPhaseView::of(pod.phase),
            controller: pod.controller.as_ref().map(ControllerView::of),
            requests: PodRequestsView::of(&pod.requests),
            priority_class: pod.priority_class.clone(),
            terminating_since: pod.deletion_asked_at().map(|time| time.to_string()),
            decision: match verdict.decision() {
                Decision::Evict => DecisionView::Evict,
                Decision::Skip => DecisionView::Skip,
                Decision::Refuse => DecisionView::Refuse,
                Decision::Wait => DecisionView::Wait,
            },
            rule: verdict.rule.as_str().to_owned(),
            reason: verdict.rule.explanation().to_owned(),
            warnings: verdict.warnings.iter().map(PodWarningView::of).collect(),
            tier: planned.tier,
            disruption_budgets: planned.budgets.clone(),
            turn: planned.turn.as_ref().map(TurnView::of),
        }
    }
}

impl PodWarningView {
    fn of(warning: &Warning) -> Self {
        Self {
            kind: warning.as_str().to_owned(),
            message: warning.explanation().to_owned(),
        }
    }
}

impl TurnView {
    fn of(turn: &Turn) -> Self {
        let (state, round, barrier) = match turn {
            Turn::Round(1) => (TurnStateView::Now, Some(1), None),
            Turn::Round(round) => (TurnStateView::Later, Some(*round), None),
            Turn::Blocked(barrier) => (TurnStateView::Blocked, None, Some(barrier)),
            Turn::Never(barrier) => (TurnStateView::Never, None, Some(barrier)),
        };
        Self {
            state,
            round,
            barrier: barrier.map(|barrier| barrier.as_str().to_owned()),
            reason: barrier.map(Barrier::explanation),
        }
    }
}

impl PlannedBudgetView {
    fn of(planned: &PlannedBudget) -> Self {
        let budget = &planned.budget;
        Self {
            namespace: budget.namespace.clone(),
            name: budget.name.clone(),
            pods: planned.pods,
            disruptions_allowed: budget.disruptions_allowed,
            current_healthy: budget.current_healthy,
            desired_healthy: budget.desired_healthy,
            expected_pods: budget.expected_pods,
            closed: budget.is_closed(),
            unhealthy_pods: match budget.unhealthy_pods {
                UnhealthyPods::IfHealthyBudget => UnhealthyPodsView::IfHealthyBudget,
                UnhealthyPods::AlwaysAllow => UnhealthyPodsView::AlwaysAllow,
            },
        }
    }
}

impl FitView {
    fn of(fit: &Fit) -> Self {
        let not_considered = NOT_CONSIDERED.map(str::to_owned).into();
        match fit {
            Fit::Estimated { placements, nodes } => Self {
                estimated: true,
                reason: None,
                nodes: Some(*nodes),
                homeless: Some(placements.iter().filter(|placement| placement.node.is_none()).count()),
                placements: placements.iter().map(PlacementView::of).collect(),
                not_considered,
            },
            Fit::NotEstimated { reason } => Self {
                estimated: false,
                reason: Some(reason.clone()),
                nodes: None,
                homeless: None,
                placements: Vec::new(),
                not_considered,
            },
        }
    }
}

impl PlacementView {
    fn of(placement: &Placement) -> Self {
        let obstacles = placement.obstacles.iter();
        Self {
            namespace: placement.pod.namespace.clone(),
            name: placement.pod.name.clone(),
            node: placement.node.as_ref().map(ToString::to_string),
            obstacles: obstacles
                .map(|(obstacle, nodes)| (obstacle.describe(), *nodes))
                .collect(),
        }
    }
}

impl DrainTotalsView {
    fn of(totals: &DrainTotals) -> Self {
        Self {
            pods: totals.pods,
            evict: totals.evict,
            skip: totals.skip,
            refuse: totals.refuse,
            wait: totals.wait,
            now: totals.at_once,
            later: totals.later,
            blocked: totals.blocked,
            never: totals.never,
            rounds: totals.rounds,
            requests: PodRequestsView::of(&totals.requests),
        }
    }
}
