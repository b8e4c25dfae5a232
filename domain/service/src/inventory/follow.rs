//! The task that follows one cluster.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use knm_ports::{Clock, ClusterError, ClusterGateway, NodeEvent};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::feed::ChangeKind;
use super::index::NodeIndex;
use super::snapshot::{Snapshot, SnapshotVersion};
use super::status::{ClusterState, UnseenReason};
use super::{Cluster, Contact};

/// A cluster tells something every 15 s; three times that in silence means that it cannot be seen.
pub(super) const SILENCE: Duration = Duration::from_secs(45);
/// How many events that are ready at once make one snapshot at most.
pub(super) const BURST: usize = 1024;
/// The pause before a watch that ended, which none should, is opened again.
pub(super) const REOPEN: Duration = Duration::from_secs(1);
/// How often nodes are shown with what their pods ask for: a busy cluster changes that all the time, and each time is a new snapshot.
const SHOW_PODS: Duration = Duration::from_secs(1);
/// How long the API server may take to tell its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);
/// The longest pause between two questions for the version.
const VERSION_PAUSE: Duration = Duration::from_secs(60);

pub(super) struct Follower {
    cluster: Arc<Cluster>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
    index: NodeIndex,
    /// Whether there was a complete list: before that, nothing is shown.
    listed: bool,
    /// Whether the current snapshot is marked stale.
    stale: bool,
    generation: u64,
    /// Changes that are not published yet.
    pending: Vec<ChangeKind>,
    /// The revision of the pods that every node is shown with; `None`: the nodes are to be looked through.
    shown_pods: Option<u64>,
    started: Instant,
    /// Asks for the version of the API server.
    version: Option<AbortOnDropHandle<()>>,
}

impl Follower {
    pub(super) fn new(cluster: Arc<Cluster>, clock: Arc<dyn Clock>, shutdown: CancellationToken) -> Self {
        Self {
            index: NodeIndex::new(cluster.handle.name.clone()),
            cluster,
            clock,
            shutdown,
            listed: false,
            stale: false,
            generation: 0,
            pending: Vec::new(),
            shown_pods: None,
            started: Instant::now(),
            version: None,
        }
    }

    pub(super) async fn run(mut self) {
        let shutdown = self.shutdown.clone();
        // Ends when the shutdown does; following never does.
        let _ = shutdown.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        let cluster = Arc::clone(&self.cluster);
        let mut turns = self.cluster.pods.as_ref().map(|_| {
            let mut turns = interval(SHOW_PODS);
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            turns
        });
        loop {
            let mut events = self.cluster.handle.gateway.watch_nodes().fuse();
            let mut silent_until = Instant::now() + SILENCE;
            loop {
                tokio::select! {
                    event = events.next() => {
                        let Some(event) = event else {
                            break;
                        };
                        self.take(event);
                        for _ in 1..BURST {
                            // Unconstrained, or tokio would cut a burst into many after a while.
                            let Some(Some(event)) = unconstrained(events.next()).now_or_never() else {
                                break;
                            };
                            self.take(event);
                        }
                        self.publish();
                    }
                    () = sleep_until(silent_until) => self.lost(&ClusterError::TimedOut { limit: SILENCE }),
                    () = turn(turns.as_mut()) => {
                        self.show_pods();
                        continue;
                    }
                    () = cluster.pods_listed.notified() => {
                        self.show_pods();
                        continue;
                    }
                }
                silent_until = Instant::now() + SILENCE;
            }
            self.lost(&ClusterError::Unreadable {
                message: "the watch of its nodes ended by itself".to_owned(),
            });
            sleep(REOPEN).await;
        }
    }

    /// Shows the nodes with what their pods ask for by now. Nobody is told of that as a change of the node: only the snapshot is a new one.
    fn show_pods(&mut self) {
        if self.listed && self.take_pods() {
            self.publish_snapshot(Vec::new());
        }
    }

    /// Whether what the pods ask for differs from what was known.
    fn take_pods(&mut self) -> bool {
        let Some(pods) = self.cluster.pods() else {
            return false;
        };
        let Ok(current) = pods.current() else {
            return false;
        };
        let revision = Some(current.revision());
        if std::mem::replace(&mut self.shown_pods, revision) == revision {
            return false;
        }
        self.index.show_requested(|node| pods.requested(node))
    }

