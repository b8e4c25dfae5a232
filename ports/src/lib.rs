//! What the use cases need from outside, in the model's words.
//!
//! Every obligation of a port is a sentence with MUST, and each MUST is a case of the contract suite in `tests/contract`.

mod access;
mod audit;
mod chain;
mod cluster;
mod definition;
mod eviction;
mod hold;
mod idempotency;
mod lease;
mod opener;
mod operation;
mod pods;
mod registered;
mod storage;
mod system;
mod transfer;
mod vault;
mod wake;

pub use access::{AccessReviews, ApiTokens, IdentityTokenError, IdentityTokens, Randomness};
#[cfg(feature = "mocks")]
pub use access::{MockAccessReviews, MockApiTokens, MockIdentityTokens, MockRandomness};
pub use audit::AuditLog;
#[cfg(feature = "mocks")]
pub use audit::MockAuditLog;
pub use chain::chain;
#[cfg(feature = "mocks")]
pub use cluster::MockClusterGateway;
pub use cluster::{BoxedSource, ClusterError, ClusterGateway, NodeEvent, NodeEvents};
pub use definition::Definitions;
#[cfg(feature = "mocks")]
pub use definition::MockDefinitions;
pub use eviction::{EvictOptions, Eviction, PodRef};
pub use hold::CordonHolds;
#[cfg(feature = "mocks")]
pub use hold::MockCordonHolds;
pub use idempotency::IdempotencyKeys;
#[cfg(feature = "mocks")]
pub use idempotency::MockIdempotencyKeys;
pub use lease::Leases;
#[cfg(feature = "mocks")]
pub use lease::MockLeases;
#[cfg(feature = "mocks")]
pub use opener::MockClusterOpener;
pub use opener::{ClusterOpener, OpenRefused, OpenedCluster};
#[cfg(feature = "mocks")]
pub use operation::{MockOperationWork, MockOperations};
pub use operation::{OperationWork, Operations};
pub use pods::{PodEvent, PodEvents};
#[cfg(feature = "mocks")]
pub use registered::MockRegisteredClusters;
pub use registered::RegisteredClusters;
pub use storage::{
    ClusterRegistrations, ConnectionDemand, ConnectionLimit, PoolStatus, SchemaStatus, Storage, StorageAdmin,
    StorageError, StorageKind,
};
#[cfg(feature = "mocks")]
pub use storage::{MockClusterRegistrations, MockStorageAdmin};
pub use system::{Clock, IdSource, MetricsExposition, ProcessStats, SystemStats};
#[cfg(feature = "mocks")]
pub use system::{CountedIds, ManualClock, MockClock, MockIdSource, MockMetricsExposition, MockSystemStats};
#[cfg(feature = "mocks")]
pub use transfer::MockStoreContent;
pub use transfer::{Cell, Column, ColumnKind, HoldError, Purpose, Row, SchemaVersions, StoreContent, Table};
#[cfg(feature = "mocks")]
pub use vault::MockVault;
pub use vault::{OpenedSecret, Vault, VaultError};
#[cfg(feature = "mocks")]
pub use wake::MockWakes;
pub use wake::{Wake, WakeStream, Wakes};
