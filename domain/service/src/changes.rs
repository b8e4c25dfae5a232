//! Changes of one node, at once: one patch to the cluster, written into the audit log before and after.

mod attempt;
mod bringing;
mod error;
mod holding;
mod keeper;
mod releasing;

use std::sync::Arc;

use knm_model::{
    Access, Actor, AuditAction, AuditCompletion, AuditOutcome, AuditRecord, LabelChange, Node, NodeName, TaintChange,
    Template, difference,
};
use knm_ports::{AuditLog, Clock, CordonHolds, IdSource, chain};
use metrics::counter;
use serde_json::{Map, Value};
use tracing::Instrument;

pub(crate) use bringing::{Brought, HoldPlan};
pub use error::ChangeError;
pub use holding::Uncordon;

use crate::audit::complete;
use crate::inventory::{ClusterHandle, Inventory, InventoryError};
use crate::metric;
use attempt::Attempts;

/// Changes nodes.
pub struct NodeChanges {
    inventory: Arc<Inventory>,
    audit: Arc<dyn AuditLog>,
    holds: Arc<dyn CordonHolds>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
}

/// Who asks for a change, and on which conditions.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who asks.
    pub actor: Actor,
    /// The request that asks.
    pub request_id: Option<String>,
    /// The states of the node that the caller knows, see [`Node::version`]: in any other nothing is changed. `None`: in any state.
    pub known: Option<Vec<String>>,
    /// Whether the cluster only says what would come of it.
    pub dry_run: bool,
}

/// What became of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeChanged {
    /// The node as it is now, or would be.
    pub node: Node,
    /// What changed, as it was before.
    pub before: Map<String, Value>,
    /// What changed, as it is now, under the same keys; empty if nothing had to change.
    pub after: Map<String, Value>,
    /// What the caller should know although it worked.
    pub warnings: Vec<String>,
}

/// The node that is changed.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) cluster: ClusterHandle,
    pub(crate) name: NodeName,
    /// As it is known already; `None` if it is not.
    pub(crate) known: Option<Node>,
}

/// What the audit log is told of a change before it is made.
struct Intent {
    action: AuditAction,
    reason: Option<String>,
    ticket: Option<String>,
    options: Map<String, Value>,
}

impl NodeChanges {
    /// Changes nodes of the clusters of `inventory`.
    pub fn new(
        inventory: Arc<Inventory>,
        audit: Arc<dyn AuditLog>,
        holds: Arc<dyn CordonHolds>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
    ) -> Arc<Self> {
        metric::begin_changes();
        Arc::new(Self {
            inventory,
            audit,
            holds,
            clock,
            ids,
        })
    }

    /// Sets and removes labels; none that decides what somebody with this access may do.
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing was changed, unless it says that this is not known.
    pub async fn label(
        self: &Arc<Self>,
        cluster: &str,
        node: &str,
        change: LabelChange,
        access: &Access,
        asked: Asked,
    ) -> Result<NodeChanged, ChangeError> {
        if let Some(key) = change.keys().find(|key| access.guards_label(key)) {
            return Err(ChangeError::GuardedLabel { key: key.to_owned() });
        }
        let target = self.target(cluster, node)?;
        let warnings = change.warnings();
        let intent = Intent::of(AuditAction::NodeLabel, change.options());
        let this = Arc::clone(self);
        let work = async move {
            let work = apply_labels(&target, &change, &asked);
            this.audited(&target, intent, &asked, work).await
        };
        let changed = to_its_end(work).await?;
        Ok(NodeChanged { warnings, ..changed })
    }

    /// Adds and removes taints. A `NoExecute` taint evicts pods without looking at budgets: on a node with running pods it needs
    /// `confirm_no_execute`.
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing was changed, unless it says that this is not known.
    pub async fn taint(
        self: &Arc<Self>,
        cluster: &str,
        node: &str,
        change: TaintChange,
        confirm_no_execute: bool,
        asked: Asked,
    ) -> Result<NodeChanged, ChangeError> {
        let target = self.target(cluster, node)?;
        let warnings = change.warnings();
        let mut options = change.options();
        options.insert("confirm_no_execute".to_owned(), confirm_no_execute.into());
        let intent = Intent::of(AuditAction::NodeTaint, options);
        let this = Arc::clone(self);
        let work = async move {
            let work = apply_taints(&target, &change, confirm_no_execute, &asked);
            this.audited(&target, intent, &asked, work).await
        };
        let changed = to_its_end(work).await?;
        Ok(NodeChanged { warnings, ..changed })
    }

    /// The node of this name, as it is known.
    ///
    /// # Errors
    /// [`InventoryError`] if there is no such cluster, or if the name cannot be that of a node.
    pub(crate) fn target(&self, cluster: &str, node: &str) -> Result<Target, ChangeError> {
        let handle = self.inventory.handle(cluster)?;
        let known = self.inventory.snapshot(cluster);
        let known = known
            .ok()
            .and_then(|snapshot| snapshot.find(node).map(|entry| entry.node().clone()));
        let name = match &known {
            Some(node) => node.name.clone(),
            None => NodeName::parse(node).map_err(|_| InventoryError::UnknownNode {
                cluster: handle.name.clone(),
                node: node.to_owned(),
            })?,
        };
        Ok(Target {
            cluster: handle,
            name,
            known,
        })
    }

