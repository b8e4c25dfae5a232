//! What the tests of the use cases are built from.

mod nodes;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use knm_domain::{ClusterHandle, Inventory};
use knm_model::{
    ClusterName, ClusterSource, DisruptionBudget, KubernetesAction, Node, NodeName, NodePatch, ObjectName, Pod,
};
use knm_ports::{
    ClusterError, ClusterGateway, EvictOptions, Eviction, ManualClock, NodeEvent, NodeEvents, PodEvents, PodRef,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use nodes::{node, settle};

/// A cluster that tells what the test sends, and hangs when it is asked for anything else.
pub struct Scripted {
    events: std::sync::Mutex<Option<mpsc::UnboundedReceiver<NodeEvent>>>,
}

#[async_trait]
impl ClusterGateway for Scripted {
    fn watch_nodes(&self) -> NodeEvents {
        match self.events.lock().unwrap().take() {
            Some(mut events) => futures::stream::poll_fn(move |context| events.poll_recv(context)).boxed(),
            None => futures::stream::pending().boxed(),
        }
    }

    fn watch_pods(&self) -> PodEvents {
        futures::stream::pending().boxed()
    }

    async fn pods_on_node(&self, _: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        std::future::pending().await
    }

    async fn recent_pods_on_node(&self, _: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        std::future::pending().await
    }

    async fn disruption_budgets(&self) -> Result<Vec<DisruptionBudget>, ClusterError> {
        std::future::pending().await
    }

    async fn daemon_sets(&self) -> Result<BTreeSet<ObjectName>, ClusterError> {
        std::future::pending().await
    }

    async fn evict(&self, _: &PodRef, _: &EvictOptions) -> Result<Eviction, ClusterError> {
        std::future::pending().await
    }

    async fn delete_pod(&self, _: &PodRef, _: &EvictOptions) -> Result<Eviction, ClusterError> {
        std::future::pending().await
    }

    async fn attached_volumes(&self, _: &NodeName) -> Result<Vec<String>, ClusterError> {
        std::future::pending().await
    }

    async fn node(&self, _: &NodeName) -> Result<Option<Node>, ClusterError> {
        std::future::pending().await
    }

    async fn patch_node(&self, _: &NodeName, _: &NodePatch, _: bool) -> Result<Node, ClusterError> {
        std::future::pending().await
    }

    async fn may(&self, _: &KubernetesAction) -> Result<bool, ClusterError> {
        std::future::pending().await
    }

    async fn server_version(&self) -> Result<String, ClusterError> {
        Ok("v1.36.0".to_owned())
    }
}

/// An inventory of one scripted cluster, `test`.
pub struct Stage {
    pub inventory: Arc<Inventory>,
    pub clock: Arc<ManualClock>,
    pub shutdown: CancellationToken,
    pub tells: mpsc::UnboundedSender<NodeEvent>,
}

impl Stage {
    pub fn new() -> Self {
        let (tells, events) = mpsc::unbounded_channel();
        let events = std::sync::Mutex::new(Some(events));
        let clock = ManualClock::at("2030-01-01T00:00:00Z");
        let shutdown = CancellationToken::new();
        let handle = ClusterHandle {
            name: ClusterName::parse("test").unwrap(),
            source: ClusterSource::Demo,
            gateway: Arc::new(Scripted { events }),
            reviews: None,
            watch_pods: false,
        };
        Self {
            inventory: Inventory::start(clock.clone(), vec![handle], shutdown.clone()),
            clock,
            shutdown,
            tells,
        }
    }

    /// Lets the cluster tell all of this at once, and waits until it was taken in.
    pub async fn tell(&self, events: impl IntoIterator<Item = NodeEvent>) {
        for event in events {
            self.tells.send(event).unwrap();
        }
        settle().await;
    }
}

pub fn replaced(nodes: &[(&str, &str)]) -> NodeEvent {
    NodeEvent::Replaced(nodes.iter().map(|(name, version)| node(name, version)).collect())
}

pub fn lost() -> NodeEvent {
    NodeEvent::Lost(ClusterError::Unavailable {
        source: "connection refused".into(),
    })
}
