//! Somebody who gets in between this service and a cluster.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use knm_model::{Node, NodeName, NodePatch};
use knm_ports::{ClusterError, ClusterGateway};

use crate::through::Different;

/// What happens to a patch.
pub enum Meddling {
    /// Something else is done first.
    Before(BoxFuture<'static, ()>),
    /// It is done, and its answer is lost.
    Lost,
    /// It is refused with this.
    Refused(ClusterError),
}

impl Meddling {
    /// It is called invalid.
    pub fn invalid() -> Self {
        Self::Refused(ClusterError::Invalid {
            message: "not today".to_owned(),
        })
    }
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
impl Different for Meddler {
    fn inner(&self) -> &dyn ClusterGateway {
        &*self.inner
    }

    async fn patch_node(&self, name: &NodeName, patch: &NodePatch, dry_run: bool) -> Result<Node, ClusterError> {
        let meddling = self.next.lock().unwrap().pop_front();
        match meddling {
            Some(Meddling::Refused(error)) => Err(error),
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
}
