//! A node as this service shows it.

use std::collections::BTreeMap;

use crate::{Cordon, NodeName, PodRequests, Taint, Timestamp};

/// Everything that is kept of a node; managed fields, image lists and foreign annotations are not.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name, unique in its cluster.
    pub name: NodeName,
    /// The cluster's own id of this object: another node under the same name has another one.
    pub uid: String,
    /// The version of the object that the API server gave it; only ever compared for equality.
    pub resource_version: String,
    /// When the object was created.
    pub created_at: Timestamp,
    /// Labels as they are on the node.
    pub labels: BTreeMap<String, String>,
    /// Taints in the node's order.
    pub taints: Vec<Taint>,
    /// Whether the scheduler may place pods (`spec.unschedulable` is not set).
    pub schedulable: bool,
    /// Who keeps the node unschedulable and why; `None` while it is schedulable.
    pub cordon: Option<Cordon>,
    /// What the `Ready` condition says.
    pub status: NodeStatus,
    /// All conditions, `Ready` among them, in the node's order.
    pub conditions: Vec<Condition>,
    /// Addresses in the node's order.
    pub addresses: Vec<NodeAddress>,
    /// What the machine has.
    pub capacity: Resources,
    /// What pods may use of it.
    pub allocatable: Resources,
    /// Versions of what runs on it.
    pub system: NodeSystem,
    /// `topology.kubernetes.io/zone`, or the older label that it replaced.
    pub zone: Option<String>,
    /// `topology.kubernetes.io/region`, or the older label that it replaced.
    pub region: Option<String>,
    /// `node.kubernetes.io/instance-type`, or the older label that it replaced.
    pub instance_type: Option<String>,
    /// The cloud's own name of the machine (`spec.providerID`).
    pub provider_id: Option<String>,
    /// Ranges that pods on this node get their addresses from.
    pub pod_cidrs: Vec<String>,
}

/// What a node's `Ready` condition says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeStatus {
    /// `Ready` is `True`.
    Ready,
    /// `Ready` is `False`.
    NotReady,
    /// `Ready` is `Unknown` or not there: the kubelet was not heard of for a while, or never.
    Unknown,
}

impl NodeStatus {
    /// All of them, in the order in which they sort.
    pub const ALL: [Self; 3] = [Self::Ready, Self::NotReady, Self::Unknown];

    /// Reads it off a node's conditions.
    #[must_use]
    pub fn of(conditions: &[Condition]) -> Self {
        match conditions
            .iter()
            .find(|condition| condition.kind == "Ready")
            .map(|condition| condition.status.as_str())
        {
            Some("True") => Self::Ready,
            Some("False") => Self::NotReady,
            _ => Self::Unknown,
        }
    }

    /// `ready`, `not_ready` or `unknown`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::NotReady => "not_ready",
            Self::Unknown => "unknown",
        }
    }
}

/// One condition of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `Ready`, `MemoryPressure`, `DiskPressure`, …: any name that somebody reports.
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// A word for why, may be empty.
    pub reason: String,
    /// A sentence for why, may be empty.
    pub message: String,
    /// When the status last changed.
    pub last_transition_at: Option<Timestamp>,
    /// When it was last reported.
    pub last_heartbeat_at: Option<Timestamp>,
}

/// An address of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname`, `InternalDNS` or `ExternalDNS`.
    pub kind: String,
    /// The address or name.
    pub address: String,
}

/// Amounts of what a node has, in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpu_millicores: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of local disk for pods.
    pub ephemeral_storage_bytes: u64,
    /// Number of pods.
    pub pods: u64,
    /// Everything else by its resource name (`nvidia.com/gpu`, `hugepages-2Mi` in bytes, …).
    pub extended: BTreeMap<String, u64>,
}

