//! The access to the simulated fleet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream;
use knm_model::{DisruptionBudget, KubernetesAction, Node, NodeName, NodePatch, ObjectName, Pod};
use knm_ports::{ClusterError, ClusterGateway, EvictOptions, Eviction, NodeEvent, NodeEvents, PodEvents, PodRef};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::timeout;

use crate::fleet::{Fleet, Told};
use crate::pod_watch;

/// After this long without a change a watcher is told that the fleet is there.
pub(crate) const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// The version that the fleet says its API server has.
const SERVER_VERSION: &str = "v1.36.0";

pub(crate) struct MemoryClusterGateway {
    fleet: Arc<Fleet>,
}

/// One watch of the nodes.
struct Watch {
    fleet: Arc<Fleet>,
    told: broadcast::Receiver<Told>,
    /// What the watcher is told first.
    first: Option<NodeEvent>,
}

impl MemoryClusterGateway {
    pub(crate) fn new(fleet: Arc<Fleet>) -> Self {
        Self { fleet }
    }
}

#[async_trait]
impl ClusterGateway for MemoryClusterGateway {
    fn watch_nodes(&self) -> NodeEvents {
        let fleet = Arc::clone(&self.fleet);
        // Lazily, so that a list of everything is made only when somebody takes it.
        stream::once(async move {
            let (all, told) = fleet.watch();
            let watch = Watch {
                fleet,
                told,
                first: Some(listed(all)),
            };
            stream::unfold(watch, |mut watch| async move { Some((watch.next().await, watch)) })
        })
        .flatten()
        .boxed()
    }

    fn watch_pods(&self) -> PodEvents {
        pod_watch::open(Arc::clone(&self.fleet))
    }

    async fn pods_on_node(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        self.fleet.allows("list", "pods")?;
        self.fleet.pods(node)
    }

    async fn recent_pods_on_node(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        self.fleet.allows("list", "pods")?;
        self.fleet.pods(node)
    }

    async fn disruption_budgets(&self) -> Result<Vec<DisruptionBudget>, ClusterError> {
        self.fleet.allows("list", "poddisruptionbudgets")?;
        self.fleet.budgets()
    }

    async fn daemon_sets(&self) -> Result<BTreeSet<ObjectName>, ClusterError> {
        self.fleet.allows("list", "daemonsets")?;
        self.fleet.daemon_sets()
    }

    async fn delete_pod(&self, pod: &PodRef, options: &EvictOptions) -> Result<Eviction, ClusterError> {
        self.fleet.allows("delete", "pods")?;
        self.fleet.delete_pod(pod, options)
    }

    async fn attached_volumes(&self, node: &NodeName) -> Result<Vec<String>, ClusterError> {
        self.fleet.allows("get", "nodes")?;
        self.fleet.attached_volumes(node)
    }

    async fn evict(&self, pod: &PodRef, options: &EvictOptions) -> Result<Eviction, ClusterError> {
        self.fleet.allows("create", "pods/eviction")?;
        self.fleet.evict(pod, options)
    }

    async fn node(&self, name: &NodeName) -> Result<Option<Node>, ClusterError> {
        self.fleet.allows("get", "nodes")?;
        Ok(self.fleet.node(name))
    }

    async fn patch_node(&self, name: &NodeName, patch: &NodePatch, dry_run: bool) -> Result<Node, ClusterError> {
        self.fleet.allows("patch", "nodes")?;
        self.fleet.patch(name, patch, dry_run)
    }

    async fn may(&self, action: &KubernetesAction) -> Result<bool, ClusterError> {
        self.fleet.may(action)
    }

    async fn server_version(&self) -> Result<String, ClusterError> {
        self.fleet.reachable()?;
        Ok(SERVER_VERSION.to_owned())
    }
}

impl Watch {
    async fn next(&mut self) -> NodeEvent {
        if let Some(first) = self.first.take() {
            return first;
        }
        loop {
            let told = match timeout(ALIVE_EVERY, self.told.recv()).await {
                Ok(told) => told,
                Err(_) => match self.fleet.reachable() {
                    Ok(()) => return NodeEvent::Alive,
                    Err(_) => continue,
                },
            };
            match told {
                Ok(Told::Applied(name)) => {
                    // Gone meanwhile: that is told next. Out of reach: everything is told when it is back.
                    if let Some(node) = self.fleet.node(&name) {
                        return NodeEvent::Applied(Box::new(node));
                    }
                }
                Ok(Told::Deleted(name)) => {
                    // Back meanwhile: that is told next.
                    if self.fleet.reachable().is_ok() {
                        return NodeEvent::Deleted(name);
                    }
                }
                Ok(Told::Pods(_) | Told::PodGone(_)) => {}
                Ok(Told::Lost | Told::Recovered) | Err(RecvError::Lagged(_)) => {
                    return listed(self.fleet.catch_up(&mut self.told));
                }
                // The fleet, which holds the other end, is held here: this cannot be, and waiting is all that is left.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

fn listed(all: Result<Vec<Node>, ClusterError>) -> NodeEvent {
    match all {
        Ok(nodes) => NodeEvent::Replaced(nodes),
        Err(error) => NodeEvent::Lost(error),
    }
}
