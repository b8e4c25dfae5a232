//! The live inventory of nodes: what every cluster told last, ready to be read without asking anybody.

mod access;
mod attentive;
mod draining;
mod feed;
mod follow;
mod follow_pods;
mod index;
mod permissions;
mod pods;
mod self_check;
mod snapshot;
mod status;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::join_all;
use knm_model::{ClusterAccess, ClusterName, ClusterRegistration, ClusterSource, NodeName, NodeStatus, Pod, Timestamp};
use knm_ports::{AccessReviews, Clock, ClusterError, ClusterGateway};
use metrics::gauge;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use access::{EXPIRES_SOON, Expiring};
pub use draining::DrainPreview;
pub use feed::{ChangeKind, EventId, Lagged, NodeChange, Subscription, SubscriptionStart};
pub use pods::PodIndex;
pub use self_check::SelfCheck;
pub use snapshot::{Block, NodeEntry, Snapshot, SnapshotVersion};
pub use status::{ClusterState, ClusterStatus, InventoryError, PermissionsStatus, PodsStatus, UnseenReason};

use crate::metric;
use attentive::Attentive;
use feed::Feed;
use follow::Follower;
use follow_pods::{PodFollower, Pods};
use permissions::Permissions;

/// How long a cluster may take to tell the pods on a node.
const PODS_DEADLINE: Duration = Duration::from_secs(10);

/// A cluster to be watched.
#[derive(Clone)]
pub struct ClusterHandle {
    /// Its name in this service.
    pub name: ClusterName,
    /// Where the access to it comes from.
    pub source: ClusterSource,
    /// The access to it.
    pub gateway: Arc<dyn ClusterGateway>,
    /// What it can be asked about people; `None` if it knows none.
    pub reviews: Option<Arc<dyn AccessReviews>>,
    /// Whether its pods are watched, and not only asked for.
    pub watch_pods: bool,
}

/// What is known of all clusters.
pub struct Inventory {
    /// Sorted by name. Whoever reads loads it once and keeps what it found.
    clusters: ArcSwap<Vec<Arc<Cluster>>>,
    /// Held by whoever changes which clusters there are.
    past: Mutex<Past>,
    /// Counts how often that changed.
    changes: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
}

/// What there was before.
struct Past {
    /// Never the same for two clusters, two replicas or two starts: readers compare versions across all of them.
    randomness: RandomState,
    started_at: i64,
    /// How many clusters there ever were.
    count: u64,
}

/// The pods on a node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodePods {
    /// Sorted by namespace and name.
    pub pods: Vec<PodOnNode>,
    /// The time of what is told here.
    pub as_of: Timestamp,
}

/// A pod on a node, and what protects it.
#[derive(Clone, Debug, PartialEq)]
pub struct PodOnNode {
    /// The pod.
    pub pod: Pod,
    /// The names of the disruption budgets, all in the pod's namespace, that match it; sorted.
    pub budgets: Vec<String>,
}

/// One cluster and what is known of it.
struct Cluster {
    handle: ClusterHandle,
    feed: Arc<Feed>,
    /// Ends all that follows it: when it is removed or replaced, and with the service.
    ended: CancellationToken,
    contact: Mutex<Contact>,
    /// What it lets this service do.
    permissions: Arc<Permissions>,
    /// `None` if its pods are not watched.
    pods: Option<Mutex<Pods>>,
    /// There is a complete list of its pods.
    pods_listed: Notify,
}

/// How we get on with a cluster.
#[derive(Clone)]
struct Contact {
    state: ClusterState,
    last_seen: Option<Timestamp>,
    reason: Option<UnseenReason>,
    server_version: Option<String>,
    registered_at: Option<Timestamp>,
    access: Option<ClusterAccess>,
    revision: Option<Uuid>,
}

impl Inventory {
    /// Starts the tasks that watch the clusters, their nodes and their pods, on the current tokio runtime. They end when `shutdown` is cancelled.
    /// Of several clusters under one name the first is taken: configurations refuse that earlier.
    pub fn start(clock: Arc<dyn Clock>, clusters: Vec<ClusterHandle>, shutdown: CancellationToken) -> Arc<Self> {
        let past = Past {
            randomness: RandomState::new(),
            started_at: clock.now().unix_millis(),
            count: 0,
        };
        let inventory = Self {
            clusters: ArcSwap::default(),
            past: Mutex::new(past),
            changes: watch::Sender::new(0),
            clock,
            shutdown,
        };
        for handle in clusters {
            if inventory.find(handle.name.as_str()).is_err() {
                inventory.put(handle);
            }
        }
        Arc::new(inventory)
    }

