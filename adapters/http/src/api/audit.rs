//! What was tried, by whom, and what came of it.

use std::sync::Arc;

use knm_domain::InventoryError;
use knm_model::{AuditQuery, Caller, NodeName, RawAuditQuery};
use poem::http::HeaderMap;
use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use uuid::Uuid;

use super::Group;
use crate::Shared;
use crate::answer::Ready;
use crate::lines::{ListOrLines, wants_lines};
use crate::problem::{Failure, Kind, OfAudit, OfStored, Problem, shortened};
use crate::view::{AuditListView, AuditRecordView};

pub(crate) struct AuditApi;

type Records = ListOrLines<AuditListView, AuditRecordView>;

#[OpenApi]
impl AuditApi {
    /// List what was tried
    ///
    /// Records of attempted changes, the latest first: who, what, where, why, and what came of it. All filters that are given must hold.
    /// Paging stays right while records come in; there is no total, because to count millions of records takes too long. With
    /// `Accept: application/x-ndjson` all records come in one answer, one JSON object per line, `limit` of them if that is given; an
    /// answer that ends in the middle was cut off by an error.
    #[oai(
        path = "/api/v1/audit",
        method = "get",
        tag = "Group::Audit",
        operation_id = "listAuditRecords"
    )]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the operation")]
    async fn list(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
        /// The cluster's name; one that is no longer known, too.
        cluster: Query<Option<String>>,
        /// The node's name.
        node: Query<Option<String>>,
        /// The actor's name, whole; for actors without one their kind: `anonymous`, `service` or `outside`.
        actor: Query<Option<String>>,
        /// What was to be done: `node.label`, `node.taint`, `node.apply_template`, `node.cordon`, `node.uncordon` or `node.drain`.
        action: Query<Option<String>>,
        /// What came of it: `pending`, `succeeded`, `failed` or `unknown`.
        outcome: Query<Option<String>>,
        /// From this time on, RFC 3339.
        from: Query<Option<String>>,
        /// Before this time, RFC 3339.
        until: Query<Option<String>>,
        /// A part of the reason, upper and lower case of ASCII letters alike.
        reason: Query<Option<String>>,
        /// The id of the operation that it is part of.
        operation: Query<Option<String>>,
        /// At most so many records, 1 to 1,000; absent: 100 as JSON, all as lines.
        limit: Query<Option<String>>,
        /// The `next_cursor` of the page before; its other parameters must be the same.
        cursor: Query<Option<String>>,
        headers: &HeaderMap,
    ) -> Result<Records, Failure<OfAudit>> {
        let raw = RawAuditQuery {
            cluster: cluster.0,
            node: node.0,
            actor: actor.0,
            action: action.0,
            outcome: outcome.0,
            from: from.0,
            until: until.0,
            reason: reason.0,
            operation: operation.0,
            limit: limit.0,
            cursor: cursor.0,
        };
        Ok(records(&shared, &caller, headers, &raw).await?)
    }

    /// Show what was tried once
    ///
    /// One record of the audit log.
    #[oai(
        path = "/api/v1/audit/:id",
        method = "get",
        tag = "Group::Audit",
        operation_id = "getAuditRecord"
    )]
    async fn one(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
        /// The record's id.
        id: Path<String>,
    ) -> Result<Ready<AuditRecordView>, Failure<OfStored>> {
        let found = match Uuid::try_parse(&id.0) {
            Ok(id) => shared.audit.find(id, &caller.access).await?,
            Err(_) => None,
        };
        let record = found.ok_or_else(|| {
            let id = shortened(&id.0);
            Problem::new(Kind::NotFound, format!("there is no record {id:?} in the audit log"))
        })?;
        Ok(Ready::of(&AuditRecordView::of(&record)))
    }

    /// Tell the story of a node
    ///
    /// What was tried with this node, the latest first, as the list of all records tells it. A node that is gone still has its story.
    #[oai(
        path = "/api/v1/clusters/:cluster/nodes/:node/history",
        method = "get",
        tag = "Group::Audit",
        operation_id = "getNodeHistory"
    )]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the operation")]
    async fn history(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
        /// The cluster's name.
        cluster: Path<String>,
        /// The node's name.
        node: Path<String>,
        /// The actor's name, whole; for actors without one their kind: `anonymous`, `service` or `outside`.
        actor: Query<Option<String>>,
        /// What was to be done: `node.label`, `node.taint`, `node.apply_template`, `node.cordon`, `node.uncordon` or `node.drain`.
        action: Query<Option<String>>,
        /// What came of it: `pending`, `succeeded`, `failed` or `unknown`.
        outcome: Query<Option<String>>,
        /// From this time on, RFC 3339.
        from: Query<Option<String>>,
        /// Before this time, RFC 3339.
        until: Query<Option<String>>,
        /// A part of the reason, upper and lower case of ASCII letters alike.
        reason: Query<Option<String>>,
        /// The id of the operation that it is part of.
        operation: Query<Option<String>>,
        /// At most so many records, 1 to 1,000; absent: 100 as JSON, all as lines.
        limit: Query<Option<String>>,
        /// The `next_cursor` of the page before; its other parameters must be the same.
        cursor: Query<Option<String>>,
        headers: &HeaderMap,
    ) -> Result<Records, Failure<OfStored>> {
        let known = shared.inventory.cluster(&cluster.0)?;
        if NodeName::parse(&node.0).is_err() {
            return Err(InventoryError::UnknownNode {
                cluster: known.name,
                node: node.0,
            }
            .into());
        }
        let raw = RawAuditQuery {
            cluster: Some(cluster.0),
            node: Some(node.0),
            actor: actor.0,
            action: action.0,
            outcome: outcome.0,
            from: from.0,
            until: until.0,
            reason: reason.0,
            operation: operation.0,
            limit: limit.0,
            cursor: cursor.0,
        };
        Ok(records(&shared, &caller, headers, &raw).await?)
    }
}

async fn records(
    shared: &Shared,
    caller: &Caller,
    headers: &HeaderMap,
    raw: &RawAuditQuery,
) -> Result<Records, Problem> {
    let query = AuditQuery::parse(raw).map_err(Problem::invalid)?;
    if wants_lines(headers) {
        return Ok(Records::lines(
            shared.audit.export(query, Arc::clone(&caller.access)),
            AuditRecordView::of,
        )
        .await?);
    }
    let page = shared.audit.page(&query, &caller.access).await?;
    Ok(Records::list(&AuditListView::of(&page)))
}
