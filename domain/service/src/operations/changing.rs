//! Steps of operations that change nodes and nothing else: labels, taints, cordons and uncordons.

use knm_model::{
    HOLDS_ANNOTATION, Hold, HoldChange, HoldRequest, HoldState, LabelChange, NodePatch, Operation, OperationTarget,
    TaintChange, TargetDetail, TargetState, Template, Timestamp, Work, before_change, difference_since,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::step::{Bench, TargetStep, asked, node_of};
use crate::changes::{
    Brought, ChangeError, HoldPlan, NodeChanged, Uncordon, apply_labels, apply_taints, apply_template,
};

/// What is stored of a node before it is changed: when a try is repeated that had worked, nothing else tells the difference.
#[derive(Serialize, Deserialize)]
struct Remembered {
    /// What stood there that is about to change.
    was: Map<String, Value>,
}

/// Remembers what stands on the node, as it is watched, in the step that writes the intent.
pub(super) fn remember(bench: &Bench, work: &Work, target: &mut OperationTarget) {
    let Ok(snapshot) = bench.inventory.snapshot(target.cluster.as_str()) else {
        return;
    };
    let Some(entry) = snapshot.find(target.node.as_str()) else {
        return;
    };
    let node = entry.node();
    let patch = match work {
        Work::Label(change) => change.patch(node),
        Work::Taint { change, .. } => change.patch(node),
        Work::ApplyTemplate { template, .. } => template.patch(node),
        Work::Cordon(_) | Work::Uncordon { .. } => NodePatch {
            annotations: [(HOLDS_ANNOTATION.to_owned(), None)].into(),
            schedulable: Some(!node.schedulable),
            ..NodePatch::default()
        },
        // It knows by itself how far it is.
        Work::Drain { .. } => return,
    };
    let was = before_change(&patch, node);
    if let Ok(detail) = TargetDetail::of(&Remembered { was }) {
        target.detail = detail;
    }
}

/// Changes the labels of a node.
pub(super) async fn label(
    bench: &Bench,
    operation: &Operation,
    change: &LabelChange,
    target: OperationTarget,
) -> TargetStep {
    let step = TargetStep::of(target);
    let outcome = match node_of(bench, &step.target) {
        Ok(node) => apply_labels(&node, change, &asked(operation)).await,
        Err(error) => Err(error),
    };
    let now = bench.clock.now();
    match outcome {
        Ok(changed) => succeeded(step, changed, bench),
        Err(error) => step.failed(&error, now),
    }
}

/// Changes the taints of a node.
pub(super) async fn taint(
    bench: &Bench,
    operation: &Operation,
    change: &TaintChange,
    confirm_no_execute: bool,
    target: OperationTarget,
) -> TargetStep {
    let step = TargetStep::of(target);
    let outcome = match node_of(bench, &step.target) {
        Ok(node) => apply_taints(&node, change, confirm_no_execute, &asked(operation)).await,
        Err(error) => Err(error),
    };
    let now = bench.clock.now();
    match outcome {
        Ok(changed) => succeeded(step, changed, bench),
        Err(error) => step.failed(&error, now),
    }
}

/// Gives a node what a template says.
pub(super) async fn apply(
    bench: &Bench,
    operation: &Operation,
    template: &Template,
    confirm_no_execute: bool,
    target: OperationTarget,
) -> TargetStep {
    let step = TargetStep::of(target);
    let outcome = match node_of(bench, &step.target) {
        Ok(node) => apply_template(&node, template, confirm_no_execute, &asked(operation)).await,
        Err(error) => Err(error),
    };
    let now = bench.clock.now();
    match outcome {
        Ok(changed) => succeeded(step, changed, bench),
        Err(error) => step.failed(&error, now),
    }
}

/// Holds a node: first the hold is stored, then it is brought onto the node.
pub(super) async fn cordon(
    bench: &Bench,
    operation: &Operation,
    request: &HoldRequest,
    target: OperationTarget,
) -> TargetStep {
    let step = TargetStep::of(target);
    match step.target.hold {
        None => plan_shared_hold(bench, operation, request, step).await,
        Some(_) => match bring(bench, operation, step, |_| request.until).await {
            Ok((step, changed)) => succeeded(step, changed, bench),
            Err(step) => step,
        },
    }
}

/// Releases holds of a node.
pub(super) async fn uncordon(bench: &Bench, operation: &Operation, force: bool, target: OperationTarget) -> TargetStep {
    let mut step = TargetStep::of(target);
    let request = Uncordon {
        reason: operation.reason.clone(),
        hold: None,
        force,
    };
    let outcome = match node_of(bench, &step.target) {
        Ok(node) => bench.changes.free(&node, &request, &asked(operation)).await,
        Err(error) => Err(error),
    };
    let now = bench.clock.now();
    match outcome {
        Ok((changed, released)) => {
            if !operation.dry_run {
                let ended = released.iter().map(|hold| (hold.id, HoldState::Ended));
                step.hold_states.extend(ended);
            }
            succeeded(step, changed, bench)
        }
        Err(error) => step.failed(&error, now),
    }
}

/// Works out a hold of its own for a node, which is stored with the step; the next step brings it onto the node.
pub(super) async fn plan_hold(
    bench: &Bench,
    operation: &Operation,
    request: &HoldRequest,
    step: TargetStep,
) -> TargetStep {
    let asked = asked(operation);
    let planned = match node_of(bench, &step.target) {
        Ok(node) => bench.changes.plan_own_hold(&node, request, &asked).await,
        Err(error) => Err(error),
    };
    take_plan(bench, operation, planned, step).await
}

/// The same with a hold that may be there already, and only gets another end then.
async fn plan_shared_hold(bench: &Bench, operation: &Operation, request: &HoldRequest, step: TargetStep) -> TargetStep {
    let asked = asked(operation);
    let planned = match node_of(bench, &step.target) {
        Ok(node) => bench.changes.plan_shared_hold(&node, request, &asked).await,
        Err(error) => Err(error),
    };
    take_plan(bench, operation, planned, step).await
}

/// Takes over what is to be stored of a plan; what is only tried out is done.
async fn take_plan(
    bench: &Bench,
    operation: &Operation,
    planned: Result<HoldPlan, ChangeError>,
    mut step: TargetStep,
) -> TargetStep {
    let outcome = async {
        let plan = planned?;
        if !operation.dry_run {
            return Ok((plan, None));
        }
        let node = node_of(bench, &step.target)?;
        let brought = bench.changes.bring_hold(&node, &plan, &asked(operation)).await?;
        Ok((plan, Some(brought)))
    };
    match outcome.await {
        Ok((_, Some(Some(brought)))) => succeeded(step, brought.changed, bench),
        Ok((_, Some(None))) => step.again("somebody released the hold meanwhile".to_owned(), bench.clock.now()),
        Ok((plan, None)) => {
            for over in &plan.over {
                let change = HoldChange::EndedOutside(Box::new(bench.changes.record_outside(over)));
                step.hold_changes.push((over.id, change));
            }
            step.target.hold = Some(plan.hold.id);
            step.holds.extend(plan.is_new().then_some(plan.hold));
            step
        }
        Err(error) => step.failed(&error, bench.clock.now()),
    }
}

/// Brings the hold of a node onto it; `Err` is what came of it if it did not work.
pub(super) async fn bring_hold(
    bench: &Bench,
    operation: &Operation,
    step: TargetStep,
) -> Result<(TargetStep, NodeChanged), TargetStep> {
    bring(bench, operation, step, |stored| stored.until).await
}

/// The same with the end that `until` makes of the stored hold.
async fn bring(
    bench: &Bench,
    operation: &Operation,
    mut step: TargetStep,
    until: impl Fn(&Hold) -> Option<Timestamp>,
) -> Result<(TargetStep, NodeChanged), TargetStep> {
    let asked = asked(operation);
    let id = step.target.hold.unwrap_or_default();
    let changes = &bench.changes;
    let mut was_active = false;
    let outcome = async {
        let node = node_of(bench, &step.target)?;
        if let Some(stored) = changes.find_hold(&node, id).await? {
            was_active = stored.state == HoldState::Active;
            let until = until(&stored);
            let plan = changes.plan_stored_hold(&node, stored, until, &asked).await?;
            if let Some(brought) = changes.bring_hold(&node, &plan, &asked).await?
                // Somebody may have ended it before it got onto the node.
                && changes.find_hold(&node, id).await?.is_some()
            {
                return Ok(Some(brought));
            }
        }
        changes.take_off(&node, id, &asked).await?;
        Ok(None)
    };
    let outcome: Result<Option<Brought>, ChangeError> = outcome.await;
    let now = bench.clock.now();
    match outcome {
        Ok(Some(brought)) => {
            step.hold_states.push((id, HoldState::Active));
            let changes = brought.changes().into_iter().map(|change| (id, change));
            step.hold_changes.extend(changes);
            Ok((step, brought.changed))
        }
        Ok(None) => {
            // Somebody released it, or it was given up as one whose maker is gone while the cluster was away: another one is made.
            step.target.hold = None;
            Err(step)
        }
        Err(error) => {
            let mut step = step.failed(&error, now);
            if step.target.state.is_ended() && !was_active {
                // It never got onto the node. One that was there before is somebody's who still wants it.
                step.hold_states.push((id, HoldState::Ended));
            }
            Err(step)
        }
    }
}

fn succeeded(mut step: TargetStep, changed: NodeChanged, bench: &Bench) -> TargetStep {
    let (before, after) = match step.target.detail.read::<Remembered>() {
        // A try before this one did it whose answer was lost, or who made it.
        Some(Remembered { was }) if changed.after.is_empty() => difference_since(&was, &changed.node),
        Some(_) | None => (changed.before, changed.after),
    };
    step.target.detail = TargetDetail::default();
    let message = after.is_empty().then(|| "nothing had to change".to_owned());
    step.end(TargetState::Succeeded, message, (before, after), bench.clock.now())
}
