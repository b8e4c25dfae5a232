//! Operations, by the time of the runtime: tests can pause and advance it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use knm_model::{
    AuditCompletion, AuditRecord, Hold, HoldChange, IDEMPOTENCY_KEPT, NewEvent, Operation, OperationBacklog,
    OperationClaim, OperationEvent, OperationFilter, OperationLease, OperationState, OperationStep, OperationTarget,
    StepOutcome, Timestamp,
};
use knm_ports::{OperationWork, Operations, StorageError, Wake};
use tokio::time::Instant;
use uuid::Uuid;

use crate::cordon_holds::change_hold;
use crate::{Memory, Tables, rounded};

const WHAT: &str = "operation";

pub(crate) struct MemoryOperations(pub(crate) Arc<Memory>);

/// An operation with everything that belongs to it.
pub(crate) struct StoredOperation {
    operation: Operation,
    targets: BTreeMap<u32, OperationTarget>,
    events: Vec<OperationEvent>,
    lease: Option<Lease>,
    epoch: u64,
    /// Whether whoever gets the lease next takes over, though nobody has it now.
    is_handed_over: bool,
}

struct Lease {
    owner: String,
    until: Instant,
}

impl StoredOperation {
    fn note(&mut self, event: &NewEvent) {
        let number = u64::try_from(self.events.len()).unwrap_or(u64::MAX - 1) + 1;
        self.events.push(OperationEvent {
            number,
            event: NewEvent {
                at: rounded(event.at),
                ..event.clone()
            },
        });
    }

    fn put(&mut self, target: &OperationTarget) {
        let stored = OperationTarget {
            started_at: target.started_at.map(rounded),
            ended_at: target.ended_at.map(rounded),
            ..target.clone()
        };
        self.targets.insert(stored.place, stored);
    }

    fn is_held_by(&self, lease: &OperationLease) -> bool {
        let is_valid = |held: &Lease| held.owner == lease.owner && Instant::now() < held.until;
        self.epoch == lease.epoch && self.lease.as_ref().is_some_and(is_valid)
    }

    fn matches(&self, filter: &OperationFilter) -> bool {
        let operation = &self.operation;
        let has_node = || {
            self.targets.values().any(|target| {
                filter.cluster.as_ref().is_none_or(|cluster| *cluster == target.cluster)
                    && filter.node.as_ref().is_none_or(|node| *node == target.node)
            })
        };
        filter.kind.is_none_or(|kind| kind == operation.kind)
            && (filter.states.is_empty() || filter.states.contains(&operation.state))
            && filter
                .actor
                .as_ref()
                .is_none_or(|actor| actor == operation.actor.label())
            && filter.from.is_none_or(|from| from <= operation.created_at)
            && filter.until.is_none_or(|until| operation.created_at < until)
            && (filter.idempotency.is_none() || filter.idempotency == operation.idempotency)
            && ((filter.cluster.is_none() && filter.node.is_none()) || has_node())
    }
}

#[async_trait]
impl Operations for MemoryOperations {
    async fn open(
        &self,
        operation: &Operation,
        targets: &[OperationTarget],
        event: &NewEvent,
    ) -> Result<(), StorageError> {
        let mut tables = self.0.open()?;
        if tables.operations.contains_key(&operation.id) {
            return Err(StorageError::Conflict { what: WHAT });
        }
        let kept_since = operation.created_at.minus(IDEMPOTENCY_KEPT);
        let mut others = tables.operations.values_mut().map(|stored| &mut stored.operation);
        let same = others.find(|other| operation.idempotency.is_some() && other.idempotency == operation.idempotency);
        match same {
            Some(other) if other.created_at < kept_since => other.idempotency = None,
            Some(_) => return Err(StorageError::Conflict { what: WHAT }),
            None => {}
        }
        let mut stored = StoredOperation {
            operation: Operation {
                created_at: rounded(operation.created_at),
                started_at: operation.started_at.map(rounded),
                ended_at: operation.ended_at.map(rounded),
                ..operation.clone()
            },
            targets: BTreeMap::new(),
            events: Vec::new(),
            lease: None,
            epoch: 0,
            is_handed_over: false,
        };
        for target in targets {
            stored.put(target);
        }
        stored.note(event);
        tables.operations.insert(operation.id, stored);
        self.0.bell.ring(Wake::Work(operation.id));
        Ok(())
    }

