//! Clusters that let those wait who ask what somebody may do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use knm_model::ClusterName;
use knm_ports::ClusterError;
use tokio::time::Instant;

/// How long a cluster that did not answer is not asked again.
const LEFT_ALONE: Duration = Duration::from_secs(10);
/// Failures that come sooner cost nobody time, and the next question may have better luck.
const SLOW: Duration = Duration::from_secs(1);

/// Which clusters did not answer lately, so that a dead one does not make each request wait.
#[derive(Default)]
pub(super) struct Silence {
    silent: Mutex<HashMap<ClusterName, Silent>>,
}

struct Silent {
    until: Instant,
    why: Arc<ClusterError>,
}

impl Silence {
    /// Lets one question after another through: of a cluster that did not answer lately only one after the pause, which may take `limit`.
    ///
    /// # Errors
    /// Why it did not answer.
    pub(super) fn ask(&self, cluster: &ClusterName, limit: Duration) -> Result<Instant, Arc<ClusterError>> {
        let now = Instant::now();
        if let Some(silent) = self.silent().get_mut(cluster) {
            if now < silent.until {
                return Err(Arc::clone(&silent.why));
            }
            // Others are told the same until this one knows better.
            silent.until = now + limit;
        }
        Ok(now)
    }

    /// It answered.
    pub(super) fn over(&self, cluster: &ClusterName) {
        self.silent().remove(cluster);
    }

    /// It did not answer what it was asked at `since`.
    pub(super) fn note(&self, cluster: &ClusterName, since: Instant, why: &Arc<ClusterError>) {
        if SLOW <= since.elapsed() {
            let silent = Silent {
                until: Instant::now() + LEFT_ALONE,
                why: Arc::clone(why),
            };
            self.silent().insert(cluster.clone(), silent);
        }
    }

    fn silent(&self) -> MutexGuard<'_, HashMap<ClusterName, Silent>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn away() -> Arc<ClusterError> {
        Arc::new(ClusterError::TimedOut { limit: LIMIT })
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_was_silent_is_asked_by_one_after_a_pause() {
        let (silence, cluster) = (Silence::default(), ClusterName::from_any("east"));
        let since = silence.ask(&cluster, LIMIT).expect("nothing is known of it");
        tokio::time::advance(LIMIT).await;
        silence.note(&cluster, since, &away());
        tokio::time::advance(LEFT_ALONE - Duration::from_millis(1)).await;
        assert!(silence.ask(&cluster, LIMIT).is_err());
        assert!(silence.ask(&ClusterName::from_any("west"), LIMIT).is_ok());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(silence.ask(&cluster, LIMIT).is_ok());
        assert!(silence.ask(&cluster, LIMIT).is_err(), "one asks");
        // Whoever asked may have left without a word.
        tokio::time::advance(LIMIT).await;
        assert!(silence.ask(&cluster, LIMIT).is_ok());
        silence.over(&cluster);
        assert!(silence.ask(&cluster, LIMIT).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_quick_failure_is_forgotten() {
        let (silence, cluster) = (Silence::default(), ClusterName::from_any("east"));
        let since = silence.ask(&cluster, LIMIT).expect("nothing is known of it");
        silence.note(&cluster, since, &away());
        assert!(silence.ask(&cluster, LIMIT).is_ok());
    }
}
