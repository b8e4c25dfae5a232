//! Warns of credentials that end soon.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use knm_model::{ClusterAccess, ClusterName, Timestamp};
use knm_ports::Clock;
use tokio_util::sync::CancellationToken;

use crate::inventory::Inventory;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(10);
/// How often the same cluster is warned of.
const AGAIN: Duration = Duration::from_secs(86_400);

/// What is known of the access to clusters of the configuration. Its files change while the service runs.
#[async_trait]
pub trait ConfiguredAccess: Send + Sync + 'static {
    /// What may be shown of each, as it is now; `None` for those of which nothing is known.
    async fn look(&self) -> Vec<(ClusterName, Option<ClusterAccess>)>;
}

/// Keeps in step what is known of the access to clusters, and warns of what ends soon.
pub struct ExpiryWatch {
    /// The clusters.
    pub inventory: Arc<Inventory>,
    /// What is known of those of the configuration.
    pub configured: Arc<dyn ConfiguredAccess>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl ExpiryWatch {
    /// Looks until `shutdown`.
    pub async fn keep(self, shutdown: CancellationToken) {
        let mut warned = HashMap::new();
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            for (cluster, access) in self.configured.look().await {
                self.inventory.describe(&cluster, access);
            }
            self.warn(&mut warned);
        }
    }

    fn warn(&self, warned: &mut HashMap<ClusterName, Timestamp>) {
        let now = self.clock.now();
        let expiring = self.inventory.expiring();
        // Renewed and about to end again, it is another warning.
        warned.retain(|name, _| expiring.iter().any(|one| one.cluster == *name));
        for one in expiring {
            let is_due = warned.get(&one.cluster).is_none_or(|last| AGAIN <= now.since(*last));
            if !is_due {
                continue;
            }
            match one.at <= now {
                true => {
                    tracing::warn!(cluster = %one.cluster, ended = %one.at, "the credentials of a cluster have ended")
                }
                false => {
                    tracing::warn!(cluster = %one.cluster, ends = %one.at, "the credentials of a cluster end soon")
                }
            }
            warned.insert(one.cluster, now);
        }
    }
}
