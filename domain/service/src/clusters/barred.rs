//! The access to a cluster whose credentials cannot be used: it says so, whatever it is asked.

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{once, pending};
use knm_model::{DisruptionBudget, KubernetesAction, Node, NodeName, NodePatch, ObjectName, Pod};
use knm_ports::{
    ClusterError, ClusterGateway, EvictOptions, Eviction, NodeEvent, NodeEvents, PodEvent, PodEvents, PodRef,
};

/// Why a cluster is not asked anything.
#[derive(Clone, Debug)]
pub(super) enum Bar {
    /// Its credentials cannot be opened.
    Locked(String),
    /// The configuration does not allow it.
    Disallowed(String),
}

/// A cluster behind a bar.
pub(super) struct Barred(pub(super) Bar);

impl Bar {
    pub(super) fn locked(message: impl Into<String>) -> Self {
        Self::Locked(message.into())
    }

    pub(super) fn disallowed(message: impl Into<String>) -> Self {
        Self::Disallowed(message.into())
    }

    fn error(&self) -> ClusterError {
        match self.clone() {
            Self::Locked(message) => ClusterError::Locked { message },
            Self::Disallowed(message) => ClusterError::Disallowed { message },
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error().fmt(f)
    }
}

/// A stream that tells once that the cluster is lost would be taken for a silent one after a while, with another reason: so it is told again.
fn again_and_again<T: Send + 'static>(
    event: impl Fn() -> T + Send + 'static,
) -> futures::stream::BoxStream<'static, T> {
    let first = once(std::future::ready(event()));
    let later = futures::stream::unfold(event, |event| async {
        tokio::time::sleep(super::following::AGAIN).await;
        Some((event(), event))
    });
    first.chain(later).chain(pending()).boxed()
}

#[async_trait]
impl ClusterGateway for Barred {
    fn watch_nodes(&self) -> NodeEvents {
        let bar = self.0.clone();
        again_and_again(move || NodeEvent::Lost(bar.error()))
    }

    fn watch_pods(&self) -> PodEvents {
        let bar = self.0.clone();
        again_and_again(move || PodEvent::Lost(bar.error()))
    }

    async fn pods_on_node(&self, _: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        Err(self.0.error())
    }

    async fn recent_pods_on_node(&self, _: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        Err(self.0.error())
    }

    async fn disruption_budgets(&self) -> Result<Vec<DisruptionBudget>, ClusterError> {
        Err(self.0.error())
    }

    async fn daemon_sets(&self) -> Result<BTreeSet<ObjectName>, ClusterError> {
        Err(self.0.error())
    }

    async fn evict(&self, _: &PodRef, _: &EvictOptions) -> Result<Eviction, ClusterError> {
        Err(self.0.error())
    }

    async fn delete_pod(&self, _: &PodRef, _: &EvictOptions) -> Result<Eviction, ClusterError> {
        Err(self.0.error())
    }

    async fn attached_volumes(&self, _: &NodeName) -> Result<Vec<String>, ClusterError> {
        Err(self.0.error())
    }

    async fn node(&self, _: &NodeName) -> Result<Option<Node>, ClusterError> {
        Err(self.0.error())
    }

    async fn patch_node(&self, _: &NodeName, _: &NodePatch, _: bool) -> Result<Node, ClusterError> {
        Err(self.0.error())
    }

    async fn may(&self, _: &KubernetesAction) -> Result<bool, ClusterError> {
        Err(self.0.error())
    }

    async fn server_version(&self) -> Result<String, ClusterError> {
        Err(self.0.error())
    }
}
