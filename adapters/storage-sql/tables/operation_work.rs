//! Table `operations`, as those see it who do the work.

use std::time::Duration;

use async_trait::async_trait;
use knm_model::{
    Hold, OperationBacklog, OperationClaim, OperationLease, OperationState, OperationStep, StepOutcome, Timestamp,
};
use knm_ports::{OperationWork, StorageError, Wake};
use knm_storage_sql::{AuditStatements, Bell, WatchedPool, hold_state_number, operation_state};
use sqlx::{Connection as _, Database};
use uuid::Uuid;

use crate::cordon_holds::change_hold;
use crate::dialect::{BEGIN, Driver, PLACE_IN_REASON, SKIP_LOCKED, now_unix_ms};
use crate::operations::{ROWS_AT_ONCE, put_events, put_targets, tell_others};

const WHAT: &str = "operation";

const CLAIM_START: &str = concat!(
    "UPDATE operations SET taken_over = (lease_owner IS NOT NULL OR taken_over), lease_owner = $1, \
        lease_epoch = lease_epoch + 1, lease_expires_at_unix_ms = ",
    now_unix_ms!(),
    " + $2 WHERE id IN (SELECT id FROM operations WHERE state IN ('queued', 'running', 'cancelling') \
        AND (lease_owner IS NULL OR lease_expires_at_unix_ms <= ",
    now_unix_ms!(),
    ") ORDER BY id LIMIT $3"
);
const CLAIM_END: &str = ") RETURNING id, lease_epoch, taken_over";
const RENEW: &str = concat!(
    "UPDATE operations SET lease_expires_at_unix_ms = ",
    now_unix_ms!(),
    " + $2 WHERE lease_owner = $1 AND lease_expires_at_unix_ms > ",
    now_unix_ms!(),
    " RETURNING id, lease_epoch, state"
);
const RELEASE: &str = "UPDATE operations SET lease_owner = NULL, lease_expires_at_unix_ms = NULL, taken_over = FALSE \
    WHERE id = $1 AND lease_owner = $2 AND lease_epoch = $3";
const HAND_OVER: &str = "UPDATE operations SET lease_owner = NULL, lease_expires_at_unix_ms = NULL, taken_over = TRUE \
    WHERE id = $1 AND lease_owner = $2 AND lease_epoch = $3";
/// Fences the step: whoever has no valid lease changes nothing.
const FENCE: &str = concat!(
    "UPDATE operations SET total = $4, done = $5, failed = $6, skipped = $7, last_event = last_event + $8 \
        WHERE id = $1 AND lease_owner = $2 AND lease_epoch = $3 AND lease_expires_at_unix_ms > ",
    now_unix_ms!(),
    " RETURNING last_event, state"
);
const MOVE: &str = "UPDATE operations SET state = $2, message = $3, \
    started_at_unix_ms = CASE WHEN $4 THEN coalesce(started_at_unix_ms, $7) ELSE started_at_unix_ms END, \
    ended_at_unix_ms = CASE WHEN $5 THEN $7 ELSE ended_at_unix_ms END, \
    taken_over = (taken_over AND $6), lease_owner = CASE WHEN $6 THEN lease_owner ELSE NULL END, \
    lease_expires_at_unix_ms = CASE WHEN $6 THEN lease_expires_at_unix_ms ELSE NULL END WHERE id = $1";
const ADD_HOLD: &str = "INSERT INTO cordon_holds
    (id, cluster, node, holder, reason, ticket, since_unix_ms, until_unix_ms, over_foreign, state, changed_at_unix_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $7) ON CONFLICT (id) DO NOTHING";
const ADVANCE_HOLD: &str = "UPDATE cordon_holds SET state = $2, changed_at_unix_ms = $3 WHERE id = $1 AND state < $2";
const BACKLOG: &str = "SELECT state, count(*), min(created_at_unix_ms) FROM operations \
    WHERE state IN ('queued', 'running', 'paused', 'cancelling') GROUP BY state";

type Connection = <Driver as Database>::Connection;

pub(crate) struct SqlOperationWork {
    pool: WatchedPool<Driver>,
    audit: AuditStatements<Driver>,
    claim: String,
    bell: Bell,
}

