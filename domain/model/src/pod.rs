//! A pod as far as nodes are concerned.

use std::collections::BTreeMap;

use crate::{NodeName, Timestamp};

/// A pod on a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name, unique in its namespace.
    pub name: String,
    /// The cluster's own id of this pod.
    pub uid: String,
    /// The node that it runs on.
    pub node: NodeName,
    /// Labels, which disruption budgets select by.
    pub labels: BTreeMap<String, String>,
    /// How far it is in its life.
    pub phase: PodPhase,
    /// Whether its `Ready` condition is `True`.
    pub ready: bool,
    /// The owner that manages it (`controller: true`), if any.
    pub controller: Option<Controller>,
    /// What it asks of the node: the larger of its init containers and the sum of its containers, and its overhead.
    pub requests: PodRequests,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// When its deletion was asked for plus its grace period: the time by which it should be gone.
    pub deletion_at: Option<Timestamp>,
}

/// How far a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PodPhase {
    /// Accepted, not all containers run yet.
    Pending,
    /// Bound to a node and started.
    Running,
    /// All containers ended well.
    Succeeded,
    /// All containers ended, one of them badly.
    Failed,
    /// The node does not tell.
    Unknown,
}

impl PodPhase {
    /// Reads Kubernetes' word for it; any other word is [`PodPhase::Unknown`].
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "Pending" => Self::Pending,
            "Running" => Self::Running,
            "Succeeded" => Self::Succeeded,
            "Failed" => Self::Failed,
            _ => Self::Unknown,
        }
    }

    /// Whether all of its containers ended.
    #[must_use]
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }

    /// `pending`, `running`, `succeeded`, `failed` or `unknown`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// What manages a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// `ReplicaSet`, `DaemonSet`, `StatefulSet`, `Job`, ….
    pub kind: String,
    /// Its name, in the pod's namespace.
    pub name: String,
}

/// What a pod asks of its node, in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodRequests {
    /// Thousandths of a CPU.
    pub cpu_millicores: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of local disk.
    pub ephemeral_storage_bytes: u64,
    /// Everything else by its resource name.
    pub extended: BTreeMap<String, u64>,
}
