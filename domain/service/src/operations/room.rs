//! What drains share: how many pods may be on their way out at once, and what is asked of a cluster for all of them together.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use knm_model::{ClusterName, DisruptionBudget, ObjectName, Timestamp};
use knm_ports::{ClusterError, ClusterGateway};
use metrics::gauge;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::Instant;
use uuid::Uuid;

use crate::metric;

/// How old the budgets may be that a step decides by: evictions are asked of the cluster anyway.
const BUDGETS_FOR: Duration = Duration::from_secs(1);
/// How old the list of DaemonSets may be.
const DAEMON_SETS_FOR: Duration = Duration::from_secs(10);

/// How many drains of a cluster ask for the pods of this moment at once.
const CERTAIN_LOOKS: usize = 4;

/// A node of an operation.
type Place = (Uuid, u32);

/// How many pods are on their way out, by cluster, operation and node.
#[derive(Default)]
pub(super) struct Leaving {
    counts: Mutex<HashMap<Place, (ClusterName, usize)>>,
}

/// How many pods may be on their way out at once; `None`: any number.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    pub(super) of_operation: Option<usize>,
    pub(super) of_cluster: Option<usize>,
}

impl Leaving {
    /// Notes that `count` pods of this node are leaving, and returns how many of `wanted` more may: they count from then on.
    pub(super) fn reserve(
        &self,
        place: Place,
        cluster: &ClusterName,
        count: usize,
        wanted: usize,
        limits: Limits,
    ) -> usize {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.insert(place, (cluster.clone(), count));
        let in_operation: usize = counts
            .iter()
            .filter(|(at, _)| at.0 == place.0)
            .map(|(_, one)| one.1)
            .sum();
        let in_cluster: usize = counts.values().filter(|one| one.0 == *cluster).map(|one| one.1).sum();
        let room = |limit: Option<usize>, now: usize| limit.map_or(usize::MAX, |most| most.saturating_sub(now));
        let granted = wanted
            .min(room(limits.of_operation, in_operation))
            .min(room(limits.of_cluster, in_cluster));
        counts.insert(place, (cluster.clone(), count + granted));
        granted
    }

    /// Forgets a node that is not worked on any more.
    pub(super) fn forget(&self, place: Place) {
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&place);
    }

    /// Forgets an operation that is not worked on any more.
    pub(super) fn forget_operation(&self, operation: Uuid) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.retain(|place, _| place.0 != operation);
    }
}

/// What was asked of the clusters a moment ago.
#[derive(Default)]
pub(super) struct Facts {
    clusters: Mutex<HashMap<ClusterName, Arc<ClusterFacts>>>,
}

struct ClusterFacts {
    budgets: Fact<Vec<DisruptionBudget>>,
    daemon_sets: Fact<BTreeSet<ObjectName>>,
    /// Those who ask for the pods on a node at this moment, which may cost the cluster a walk over all of its pods.
    certain_looks: Semaphore,
}

impl Default for ClusterFacts {
    fn default() -> Self {
        Self {
            budgets: Fact::default(),
            daemon_sets: Fact::default(),
            certain_looks: Semaphore::new(CERTAIN_LOOKS),
        }
    }
}

/// Something that was asked for, and since when it is known. Whoever wants it while it is asked for waits for the same answer.
type Fact<T> = AsyncMutex<Option<(Instant, Arc<T>)>>;

impl Facts {
    /// The budgets of a cluster, a second old at most.
    pub(super) async fn budgets(
        &self,
        cluster: &ClusterName,
        gateway: &dyn ClusterGateway,
    ) -> Result<Arc<Vec<DisruptionBudget>>, ClusterError> {
        let facts = self.of(cluster);
        let is_good = |at: Instant| at.elapsed() < BUDGETS_FOR;
        fresh(&facts.budgets, is_good, gateway.disruption_budgets()).await
    }

    /// The DaemonSets of a cluster, ten seconds old at most.
    pub(super) async fn daemon_sets(
        &self,
        cluster: &ClusterName,
        gateway: &dyn ClusterGateway,
    ) -> Result<Arc<BTreeSet<ObjectName>>, ClusterError> {
        let facts = self.of(cluster);
        let is_good = |at: Instant| at.elapsed() < DAEMON_SETS_FOR;
        fresh(&facts.daemon_sets, is_good, gateway.daemon_sets()).await
    }

