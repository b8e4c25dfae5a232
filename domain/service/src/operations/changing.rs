//! Steps of operations that change nodes and nothing else: labels, taints, cordons and uncordons.

use knm_model::{HoldRequest, HoldState, LabelChange, Operation, OperationTarget, TaintChange, TargetState, Template};

use super::step::{Bench, TargetStep, asked, node_of};
use crate::changes::{NodeChanged, Uncordon, apply_labels, apply_taints, apply_template};

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
        None => plan_hold(bench, operation, request, step).await,
        Some(_) => match bring_hold(bench, operation, step).await {
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

/// Works out the hold of a node, which is stored with the step; the next step brings it onto the node.
pub(super) async fn plan_hold(
    bench: &Bench,
    operation: &Operation,
    request: &HoldRequest,
    mut step: TargetStep,
) -> TargetStep {
    let asked = asked(operation);
    let outcome = async {
        let node = node_of(bench, &step.target)?;
        let plan = bench.changes.plan_hold(&node, request, &asked).await?;
        if operation.dry_run {
            let changed = bench.changes.bring_hold(&node, &plan, &asked).await?;
            return Ok((plan, Some(changed)));
        }
        bench.changes.end_before(&node, &plan).await?;
        if !plan.is_new {
            bench.changes.prolong(&plan.hold).await?;
        }
        Ok((plan, None))
    };
    match outcome.await {
        Ok((_, Some(changed))) => succeeded(step, changed, bench),
        Ok((plan, None)) => {
            step.target.hold = Some(plan.hold.id);
            step.holds.extend(plan.is_new.then_some(plan.hold));
            step
        }
        Err(error) => step.failed(&error, bench.clock.now()),
    }
}

/// Brings the hold of a node onto it; `Err` is what came of it if it did not work.
pub(super) async fn bring_hold(
    bench: &Bench,
    operation: &Operation,
    mut step: TargetStep,
) -> Result<(TargetStep, NodeChanged), TargetStep> {
    let asked = asked(operation);
    let outcome = async {
        let node = node_of(bench, &step.target)?;
        let id = step.target.hold.unwrap_or_default();
        let Some(plan) = bench.changes.stored_hold(&node, id, &asked).await? else {
            return Ok(None);
        };
        bench.changes.bring_hold(&node, &plan, &asked).await.map(Some)
    };
    let now = bench.clock.now();
    match outcome.await {
        Ok(Some(changed)) => {
            step.hold_states
                .extend(step.target.hold.map(|id| (id, HoldState::Active)));
            Ok((step, changed))
        }
        Ok(None) => {
            // While the cluster was away the hold was given up as one whose maker is gone: another one is made.
            step.target.hold = None;
            Err(step)
        }
        Err(error) => {
            let mut step = step.failed(&error, now);
            if step.target.state.is_ended() {
                // It never got onto the node.
                step.hold_states
                    .extend(step.target.hold.map(|id| (id, HoldState::Ended)));
            }
            Err(step)
        }
    }
}

fn succeeded(step: TargetStep, changed: NodeChanged, bench: &Bench) -> TargetStep {
    let message = match changed.after.is_empty() {
        true => Some("nothing had to change".to_owned()),
        false => None,
    };
    step.end(
        TargetState::Succeeded,
        message,
        (changed.before, changed.after),
        bench.clock.now(),
    )
}
