//! Totals of a cluster.

use std::collections::BTreeMap;

use crate::{Node, NodeStatus, Resources};

/// Totals over the nodes of a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterSummary {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many by status.
    pub by_status: StatusCounts,
    /// How many the scheduler may use.
    pub schedulable: usize,
    /// How many it may not.
    pub unschedulable: usize,
    /// How many have each role; a node without one counts under `none`.
    pub by_role: BTreeMap<String, usize>,
    /// How many are in each zone; a node without one counts under `none`.
    pub by_zone: BTreeMap<String, usize>,
    /// How many run each version of the kubelet; `none` where it was not reported.
    pub by_kubelet_version: BTreeMap<String, usize>,
    /// How many are of each instance type; `none` where it was not reported.
    pub by_instance_type: BTreeMap<String, usize>,
    /// What all nodes have together.
    pub capacity: Resources,
    /// What pods may use of it.
    pub allocatable: Resources,
}

/// Numbers of nodes by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusCounts {
    /// Those that are ready.
    pub ready: usize,
    /// Those that are not.
    pub not_ready: usize,
    /// Those that nobody knows of.
    pub unknown: usize,
}

impl ClusterSummary {
    /// Adds up `nodes`.
    pub fn of<'a>(nodes: impl Iterator<Item = &'a Node>) -> Self {
        let mut summary = Self::default();
        for node in nodes {
            summary.add(node);
        }
        summary
    }

    fn add(&mut self, node: &Node) {
        self.nodes += 1;
        match node.status {
            NodeStatus::Ready => self.by_status.ready += 1,
            NodeStatus::NotReady => self.by_status.not_ready += 1,
            NodeStatus::Unknown => self.by_status.unknown += 1,
        }
        match node.schedulable {
            true => self.schedulable += 1,
            false => self.unschedulable += 1,
        }
        let roles = node.roles();
        for role in &roles {
            count(&mut self.by_role, role);
        }
        if roles.is_empty() {
            count(&mut self.by_role, NONE);
        }
        count(&mut self.by_zone, node.zone.as_deref().unwrap_or(NONE));
        count(&mut self.by_kubelet_version, &node.system.kubelet_version);
        count(
            &mut self.by_instance_type,
            node.instance_type.as_deref().unwrap_or(NONE),
        );
        self.capacity.add(&node.capacity);
        self.allocatable.add(&node.allocatable);
    }
}

/// Under which nodes count that have no such thing.
const NONE: &str = "none";

fn count(counts: &mut BTreeMap<String, usize>, key: &str) {
    let key = if key.is_empty() { NONE } else { key };
    match counts.get_mut(key) {
        Some(number) => *number += 1,
        None => {
            counts.insert(key.to_owned(), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::node;

    #[test]
    fn each_node_counts_once_in_each_group_and_once_per_role() {
        let mut first = node("a");
        first
            .labels
            .insert("node-role.kubernetes.io/worker".into(), String::new());
        first.labels.insert("node-role.kubernetes.io/gpu".into(), String::new());
        first.zone = Some("z1".into());
        first.capacity.pods = 110;
        first.allocatable.pods = 100;
        let mut second = node("b");
        second.status = NodeStatus::Unknown;
        second.schedulable = false;
        second.instance_type = Some("m5".into());
        second.system.kubelet_version = "v1.36.0".into();
        second.capacity.pods = 10;

        let summary = ClusterSummary::of([first, second].iter());

        assert_eq!(summary.nodes, 2);
        assert_eq!(
            summary.by_status,
            StatusCounts {
                ready: 1,
                not_ready: 0,
                unknown: 1
            }
        );
        assert_eq!((summary.schedulable, summary.unschedulable), (1, 1));
        let counts = |pairs: &[(&str, usize)]| {
            pairs
                .iter()
                .map(|(key, n)| ((*key).to_owned(), *n))
                .collect::<BTreeMap<_, _>>()
        };
        assert_eq!(summary.by_role, counts(&[("gpu", 1), ("none", 1), ("worker", 1)]));
        assert_eq!(summary.by_zone, counts(&[("none", 1), ("z1", 1)]));
        assert_eq!(summary.by_instance_type, counts(&[("m5", 1), ("none", 1)]));
        assert_eq!(summary.by_kubelet_version, counts(&[("none", 1), ("v1.36.0", 1)]));
        assert_eq!((summary.capacity.pods, summary.allocatable.pods), (120, 100));
    }
}
