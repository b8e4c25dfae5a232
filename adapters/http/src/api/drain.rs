//! Draining nodes.

use std::sync::Arc;

use knm_model::DrainOptions;
use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::Path;

use super::Group;
use crate::Shared;
use crate::answer::Ready;
use crate::body::Written;
use crate::problem::{Failure, OfPlanning, Problem};
use crate::view::{DrainOptionsBody, DrainPlanView};

pub(crate) struct DrainApi;

#[OpenApi]
impl DrainApi {
    /// Plan the drain of a node
    ///
    /// What a drain with these options would do, without touching anything: of each pod whether it is removed and why not; which disruption
    /// budgets make pods wait, and in which order they could go; where they could go. Drains follow the same plan.
    #[oai(
        path = "/api/v1/clusters/:cluster/nodes/:node/drain/plan",
        method = "post",
        tag = "Group::Drains",
        operation_id = "planDrain"
    )]
    async fn plan(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The cluster's name.
        cluster: Path<String>,
        /// The node's name.
        node: Path<String>,
        body: Written<DrainOptionsBody>,
    ) -> Result<Ready<DrainPlanView>, Failure<OfPlanning>> {
        let options = DrainOptions::parse(&body.0.raw()).map_err(Problem::invalid)?;
        let preview = shared.inventory.plan_drain(&cluster.0, &node.0, &options).await?;
        Ok(Ready::of(&DrainPlanView::of(&preview)))
    }
}
