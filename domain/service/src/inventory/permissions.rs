//! What is known of what a cluster lets this service do.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use knm_model::{ClusterFeature, ClusterName, ClusterUse, FeatureState, FeatureStatus, KubernetesAction, Timestamp};
use knm_ports::{ClusterError, ClusterGateway};
use metrics::gauge;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::{Instant, timeout};

use super::status::{PermissionsStatus, UnseenReason};
use super::{Inventory, InventoryError};
use crate::metric;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);
/// For how long it is believed that something is missing before somebody is refused for that: whoever mends it waits no longer.
const BELIEVED: Duration = Duration::from_secs(2);

/// What is known of what one cluster lets this service do.
#[derive(Default)]
pub(super) struct Permissions {
    known: Mutex<Known>,
    /// Held while the cluster is asked about what is missing: everybody waits for the same answer.
    asking: AsyncMutex<()>,
    /// Something was forbidden that was not known to be, or allowed again.
    pub(super) surprise: Notify,
}

#[derive(Default)]
struct Known {
    used: ClusterUse,
    answers: BTreeMap<ClusterFeature, Answer>,
    /// When the last complete check was over.
    checked_at: Option<Timestamp>,
    /// Why the last check was not complete.
    reason: Option<UnseenReason>,
    /// When the cluster last gave no answer.
    failed_at: Option<Instant>,
}

struct Answer {
    /// What of a feature's needs is not allowed.
    missing: Vec<KubernetesAction>,
    /// Since when something of them is not, `None` if nothing is missing.
    missing_since: Option<Instant>,
    /// When it was asked for: of two that overtake each other the one that was asked for later counts.
    asked_at: Instant,
    at: Instant,
}

impl Permissions {
    /// Asks the cluster about all features that are used. What it does not answer stays as it was known.
    pub(super) async fn check(
        &self,
        gateway: &dyn ClusterGateway,
        used: ClusterUse,
        now: impl Fn() -> Timestamp,
    ) -> Result<(), ClusterError> {
        self.known().used = used;
        let used = ClusterFeature::ALL.into_iter().filter(|feature| feature.is_used(used));
        self.ask_all(gateway, used).await?;
        let mut known = self.known();
        known.checked_at = Some(now());
        known.reason = None;
        Ok(())
    }

    /// Asks the cluster about what was found missing within `lately`.
    pub(super) async fn check_missing(
        &self,
        gateway: &dyn ClusterGateway,
        lately: Duration,
    ) -> Result<(), ClusterError> {
        self.ask_all(gateway, self.missing_lately(lately)).await
    }

    /// What was found missing within `lately`.
    pub(super) fn missing_lately(&self, lately: Duration) -> Vec<ClusterFeature> {
        let known = self.known();
        let is_late = |answer: &Answer| answer.missing_since.is_some_and(|since| since.elapsed() < lately);
        let found = known.answers.iter().filter(|(_, answer)| is_late(answer));
        found.map(|(feature, _)| *feature).collect()
    }

    /// Notes that the cluster forbade something.
    pub(super) fn forbade(&self, action: Option<KubernetesAction>) {
        let Some(action) = action else {
            return;
        };
        let is_known = |answer: &Answer| answer.missing.contains(&action);
        let is_news = !self.known().answers.values().any(is_known);
        if is_news {
            self.surprise.notify_one();
        }
    }

    pub(super) fn status(&self) -> PermissionsStatus {
        let known = self.known();
        let of = |feature: ClusterFeature| {
            let answer = known.answers.get(&feature);
            let state = match answer {
                _ if !feature.is_used(known.used) => FeatureState::NotUsed,
                None => FeatureState::NotKnown,
                Some(answer) if answer.missing.is_empty() => FeatureState::Available,
                Some(_) => FeatureState::Missing,
            };
            let missing = answer.filter(|_| state == FeatureState::Missing);
            FeatureStatus {
                feature,
                state,
                missing: missing.map(|answer| answer.missing.clone()).unwrap_or_default(),
            }
        };
        PermissionsStatus {
            checked_at: known.checked_at,
            reason: known.reason,
            features: ClusterFeature::ALL.map(of).into(),
        }
    }

