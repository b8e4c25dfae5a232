//! Hears of each request that a cluster forbids.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use knm_model::{DisruptionBudget, KubernetesAction, Node, NodeName, NodePatch, ObjectName, Pod};
use knm_ports::{
    ClusterError, ClusterGateway, EvictOptions, Eviction, NodeEvent, NodeEvents, PodEvent, PodEvents, PodRef,
};

use super::permissions::Permissions;

/// A gateway whose refusals are noted.
pub(super) struct Attentive {
    pub(super) inner: Arc<dyn ClusterGateway>,
    pub(super) permissions: Arc<Permissions>,
}

impl Attentive {
    fn heard<T>(&self, answer: Result<T, ClusterError>) -> Result<T, ClusterError> {
        if let Err(error) = &answer {
            note(&self.permissions, error);
        }
        answer
    }
}

fn note(permissions: &Permissions, error: &ClusterError) {
    if let ClusterError::Forbidden { action, .. } = error {
        permissions.forbade(*action);
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ClusterGateway for Attentive {
    fn watch_nodes(&self) -> NodeEvents {
        let permissions = Arc::clone(&self.permissions);
        let heard = move |event: &NodeEvent| {
            if let NodeEvent::Lost(error) = event {
                note(&permissions, error);
            }
        };
        self.inner.watch_nodes().inspect(heard).boxed()
    }

    fn watch_pods(&self) -> PodEvents {
        let permissions = Arc::clone(&self.permissions);
        let heard = move |event: &PodEvent| {
            if let PodEvent::Lost(error) = event {
                note(&permissions, error);
            }
        };
        self.inner.watch_pods().inspect(heard).boxed()
    }

    async fn pods_on_node(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        self.heard(self.inner.pods_on_node(node).await)
    }

    async fn recent_pods_on_node(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        self.heard(self.inner.recent_pods_on_node(node).await)
    }

    async fn disruption_budgets(&self) -> Result<Vec<DisruptionBudget>, ClusterError> {
        self.heard(self.inner.disruption_budgets().await)
    }

    async fn daemon_sets(&self) -> Result<BTreeSet<ObjectName>, ClusterError> {
        self.heard(self.inner.daemon_sets().await)
    }

    async fn evict(&self, pod: &PodRef, options: &EvictOptions) -> Result<Eviction, ClusterError> {
        self.heard(self.inner.evict(pod, options).await)
    }

    async fn delete_pod(&self, pod: &PodRef, options: &EvictOptions) -> Result<Eviction, ClusterError> {
        self.heard(self.inner.delete_pod(pod, options).await)
    }

    async fn attached_volumes(&self, node: &NodeName) -> Result<Vec<String>, ClusterError> {
        self.heard(self.inner.attached_volumes(node).await)
    }

    async fn node(&self, name: &NodeName) -> Result<Option<Node>, ClusterError> {
        self.heard(self.inner.node(name).await)
    }

    async fn patch_node(&self, name: &NodeName, patch: &NodePatch, dry_run: bool) -> Result<Node, ClusterError> {
        self.heard(self.inner.patch_node(name, patch, dry_run).await)
    }

    async fn may(&self, action: &KubernetesAction) -> Result<bool, ClusterError> {
        self.inner.may(action).await
    }

    async fn server_version(&self) -> Result<String, ClusterError> {
        self.inner.server_version().await
    }
}
