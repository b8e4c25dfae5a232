//! Which nodes of an operation are begun, and when it pauses or ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use knm_model::{
    AuditRecord, Next, Operation, OperationProgress, OperationState, OperationStep, OperationTarget, TargetNode,
    TargetState,
};
use tokio::time::Instant;

use super::changing;
use super::step::target_event;
use super::task::{Job, Task};

/// How long nobody looks whether nodes came back, so that others may be begun.
const LOOK_EVERY: Duration = Duration::from_secs(2);

impl Task {
    /// Begins nodes, or ends or pauses the operation.
    pub(super) fn begin(&self, job: &mut Job, changed: &mut BTreeSet<usize>, step: &mut OperationStep) {
        if changed.is_empty() && job.begin_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let has = |wanted| job.targets.iter().any(|target| target.state == wanted);
        if has(TargetState::Running) && !has(TargetState::Waiting) {
            return;
        }
        let nodes: Vec<TargetNode> = match job.operation.strategy.looks_at_nodes() {
            true => job.targets.iter().map(|target| self.known(target)).collect(),
            false => Vec::new(),
        };
        let operation = Arc::clone(&job.operation);
        let from = operation.state;
        job.begin_at = None;
        job.is_held_back = false;
        match operation
            .strategy
            .next(&job.targets, &nodes, operation.excused, step.at)
        {
            Next::Begin(places) => {
                if operation.message.is_some() {
                    step.transition = Some((from, from, None));
                }
                for place in places {
                    self.begun(&operation, &mut job.targets[place], step);
                    changing::remember(&self.bench, &job.work, &mut job.targets[place]);
                    changed.insert(place);
                }
            }
            Next::Wait { until, because } => {
                let wait = until.map_or(LOOK_EVERY, |until| until.since(step.at));
                job.begin_at = Some(Instant::now() + wait.min(LOOK_EVERY));
                if operation.message != because {
                    step.transition = Some((from, from, because));
                }
            }
            // What comes of the steps under way is written before the lease is given back with the pause.
            Next::Pause { .. } if !job.busy.is_empty() => job.is_held_back = true,
            Next::Pause { message } => {
                step.transition = Some((from, OperationState::Paused, Some(message)));
            }
            Next::End => {
                let end = OperationProgress::of(&job.targets).end();
                step.transition = Some((from, end, None));
            }
        }
    }

    /// What is known of the node of a target.
    fn known(&self, target: &OperationTarget) -> TargetNode {
        match self.bench.inventory.snapshot(target.cluster.as_str()) {
            Ok(snapshot) if !snapshot.stale() => {
                let entry = snapshot.find(target.node.as_str());
                TargetNode::of(entry.map(|entry| entry.node()))
            }
            Ok(_) | Err(_) => TargetNode::Unseen,
        }
    }

    /// A node that is begun: its intent goes into the audit log with it.
    fn begun(&self, operation: &Operation, target: &mut OperationTarget, step: &mut OperationStep) {
        target.state = TargetState::Running;
        target.started_at = Some(step.at);
        if !operation.dry_run {
            let record = AuditRecord {
                id: self.operations.ids.next(step.at),
                at: step.at,
                actor: operation.actor.clone(),
                action: operation.kind.action(),
                cluster: target.cluster.clone(),
                node: Some(target.node.clone()),
                operation: Some(operation.id),
                request_id: operation.request_id.clone(),
                reason: operation.reason.clone(),
                ticket: operation.ticket.clone(),
                options: operation.options.clone(),
                completion: None,
            };
            target.audit = Some(record.id);
            step.intents.push(record);
        }
        step.events.push(target_event(target, step.at));
    }
}
