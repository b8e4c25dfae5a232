//! Clusters and their totals.

use std::sync::Arc;

use knm_model::Caller;
use poem::http::HeaderMap;
use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::Path;

use super::Group;
use crate::Shared;
use crate::answer::{Cacheable, Ready, json};
use crate::problem::{Failure, OfCluster, OfFleet, OfNodes};
use crate::view::{ClusterListView, ClusterView, SummaryView};

pub(crate) struct ClustersApi;

#[OpenApi]
impl ClustersApi {
    /// List the clusters
    ///
    /// All clusters that this service watches, sorted by name, also those that cannot be seen at the moment.
    #[oai(
        path = "/api/v1/clusters",
        method = "get",
        tag = "Group::Clusters",
        operation_id = "listClusters"
    )]
    async fn list(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
    ) -> Result<Ready<ClusterListView>, Failure<OfFleet>> {
        let visible = shared.inventory.visible_to(&caller.access);
        Ok(Ready::of(&ClusterListView::of(&visible.clusters())))
    }

    /// Show a cluster
    ///
    /// How it is, how many nodes it has, and when it was last seen.
    #[oai(
        path = "/api/v1/clusters/:cluster",
        method = "get",
        tag = "Group::Clusters",
        operation_id = "getCluster"
    )]
    async fn one(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
        /// The cluster's name.
        cluster: Path<String>,
    ) -> Result<Ready<ClusterView>, Failure<OfCluster>> {
        let visible = shared.inventory.visible_to(&caller.access);
        Ok(Ready::of(&ClusterView::of(&visible.cluster(&cluster.0)?)))
    }

    /// Add up a cluster
    ///
    /// Numbers of nodes by status, schedulability, role, zone, version and instance type, and what they have together.
    #[oai(
        path = "/api/v1/clusters/:cluster/summary",
        method = "get",
        tag = "Group::Clusters",
        operation_id = "getClusterSummary"
    )]
    async fn summary(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
        /// The cluster's name.
        cluster: Path<String>,
        headers: &HeaderMap,
    ) -> Result<Cacheable<SummaryView>, Failure<OfNodes>> {
        let snapshot = shared.inventory.visible_to(&caller.access).snapshot(&cluster.0)?;
        let tag = format!("W/\"{}-summary\"", snapshot.version());
        Ok(Cacheable::new(&tag, headers, || {
            json(&SummaryView::of(&snapshot)).into()
        }))
    }
}
