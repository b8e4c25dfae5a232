//! Compares what clusters let this service do with what it is configured to do.

use std::collections::{BTreeSet, HashSet};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use knm_model::{ClusterFeature, ClusterName, ClusterUse, FeatureState};
use knm_ports::ClusterError;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Cluster, Inventory};

/// How often a cluster is asked about everything.
const EVERY: Duration = Duration::from_secs(300);
/// How often it is asked about what it does not allow: somebody may be about to mend it.
const WHILE_MISSING: Duration = Duration::from_secs(60);
/// For how long after that was found; what is missing for longer is left out on purpose.
const LATELY: Duration = Duration::from_secs(600);
/// How soon one is asked again that gave no answer.
const AFTER_FAILURE: Duration = Duration::from_secs(15);
/// How soon one is asked again at the earliest, whatever it forbids meanwhile.
const AT_LEAST: Duration = Duration::from_secs(5);

/// Asks each cluster now and then what this service may do there, those that are registered later, too. Nothing waits for that.
pub struct SelfCheck {
    /// The clusters.
    pub inventory: Arc<Inventory>,
    /// The cluster that is asked whose a token is; `None` if nobody signs in with tokens of clusters.
    pub home: Option<ClusterName>,
}

impl SelfCheck {
    /// Asks until `shutdown`.
    pub async fn keep(self, shutdown: CancellationToken) {
        let mut changes = self.inventory.changes.subscribe();
        let mut followed = HashSet::new();
        loop {
            changes.mark_unchanged();
            let clusters = self.inventory.clusters.load_full();
            for cluster in clusters.iter() {
                if followed.insert(cluster.feed.epoch()) {
                    let (inventory, used) = (Arc::clone(&self.inventory), self.used(cluster));
                    let (cluster, ended) = (Arc::clone(cluster), cluster.ended.clone());
                    tokio::spawn(ended.run_until_cancelled_owned(follow(inventory, cluster, used)));
                }
            }
            followed.retain(|epoch| clusters.iter().any(|cluster| cluster.feed.epoch() == *epoch));
            match shutdown.run_until_cancelled(changes.changed()).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => return,
            }
        }
    }

    fn used(&self, cluster: &Cluster) -> ClusterUse {
        let handle = &cluster.handle;
        ClusterUse {
            watches_pods: handle.watch_pods,
            reviews_tokens: self.home.as_ref() == Some(&handle.name),
            reviews_access: self.home.is_some() && handle.reviews.is_some(),
        }
    }
}

async fn follow(inventory: Arc<Inventory>, cluster: Arc<Cluster>, used: ClusterUse) {
    let (mut told, mut everything_at) = (BTreeSet::new(), Instant::now());
    loop {
        let (gateway, permissions) = (&*cluster.handle.gateway, &cluster.permissions);
        let is_everything = everything_at <= Instant::now();
        let checked = match is_everything {
            true => permissions.check(gateway, used, || inventory.clock.now()).await,
            false => permissions.check_missing(gateway, LATELY).await,
        };
        tell(&cluster, &mut told);
        let now = Instant::now();
        match checked {
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn Error,
                    cluster = %cluster.handle.name,
                    "the cluster does not say what the service may do there"
                );
                everything_at = now + after(&error);
            }
            Ok(()) if is_everything => everything_at = now + EVERY,
            Ok(()) => {}
        }
        let again_at = match permissions.missing_lately(LATELY).is_empty() {
            true => everything_at,
            false => everything_at.min(now + WHILE_MISSING),
        };
        let surprised = async {
            sleep(AT_LEAST).await;
            permissions.surprise.notified().await;
        };
        tokio::select! {
            () = sleep_until(again_at) => {}
            () = surprised => everything_at = Instant::now(),
        }
    }
}

/// How soon a cluster is asked again that did not answer everything.
fn after(error: &ClusterError) -> Duration {
    if matches!(error, ClusterError::Unreadable { .. }) {
        // It answers, and it may be long until somebody mends what it cannot tell.
        return WHILE_MISSING;
    }
    AFTER_FAILURE
}

/// Logs what is missing and was not, and what is there again.
fn tell(cluster: &Cluster, told: &mut BTreeSet<ClusterFeature>) {
    let name = &cluster.handle.name;
    for status in cluster.permissions.status().features {
        let feature = status.feature;
        match status.state {
            FeatureState::Missing if told.insert(feature) => tracing::warn!(
                cluster = %name,
                feature = feature.as_str(),
                role = feature.role(),
                "{}",
                status.refusal(name)
            ),
            FeatureState::Available if told.remove(&feature) => tracing::info!(
                cluster = %name,
                feature = feature.as_str(),
                "a permission that was missing is there again"
            ),
            FeatureState::Missing | FeatureState::Available | FeatureState::NotKnown | FeatureState::NotUsed => {}
        }
    }
}
