//! Simulated nodes. Only what changes is kept; the rest is worked out again from the seed whenever it is needed.

use std::collections::BTreeMap;
use std::time::Duration;

use knm_model::{
    Condition, Cordon, CordonSource, Node, NodeAddress, NodeName, NodeStatus, NodeSystem, Resources, Taint,
    TaintEffect, Timestamp,
};

use crate::chance::Chance;

const GIB: u64 = 1 << 30;
const ZONES: [&str; 3] = ["demo-1a", "demo-1b", "demo-1c"];
const REGION: &str = "demo-1";
/// One of these is on each node, so that each keeps one node of ten.
const SLICE_LABEL: &str = "demo.kube-node-manager.io/slice";
/// How long before the start of the simulation the oldest nodes were made, in days.
const OLDEST: u64 = 400;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What is kept of a simulated node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Simulated {
    /// Which node it is; never used twice.
    pub(crate) number: u64,
    pub(crate) created_at: Timestamp,
    pub(crate) status: NodeStatus,
    /// Since when it has this status.
    pub(crate) status_since: Timestamp,
    /// Whose cordon keeps it unschedulable, and since when. The simulation's own are never ours: those have holds, which only the service makes.
    pub(crate) cordon: Option<(CordonSource, Timestamp)>,
    pub(crate) heartbeat_at: Timestamp,
    pub(crate) revision: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    ControlPlane,
    Worker,
    Gpu,
    Ingress,
    /// Without any role label.
    None,
}

/// An instance type and what it has.
struct Machine {
    name: &'static str,
    cpus: u64,
    memory_gib: u64,
    architecture: &'static str,
    gpus: u64,
}

const CONTROL_PLANE: Machine = machine("demo.m4", 4, 16, "amd64", 0);
const INGRESS: Machine = machine("demo.c8", 8, 16, "amd64", 0);
const GPU: [Machine; 2] = [
    machine("demo.g32-4", 32, 256, "amd64", 4),
    machine("demo.g96-8", 96, 1024, "amd64", 8),
];
const WORKERS: [Machine; 4] = [
    machine("demo.m8", 8, 32, "amd64", 0),
    machine("demo.m16", 16, 64, "amd64", 0),
    machine("demo.r16", 16, 128, "amd64", 0),
    machine("demo.a16", 16, 64, "arm64", 0),
];

const fn machine(name: &'static str, cpus: u64, memory_gib: u64, architecture: &'static str, gpus: u64) -> Machine {
    Machine {
        name,
        cpus,
        memory_gib,
        architecture,
        gpus,
    }
}

impl Role {
    /// The role of a node in a fleet that began with `fleet` nodes.
    pub(crate) fn of(number: u64, fleet: u64) -> Self {
        let control_plane = if fleet < 10 { 1 } else { 3 };
        match number {
            _ if number < control_plane => Self::ControlPlane,
            _ if number % 12 == 5 => Self::Gpu,
            _ if number % 15 == 7 => Self::Ingress,
            _ if number % 20 == 13 => Self::None,
            _ => Self::Worker,
        }
    }

    fn pool(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Worker => "worker",
            Self::Gpu => "gpu",
            Self::Ingress => "ingress",
            Self::None => "spare",
        }
    }
}

impl Simulated {
    /// The node that the fleet has under this number when it starts.
    pub(crate) fn initial(seed: u64, number: u64, fleet: u64, started_at: Timestamp) -> Self {
        let mut chance = Chance::of(seed, number, 1);
        let before = |duration: Duration| {
            let millis = i64::try_from(duration.as_millis()).unwrap_or(0);
            Timestamp::from_unix_millis(started_at.unix_millis() - millis).unwrap_or(started_at)
        };
        let age = DAY + Duration::from_secs(chance.below(OLDEST * 24 * 3600));
        let recent = before(Duration::from_secs(60 + chance.below(20 * 3600)));
        let control_plane = Role::of(number, fleet) == Role::ControlPlane;
        let status = match chance.below(40) {
            0 if !control_plane => NodeStatus::NotReady,
            1 if !control_plane => NodeStatus::Unknown,
            _ => NodeStatus::Ready,
        };
        let cordon = match chance.below(36) {
            0 | 2 if !control_plane => Some(CordonSource::Foreign),
            1 if !control_plane => Some(CordonSource::FirstVersion),
            _ => None,
        };
        Self {
            number,
            created_at: before(age),
            status,
            status_since: if status == NodeStatus::Ready {
                before(age)
            } else {
                recent
            },
            cordon: cordon.map(|source| (source, recent)),
            heartbeat_at: started_at,
            revision: number + 1,
        }
    }