impl SqlOperationWork {
    pub(crate) fn new(pool: WatchedPool<Driver>, bell: Bell) -> Self {
        Self {
            pool,
            bell,
            audit: AuditStatements::new(PLACE_IN_REASON),
            claim: format!("{CLAIM_START}{SKIP_LOCKED}{CLAIM_END}"),
        }
    }

    /// Gives leases back, each by `statement`, and tells other processes of `wakes` with it.
    async fn give_back(
        &self,
        statement: &'static str,
        leases: &[OperationLease],
        wakes: &[Wake],
    ) -> Result<(), StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("operations.release").await?;
                let work = async {
                    let mut transaction = held.connection().begin_with(BEGIN).await?;
                    for lease in leases {
                        sqlx::query(statement)
                            .bind(lease.operation)
                            .bind(lease.owner.as_str())
                            .bind(i64::try_from(lease.epoch).unwrap_or(i64::MAX))
                            .execute(&mut *transaction)
                            .await?;
                    }
                    tell_others(&mut transaction, wakes).await?;
                    transaction.commit().await
                };
                let done = work.await;
                held.release(WHAT, done)
            })
            .await
    }

    /// Writes a step in a transaction that its caller ends: with anything but [`StepOutcome::Written`], by rolling back.
    async fn write(
        &self,
        connection: &mut Connection,
        lease: &OperationLease,
        step: &OperationStep,
    ) -> Result<Result<StepOutcome, StorageError>, sqlx::Error> {
        let events = i64::try_from(step.events.len()).unwrap_or(i64::MAX);
        let fenced: Option<(i64, String)> = sqlx::query_as(FENCE)
            .bind(lease.operation)
            .bind(lease.owner.as_str())
            .bind(i64::try_from(lease.epoch).unwrap_or(i64::MAX))
            .bind(i64::from(step.progress.total))
            .bind(i64::from(step.progress.done))
            .bind(i64::from(step.progress.failed))
            .bind(i64::from(step.progress.skipped))
            .bind(events)
            .fetch_optional(&mut *connection)
            .await?;
        let Some((last, state)) = fenced else {
            return Ok(Ok(StepOutcome::LeaseLost));
        };
        let mut state = match operation_state(lease.operation, &state) {
            Ok(state) => state,
            Err(error) => return Ok(Err(error)),
        };
        if let Some((from, to, message)) = &step.transition {
            if state != *from {
                return Ok(Ok(StepOutcome::OtherState(state)));
            }
            state = *to;
            sqlx::query(MOVE)
                .bind(lease.operation)
                .bind(to.as_str())
                .bind(message.as_deref())
                .bind(*to == OperationState::Running)
                .bind(to.is_ended())
                .bind(to.wants_work())
                .bind(step.at.unix_millis())
                .execute(&mut *connection)
                .await?;
        }
        put_targets(connection, lease.operation, &step.targets).await?;
        put_events(connection, lease.operation, last - events, &step.events).await?;
        for intents in step.intents.chunks(ROWS_AT_ONCE) {
            let mut statement = self.audit.open_all(intents);
            statement.push(" ON CONFLICT (id) DO NOTHING");
            statement.build().execute(&mut *connection).await?;
        }
        for completions in step.completions.chunks(ROWS_AT_ONCE) {
            let mut statement = self.audit.complete_all(completions);
            statement.build().execute(&mut *connection).await?;
        }
        for hold in &step.holds {
            add_hold(connection, hold).await?;
        }
        for (id, state) in &step.hold_states {
            sqlx::query(ADVANCE_HOLD)
                .bind(id.as_bytes().as_slice())
                .bind(hold_state_number(*state))
                .bind(step.at.unix_millis())
                .execute(&mut *connection)
                .await?;
        }
        for (id, change) in &step.hold_changes {
            change_hold(connection, &self.audit, *id, change).await?;
        }
        Ok(Ok(StepOutcome::Written(state)))
    }
}

