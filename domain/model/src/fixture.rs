//! A node for tests: each test sets the one thing that it is about.

use std::collections::BTreeMap;

use crate::{Node, NodeName, NodeStatus, NodeSystem, Resources, Timestamp};

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
