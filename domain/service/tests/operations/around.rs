//! A cluster and a store that answer late, or not at all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use knm_model::{
    Node, NodeName, NodePatch, OperationBacklog, OperationClaim, OperationLease, OperationState, OperationStep, Pod,
    StepOutcome,
};
use knm_ports::{ClusterError, ClusterGateway, OperationWork, StorageError};

use crate::through::Different;

/// A cluster that takes its time.
pub(crate) struct Slow {
    pub(crate) inner: Arc<dyn ClusterGateway>,
    /// How long each change of a node takes, in seconds.
    pub(crate) patch_seconds: u64,
    /// A node that may not be changed, which is told at once.
    pub(crate) refused: Option<NodeName>,
    /// How long it takes to tell the pods of a node, in seconds.
    pub(crate) pods_seconds: Arc<AtomicU64>,
}

impl Slow {
    pub(crate) fn new(inner: Arc<dyn ClusterGateway>) -> Self {
        Self {
            inner,
            patch_seconds: 0,
            refused: None,
            pods_seconds: Arc::default(),
        }
    }

    async fn think(&self) {
        let seconds = self.pods_seconds.load(Ordering::Relaxed);
        if 0 < seconds {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
    }
}

#[async_trait]
impl Different for Slow {
    fn inner(&self) -> &dyn ClusterGateway {
        &*self.inner
    }

    async fn pods_on_node(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        self.think().await;
        self.inner.pods_on_node(node).await
    }

    async fn recent_pods_on_node(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        self.think().await;
        self.inner.recent_pods_on_node(node).await
    }

    async fn patch_node(&self, name: &NodeName, patch: &NodePatch, dry_run: bool) -> Result<Node, ClusterError> {
        if self.refused.as_ref() == Some(name) {
            return Err(ClusterError::Invalid {
                message: "it is refused".to_owned(),
            });
        }
        tokio::time::sleep(Duration::from_secs(self.patch_seconds)).await;
        self.inner.patch_node(name, patch, dry_run).await
    }
}

/// What goes wrong once between a replica and the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// Leases are taken, and nobody hears of it.
    ClaimUnheard,
    /// Leases are not given back.
    NoRelease,
    /// The last step of an operation is written, and that is told late.
    EndToldLate(Duration),
}

/// A store with which something goes wrong once.
pub(crate) struct Unlucky {
    inner: Arc<dyn OperationWork>,
    next: Mutex<Option<Mishap>>,
}

impl Unlucky {
    pub(crate) fn new(inner: &Arc<dyn OperationWork>) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            next: Mutex::new(None),
        })
    }

    /// From now on until it went wrong.
    pub(crate) fn expect(&self, mishap: Mishap) {
        *self.next.lock().unwrap() = Some(mishap);
    }

    pub(crate) fn has_happened(&self) -> bool {
        self.next.lock().unwrap().is_none()
    }

    fn happens(&self, is_it: impl FnOnce(&Mishap) -> bool) -> Option<Mishap> {
        self.next.lock().unwrap().take_if(|next| is_it(next))
    }
}

fn away() -> StorageError {
    StorageError::Unavailable { source: "away".into() }
}

#[async_trait]
impl OperationWork for Unlucky {
    async fn claim(&self, owner: &str, ttl: Duration, limit: u32) -> Result<Vec<OperationClaim>, StorageError> {
        let claimed = self.inner.claim(owner, ttl, limit).await?;
        if !claimed.is_empty() && self.happens(|next| *next == Mishap::ClaimUnheard).is_some() {
            return Err(away());
        }
        Ok(claimed)
    }

    async fn renew(&self, owner: &str, ttl: Duration) -> Result<Vec<(OperationLease, OperationState)>, StorageError> {
        self.inner.renew(owner, ttl).await
    }

    async fn release(&self, leases: &[OperationLease]) -> Result<(), StorageError> {
        if self.happens(|next| *next == Mishap::NoRelease).is_some() {
            return Err(away());
        }
        self.inner.release(leases).await
    }

    async fn hand_over(&self, leases: &[OperationLease]) -> Result<(), StorageError> {
        self.inner.hand_over(leases).await
    }

    async fn advance(&self, lease: &OperationLease, step: &OperationStep) -> Result<StepOutcome, StorageError> {
        let outcome = self.inner.advance(lease, step).await?;
        let is_end = step.transition.as_ref().is_some_and(|(_, to, _)| to.is_ended());
        if is_end && let Some(Mishap::EndToldLate(late)) = self.happens(|next| matches!(next, Mishap::EndToldLate(_))) {
            tokio::time::sleep(late).await;
        }
        Ok(outcome)
    }

    async fn backlog(&self) -> Result<OperationBacklog, StorageError> {
        self.inner.backlog().await
    }
}
