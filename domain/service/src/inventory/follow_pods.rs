//! The task that follows the pods of one cluster.

use std::error::Error;
use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use knm_model::{NodeName, Resources, Timestamp};
use knm_ports::{Clock, ClusterError, PodEvent};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep, timeout};

use super::Cluster;
use super::follow::{BURST, REOPEN, SILENCE};
use super::pods::PodIndex;
use super::status::{PodsStatus, UnseenReason};

/// What is known of the pods of a cluster.
#[derive(Default)]
pub(super) struct Pods {
    index: PodIndex,
    /// Whether there was a complete list: before that, nothing is shown.
    listed: bool,
    /// Whether a new list is on its way, so that what is known is partly old and partly new.
    listing: bool,
    /// Whether they cannot be seen.
    lost: bool,
    last_seen: Option<Timestamp>,
    reason: Option<UnseenReason>,
}

/// Why it is not known what the pods of a cluster ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PodsUnknown {
    /// There was no complete list of them since the service started, or since they came back to sight.
    NotSeenYet,
    /// They cannot be seen.
    Lost(UnseenReason),
}

pub(super) struct PodFollower {
    cluster: Arc<Cluster>,
    clock: Arc<dyn Clock>,
    started: Instant,
}

impl Pods {
    /// The pods as they are now.
    pub(super) fn current(&self) -> Result<&PodIndex, PodsUnknown> {
        match self.reason.filter(|_| self.lost) {
            Some(reason) => Err(PodsUnknown::Lost(reason)),
            None if !self.listed || self.listing => Err(PodsUnknown::NotSeenYet),
            None => Ok(&self.index),
        }
    }

    /// What the pods on `node` ask for, as far as it is known; `None` before there was a complete list.
    pub(super) fn requested(&self, node: &NodeName) -> Option<Resources> {
        let requested = || self.index.requested(node).cloned().unwrap_or_default();
        self.listed.then(requested)
    }

    pub(super) fn last_seen(&self) -> Option<Timestamp> {
        self.last_seen
    }

    pub(super) fn status(&self) -> PodsStatus {
        PodsStatus {
            pods: match self.listed {
                true => self.index.len(),
                false => 0,
            },
            as_of: self.last_seen,
            stale: self.current().is_err(),
            reason: self.reason.filter(|_| self.lost),
        }
    }

    fn seen(&mut self, now: Timestamp) {
        self.last_seen = Some(now);
        self.lost = false;
    }
}

impl PodFollower {
    pub(super) fn new(cluster: Arc<Cluster>, clock: Arc<dyn Clock>) -> Self {
        Self {
            cluster,
            clock,
            started: Instant::now(),
        }
    }

    pub(super) async fn run(self) {
        let ended = self.cluster.ended.clone();
        // Ends when the cluster is removed or the service shuts down; following never does.
        let _ = ended.run_until_cancelled(self.follow()).await;
    }

    async fn follow(self) {
        loop {
            let mut events = self.cluster.handle.gateway.watch_pods().fuse();
            loop {
                match timeout(SILENCE, events.next()).await {
                    Ok(Some(event)) => {
                        self.take(event);
                        for _ in 1..BURST {
                            let Some(Some(event)) = unconstrained(events.next()).now_or_never() else {
                                break;
                            };
                            self.take(event);
                        }
                    }
                    Ok(None) => break,
                    Err(_) => self.lost(&ClusterError::TimedOut { limit: SILENCE }),
                }
                // A long list leaves others a turn.
                tokio::task::yield_now().await;
            }
            self.lost(&ClusterError::Unreadable {
                message: "the watch of its pods ended by itself".to_owned(),
            });
            sleep(REOPEN).await;
        }
    }

    fn take(&self, event: PodEvent) {
        let now = self.clock.now();
        let Some(mut pods) = self.cluster.pods() else {
            return;
        };
        let was_lost = pods.lost && pods.listed;
        match event {
            PodEvent::Listing => {
                pods.listing = true;
                pods.index.begin();
            }
            PodEvent::Listed(part) => part.into_iter().for_each(|pod| pods.index.apply(pod)),
            PodEvent::Complete => {
                pods.seen(now);
                pods.index.complete();
                pods.listing = false;
                self.cluster.pods_listed.notify_one();
                if !std::mem::replace(&mut pods.listed, true) {
                    let (count, took) = (pods.index.len(), self.started.elapsed());
                    tracing::info!(cluster = %self.cluster.handle.name, pods = count, ?took, "pods seen");
                }
            }
            PodEvent::Applied(pod) => {
                pods.seen(now);
                pods.index.apply(*pod);
            }
            PodEvent::Deleted { uid } => {
                pods.seen(now);
                pods.index.delete(&uid);
            }
            PodEvent::Alive => pods.seen(now),
            PodEvent::Lost(error) => {
                drop(pods);
                return self.lost(&error);
            }
        }
        if was_lost && !pods.lost {
            tracing::info!(cluster = %self.cluster.handle.name, "pods seen again");
        }
    }

    /// Notes that the pods cannot be seen, and logs it unless that is known.
    fn lost(&self, error: &ClusterError) {
        let Some(mut pods) = self.cluster.pods() else {
            return;
        };
        let reason = UnseenReason::from(error);
        let is_known = pods.lost && pods.reason == Some(reason);
        pods.lost = true;
        pods.reason = Some(reason);
        let count = pods.status().pods;
        drop(pods);
        if !is_known {
            let chain = error as &dyn Error;
            tracing::warn!(error = chain, cluster = %self.cluster.handle.name, pods = count, "pods lost");
        }
    }
}
