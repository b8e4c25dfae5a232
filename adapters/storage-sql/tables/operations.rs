//! Tables `operations`, `operation_targets` and `operation_events`, as callers see them.

use async_trait::async_trait;
use knm_model::{
    IDEMPOTENCY_KEPT, NewEvent, Operation, OperationEvent, OperationFilter, OperationState, OperationTarget, Timestamp,
};
use knm_ports::{Operations, StorageError, Wake};
use knm_storage_sql::{
    Bell, OperationEventRow, OperationRow, OperationTargetRow, WatchedPool, id_above, json, operation, operation_event,
    operation_target, strategy_json,
};
use sqlx::{Connection as _, Database, QueryBuilder};
use uuid::Uuid;

use crate::dialect::{BEGIN, Driver, notices};

const WHAT: &str = "operation";
/// How many rows are written by one statement: databases allow only so many values.
pub(crate) const ROWS_AT_ONCE: usize = 500;

const COLUMNS: &str = "id, kind, actor_name, actor_kind, actor_address, authority_json, request_id, reason, ticket, options_json, \
    strategy_json, dry_run, retry_of, idempotency, created_at_unix_ms, started_at_unix_ms, ended_at_unix_ms, state, message, total, \
    done, failed, skipped, excused";
const FIND: &str = "SELECT id, kind, actor_name, actor_kind, actor_address, authority_json, request_id, reason, ticket, options_json, \
    strategy_json, dry_run, retry_of, idempotency, created_at_unix_ms, started_at_unix_ms, ended_at_unix_ms, state, message, total, \
    done, failed, skipped, excused FROM operations WHERE id = $1";
const TARGETS: &str = "SELECT operation, place, cluster, node, zone, state, message, started_at_unix_ms, ended_at_unix_ms, \
    audit, hold, detail_json FROM operation_targets WHERE operation = $1 ORDER BY place";
const REQUEST: &str = "UPDATE operations SET state = $3, message = NULL, last_event = last_event + 1, \
    excused = CASE WHEN $3 = 'running' THEN failed ELSE excused END, \
    started_at_unix_ms = CASE WHEN $3 = 'running' THEN coalesce(started_at_unix_ms, $4) ELSE started_at_unix_ms END WHERE id = $1 AND state = $2 RETURNING last_event";
/// A request may come again with another operation long after it opened one.
const FORGET_REQUEST: &str =
    "UPDATE operations SET idempotency = NULL WHERE idempotency = $1 AND created_at_unix_ms < $2";
const EVENTS_AFTER: &str = "SELECT operation, number, at_unix_ms, kind, data_json FROM operation_events \
    WHERE operation = $1 AND number > $2 ORDER BY number LIMIT $3";
/// Nodes and events go with it. What ended so long ago was accepted before that: ids tell where to stop looking.
const REMOVE_ENDED_BEFORE: &str = "DELETE FROM operations WHERE id IN \
    (SELECT id FROM operations WHERE ended_at_unix_ms < $1 AND id < $2 ORDER BY id LIMIT $3)";

type Connection = <Driver as Database>::Connection;

pub(crate) struct SqlOperations {
    pool: WatchedPool<Driver>,
    bell: Bell,
}

impl SqlOperations {
    pub(crate) fn new(pool: WatchedPool<Driver>, bell: Bell) -> Self {
        Self { pool, bell }
    }
}