    fn take(&mut self, event: NodeEvent) {
        match event {
            NodeEvent::Replaced(nodes) if self.listed => {
                self.seen();
                self.shown_pods = None;
                self.pending.extend(self.index.replace(nodes));
            }
            NodeEvent::Replaced(nodes) => {
                // Nobody can follow yet, so nobody is told of each node.
                self.index.replace(nodes);
                self.listed = true;
                self.seen();
                self.take_pods();
                self.publish_snapshot(Vec::new());
                let (nodes, took) = (self.index.len(), self.started.elapsed());
                tracing::info!(cluster = %self.cluster.handle.name, nodes, ?took, "cluster seen");
            }
            NodeEvent::Applied(node) => {
                self.seen();
                if self.listed {
                    let change = self.index.apply(*node);
                    if matches!(change, Some(ChangeKind::Added(_))) {
                        self.shown_pods = None;
                    }
                    self.pending.extend(change);
                }
            }
            NodeEvent::Deleted(name) => {
                self.seen();
                if self.listed {
                    self.pending.extend(self.index.delete(name.as_str()));
                }
            }
            NodeEvent::Alive => self.seen(),
            NodeEvent::Lost(error) => self.lost(&error),
        }
    }

    /// Notes that the cluster can be seen.
    fn seen(&mut self) {
        let now = self.clock.now();
        let state = match self.listed {
            true => ClusterState::Healthy,
            false => ClusterState::Connecting,
        };
        let (before, last_seen) = self.change_contact(|contact| {
            let before = (contact.state, contact.last_seen);
            contact.state = state;
            contact.last_seen = Some(now);
            contact.reason = None;
            before
        });
        if self.stale {
            self.stale = false;
            self.pending.push(ChangeKind::Fresh);
            let away = last_seen.map(|last_seen| now.since(last_seen));
            tracing::info!(cluster = %self.cluster.handle.name, ?away, "cluster seen again");
        }
        if state == ClusterState::Healthy && before != ClusterState::Healthy {
            self.ask_for_version();
        }
    }

    /// Notes that the cluster cannot be seen, and logs it unless that is known.
    fn lost(&mut self, error: &ClusterError) {
        self.publish();
        let (before, last_seen) = self.change_contact(|contact| {
            let before = (contact.state, contact.last_seen);
            contact.state = ClusterState::Degraded;
            contact.reason = Some(UnseenReason::from(error));
            before
        });
        if before == ClusterState::Degraded {
            return;
        }
        let chain = error as &dyn Error;
        tracing::warn!(error = chain, cluster = %self.cluster.handle.name, nodes = self.index.len(), "cluster lost");
        if let (true, Some(as_of)) = (self.listed, last_seen) {
            self.stale = true;
            self.pending.push(ChangeKind::Stale { as_of });
            self.publish();
        }
    }

    fn publish(&mut self) {
        if !self.pending.is_empty() {
            let changes = std::mem::take(&mut self.pending);
            self.publish_snapshot(changes);
        }
    }

    fn publish_snapshot(&mut self, changes: Vec<ChangeKind>) {
        self.generation += 1;
        let version = SnapshotVersion {
            scope: 0,
            epoch: self.cluster.feed.epoch(),
            generation: self.generation,
        };
        let last_seen = self.cluster.contact().last_seen.filter(|_| self.stale);
        let snapshot = Snapshot::new(
            self.cluster.handle.name.clone(),
            version,
            last_seen.unwrap_or_else(|| self.clock.now()),
            self.stale,
            self.index.blocks().to_vec(),
        );
        self.cluster.feed.publish(Arc::new(snapshot), changes);
    }

    fn change_contact<T>(&self, change: impl FnOnce(&mut Contact) -> T) -> T {
        change(&mut self.cluster.contact())
    }

    fn ask_for_version(&mut self) {
        let cluster = Arc::clone(&self.cluster);
        let asking = tokio::spawn(async move {
            let version = server_version(cluster.handle.gateway.as_ref()).await;
            cluster.contact().server_version = Some(version);
        });
        self.version = Some(AbortOnDropHandle::new(asking));
    }
}

/// Waits for the next turn; for ever if there are none.
async fn turn(turns: Option<&mut Interval>) {
    match turns {
        Some(turns) => drop(turns.tick().await),
        None => std::future::pending().await,
    }
}

/// Asks until there is an answer: the cluster can be seen, so there will be one, or the question is dropped with the cluster.
async fn server_version(gateway: &dyn ClusterGateway) -> String {
    let mut pause = Duration::from_secs(1);
    loop {
        let answer = timeout(VERSION_DEADLINE, gateway.server_version())
            .await
            .unwrap_or(Err(ClusterError::TimedOut {
                limit: VERSION_DEADLINE,
            }));
        match answer {
            Ok(version) => return version,
            Err(error) => {
                tracing::debug!(error = &error as &dyn Error, "the cluster did not tell its version");
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(VERSION_PAUSE);
    }
}
