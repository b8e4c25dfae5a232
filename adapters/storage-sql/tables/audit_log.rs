//! Table `audit_records`.

use async_trait::async_trait;
use knm_model::{AuditCompletion, AuditFilter, AuditRecord, Timestamp};
use knm_ports::{AuditLog, StorageError};
use knm_storage_sql::{AuditRow, AuditStatements, WatchedPool, audit_record};
use sqlx::QueryBuilder;
use uuid::Uuid;

use crate::dialect::{Driver, PLACE_IN_REASON};

const WHAT: &str = "audit record";
pub(crate) struct SqlAuditLog {
    pool: WatchedPool<Driver>,
    statements: AuditStatements<Driver>,
}

impl SqlAuditLog {
    pub(crate) fn new(pool: WatchedPool<Driver>) -> Self {
        Self {
            pool,
            statements: AuditStatements::new(PLACE_IN_REASON),
        }
    }

    /// Runs `statement` and returns how many rows it changed.
    async fn change(&self, operation: &'static str, mut statement: QueryBuilder<Driver>) -> Result<u64, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire(operation).await?;
                let done = statement.build().execute(held.connection()).await;
                Ok(held.release(WHAT, done)?.rows_affected())
            })
            .await
    }

    /// The records that `statement` selects.
    async fn select(
        &self,
        operation: &'static str,
        mut statement: QueryBuilder<Driver>,
    ) -> Result<Vec<AuditRecord>, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire(operation).await?;
                let rows = statement
                    .build_query_as::<AuditRow>()
                    .fetch_all(held.connection())
                    .await;
                held.release(WHAT, rows)?.into_iter().map(audit_record).collect()
            })
            .await
    }
}

#[async_trait]
impl AuditLog for SqlAuditLog {
    async fn open(&self, record: &AuditRecord) -> Result<(), StorageError> {
        self.change("audit_records.open", self.statements.open(record))
            .await
            .map(drop)
    }

    async fn complete(&self, id: Uuid, completion: &AuditCompletion) -> Result<(), StorageError> {
        let changed = self
            .change("audit_records.complete", self.statements.complete(id, completion))
            .await?;
        if 0 < changed {
            return Ok(());
        }
        match self.find(id).await? {
            Some(_) => Err(StorageError::Conflict { what: WHAT }),
            None => Err(StorageError::NotFound { what: WHAT }),
        }
    }

    async fn find(&self, id: Uuid) -> Result<Option<AuditRecord>, StorageError> {
        let found = self.select("audit_records.find", self.statements.find(id)).await?;
        Ok(found.into_iter().next())
    }

    async fn page(
        &self,
        filter: &AuditFilter,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, StorageError> {
        self.select("audit_records.page", self.statements.page(filter, before, limit))
            .await
    }

    async fn give_up(&self, opened_before: Timestamp, completion: &AuditCompletion) -> Result<u64, StorageError> {
        self.change(
            "audit_records.give_up",
            self.statements.give_up(opened_before, completion),
        )
        .await
    }

    async fn remove_before(&self, at: Timestamp, limit: u32) -> Result<u64, StorageError> {
        self.change("audit_records.remove_before", self.statements.remove_before(at, limit))
            .await
    }
}
