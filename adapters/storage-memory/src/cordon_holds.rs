//! Holds on nodes.

use std::sync::Arc;

use async_trait::async_trait;
use knm_model::{ClusterName, Hold, HoldState, NodeName, Timestamp};
use knm_ports::{CordonHolds, StorageError};
use uuid::Uuid;

use crate::{Memory, rounded};

pub(crate) struct MemoryCordonHolds(pub(crate) Arc<Memory>);

#[async_trait]
impl CordonHolds for MemoryCordonHolds {
    async fn add(&self, hold: &Hold) -> Result<(), StorageError> {
        let mut tables = self.0.open()?;
        if tables.holds.contains_key(&hold.id) {
            return Err(StorageError::Conflict { what: "cordon hold" });
        }
        let stored = Hold {
            since: rounded(hold.since),
            until: hold.until.map(rounded),
            ..hold.clone()
        };
        tables.holds.insert(hold.id, stored);
        Ok(())
    }

    async fn of_node(&self, cluster: &ClusterName, node: &NodeName) -> Result<Vec<Hold>, StorageError> {
        let mut holds = self.unended().await?;
        holds.retain(|hold| hold.cluster == *cluster && hold.node == *node);
        Ok(holds)
    }

    async fn unended(&self) -> Result<Vec<Hold>, StorageError> {
        let tables = self.0.open()?;
        let unended = tables.holds.values().filter(|hold| hold.state != HoldState::Ended);
        Ok(unended.cloned().collect())
    }

    async fn advance(&self, id: Uuid, state: HoldState, _: Timestamp) -> Result<bool, StorageError> {
        let mut tables = self.0.open()?;
        let Some(hold) = tables.holds.get_mut(&id).filter(|hold| hold.state < state) else {
            return Ok(false);
        };
        hold.state = state;
        Ok(true)
    }

    async fn prolong(&self, id: Uuid, until: Option<Timestamp>) -> Result<bool, StorageError> {
        let mut tables = self.0.open()?;
        let Some(hold) = tables.holds.get_mut(&id).filter(|hold| hold.state != HoldState::Ended) else {
            return Ok(false);
        };
        hold.until = until.map(rounded);
        Ok(true)
    }
}
