//! Nodes.

use std::collections::BTreeMap;

use knm_model::{ClusterName, CordonSource, Node, NodeStatus, Resources, TaintEffect};
use poem_openapi::{Enum, Object};
use serde::Serialize;

use super::ClusterStateView;

/// A node of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "Node")]
pub(crate) struct NodeView {
    /// Its name, unique in its cluster.
    pub(crate) name: String,
    /// The cluster's own id of this object: another node under the same name has another one.
    pub(crate) uid: String,
    /// The name of its cluster in this service.
    pub(crate) cluster: String,
    /// Its roles by its `node-role.kubernetes.io/…` labels, sorted.
    pub(crate) roles: Vec<String>,
    /// What its `Ready` condition says.
    pub(crate) status: NodeStatusView,
    /// Whether the scheduler may place pods on it.
    pub(crate) schedulable: bool,
    /// Who keeps it unschedulable and why; null while it is schedulable.
    pub(crate) cordon: Option<CordonView>,
    /// Its labels, values by key.
    pub(crate) labels: BTreeMap<String, String>,
    /// Its taints, in the node's order.
    pub(crate) taints: Vec<TaintView>,
    /// All of its conditions, in the node's order.
    pub(crate) conditions: Vec<ConditionView>,
    /// Its addresses, in the node's order.
    pub(crate) addresses: Vec<AddressView>,
    /// What the machine has.
    pub(crate) capacity: ResourcesView,
    /// What pods may use of it.
    pub(crate) allocatable: ResourcesView,
    /// What its pods ask for together and how many they are, without those that ended, about a second ago; null while the pods of the cluster
    /// are not known or not watched.
    pub(crate) requested: Option<ResourcesView>,
    /// Versions of what runs on it.
    pub(crate) system: SystemView,
    /// The zone that it is in, null if it does not say.
    pub(crate) zone: Option<String>,
    /// The region that it is in, null if it does not say.
    pub(crate) region: Option<String>,
    /// The kind of machine, null if it does not say.
    pub(crate) instance_type: Option<String>,
    /// The cloud's own name of the machine, null if there is none.
    pub(crate) provider_id: Option<String>,
    /// Ranges that its pods get their addresses from, in CIDR notation.
    pub(crate) pod_cidrs: Vec<String>,
    /// When the node was created, RFC 3339 in UTC.
    pub(crate) created_at: String,
    /// The version of the object in its cluster; only good for comparing.
    pub(crate) resource_version: String,
}

/// What a node's `Ready` condition says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[oai(rename = "NodeStatus", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(crate) enum NodeStatusView {
    /// `Ready` is `True`.
    Ready,
    /// `Ready` is `False`.
    NotReady,
    /// `Ready` is `Unknown` or not there.
    Unknown,
}

/// Why a node is unschedulable, as far as anybody wrote it down.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "Cordon")]
pub(crate) struct CordonView {
    /// The reason, null if none was given.
    pub(crate) reason: Option<String>,
    /// Since when, RFC 3339 in UTC, null if nobody knows.
    pub(crate) since: Option<String>,
    /// Who did it, null if it was not written down.
    pub(crate) by: Option<String>,
    /// Whose record this is.
    pub(crate) source: CordonSourceView,
    /// Whether the node stays cordoned when this service's last hold is released, because somebody else had cordoned it.
    pub(crate) over_foreign: bool,
    /// This service's holds, the oldest first: the node becomes schedulable when the last one is released, unless `over_foreign`.
    pub(crate) holds: Vec<HoldView>,
}

/// A hold, as it is noted on the node.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "Hold")]
pub(crate) struct HoldView {
    /// Its id, to release it alone; null if it was not noted.
    pub(crate) id: Option<String>,
    /// Who holds the node, null if it was not noted.
    pub(crate) by: Option<String>,
    /// Why, null if it was not noted.
    pub(crate) reason: Option<String>,
    /// The holder's ticket, null if there is none.
    pub(crate) ticket: Option<String>,
    /// Since when, RFC 3339 in UTC, null if it was not noted.
    pub(crate) since: Option<String>,
    /// When it ends by itself, RFC 3339 in UTC, null if it does not.
    pub(crate) until: Option<String>,
}

/// Whose record of a cordon was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[oai(rename = "CordonSource", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(crate) enum CordonSourceView {
    /// This service's.
    KubeNodeManager,
    /// That of the first version of this service.
    FirstVersion,
    /// None: somebody else cordoned the node.
    Foreign,
}

