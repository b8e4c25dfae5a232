//! A pod as far as nodes are concerned.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{NodeName, NodeTerm, Timestamp, Toleration};

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
    /// The grace period that it was given when its deletion was asked for.
    pub deletion_grace: Option<Duration>,
    /// Whether it stands for a static pod, which the kubelet starts from a file: removing it changes nothing.
    pub is_mirror: bool,
    /// Whether it has an `emptyDir` volume of any medium, whose content goes with the pod.
    pub has_empty_dir: bool,
    /// Its priority, 0 if it has none.
    pub priority: i32,
    /// The name of its priority class.
    pub priority_class: Option<String>,
    /// Labels that its node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Its required node affinity: a node must meet one of these. `None`: any node will do; without any term none does.
    pub node_terms: Option<Vec<NodeTerm>>,
    /// Taints that it puts up with.
    pub tolerations: Vec<Toleration>,
}

impl Pod {
    /// Whether its containers ended and will not be started again.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match self.phase {
            PodPhase::Succeeded | PodPhase::Failed => true,
            PodPhase::Pending | PodPhase::Running | PodPhase::Unknown => false,
        }
    }

    /// Whether the cluster evicts it without looking at any budget: it does not run yet or any more, or is on its way out.
    #[must_use]
    pub fn is_outside_budgets(&self) -> bool {
        self.phase == PodPhase::Pending || self.is_finished() || self.is_terminating()
    }

    /// Whether its deletion was asked for.
    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.deletion_at.is_some()
    }

    /// When its deletion was asked for.
    #[must_use]
    pub fn deletion_asked_at(&self) -> Option<Timestamp> {
        Some(self.deletion_at?.minus(self.deletion_grace.unwrap_or_default()))
    }
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
    /// The group and version of its kind, as `apps/v1`.
    pub api_version: String,
    /// `ReplicaSet`, `DaemonSet`, `StatefulSet`, `Job`, ….
    pub kind: String,
    /// Its name, in the pod's namespace.
    pub name: String,
}

/// What a pod asks of its node, in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
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

impl PodRequests {
    /// Adds `other` to this, never past the largest number.
    pub fn add(&mut self, other: &Self) {
        self.cpu_millicores = self.cpu_millicores.saturating_add(other.cpu_millicores);
        self.memory_bytes = self.memory_bytes.saturating_add(other.memory_bytes);
        self.ephemeral_storage_bytes = self
            .ephemeral_storage_bytes
            .saturating_add(other.ephemeral_storage_bytes);
        for (name, amount) in &other.extended {
            let sum = self.extended.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }
}