    pub(crate) fn name(number: u64, fleet: u64) -> String {
        format!("{}-{number:05}", Role::of(number, fleet).pool())
    }

    /// The whole node.
    pub(crate) fn node(&self, seed: u64, fleet: u64, name: &NodeName) -> Node {
        let mut chance = Chance::of(seed, self.number, 2);
        let role = Role::of(self.number, fleet);
        let zone = ZONES[(self.number % 3) as usize];
        let pick = chance.next() as usize;
        let machine = match role {
            Role::ControlPlane => &CONTROL_PLANE,
            Role::Ingress => &INGRESS,
            Role::Gpu => &GPU[pick % GPU.len()],
            Role::Worker | Role::None => &WORKERS[pick % WORKERS.len()],
        };
        let [_, _, _, _, _, high, middle, low] = self.number.to_be_bytes();
        let address = |kind: &str, address: String| NodeAddress {
            kind: kind.to_owned(),
            address,
        };
        Node {
            name: name.clone(),
            uid: chance.uid(),
            resource_version: self.revision.to_string(),
            created_at: self.created_at,
            labels: self.labels(role, zone, machine, name),
            taints: self.taints(role),
            schedulable: self.cordon.is_none(),
            cordon: self.cordon.map(|(source, since)| cordon(source, since, &mut chance)),
            status: self.status,
            conditions: self.conditions(),
            addresses: vec![
                address("InternalIP", format!("10.{}.{middle}.{low}", 64 + high)),
                address("Hostname", name.to_string()),
            ],
            capacity: resources(machine, 0, 0),
            allocatable: resources(machine, 200, GIB),
            system: NodeSystem {
                kubelet_version: if chance.below(8) == 0 { "v1.35.4" } else { "v1.36.0" }.to_owned(),
                os_image: "Debian GNU/Linux 13 (trixie)".to_owned(),
                operating_system: "linux".to_owned(),
                kernel_version: format!("6.12.38-cloud-{}", machine.architecture),
                container_runtime_version: "containerd://2.1.4".to_owned(),
                architecture: machine.architecture.to_owned(),
            },
            zone: Some(zone.to_owned()),
            region: Some(REGION.to_owned()),
            instance_type: Some(machine.name.to_owned()),
            provider_id: Some(format!("demo:///{zone}/{name}")),
            pod_cidrs: vec![format!("10.{}.{middle}.0/24", 128 + low % 64)],
        }
    }

