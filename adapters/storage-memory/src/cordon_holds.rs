//! Holds on nodes.

use std::sync::Arc;

use async_trait::async_trait;
use knm_model::{ClusterName, Hold, HoldChange, HoldState, NodeName, Timestamp};
use knm_ports::{CordonHolds, StorageError};
use uuid::Uuid;

use crate::audit_log::add_record;
use crate::{Memory, Tables, rounded};

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

    async fn is_known(&self, id: Uuid) -> Result<bool, StorageError> {
        Ok(self.0.open()?.holds.contains_key(&id))
    }

    async fn advance(&self, id: Uuid, state: HoldState, _: Timestamp) -> Result<bool, StorageError> {
        let mut tables = self.0.open()?;
        let Some(hold) = tables.holds.get_mut(&id).filter(|hold| hold.state < state) else {
            return Ok(false);
        };
        hold.state = state;
        Ok(true)
    }

    async fn change(&self, id: Uuid, change: &HoldChange) -> Result<bool, StorageError> {
        change_hold(&mut *self.0.open()?, id, change)
    }
}

/// Changes a hold that is not ended; returns whether there is such a hold. Nothing is changed if that fails.
pub(crate) fn change_hold(tables: &mut Tables, id: Uuid, change: &HoldChange) -> Result<bool, StorageError> {
    let Tables { holds, audit, .. } = tables;
    let Some(hold) = holds.get_mut(&id).filter(|hold| hold.state != HoldState::Ended) else {
        return Ok(false);
    };
    match change {
        HoldChange::Until(until) => hold.until = until.map(rounded),
        HoldChange::OverForeign(is_so) => hold.over_foreign = *is_so,
        HoldChange::EndedOutside(record) => {
            add_record(audit, record)?;
            hold.state = HoldState::Ended;
        }
    }
    Ok(true)
}
