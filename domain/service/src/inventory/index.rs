//! The nodes of one cluster, folded from what the cluster tells. No async, no lock, no time.

use std::collections::BTreeMap;
use std::sync::Arc;

use knm_model::{ClusterName, Node, NodeName, Resources};

use super::feed::ChangeKind;
use super::snapshot::{Block, NodeEntry};

/// How many nodes a block is filled with.
const BLOCK_LEN: usize = 64;
/// A block that would grow above this is cut in two.
const MOST: usize = 96;
/// A block that shrank below this is joined with a neighbour, if both fit into one.
const FEWEST: usize = 24;

/// Blocks of nodes, sorted by name. Changing a node puts a new block in the place of one and leaves the others, which snapshots share.
#[derive(Debug)]
pub(super) struct NodeIndex {
    cluster: ClusterName,
    blocks: Vec<Arc<Block>>,
}

impl NodeIndex {
    pub(super) fn new(cluster: ClusterName) -> Self {
        Self {
            cluster,
            blocks: Vec::new(),
        }
    }

    pub(super) fn blocks(&self) -> &[Arc<Block>] {
        &self.blocks
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.iter().map(|block| block.entries().len()).sum()
    }

    /// Takes a new or changed node in; `None` if it is what is known already.
    pub(super) fn apply(&mut self, node: Node) -> Option<ChangeKind> {
        let Some(at) = self.block_of(node.name.as_str()) else {
            let entry = NodeEntry::new(self.cluster.clone(), node);
            self.blocks.push(Block::new(vec![Arc::clone(&entry)]));
            return Some(ChangeKind::Added(entry));
        };
        let block = &self.blocks[at];
        match block.position(node.name.as_str()) {
            Ok(place) if *block.entries()[place].node() == node => None,
            Ok(place) => {
                let requested = block.entries()[place].requested().cloned();
                let entry = NodeEntry::with_pods(self.cluster.clone(), Arc::new(node), requested);
                let mut entries = block.entries().to_vec();
                entries[place] = Arc::clone(&entry);
                self.blocks[at] = Block::new(entries);
                Some(ChangeKind::Modified(entry))
            }
            Err(place) => {
                let entry = NodeEntry::new(self.cluster.clone(), node);
                let mut entries = Vec::with_capacity(block.entries().len() + 1);
                entries.extend_from_slice(&block.entries()[..place]);
                entries.push(Arc::clone(&entry));
                entries.extend_from_slice(&block.entries()[place..]);
                if MOST < entries.len() {
                    let upper = entries.split_off(entries.len() / 2);
                    self.blocks.insert(at + 1, Block::new(upper));
                }
                self.blocks[at] = Block::new(entries);
                Some(ChangeKind::Added(entry))
            }
        }
    }

    /// Forgets a node; `None` if it is not known.
    pub(super) fn delete(&mut self, node: &str) -> Option<ChangeKind> {
        let at = self.block_of(node)?;
        let place = self.blocks[at].position(node).ok()?;
        let mut entries = self.blocks[at].entries().to_vec();
        let entry = entries.remove(place);
        if entries.is_empty() {
            self.blocks.remove(at);
            return Some(ChangeKind::Deleted(entry));
        }
        let small = entries.len() < FEWEST;
        self.blocks[at] = Block::new(entries);
        if small {
            self.join(at);
        }
        Some(ChangeKind::Deleted(entry))
    }

    /// Makes `nodes` all there is and returns how that differs from what was known, deletions first.
    pub(super) fn replace(&mut self, nodes: Vec<Node>) -> Vec<ChangeKind> {
        let nodes: BTreeMap<_, _> = nodes.into_iter().map(|node| (node.name.clone(), node)).collect();
        if self.blocks.is_empty() {
            return self.fill(nodes.into_values());
        }
        let gone: Vec<_> = self
            .blocks
            .iter()
            .flat_map(|block| block.entries())
            .map(|entry| &entry.node().name)
            .filter(|name| !nodes.contains_key(*name))
            .cloned()
            .collect();
        let mut changes: Vec<_> = gone.iter().filter_map(|name| self.delete(name.as_str())).collect();
        changes.extend(nodes.into_values().filter_map(|node| self.apply(node)));
        changes
    }

    /// Shows each node with what its pods ask for, which `requested` tells, and whether that differs from what was shown.
    pub(super) fn show_requested(&mut self, requested: impl Fn(&NodeName) -> Option<Resources>) -> bool {
        let mut differs = false;
        for block in &mut self.blocks {
            let mut changed = None;
            for (place, entry) in block.entries().iter().enumerate() {
                let requested = requested(&entry.node().name);
                if entry.requested() != requested.as_ref() {
                    let entries = changed.get_or_insert_with(|| block.entries().to_vec());
                    entries[place] = entry.requesting(requested);
                }
            }
            if let Some(entries) = changed {
                *block = Block::new(entries);
                differs = true;
            }
        }
        differs
    }

    fn fill(&mut self, sorted: impl Iterator<Item = Node>) -> Vec<ChangeKind> {
        let entries: Vec<_> = sorted.map(|node| NodeEntry::new(self.cluster.clone(), node)).collect();
        self.blocks = entries
            .chunks(BLOCK_LEN)
            .map(|chunk| Block::new(chunk.to_vec()))
            .collect();
        entries.into_iter().map(ChangeKind::Added).collect()
    }

    /// The block that holds `node` or would, `None` while there is no block at all.
    fn block_of(&self, node: &str) -> Option<usize> {
        let after = self.blocks.partition_point(|block| block.first() <= node);
        (!self.blocks.is_empty()).then(|| after.saturating_sub(1))
    }

    fn join(&mut self, at: usize) {
        let len = |index: usize| self.blocks.get(index).map_or(usize::MAX, |block| block.entries().len());
        let left = match at.checked_sub(1) {
            Some(before) if len(before) <= len(at + 1) => before,
            _ => at,
        };
        if MOST < len(left).saturating_add(len(left + 1)) {
            return;
        }
        let right = self.blocks.remove(left + 1);
        let both = [self.blocks[left].entries(), right.entries()].concat();
        self.blocks[left] = Block::new(both);
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
