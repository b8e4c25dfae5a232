//! The audit log.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use knm_model::{AuditCompletion, AuditFilter, AuditRecord, Timestamp};
use knm_ports::{AuditLog, StorageError};
use uuid::Uuid;

use crate::{Memory, rounded};

const WHAT: &str = "audit record";

pub(crate) struct MemoryAuditLog(pub(crate) Arc<Memory>);

#[async_trait]
impl AuditLog for MemoryAuditLog {
    async fn open(&self, record: &AuditRecord) -> Result<(), StorageError> {
        add_record(&mut self.0.open()?.audit, record)
    }

    async fn complete(&self, id: Uuid, completion: &AuditCompletion) -> Result<(), StorageError> {
        match self.0.open()?.audit.get_mut(&id) {
            None => Err(StorageError::NotFound { what: WHAT }),
            Some(record) if record.completion.is_some() => Err(StorageError::Conflict { what: WHAT }),
            Some(record) => {
                record.completion = Some(to_the_millisecond(completion));
                Ok(())
            }
        }
    }

    async fn find(&self, id: Uuid) -> Result<Option<AuditRecord>, StorageError> {
        Ok(self.0.open()?.audit.get(&id).cloned())
    }

    async fn page(
        &self,
        filter: &AuditFilter,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, StorageError> {
        let tables = self.0.open()?;
        let below = before.map_or(Bound::Unbounded, Bound::Excluded);
        let earlier = tables.audit.range((Bound::Unbounded, below));
        let matching = earlier.rev().map(|(_, record)| record);
        Ok(matching
            .filter(|record| filter.matches(record))
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .cloned()
            .collect())
    }

    async fn give_up(&self, opened_before: Timestamp, completion: &AuditCompletion) -> Result<u64, StorageError> {
        let mut given_up = 0;
        for record in self.0.open()?.audit.values_mut() {
            if record.completion.is_none() && record.operation.is_none() && record.at < opened_before {
                record.completion = Some(to_the_millisecond(completion));
                given_up += 1;
            }
        }
        Ok(given_up)
    }

    async fn remove_before(&self, at: Timestamp, limit: u32) -> Result<u64, StorageError> {
        let mut tables = self.0.open()?;
        let old = tables
            .audit
            .values()
            .filter(|record| record.completion.is_some() && record.at < at)
            .take(usize::try_from(limit).unwrap_or(usize::MAX));
        let ids: Vec<Uuid> = old.map(|record| record.id).collect();
        for id in &ids {
            tables.audit.remove(id);
        }
        Ok(u64::try_from(ids.len()).unwrap_or(u64::MAX))
    }
}

pub(crate) fn add_record(audit: &mut BTreeMap<Uuid, AuditRecord>, record: &AuditRecord) -> Result<(), StorageError> {
    if audit.contains_key(&record.id) {
        return Err(StorageError::Conflict { what: WHAT });
    }
    let stored = AuditRecord {
        at: rounded(record.at),
        completion: record.completion.as_ref().map(to_the_millisecond),
        ..record.clone()
    };
    audit.insert(stored.id, stored);
    Ok(())
}

fn to_the_millisecond(completion: &AuditCompletion) -> AuditCompletion {
    AuditCompletion {
        at: rounded(completion.at),
        ..completion.clone()
    }
}
