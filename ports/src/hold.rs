//! Holds on nodes.

use async_trait::async_trait;
use knm_model::{ClusterName, Hold, HoldChange, HoldState, NodeName, Timestamp};
use uuid::Uuid;

use crate::StorageError;

/// Who keeps which node cordoned. Times are stored to the millisecond.
///
/// Contract cases: `knm_contract::storage`.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait CordonHolds: Send + Sync + 'static {
    /// Adds a hold.
    ///
    /// - MUST return [`StorageError::Conflict`] if the id is taken, and leave the old one as it was.
    async fn add(&self, hold: &Hold) -> Result<(), StorageError>;

    /// The holds on a node that are not ended.
    ///
    /// - MUST return what was stored, sorted by id.
    /// - MUST leave ended holds out.
    async fn of_node(&self, cluster: &ClusterName, node: &NodeName) -> Result<Vec<Hold>, StorageError>;

    /// All holds that are not ended, sorted by id.
    ///
    /// - MUST leave ended holds out.
    async fn unended(&self) -> Result<Vec<Hold>, StorageError>;

    /// Whether there is a hold with this id, ended or not.
    ///
    /// - MUST know each that was added.
    async fn is_known(&self, id: Uuid) -> Result<bool, StorageError>;

    /// Moves a hold on to `state` at the time `at`; returns whether it did.
    ///
    /// - MUST only move a hold forward, as [`HoldState`] orders them, and return `false` otherwise or if there is no such hold.
    /// - MUST let exactly one of several callers move a hold to the same state.
    async fn advance(&self, id: Uuid, state: HoldState, at: Timestamp) -> Result<bool, StorageError>;

    /// Changes a hold that is not ended; returns whether there is such a hold.
    ///
    /// - MUST change neither ended holds nor any other hold.
    /// - MUST add the record of [`HoldChange::EndedOutside`] if it ends the hold, and only then: both or neither.
    /// - MUST let exactly one of several callers end a hold.
    async fn change(&self, id: Uuid, change: &HoldChange) -> Result<bool, StorageError>;
}