    /// Watches a cluster from now on, in place of the one under the same name if there is one: who follows that one is told that it ended.
    /// It must be called on a tokio runtime.
    pub fn put(&self, handle: ClusterHandle) {
        self.put_described(handle, |_| ());
    }

    fn put_described(&self, handle: ClusterHandle, describe: impl FnOnce(&mut Contact)) {
        let mut past = self.past();
        past.count += 1;
        let epoch = past
            .randomness
            .hash_one((handle.name.as_str(), past.started_at, past.count));
        let cluster = Arc::new(Cluster::new(handle, epoch, self.shutdown.child_token()));
        describe(&mut cluster.contact());
        let name = &cluster.handle.name;
        let mut clusters = Vec::clone(&self.clusters.load());
        let before = match clusters.binary_search_by(|known| known.handle.name.cmp(name)) {
            Ok(place) => Some(std::mem::replace(&mut clusters[place], Arc::clone(&cluster))),
            Err(place) => {
                clusters.insert(place, Arc::clone(&cluster));
                None
            }
        };
        self.clusters.store(Arc::new(clusters));
        self.follow(&cluster);
        if let Some(before) = before {
            before.ended.cancel();
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// Forgets a cluster and whether there was one: who follows it is told that it ended.
    pub fn remove(&self, name: &ClusterName) -> bool {
        // Nobody else changes which there are meanwhile.
        let _past = self.past();
        let mut clusters = Vec::clone(&self.clusters.load());
        let Ok(place) = clusters.binary_search_by(|known| known.handle.name.cmp(name)) else {
            return false;
        };
        let cluster = clusters.remove(place);
        self.clusters.store(Arc::new(clusters));
        cluster.ended.cancel();
        self.changes.send_modify(|count| *count += 1);
        true
    }

    /// The names of the clusters that there are.
    #[must_use]
    pub fn names(&self) -> BTreeSet<ClusterName> {
        let clusters = self.clusters.load();
        clusters.iter().map(|cluster| cluster.handle.name.clone()).collect()
    }

    /// Waits until all of these clusters are known, or `limit` passed: another replica may know of a cluster a moment earlier.
    pub(crate) async fn known(&self, clusters: &BTreeSet<ClusterName>, limit: Duration) {
        let mut changes = self.changes.subscribe();
        let all = changes.wait_for(|_| clusters.iter().all(|name| self.find(name.as_str()).is_ok()));
        // Whoever waits looks for them next.
        let _ = tokio::time::timeout(limit, all).await;
    }

    fn follow(&self, cluster: &Arc<Cluster>) {
        let follower = Follower::new(Arc::clone(cluster), Arc::clone(&self.clock));
        tokio::spawn(follower.run());
        if cluster.pods.is_some() {
            let follower = PodFollower::new(Arc::clone(cluster), Arc::clone(&self.clock));
            tokio::spawn(follower.run());
        }
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How all clusters are, sorted by name.
    #[must_use]
    pub fn clusters(&self) -> Vec<ClusterStatus> {
        self.clusters.load().iter().map(|cluster| cluster.status()).collect()
    }

    /// How a cluster is.
    ///
    /// # Errors
    /// [`InventoryError::UnknownCluster`].
    pub fn cluster(&self, name: &str) -> Result<ClusterStatus, InventoryError> {
        self.find(name).map(|cluster| cluster.status())
    }

    /// All nodes of a cluster.
    ///
    /// # Errors
    /// [`InventoryError::UnknownCluster`], or [`InventoryError::NotSeenYet`] before its first complete list.
    pub fn snapshot(&self, name: &str) -> Result<Arc<Snapshot>, InventoryError> {
        self.find(name)?.snapshot()
    }

    /// All nodes of all clusters, or why not, sorted by the names of the clusters.
    #[must_use]
    pub fn snapshots(&self) -> Vec<(ClusterName, Result<Arc<Snapshot>, InventoryError>)> {
        let clusters = self.clusters.load();
        clusters
            .iter()
            .map(|cluster| (cluster.handle.name.clone(), cluster.snapshot()))
            .collect()
    }

    /// The pods on a node, and the budgets that match them. Pods come from what is watched, if that is up to date; else they are asked of the
    /// cluster at this moment, as the budgets always are, for 10 s at most.
    ///
    /// # Errors
    /// [`InventoryError`], any of them.
    pub async fn pods_on_node(&self, cluster: &str, node: &str) -> Result<NodePods, InventoryError> {
        let cluster = self.find(cluster)?;
        let name: NodeName = match cluster.snapshot()?.find(node) {
            Some(entry) => entry.node().name.clone(),
            None => {
                return Err(InventoryError::UnknownNode {
                    cluster: cluster.handle.name.clone(),
                    node: node.to_owned(),
                });
            }
        };
        let gateway = &cluster.handle.gateway;
        let pods = async {
            match cluster.watched_pods(&name) {
                Some(watched) => Ok(watched),
                None => Ok((gateway.pods_on_node(&name).await?, self.clock.now())),
            }
        };
        let both = async { tokio::try_join!(pods, gateway.disruption_budgets()) };
        let answer = tokio::time::timeout(PODS_DEADLINE, both)
            .await
            .unwrap_or(Err(ClusterError::TimedOut { limit: PODS_DEADLINE }));
        let ((pods, as_of), budgets) = answer.map_err(|source| InventoryError::Cluster {
            cluster: cluster.handle.name.clone(),
            source,
        })?;
        let protected = |pod: Pod| {
            let mut names: Vec<_> = budgets
                .iter()
                .filter(|budget| budget.matches(&pod))
                .map(|budget| budget.name.clone())
                .collect();
            names.sort_unstable();
            PodOnNode { pod, budgets: names }
        };
        Ok(NodePods {
            pods: pods.into_iter().map(protected).collect(),
            as_of,
        })
    }

    /// The pods on a node by what is watched; `None` if they are not watched, or what is known of them is not up to date.
    pub(crate) fn watched_pods(&self, cluster: &str, node: &NodeName) -> Option<Vec<Pod>> {
        let (pods, _) = self.find(cluster).ok()?.watched_pods(node)?;
        Some(pods)
    }

    /// The access to a cluster, as it is now.
    ///
    /// # Errors
    /// [`InventoryError::UnknownCluster`].
    pub fn handle(&self, cluster: &str) -> Result<ClusterHandle, InventoryError> {
        self.find(cluster).map(|cluster| cluster.handle.clone())
    }

    /// Follows the changes of a cluster's nodes, after `resume_after` if what came since then is still known.
    ///
    /// # Errors
    /// [`InventoryError::UnknownCluster`], or [`InventoryError::NotSeenYet`] before its first complete list.
    pub fn watch(&self, cluster: &str, resume_after: Option<EventId>) -> Result<Subscription, InventoryError> {
        let cluster = self.find(cluster)?;
        cluster
            .feed
            .subscribe(resume_after, cluster.ended.clone())
            .ok_or_else(|| cluster.not_seen_yet())
    }

    /// Takes over when the clusters were first registered, see [`ClusterStatus::registered_at`].
    pub fn registered(&self, registrations: &[ClusterRegistration]) {
        for registration in registrations {
            if let Ok(cluster) = self.find(registration.name.as_str()) {
                cluster.contact().registered_at = Some(registration.registered_at);
            }
        }
    }

    /// Sets the gauges of the clusters. Called right before metrics are rendered.
    pub fn observe(&self) {
        let now = self.clock.now();
        for cluster in self.clusters.load().iter() {
            let name = cluster.handle.name.to_string();
            let contact = cluster.contact().clone();
            let up = f64::from(u8::from(contact.state == ClusterState::Healthy));
            gauge!(metric::CLUSTER_UP, "cluster" => name.clone()).set(up);
            if let Some(access) = contact.access {
                let until = access.expires_at.map_or(f64::INFINITY, Timestamp::unix_seconds);
                gauge!(metric::CLUSTER_CREDENTIALS_EXPIRE, "cluster" => name.clone()).set(until);
            }
            if let Some(last_seen) = contact.last_seen {
                let age = now.since(last_seen).as_secs_f64();
                gauge!(metric::CLUSTER_LAST_EVENT_AGE, "cluster" => name.clone()).set(age);
            }
            if let Some(pods) = cluster.pods().map(|pods| pods.status()) {
                gauge!(metric::CLUSTER_PODS, "cluster" => name.clone()).set(pods.pods as f64);
                gauge!(metric::CLUSTER_PODS_UP, "cluster" => name.clone()).set(f64::from(u8::from(!pods.stale)));
            }
            permissions::observe(&cluster.handle.name, &cluster.permissions);
            let Some(snapshot) = cluster.feed.current() else {
                continue;
            };
            let summary = snapshot.summary();
            for status in NodeStatus::ALL {
                let count = match status {
                    NodeStatus::Ready => summary.by_status.ready,
                    NodeStatus::NotReady => summary.by_status.not_ready,
                    NodeStatus::Unknown => summary.by_status.unknown,
                };
                gauge!(metric::CLUSTER_NODES, "cluster" => name.clone(), "status" => status.as_str()).set(count as f64);
            }
            gauge!(metric::CLUSTER_NODES_UNSCHEDULABLE, "cluster" => name).set(summary.unschedulable as f64);
        }
    }

    /// Waits until every cluster was seen once, or `limit` passed.
    pub async fn settled(&self, limit: Duration) {
        let all = {
            let clusters = self.clusters.load_full();
            async move { join_all(clusters.iter().map(|cluster| cluster.feed.first())).await }
        };
        // Whoever waits looks at the clusters next; one that was not seen says so itself.
        let _ = tokio::time::timeout(limit, all).await;
    }

    fn find(&self, name: &str) -> Result<Arc<Cluster>, InventoryError> {
        let clusters = self.clusters.load();
        clusters
            .binary_search_by(|cluster| cluster.handle.name.as_str().cmp(name))
            .map(|at| Arc::clone(&clusters[at]))
            .map_err(|_| InventoryError::UnknownCluster {
                cluster: name.to_owned(),
            })
    }
}

impl Cluster {
    fn new(mut handle: ClusterHandle, epoch: u64, ended: CancellationToken) -> Self {
        let permissions = Arc::new(Permissions::default());
        handle.gateway = Arc::new(Attentive {
            inner: handle.gateway,
            permissions: Arc::clone(&permissions),
        });
        Self {
            permissions,
            pods: handle.watch_pods.then(Mutex::default),
            pods_listed: Notify::new(),
            handle,
            feed: Arc::new(Feed::new(epoch)),
            ended,
            contact: Mutex::new(Contact {
                state: ClusterState::Connecting,
                last_seen: None,
                reason: None,
                server_version: None,
                registered_at: None,
                access: None,
                revision: None,
            }),
        }
    }

    fn status(&self) -> ClusterStatus {
        let contact = self.contact().clone();
        let snapshot = self.feed.current();
        ClusterStatus {
            name: self.handle.name.clone(),
            source: self.handle.source,
            state: contact.state,
            nodes: snapshot.as_ref().map_or(0, |snapshot| snapshot.len()),
            as_of: contact.last_seen,
            stale: snapshot.as_ref().is_none_or(|snapshot| snapshot.stale()),
            reason: contact.reason,
            server_version: contact.server_version,
            generation: snapshot.as_ref().map_or(0, |snapshot| snapshot.version().generation),
            registered_at: contact.registered_at,
            access: contact.access,
            revision: contact.revision,
            pods: self.pods().map(|pods| pods.status()),
            permissions: self.permissions.status(),
        }
    }

    fn snapshot(&self) -> Result<Arc<Snapshot>, InventoryError> {
        self.feed.current().ok_or_else(|| self.not_seen_yet())
    }

    fn not_seen_yet(&self) -> InventoryError {
        InventoryError::NotSeenYet {
            cluster: self.handle.name.clone(),
            reason: self.contact().reason,
        }
    }

    fn contact(&self) -> MutexGuard<'_, Contact> {
        self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pods on a node by what is watched, and when that was last seen; `None` if it is not up to date.
    fn watched_pods(&self, node: &NodeName) -> Option<(Vec<Pod>, Timestamp)> {
        let pods = self.pods()?;
        let on_node = pods.current().ok()?.on_node(node);
        Some((on_node, pods.last_seen()?))
    }

    /// `None` if they are not watched. Nobody waits for anything else with this lock.
    fn pods(&self) -> Option<MutexGuard<'_, Pods>> {
        let pods = self.pods.as_ref()?;
        Some(pods.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