/// What keeps pods off a node.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "Taint")]
pub(crate) struct TaintView {
    /// The key; together with the effect it identifies the taint.
    pub(crate) key: String,
    /// The value, may be empty.
    pub(crate) value: String,
    /// What it does to pods that do not tolerate it.
    pub(crate) effect: TaintEffectView,
    /// When it was added, RFC 3339 in UTC; null if the cluster does not say.
    pub(crate) added_at: Option<String>,
}

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[oai(rename = "TaintEffect")]
pub(crate) enum TaintEffectView {
    /// New pods are not placed on the node.
    NoSchedule,
    /// New pods are placed elsewhere if that is possible.
    PreferNoSchedule,
    /// New pods are not placed on the node and running ones are evicted.
    NoExecute,
}

/// One condition of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "NodeCondition")]
pub(crate) struct ConditionView {
    /// Its name, as `Ready` or `MemoryPressure`.
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// `True`, `False` or `Unknown`.
    pub(crate) status: String,
    /// A word for why, may be empty.
    pub(crate) reason: String,
    /// A sentence for why, may be empty.
    pub(crate) message: String,
    /// When its status last changed, RFC 3339 in UTC; null if the cluster does not say.
    pub(crate) last_transition_at: Option<String>,
    /// When it was last reported, RFC 3339 in UTC; null if the cluster does not say.
    pub(crate) last_heartbeat_at: Option<String>,
}

/// An address of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "NodeAddress")]
pub(crate) struct AddressView {
    /// `InternalIP`, `ExternalIP`, `Hostname`, `InternalDNS` or `ExternalDNS`.
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The address or name.
    pub(crate) address: String,
}

/// Amounts of what there is.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "Resources")]
pub(crate) struct ResourcesView {
    /// Thousandths of a CPU.
    pub(crate) cpu_millicores: u64,
    /// Bytes of memory.
    pub(crate) memory_bytes: u64,
    /// Bytes of local disk for pods.
    pub(crate) ephemeral_storage_bytes: u64,
    /// Number of pods.
    pub(crate) pods: u64,
    /// Everything else by its resource name, in units of that resource: GPUs in pieces, huge pages in bytes.
    pub(crate) extended: BTreeMap<String, u64>,
}

/// What runs on a node, as its kubelet reports it; empty where it reported nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "NodeSystem")]
pub(crate) struct SystemView {
    /// Version of the kubelet, with its `v`.
    pub(crate) kubelet_version: String,
    /// Name and version of the distribution.
    pub(crate) os_image: String,
    /// `linux` or `windows`.
    pub(crate) operating_system: String,
    /// Version of the kernel.
    pub(crate) kernel_version: String,
    /// Name and version of the container runtime, as `containerd://2.1.0`.
    pub(crate) container_runtime_version: String,
    /// `amd64`, `arm64` or another.
    pub(crate) architecture: String,
}

/// Nodes of one cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "NodeList")]
pub(crate) struct NodeListView {
    /// The nodes of this page.
    pub(crate) items: Vec<NodeView>,
    /// Give this as `cursor` to get the next page; null on the last one.
    pub(crate) next_cursor: Option<String>,
    /// The number of nodes that match, on all pages together.
    pub(crate) total: usize,
    /// The time of what is told here, RFC 3339 in UTC; while it is stale, when the cluster was last seen.
    pub(crate) as_of: String,
    /// Whether the cluster cannot be seen, so that this may be old.
    pub(crate) stale: bool,
}

/// Nodes of all clusters.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "AllNodesList")]
pub(crate) struct AllNodesView {
    /// The nodes of this page.
    pub(crate) items: Vec<NodeView>,
    /// Give this as `cursor` to get the next page; null on the last one.
    pub(crate) next_cursor: Option<String>,
    /// The number of nodes that match, on all pages together.
    pub(crate) total: usize,
    /// Every cluster, whether its nodes are among these or not, sorted by name.
    pub(crate) clusters: Vec<NodeSourceView>,
}

/// A cluster whose nodes were asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "NodeSource")]
pub(crate) struct NodeSourceView {
    /// The name of the cluster.
    pub(crate) name: String,
    /// Whether the cluster can be seen.
    pub(crate) state: ClusterStateView,
    /// The time of what is told of it, RFC 3339 in UTC; null if it was never seen.
    pub(crate) as_of: Option<String>,
    /// Whether what is told of it may be old.
    pub(crate) stale: bool,
    /// Why its nodes are missing; null if they are not.
    pub(crate) error: Option<String>,
}

