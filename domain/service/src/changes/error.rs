//! Why a node was not changed.

use knm_model::{ClusterName, NodeName};
use knm_ports::{ClusterError, StorageError};
use uuid::Uuid;

use super::Target;
use crate::inventory::InventoryError;

/// Why a node was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such cluster or node, or the cluster did not answer.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// The cluster was asked to make the change, and its answer did not arrive.
    #[error("whether cluster {cluster} made the change is not known")]
    Unanswered {
        /// The cluster.
        cluster: ClusterName,
        /// What came instead.
        source: ClusterError,
    },
    /// The intent could not be written into the audit log, so nothing was tried.
    #[error("the change could not be recorded, so it was not made")]
    NotRecorded {
        /// What went wrong.
        source: StorageError,
    },
    /// The holds on the node could not be read or written.
    #[error("the holds on the node could not be read or written")]
    Holds {
        /// What went wrong.
        source: StorageError,
    },
    /// Whoever asks may do things to nodes with some labels, and wants to change one that decides it.
    #[error("label {key} decides what the caller may do to a node, so it is for somebody without that limit to change")]
    GuardedLabel {
        /// Its key.
        key: String,
    },
    /// The node is in none of the states that the caller knows.
    #[error("node {node} is in another state, {version}, than the caller expects")]
    Stale {
        /// The node.
        node: NodeName,
        /// Its state, see [`Node::version`](knm_model::Node::version).
        version: String,
    },
    /// Others changed the node again and again meanwhile.
    #[error("node {node} was changed by others {attempts} times while this was tried")]
    Contended {
        /// The node.
        node: NodeName,
        /// How often it was tried.
        attempts: u32,
    },
    /// The cluster calls the change invalid, or a policy there does not admit it.
    #[error("cluster {cluster} refuses the change: {message}")]
    Refused {
        /// The cluster.
        cluster: ClusterName,
        /// Its own words.
        message: String,
    },
    /// A `NoExecute` taint would evict pods without looking at budgets.
    #[error("a NoExecute taint evicts the pods on node {node} without looking at budgets: {pods} pods run there")]
    NeedsConfirmation {
        /// The node.
        node: NodeName,
        /// How many pods are not finished there.
        pods: usize,
    },
    /// Only others hold the node.
    #[error("node {node} is held by {}", holders.join(", "))]
    HeldByOthers {
        /// The node.
        node: NodeName,
        /// Who holds it, and why.
        holders: Vec<String>,
    },
    /// The node was cordoned without this service.
    #[error("node {node} was cordoned without this service")]
    Foreign {
        /// The node.
        node: NodeName,
    },
    /// There is no such hold on the node.
    #[error("node {node} has no hold {id}")]
    UnknownHold {
        /// The node.
        node: NodeName,
        /// The hold.
        id: Uuid,
    },
    /// The process ends.
    #[error("the service is shutting down")]
    ShuttingDown,
}

impl ChangeError {
    pub(super) fn of_cluster(target: &Target, source: ClusterError) -> Self {
        let cluster = target.cluster.name.clone();
        match source {
            ClusterError::NotFound { .. } => Self::Inventory(InventoryError::UnknownNode {
                cluster,
                node: target.name.to_string(),
            }),
            // A policy of the cluster answers with either status.
            ClusterError::Invalid { message } | ClusterError::Forbidden { action: None, message } => {
                Self::Refused { cluster, message }
            }
            source => Self::Inventory(InventoryError::Cluster { cluster, source }),
        }
    }

    /// What the cluster does not let this service do, see [`InventoryError::refusal`].
    pub(crate) fn refusal(&self) -> Option<String> {
        if let Self::Inventory(error) = self {
            return error.refusal();
        }
        None
    }

    /// Whether the change may have been made all the same: the cluster was asked to make it, and its answer did not arrive.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Self::Unanswered { .. })
    }
}
