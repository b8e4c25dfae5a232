//! Nodes, pods and budgets that are about nothing in particular.

use std::collections::BTreeMap;

use knm_model::{
    Condition, DisruptionBudget, Node, NodeName, NodeStatus, NodeSystem, Pod, PodPhase, PodRequests, Resources,
    Selector, Timestamp, UnhealthyPods,
};

/// A schedulable node that is ready.
///
/// # Panics
/// If `name` cannot be the name of a node.
#[must_use]
pub fn node(name: &str) -> Node {
    let resources = Resources {
        cpu_millicores: 4000,
        memory_bytes: 16 << 30,
        ephemeral_storage_bytes: 100 << 30,
        pods: 110,
        extended: BTreeMap::new(),
    };
    Node {
        name: node_name(name),
        uid: format!("uid-{name}"),
        resource_version: "1".to_owned(),
        created_at: time(),
        labels: BTreeMap::from([("kubernetes.io/hostname".to_owned(), name.to_owned())]),
        taints: Vec::new(),
        schedulable: true,
        cordon: None,
        status: NodeStatus::Ready,
        conditions: vec![condition("Ready", "True")],
        addresses: Vec::new(),
        capacity: resources.clone(),
        allocatable: resources,
        system: NodeSystem::default(),
        zone: None,
        region: None,
        instance_type: None,
        provider_id: None,
        pod_cidrs: Vec::new(),
    }
}

/// A pod on `node` that nobody controls and that asks for nothing.
///
/// # Panics
/// If `node` cannot be the name of a node.
#[must_use]
pub fn pod(namespace: &str, name: &str, node: &str) -> Pod {
    Pod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{namespace}-{name}"),
        node: node_name(node),
        labels: BTreeMap::new(),
        phase: PodPhase::Pending,
        ready: false,
        controller: None,
        requests: PodRequests::default(),
        created_at: Some(time()),
        deletion_at: None,
        deletion_grace: None,
        is_mirror: false,
        has_empty_dir: false,
        priority: 0,
        priority_class: None,
        node_selector: BTreeMap::new(),
        node_terms: None,
        tolerations: Vec::new(),
    }
}

pub(super) fn budget(namespace: &str, name: &str, selector: Option<Selector>) -> DisruptionBudget {
    DisruptionBudget {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        selector,
        disruptions_allowed: 1,
        current_healthy: 3,
        desired_healthy: 2,
        expected_pods: 4,
        unhealthy_pods: UnhealthyPods::IfHealthyBudget,
    }
}

pub(super) fn condition(kind: &str, status: &str) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status: status.to_owned(),
        reason: "Tested".to_owned(),
        message: "it is tested".to_owned(),
        last_transition_at: Some(time()),
        last_heartbeat_at: Some(time()),
    }
}

pub(super) fn node_name(name: &str) -> NodeName {
    NodeName::parse(name).expect("a name of a node")
}

fn time() -> Timestamp {
    Timestamp::parse("2030-01-01T00:00:00Z").expect("an RFC 3339 time")
}
