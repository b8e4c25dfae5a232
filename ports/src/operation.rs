//! Operations.

use std::time::Duration;

use async_trait::async_trait;
use knm_model::{
    NewEvent, Operation, OperationBacklog, OperationClaim, OperationEvent, OperationFilter, OperationLease,
    OperationState, OperationStep, OperationTarget, StepOutcome, Timestamp,
};
use uuid::Uuid;

use crate::StorageError;

/// Operations as their callers see them. Times are stored to the millisecond.
///
/// Contract cases: `knm_contract::storage`.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Operations: Send + Sync + 'static {
    /// Accepts an operation with its nodes and its first event.
    ///
    /// - MUST store all of it or nothing.
    /// - MUST return [`StorageError::Conflict`] if the id is taken, and leave the old one as it was.
    /// - MUST return [`StorageError::Conflict`] if the same request opened another operation, see [`Operation::idempotency`], unless that
    ///   one was accepted more than [`IDEMPOTENCY_KEPT`](knm_model::IDEMPOTENCY_KEPT) before this one: then the request is this one's.
    async fn open(
        &self,
        operation: &Operation,
        targets: &[OperationTarget],
        event: &NewEvent,
    ) -> Result<(), StorageError>;

    /// The operation with this id.
    ///
    /// - MUST return what was stored, its times to the millisecond.
    /// - MUST return `None` if there is none.
    async fn find(&self, id: Uuid) -> Result<Option<Operation>, StorageError>;

    /// The nodes of an operation in their order; none if there is no such operation.
    ///
    /// - MUST return what was stored, its times to the millisecond.
    async fn targets(&self, id: Uuid) -> Result<Vec<OperationTarget>, StorageError>;

    /// Operations that satisfy `filter`, at most `limit`, the latest id first; `before`: only ids below it.
    ///
    /// - MUST return exactly those that have everything that the filter names; cluster and node are those of one of its nodes.
    /// - MUST return each operation once.
    async fn page(
        &self,
        filter: &OperationFilter,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Operation>, StorageError>;

    /// Moves an operation from one state to another because somebody asked for it, notes the event, and returns whether it did.
    ///
    /// - MUST return `false` and change nothing if it is in another state, or if there is none.
    /// - MUST let exactly one of several callers move it.
    /// - MUST take the message of an earlier state away.
    /// - MUST excuse the nodes that failed until now when it moves the operation to [`OperationState::Running`].
    /// - MUST set the operation's `started_at` to the time of the event when it moves it to [`OperationState::Running`] for the first time.
    async fn request(
        &self,
        id: Uuid,
        from: OperationState,
        to: OperationState,
        event: &NewEvent,
    ) -> Result<bool, StorageError>;

    /// Events of an operation with a number above `after`, at most `limit`, in their order.
    ///
    /// - MUST number the events of an operation from 1 without a gap, in the order in which they were noted.
    async fn events_after(&self, id: Uuid, after: u64, limit: u32) -> Result<Vec<OperationEvent>, StorageError>;

    /// Removes operations that ended before `at` with their nodes and events, those with the lowest ids first, at most `limit`; returns how
    /// many.
    ///
    /// - MUST keep operations that are not ended, however old they are.
    /// - MUST leave nothing of the removed ones, and the others as they were.
    async fn remove_ended_before(&self, at: Timestamp, limit: u32) -> Result<u64, StorageError>;
}

/// Operations as those see them who do the work. A lease runs out by the store's own clock.
///
/// Contract cases: `knm_contract::storage`.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait OperationWork: Send + Sync + 'static {
    /// Takes leases, each until `ttl` from now, for at most `limit` operations that want work and that nobody has; the oldest first.
    ///
    /// - MUST give an operation to exactly one of several owners that want it at once.
    /// - MUST give an operation whose lease ran out to another owner, or to the same one, with a higher epoch.
    /// - MUST leave operations alone whose state does not want work, see [`OperationState::wants_work`].
    /// - MUST tell of those whose lease ran out or was handed over that they are taken over, and of no others.
    async fn claim(&self, owner: &str, ttl: Duration, limit: u32) -> Result<Vec<OperationClaim>, StorageError>;

    /// Extends all leases of `owner` that did not run out until `ttl` from now, and returns them with the states of their operations.
    ///
    /// - MUST leave leases alone that ran out.
    async fn renew(&self, owner: &str, ttl: Duration) -> Result<Vec<(OperationLease, OperationState)>, StorageError>;

    /// Gives leases back because there is nothing to do now. Nobody is woken: somebody finds them at the next look.
    ///
    /// - MUST do nothing for a lease that ran out and was taken by somebody else.
    async fn release(&self, leases: &[OperationLease]) -> Result<(), StorageError>;

    /// Gives leases back to be taken by others at once: those who listen are woken, see [`Wake::Work`](crate::Wake::Work).
    ///
    /// - MUST do nothing for a lease that ran out and was taken by somebody else.
    async fn hand_over(&self, leases: &[OperationLease]) -> Result<(), StorageError>;

    /// Writes a step of an operation down: all of it or nothing. `started_at` and `ended_at` of the operation are set by its transitions to
    /// [`OperationState::Running`], the first one, and to states at the end.
    ///
    /// - MUST return [`StepOutcome::LeaseLost`] and change nothing if the lease ran out or has another owner or epoch.
    /// - MUST return [`StepOutcome::OtherState`] and change nothing if the transition does not begin at the operation's state.
    /// - MUST complete audit records that are not completed yet and pass over others.
    /// - MUST pass over holds and intents whose ids are taken: they were written by whoever had the lease before.
    /// - MUST only move holds forward, as [`HoldState`](knm_model::HoldState) orders them.
    /// - MUST change holds as [`CordonHolds::change`](crate::CordonHolds::change) does, and pass over those that are ended.
    /// - MUST give the lease back with a transition to a state that does not want work.
    async fn advance(&self, lease: &OperationLease, step: &OperationStep) -> Result<StepOutcome, StorageError>;

    /// How much there is to do, for all owners together.
    ///
    /// - MUST leave out operations that are ended.
    async fn backlog(&self) -> Result<OperationBacklog, StorageError>;
}
