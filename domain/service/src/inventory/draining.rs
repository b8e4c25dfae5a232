//! What a drain would do to a node: asked of the cluster at this moment, and decided by the plan that drains themselves follow.

use std::collections::BTreeMap;
use std::time::Duration;

use knm_model::{
    ClusterFeature, ClusterName, DrainOptions, DrainPlan, Fit, Node, NodeName, Resources, Timestamp, daemon_set,
};
use knm_ports::ClusterError;

use super::follow_pods::PodsUnknown;
use super::{Cluster, Inventory, InventoryError, Snapshot};

/// How long a cluster may take to tell what a plan is made of.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a drain would do to a node.
#[derive(Clone, Debug, PartialEq)]
pub struct DrainPreview {
    /// The cluster.
    pub cluster: ClusterName,
    /// The node, as it was last told.
    pub node: Node,
    /// What becomes of its pods.
    pub plan: DrainPlan,
    /// Where they could go.
    pub fit: Fit,
    /// What the caller should know besides.
    pub warnings: Vec<String>,
    /// When the cluster was asked.
    pub as_of: Timestamp,
}

impl Inventory {
    /// What a drain of a node would do, without touching anything. The pods, budgets and DaemonSets are asked of the cluster at this moment,
    /// for 10 s at most. What the pods on the other nodes ask for is taken from what is watched; that it is not known is no error.
    ///
    /// # Errors
    /// [`InventoryError`], any of them.
    pub async fn plan_drain(
        &self,
        cluster: &str,
        node: &str,
        options: &DrainOptions,
    ) -> Result<DrainPreview, InventoryError> {
        let cluster = self.find(cluster)?;
        let (snapshot, handle) = (cluster.snapshot()?, &cluster.handle);
        let Some(entry) = snapshot.find(node) else {
            return Err(InventoryError::UnknownNode {
                cluster: handle.name.clone(),
                node: node.to_owned(),
            });
        };
        let (node, gateway) = (entry.node(), &handle.gateway);
        let needed = in_time(async {
            tokio::try_join!(
                gateway.pods_on_node(&node.name),
                unless_forbidden(gateway.disruption_budgets()),
                unless_forbidden(gateway.daemon_sets())
            )
        });
        let missing = self.missing_warnings(handle.name.as_str(), options.features());
        let (needed, mut warnings) = tokio::join!(needed, missing);
        let (pods, budgets, daemon_sets) = needed.map_err(|source| InventoryError::Cluster {
            cluster: handle.name.clone(),
            source,
        })?;
        let mut told = |feature: ClusterFeature, so: &str| {
            let refusal = feature.refusal(&handle.name, feature.needs());
            warnings.retain(|warning| *warning != refusal);
            warnings.push(format!("{refusal}; {so}"));
        };
        let budgets = budgets.unwrap_or_else(|| {
            told(ClusterFeature::ViewBudgets, "this plan is made as if there were none");
            Vec::new()
        });
        let daemon_sets = daemon_sets.unwrap_or_else(|| {
            told(
                ClusterFeature::ViewDaemonSets,
                "this plan is made as if all that pods name existed",
            );
            pods.iter().filter_map(daemon_set).collect()
        });
        let as_of = self.clock.now();
        let plan = DrainPlan::new(pods, &budgets, &daemon_sets, options, as_of);
        Ok(DrainPreview {
            cluster: handle.name.clone(),
            fit: fit(&plan, &node.name, &snapshot, &cluster),
            warnings: plan.warnings(node, options).into_iter().chain(warnings).collect(),
            node: node.clone(),
            plan,
            as_of,
        })
    }

    /// What of `needed` the cluster does not let the service do, in sentences.
    async fn missing_warnings(&self, cluster: &str, needed: &[ClusterFeature]) -> Vec<String> {
        match self.check_features(cluster, needed).await {
            Err(InventoryError::NotAllowed { cluster, missing }) => {
                missing.iter().map(|status| status.refusal(&cluster)).collect()
            }
            Ok(())
            | Err(
                InventoryError::UnknownCluster { .. }
                | InventoryError::UnknownNode { .. }
                | InventoryError::NotSeenYet { .. }
                | InventoryError::Cluster { .. },
            ) => Vec::new(),
        }
    }
}

/// What was asked for; `None` if the cluster does not let the service ask.
async fn unless_forbidden<T>(asking: impl Future<Output = Result<T, ClusterError>>) -> Result<Option<T>, ClusterError> {
    match asking.await {
        Ok(told) => Ok(Some(told)),
        Err(ClusterError::Forbidden { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, ClusterError>>) -> Result<T, ClusterError> {
    tokio::time::timeout(DEADLINE, work)
        .await
        .unwrap_or(Err(ClusterError::TimedOut { limit: DEADLINE }))
}

fn fit(plan: &DrainPlan, drained: &NodeName, snapshot: &Snapshot, cluster: &Cluster) -> Fit {
    if plan.is_refused() {
        return Fit::NotEstimated {
            reason: "nothing is evicted while a pod is refused".to_owned(),
        };
    }
    match requested(cluster) {
        Ok(requested) => Fit::estimate(plan, drained, snapshot.entries().map(|entry| entry.node()), &requested),
        Err(why) => Fit::NotEstimated {
            reason: format!("what the pods of the other nodes ask for is not known: {why}"),
        },
    }
}

/// What the pods on each node ask for, or why that is not known.
fn requested(cluster: &Cluster) -> Result<BTreeMap<NodeName, Resources>, String> {
    let Some(pods) = cluster.pods() else {
        return Err("pods are not watched, because kubernetes.watch_pods is false".to_owned());
    };
    match pods.current() {
        Ok(index) => Ok(index.requested_by_node()),
        Err(PodsUnknown::NotSeenYet) => Err("the pods of the cluster were not seen yet".to_owned()),
        Err(PodsUnknown::Lost(reason)) => Err(reason.to_string()),
    }
}
