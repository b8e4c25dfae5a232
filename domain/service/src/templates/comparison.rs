//! Nodes that were compared with a template.

use knm_model::{ClusterName, DefinitionName, Drift, NodeName, Timestamp};

/// Nodes that were compared with a template.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The template.
    pub template: DefinitionName,
    /// Its version.
    pub version: u32,
    /// How many nodes were compared.
    pub compared: usize,
    /// Those that lack something, by cluster and name.
    pub drifted: Vec<DriftedNode>,
    /// Clusters that were left out, because nothing is known of them yet.
    pub unknown: Vec<ClusterName>,
    /// Clusters that cannot be seen now: their nodes were compared as they were then.
    pub stale: Vec<StaleCluster>,
}

/// A cluster that cannot be seen now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleCluster {
    /// The cluster.
    pub cluster: ClusterName,
    /// When it was last seen.
    pub as_of: Timestamp,
}

/// A node that lacks something.
#[derive(Clone, Debug, PartialEq)]
pub struct DriftedNode {
    /// The cluster.
    pub cluster: ClusterName,
    /// The node.
    pub node: NodeName,
    /// How it differs.
    pub drift: Drift,
}
