//! Compares nodes with the templates of their bindings, and repairs those whose binding wants it. One replica does so at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use knm_model::{
    Access, Actor, ActorKind, Caller, ClusterFeature, ClusterName, DefinitionName, OperationFilter, OperationKind,
    OperationState, RawBinding, RawStrategy, Timestamp,
};
use knm_ports::{Clock, Leases};
use metrics::gauge;
use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;

use super::lately::{Lately, Versions};
use super::{Comparison, DriftedNode, TemplateError, Templates, Versioned};
use crate::duty::{Duty, Terms, Turn};
use crate::inventory::InventoryError;
use crate::metric;
use crate::operations::{Asker, OperationError, OperationRequest, Operations, TargetRequest};

/// Who compares nodes, and how often.
const TERMS: Terms = Terms {
    lease: "template-bindings",
    every: Duration::from_secs(10),
    outlives: Duration::from_secs(30),
};
/// How long a binding is left alone whose last repair did not work for every node: each try is a record in the audit log.
const AFTER_FAILURE: Duration = Duration::from_secs(600);
/// The most nodes that one repair begins with; the rest comes with the next one.
const MOST_NODES: usize = 1_000;

/// Compares nodes with their templates and has them repaired.
pub struct TemplateReconciler {
    /// The bindings.
    pub templates: Arc<Templates>,
    /// Does the repairs.
    pub operations: Arc<Operations>,
    /// Decides which replica compares.
    pub leases: Arc<dyn Leases>,
    /// Tells how long ago the last repair was.
    pub clock: Arc<dyn Clock>,
    /// This process, under a name that no other one has.
    pub owner: String,
}

impl TemplateReconciler {
    /// Compares nodes until `shutdown`, whenever this replica has the lease for it.
    pub async fn keep(self, shutdown: CancellationToken) {
        let mut lately = BTreeMap::new();
        let mut duty = Duty::new(TERMS, Arc::clone(&self.leases), self.owner.clone(), shutdown);
        while let Some(turn) = duty.turn().await {
            let drifted = match turn {
                Turn::Ours => self.round(&mut lately).await,
                Turn::Others => Ok(0),
            };
            match drifted {
                Ok(nodes) => gauge!(metric::TEMPLATE_DRIFT).set(nodes as f64),
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "nodes could not be compared with their templates"
                ),
            }
        }
    }

    /// Compares the nodes of every binding once, and returns how many lack something. What goes wrong with a single binding is told in the log.
    async fn round(&self, lately: &mut BTreeMap<DefinitionName, Lately>) -> Result<usize, TemplateError> {
        let bindings: Vec<Versioned<RawBinding>> = self.templates.list().await?;
        lately.retain(|name, _| bindings.iter().any(|binding| binding.name == *name));
        let everything = Access::unlimited();
        let mut drifted = 0;
        for binding in &bindings {
            let looked = async {
                let comparison = self.templates.drift(&binding.content, &everything).await?;
                drifted += comparison.drifted.len();
                if binding.content.reconcile && !comparison.drifted.is_empty() {
                    let lately = lately.entry(binding.name.clone()).or_default();
                    self.repair(binding, &comparison, lately).await?;
                }
                Ok::<(), RoundError>(())
            };
            if let Err(error) = looked.await {
                if error.is_of_unknown_cluster() {
                    // Clusters come and go; a binding to one that is not there has nothing to repair.
                    tracing::debug!(binding = %binding.name, "the cluster of a binding is not known");
                    continue;
                }
                tracing::warn!(
                    binding = %binding.name,
                    error = &error as &dyn std::error::Error,
                    "the nodes of a binding could not be compared with its template, or not repaired"
                );
            }
        }
        Ok(drifted)
    }

    /// Begins an operation that gives the nodes what they lack, unless one is under way or the last one failed a while ago.
    async fn repair(
        &self,
        binding: &Versioned<RawBinding>,
        comparison: &Comparison,
        lately: &mut Lately,
    ) -> Result<(), RoundError> {
        let actor = Actor {
            name: Some(format!("binding/{}", binding.name)),
            kind: ActorKind::Service,
            address: None,
        };
        let filter = OperationFilter {
            actor: Some(actor.label().to_owned()),
            ..OperationFilter::default()
        };
        let now = self.clock.now();
        let last = self
            .operations
            .page(&filter, None, Some(1), &Access::unlimited())
            .await?;
        if let Some((last, _)) = last.operations.first()
            && !may_follow(last.state, last.ended_at, now)
        {
            return Ok(());
        }
        let versions = Versions {
            binding: binding.version,
            template: (comparison.template.clone(), comparison.version),
        };
        let mut due = lately.due(comparison, versions, now);
        if let Some(node) = due.fought_over {
            tracing::warn!(
                binding = %binding.name, cluster = %node.cluster, node = %node.node,
                "something else changes nodes that a binding repaired, this one for example: they are repaired again, but less and less often"
            );
        }
        self.leave_out_forbidden(&mut due.now).await;
        due.now.truncate(MOST_NODES);
        if due.now.is_empty() {
            return Ok(());
        }
        let mut options = Map::new();
        options.insert("template".to_owned(), json!(comparison.template));
        options.insert("version".to_owned(), json!(comparison.version));
        options.insert(
            "confirm_no_execute".to_owned(),
            json!(binding.content.confirm_no_execute),
        );
        let reason = format!(
            "binding {}: drift from version {} of template {}",
            binding.name, comparison.version, comparison.template
        );
        let request = OperationRequest {
            kind: OperationKind::ApplyTemplate,
            targets: targets(&due.now),
            reason: Some(reason),
            ticket: None,
            options: self.templates.applied(&options).await?,
            // The nodes need nothing of each other: one that fails keeps no other from being repaired.
            strategy: RawStrategy {
                max_failures: Some("100%".to_owned()),
                ..RawStrategy::default()
            },
            dry_run: false,
            retry_of: None,
        };
        let asker = Asker {
            caller: Caller::service(actor),
            request_id: None,
        };
        self.operations.accept(request, asker).await?;
        lately.begun(&due.now, now);
        Ok(())
    }
}