    async fn find(&self, id: Uuid) -> Result<Option<Operation>, StorageError> {
        let tables = self.0.open()?;
        Ok(tables.operations.get(&id).map(|stored| stored.operation.clone()))
    }

    async fn targets(&self, id: Uuid) -> Result<Vec<OperationTarget>, StorageError> {
        let tables = self.0.open()?;
        let stored = tables.operations.get(&id);
        Ok(stored.map_or_else(Vec::new, |stored| stored.targets.values().cloned().collect()))
    }

    async fn page(
        &self,
        filter: &OperationFilter,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Operation>, StorageError> {
        let tables = self.0.open()?;
        let below = before.map_or(Bound::Unbounded, Bound::Excluded);
        let earlier = tables.operations.range((Bound::Unbounded, below)).rev();
        Ok(earlier
            .filter(|(_, stored)| stored.matches(filter))
            .map(|(_, stored)| stored.operation.clone())
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .collect())
    }

    async fn request(
        &self,
        id: Uuid,
        from: OperationState,
        to: OperationState,
        event: &NewEvent,
    ) -> Result<bool, StorageError> {
        let mut tables = self.0.open()?;
        let Some(stored) = tables.operations.get_mut(&id) else {
            return Ok(false);
        };
        if stored.operation.state != from {
            return Ok(false);
        }
        stored.operation.state = to;
        stored.operation.message = None;
        if to == OperationState::Running {
            stored.operation.excused = stored.operation.progress.failed;
            let started = stored.operation.started_at.unwrap_or(event.at);
            stored.operation.started_at = Some(rounded(started));
        }
        stored.note(event);
        self.0.bell.ring(Wake::Work(id));
        Ok(true)
    }

    async fn events_after(&self, id: Uuid, after: u64, limit: u32) -> Result<Vec<OperationEvent>, StorageError> {
        let tables = self.0.open()?;
        let events = tables.operations.get(&id).into_iter().flat_map(|stored| &stored.events);
        Ok(events
            .filter(|event| after < event.number)
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .cloned()
            .collect())
    }

    async fn remove_ended_before(&self, at: Timestamp, limit: u32) -> Result<u64, StorageError> {
        let mut tables = self.0.open()?;
        let is_old = |stored: &StoredOperation| stored.operation.ended_at.is_some_and(|ended| ended < at);
        let old = tables.operations.iter().filter(|(_, stored)| is_old(stored));
        let ids: Vec<Uuid> = old
            .map(|(id, _)| *id)
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .collect();
        for id in &ids {
            tables.operations.remove(id);
        }
        Ok(u64::try_from(ids.len()).unwrap_or(u64::MAX))
    }
}

#[async_trait]
impl OperationWork for MemoryOperations {
    async fn claim(&self, owner: &str, ttl: Duration, limit: u32) -> Result<Vec<OperationClaim>, StorageError> {
        let mut tables = self.0.open()?;
        let now = Instant::now();
        let free = tables.operations.values_mut().filter(|stored| {
            stored.operation.state.wants_work() && stored.lease.as_ref().is_none_or(|lease| lease.until <= now)
        });
        let claimed = free.take(usize::try_from(limit).unwrap_or(usize::MAX)).map(|stored| {
            stored.epoch += 1;
            let before = stored.lease.replace(Lease {
                owner: owner.to_owned(),
                until: now + ttl,
            });
            let is_handed_over = std::mem::take(&mut stored.is_handed_over);
            OperationClaim {
                lease: OperationLease {
                    operation: stored.operation.id,
                    owner: owner.to_owned(),
                    epoch: stored.epoch,
                },
                is_takeover: before.is_some() || is_handed_over,
            }
        });
        Ok(claimed.collect())
    }

    async fn renew(&self, owner: &str, ttl: Duration) -> Result<Vec<(OperationLease, OperationState)>, StorageError> {
        let mut tables = self.0.open()?;
        let now = Instant::now();
        let mut kept = Vec::new();
        for stored in tables.operations.values_mut() {
            let Some(lease) = &mut stored.lease else {
                continue;
            };
            if lease.owner == owner && now < lease.until {
                lease.until = now + ttl;
                let ours = OperationLease {
                    operation: stored.operation.id,
                    owner: owner.to_owned(),
                    epoch: stored.epoch,
                };
                kept.push((ours, stored.operation.state));
            }
        }
        Ok(kept)
    }

    async fn release(&self, leases: &[OperationLease]) -> Result<(), StorageError> {
        let mut tables = self.0.open()?;
        for lease in leases {
            tables.give_back(lease);
        }
        Ok(())
    }

