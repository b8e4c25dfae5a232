//! What a cluster tells of a node that is drained and of its pods.

use std::borrow::Cow;
use std::time::Duration;

use knm_model::{DrainOptions, DrainPlan, Node, Pod, Removal, Sight, daemon_set};
use knm_ports::ClusterError;
use tokio::time::Instant;

use super::Drain;
use crate::changes::{ChangeError, Target};
use crate::inventory::InventoryError;
use crate::operations::step::node_of;

/// How long the pods of a node may take to be told.
const DEADLINE: Duration = Duration::from_secs(10);

impl<'a> Drain<'a> {
    /// The node and what becomes of its pods; `None` if the node is gone.
    pub(super) async fn look(&self, sight: Sight) -> Result<Option<(Node, DrainPlan)>, ChangeError> {
        let target = match node_of(self.bench, &self.step.target) {
            Ok(target) => target,
            Err(ChangeError::Inventory(InventoryError::UnknownNode { .. })) => return Ok(None),
            Err(error) => return Err(error),
        };
        let cluster = &self.step.target.cluster;
        let seen = match sight {
            Sight::Recent => self.see(&target, self.recent_pods(&target)).await,
            Sight::Certain => {
                let pods = target.cluster.gateway.pods_on_node(&target.name);
                self.bench.facts.in_turn(cluster, self.see(&target, pods)).await
            }
        };
        seen.map_err(|source| not_told(&target, source))
    }

    /// The node as it is watched, unless that tells of an uncordoning or is old: then the cluster is asked.
    pub(super) async fn node(&self, target: &Target) -> Result<Option<Node>, ClusterError> {
        let snapshot = self.bench.inventory.snapshot(target.cluster.name.as_str());
        let is_stale = snapshot.is_ok_and(|snapshot| snapshot.stale());
        match &target.known {
            Some(node) if !node.schedulable && !is_stale => Ok(Some(node.clone())),
            Some(_) | None => target.cluster.gateway.node(&target.name).await,
        }
    }

    /// How the drain is done now: at the end of its time, what is left is deleted, and nothing is waited for.
    pub(super) fn options_now(&self) -> Cow<'a, DrainOptions> {
        match self.detail.progress.forced {
            true => Cow::Owned(DrainOptions {
                removal: Removal::Delete,
                wait_for_completion: None,
                ..self.options.clone()
            }),
            false => Cow::Borrowed(self.options),
        }
    }

    /// The pods as they are watched or, where they are not, as the cluster has them at hand.
    async fn recent_pods(&self, target: &Target) -> Result<Vec<Pod>, ClusterError> {
        let cluster = target.cluster.name.as_str();
        match self.bench.inventory.watched_pods(cluster, &target.name) {
            Some(pods) => Ok(pods),
            None => target.cluster.gateway.recent_pods_on_node(&target.name).await,
        }
    }

    async fn see(
        &self,
        target: &Target,
        pods: impl Future<Output = Result<Vec<Pod>, ClusterError>>,
    ) -> Result<Option<(Node, DrainPlan)>, ClusterError> {
        let (gateway, cluster) = (&*target.cluster.gateway, &self.step.target.cluster);
        let facts = &self.bench.facts;
        let all = async {
            let (node, pods, budgets, mut daemon_sets) = tokio::try_join!(
                self.node(target),
                pods,
                facts.budgets(cluster, gateway),
                facts.daemon_sets(cluster, gateway)
            )?;
            let is_missing = |pod: &Pod| {
                let owner = daemon_set(pod).filter(|_| !pod.is_finished());
                owner.is_some_and(|owner| !daemon_sets.contains(&owner))
            };
            if pods.iter().any(is_missing) {
                // It may be younger than the list; that it is gone decides too much to be taken from an old one.
                daemon_sets = facts.daemon_sets_after(cluster, gateway, Instant::now()).await?;
            }
            let plan = |node| {
                let options = self.options_now();
                (node, DrainPlan::new(pods, &budgets, &daemon_sets, &options, self.now))
            };
            Ok(node.map(plan))
        };
        let timed_out = |_| Err(ClusterError::TimedOut { limit: DEADLINE });
        tokio::time::timeout(DEADLINE, all).await.unwrap_or_else(timed_out)
    }
}

/// What could not be asked of the cluster. It says nothing about the node: even what is not found may be something else.
pub(super) fn not_told(target: &Target, source: ClusterError) -> ChangeError {
    let cluster = target.cluster.name.clone();
    ChangeError::Inventory(InventoryError::Cluster { cluster, source })
}
