//! Table `cordon_holds`.

use async_trait::async_trait;
use knm_model::{ClusterName, Hold, HoldChange, HoldState, NodeName, Timestamp};
use knm_ports::{CordonHolds, StorageError};
use knm_storage_sql::{AuditStatements, HoldRow, WatchedPool, hold, hold_state_number};
use sqlx::{Connection as _, Database};
use uuid::Uuid;

use crate::dialect::{BEGIN, Driver, PLACE_IN_REASON};

const WHAT: &str = "cordon hold";

const ADD: &str = "INSERT INTO cordon_holds
    (id, cluster, node, holder, reason, ticket, since_unix_ms, until_unix_ms, over_foreign, state, changed_at_unix_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $7)";
const OF_NODE: &str =
    "SELECT id, cluster, node, holder, reason, ticket, since_unix_ms, until_unix_ms, over_foreign, state
    FROM cordon_holds WHERE state < 2 AND cluster = $1 AND node = $2 ORDER BY id";
const UNENDED: &str =
    "SELECT id, cluster, node, holder, reason, ticket, since_unix_ms, until_unix_ms, over_foreign, state
    FROM cordon_holds WHERE state < 2 ORDER BY id";
const IS_KNOWN: &str = "SELECT COUNT(*) FROM cordon_holds WHERE id = $1";
const ADVANCE: &str = "UPDATE cordon_holds SET state = $2, changed_at_unix_ms = $3 WHERE id = $1 AND state < $2";
const PROLONG: &str = "UPDATE cordon_holds SET until_unix_ms = $2 WHERE id = $1 AND state < 2";

const NOTE_FOREIGN: &str = "UPDATE cordon_holds SET over_foreign = $2 WHERE id = $1 AND state < 2";

type Connection = <Driver as Database>::Connection;

pub(crate) struct SqlCordonHolds {
    pool: WatchedPool<Driver>,
    audit: AuditStatements<Driver>,
}

impl SqlCordonHolds {
    pub(crate) fn new(pool: WatchedPool<Driver>) -> Self {
        Self {
            pool,
            audit: AuditStatements::new(PLACE_IN_REASON),
        }
    }
}

/// Changes a hold that is not ended, in a transaction that its caller ends; returns whether there is such a hold.
pub(crate) async fn change_hold(
    connection: &mut Connection,
    audit: &AuditStatements<Driver>,
    id: Uuid,
    change: &HoldChange,
) -> Result<bool, sqlx::Error> {
    let statement = match change {
        HoldChange::Until(until) => sqlx::query(PROLONG)
            .bind(id.as_bytes().as_slice())
            .bind(until.map(Timestamp::unix_millis)),
        HoldChange::OverForeign(is_so) => sqlx::query(NOTE_FOREIGN).bind(id.as_bytes().as_slice()).bind(*is_so),
        HoldChange::EndedOutside(record) => sqlx::query(ADVANCE)
            .bind(id.as_bytes().as_slice())
            .bind(hold_state_number(HoldState::Ended))
            .bind(record.at.unix_millis()),
    };
    let is_changed = statement.execute(&mut *connection).await?.rows_affected() == 1;
    if let (true, HoldChange::EndedOutside(record)) = (is_changed, change) {
        audit.open(record).build().execute(connection).await?;
    }
    Ok(is_changed)
}

#[async_trait]
impl CordonHolds for SqlCordonHolds {
    async fn add(&self, hold: &Hold) -> Result<(), StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("cordon_holds.add").await?;
                let done = sqlx::query(ADD)
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
                    .execute(held.connection())
                    .await;
                held.release(WHAT, done).map(drop)
            })
            .await
    }

    async fn of_node(&self, cluster: &ClusterName, node: &NodeName) -> Result<Vec<Hold>, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("cordon_holds.of_node").await?;
                let rows = sqlx::query_as::<_, HoldRow>(OF_NODE)
                    .bind(cluster.as_str())
                    .bind(node.as_str())
                    .fetch_all(held.connection())
                    .await;
                held.release(WHAT, rows)?.into_iter().map(hold).collect()
            })
            .await
    }

    async fn unended(&self) -> Result<Vec<Hold>, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("cordon_holds.unended").await?;
                let rows = sqlx::query_as::<_, HoldRow>(UNENDED).fetch_all(held.connection()).await;
                held.release(WHAT, rows)?.into_iter().map(hold).collect()
            })
            .await
    }

    async fn is_known(&self, id: Uuid) -> Result<bool, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("cordon_holds.is_known").await?;
                let count = sqlx::query_scalar::<_, i64>(IS_KNOWN)
                    .bind(id.as_bytes().as_slice())
                    .fetch_one(held.connection())
                    .await;
                Ok(held.release(WHAT, count)? == 1)
            })
            .await
    }

    async fn advance(&self, id: Uuid, state: HoldState, at: Timestamp) -> Result<bool, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("cordon_holds.advance").await?;
                let done = sqlx::query(ADVANCE)
                    .bind(id.as_bytes().as_slice())
                    .bind(hold_state_number(state))
                    .bind(at.unix_millis())
                    .execute(held.connection())
                    .await;
                Ok(held.release(WHAT, done)?.rows_affected() == 1)
            })
            .await
    }

    async fn change(&self, id: Uuid, change: &HoldChange) -> Result<bool, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("cordon_holds.change").await?;
                let work = async {
                    let mut transaction = held.connection().begin_with(BEGIN).await?;
                    let is_changed = change_hold(&mut transaction, &self.audit, id, change).await?;
                    transaction.commit().await?;
                    Ok(is_changed)
                };
                let done = work.await;
                held.release(WHAT, done)
            })
            .await
    }
}
