//! Clusters that were registered while the service ran.

use std::sync::Arc;

use async_trait::async_trait;
use knm_model::{ClusterName, RegisteredCluster, SealedSecret};
use knm_ports::{RegisteredClusters, StorageError};
use uuid::Uuid;

use crate::{Memory, rounded};

const WHAT: &str = "registered cluster";

pub(crate) struct MemoryRegisteredClusters(pub(crate) Arc<Memory>);

#[async_trait]
impl RegisteredClusters for MemoryRegisteredClusters {
    async fn list(&self) -> Result<Vec<RegisteredCluster>, StorageError> {
        Ok(self.0.open()?.registered.values().cloned().collect())
    }

    async fn find(&self, name: &ClusterName) -> Result<Option<RegisteredCluster>, StorageError> {
        Ok(self.0.open()?.registered.get(name).cloned())
    }

    async fn insert(&self, cluster: &RegisteredCluster, most: u32) -> Result<bool, StorageError> {
        let mut tables = self.0.open()?;
        if tables.registered.contains_key(&cluster.name) {
            return Err(StorageError::Conflict { what: WHAT });
        }
        if usize::try_from(most).is_ok_and(|most| most <= tables.registered.len()) {
            return Ok(false);
        }
        tables
            .registered
            .insert(cluster.name.clone(), to_the_millisecond(cluster));
        Ok(true)
    }

    async fn replace(&self, cluster: &RegisteredCluster, known: Uuid) -> Result<(), StorageError> {
        let mut tables = self.0.open()?;
        let stored = tables
            .registered
            .get_mut(&cluster.name)
            .ok_or(StorageError::NotFound { what: WHAT })?;
        if stored.revision != known {
            return Err(StorageError::Conflict { what: WHAT });
        }
        *stored = RegisteredCluster {
            registered_at: stored.registered_at,
            ..to_the_millisecond(cluster)
        };
        Ok(())
    }

    async fn reseal(&self, from: &RegisteredCluster, to: &SealedSecret) -> Result<bool, StorageError> {
        let mut tables = self.0.open()?;
        let stored = tables.registered.get_mut(&from.name);
        let is_same = |stored: &&mut RegisteredCluster| {
            stored.revision == from.revision && stored.sealed.nonce == from.sealed.nonce
        };
        match stored.filter(is_same) {
            Some(stored) => {
                stored.sealed = to.clone();
                Ok(true)
            }
            None => Ok(false),
        }
    }

    async fn remove(&self, name: &ClusterName, known: Uuid) -> Result<(), StorageError> {
        let mut tables = self.0.open()?;
        let stored = tables
            .registered
            .get(name)
            .ok_or(StorageError::NotFound { what: WHAT })?;
        if stored.revision != known {
            return Err(StorageError::Conflict { what: WHAT });
        }
        tables.registered.remove(name);
        Ok(())
    }
}

fn to_the_millisecond(cluster: &RegisteredCluster) -> RegisteredCluster {
    RegisteredCluster {
        expires_at: cluster.expires_at.map(rounded),
        registered_at: rounded(cluster.registered_at),
        changed_at: rounded(cluster.changed_at),
        ..cluster.clone()
    }
}
