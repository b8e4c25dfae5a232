//! What runs on simulated nodes, worked out from the seed whenever somebody asks.

use std::collections::BTreeMap;

use knm_model::{
    Controller, DisruptionBudget, NodeName, NodeStatus, ObjectName, Operator, Pod, PodPhase, PodRequests, Requirement,
    Selector, Toleration, TolerationOperator, UnhealthyPods,
};

use crate::chance::Chance;
use crate::simulated::{Role, Simulated};

const MIB: u64 = 1 << 20;
/// Where the numbers of what is drawn for applications begin, so that nodes draw others.
const TOPIC: u64 = 100;

/// Something that runs on many nodes.
struct Application {
    namespace: &'static str,
    name: &'static str,
    kind: Kind,
    cpu_millicores: u64,
    memory_mib: u64,
    /// How many nodes of a hundred have a pod of it; daemon sets are on all.
    share: u64,
    /// How many of a hundred pods its budget keeps, if it has one.
    budget: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    DaemonSet,
    Deployment,
    StatefulSet,
    Job,
    Unmanaged,
}

const APPLICATIONS: [Application; 12] = [
    application("kube-system", "cilium", Kind::DaemonSet, 100, 256, 100, None),
    application("kube-system", "kube-proxy", Kind::DaemonSet, 50, 64, 100, None),
    application("monitoring", "node-exporter", Kind::DaemonSet, 50, 64, 100, None),
    application("shop", "web", Kind::Deployment, 500, 512, 60, Some(90)),
    application("shop", "cart", Kind::Deployment, 250, 256, 40, Some(80)),
    application("shop", "search", Kind::Deployment, 1000, 2048, 20, None),
    application("payments", "ledger", Kind::Deployment, 500, 1024, 15, Some(100)),
    application("data", "postgres", Kind::StatefulSet, 2000, 8192, 8, Some(100)),
    application("data", "kafka", Kind::StatefulSet, 1000, 4096, 10, Some(66)),
    application("batch", "report", Kind::Job, 500, 512, 10, None),
    application("ml", "training", Kind::Job, 4000, 16384, 50, None),
    application("default", "debug", Kind::Unmanaged, 100, 128, 3, None),
];

const fn application(
    namespace: &'static str,
    name: &'static str,
    kind: Kind,
    cpu_millicores: u64,
    memory_mib: u64,
    share: u64,
    budget: Option<u64>,
) -> Application {
    Application {
        namespace,
        name,
        kind,
        cpu_millicores,
        memory_mib,
        share,
        budget,
    }
}

/// What makes up for pods that a node lacks.
const FILLER: Application = application("load", "filler", Kind::Deployment, 10, 16, 100, None);
/// Where the numbers of what is drawn for those begin.
const FILLER_TOPIC: u64 = 10_000;

/// What a fleet runs.
#[derive(Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) seed: u64,
    /// How many nodes the fleet began with.
    pub(crate) fleet: u64,
    /// How many pods each node has at least.
    pub(crate) pods_per_node: usize,
}

impl Workload {
    /// The pods on a node, in no particular order.
    pub(crate) fn pods(self, name: &NodeName, node: &Simulated) -> Vec<Pod> {
        let mut pods: Vec<Pod> = (TOPIC..)
            .zip(&APPLICATIONS)
            .filter(|(topic, application)| application.runs_on(self.seed, *topic, self.fleet, node))
            .map(|(topic, application)| application.pod(self.seed, topic, name, node))
            .collect();
        let lacks = self.pods_per_node.saturating_sub(pods.len());
        pods.extend(self.fillers(lacks, name, node));
        pods
    }

    /// The pod under this name, if it is one of those on the node.
    pub(crate) fn pod(self, host: &NodeName, node: &Simulated, namespace: &str, name: &str) -> Option<Pod> {
        if namespace == FILLER.namespace {
            return self
                .pods(host, node)
                .into_iter()
                .find(|pod| pod.namespace == namespace && pod.name == name);
        }
        (TOPIC..)
            .zip(&APPLICATIONS)
            .filter(|(_, application)| application.namespace == namespace && name.starts_with(application.name))
            .filter(|(topic, application)| application.runs_on(self.seed, *topic, self.fleet, node))
            .map(|(topic, application)| application.pod(self.seed, topic, host, node))
            .find(|pod| pod.name == name)
    }

    /// The budgets of a fleet of these nodes, in no particular order.
    pub(crate) fn budgets<'a>(self, nodes: impl Iterator<Item = &'a Simulated> + Clone) -> Vec<DisruptionBudget> {
        (TOPIC..)
            .zip(&APPLICATIONS)
            .filter_map(|(topic, application)| {
                let hosts = nodes
                    .clone()
                    .filter(|node| application.runs_on(self.seed, topic, self.fleet, node));
                let (mut expected, mut healthy) = (0, 0);
                for host in hosts {
                    expected += 1;
                    healthy += u64::from(host.status == NodeStatus::Ready);
                }
                Some(application.disruption_budget(application.budget?, expected, healthy))
            })
            .collect()
    }

    fn fillers(self, count: usize, name: &NodeName, node: &Simulated) -> impl Iterator<Item = Pod> {
        let topics = (FILLER_TOPIC..).take(count);
        topics.map(move |topic| FILLER.pod(self.seed, topic, name, node))
    }
}

