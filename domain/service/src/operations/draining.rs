//! Steps of drains: hold the node, ask its pods to go, and look until they are gone.

mod asking;
mod looking;
mod telling;

use std::time::Duration;

use knm_model::{
    AfterDeadline, DrainOptions, DrainPhase, DrainPlan, DrainProgress, HoldRequest, HoldState, Node, NodeStatus,
    Operation, OperationTarget, Sight, Standing, TargetDetail, TargetState, Timestamp, UncordonAfter,
};
use knm_ports::chain;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::changing::{bring_hold, plan_hold};
use super::step::{Bench, Permit, TargetStep, asked, node_of};
use crate::changes::{ChangeError, Uncordon};
use crate::inventory::InventoryError;
use asking::{Asked, is_deletion};
use looking::not_told;
use telling::{listed, refusals};

/// How often it is looked whether a drained node is ready, or its volumes are detached.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What is told of a drain that a person stopped.
const UNCORDONED: &str = "somebody uncordoned the node, which stopped its drain";

/// What is stored of a node that is drained.
#[derive(Default, Serialize)]
struct Detail {
    #[serde(flatten)]
    progress: DrainProgress,
    #[serde(flatten)]
    node: NodeDetail,
}

/// What is stored of the node itself.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct NodeDetail {
    /// What changed on the node, as it was before and is now.
    before: Map<String, Value>,
    after: Map<String, Value>,
    /// Whether the hold was made for this drain.
    made_hold: bool,
}

impl Detail {
    /// Both are read by themselves: to read what is flattened, everything is copied first.
    fn of(target: &OperationTarget) -> Self {
        Self {
            progress: target.detail.read().unwrap_or_default(),
            node: target.detail.read().unwrap_or_default(),
        }
    }
}

/// A step of a drain.
struct Drain<'a> {
    bench: &'a Bench,
    operation: &'a Operation,
    options: &'a DrainOptions,
    step: TargetStep,
    detail: Detail,
    permit: Permit,
    now: Timestamp,
}

/// Does the next step of a drain.
pub(super) async fn drain(
    bench: &Bench,
    operation: &Operation,
    (options, hold): (&DrainOptions, &HoldRequest),
    target: OperationTarget,
    permit: Permit,
) -> TargetStep {
    let detail = Detail::of(&target);
    let drain = Drain {
        bench,
        operation,
        options,
        step: TargetStep::of(target),
        detail,
        permit,
        now: bench.clock.now(),
    };
    match drain.detail.progress.phase {
        DrainPhase::Planning => drain.plan(hold).await,
        DrainPhase::Cordoning => drain.cordon().await,
        DrainPhase::Removing => drain.remove().await,
        DrainPhase::Detaching => drain.detach().await,
        DrainPhase::Returning => drain.give_back().await,
    }
}

/// How many pods of a node are on their way out, as far as is stored.
pub(super) fn leaving(target: &OperationTarget) -> usize {
    Detail::of(target).progress.leaving()
}

/// Stops the drain of a node because its operation was cancelled.
pub(super) async fn cancel(bench: &Bench, operation: &Operation, restore: bool, target: OperationTarget) -> TargetStep {
    let Detail { progress, node } = Detail::of(&target);
    let mut step = TargetStep::of(target);
    let now = bench.clock.now();
    if step.target.hold.is_none() {
        let message = "the operation was cancelled before anything was changed".to_owned();
        return step.end(TargetState::Cancelled, Some(message), (node.before, node.after), now);
    }
    // A hold that nobody brought onto its node would help nobody.
    let is_held = progress.phase != DrainPhase::Cordoning;
    let gives_back = node.made_hold && (restore || !is_held);
    if !gives_back {
        let message = "the operation was cancelled; the node stays cordoned".to_owned();
        return step.end(TargetState::Cancelled, Some(message), (node.before, node.after), now);
    }
    let message = match release(bench, operation, &mut step).await {
        Ok(Release {
            is_schedulable: Some(false),
        }) => "the operation was cancelled; the node stays cordoned, as it was before or as others want it",
        Ok(Release { .. }) => "the operation was cancelled; the node is as schedulable as before",
        Err(ChangeError::Inventory(InventoryError::UnknownCluster { .. })) => {
            "the operation was cancelled; its cluster is not known any more, so the node was left as it is"
        }
        Err(error) => return step.again(chain(&error), now),
    };
    let done = node.without_hold();
    step.end(
        TargetState::Cancelled,
        Some(message.to_owned()),
        done,
        bench.clock.now(),
    )
}

