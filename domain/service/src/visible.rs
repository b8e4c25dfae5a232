//! The clusters as one caller may see them.

use std::collections::BTreeMap;
use std::sync::Arc;

use knm_model::{Access, ClusterName, DrainOptions, Fit, Object, Permission, Reach, Ruling};

use crate::inventory::{ClusterStatus, DrainPreview, Inventory, InventoryError, Snapshot};

/// The clusters as one caller may see them: what they may not see is not there.
#[derive(Clone, Copy)]
pub struct Visible<'a> {
    inventory: &'a Inventory,
    access: &'a Access,
}

impl Inventory {
    /// The clusters as somebody with this access may see them.
    #[must_use]
    pub fn visible_to<'a>(&'a self, access: &'a Access) -> Visible<'a> {
        Visible {
            inventory: self,
            access,
        }
    }
}

impl<'a> Visible<'a> {
    /// How the clusters are, sorted by name. Nodes and pods are counted as far as they may be seen.
    #[must_use]
    pub fn clusters(&self) -> Vec<ClusterStatus> {
        let all = self.inventory.clusters().into_iter();
        all.filter_map(|status| self.narrowed(status)).collect()
    }

    /// How a cluster is.
    ///
    /// # Errors
    /// [`InventoryError::UnknownCluster`], also if it may not be seen.
    pub fn cluster(&self, name: &str) -> Result<ClusterStatus, InventoryError> {
        let status = self.inventory.cluster(name)?;
        self.narrowed(status).ok_or_else(|| unknown(name))
    }

    /// The nodes of a cluster.
    ///
    /// # Errors
    /// [`InventoryError`], as [`Inventory::snapshot`]; [`InventoryError::UnknownCluster`] also if it may not be seen.
    pub fn snapshot(&self, name: &str) -> Result<Arc<Snapshot>, InventoryError> {
        let reach = self.reach(name);
        if reach == Reach::Nothing {
            return Err(unknown(name));
        }
        Ok(narrow(self.inventory.snapshot(name)?, &reach))
    }

    /// The nodes of all clusters, or why not, sorted by the names of the clusters.
    #[must_use]
    pub fn snapshots(&self) -> Vec<(ClusterName, Result<Arc<Snapshot>, InventoryError>)> {
        let all = self.inventory.snapshots().into_iter();
        all.filter_map(|(name, snapshot)| {
            let reach = self.reach(name.as_str());
            let snapshot = snapshot.map(|snapshot| narrow(snapshot, &reach));
            (reach != Reach::Nothing).then_some((name, snapshot))
        })
        .collect()
    }

    /// What is left of a snapshot.
    #[must_use]
    pub fn narrowed_snapshot(&self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        let reach = self.reach(snapshot.cluster().as_str());
        narrow(snapshot, &reach)
    }

    /// What a drain of a node would do, as [`Inventory::plan_drain`] tells it. Where its pods could go is left out for those who do not see all
    /// nodes of the cluster: it would name the others, and how many there are.
    ///
    /// # Errors
    /// [`InventoryError`], any of them.
    pub async fn plan_drain(
        &self,
        cluster: &str,
        node: &str,
        options: &DrainOptions,
    ) -> Result<DrainPreview, InventoryError> {
        let mut preview = self.inventory.plan_drain(cluster, node, options).await?;
        if self.reach(cluster) != Reach::Everything {
            preview.fit = Fit::NotEstimated {
                reason: "where pods could go is told to those who may see all nodes of the cluster".to_owned(),
            };
        }
        Ok(preview)
    }

    /// Whether something that was done to this node may be seen; `None`: to the cluster as such. A node that is gone has no labels any more, so
    /// only those see it who see the whole cluster.
    #[must_use]
    pub fn sees(&self, cluster: &str, node: Option<&str>) -> bool {
        self.decide(&[Permission::View], cluster, node) == Ruling::Allowed
    }

    /// What comes of the wish to do something with a node, as it is known now; `None`: with the whole cluster.
    #[must_use]
    pub fn decide(&self, needed: &[Permission], cluster: &str, node: Option<&str>) -> Ruling {
        let Some(node) = node else {
            return self.access.decide(needed, Object::Cluster(cluster));
        };
        let snapshot = self.inventory.snapshot(cluster).ok();
        let entry = snapshot.as_ref().and_then(|snapshot| snapshot.find(node));
        match entry {
            Some(entry) => self.on_labels(needed, cluster, &entry.node().labels),
            None if self.reach(cluster) == Reach::Everything => self.access.decide(needed, Object::Cluster(cluster)),
            None => Ruling::Hidden,
        }
    }

    /// What comes of the wish to do something with a node that has these labels.
    #[must_use]
    pub fn on_labels(&self, needed: &[Permission], cluster: &str, labels: &BTreeMap<String, String>) -> Ruling {
        self.access.decide(needed, Object::Node { cluster, labels })
    }

    /// Whether nothing is hidden, now and later.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.access.sees_everything()
    }

    fn reach(&self, cluster: &str) -> Reach<'a> {
        self.access.reach(Permission::View, cluster)
    }

    fn narrowed(&self, mut status: ClusterStatus) -> Option<ClusterStatus> {
        match self.reach(status.name.as_str()) {
            Reach::Nothing => None,
            Reach::Everything => Some(status),
            reach @ Reach::Nodes(_) => {
                let snapshot = self.inventory.snapshot(status.name.as_str()).ok();
                let visible = snapshot.map(|snapshot| narrow(snapshot, &reach));
                status.nodes = visible.as_ref().map_or(0, |snapshot| snapshot.len());
                if let Some(pods) = &mut status.pods {
                    let entries = visible.iter().flat_map(|snapshot| snapshot.entries());
                    let requested = entries.filter_map(|entry| entry.requested());
                    let count: u64 = requested.map(|requested| requested.pods).sum();
                    pods.pods = usize::try_from(count).unwrap_or(usize::MAX);
                }
                Some(status)
            }
        }
    }
}

fn narrow(snapshot: Arc<Snapshot>, reach: &Reach<'_>) -> Arc<Snapshot> {
    match reach {
        Reach::Everything => snapshot,
        Reach::Nothing | Reach::Nodes(_) => Arc::new(snapshot.narrowed(reach)),
    }
}

fn unknown(cluster: &str) -> InventoryError {
    InventoryError::UnknownCluster {
        cluster: cluster.to_owned(),
    }
}
