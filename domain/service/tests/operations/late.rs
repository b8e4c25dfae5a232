//! What a cluster is asked while a drain waits, and a cluster that tells late what it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use knm_model::{NodeName, OperationState, Pod};
use knm_ports::{ClusterError, ClusterGateway};
use serde_json::json;
use tokio::time::Instant;

use crate::stage::{Stage, budget, pod};
use crate::through::{Different, through};

/// How long nobody is told of pods but those who ask for this moment.
const LATE: Duration = Duration::from_secs(7);

struct Late {
    inner: Arc<dyn ClusterGateway>,
    since: Instant,
    /// How often anybody asked for pods.
    asked: Arc<AtomicUsize>,
}

#[async_trait]
impl Different for Late {
    fn inner(&self) -> &dyn ClusterGateway {
        &*self.inner
    }

    async fn pods_on_node(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.inner.pods_on_node(node).await
    }

    async fn recent_pods_on_node(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match self.since.elapsed() < LATE {
            true => Ok(Vec::new()),
            false => self.inner.recent_pods_on_node(node).await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_is_not_drained_while_it_has_pods_that_were_not_told_yet() {
    let since = Instant::now();
    let asked = Arc::default();
    let stage = Stage::seen_through(&["a", "b"], false, |inner| {
        through(Arc::new(Late { inner, since, asked }))
    })
    .await;
    for name in ["web-1", "web-2"] {
        stage.fleet.put_pod(pod(name, "a"));
    }
    let _replica = stage.replica("one");
    let id = stage.drain(json!({})).await;

    let shown = stage.end(id).await;

    assert_eq!(shown.operation.state, OperationState::Succeeded, "{shown:?}");
    assert_eq!(stage.pods("a").await, Vec::<String>::new());
    assert!(since.elapsed() < LATE, "nobody was told of them in all that time");
}

#[tokio::test(start_paused = true)]
async fn while_a_drain_waits_its_cluster_is_not_asked_for_pods_that_are_watched() {
    let (since, asked) = (Instant::now(), Arc::new(AtomicUsize::default()));
    let count = Arc::clone(&asked);
    let stage = Stage::seen_through(&["a"], true, |inner| {
        through(Arc::new(Late {
            inner,
            since,
            asked: count,
        }))
    })
    .await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_budget(budget(0));
    let _replica = stage.replica("one");
    let id = stage.drain(json!({})).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(stage.state(id).await, OperationState::Running);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "before the first pod is asked to go");

    stage.fleet.put_budget(budget(1));
    let shown = stage.end(id).await;

    assert_eq!(shown.operation.state, OperationState::Succeeded, "{shown:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 2, "it made sure once");
}