    async fn hand_over(&self, leases: &[OperationLease]) -> Result<(), StorageError> {
        let mut tables = self.0.open()?;
        for lease in leases {
            if let Some(stored) = tables.give_back(lease) {
                stored.is_handed_over = true;
            }
            self.0.bell.ring(Wake::Work(lease.operation));
        }
        Ok(())
    }

    async fn advance(&self, lease: &OperationLease, step: &OperationStep) -> Result<StepOutcome, StorageError> {
        let mut guard = self.0.open()?;
        let tables = &mut *guard;
        let Some(stored) = tables.operations.get_mut(&lease.operation) else {
            return Ok(StepOutcome::LeaseLost);
        };
        if !stored.is_held_by(lease) {
            return Ok(StepOutcome::LeaseLost);
        }
        let operation = &mut stored.operation;
        let state = operation.state;
        if step.transition.as_ref().is_some_and(|(from, ..)| *from != state) {
            return Ok(StepOutcome::OtherState(state));
        }
        let is_told = |(_, change): &(Uuid, HoldChange)| match change {
            HoldChange::EndedOutside(record) => tables.audit.contains_key(&record.id),
            HoldChange::Until(_) | HoldChange::OverForeign(_) => false,
        };
        if step.hold_changes.iter().any(is_told) {
            return Err(StorageError::Conflict { what: "audit record" });
        }
        if let Some((_, to, message)) = &step.transition {
            operation.state = *to;
            operation.message.clone_from(message);
            if *to == OperationState::Running {
                operation.started_at = operation.started_at.or(Some(rounded(step.at)));
            }
            if to.is_ended() {
                operation.ended_at = Some(rounded(step.at));
            }
            if !to.wants_work() {
                stored.lease = None;
            }
        }
        operation.progress = step.progress;
        let state = operation.state;
        for target in &step.targets {
            stored.put(target);
        }
        for event in &step.events {
            stored.note(event);
        }
        write_changes(tables, step)?;
        if !step.events.is_empty() {
            self.0.bell.ring(Wake::Events(lease.operation));
        }
        Ok(StepOutcome::Written(state))
    }

    async fn backlog(&self) -> Result<OperationBacklog, StorageError> {
        let tables = self.0.open()?;
        let mut backlog = OperationBacklog::default();
        for stored in tables.operations.values() {
            let operation = &stored.operation;
            if operation.state.is_ended() {
                continue;
            }
            *backlog.by_state.entry(operation.state).or_default() += 1;
            if operation.state == OperationState::Queued {
                let oldest = backlog.oldest_queued.unwrap_or(operation.created_at);
                backlog.oldest_queued = Some(oldest.min(operation.created_at));
            }
        }
        Ok(backlog)
    }
}

impl Tables {
    /// Takes a lease away from its owner, and returns its operation; `None` if it is not the owner's any more.
    fn give_back(&mut self, lease: &OperationLease) -> Option<&mut StoredOperation> {
        let stored = self.operations.get_mut(&lease.operation)?;
        let is_held = stored.lease.as_ref().is_some_and(|held| held.owner == lease.owner);
        if !is_held || stored.epoch != lease.epoch {
            return None;
        }
        stored.lease = None;
        Some(stored)
    }
}

/// Writes what a step says of the audit log and of holds.
fn write_changes(tables: &mut Tables, step: &OperationStep) -> Result<(), StorageError> {
    for intent in &step.intents {
        tables.audit.entry(intent.id).or_insert_with(|| AuditRecord {
            at: rounded(intent.at),
            ..intent.clone()
        });
    }
    for (id, completion) in &step.completions {
        if let Some(record) = tables.audit.get_mut(id).filter(|record| record.completion.is_none()) {
            record.completion = Some(AuditCompletion {
                at: rounded(completion.at),
                ..completion.clone()
            });
        }
    }
    for hold in &step.holds {
        tables.holds.entry(hold.id).or_insert_with(|| Hold {
            since: rounded(hold.since),
            until: hold.until.map(rounded),
            ..hold.clone()
        });
    }
    for (id, state) in &step.hold_states {
        if let Some(hold) = tables.holds.get_mut(id).filter(|hold| hold.state < *state) {
            hold.state = *state;
        }
    }
    for (id, change) in &step.hold_changes {
        change_hold(tables, *id, change)?;
    }
    Ok(())
}