impl NodeView {
    pub(crate) fn of(cluster: &ClusterName, node: &Node, requested: Option<&Resources>) -> Self {
        Self {
            name: node.name.as_str().to_owned(),
            uid: node.uid.clone(),
            cluster: cluster.as_str().to_owned(),
            roles: node.roles().into_iter().map(str::to_owned).collect(),
            status: node.status.into(),
            schedulable: node.schedulable,
            cordon: node.cordon.as_ref().map(CordonView::of),
            labels: node.labels.clone(),
            taints: node.taints.iter().map(TaintView::of).collect(),
            conditions: node.conditions.iter().map(ConditionView::of).collect(),
            addresses: node.addresses.iter().map(AddressView::of).collect(),
            capacity: (&node.capacity).into(),
            allocatable: (&node.allocatable).into(),
            requested: requested.map(ResourcesView::from),
            system: SystemView::of(&node.system),
            zone: node.zone.clone(),
            region: node.region.clone(),
            instance_type: node.instance_type.clone(),
            provider_id: node.provider_id.clone(),
            pod_cidrs: node.pod_cidrs.clone(),
            created_at: node.created_at.to_string(),
            resource_version: node.resource_version.clone(),
        }
    }
}

impl From<NodeStatus> for NodeStatusView {
    fn from(status: NodeStatus) -> Self {
        match status {
            NodeStatus::Ready => Self::Ready,
            NodeStatus::NotReady => Self::NotReady,
            NodeStatus::Unknown => Self::Unknown,
        }
    }
}

impl CordonView {
    fn of(cordon: &knm_model::Cordon) -> Self {
        Self {
            reason: cordon.reason.clone(),
            since: cordon.since.map(|time| time.to_string()),
            by: cordon.by.clone(),
            source: match cordon.source {
                CordonSource::KubeNodeManager => CordonSourceView::KubeNodeManager,
                CordonSource::FirstVersion => CordonSourceView::FirstVersion,
                CordonSource::Foreign => CordonSourceView::Foreign,
            },
            over_foreign: cordon.is_over_foreign(),
            holds: cordon.holds.iter().map(HoldView::of).collect(),
        }
    }
}

impl HoldView {
    fn of(hold: &knm_model::NotedHold) -> Self {
        Self {
            id: hold.id.map(|id| id.to_string()),
            by: hold.by.clone(),
            reason: hold.reason.clone(),
            ticket: hold.ticket.clone(),
            since: hold.since.map(|time| time.to_string()),
            until: hold.until.map(|time| time.to_string()),
        }
    }
}

impl TaintView {
    fn of(taint: &knm_model::Taint) -> Self {
        Self {
            key: taint.key.clone(),
            value: taint.value.clone(),
            effect: match taint.effect {
                TaintEffect::NoSchedule => TaintEffectView::NoSchedule,
                TaintEffect::PreferNoSchedule => TaintEffectView::PreferNoSchedule,
                TaintEffect::NoExecute => TaintEffectView::NoExecute,
            },
            added_at: taint.added_at.map(|time| time.to_string()),
        }
    }
}

impl ConditionView {
    fn of(condition: &knm_model::Condition) -> Self {
        Self {
            kind: condition.kind.clone(),
            status: condition.status.clone(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            last_transition_at: condition.last_transition_at.map(|time| time.to_string()),
            last_heartbeat_at: condition.last_heartbeat_at.map(|time| time.to_string()),
        }
    }
}

impl AddressView {
    fn of(address: &knm_model::NodeAddress) -> Self {
        Self {
            kind: address.kind.clone(),
            address: address.address.clone(),
        }
    }
}

impl SystemView {
    fn of(system: &knm_model::NodeSystem) -> Self {
        Self {
            kubelet_version: system.kubelet_version.clone(),
            os_image: system.os_image.clone(),
            operating_system: system.operating_system.clone(),
            kernel_version: system.kernel_version.clone(),
            container_runtime_version: system.container_runtime_version.clone(),
            architecture: system.architecture.clone(),
        }
    }
}

impl From<&Resources> for ResourcesView {
    fn from(resources: &Resources) -> Self {
        Self {
            cpu_millicores: resources.cpu_millicores,
            memory_bytes: resources.memory_bytes,
            ephemeral_storage_bytes: resources.ephemeral_storage_bytes,
            pods: resources.pods,
            extended: resources.extended.clone(),
        }
    }
}