#[async_trait]
impl Operations for SqlOperations {
    async fn open(
        &self,
        operation: &Operation,
        targets: &[OperationTarget],
        event: &NewEvent,
    ) -> Result<(), StorageError> {
        let strategy = strategy_json(&operation.strategy)?;
        let wakes = [Wake::Work(operation.id)];
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("operations.open").await?;
                let work = async {
                    let mut transaction = held.connection().begin_with(BEGIN).await?;
                    if let Some(request) = &operation.idempotency {
                        sqlx::query(FORGET_REQUEST)
                            .bind(request.as_slice())
                            .bind(operation.created_at.minus(IDEMPOTENCY_KEPT).unix_millis())
                            .execute(&mut *transaction)
                            .await?;
                    }
                    inserting(operation, strategy)
                        .build()
                        .execute(&mut *transaction)
                        .await?;
                    put_targets(&mut transaction, operation.id, targets).await?;
                    put_events(&mut transaction, operation.id, 0, std::slice::from_ref(event)).await?;
                    tell_others(&mut transaction, &wakes).await?;
                    transaction.commit().await
                };
                let done = work.await;
                held.release(WHAT, done)
            })
            .await?;
        self.bell.ring(&wakes);
        Ok(())
    }

    async fn find(&self, id: Uuid) -> Result<Option<Operation>, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("operations.find").await?;
                let row = sqlx::query_as::<_, OperationRow>(FIND)
                    .bind(id)
                    .fetch_optional(held.connection())
                    .await;
                held.release(WHAT, row)?.map(operation).transpose()
            })
            .await
    }

    async fn targets(&self, id: Uuid) -> Result<Vec<OperationTarget>, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("operations.targets").await?;
                let rows = sqlx::query_as::<_, OperationTargetRow>(TARGETS)
                    .bind(id)
                    .fetch_all(held.connection())
                    .await;
                held.release(WHAT, rows)?.into_iter().map(operation_target).collect()
            })
            .await
    }

    async fn page(
        &self,
        filter: &OperationFilter,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Operation>, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("operations.page").await?;
                let rows = paging(filter, before, limit)
                    .build_query_as::<OperationRow>()
                    .fetch_all(held.connection())
                    .await;
                held.release(WHAT, rows)?.into_iter().map(operation).collect()
            })
            .await
    }

    async fn request(
        &self,
        id: Uuid,
        from: OperationState,
        to: OperationState,
        event: &NewEvent,
    ) -> Result<bool, StorageError> {
        let wakes = [Wake::Work(id)];
        let is_moved = self
            .pool
            .within_deadline(async {
                let mut held = self.pool.acquire("operations.request").await?;
                let work = async {
                    let mut transaction = held.connection().begin_with(BEGIN).await?;
                    let moved: Option<(i64,)> = sqlx::query_as(REQUEST)
                        .bind(id)
                        .bind(from.as_str())
                        .bind(to.as_str())
                        .bind(event.at.unix_millis())
                        .fetch_optional(&mut *transaction)
                        .await?;
                    if let Some((last,)) = moved {
                        put_events(&mut transaction, id, last - 1, std::slice::from_ref(event)).await?;
                        tell_others(&mut transaction, &wakes).await?;
                    }
                    transaction.commit().await?;
                    Ok(moved.is_some())
                };
                let done = work.await;
                held.release(WHAT, done)
            })
            .await?;
        if is_moved {
            self.bell.ring(&wakes);
        }
        Ok(is_moved)
    }

    async fn events_after(&self, id: Uuid, after: u64, limit: u32) -> Result<Vec<OperationEvent>, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("operations.events_after").await?;
                let rows = sqlx::query_as::<_, OperationEventRow>(EVENTS_AFTER)
                    .bind(id)
                    .bind(i64::try_from(after).unwrap_or(i64::MAX))
                    .bind(i64::from(limit))
                    .fetch_all(held.connection())
                    .await;
                held.release(WHAT, rows)?.into_iter().map(operation_event).collect()
            })
            .await
    }

    async fn remove_ended_before(&self, at: Timestamp, limit: u32) -> Result<u64, StorageError> {
        let at = at.unix_millis_rounded_up();
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("operations.remove_ended_before").await?;
                let done = sqlx::query(REMOVE_ENDED_BEFORE)
                    .bind(at)
                    .bind(id_above(at))
                    .bind(i64::from(limit))
                    .execute(held.connection())
                    .await;
                Ok(held.release(WHAT, done)?.rows_affected())
            })
            .await
    }
}

fn inserting(operation: &Operation, strategy: String) -> QueryBuilder<Driver> {
    let mut statement = QueryBuilder::new("INSERT INTO operations (");
    statement.push(COLUMNS).push(", last_event, lease_epoch) VALUES (");
    let progress = operation.progress;
    let mut values = statement.separated(", ");
    values
        .push_bind(operation.id)
        .push_bind(operation.kind.as_str())
        .push_bind(operation.actor.name.clone())
        .push_bind(operation.actor.kind.as_str())
        .push_bind(operation.actor.address.clone())
        .push_bind(operation.authority.to_json())
        .push_bind(operation.request_id.clone())
        .push_bind(operation.reason.clone())
        .push_bind(operation.ticket.clone())
        .push_bind(json(&operation.options))
        .push_bind(strategy)
        .push_bind(operation.dry_run)
        .push_bind(operation.retry_of)
        .push_bind(operation.idempotency.map(Vec::from))
        .push_bind(operation.created_at.unix_millis())
        .push_bind(operation.started_at.map(Timestamp::unix_millis))
        .push_bind(operation.ended_at.map(Timestamp::unix_millis))
        .push_bind(operation.state.as_str())
        .push_bind(operation.message.clone());
    for count in [
        progress.total,
        progress.done,
        progress.failed,
        progress.skipped,
        operation.excused,
        1,
        0,
    ] {
        values.push_bind(i64::from(count));
    }
    statement.push(")");
    statement
}

