//! Compares nodes with the templates of their bindings, and repairs those whose binding wants it. One replica does so at a time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use knm_model::{Actor, ActorKind, OperationFilter, OperationKind, OperationState, RawBinding, RawStrategy, Timestamp};
use knm_ports::{Clock, Leases};
use metrics::gauge;
use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;

use super::{Comparison, TemplateError, Templates, Versioned};
use crate::duty::{Duty, Terms, Turn};
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
        let mut told = BTreeSet::new();
        let mut duty = Duty::new(TERMS, Arc::clone(&self.leases), self.owner.clone(), shutdown);
        while let Some(turn) = duty.turn().await {
            let bindings = match turn {
                Turn::Ours => self.round().await,
                Turn::Others => Ok(BTreeSet::new()),
            };
            match bindings {
                Ok(bindings) => {
                    for gone in told.difference(&bindings) {
                        drifted(gone, 0);
                    }
                    told = bindings;
                }
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "nodes could not be compared with their templates"
                ),
            }
        }
    }

    /// Compares the nodes of every binding once, and returns the names of the bindings.
    ///
    /// # Errors
    /// What the store says. What goes wrong with a single binding is told in the log.
    pub async fn round(&self) -> Result<BTreeSet<String>, TemplateError> {
        let bindings: Vec<Versioned<RawBinding>> = self.templates.list().await?;
        for binding in &bindings {
            let name = binding.name.as_str();
            let looked = async {
                let comparison = self.templates.drift(&binding.content).await?;
                drifted(name, comparison.drifted.len());
                if binding.content.reconcile && !comparison.drifted.is_empty() {
                    self.repair(binding, &comparison).await?;
                }
                Ok::<(), RoundError>(())
            };
            if let Err(error) = looked.await {
                tracing::warn!(
                    binding = name,
                    error = &error as &dyn std::error::Error,
                    "the nodes of a binding could not be compared with its template, or not repaired"
                );
            }
        }
        Ok(bindings.into_iter().map(|binding| binding.name.to_string()).collect())
    }

    /// Begins an operation that gives the nodes what they lack, unless one is under way or the last one failed a while ago.
    async fn repair(&self, binding: &Versioned<RawBinding>, comparison: &Comparison) -> Result<(), RoundError> {
        let actor = Actor {
            name: Some(format!("binding/{}", binding.name)),
            kind: ActorKind::Service,
            address: None,
        };
        let filter = OperationFilter {
            actor: Some(actor.label().to_owned()),
            ..OperationFilter::default()
        };
        let last = self.operations.page(&filter, None, Some(1)).await?;
        if let Some((last, _)) = last.operations.first()
            && !may_follow(last.state, last.ended_at, self.clock.now())
        {
            return Ok(());
        }
        let mut options = Map::new();
        options.insert("template".to_owned(), json!(comparison.template));
        options.insert("version".to_owned(), json!(comparison.version));
        options.insert(
            "confirm_no_execute".to_owned(),
            json!(binding.content.confirm_no_execute),
        );
        let mut left = MOST_NODES;
        let mut targets = Vec::new();
        for (cluster, nodes) in comparison.by_cluster() {
            let nodes: Vec<String> = nodes.iter().take(left).map(ToString::to_string).collect();
            left -= nodes.len();
            if !nodes.is_empty() {
                targets.push(TargetRequest {
                    cluster: cluster.to_string(),
                    nodes,
                    label_selector: None,
                });
            }
        }
        let reason = format!(
            "binding {}: drift from version {} of template {}",
            binding.name, comparison.version, comparison.template
        );
        let request = OperationRequest {
            kind: OperationKind::ApplyTemplate,
            targets,
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
            actor,
            request_id: None,
        };
        self.operations.accept(request, asker).await?;
        Ok(())
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

/// Whether the next repair may begin after one that is in this state and ended then.
fn may_follow(state: OperationState, ended_at: Option<Timestamp>, now: Timestamp) -> bool {
    if !state.is_ended() {
        return false;
    }
    state == OperationState::Succeeded || ended_at.is_none_or(|ended| AFTER_FAILURE <= now.since(ended))
}

fn drifted(binding: &str, nodes: usize) {
    gauge!(metric::TEMPLATE_DRIFT, "binding" => binding.to_owned()).set(nodes as f64);
}
