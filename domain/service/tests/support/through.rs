//! A cluster that answers as another one does, but for what a test changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use knm_model::{DisruptionBudget, KubernetesAction, Node, NodeName, NodePatch, ObjectName, Pod};
use knm_ports::{ClusterError, ClusterGateway, EvictOptions, Eviction, NodeEvents, PodEvents, PodRef};

/// What is different about a cluster: whatever is not said here is as it is in the one inside.
#[async_trait]
pub trait Different: Send + Sync + 'static {
    fn inner(&self) -> &dyn ClusterGateway;

    fn watch_nodes(&self) -> NodeEvents {
        self.inner().watch_nodes()
    }

    async fn pods_on_node(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        self.inner().pods_on_node(node).await
    }

    async fn recent_pods_on_node(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        self.inner().recent_pods_on_node(node).await
    }

    async fn disruption_budgets(&self) -> Result<Vec<DisruptionBudget>, ClusterError> {
        self.inner().disruption_budgets().await
    }

    async fn evict(&self, pod: &PodRef, options: &EvictOptions) -> Result<Eviction, ClusterError> {
        self.inner().evict(pod, options).await
    }

    async fn delete_pod(&self, pod: &PodRef, options: &EvictOptions) -> Result<Eviction, ClusterError> {
        self.inner().delete_pod(pod, options).await
    }

    async fn patch_node(&self, name: &NodeName, patch: &NodePatch, dry_run: bool) -> Result<Node, ClusterError> {
        self.inner().patch_node(name, patch, dry_run).await
    }

    async fn may(&self, action: &KubernetesAction) -> Result<bool, ClusterError> {
        self.inner().may(action).await
    }
}

/// The cluster that is so different.
pub fn through(different: Arc<impl Different>) -> Arc<dyn ClusterGateway> {
    Arc::new(Through(different))
}

struct Through<D>(Arc<D>);

#[async_trait]
impl<D: Different> ClusterGateway for Through<D> {
    fn watch_nodes(&self) -> NodeEvents {
        self.0.watch_nodes()
    }

    fn watch_pods(&self) -> PodEvents {
        self.0.inner().watch_pods()
    }

    async fn pods_on_node(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        self.0.pods_on_node(node).await
    }

    async fn recent_pods_on_node(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        self.0.recent_pods_on_node(node).await
    }

    async fn disruption_budgets(&self) -> Result<Vec<DisruptionBudget>, ClusterError> {
        self.0.disruption_budgets().await
    }

    async fn daemon_sets(&self) -> Result<BTreeSet<ObjectName>, ClusterError> {
        self.0.inner().daemon_sets().await
    }

    async fn evict(&self, pod: &PodRef, options: &EvictOptions) -> Result<Eviction, ClusterError> {
        self.0.evict(pod, options).await
    }

    async fn delete_pod(&self, pod: &PodRef, options: &EvictOptions) -> Result<Eviction, ClusterError> {
        self.0.delete_pod(pod, options).await
    }

    async fn attached_volumes(&self, node: &NodeName) -> Result<Vec<String>, ClusterError> {
        self.0.inner().attached_volumes(node).await
    }

    async fn node(&self, name: &NodeName) -> Result<Option<Node>, ClusterError> {
        self.0.inner().node(name).await
    }

    async fn patch_node(&self, name: &NodeName, patch: &NodePatch, dry_run: bool) -> Result<Node, ClusterError> {
        self.0.patch_node(name, patch, dry_run).await
    }

    async fn may(&self, action: &KubernetesAction) -> Result<bool, ClusterError> {
        self.0.may(action).await
    }

    async fn server_version(&self) -> Result<String, ClusterError> {
        self.0.inner().server_version().await
    }
}
