//! Pods as a cluster has them.

use std::collections::{BTreeMap, BTreeSet};

use knm_model::{
    Controller, NodeName, NodeTerm, Operator, Pod, PodPhase, PodRequests, Requirement, TaintEffect, Timestamp,
    Toleration, TolerationOperator,
};

use crate::Failure;

/// How many pods are on each node.
const PER_NODE: usize = 30;
/// How many of these belong to DaemonSets.
const DAEMONS: usize = 8;
/// How many pods each ReplicaSet has.
const REPLICAS: usize = 10;
const TAINTS_OF_NODES: [&str; 6] = [
    "disk-pressure",
    "memory-pressure",
    "network-unavailable",
    "not-ready",
    "pid-pressure",
    "unreachable",
];

/// The pod with this number of a cluster: names, ids, labels, tolerations and affinity as long as those of real ones. Most belong to
/// ReplicaSets, the others to DaemonSets.
pub fn pod(number: usize) -> Result<Pod, Failure> {
    let place = number % PER_NODE;
    let node = NodeName::parse(&format!(
        "ip-10-{:03}-worker.region-1.compute.internal",
        number / PER_NODE
    ))?;
    let (set, kind, controller) = match place {
        0..DAEMONS => (place, "DaemonSet", format!("node-agent-{place}")),
        _ => (
            number / REPLICAS,
            "ReplicaSet",
            format!("checkout-service-{:04}-7d9f8c6b54", number / REPLICAS),
        ),
    };
    let is_daemon = kind == "DaemonSet";
    let labels = [
        ("app.kubernetes.io/component", "backend".to_owned()),
        ("app.kubernetes.io/instance", format!("production-{set:04}")),
        ("app.kubernetes.io/managed-by", "Helm".to_owned()),
        ("app.kubernetes.io/name", controller.clone()),
        ("app.kubernetes.io/part-of", "web-shop".to_owned()),
        ("app.kubernetes.io/version", format!("1.{}.0", set % 40)),
        ("example.com/cost-center", format!("{}", 4_000 + set % 50)),
        ("example.com/team", format!("team-{}", set % 60)),
        ("helm.sh/chart", format!("web-shop-2.{}.1", set % 40)),
        ("pod-template-hash", format!("7d9f8c{set:04x}")),
    ];
    Ok(Pod {
        namespace: format!("team-{}-production", set % 60),
        name: format!("{controller}-{number:05x}"),
        uid: format!("3f2504e0-4f89-41d3-9a0c-{number:012x}"),
        labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
        phase: PodPhase::Running,
        ready: true,
        controller: Some(Controller {
            api_version: "apps/v1".to_owned(),
            kind: kind.to_owned(),
            name: controller,
        }),
        requests: PodRequests {
            cpu_millicores: 250,
            memory_bytes: 512 << 20,
            ..PodRequests::default()
        },
        created_at: Some(Timestamp::parse("2030-01-01T00:00:00Z")?),
        deletion_at: None,
        deletion_grace: None,
        is_mirror: false,
        has_empty_dir: false,
        priority: if is_daemon { 2_000_001_000 } else { 0 },
        priority_class: is_daemon.then(|| "system-node-critical".to_owned()),
        node_selector: BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())]),
        node_terms: is_daemon.then(|| vec![only(&node)]),
        tolerations: tolerations(is_daemon),
        node,
    })
}

/// What the controller of DaemonSets asks for each of its pods.
fn only(node: &NodeName) -> NodeTerm {
    NodeTerm {
        labels: Vec::new(),
        fields: vec![Requirement {
            key: "metadata.name".to_owned(),
            operator: Operator::In(BTreeSet::from([node.to_string()])),
        }],
    }
}

/// What Kubernetes adds to every pod, and more of it to those of DaemonSets.
fn tolerations(is_daemon: bool) -> Vec<Toleration> {
    let known = TAINTS_OF_NODES.iter();
    known
        .filter(|taint| is_daemon || ["not-ready", "unreachable"].contains(taint))
        .map(|taint| Toleration {
            key: format!("node.kubernetes.io/{taint}"),
            operator: TolerationOperator::Exists,
            effect: Some(TaintEffect::NoExecute),
        })
        .collect()
}
