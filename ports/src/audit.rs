//! The audit log.

use async_trait::async_trait;
use knm_model::{AuditCompletion, AuditFilter, AuditRecord, Timestamp};
use uuid::Uuid;

use crate::StorageError;

/// What was tried, by whom, and what came of it. Records are never changed but for being completed once. Times are stored to the
/// millisecond.
///
/// Contract cases: `knm_contract::storage`.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait AuditLog: Send + Sync + 'static {
    /// Writes an intent.
    ///
    /// - MUST return [`StorageError::Conflict`] if the id is taken, and leave the old record as it was.
    async fn open(&self, record: &AuditRecord) -> Result<(), StorageError>;

    /// Writes what came of an intent.
    ///
    /// - MUST return [`StorageError::NotFound`] if there is no such record.
    /// - MUST return [`StorageError::Conflict`] if it was completed already, and leave it as it was.
    /// - MUST let exactly one of several writers complete a record at once.
    async fn complete(&self, id: Uuid, completion: &AuditCompletion) -> Result<(), StorageError>;

    /// The record with this id.
    ///
    /// - MUST return what was stored, its times to the millisecond.
    /// - MUST return `None` if there is none.
    async fn find(&self, id: Uuid) -> Result<Option<AuditRecord>, StorageError>;

    /// Records that satisfy `filter`, at most `limit`, the latest id first; `before`: only ids below it.
    ///
    /// - MUST return exactly the records that [`AuditFilter::matches`] lets through.
    /// - MUST return every record that was there all the time exactly once to a reader who asks for the next page with the last id of
    ///   the page before, however many records come in meanwhile.
    /// - MUST match texts in reasons without a meaning of `%`, `_` or `\`.
    async fn page(
        &self,
        filter: &AuditFilter,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, StorageError>;

    /// Completes intents without an operation that were written before `opened_before` and not completed since; returns how many.
    ///
    /// - MUST leave completed records and those of operations as they were.
    async fn give_up(&self, opened_before: Timestamp, completion: &AuditCompletion) -> Result<u64, StorageError>;

    /// Removes records that were written before `at`, the oldest first, at most `limit`; returns how many.
    ///
    /// - MUST keep records whose outcome is not known yet.
    async fn remove_before(&self, at: Timestamp, limit: u32) -> Result<u64, StorageError>;
}