    fn labels(&self, role: Role, zone: &str, machine: &Machine, name: &NodeName) -> BTreeMap<String, String> {
        let mut labels: BTreeMap<String, String> = [
            ("kubernetes.io/arch", machine.architecture),
            ("kubernetes.io/hostname", name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("node.kubernetes.io/instance-type", machine.name),
            ("pool", role.pool()),
            ("topology.kubernetes.io/region", REGION),
            ("topology.kubernetes.io/zone", zone),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        labels.insert(SLICE_LABEL.to_owned(), (self.number % 10).to_string());
        if role != Role::None {
            labels.insert(format!("node-role.kubernetes.io/{}", role.pool()), String::new());
        }
        if role == Role::Gpu {
            labels.insert("node-role.kubernetes.io/worker".to_owned(), String::new());
            labels.insert("nvidia.com/gpu.present".to_owned(), "true".to_owned());
        }
        labels
    }

    fn taints(&self, role: Role) -> Vec<Taint> {
        let taint = |key: &str, value: &str, effect, added_at| Taint {
            key: key.to_owned(),
            value: value.to_owned(),
            effect,
            added_at,
        };
        let own = match role {
            Role::ControlPlane => Some(taint(
                "node-role.kubernetes.io/control-plane",
                "",
                TaintEffect::NoSchedule,
                None,
            )),
            Role::Gpu => Some(taint("nvidia.com/gpu", "present", TaintEffect::NoSchedule, None)),
            Role::Ingress => Some(taint("dedicated", "ingress", TaintEffect::PreferNoSchedule, None)),
            Role::Worker | Role::None => None,
        };
        let since = Some(self.status_since);
        let of_status = match self.status {
            NodeStatus::Ready => None,
            NodeStatus::NotReady => Some(taint("node.kubernetes.io/not-ready", "", TaintEffect::NoExecute, since)),
            NodeStatus::Unknown => Some(taint(
                "node.kubernetes.io/unreachable",
                "",
                TaintEffect::NoExecute,
                since,
            )),
        };
        let of_cordon = self.cordon.map(|(_, since)| {
            let key = "node.kubernetes.io/unschedulable";
            taint(key, "", TaintEffect::NoSchedule, Some(since))
        });
        [own, of_status, of_cordon].into_iter().flatten().collect()
    }

    fn conditions(&self) -> Vec<Condition> {
        let condition = |kind: &str, status: &str, reason: &str, message: &str, since| Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_at: Some(since),
            last_heartbeat_at: Some(self.heartbeat_at),
        };
        let silent = "kubelet stopped posting node status";
        let pressure = |kind: &str, reason: &str, message: &str| match self.status {
            NodeStatus::Unknown => condition(kind, "Unknown", "NodeStatusUnknown", silent, self.status_since),
            NodeStatus::Ready | NodeStatus::NotReady => condition(kind, "False", reason, message, self.created_at),
        };
        let (status, reason, message) = match self.status {
            NodeStatus::Ready => ("True", "KubeletReady", "kubelet is posting ready status"),
            NodeStatus::NotReady => ("False", "KubeletNotReady", "container runtime is not running"),
            NodeStatus::Unknown => ("Unknown", "NodeStatusUnknown", silent),
        };
        vec![
            pressure("MemoryPressure", "KubeletHasSufficientMemory", "memory is available"),
            pressure("DiskPressure", "KubeletHasNoDiskPressure", "disk space is available"),
            pressure("PIDPressure", "KubeletHasSufficientPID", "process ids are available"),
            condition("Ready", status, reason, message, self.status_since),
        ]
    }
}

fn cordon(source: CordonSource, since: Timestamp, chance: &mut Chance) -> Cordon {
    const REASONS: [&str; 4] = ["disk errors", "kernel upgrade", "memory test", "moving to another rack"];
    let reason = match source {
        CordonSource::FirstVersion => Some(REASONS[chance.below(4) as usize].to_owned()),
        // The record of a cordon of ours are its holds: they stand with what was changed, and the simulation makes none.
        CordonSource::KubeNodeManager | CordonSource::Foreign => None,
    };
    Cordon {
        reason,
        since: Some(since),
        by: None,
        source,
        holds: Vec::new(),
    }
}

fn resources(machine: &Machine, less_millicores: u64, less_bytes: u64) -> Resources {
    let gpus = (0 < machine.gpus).then(|| ("nvidia.com/gpu".to_owned(), machine.gpus));
    Resources {
        cpu_millicores: machine.cpus * 1000 - less_millicores,
        memory_bytes: machine.memory_gib * GIB - less_bytes,
        ephemeral_storage_bytes: 200 * GIB - 10 * less_bytes,
        pods: 110,
        extended: gpus.into_iter().collect(),
    }
}
