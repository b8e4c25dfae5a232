//! Nodes, one or many.

use std::sync::Arc;

use knm_domain::InventoryError;
use knm_model::{Caller, NodeField, NodeQuery, RawNodeQuery};
use poem::http::HeaderMap;
use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};

use super::Group;
use crate::Shared;
use crate::answer::{Cacheable, Ready, is_known};
use crate::compression::Encoding;
use crate::list;
use crate::problem::{Failure, OfAsking, OfFleet, OfNodes, Problem};
use crate::view::{AllNodesView, NodeListView, NodeView, PodListView};

pub(crate) struct NodesApi;

#[OpenApi]
impl NodesApi {
    /// List the nodes of a cluster
    ///
    /// From what is watched, without asking the cluster. Without parameters all nodes, sorted by name. The answer has an `ETag`: with
    /// `If-None-Match` it is 304 until something changes.
    #[oai(
        path = "/api/v1/clusters/:cluster/nodes",
        method = "get",
        tag = "Group::Nodes",
        operation_id = "listNodes"
    )]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the operation")]
    async fn list(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
        /// The cluster's name.
        cluster: Path<String>,
        /// Labels that the nodes have, in Kubernetes' grammar: `=`, `==`, `!=`, `in`, `notin`, a key alone, `!` and a key, `>`, `<`.
        label_selector: Query<Option<String>>,
        /// Statuses that the nodes have, one of them each: `ready`, `not_ready`, `unknown`, separated by commas.
        status: Query<Option<String>>,
        /// Whether the scheduler may use them: `true` or `false`.
        schedulable: Query<Option<String>>,
        /// A role that they have.
        role: Query<Option<String>>,
        /// The zone that they are in.
        zone: Query<Option<String>>,
        /// A taint that they have: `key[=value][:effect]`.
        taint: Query<Option<String>>,
        /// A part of their name or of one of their addresses, upper and lower case alike.
        search: Query<Option<String>>,
        /// The order: `name`, `age` (the youngest first), `cpu`, `memory` (allocatable), `zone` or `status`; `-` in front reverses it.
        sort: Query<Option<String>>,
        /// At most so many nodes, 1 to 10,000; absent: all.
        limit: Query<Option<String>>,
        /// The `next_cursor` of the page before; its other parameters must be the same.
        cursor: Query<Option<String>>,
        /// Only these keys of each node, separated by commas.
        fields: Query<Option<String>>,
        headers: &HeaderMap,
    ) -> Result<Cacheable<NodeListView>, Failure<OfNodes>> {
        let raw = RawNodeQuery {
            label_selector: label_selector.0,
            status: status.0,
            schedulable: schedulable.0,
            role: role.0,
            zone: zone.0,
            taint: taint.0,
            search: search.0,
            sort: sort.0,
            limit: limit.0,
            cursor: cursor.0,
            fields: fields.0,
        };
        let snapshot = shared.inventory.visible_to(&caller.access).snapshot(&cluster.0);
        // That there is no such cluster matters more than a wrong parameter, and that more than a cluster that cannot be seen.
        if let Err(error @ InventoryError::UnknownCluster { .. }) = snapshot {
            return Err(error.into());
        }
        let query = NodeQuery::parse(&raw).map_err(Problem::invalid)?;
        let snapshot = snapshot?;
        let tag = list::tag(snapshot.version(), &query);
        if is_known(&tag, headers) {
            return Ok(Cacheable::not_modified(&tag));
        }
        if let (true, Some(encoding)) = (query.is_everything(), Encoding::negotiate(headers)) {
            let body = shared.lists.compressed(&snapshot, encoding).await;
            return Ok(Cacheable::changed(&tag, body).encoded(encoding.as_str()));
        }
        let body = shared.lists.body(&snapshot, &query).await;
        Ok(Cacheable::changed(&tag, body))
    }

    /// Show a node
    ///
    /// From what is watched, without asking the cluster. `stale` tells whether the cluster cannot be seen at the moment.
    #[oai(
        path = "/api/v1/clusters/:cluster/nodes/:node",
        method = "get",
        tag = "Group::Nodes",
        operation_id = "getNode"
    )]
    async fn one(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
        /// The cluster's name.
        cluster: Path<String>,
        /// The node's name.
        node: Path<String>,
        headers: &HeaderMap,
    ) -> Result<Cacheable<NodeView>, Failure<OfNodes>> {
        let snapshot = shared.inventory.visible_to(&caller.access).snapshot(&cluster.0)?;
        let entry = snapshot.find(&node.0).ok_or_else(|| InventoryError::UnknownNode {
            cluster: snapshot.cluster().clone(),
            node: node.0.clone(),
        })?;
        Ok(Cacheable::new(&list::node_tag(&snapshot, entry), headers, || {
            list::node(&snapshot, entry)
        }))
    }

    /// List the pods on a node
    ///
    /// From what is watched, or asked from the cluster at this moment while pods are not watched or cannot be seen. The disruption budgets that
    /// match each pod are asked for.
    #[oai(
        path = "/api/v1/clusters/:cluster/nodes/:node/pods",
        method = "get",
        tag = "Group::Nodes",
        operation_id = "listPodsOnNode"
    )]
    async fn pods(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The cluster's name.
        cluster: Path<String>,
        /// The node's name.
        node: Path<String>,
    ) -> Result<Ready<PodListView>, Failure<OfAsking>> {
        let pods = shared.inventory.pods_on_node(&cluster.0, &node.0).await?;
        Ok(Ready::of(&PodListView::of(&pods)))
    }

    /// List the nodes of all clusters
    ///
    /// As the list of one cluster, over all of them. A cluster whose nodes are not known is named in `clusters` with the reason; the
    /// nodes of the others are there.
    #[oai(
        path = "/api/v1/nodes",
        method = "get",
        tag = "Group::Nodes",
        operation_id = "listAllNodes"
    )]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the operation")]
    async fn fleet(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
        /// Labels that the nodes have, in Kubernetes' grammar.
        label_selector: Query<Option<String>>,
        /// Statuses that the nodes have, one of them each: `ready`, `not_ready`, `unknown`, separated by commas.
        status: Query<Option<String>>,
        /// Whether the scheduler may use them: `true` or `false`.
        schedulable: Query<Option<String>>,
        /// A role that they have.
        role: Query<Option<String>>,
        /// The zone that they are in.
        zone: Query<Option<String>>,
        /// A taint that they have: `key[=value][:effect]`.
        taint: Query<Option<String>>,
        /// A part of their name or of one of their addresses, upper and lower case alike.
        search: Query<Option<String>>,
        /// The order: `name` (within each cluster), `age`, `cpu`, `memory`, `zone` or `status`; `-` in front reverses it.
        sort: Query<Option<String>>,
        /// At most so many nodes, 1 to 10,000; absent: all.
        limit: Query<Option<String>>,
        /// The `next_cursor` of the page before; its other parameters must be the same.
        cursor: Query<Option<String>>,
        /// Only these keys of each node, separated by commas.
        fields: Query<Option<String>>,
        headers: &HeaderMap,
    ) -> Result<Cacheable<AllNodesView>, Failure<OfFleet>> {
        let raw = RawNodeQuery {
            label_selector: label_selector.0,
            status: status.0,
            schedulable: schedulable.0,
            role: role.0,
            zone: zone.0,
            taint: taint.0,
            search: search.0,
            sort: sort.0,
            limit: limit.0,
            cursor: cursor.0,
            fields: fields.0,
        };
        let query = NodeQuery::parse(&raw).map_err(Problem::invalid)?;
        let parts = shared.inventory.visible_to(&caller.access).snapshots();
        Ok(Cacheable::new(&list::fleet_tag(&parts, &query), headers, || {
            list::fleet(&parts, &query)
        }))
    }
}

/// All keys of a node, for the document.
pub(crate) fn field_names() -> Vec<&'static str> {
    NodeField::ALL.iter().map(|field| field.as_str()).collect()
}