fn paging(filter: &OperationFilter, before: Option<Uuid>, limit: u32) -> QueryBuilder<Driver> {
    let mut statement = QueryBuilder::new("SELECT ");
    statement.push(COLUMNS).push(" FROM operations WHERE true");
    if filter.cluster.is_some() || filter.node.is_some() {
        statement
            .push(" AND EXISTS (SELECT 1 FROM operation_targets WHERE operation_targets.operation = operations.id");
        if let Some(cluster) = &filter.cluster {
            statement.push(" AND cluster = ").push_bind(cluster.as_str().to_owned());
        }
        if let Some(node) = &filter.node {
            statement.push(" AND node = ").push_bind(node.as_str().to_owned());
        }
        statement.push(")");
    }
    if let Some(kind) = filter.kind {
        statement.push(" AND kind = ").push_bind(kind.as_str());
    }
    if !filter.states.is_empty() {
        statement.push(" AND state IN (");
        let mut states = statement.separated(", ");
        for state in &filter.states {
            states.push_bind(state.as_str());
        }
        statement.push(")");
    }
    if let Some(actor) = &filter.actor {
        statement
            .push(" AND coalesce(actor_name, actor_kind) = ")
            .push_bind(actor.clone());
    }
    if let Some(from) = filter.from.map(Timestamp::unix_millis_rounded_up) {
        statement.push(" AND created_at_unix_ms >= ").push_bind(from);
    }
    if let Some(until) = filter.until.map(Timestamp::unix_millis_rounded_up) {
        statement.push(" AND created_at_unix_ms < ").push_bind(until);
    }
    if let Some(request) = filter.idempotency {
        statement.push(" AND idempotency = ").push_bind(Vec::from(request));
    }
    if let Some(before) = before {
        statement.push(" AND id < ").push_bind(before);
    }
    statement.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(limit));
    statement
}

/// Writes nodes of an operation, in the place of those that are there.
pub(crate) async fn put_targets(
    connection: &mut Connection,
    operation: Uuid,
    targets: &[OperationTarget],
) -> Result<(), sqlx::Error> {
    for some in targets.chunks(ROWS_AT_ONCE) {
        let mut statement = QueryBuilder::<Driver>::new(
            "INSERT INTO operation_targets (operation, place, cluster, node, zone, state, message, started_at_unix_ms, \
                ended_at_unix_ms, audit, hold, detail_json) ",
        );
        statement.push_values(some, |mut values, target| {
            values
                .push_bind(operation)
                .push_bind(i64::from(target.place))
                .push_bind(target.cluster.as_str().to_owned())
                .push_bind(target.node.as_str().to_owned())
                .push_bind(target.zone.clone())
                .push_bind(target.state.as_str())
                .push_bind(target.message.clone())
                .push_bind(target.started_at.map(Timestamp::unix_millis))
                .push_bind(target.ended_at.map(Timestamp::unix_millis))
                .push_bind(target.audit)
                .push_bind(target.hold)
                .push_bind(target.detail.as_str().to_owned());
        });
        statement.push(
            " ON CONFLICT (operation, place) DO UPDATE SET state = excluded.state, message = excluded.message, \
                started_at_unix_ms = excluded.started_at_unix_ms, ended_at_unix_ms = excluded.ended_at_unix_ms, \
                audit = excluded.audit, hold = excluded.hold, detail_json = excluded.detail_json",
        );
        statement.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Writes events of an operation, numbered after `last`.
pub(crate) async fn put_events(
    connection: &mut Connection,
    operation: Uuid,
    last: i64,
    events: &[NewEvent],
) -> Result<(), sqlx::Error> {
    let mut number = last;
    for some in events.chunks(ROWS_AT_ONCE) {
        let mut statement = QueryBuilder::<Driver>::new(
            "INSERT INTO operation_events (operation, number, at_unix_ms, kind, data_json) ",
        );
        statement.push_values(some, |mut values, event| {
            number += 1;
            values
                .push_bind(operation)
                .push_bind(number)
                .push_bind(event.at.unix_millis())
                .push_bind(event.kind.as_str())
                .push_bind(json(&event.data));
        });
        statement.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Tells other processes, when the transaction is committed. All of it is one statement: committing it is something that the database does
/// for one transaction at a time.
pub(crate) async fn tell_others(connection: &mut Connection, wakes: &[Wake]) -> Result<(), sqlx::Error> {
    match notices(wakes) {
        Some(mut statement) => statement.build().execute(connection).await.map(drop),
        None => Ok(()),
    }
}