    /// The DaemonSets of a cluster, asked for after `moment`.
    pub(super) async fn daemon_sets_after(
        &self,
        cluster: &ClusterName,
        gateway: &dyn ClusterGateway,
        moment: Instant,
    ) -> Result<Arc<BTreeSet<ObjectName>>, ClusterError> {
        let facts = self.of(cluster);
        fresh(&facts.daemon_sets, |at| moment <= at, gateway.daemon_sets()).await
    }

    /// Does `look`, which asks for the pods on a node at this moment, when it is its turn.
    pub(super) async fn in_turn<T>(&self, cluster: &ClusterName, look: impl Future<Output = T>) -> T {
        let facts = self.of(cluster);
        // Nobody closes it, and without a turn it would only be slower for all.
        let _turn = facts.certain_looks.acquire().await;
        look.await
    }

    /// Forgets all clusters but these.
    pub(super) fn keep(&self, clusters: &BTreeSet<ClusterName>) {
        self.lock().retain(|name, _| clusters.contains(name));
    }

    fn of(&self, cluster: &ClusterName) -> Arc<ClusterFacts> {
        Arc::clone(self.lock().entry(cluster.clone()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClusterName, Arc<ClusterFacts>>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn fresh<T>(
    fact: &Fact<T>,
    is_good: impl Fn(Instant) -> bool,
    ask: impl Future<Output = Result<T, ClusterError>>,
) -> Result<Arc<T>, ClusterError> {
    let mut known = fact.lock().await;
    if let Some((at, value)) = &*known
        && is_good(*at)
    {
        return Ok(Arc::clone(value));
    }
    let asked_at = Instant::now();
    let value = Arc::new(ask.await?);
    *known = Some((asked_at, Arc::clone(&value)));
    Ok(value)
}

/// Since when pods of drains are blocked, for those who want to be alarmed.
#[derive(Default)]
pub(super) struct Blocks(Mutex<HashMap<Place, (usize, Timestamp)>>);

impl Blocks {
    /// Notes how many pods of a node are blocked, and since when the first of them is.
    pub(super) fn note(&self, place: Place, blocked: Option<(usize, Timestamp)>) {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match blocked {
            Some(blocked) => blocks.insert(place, blocked),
            None => blocks.remove(&place),
        };
    }

    /// Forgets an operation that is not worked on any more.
    pub(super) fn forget(&self, operation: Uuid) {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.retain(|place, _| place.0 != operation);
    }

    /// Shows how many pods are blocked, and for how long.
    pub(super) fn observe(&self, now: Timestamp) {
        let blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pods: usize = blocks.values().map(|(pods, _)| pods).sum();
        let oldest = blocks.values().map(|(_, since)| *since).min();
        gauge!(metric::PODS_BLOCKED).set(pods as f64);
        gauge!(metric::OLDEST_BLOCK).set(oldest.map_or(0.0, |since| now.since(since).as_secs_f64()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_clusters_that_are_gone_nothing_is_remembered() {
        let facts = Facts::default();
        let (stays, goes) = (ClusterName::from_any("stays"), ClusterName::from_any("goes"));
        let known = facts.of(&stays);
        facts.of(&goes);

        facts.keep(&BTreeSet::from([stays.clone()]));

        assert_eq!(facts.lock().keys().collect::<Vec<_>>(), [&stays]);
        assert!(Arc::ptr_eq(&facts.of(&stays), &known));
    }

    #[test]
    fn no_more_pods_leave_at_once_than_an_operation_and_a_cluster_allow() {
        let leaving = Leaving::default();
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (here, there) = (ClusterName::from_any("here"), ClusterName::from_any("there"));
        let limits = Limits {
            of_operation: Some(3),
            of_cluster: Some(4),
        };
        assert_eq!(leaving.reserve((one, 0), &here, 1, 9, limits), 2);
        assert_eq!(leaving.reserve((one, 1), &here, 0, 9, limits), 0);
        assert_eq!(leaving.reserve((other, 0), &here, 0, 9, limits), 1);
        assert_eq!(leaving.reserve((other, 1), &there, 0, 9, limits), 2);
        // The first node has only one left now.
        assert_eq!(leaving.reserve((one, 0), &here, 1, 9, limits), 2);
        leaving.forget((one, 0));
        assert_eq!(leaving.reserve((one, 1), &here, 0, 9, limits), 3);
        leaving.forget_operation(one);
        assert_eq!(leaving.reserve((other, 0), &here, 1, 9, Limits::default()), 9);
    }
}
