//! Operations as they are seen in traces. What the names of fields mean is told in `adapters/telemetry`; where nobody traces, nothing of this
//! is done.
//!
//! An operation outlives the request that asked for it and the replica that began it, so it has a trace of its own, whose id is that of the
//! operation: every replica knows it, and nothing has to be stored or told for that.

use knm_model::{Operation, OperationState, OperationTarget, TargetState};
use knm_ports::PodRef;
use tracing::Span;
use tracing::field::Empty;

use super::step::TargetStep;

/// Notes in the trace of the request that an operation was accepted, and leads from there to its trace.
pub(super) fn accepted(operation: &Operation) {
    drop(tracing::info_span!(
        target: "otel", "operation accepted", otel.link = %operation.id,
        operation.id = %operation.id, operation.kind = operation.kind.as_str(), operation.nodes = operation.progress.total,
    ));
}

/// The span of a whole operation, told when it is over.
pub(super) fn over(operation: &Operation, state: OperationState) -> Span {
    let has_failed = match state {
        OperationState::Failed | OperationState::PartlyFailed => true,
        OperationState::Queued
        | OperationState::Running
        | OperationState::Paused
        | OperationState::Cancelling
        | OperationState::Cancelled
        | OperationState::Succeeded => false,
    };
    let progress = operation.progress;
    tracing::info_span!(
        target: "otel", "operation", otel.whole_operation = %operation.id, otel.failed = has_failed,
        otel.started_ns = operation.created_at.unix_nanos(),
        operation.id = %operation.id, operation.kind = operation.kind.as_str(), operation.dry_run = operation.dry_run,
        operation.state = state.as_str(), operation.nodes = progress.total, operation.nodes_done = progress.done,
        operation.nodes_failed = progress.failed, operation.nodes_skipped = progress.skipped,
        request_id = operation.request_id.as_deref(),
    )
}

/// The span of one step on one node of an operation. Drains look every second or two whether anything is new, for hours at times: a step that
/// finds nothing leaves no span.
pub(super) fn step(operation: &Operation, target: &OperationTarget) -> Span {
    tracing::info_span!(
        target: "otel", "operation step", otel.operation = %operation.id, otel.tentative = true, otel.forgotten = Empty,
        otel.failed = Empty, operation.id = %operation.id, operation.kind = operation.kind.as_str(),
        k8s.cluster.name = target.cluster.as_str(), k8s.node.name = target.node.as_str(), operation.step.outcome = Empty,
    )
}

/// Notes what came of a step on a node that was `before`. Why stands in its events, the log and the audit log.
pub(super) fn stepped(span: &Span, before: TargetState, step: &TargetStep) {
    let is_quiet = step.target.state == before
        && step.events.is_empty()
        && step.holds.is_empty()
        && step.hold_states.is_empty()
        && step.hold_changes.is_empty();
    if is_quiet {
        span.record("otel.forgotten", true);
    }
    span.record("operation.step.outcome", step.target.state.as_str());
    let has_failed = match step.target.state {
        TargetState::Failed => true,
        TargetState::Waiting
        | TargetState::Running
        | TargetState::Succeeded
        | TargetState::Skipped
        | TargetState::Cancelled => false,
    };
    if has_failed {
        span.record("otel.failed", true);
    }
}

/// The span of asking one pod to go.
pub(super) fn asking(pod: &PodRef, how: &'static str) -> Span {
    tracing::info_span!(
        target: "otel", "pod removal", pod.removal = how, k8s.namespace.name = pod.namespace.as_str(),
        k8s.pod.name = pod.name.as_str(),
        pod.removal.result = Empty,
    )
}

/// Notes what came of asking.
pub(super) fn answered(span: &Span, result: &'static str) {
    span.record("pod.removal.result", result);
}