/// What became of a node whose hold was taken off.
struct Release {
    /// Whether pods may be put onto it now; `None` if that was not asked, because there was nothing to take off.
    is_schedulable: Option<bool>,
}

/// Takes the hold of a drain off its node.
async fn release(bench: &Bench, operation: &Operation, step: &mut TargetStep) -> Result<Release, ChangeError> {
    let request = Uncordon {
        reason: operation.reason.clone(),
        hold: step.target.hold,
        force: false,
    };
    let node = node_of(bench, &step.target)?;
    let (over, is_schedulable) = match bench.changes.free(&node, &request, &asked(operation)).await {
        Ok((changed, released)) => {
            let ids = released.iter().map(|hold| hold.id).collect();
            (ids, Some(changed.node.schedulable))
        }
        // Somebody released it, or the node is gone: there is nothing to take off.
        Err(ChangeError::UnknownHold { .. } | ChangeError::Inventory(InventoryError::UnknownNode { .. })) => {
            (Vec::from_iter(step.target.hold), None)
        }
        Err(error) => return Err(error),
    };
    step.hold_states
        .extend(over.into_iter().map(|id| (id, HoldState::Ended)));
    Ok(Release { is_schedulable })
}

impl NodeDetail {
    /// What is different on the node without the hold, which is nothing, and what was done to its pods.
    fn without_hold(self) -> (Map<String, Value>, Map<String, Value>) {
        let only_pods = |changed: Map<String, Value>| changed.into_iter().filter(|(key, _)| is_deletion(key)).collect();
        (only_pods(self.before), only_pods(self.after))
    }
}

