//! A node and a pod for tests: each test sets the one thing that it is about.

use std::collections::BTreeMap;

use crate::{Controller, Node, NodeName, NodeStatus, NodeSystem, Pod, PodPhase, PodRequests, Resources, Timestamp};

pub(crate) fn node(name: &str) -> Node {
    Node {
        name: NodeName::parse(name).unwrap(),
        uid: format!("uid-of-{name}"),
        resource_version: "1".into(),
        created_at: Timestamp::parse("2030-01-01T00:00:00Z").unwrap(),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        schedulable: true,
        cordon: None,
        status: NodeStatus::Ready,
        conditions: Vec::new(),
        addresses: Vec::new(),
        capacity: Resources::default(),
        allocatable: Resources::default(),
        system: NodeSystem::default(),
        zone: None,
        region: None,
        instance_type: None,
        provider_id: None,
        pod_cidrs: Vec::new(),
    }
}

/// A pod that runs, is ready, and belongs to a replica set.
pub(crate) fn pod(name: &str) -> Pod {
    Pod {
        namespace: "team".into(),
        name: name.into(),
        uid: format!("uid-of-{name}"),
        node: NodeName::parse("a").unwrap(),
        labels: BTreeMap::new(),
        phase: PodPhase::Running,
        ready: true,
        controller: Some(controller("ReplicaSet")),
        requests: PodRequests::default(),
        created_at: None,
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

pub(crate) fn controller(kind: &str) -> Controller {
    Controller {
        api_version: "apps/v1".into(),
        kind: kind.into(),
        name: "web".into(),
    }
}