#[async_trait]
impl OperationWork for SqlOperationWork {
    async fn claim(&self, owner: &str, ttl: Duration, limit: u32) -> Result<Vec<OperationClaim>, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("operations.claim").await?;
                let rows: Result<Vec<(Uuid, i64, bool)>, _> = sqlx::query_as(sqlx::AssertSqlSafe(self.claim.as_str()))
                    .bind(owner)
                    .bind(milliseconds(ttl))
                    .bind(i64::from(limit))
                    .fetch_all(held.connection())
                    .await;
                let mut claims: Vec<OperationClaim> = held
                    .release(WHAT, rows)?
                    .into_iter()
                    .map(|(operation, epoch, is_takeover)| OperationClaim {
                        lease: lease(operation, owner, epoch),
                        is_takeover,
                    })
                    .collect();
                claims.sort_by_key(|claim| claim.lease.operation);
                Ok(claims)
            })
            .await
    }

    async fn renew(&self, owner: &str, ttl: Duration) -> Result<Vec<(OperationLease, OperationState)>, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("operations.renew").await?;
                let rows: Result<Vec<(Uuid, i64, String)>, _> = sqlx::query_as(RENEW)
                    .bind(owner)
                    .bind(milliseconds(ttl))
                    .fetch_all(held.connection())
                    .await;
                held.release(WHAT, rows)?
                    .into_iter()
                    .map(|(operation, epoch, state)| {
                        Ok((lease(operation, owner, epoch), operation_state(operation, &state)?))
                    })
                    .collect()
            })
            .await
    }

    async fn release(&self, leases: &[OperationLease]) -> Result<(), StorageError> {
        self.give_back(RELEASE, leases, &[]).await
    }

    async fn hand_over(&self, leases: &[OperationLease]) -> Result<(), StorageError> {
        let wakes: Vec<Wake> = leases.iter().map(|lease| Wake::Work(lease.operation)).collect();
        self.give_back(HAND_OVER, leases, &wakes).await?;
        self.bell.ring(&wakes);
        Ok(())
    }

    async fn advance(&self, lease: &OperationLease, step: &OperationStep) -> Result<StepOutcome, StorageError> {
        let wakes = match step.events.is_empty() {
            true => None,
            false => Some(Wake::Events(lease.operation)),
        };
        let outcome = self
            .pool
            .within_deadline(async {
                let mut held = self.pool.acquire("operations.advance").await?;
                let work = async {
                    let mut transaction = held.connection().begin_with(BEGIN).await?;
                    let written = self.write(&mut transaction, lease, step).await?;
                    match written {
                        Ok(StepOutcome::Written(_)) => {
                            tell_others(&mut transaction, wakes.as_slice()).await?;
                            transaction.commit().await?;
                        }
                        Ok(StepOutcome::LeaseLost | StepOutcome::OtherState(_)) | Err(_) => {
                            transaction.rollback().await?;
                        }
                    }
                    Ok(written)
                };
                let done = work.await;
                held.release(WHAT, done)?
            })
            .await?;
        if matches!(outcome, StepOutcome::Written(_)) {
            self.bell.ring(wakes.as_slice());
        }
        Ok(outcome)
    }

    async fn backlog(&self) -> Result<OperationBacklog, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("operations.backlog").await?;
                let rows: Result<Vec<(String, i64, i64)>, _> =
                    sqlx::query_as(BACKLOG).fetch_all(held.connection()).await;
                let mut backlog = OperationBacklog::default();
                for (state, count, oldest) in held.release(WHAT, rows)? {
                    let state = operation_state(Uuid::nil(), &state)?;
                    backlog.by_state.insert(state, u64::try_from(count).unwrap_or_default());
                    if state == OperationState::Queued {
                        backlog.oldest_queued = Timestamp::from_unix_millis(oldest);
                    }
                }
                Ok(backlog)
            })
            .await
    }
}

async fn add_hold(connection: &mut Connection, hold: &Hold) -> Result<(), sqlx::Error> {
    sqlx::query(ADD_HOLD)
        .bind(hold.id.as_bytes().as_slice())
        .bind(hold.cluster.as_str())
        .bind(hold.node.as_str())
        .bind(hold.holder.as_str())
        .bind(hold.reason.as_str())
        .bind(hold.ticket.as_deref())
        .bind(hold.since.unix_millis())
        .bind(hold.until.map(Timestamp::unix_millis))
        .bind(hold.over_foreign)
        .bind(hold_state_number(hold.state))
        .execute(connection)
        .await
        .map(drop)
}

fn lease(operation: Uuid, owner: &str, epoch: i64) -> OperationLease {
    OperationLease {
        operation,
        owner: owner.to_owned(),
        epoch: u64::try_from(epoch).unwrap_or_default(),
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 2)
}
