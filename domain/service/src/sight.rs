//! What somebody who follows a cluster gets to see of its changes.

use std::collections::HashMap;
use std::sync::Arc;

use knm_model::{Access, NodeName, Permission, Reach};

use crate::inventory::{ChangeKind, NodeChange, NodeEntry};

/// What somebody who follows a cluster gets to see of its changes.
pub enum Sight {
    /// All of them.
    Everything,
    /// Those of nodes with the right labels. A node that gets them comes, and one that loses them is gone.
    Some {
        /// What they may see.
        access: Arc<Access>,
        /// The nodes that they were told of, as they were then.
        told: HashMap<NodeName, Arc<NodeEntry>>,
    },
}

impl Sight {
    /// For somebody with this access to a cluster.
    #[must_use]
    pub fn of(access: &Arc<Access>, cluster: &str) -> Self {
        match access.reach(Permission::View, cluster) {
            Reach::Everything => Self::Everything,
            Reach::Nothing | Reach::Nodes(_) => Self::Some {
                access: Arc::clone(access),
                told: HashMap::new(),
            },
        }
    }

    /// They were told of these nodes.
    pub fn told<'a>(&mut self, entries: impl Iterator<Item = &'a Arc<NodeEntry>>) {
        if let Self::Some { told, .. } = self {
            told.extend(entries.map(|entry| (entry.node().name.clone(), Arc::clone(entry))));
        }
    }

    /// What they are told of a change; `None`: nothing.
    #[must_use]
    pub fn of_change(&mut self, change: NodeChange) -> Option<NodeChange> {
        let Self::Some { access, told } = self else {
            return Some(change);
        };
        let kind = match change.kind {
            ChangeKind::Added(entry) | ChangeKind::Modified(entry) => {
                let cluster = entry.cluster().as_str();
                let reach = access.reach(Permission::View, cluster);
                let name = entry.node().name.clone();
                match reach.includes(&entry.node().labels) {
                    true => match told.insert(name, Arc::clone(&entry)) {
                        None => ChangeKind::Added(entry),
                        Some(_) => ChangeKind::Modified(entry),
                    },
                    // As it was when it could be seen.
                    false => ChangeKind::Deleted(told.remove(&name)?),
                }
            }
            ChangeKind::Deleted(entry) => ChangeKind::Deleted(told.remove(&entry.node().name)?),
            same @ (ChangeKind::Stale { .. } | ChangeKind::Fresh) => same,
        };
        Some(NodeChange { id: change.id, kind })
    }
}
