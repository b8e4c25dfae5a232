//! Watches the clusters that are stored, whoever stored them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use knm_model::{ClusterAccess, ClusterCredentials, ClusterName, ClusterSource, RegisteredCluster, SealedSecret};
use knm_ports::{OpenedCluster, StorageError};
use secrecy::ExposeSecret;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::barred::{Bar, Barred};
use super::{ClusterRegistry, purpose};
use crate::inventory::ClusterHandle;

/// How often the store is looked at.
const EVERY: Duration = Duration::from_secs(2);
/// How often a cluster that cannot be used says so: more often than silence is noticed.
pub(super) const AGAIN: Duration = Duration::from_secs(30);

/// What this replica knows of a stored cluster.
pub(super) struct Followed {
    revision: Uuid,
    sealed: SealedSecret,
    standing: Standing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is watched.
    Watched,
    /// Its credentials cannot be used, which is what is shown of it.
    Barred,
    /// A cluster of the configuration has its name, and goes before it.
    Shadowed,
}

impl ClusterRegistry {
    /// Watches what is stored until `shutdown`. While the store is away, everything stays as it is.
    pub async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            self.follow_once().await;
        }
    }

    /// Takes over what is stored now.
    pub async fn follow_once(&self) {
        if let Err(error) = self.try_follow().await {
            // The database is away or not migrated, which its own checks tell.
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the registered clusters could not be read"
            );
        }
    }

    async fn try_follow(&self) -> Result<(), StorageError> {
        // Before the store is read: what was read earlier must not be taken over later.
        let mut followed = self.followed.lock().await;
        let stored = self.parts.store.list().await?;
        let names: HashSet<&ClusterName> = stored.iter().map(|cluster| &cluster.name).collect();
        followed.retain(|name, known| {
            let stays = names.contains(name);
            if !stays && known.standing != Standing::Shadowed && self.parts.inventory.remove(name) {
                tracing::info!(cluster = %name, "registered cluster removed");
            }
            stays
        });
        for cluster in &stored {
            let is_known = followed.get(&cluster.name).is_some_and(|known| {
                // Sealed with another key, it may be one that opens.
                known.revision == cluster.revision
                    && (known.standing == Standing::Watched || known.sealed == cluster.sealed)
            });
            if !is_known {
                let known = Followed {
                    revision: cluster.revision,
                    sealed: cluster.sealed.clone(),
                    standing: self.take_over(cluster),
                };
                followed.insert(cluster.name.clone(), known);
            }
        }
        Ok(())
    }

    fn take_over(&self, cluster: &RegisteredCluster) -> Standing {
        match self
            .parts
            .inventory
            .cluster(cluster.name.as_str())
            .map(|known| known.source)
        {
            Ok(ClusterSource::InCluster | ClusterSource::Kubeconfig | ClusterSource::Demo) => {
                tracing::warn!(
                    cluster = %cluster.name,
                    "a cluster is registered under the name of one of the configuration, which goes before it on this replica"
                );
                return Standing::Shadowed;
            }
            Ok(ClusterSource::Registered) | Err(_) => {}
        }
        let (opened, standing) = match self.opened(cluster) {
            Ok(opened) => {
                tracing::info!(cluster = %cluster.name, "registered cluster watched");
                (opened, Standing::Watched)
            }
            Err(bar) => {
                tracing::error!(cluster = %cluster.name, why = %bar, "registered cluster cannot be used");
                let opened = OpenedCluster {
                    gateway: Arc::new(Barred(bar)),
                    reviews: None,
                };
                (opened, Standing::Barred)
            }
        };
        let handle = ClusterHandle {
            name: cluster.name.clone(),
            source: ClusterSource::Registered,
            gateway: opened.gateway,
            reviews: opened.reviews,
            watch_pods: self.parts.settings.watch_pods,
        };
        let access = ClusterAccess {
            server: cluster.server.clone(),
            user: cluster.user.clone(),
            expires_at: cluster.expires_at,
        };
        self.parts.inventory.put_registered(handle, cluster, access);
        standing
    }

    /// The access to a stored cluster, or why there is none.
    fn opened(&self, cluster: &RegisteredCluster) -> Result<OpenedCluster, Bar> {
        let vault = self.parts.vault.as_deref();
        let vault = vault.ok_or_else(|| Bar::locked("secrets.key_file is not set"))?;
        let opened = vault.open(&purpose(&cluster.name), &cluster.sealed);
        let opened = opened.map_err(|error| Bar::locked(error.to_string()))?;
        let credentials = ClusterCredentials::from_bytes(opened.expose_secret());
        let credentials = credentials.map_err(|error| Bar::locked(error.to_string()))?;
        credentials.check(&self.parts.settings.rules).map_err(Bar::disallowed)?;
        let opened = self.parts.opener.open(&cluster.name, &credentials);
        opened.map_err(|error| Bar::disallowed(error.to_string()))
    }
}
