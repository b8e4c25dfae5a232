//! Why an operation was not accepted, or not changed.

use knm_model::{ClusterName, NodeName, OperationState, Permission, QueryError, RefusedWish};
use knm_ports::StorageError;
use uuid::Uuid;

use crate::inventory::InventoryError;

/// Why an operation was not accepted, or not changed.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// There is no such operation.
    #[error("there is no operation {id}")]
    Unknown {
        /// The id.
        id: Uuid,
    },
    /// What was asked for is wrong in itself.
    #[error("what is asked for is wrong: {}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid {
        /// Everything that is wrong with it.
        errors: Vec<QueryError>,
    },
    /// There is no such cluster, or nothing is known of it yet.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// Whoever asks may not do it with one of the nodes.
    #[error("node {node} of cluster {cluster} needs the permission {}", permission.as_str())]
    NotPermitted {
        /// What is missing.
        permission: Permission,
        /// The cluster.
        cluster: ClusterName,
        /// The first such node.
        node: NodeName,
    },
    /// Whoever asks may do things to nodes with some labels, and wants to change one that decides it.
    #[error("label {key} decides what the caller may do to a node, so it is for somebody without that limit to change")]
    GuardedLabel {
        /// Its key.
        key: String,
    },
    /// It cannot be done in the state that the operation is in.
    #[error(transparent)]
    Refused(#[from] RefusedWish),
    /// Only what is over can be tried again.
    #[error("operation {id} is {}: only one that is over can be tried again", state.as_str())]
    NotEnded {
        /// The operation.
        id: Uuid,
        /// Its state.
        state: OperationState,
    },
    /// There is nothing to be tried again.
    #[error("operation {id} failed for none of its nodes")]
    NothingFailed {
        /// The operation.
        id: Uuid,
    },
    /// What could be tried again is not there any more.
    #[error("the nodes for which operation {id} failed are gone: there is nothing to try again")]
    NothingLeft {
        /// The operation.
        id: Uuid,
    },
    /// The store failed.
    #[error("the operation could not be read or written")]
    Storage(#[from] StorageError),
}
