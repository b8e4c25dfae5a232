//! Why a cluster was not registered, replaced or removed.

use knm_model::{ClusterName, QueryError};
use knm_ports::{StorageError, VaultError};
use uuid::Uuid;

use crate::inventory::InventoryError;
use crate::operations::OperationError;

/// How many operations an error names.
const MOST_NAMED: usize = 10;

/// Why a cluster was not registered, replaced or removed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// There are no keys to seal credentials with.
    #[error(
        "clusters cannot be registered: secrets.key_file is not set, so their credentials could not be stored safely; \
         `secrets generate-key` prints a key for that file"
    )]
    NoKeys,
    /// This program was built without what it takes.
    #[error("clusters cannot be registered: this program was built without the feature \"kubernetes\"")]
    NotBuilt,
    /// What was given is wrong in itself.
    #[error("what is given is wrong: {}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid {
        /// Everything that is wrong with it.
        errors: Vec<QueryError>,
    },
    /// There is a registered cluster under this name.
    #[error("cluster {cluster} is registered already")]
    Taken {
        /// The name.
        cluster: ClusterName,
    },
    /// The cluster under this name comes from the configuration.
    #[error("cluster {cluster} comes from the configuration, and cannot be changed while the service runs")]
    Configured {
        /// The name.
        cluster: ClusterName,
    },
    /// There is no room for another one.
    #[error("{most} clusters are registered, which is as many as registration.max_clusters allows")]
    TooMany {
        /// How many may be.
        most: u32,
    },
    /// It was changed since the caller saw it.
    #[error("cluster {cluster} was changed meanwhile")]
    Stale {
        /// The cluster.
        cluster: ClusterName,
    },
    /// Operations on its nodes are not over.
    #[error("operations on cluster {cluster} are not over: {}", named(operations))]
    Busy {
        /// The cluster.
        cluster: ClusterName,
        /// Which, never empty.
        operations: Vec<Uuid>,
    },
    /// There is no such cluster.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// Its operations could not be told, or not cancelled.
    #[error(transparent)]
    Operation(#[from] OperationError),
    /// Its credentials were not sealed.
    #[error("the credentials could not be sealed")]
    Vault(#[from] VaultError),
    /// The intent could not be written, so nothing was done.
    #[error("nothing was done, because it could not be written into the audit log")]
    NotRecorded {
        /// What the store said.
        source: StorageError,
    },
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The process ends.
    #[error("the service is shutting down")]
    ShuttingDown,
}

fn named(operations: &[Uuid]) -> String {
    let shown: Vec<String> = operations.iter().take(MOST_NAMED).map(Uuid::to_string).collect();
    let rest = operations.len().saturating_sub(MOST_NAMED);
    match rest {
        0 => shown.join(", "),
        rest => format!("{} and {rest} more", shown.join(", ")),
    }
}
