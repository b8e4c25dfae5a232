//! Somebody who gets in between this service and a cluster.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use knm_model::{DisruptionBudget, Node, NodeName, NodePatch, ObjectName, Pod};
use knm_ports::{ClusterError, ClusterGateway, EvictOptions, Eviction, NodeEvents, PodEvents, PodRef};

/// What happens to a patch.
pub enum Meddling {
    /// Something else is done first.
    Before(BoxFuture<'static, ()>),
    /// It is done, and its answer is lost.
    Lost,
    /// It is refused.
    Refused,
}

/// A cluster whose patches are meddled with, in the order in which that was asked for.
pub struct Meddler {
    inner: Arc<dyn ClusterGateway>,
    next: Mutex<VecDeque<Meddling>>,
}

impl Meddler {
    pub fn new(inner: Arc<dyn ClusterGateway>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            next: Mutex::default(),
        })
    }

    /// Meddles with the next patch that is not meddled with yet.
    pub fn with(&self, meddling: Meddling) {
        self.next.lock().unwrap().push_back(meddling);
    }
}

#[async_trait]
impl ClusterGateway for Meddler {
    fn watch_nodes(&self) -> NodeEvents {
        self.inner.watch_nodes()
    }

    fn watch_pods(&self) -> PodEvents {
        self.inner.watch_pods()
    }

    async fn pods_on_node(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        self.inner.pods_on_node(node).await
    }

    async fn recent_pods_on_node(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        self.inner.recent_pods_on_node(node).await
    }

    async fn disruption_budgets(&self) -> Result<Vec<DisruptionBudget>, ClusterError> {
        self.inner.disruption_budgets().await
    }

    async fn daemon_sets(&self) -> Result<BTreeSet<ObjectName>, ClusterError> {
        self.inner.daemon_sets().await
    }

    async fn evict(&self, pod: &PodRef, options: &EvictOptions) -> Result<Eviction, ClusterError> {
        self.inner.evict(pod, options).await
    }

    async fn delete_pod(&self, pod: &PodRef, options: &EvictOptions) -> Result<Eviction, ClusterError> {
        self.inner.delete_pod(pod, options).await
    }

    async fn attached_volumes(&self, node: &NodeName) -> Result<Vec<String>, ClusterError> {
        self.inner.attached_volumes(node).await
    }

    async fn node(&self, name: &NodeName) -> Result<Option<Node>, ClusterError> {
        self.inner.node(name).await
    }

    async fn patch_node(&self, name: &NodeName, patch: &NodePatch, dry_run: bool) -> Result<Node, ClusterError> {
        let meddling = self.next.lock().unwrap().pop_front();
        match meddling {
            Some(Meddling::Refused) => Err(ClusterError::Invalid {
                message: "not today".to_owned(),
            }),
            Some(Meddling::Lost) => {
                self.inner.patch_node(name, patch, dry_run).await?;
                Err(ClusterError::TimedOut {
                    limit: Duration::from_secs(1),
                })
            }
            Some(Meddling::Before(something)) => {
                something.await;
                self.inner.patch_node(name, patch, dry_run).await
            }
            None => self.inner.patch_node(name, patch, dry_run).await,
        }
    }

    async fn server_version(&self) -> Result<String, ClusterError> {
        self.inner.server_version().await
    }
}
