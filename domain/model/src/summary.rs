//! Totals of a cluster.

use std::collections::BTreeMap;

use crate::{Node, Resources};

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
        let _ = nodes;
        Self::default()
    }
}
