//! Clusters and their totals, and those that are registered while the service runs.

use std::sync::Arc;

use knm_domain::UnderWay;
use knm_model::{Caller, QueryError, excerpt};
use poem::Request;
use poem::http::{HeaderMap, StatusCode};
use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};

use super::Group;
use super::changes::{asker, is_dry_run, known};
use crate::Shared;
use crate::answer::{Cacheable, Deleted, Ready, json};
use crate::body::Confidential;
use crate::problem::{Failure, OfCluster, OfFleet, OfNodes, OfRegistering, OfReregistering, OfUnregistering, Problem};
use crate::revised::{Registered, Revised};
use crate::view::{ClusterCredentialsBody, ClusterListView, ClusterTestView, ClusterView, NewClusterBody, SummaryView};

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
        Ok(Ready::of(&ClusterListView::of(
            &visible.clusters(),
            shared.health.now(),
        )))
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
    ) -> Result<Revised<ClusterView>, Failure<OfCluster>> {
        let cluster = shared.inventory.visible_to(&caller.access).cluster(&cluster.0)?;
        Ok(Revised::new(
            cluster.revision,
            &ClusterView::of(&cluster, shared.health.now()),
        ))
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

    /// Register a cluster
    ///
    /// From now on it is watched, by all replicas within a few seconds, also if it cannot be reached at the moment. Its credentials are stored
    /// encrypted and never shown. With `dry_run` it is tried and not stored.
    #[oai(
        path = "/api/v1/clusters",
        method = "post",
        tag = "Group::Clusters",
        operation_id = "registerCluster"
    )]
    async fn register(
        &self,
        shared: Data<&Arc<Shared>>,
        /// Whether it is only tried: what would be refused is, and the cluster is asked as by a test.
        dry_run: Query<Option<String>>,
        request: &Request,
        body: Confidential<NewClusterBody>,
    ) -> Result<Registered<ClusterView, ClusterTestView>, Failure<OfRegistering>> {
        let mut errors = Vec::new();
        let dry_run = is_dry_run(dry_run.0.as_deref(), &mut errors);
        if !errors.is_empty() {
            return Err(Problem::invalid(errors).into());
        }
        let (name, access) = body.0.split();
        if dry_run {
            let test = shared.registry.try_out(&name, &access).await?;
            return Ok(Registered::Tried(Revised::new(None, &ClusterTestView::of(&test))));
        }
        let cluster = shared.registry.register(&name, &access, asker(request)).await?;
        Ok(Registered::Stored(Revised::with_status(
            StatusCode::CREATED,
            cluster.revision,
            &ClusterView::of(&cluster, shared.health.now()),
        )))
    }

    /// Replace the credentials of a cluster
    ///
    /// Operations go on with them. To another server it cannot be moved while operations on its nodes are not over. Who watches its nodes is told
    /// that the stream ends, and comes back.
    #[oai(
        path = "/api/v1/clusters/:cluster",
        method = "put",
        tag = "Group::Clusters",
        operation_id = "replaceCluster"
    )]
    async fn replace(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The cluster's name.
        cluster: Path<String>,
        request: &Request,
        body: Confidential<ClusterCredentialsBody>,
    ) -> Result<Revised<ClusterView>, Failure<OfReregistering>> {
        let known = known(request.headers());
        let cluster = shared
            .registry
            .replace(&cluster.0, &body.0.raw(), known.as_deref(), asker(request))
            .await?;
        Ok(Revised::new(
            cluster.revision,
            &ClusterView::of(&cluster, shared.health.now()),
        ))
    }

    /// Remove a cluster
    ///
    /// Its credentials are gone with it; its nodes stay as they are, and its audit stays readable. While operations on its nodes are not over this is a
    /// 409 that names them, unless they are to be cancelled.
    #[oai(
        path = "/api/v1/clusters/:cluster",
        method = "delete",
        tag = "Group::Clusters",
        operation_id = "removeCluster"
    )]
    async fn remove(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The cluster's name.
        cluster: Path<String>,
        /// Whether operations on its nodes are cancelled, wholly, also if they have nodes of other clusters. Those that have not ended after
        /// 15 s keep the cluster, unless it does not answer.
        cancel_operations: Query<Option<String>>,
        request: &Request,
    ) -> Result<Deleted, Failure<OfUnregistering>> {
        let under_way = match cancel_operations.0.as_deref() {
            None | Some("false") => UnderWay::Keep,
            Some("true") => UnderWay::Cancel,
            Some(other) => {
                let message = format!("\"{}\" is not true or false", excerpt(other));
                return Err(Problem::invalid(vec![QueryError::new("cancel_operations", message)]).into());
            }
        };
        let known = known(request.headers());
        shared
            .registry
            .remove(&cluster.0, known.as_deref(), under_way, asker(request))
            .await?;
        Ok(Deleted)
    }

    /// Test the access to a cluster
    ///
    /// Asks for the version of its API server and for its nodes, and tells what worked. That it cannot be reached is an answer and no error.
    #[oai(
        path = "/api/v1/clusters/:cluster/test",
        method = "post",
        tag = "Group::Clusters",
        operation_id = "testCluster"
    )]
    async fn test(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The cluster's name.
        cluster: Path<String>,
    ) -> Result<Ready<ClusterTestView>, Failure<OfCluster>> {
        let test = shared.registry.test(&cluster.0).await?;
        Ok(Ready::of(&ClusterTestView::of(&test)))
    }
}
