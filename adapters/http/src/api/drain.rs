//! Draining nodes.

use std::sync::Arc;

use knm_domain::{InventoryError, TargetRequest};
use knm_model::{Caller, DrainOptions};
use poem::Request;
use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};

use super::Group;
use super::changes::{checked, is_dry_run};
use super::operations::begin_drain;
use crate::Shared;
use crate::answer::{Accepted, Ready};
use crate::body::Written;
use crate::problem::{Failure, OfAccepting, OfPlanning, Problem};
use crate::view::{DrainOptionsBody, DrainPlanView, OperationView};

pub(crate) struct DrainApi;

#[OpenApi]
impl DrainApi {
    /// Plan the drain of a node
    ///
    /// What a drain with these options would do, without touching anything: of each pod whether it is removed and why not; which disruption
    /// budgets make pods wait, and in which order they could go; where they could go, for those who see all nodes of the cluster. Drains follow
    /// the same plan.
    #[oai(
        path = "/api/v1/clusters/:cluster/nodes/:node/drain/plan",
        method = "post",
        tag = "Group::Drains",
        operation_id = "planDrain"
    )]
    async fn plan(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
        /// The cluster's name.
        cluster: Path<String>,
        /// The node's name.
        node: Path<String>,
        body: Written<DrainOptionsBody>,
    ) -> Result<Ready<DrainPlanView>, Failure<OfPlanning>> {
        let options = DrainOptions::parse(&body.0.raw()).map_err(Problem::invalid)?;
        let visible = shared.inventory.visible_to(&caller.access);
        let preview = visible.plan_drain(&cluster.0, &node.0, &options).await?;
        Ok(Ready::of(&DrainPlanView::of(&preview)))
    }

    /// Drain a node
    ///
    /// The node is held, then its pods are evicted as their disruption budgets allow, and it is over when every one of them is gone. It is
    /// accepted and done step by step, whatever happens to the process that does it: follow it under `Location`.
    #[oai(
        path = "/api/v1/clusters/:cluster/nodes/:node/drain",
        method = "post",
        tag = "Group::Drains",
        operation_id = "drainNode"
    )]
    async fn drain(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The cluster's name.
        cluster: Path<String>,
        /// The node's name.
        node: Path<String>,
        /// Whether nothing is changed and it is only told what would come of it: `true` or `false`.
        dry_run: Query<Option<String>>,
        request: &Request,
        body: Written<DrainOptionsBody>,
    ) -> Result<Accepted<OperationView>, Failure<OfAccepting>> {
        let mut errors = Vec::new();
        let dry_run = is_dry_run(dry_run.0.as_deref(), &mut errors);
        checked(DrainOptions::parse(&body.0.raw()), errors)?;
        let snapshot = shared.inventory.snapshot(&cluster.0)?;
        if snapshot.find(&node.0).is_none() {
            return Err(InventoryError::UnknownNode {
                cluster: snapshot.cluster().clone(),
                node: node.0,
            }
            .into());
        }
        let target = TargetRequest {
            cluster: cluster.0,
            nodes: vec![node.0],
            label_selector: None,
        };
        Ok(begin_drain(&shared, request, target, &body.0, dry_run).await?)
    }
}