impl Resources {
    /// Adds `other` to this, never past the largest number.
    pub fn add(&mut self, other: &Self) {
        self.cpu_millicores = self.cpu_millicores.saturating_add(other.cpu_millicores);
        self.memory_bytes = self.memory_bytes.saturating_add(other.memory_bytes);
        self.ephemeral_storage_bytes = self
            .ephemeral_storage_bytes
            .saturating_add(other.ephemeral_storage_bytes);
        self.pods = self.pods.saturating_add(other.pods);
        for (name, amount) in &other.extended {
            let sum = self.extended.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    /// Takes `other` away from this, never past zero. What this has nothing of stays so.
    pub fn subtract(&mut self, other: &Self) {
        self.cpu_millicores = self.cpu_millicores.saturating_sub(other.cpu_millicores);
        self.memory_bytes = self.memory_bytes.saturating_sub(other.memory_bytes);
        self.ephemeral_storage_bytes = self
            .ephemeral_storage_bytes
            .saturating_sub(other.ephemeral_storage_bytes);
        self.pods = self.pods.saturating_sub(other.pods);
        for (name, amount) in &other.extended {
            if let Some(left) = self.extended.get_mut(name) {
                *left = left.saturating_sub(*amount);
            }
        }
    }

    /// What one pod takes that asks for this.
    #[must_use]
    pub fn of_pod(requests: &PodRequests) -> Self {
        Self {
            cpu_millicores: requests.cpu_millicores,
            memory_bytes: requests.memory_bytes,
            ephemeral_storage_bytes: requests.ephemeral_storage_bytes,
            pods: 1,
            extended: requests.extended.clone(),
        }
    }
}

/// What runs on a node, as its kubelet reports it; empty where it reported nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSystem {
    /// Version of the kubelet, with its `v`.
    pub kubelet_version: String,
    /// Name and version of the Linux distribution or Windows edition.
    pub os_image: String,
    /// `linux` or `windows`.
    pub operating_system: String,
    /// Version of the kernel.
    pub kernel_version: String,
    /// Name and version of the container runtime, as `containerd://2.1.0`.
    pub container_runtime_version: String,
    /// `amd64`, `arm64`, ….
    pub architecture: String,
}

/// A node's roles: the last part of its `node-role.kubernetes.io/<role>` labels and the value of `kubernetes.io/role`,
/// sorted, each once.
pub fn roles_of(labels: &BTreeMap<String, String>) -> Vec<&str> {
    let mut roles: Vec<&str> = labels
        .iter()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => Some(value.as_str()),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    roles
}

impl Node {
    /// Names the state of the object: its id and its version.
    #[must_use]
    pub fn version(&self) -> String {
        format!("{}-{}", self.uid, self.resource_version)
    }

    /// The node's roles, see [`roles_of`].
    #[must_use]
    pub fn roles(&self) -> Vec<&str> {
        roles_of(&self.labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: &str, status: &str) -> Condition {
        Condition {
            kind: kind.into(),
            status: status.into(),
            reason: String::new(),
            message: String::new(),
            last_transition_at: None,
            last_heartbeat_at: None,
        }
    }

    #[test]
    fn the_ready_condition_is_the_status() {
        let pressure = condition("MemoryPressure", "True");
        for (text, status) in [
            ("True", NodeStatus::Ready),
            ("False", NodeStatus::NotReady),
            ("Unknown", NodeStatus::Unknown),
        ] {
            assert_eq!(NodeStatus::of(&[pressure.clone(), condition("Ready", text)]), status);
        }
        assert_eq!(NodeStatus::of(&[pressure]), NodeStatus::Unknown);
    }

    #[test]
    fn roles_come_from_both_kinds_of_labels() {
        let labels = [
            ("node-role.kubernetes.io/worker", ""),
            ("node-role.kubernetes.io/gpu", "true"),
            ("kubernetes.io/role", "worker"),
            ("node-role.kubernetes.io/", ""),
            ("zone", "a"),
        ];
        let labels = labels
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        assert_eq!(roles_of(&labels), ["gpu", "worker"]);
    }

    #[test]
    fn sums_stop_at_the_largest_number() {
        let mut sum = Resources {
            pods: u64::MAX,
            ..Resources::default()
        };
        let gpu = BTreeMap::from([("nvidia.com/gpu".to_owned(), 4)]);
        sum.add(&Resources {
            pods: 1,
            extended: gpu.clone(),
            ..Resources::default()
        });
        sum.add(&Resources {
            extended: gpu,
            ..Resources::default()
        });
        assert_eq!((sum.pods, sum.extended["nvidia.com/gpu"]), (u64::MAX, 8));
    }

    #[test]
    fn differences_stop_at_zero() {
        let mut left = Resources {
            pods: 1,
            memory_bytes: 5,
            ..Resources::default()
        };
        let taken = Resources {
            pods: 2,
            memory_bytes: 3,
            extended: BTreeMap::from([("nvidia.com/gpu".to_owned(), 4)]),
            ..Resources::default()
        };
        left.subtract(&taken);
        let expected = Resources {
            memory_bytes: 2,
            ..Resources::default()
        };
        assert_eq!(left, expected);
    }
}
