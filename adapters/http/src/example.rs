//! Examples of answers for the document, made by the code that makes the answers.

use std::collections::BTreeMap;

use knm_domain::{NodePods, PodOnNode};
use knm_model::{
    ClusterName, Condition, Controller, Node, NodeAddress, NodeName, NodeStatus, NodeSystem, Pod, PodPhase,
    PodRequests, Resources, Taint, TaintEffect, Timestamp,
};
use serde_json::{Value, json};

use crate::view::{NodeView, PodListView};

/// The time of all examples: 2030-01-01T00:00:00Z.
fn time() -> Option<Timestamp> {
    Timestamp::from_unix_millis(1_893_456_000_000)
}

/// A node.
pub(crate) fn node_view() -> Option<NodeView> {
    Some(NodeView::of(&ClusterName::from_any("demo"), &node(time()?)?))
}

/// The pods on that node.
pub(crate) fn pod_list_view() -> Option<PodListView> {
    let time = time()?;
    Some(PodListView::of(&NodePods {
        pods: vec![pod(&node(time)?, time)],
        as_of: time,
    }))
}

/// An example of what the operation answers with, `None` where the schema says enough.
pub(crate) fn of(operation: &str) -> Option<Value> {
    let time = time()?;
    let listed = || serde_json::to_value(node_view()?).ok();
    let status = json!({
        "name": "demo", "source": "demo", "state": "healthy", "reason": null, "nodes": 30, "as_of": time,
        "stale": false, "server_version": "v1.36.0", "registered_at": time,
    });
    Some(match operation {
        "getNode" => listed()?,
        "listNodes" => {
            json!({"items": [listed()?], "next_cursor": null, "total": 1, "as_of": time, "stale": false})
        }
        "listAllNodes" => json!({
            "items": [listed()?], "next_cursor": null, "total": 1,
            "clusters": [
                {"name": "demo", "state": "healthy", "as_of": time, "stale": false, "error": null},
                {"name": "edge", "state": "degraded", "as_of": null, "stale": true, "error": "the cluster cannot be reached"},
            ],
        }),
        "listPodsOnNode" => serde_json::to_value(pod_list_view()?).ok()?,
        "getCluster" => status,
        "listClusters" => json!({"items": [status], "next_cursor": null, "total": 1}),
        "getHealth" => json!({
            "status": "healthy", "service": "kube-node-manager", "version": "2.0.0",
            "timestamp": "2030-01-01T00:00:00Z", "uptime": "2h30m15s",
        }),
        "getLiveness" => json!({"status": "alive", "timestamp": "2030-01-01T00:00:00Z"}),
        _ => return None,
    })
}

fn node(time: Timestamp) -> Option<Node> {
    let labels = [
        ("kubernetes.io/hostname", "worker-a-1"),
        ("node-role.kubernetes.io/worker", ""),
        ("topology.kubernetes.io/zone", "zone-a"),
    ];
    let capacity = Resources {
        cpu_millicores: 8_000,
        memory_bytes: 34_359_738_368,
        ephemeral_storage_bytes: 107_374_182_400,
        pods: 110,
        extended: BTreeMap::from([("nvidia.com/gpu".to_owned(), 1)]),
    };
    Some(Node {
        name: NodeName::parse("worker-a-1").ok()?,
        uid: "7f3c0a52-91de-4b6e-8a3f-2d1c5e9b7a10".to_owned(),
        resource_version: "4711".to_owned(),
        created_at: time,
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        taints: vec![Taint {
            key: "example.com/dedicated".to_owned(),
            value: "batch".to_owned(),
            effect: TaintEffect::NoSchedule,
            added_at: None,
        }],
        schedulable: true,
        cordon: None,
        status: NodeStatus::Ready,
        conditions: vec![Condition {
            kind: "Ready".to_owned(),
            status: "True".to_owned(),
            reason: "KubeletReady".to_owned(),
            message: "kubelet is posting ready status".to_owned(),
            last_transition_at: Some(time),
            last_heartbeat_at: Some(time),
        }],
        addresses: vec![NodeAddress {
            kind: "InternalIP".to_owned(),
            address: "192.0.2.11".to_owned(),
        }],
        allocatable: Resources {
            cpu_millicores: 7_800,
            ..capacity.clone()
        },
        capacity,
        system: NodeSystem {
            kubelet_version: "v1.36.0".to_owned(),
            os_image: "Debian GNU/Linux 13".to_owned(),
            operating_system: "linux".to_owned(),
            kernel_version: "6.12.0".to_owned(),
            container_runtime_version: "containerd://2.1.0".to_owned(),
            architecture: "amd64".to_owned(),
        },
        zone: Some("zone-a".to_owned()),
        region: Some("region-1".to_owned()),
        instance_type: Some("m5.2xlarge".to_owned()),
        provider_id: Some("example:///zone-a/i-0123".to_owned()),
        pod_cidrs: vec!["203.0.113.0/24".to_owned()],
    })
}

fn pod(node: &Node, time: Timestamp) -> PodOnNode {
    PodOnNode {
        pod: Pod {
            namespace: "shop".to_owned(),
            name: "web-5c9f-x2x1".to_owned(),
            uid: "0b9e6a34-7a7e-4f5e-9a50-6f0a4c1d2e3f".to_owned(),
            node: node.name.clone(),
            labels: BTreeMap::new(),
            phase: PodPhase::Running,
            ready: true,
            controller: Some(Controller {
                kind: "ReplicaSet".to_owned(),
                name: "web-5c9f".to_owned(),
            }),
            requests: PodRequests {
                cpu_millicores: 250,
                memory_bytes: 268_435_456,
                ..PodRequests::default()
            },
            created_at: Some(time),
            deletion_at: None,
        },
        budgets: vec!["web".to_owned()],
    }
}