/// The DaemonSets of a fleet.
pub(crate) fn daemon_sets() -> impl Iterator<Item = ObjectName> {
    let daemon_sets = APPLICATIONS
        .iter()
        .filter(|application| application.kind == Kind::DaemonSet);
    daemon_sets.map(|application| ObjectName {
        namespace: application.namespace.to_owned(),
        name: application.name.to_owned(),
    })
}

impl Application {
    fn runs_on(&self, seed: u64, topic: u64, fleet: u64, node: &Simulated) -> bool {
        let role = Role::of(node.number, fleet);
        let welcome = match self.kind {
            Kind::DaemonSet => true,
            _ if self.namespace == "ml" => role == Role::Gpu,
            _ => role == Role::Worker || role == Role::None,
        };
        welcome && Chance::of(seed, node.number, topic).below(100) < self.share
    }

    fn pod(&self, seed: u64, topic: u64, name: &NodeName, node: &Simulated) -> Pod {
        let mut chance = Chance::of(seed, node.number, topic + TOPIC);
        // The same for all pods of one application, as the hash of a pod template is.
        let template = Chance::new(seed ^ topic).suffix(9);
        let (pod_name, controller) = match self.kind {
            Kind::DaemonSet => (
                format!("{}-{}", self.name, chance.suffix(5)),
                Some(("DaemonSet", self.name.to_owned())),
            ),
            Kind::Deployment => {
                let replica_set = format!("{}-{template}", self.name);
                (
                    format!("{replica_set}-{}", chance.suffix(5)),
                    Some(("ReplicaSet", replica_set)),
                )
            }
            Kind::StatefulSet => (
                format!("{}-{}", self.name, node.number),
                Some(("StatefulSet", self.name.to_owned())),
            ),
            Kind::Job => {
                let job = format!("{}-{}", self.name, 29_000_000 + chance.below(100_000));
                (format!("{job}-{}", chance.suffix(5)), Some(("Job", job)))
            }
            Kind::Unmanaged => (format!("{}-{}", self.name, node.number), None),
        };
        let ended = self.kind == Kind::Job && chance.below(2) == 0;
        let phase = match (ended, node.status) {
            (true, _) => PodPhase::Succeeded,
            (false, NodeStatus::Unknown) => PodPhase::Unknown,
            (false, NodeStatus::Ready | NodeStatus::NotReady) => PodPhase::Running,
        };
        let mut extended = BTreeMap::new();
        if self.namespace == "ml" {
            extended.insert("nvidia.com/gpu".to_owned(), 1);
        }
        Pod {
            namespace: self.namespace.to_owned(),
            name: pod_name,
            uid: chance.uid(),
            node: name.clone(),
            labels: BTreeMap::from([("app".to_owned(), self.name.to_owned())]),
            phase,
            ready: phase == PodPhase::Running && node.status == NodeStatus::Ready,
            controller: controller.map(|(kind, name)| Controller {
                api_version: if kind == "Job" { "batch/v1" } else { "apps/v1" }.to_owned(),
                kind: kind.to_owned(),
                name,
            }),
            requests: PodRequests {
                cpu_millicores: self.cpu_millicores,
                memory_bytes: self.memory_mib * MIB,
                ephemeral_storage_bytes: 0,
                extended,
            },
            created_at: Some(node.created_at),
            deletion_at: None,
            deletion_grace: None,
            is_mirror: false,
            has_empty_dir: self.has_empty_dir(),
            priority: self.priority().map_or(0, |(_, priority)| priority),
            priority_class: self.priority().map(|(class, _)| class.to_owned()),
            node_selector: self.node_selector(),
            node_terms: None,
            tolerations: self.toleration().into_iter().collect(),
        }
    }

    fn has_empty_dir(&self) -> bool {
        self.name == "search" || self.name == "node-exporter"
    }

    fn priority(&self) -> Option<(&'static str, i32)> {
        match (self.kind, self.namespace) {
            (Kind::DaemonSet, _) => Some(("system-node-critical", 2_000_001_000)),
            (_, "data" | "payments") => Some(("business-critical", 1_000)),
            (_, "batch" | "ml") => Some(("preemptible", -10)),
            _ => None,
        }
    }

    fn node_selector(&self) -> BTreeMap<String, String> {
        let pool = (self.namespace == "ml").then(|| ("pool".to_owned(), "gpu".to_owned()));
        pool.into_iter().collect()
    }

    fn toleration(&self) -> Option<Toleration> {
        let key = match (self.kind, self.namespace) {
            (Kind::DaemonSet, _) => "",
            (_, "ml") => "nvidia.com/gpu",
            _ => return None,
        };
        Some(Toleration {
            key: key.to_owned(),
            operator: TolerationOperator::Exists,
            effect: None,
        })
    }

    fn disruption_budget(&self, percent: u64, expected: u64, healthy: u64) -> DisruptionBudget {
        let desired = (expected * percent).div_ceil(100);
        let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        DisruptionBudget {
            namespace: self.namespace.to_owned(),
            name: self.name.to_owned(),
            selector: Some(Selector::new(vec![Requirement {
                key: "app".to_owned(),
                operator: Operator::In([self.name.to_owned()].into()),
            }])),
            disruptions_allowed: count(healthy.saturating_sub(desired)),
            current_healthy: count(healthy),
            desired_healthy: count(desired),
            expected_pods: count(expected),
            unhealthy_pods: UnhealthyPods::IfHealthyBudget,
        }
    }
}