impl TemplateReconciler {
    /// Leaves out the nodes of clusters that do not let the service change any, which is in the log already: those of others are repaired.
    async fn leave_out_forbidden(&self, nodes: &mut Vec<&DriftedNode>) {
        let clusters: BTreeSet<ClusterName> = nodes.iter().map(|node| node.cluster.clone()).collect();
        for cluster in clusters {
            let needed = [ClusterFeature::ViewNodes, ClusterFeature::ChangeNodes];
            let checked = self.templates.inventory.check_features(cluster.as_str(), &needed);
            if let Err(InventoryError::NotAllowed { .. }) = checked.await {
                tracing::debug!(%cluster, "the nodes of a cluster are not repaired: it does not let the service change them");
                nodes.retain(|node| node.cluster != cluster);
            }
        }
    }
}

/// Why a binding was not looked at or not repaired.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Operation(#[from] OperationError),
}

impl RoundError {
    fn is_of_unknown_cluster(&self) -> bool {
        matches!(
            self,
            Self::Template(TemplateError::Inventory(InventoryError::UnknownCluster { .. }))
                | Self::Operation(OperationError::Inventory(InventoryError::UnknownCluster { .. }))
        )
    }
}

/// Whether the next repair may begin after one that is in this state and ended then.
fn may_follow(state: OperationState, ended_at: Option<Timestamp>, now: Timestamp) -> bool {
    if !state.is_ended() {
        return false;
    }
    state == OperationState::Succeeded || ended_at.is_none_or(|ended| AFTER_FAILURE <= now.since(ended))
}

/// These nodes, by cluster.
fn targets(nodes: &[&DriftedNode]) -> Vec<TargetRequest> {
    let mut clusters: BTreeMap<&ClusterName, Vec<String>> = BTreeMap::new();
    for node in nodes {
        clusters.entry(&node.cluster).or_default().push(node.node.to_string());
    }
    let target = |(cluster, nodes): (&ClusterName, Vec<String>)| TargetRequest {
        cluster: cluster.to_string(),
        nodes,
        label_selector: None,
    };
    clusters.into_iter().map(target).collect()
}
