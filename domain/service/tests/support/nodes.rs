//! Nodes, and time for what follows them.

use std::collections::BTreeMap;
use std::time::Duration;

use knm_model::{Node, NodeName, NodeStatus, NodeSystem, Resources, Timestamp};

/// Lets every task run until all of them wait. Time is paused in these tests, so that it passes only when nothing else is to be done.
pub async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

pub fn node(name: &str, version: &str) -> Node {
    Node {
        name: NodeName::parse(name).unwrap(),
        uid: format!("uid-{name}"),
        resource_version: version.to_owned(),
        created_at: Timestamp::parse("2029-01-01T00:00:00Z").unwrap(),
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
