//! Storage in the memory of the process: for tests and demonstrations. It is gone when the process ends.

mod api_tokens;
mod audit_log;
mod bell;
mod cordon_holds;
mod definitions;
mod idempotency_keys;
mod leases;
mod operations;
mod registered_clusters;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use knm_model::{
    ApiToken, AuditRecord, ClusterName, ClusterRegistration, Definition, DefinitionKind, DefinitionName, Hold,
    RegisteredCluster, Timestamp, TokenId,
};
use knm_ports::{
    ClusterRegistrations, ConnectionDemand, PoolStatus, SchemaStatus, Storage, StorageAdmin, StorageError, StorageKind,
};
use uuid::Uuid;

use crate::api_tokens::MemoryApiTokens;
use crate::audit_log::MemoryAuditLog;
use crate::bell::Bell;
use crate::cordon_holds::MemoryCordonHolds;
use crate::definitions::MemoryDefinitions;
use crate::idempotency_keys::{Claimed, MemoryIdempotencyKeys};
use crate::leases::{Lease, MemoryLeases};
use crate::operations::{MemoryOperations, StoredOperation};
use crate::registered_clusters::MemoryRegisteredClusters;

/// Opens an empty store. Clones of what it returns share it.
#[must_use]
pub fn open() -> Storage {
    let memory = Arc::new(Memory::default());
    Storage {
        admin: Arc::new(MemoryStorageAdmin(Arc::clone(&memory))),
        clusters: Arc::new(MemoryClusterRegistrations(Arc::clone(&memory))),
        tokens: Arc::new(MemoryApiTokens(Arc::clone(&memory))),
        registered: Arc::new(MemoryRegisteredClusters(Arc::clone(&memory))),
        holds: Arc::new(MemoryCordonHolds(Arc::clone(&memory))),
        audit: Arc::new(MemoryAuditLog(Arc::clone(&memory))),
        keys: Arc::new(MemoryIdempotencyKeys(Arc::clone(&memory))),
        leases: Arc::new(MemoryLeases(Arc::clone(&memory))),
        operations: Arc::new(MemoryOperations(Arc::clone(&memory))),
        work: Arc::new(MemoryOperations(Arc::clone(&memory))),
        definitions: Arc::new(MemoryDefinitions(Arc::clone(&memory))),
        wakes: memory,
    }
}

#[derive(Default)]
struct Memory {
    tables: Mutex<Tables>,
    /// Rung after the tables were changed.
    bell: Bell,
}

#[derive(Default)]
struct Tables {
    closed: bool,
    clusters: BTreeMap<ClusterName, ClusterRegistration>,
    tokens: BTreeMap<TokenId, ApiToken>,
    registered: BTreeMap<ClusterName, RegisteredCluster>,
    holds: BTreeMap<Uuid, Hold>,
    audit: BTreeMap<Uuid, AuditRecord>,
    /// By caller and key.
    keys: BTreeMap<(String, String), Claimed>,
    leases: BTreeMap<String, Lease>,
    operations: BTreeMap<Uuid, StoredOperation>,
    /// By kind, name and version.
    definitions: BTreeMap<(DefinitionKind, DefinitionName, u32), Definition>,
}

struct MemoryStorageAdmin(Arc<Memory>);

struct MemoryClusterRegistrations(Arc<Memory>);

impl Memory {
    /// The tables, as long as the store is open.
    fn open(&self) -> Result<MutexGuard<'_, Tables>, StorageError> {
        let tables = self.tables();
        if tables.closed {
            return Err(StorageError::Unavailable {
                source: "the store in memory is closed".into(),
            });
        }
        Ok(tables)
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl StorageAdmin for MemoryStorageAdmin {
    fn kind(&self) -> StorageKind {
        StorageKind::Memory
    }

    async fn ping(&self) -> Result<(), StorageError> {
        self.0.open().map(drop)
    }

    fn pool(&self) -> PoolStatus {
        let open = u32::from(!self.0.tables().closed);
        PoolStatus {
            max_open: 1,
            max_idle: 1,
            open,
            in_use: 0,
            idle: open,
            leaks: 0,
        }
    }

    async fn schema(&self) -> Result<SchemaStatus, StorageError> {
        self.0.open().map(|_| SchemaStatus::default())
    }

    async fn demand(&self) -> Result<Option<ConnectionDemand>, StorageError> {
        self.0.open().map(|_| None)
    }

    async fn migrate(&self) -> Result<usize, StorageError> {
        self.0.open().map(|_| 0)
    }

    async fn close(&self) {
        self.0.tables().closed = true;
    }
}

#[async_trait]
impl ClusterRegistrations for MemoryClusterRegistrations {
    async fn list(&self) -> Result<Vec<ClusterRegistration>, StorageError> {
        Ok(self.0.open()?.clusters.values().cloned().collect())
    }

    async fn find(&self, name: &ClusterName) -> Result<Option<ClusterRegistration>, StorageError> {
        Ok(self.0.open()?.clusters.get(name).cloned())
    }

    async fn insert(&self, registration: &ClusterRegistration) -> Result<(), StorageError> {
        let mut tables = self.0.open()?;
        if tables.clusters.contains_key(&registration.name) {
            return Err(StorageError::Conflict {
                what: "cluster registration",
            });
        }
        let stored = to_the_millisecond(registration);
        tables.clusters.insert(stored.name.clone(), stored);
        Ok(())
    }

    async fn replace(&self, registration: &ClusterRegistration) -> Result<(), StorageError> {
        match self.0.open()?.clusters.get_mut(&registration.name) {
            Some(stored) => {
                *stored = to_the_millisecond(registration);
                Ok(())
            }
            None => Err(not_stored()),
        }
    }

    async fn remove(&self, name: &ClusterName) -> Result<(), StorageError> {
        match self.0.open()?.clusters.remove(name) {
            Some(_) => Ok(()),
            None => Err(not_stored()),
        }
    }
}

/// A time as exact as the ports promise, and no more: what works here works with every store.
fn rounded(time: Timestamp) -> Timestamp {
    Timestamp::from_unix_millis(time.unix_millis()).unwrap_or(time)
}

fn to_the_millisecond(registration: &ClusterRegistration) -> ClusterRegistration {
    ClusterRegistration {
        registered_at: rounded(registration.registered_at),
        changed_at: rounded(registration.changed_at),
        ..registration.clone()
    }
}

fn not_stored() -> StorageError {
    StorageError::NotFound {
        what: "cluster registration",
    }
}
