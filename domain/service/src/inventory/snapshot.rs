//! What is known of a cluster at one moment.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use knm_model::{ClusterName, ClusterSummary, Node, Reach, Resources, Timestamp};

/// All nodes of a cluster at one moment, sorted by name. It never changes: the next one shares with it whatever stayed as it was.
#[derive(Debug)]
pub struct Snapshot {
    cluster: ClusterName,
    version: SnapshotVersion,
    as_of: Timestamp,
    stale: bool,
    len: usize,
    blocks: Vec<Arc<Block>>,
    summary: OnceLock<ClusterSummary>,
}

/// Identifies a snapshot: two snapshots of one cluster with the same version hold the same, in every replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotVersion {
    /// Different for each cluster and each start of the process.
    pub(super) epoch: u64,
    /// Counts the snapshots of a cluster from 1.
    pub(super) generation: u64,
    /// Tells apart what is left of a snapshot for those who may not see all of it; 0: all of it.
    pub(super) scope: u64,
}

/// A run of nodes that are neighbours by name; a changed node replaces its block and leaves the others alone.
#[derive(Debug)]
pub struct Block {
    entries: Vec<Arc<NodeEntry>>,
    presented: OnceLock<Bytes>,
}

/// A node as it was told by its cluster, with what its pods ask for and what is presented of both.
#[derive(Debug)]
pub struct NodeEntry {
    cluster: ClusterName,
    node: Arc<Node>,
    requested: Option<Resources>,
    presented: OnceLock<Bytes>,
}

impl Snapshot {
    pub(super) fn new(
        cluster: ClusterName,
        version: SnapshotVersion,
        as_of: Timestamp,
        stale: bool,
        blocks: Vec<Arc<Block>>,
    ) -> Self {
        Self {
            cluster,
            version,
            as_of,
            stale,
            len: blocks.iter().map(|block| block.entries.len()).sum(),
            blocks,
            summary: OnceLock::new(),
        }
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// Its version; going stale makes a new one.
    #[must_use]
    pub fn version(&self) -> SnapshotVersion {
        self.version
    }

    /// When it was made; while it is stale, when the cluster was last seen.
    #[must_use]
    pub fn as_of(&self) -> Timestamp {
        self.as_of
    }

    /// Whether the cluster could not be seen when this was made: the nodes are those that were there before.
    #[must_use]
    pub fn stale(&self) -> bool {
        self.stale
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the cluster has no nodes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The nodes in blocks, none of which is empty.
    #[must_use]
    pub fn blocks(&self) -> &[Arc<Block>] {
        &self.blocks
    }

    /// The nodes.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<NodeEntry>> {
        self.blocks.iter().flat_map(|block| &block.entries)
    }

    /// The node under this name.
    #[must_use]
    pub fn find(&self, node: &str) -> Option<&Arc<NodeEntry>> {
        let after = self.blocks.partition_point(|block| block.first() <= node);
        let block = self.blocks.get(after.checked_sub(1)?)?;
        block.position(node).ok().and_then(|at| block.entries.get(at))
    }

    /// What is left of it for somebody who sees no further than `reach`.
    #[must_use]
    pub fn narrowed(&self, reach: &Reach<'_>) -> Self {
        let blocks = self.blocks.iter().filter_map(|block| {
            let is_visible = |entry: &&Arc<NodeEntry>| reach.includes(&entry.node.labels);
            let left: Vec<_> = block.entries.iter().filter(is_visible).cloned().collect();
            match left.len() {
                0 => None,
                all if all == block.entries.len() => Some(Arc::clone(block)),
                _ => Some(Block::new(left)),
            }
        });
        let mut hasher = DefaultHasher::new();
        if let Reach::Nodes(selectors) = reach {
            selectors.hash(&mut hasher);
        }
        let version = SnapshotVersion {
            scope: hasher.finish().max(1),
            ..self.version
        };
        Self::new(self.cluster.clone(), version, self.as_of, self.stale, blocks.collect())
    }

    /// Totals over the nodes, added up when they are first asked for.
    pub fn summary(&self) -> &ClusterSummary {
        self.summary
            .get_or_init(|| ClusterSummary::of(self.entries().map(|entry| entry.node())))
    }
}

impl fmt::Display for SnapshotVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.epoch, self.generation)?;
        match self.scope {
            0 => Ok(()),
            scope => write!(f, "-{scope:x}"),
        }
    }
}

impl Block {
    pub(super) fn new(entries: Vec<Arc<NodeEntry>>) -> Arc<Self> {
        Arc::new(Self {
            entries,
            presented: OnceLock::new(),
        })
    }

    /// The nodes, sorted by name.
    #[must_use]
    pub fn entries(&self) -> &[Arc<NodeEntry>] {
        &self.entries
    }

    /// How the whole block is presented: what `render` made of it when it was first asked for.
    pub fn presented(&self, render: impl FnOnce(&[Arc<NodeEntry>]) -> Bytes) -> &Bytes {
        self.presented.get_or_init(|| render(&self.entries))
    }

    /// Where a node stands in it, or would.
    pub(super) fn position(&self, node: &str) -> Result<usize, usize> {
        self.entries
            .binary_search_by(|entry| entry.node.name.as_str().cmp(node))
    }

    /// The name of its first node.
    pub(super) fn first(&self) -> &str {
        self.entries.first().map_or("", |entry| entry.node.name.as_str())
    }
}

impl NodeEntry {
    pub(super) fn new(cluster: ClusterName, node: Node) -> Arc<Self> {
        Self::with_pods(cluster, Arc::new(node), None)
    }

    pub(super) fn with_pods(cluster: ClusterName, node: Arc<Node>, requested: Option<Resources>) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            node,
            requested,
            presented: OnceLock::new(),
        })
    }

    /// The same node with other pods.
    pub(super) fn requesting(&self, requested: Option<Resources>) -> Arc<Self> {
        Self::with_pods(self.cluster.clone(), Arc::clone(&self.node), requested)
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Its cluster.
    #[must_use]
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// What its pods ask for that have not ended, and how many they are, about a second ago; `None` while the pods are not known.
    #[must_use]
    pub fn requested(&self) -> Option<&Resources> {
        self.requested.as_ref()
    }

    /// How the node is presented: what `render` made of it when it was first asked for.
    pub fn presented(&self, render: impl FnOnce(&Self) -> Bytes) -> &Bytes {
        self.presented.get_or_init(|| render(self))
    }
}
