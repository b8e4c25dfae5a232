//! Clusters that were registered while the service ran.

use async_trait::async_trait;
use knm_model::{ClusterName, RegisteredCluster, SealedSecret};
use uuid::Uuid;

use crate::StorageError;

/// Clusters that were registered while the service ran, with their sealed credentials. Times are stored to the millisecond.
///
/// Contract cases: `knm_contract::storage`.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait RegisteredClusters: Send + Sync + 'static {
    /// All of them.
    ///
    /// - MUST sort them by name, byte by byte.
    /// - MUST return what was stored, its times to the millisecond.
    async fn list(&self) -> Result<Vec<RegisteredCluster>, StorageError>;

    /// The one under this name.
    ///
    /// - MUST return `None` if there is none.
    async fn find(&self, name: &ClusterName) -> Result<Option<RegisteredCluster>, StorageError>;

    /// Adds one, unless there are `most` already, and returns whether it did.
    ///
    /// - MUST return [`StorageError::Conflict`] if the name is taken, and leave the old one as it was.
    /// - MUST let exactly one of several writers have a name that they want at once.
    /// - MUST return `false` and add nothing if there are `most` already, as far as they were there before the call.
    async fn insert(&self, cluster: &RegisteredCluster, most: u32) -> Result<bool, StorageError>;

    /// Replaces the one under the same name, which keeps the time of its registration.
    ///
    /// - MUST return [`StorageError::NotFound`] if there is none, and add nothing.
    /// - MUST return [`StorageError::Conflict`] and change nothing if its revision is not `known`.
    /// - MUST let exactly one of several writers replace a revision.
    async fn replace(&self, cluster: &RegisteredCluster, known: Uuid) -> Result<(), StorageError>;

    /// Seals the credentials of a cluster anew, and returns whether it did.
    ///
    /// - MUST return `false` and change nothing if the revision or the nonce is not that of `from` any more, or if there is none.
    /// - MUST change nothing else.
    async fn reseal(&self, from: &RegisteredCluster, to: &SealedSecret) -> Result<bool, StorageError>;

    /// Removes the one under this name.
    ///
    /// - MUST return [`StorageError::NotFound`] if there is none, and remove nothing else.
    /// - MUST return [`StorageError::Conflict`] and remove nothing if its revision is not `known`.
    async fn remove(&self, name: &ClusterName, known: Uuid) -> Result<(), StorageError>;
}