    /// Writes the intent, does the work, and writes what came of it. What is only tried out is not written.
    async fn audited(
        self: &Arc<Self>,
        target: &Target,
        intent: Intent,
        asked: &Asked,
        work: impl Future<Output = Result<NodeChanged, ChangeError>> + Send,
    ) -> Result<NodeChanged, ChangeError> {
        if asked.dry_run {
            return work.await;
        }
        let at = self.clock.now();
        let action = intent.action;
        let record = AuditRecord {
            id: self.ids.next(at),
            at,
            actor: asked.actor.clone(),
            action,
            cluster: target.cluster.name.clone(),
            node: Some(target.name.clone()),
            operation: None,
            request_id: asked.request_id.clone(),
            reason: intent.reason,
            ticket: intent.ticket,
            options: intent.options,
            completion: None,
        };
        self.audit.open(&record).await.map_err(|source| {
            counter!(metric::AUDIT_FAILURES).increment(1);
            ChangeError::NotRecorded { source }
        })?;
        let outcome = work.await;
        let (result, error, (before, after)) = match &outcome {
            Ok(changed) => (
                AuditOutcome::Succeeded,
                None,
                (changed.before.clone(), changed.after.clone()),
            ),
            Err(error) => {
                let outcome = if error.is_uncertain() {
                    AuditOutcome::Unknown
                } else {
                    AuditOutcome::Failed
                };
                (outcome, Some(chain(error)), (Map::new(), Map::new()))
            }
        };
        counter!(metric::NODE_CHANGES, "action" => action.as_str(), "outcome" => result.as_str()).increment(1);
        let completion = AuditCompletion {
            outcome: result,
            at: self.clock.now(),
            error,
            before,
            after,
        };
        complete(&self.audit, record.id, completion).await;
        outcome
    }
}

impl Intent {
    fn of(action: AuditAction, options: Map<String, Value>) -> Self {
        Self {
            action,
            reason: None,
            ticket: None,
            options,
        }
    }
}

impl NodeChanged {
    fn between(before: &Node, after: Node) -> Self {
        let (was, is) = difference(before, &after);
        Self {
            node: after,
            before: was,
            after: is,
            warnings: Vec::new(),
        }
    }
}

impl Target {
    /// # Errors
    /// [`ChangeError::NeedsConfirmation`] if there are pods that a `NoExecute` taint could evict.
    async fn refuse_if_pods_run(&self) -> Result<(), ChangeError> {
        let pods = self.cluster.gateway.pods_on_node(&self.name).await;
        let pods = pods.map_err(|source| self.failed(source))?;
        let running = pods.iter().filter(|pod| !pod.phase.is_finished()).count();
        match running {
            0 => Ok(()),
            pods => Err(ChangeError::NeedsConfirmation {
                node: self.name.clone(),
                pods,
            }),
        }
    }

    fn failed(&self, source: knm_ports::ClusterError) -> ChangeError {
        ChangeError::of_cluster(self, source)
    }
}

/// Changes labels; done again, it changes nothing.
pub(crate) async fn apply_labels(
    target: &Target,
    change: &LabelChange,
    asked: &Asked,
) -> Result<NodeChanged, ChangeError> {
    let mut attempts = Attempts::begin(target, asked).await?;
    loop {
        let patch = change.patch(attempts.node());
        if let Some(done) = attempts.send(patch).await? {
            return Ok(done);
        }
    }
}

/// Changes taints; done again, it changes nothing.
pub(crate) async fn apply_taints(
    target: &Target,
    change: &TaintChange,
    confirm_no_execute: bool,
    asked: &Asked,
) -> Result<NodeChanged, ChangeError> {
    let mut attempts = Attempts::begin(target, asked).await?;
    loop {
        if !confirm_no_execute && change.evicts(attempts.node()) {
            target.refuse_if_pods_run().await?;
        }
        let patch = change.patch(attempts.node());
        if let Some(done) = attempts.send(patch).await? {
            return Ok(done);
        }
    }
}

/// Gives a node what a template says; done again, it changes nothing.
pub(crate) async fn apply_template(
    target: &Target,
    template: &Template,
    confirm_no_execute: bool,
    asked: &Asked,
) -> Result<NodeChanged, ChangeError> {
    let mut attempts = Attempts::begin(target, asked).await?;
    loop {
        if !confirm_no_execute && template.evicts(attempts.node()) {
            target.refuse_if_pods_run().await?;
        }
        let patch = template.patch(attempts.node());
        if let Some(done) = attempts.send(patch).await? {
            return Ok(done);
        }
    }
}

/// Does `work` even if whoever asked for it leaves: a change that has begun is never left without its outcome.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, ChangeError>> + Send + 'static,
) -> Result<T, ChangeError> {
    match tokio::spawn(work.in_current_span()).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ChangeError::ShuttingDown),
        },
    }
}
