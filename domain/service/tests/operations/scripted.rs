//! A cluster whose answers tests choose, and that remembers what it was asked. What nobody chose is answered by the simulated fleet.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use knm_model::{DisruptionBudget, Node, NodeName, NodePatch, Pod};
use knm_ports::{ClusterError, ClusterGateway, EvictOptions, Eviction, NodeEvent, NodeEvents, PodRef};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::through::{Different, through};

type Answer = Box<dyn Fn() -> Result<Eviction, ClusterError> + Send>;

/// What tests choose and see.
#[derive(Default)]
pub(crate) struct Script {
    state: Mutex<State>,
    /// When it is cancelled, nodes are not watched any more, though everything else works.
    pub(crate) blind: CancellationToken,
}

#[derive(Default)]
struct State {
    answers: HashMap<String, VecDeque<Answer>>,
    removals: Vec<Removed>,
    no_patches: bool,
    no_budgets: bool,
    late: Duration,
    eviction_takes: Duration,
    seen: HashMap<NodeName, Vec<(Instant, Vec<Pod>)>>,
}

/// A pod that was asked to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) name: String,
    pub(crate) is_deletion: bool,
    pub(crate) grace: Option<u32>,
}

impl Script {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the next eviction of this pod that has no answer yet.
    pub(crate) fn answer(&self, pod: &str, answer: impl Fn() -> Result<Eviction, ClusterError> + Send + 'static) {
        let mut state = self.state();
        state
            .answers
            .entry(pod.to_owned())
            .or_default()
            .push_back(Box::new(answer));
    }

    /// From now on nodes cannot be changed.
    pub(crate) fn forbid_patches(&self) {
        self.state().no_patches = true;
    }

    /// Whether budgets cannot be listed from now on.
    pub(crate) fn forbid_budgets(&self, forbid: bool) {
        self.state().no_budgets = forbid;
    }

    /// Whoever asks for recent pods is told how they were so long ago.
    pub(crate) fn be_late(&self, late: Duration) {
        self.state().late = late;
    }

    /// How long an eviction takes to be answered.
    pub(crate) fn take(&self, time: Duration) {
        self.state().eviction_takes = time;
    }

    /// The pods that were asked to go, in that order.
    pub(crate) fn removals(&self) -> Vec<Removed> {
        self.state().removals.clone()
    }

    /// The names of the pods that were asked to go.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.removals().into_iter().map(|removed| removed.name).collect()
    }

    pub(crate) fn around(self: &Arc<Self>, inner: Arc<dyn ClusterGateway>) -> Arc<dyn ClusterGateway> {
        let script = Arc::clone(self);
        through(Arc::new(Scripted { script, inner }))
    }

    /// Notes the removal, and returns what is to be answered.
    async fn remove(
        &self,
        pod: &PodRef,
        options: &EvictOptions,
        is_deletion: bool,
    ) -> Option<Result<Eviction, ClusterError>> {
        let takes = self.state().eviction_takes;
        tokio::time::sleep(takes).await;
        let mut state = self.state();
        state.removals.push(Removed {
            name: pod.name.clone(),
            is_deletion,
            grace: options.grace_period_seconds,
        });
        let answers = state.answers.get_mut(&pod.name)?;
        Some(answers.pop_front()?())
    }
}

struct Scripted {
    script: Arc<Script>,
    inner: Arc<dyn ClusterGateway>,
}

fn forbidden() -> ClusterError {
    ClusterError::Forbidden {
        action: None,
        message: "the role says no".to_owned(),
    }
}

#[async_trait]
impl Different for Scripted {
    fn inner(&self) -> &dyn ClusterGateway {
        &*self.inner
    }

    fn watch_nodes(&self) -> NodeEvents {
        let seen = self
            .inner
            .watch_nodes()
            .take_until(self.script.blind.clone().cancelled_owned());
        let lost = stream::once(async { NodeEvent::Lost(ClusterError::TimedOut { limit: Duration::ZERO }) });
        seen.chain(lost).chain(stream::pending()).boxed()
    }

    async fn recent_pods_on_node(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        let pods = self.inner.pods_on_node(node).await?;
        let mut state = self.script.state();
        let late = state.late;
        let seen = state.seen.entry(node.clone()).or_default();
        seen.push((Instant::now(), pods.clone()));
        let old = seen.iter().rev().find(|(at, _)| late <= at.elapsed());
        Ok(old.or(seen.first()).map_or(pods, |(_, pods)| pods.clone()))
    }

    async fn disruption_budgets(&self) -> Result<Vec<DisruptionBudget>, ClusterError> {
        if self.script.state().no_budgets {
            return Err(forbidden());
        }
        self.inner.disruption_budgets().await
    }

    async fn evict(&self, pod: &PodRef, options: &EvictOptions) -> Result<Eviction, ClusterError> {
        match self.script.remove(pod, options, false).await {
            Some(answer) => answer,
            None => self.inner.evict(pod, options).await,
        }
    }

    async fn delete_pod(&self, pod: &PodRef, options: &EvictOptions) -> Result<Eviction, ClusterError> {
        match self.script.remove(pod, options, true).await {
            Some(answer) => answer,
            None => self.inner.delete_pod(pod, options).await,
        }
    }

    async fn patch_node(&self, name: &NodeName, patch: &NodePatch, dry_run: bool) -> Result<Node, ClusterError> {
        if self.script.state().no_patches {
            return Err(forbidden());
        }
        self.inner.patch_node(name, patch, dry_run).await
    }
}