    /// Those of `needed` that the cluster does not allow. It is asked again about what was missing a while ago; what it does not answer then counts as
    /// allowed, because trying it tells.
    async fn still_missing(&self, gateway: &dyn ClusterGateway, needed: &[ClusterFeature]) -> Vec<FeatureStatus> {
        if self.missing(needed).is_empty() {
            return Vec::new();
        }
        let _turn = self.asking.lock().await;
        let mut still = Vec::new();
        for status in self.missing(needed) {
            if self.is_fresh(status.feature) {
                still.push(status);
                continue;
            }
            let is_silent = self.known().failed_at.is_some_and(|at| at.elapsed() < BELIEVED);
            if is_silent || self.ask(gateway, status.feature).await.is_err() {
                continue;
            }
            match self.missing(&[status.feature]).pop() {
                Some(status) => still.push(status),
                None => self.surprise.notify_one(),
            }
        }
        still
    }

    fn missing(&self, needed: &[ClusterFeature]) -> Vec<FeatureStatus> {
        let all = self.status().features.into_iter();
        all.filter(|status| status.state == FeatureState::Missing && needed.contains(&status.feature))
            .collect()
    }

    fn is_fresh(&self, feature: ClusterFeature) -> bool {
        let known = self.known();
        let answer = known.answers.get(&feature);
        answer.is_some_and(|answer| answer.at.elapsed() < BELIEVED)
    }

    /// Asks about each of `features`, and fails as the first one did that was not answered.
    async fn ask_all(
        &self,
        gateway: &dyn ClusterGateway,
        features: impl IntoIterator<Item = ClusterFeature>,
    ) -> Result<(), ClusterError> {
        let mut failed = None;
        for feature in features {
            let Err(error) = self.ask(gateway, feature).await else {
                continue;
            };
            // A cluster that could not tell one thing tells others; one that does not answer is not asked ten times.
            let goes_on = matches!(error, ClusterError::Unreadable { .. });
            failed.get_or_insert(error);
            if !goes_on {
                break;
            }
        }
        let Some(error) = failed else {
            return Ok(());
        };
        self.known().reason = Some(UnseenReason::from(&error));
        Err(error)
    }

    async fn ask(&self, gateway: &dyn ClusterGateway, feature: ClusterFeature) -> Result<(), ClusterError> {
        let asked_at = Instant::now();
        let mut missing = Vec::new();
        for action in feature.needs() {
            let answer = timeout(LIMIT, gateway.may(action)).await;
            match answer.unwrap_or(Err(ClusterError::TimedOut { limit: LIMIT })) {
                Ok(true) => {}
                Ok(false) => missing.push(*action),
                Err(error) => {
                    self.known().failed_at = Some(Instant::now());
                    return Err(error);
                }
            }
        }
        let mut known = self.known();
        let before = known.answers.get(&feature);
        if before.is_some_and(|before| asked_at < before.asked_at) {
            return Ok(());
        }
        let at = Instant::now();
        let since = before.and_then(|before| before.missing_since).unwrap_or(at);
        let answer = Answer {
            missing_since: (!missing.is_empty()).then_some(since),
            missing,
            asked_at,
            at,
        };
        known.answers.insert(feature, answer);
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inventory {
    /// Refuses what needs a feature that a cluster does not allow. What is not known is not refused: trying it tells.
    ///
    /// # Errors
    /// [`InventoryError::NotAllowed`], or [`InventoryError::UnknownCluster`].
    pub(crate) async fn check_features(&self, cluster: &str, needed: &[ClusterFeature]) -> Result<(), InventoryError> {
        let cluster = self.find(cluster)?;
        let gateway = &*cluster.handle.gateway;
        let missing = cluster.permissions.still_missing(gateway, needed).await;
        match missing.is_empty() {
            true => Ok(()),
            false => Err(InventoryError::NotAllowed {
                cluster: cluster.handle.name.clone(),
                missing,
            }),
        }
    }
}

/// Shows which permissions are missing; what is not known, or not used, is not there.
pub(super) fn observe(cluster: &ClusterName, permissions: &Permissions) {
    for status in permissions.status().features {
        let missing = match status.state {
            FeatureState::Available => 0.0,
            FeatureState::Missing => 1.0,
            FeatureState::NotKnown | FeatureState::NotUsed => continue,
        };
        let labels = [
            ("cluster", cluster.to_string()),
            ("feature", status.feature.as_str().to_owned()),
        ];
        gauge!(metric::CLUSTER_PERMISSIONS_MISSING, &labels).set(missing);
    }
}
