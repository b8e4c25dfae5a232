//! Pods on a node.

use std::collections::BTreeMap;

use knm_domain::{NodePods, PodOnNode};
use knm_model::{Controller, PodPhase, PodRequests};
use poem_openapi::{Enum, Object};
use serde::Serialize;

/// The pods on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "PodList")]
pub(crate) struct PodListView {
    /// The pods, sorted by namespace and name.
    pub(crate) items: Vec<PodView>,
    /// Always null: all pods come at once.
    pub(crate) next_cursor: Option<String>,
    /// The number of pods.
    pub(crate) total: usize,
    /// The time of what is told here, RFC 3339 in UTC.
    pub(crate) as_of: String,
}

/// A pod on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "Pod")]
pub(crate) struct PodView {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name, unique in its namespace.
    pub(crate) name: String,
    /// The cluster's own id of this pod.
    pub(crate) uid: String,
    /// How far it is in its life.
    pub(crate) phase: PodPhaseView,
    /// Whether its `Ready` condition is `True`.
    pub(crate) ready: bool,
    /// The owner that manages it; null if nobody does.
    pub(crate) controller: Option<ControllerView>,
    /// What it asks of the node.
    pub(crate) requests: PodRequestsView,
    /// The names of the disruption budgets in its namespace that protect it, sorted.
    pub(crate) disruption_budgets: Vec<String>,
    /// When it was created, RFC 3339 in UTC; null if the cluster does not say.
    pub(crate) created_at: Option<String>,
    /// When it should be gone, RFC 3339 in UTC; null unless its deletion was asked for.
    pub(crate) deletion_at: Option<String>,
}

/// How far a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[oai(rename = "PodPhase", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(crate) enum PodPhaseView {
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

/// What manages a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "Controller")]
pub(crate) struct ControllerView {
    /// Its kind, as `ReplicaSet` or `DaemonSet`.
    pub(crate) kind: String,
    /// Its name, in the pod's namespace.
    pub(crate) name: String,
}

/// What a pod asks of its node.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "PodRequests")]
pub(crate) struct PodRequestsView {
    /// Thousandths of a CPU.
    pub(crate) cpu_millicores: u64,
    /// Bytes of memory.
    pub(crate) memory_bytes: u64,
    /// Bytes of local disk.
    pub(crate) ephemeral_storage_bytes: u64,
    /// Everything else by its resource name, in units of that resource.
    pub(crate) extended: BTreeMap<String, u64>,
}

impl PodListView {
    pub(crate) fn of(pods: &NodePods) -> Self {
        Self {
            items: pods.pods.iter().map(PodView::of).collect(),
            next_cursor: None,
            total: pods.pods.len(),
            as_of: pods.as_of.to_string(),
        }
    }
}

impl PodView {
    fn of(on_node: &PodOnNode) -> Self {
        let pod = &on_node.pod;
        Self {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            phase: PodPhaseView::of(pod.phase),
            ready: pod.ready,
            controller: pod.controller.as_ref().map(ControllerView::of),
            requests: PodRequestsView::of(&pod.requests),
            disruption_budgets: on_node.budgets.clone(),
            created_at: pod.created_at.map(|time| time.to_string()),
            deletion_at: pod.deletion_at.map(|time| time.to_string()),
        }
    }
}

impl PodPhaseView {
    pub(super) fn of(phase: PodPhase) -> Self {
        match phase {
            PodPhase::Pending => Self::Pending,
            PodPhase::Running => Self::Running,
            PodPhase::Succeeded => Self::Succeeded,
            PodPhase::Failed => Self::Failed,
            PodPhase::Unknown => Self::Unknown,
        }
    }
}

impl ControllerView {
    pub(super) fn of(controller: &Controller) -> Self {
        Self {
            kind: controller.kind.clone(),
            name: controller.name.clone(),
        }
    }
}

impl PodRequestsView {
    pub(super) fn of(requests: &PodRequests) -> Self {
        Self {
            cpu_millicores: requests.cpu_millicores,
            memory_bytes: requests.memory_bytes,
            ephemeral_storage_bytes: requests.ephemeral_storage_bytes,
            extended: requests.extended.clone(),
        }
    }
}
