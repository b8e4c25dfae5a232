//! What is known of the access to clusters, and when it ends.

use std::time::Duration;

use knm_model::{ClusterAccess, ClusterName, RegisteredCluster, Timestamp};

use super::{ClusterHandle, ClusterStatus, Inventory};

/// How long before their end credentials are warned of.
pub const EXPIRES_SOON: Duration = Duration::from_secs(14 * 86_400);

/// Credentials that end soon, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiring {
    /// Whose.
    pub cluster: ClusterName,
    /// When.
    pub at: Timestamp,
}

impl Inventory {
    /// Takes over what may be shown of the access to a cluster.
    pub fn describe(&self, cluster: &ClusterName, access: Option<ClusterAccess>) {
        if let Ok(cluster) = self.find(cluster.as_str()) {
            cluster.contact().access = access;
        }
    }

    /// Watches a registered cluster from now on, as [`Inventory::put`] does.
    pub(crate) fn put_registered(&self, handle: ClusterHandle, stored: &RegisteredCluster, access: ClusterAccess) {
        self.put_described(handle, |contact| {
            contact.access = Some(access);
            contact.revision = Some(stored.revision);
            contact.registered_at = Some(stored.registered_at);
        });
    }

    /// The clusters whose credentials end soon, or did.
    #[must_use]
    pub fn expiring(&self) -> Vec<Expiring> {
        let now = self.clock.now();
        let soon = |cluster: ClusterStatus| {
            let at = cluster.expires_at().filter(|at| *at < now.plus(EXPIRES_SOON))?;
            Some(Expiring {
                cluster: cluster.name,
                at,
            })
        };
        self.clusters().into_iter().filter_map(soon).collect()
    }
}

impl ClusterStatus {
    /// When its credentials end, if that is known.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.access.as_ref()?.expires_at
    }
}