impl Drain<'_> {
    /// Looks whether all pods may be removed before anything is changed.
    async fn plan(mut self, hold: &HoldRequest) -> TargetStep {
        // Before any pod is asked to go it is looked again; after a dry run it is not.
        let sight = match self.operation.dry_run {
            true => Sight::Certain,
            false => Sight::Recent,
        };
        let (inventory, cluster) = (&self.bench.inventory, self.step.target.cluster.as_str());
        if let Err(error) = inventory.check_features(cluster, self.options.features()).await {
            return self.failed(&error.into());
        }
        let (node, plan) = match self.look(sight).await {
            Ok(Some(seen)) => seen,
            Ok(None) => return self.vanished(),
            // Nothing was changed: what will not work the next time either is told at once.
            Err(error) => return self.failed(&error),
        };
        if let Some(message) = refusals(&plan, false) {
            return self.end(TargetState::Failed, message);
        }
        self.detail.progress.warnings = self.warnings(&node, &plan);
        if self.operation.dry_run {
            return self.tell_what_would_be(&plan);
        }
        if self.step.target.hold.is_none() {
            self.step = plan_hold(self.bench, self.operation, hold, self.step).await;
            if self.step.target.hold.is_none() || self.step.target.state.is_ended() {
                return self.step;
            }
            self.detail.node.made_hold = !self.step.holds.is_empty();
        }
        self.detail.progress.phase = DrainPhase::Cordoning;
        self.rest(Duration::ZERO)
    }

    fn tell_what_would_be(self, plan: &DrainPlan) -> TargetStep {
        let totals = plan.totals();
        let message = format!(
            "{} pods would be removed: {} at once, {} later, {} wait for something else, {} can never be; {} would stay",
            totals.evict, totals.at_once, totals.later, totals.blocked, totals.never, totals.skip
        );
        let state = match totals.never {
            0 => TargetState::Succeeded,
            _ => TargetState::Failed,
        };
        self.end(state, message)
    }

    /// Holds the node. While that does not work no pod is asked to go.
    async fn cordon(mut self) -> TargetStep {
        match bring_hold(self.bench, self.operation, self.step).await {
            Ok((step, changed)) => {
                self.step = step;
                self.detail.node.before = changed.before;
                self.detail.node.after = changed.after;
                self.detail.progress.phase = DrainPhase::Removing;
                self.detail.progress.deadline = self.options.timeout.map(|timeout| self.now.plus(timeout));
                self.step.target.message = None;
                self.rest(Duration::ZERO)
            }
            Err(step) if step.target.hold.is_none() => {
                self.step = step;
                self.detail.progress.phase = DrainPhase::Planning;
                self.rest(Duration::ZERO)
            }
            Err(step) => step,
        }
    }

    /// Asks pods to go, and looks whether they are gone.
    async fn remove(mut self) -> TargetStep {
        if self.permit.is_first {
            self.detail.progress.take_up(self.options.timeout, self.now);
        }
        // One that came just before the node was cordoned may not be watched yet, and it may be one that must not be removed.
        let sight = match self.detail.progress.looked {
            true => Sight::Recent,
            false => Sight::Certain,
        };
        let (node, plan) = match self.look(sight).await {
            Ok(Some(seen)) => seen,
            Ok(None) => return self.vanished(),
            Err(error) => return self.later(&error),
        };
        if let Some(message) = self.stopped_by_somebody(&node).await {
            return self.end(TargetState::Failed, message);
        }
        let has_begun = self.detail.progress.looked;
        if let Some(message) = refusals(&plan, has_begun).filter(|_| !self.detail.progress.forced) {
            return self.end(TargetState::Failed, message);
        }
        let before = self.detail.progress.notice.clone();
        let looked = self.detail.progress.look(&plan, sight, self.now);
        self.tell(&looked);
        if self.detail.progress.is_late(self.now) && !self.detail.progress.left().is_empty() {
            return match (self.options.after_deadline, self.detail.progress.forced) {
                (AfterDeadline::Force, false) => self.force(),
                (AfterDeadline::Fail, _) | (AfterDeadline::Force, true) => self.give_up(),
            };
        }
        if let Asked::ToBeStored = self.ask_to_go(&plan).await {
            return self.rest(Duration::ZERO);
        }
        self.detail.progress.notice = self.notice(&node);
        let place = (self.operation.id, self.step.target.place);
        self.bench.blocks.note(place, self.blocked());
        match self.detail.progress.standing() {
            Standing::Under => {
                let rest = self.detail.progress.rest(self.now);
                self.step.target.message = self.summary();
                if self.detail.progress.notice != before {
                    self.tell_of_node();
                }
                self.rest(rest)
            }
            Standing::Stuck(left) => match self.detail.progress.deadline {
                Some(deadline)
                    if self.options.after_deadline == AfterDeadline::Force && !self.detail.progress.forced =>
                {
                    let rest = self.detail.progress.rest(self.now);
                    self.wait(format!(
                        "pods cannot be evicted and are deleted at {}: {}",
                        deadline.to_whole_seconds(),
                        listed(&left)
                    ));
                    self.rest(rest)
                }
                Some(_) | None => {
                    let message = format!("pods cannot be removed: {}", listed(&left));
                    self.end(TargetState::Failed, message)
                }
            },
            Standing::Drained => self.make_sure().await,
        }
    }

    /// The time is up: what is left is deleted from the next step on. Until then it is only noted, so that the audit log knows of it whatever
    /// happens.
    fn force(mut self) -> TargetStep {
        let deadline = self.options.timeout.map(|timeout| self.now.plus(timeout));
        let deleted = self.detail.progress.force(self.now, deadline);
        self.note_deleted(deleted);
        self.rest(Duration::ZERO)
    }

    /// The time is up.
    fn give_up(self) -> TargetStep {
        let message = format!(
            "the time is up, and pods are left: {}",
            listed(&self.detail.progress.left())
        );
        self.end(TargetState::Failed, message)
    }

    /// Why the drain does not go on, if somebody wants the node back.
    async fn stopped_by_somebody(&self, node: &Node) -> Option<String> {
        if node.schedulable {
            return Some(UNCORDONED.to_owned());
        }
        let hold = self.step.target.hold?;
        let mut noted = node.cordon.iter().flat_map(|cordon| &cordon.holds);
        if noted.any(|noted| noted.id == Some(hold)) {
            return None;
        }
        // Somebody edited the annotation, what is watched is old, or the hold was released while others stay.
        let target = node_of(self.bench, &self.step.target).ok()?;
        let stored = self.bench.changes.find_hold(&target, hold).await;
        matches!(stored, Ok(None)).then(|| "somebody released the hold of the drain, which stopped it".to_owned())
    }

    /// No pod that was to go was there a moment ago: the node is drained if that is so now.
    async fn make_sure(mut self) -> TargetStep {
        let (node, plan) = match self.look(Sight::Certain).await {
            Ok(Some(seen)) => seen,
            Ok(None) => return self.vanished(),
            Err(error) => return self.later(&error),
        };
        if node.schedulable {
            return self.end(TargetState::Failed, UNCORDONED.to_owned());
        }
        self.now = self.bench.clock.now();
        let looked = self.detail.progress.look(&plan, Sight::Certain, self.now);
        self.tell(&looked);
        match self.detail.progress.standing() {
            Standing::Under | Standing::Stuck(_) => {
                let rest = self.detail.progress.rest(self.now);
                self.step.target.message = self.summary();
                self.rest(rest)
            }
            Standing::Drained => {
                self.step.target.message = None;
                self.detail.progress.phase = DrainPhase::Detaching;
                self.detach().await
            }
        }
    }

    /// Waits for the node's volumes if that is asked for.
    async fn detach(mut self) -> TargetStep {
        if self.permit.is_first {
            self.detail.progress.take_up(self.options.timeout, self.now);
        }
        if self.options.wait_for_volume_detach {
            let target = match node_of(self.bench, &self.step.target) {
                Ok(target) => target,
                Err(error) => return self.later(&error),
            };
            let looked = tokio::try_join!(
                self.node(&target),
                target.cluster.gateway.attached_volumes(&target.name)
            );
            let (node, attached) = match looked {
                Ok((Some(node), attached)) => (node, attached),
                Ok((None, _)) => return self.vanished(),
                Err(source) => return self.later(&not_told(&target, source)),
            };
            if node.schedulable {
                return self.end(TargetState::Failed, UNCORDONED.to_owned());
            }
            if !attached.is_empty() {
                let message = format!("the pods are gone; volumes are still attached: {}", listed(&attached));
                if self.detail.progress.is_late(self.now) {
                    return self.end(TargetState::Failed, format!("the time is up: {message}"));
                }
                self.wait(message);
                return self.rest(LOOK_EVERY);
            }
        }
        if self.operation.strategy.uncordon_after == UncordonAfter::OnReady {
            self.detail.progress.phase = DrainPhase::Returning;
            return self.give_back().await;
        }
        let message = format!("drained: {} pods are gone", self.gone());
        self.end(TargetState::Succeeded, message)
    }

    /// Makes the node schedulable again as soon as it is ready.
    async fn give_back(mut self) -> TargetStep {
        let target = match node_of(self.bench, &self.step.target) {
            Ok(target) => target,
            Err(error) => return self.later(&error),
        };
        match target.cluster.gateway.node(&target.name).await {
            Ok(None) => return self.vanished(),
            Ok(Some(node)) if node.status == NodeStatus::Ready => {}
            Ok(Some(_)) => {
                self.wait("drained; it is uncordoned when it is ready".to_owned());
                return self.rest(LOOK_EVERY);
            }
            Err(source) => return self.later(&not_told(&target, source)),
        }
        let gone = self.gone();
        let message = match release(self.bench, self.operation, &mut self.step).await {
            Ok(Release {
                is_schedulable: Some(false),
            }) => {
                format!("drained: {gone} pods are gone; the node stays cordoned, as it was before or as others want it")
            }
            Ok(Release { .. }) => format!("drained and given back: {gone} pods are gone"),
            Err(error) => return self.later(&error),
        };
        let changed = std::mem::take(&mut self.detail.node).without_hold();
        (self.detail.node.before, self.detail.node.after) = changed;
        self.end(TargetState::Succeeded, message)
    }

    fn failed(self, error: &ChangeError) -> TargetStep {
        let now = self.now;
        self.stored().failed(error, now)
    }

    fn vanished(self) -> TargetStep {
        self.end(TargetState::Skipped, "the node is gone".to_owned())
    }

    /// The cluster could not be asked, which takes time from the drain like everything else.
    fn later(self, error: &ChangeError) -> TargetStep {
        let message = format!("the cluster could not be asked and is asked again: {}", chain(error));
        // Whatever becomes of a node that is drained, it is drained.
        let is_drained = self.detail.progress.phase == DrainPhase::Returning;
        if self.detail.progress.is_late(self.now) && !is_drained {
            return self.end(TargetState::Failed, format!("the time is up: {message}"));
        }
        let now = self.now;
        self.stored().again(message, now)
    }

    fn rest(self, rest: Duration) -> TargetStep {
        let mut step = self.stored();
        step.rest = rest;
        step
    }

    fn end(self, state: TargetState, message: String) -> TargetStep {
        let now = self.now;
        let changed = (self.detail.node.before.clone(), self.detail.node.after.clone());
        let place = (self.operation.id, self.step.target.place);
        self.bench.leaving.forget(place);
        self.bench.blocks.note(place, None);
        self.stored().end(state, Some(message), changed, now)
    }

    /// The step with what is to be stored of the drain.
    fn stored(mut self) -> TargetStep {
        if let Ok(detail) = TargetDetail::of(&self.detail) {
            self.step.target.detail = detail;
        }
        self.step
    }
}
