//! Operations: many nodes, and everything that takes time.

use std::collections::BTreeMap;
use std::sync::Arc;

use knm_domain::{OperationRequest, TargetRequest};
use knm_model::{
    Caller, OperationKind, OperationQuery, Permission, QueryError, RawOperationQuery, RawStrategy, Wish, excerpt,
};
use poem::Request;
use poem::http::HeaderMap;
use poem::web::Data;
use poem::web::sse::Event;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::EventStream;
use serde_json::Value;
use uuid::Uuid;

use super::Group;
use super::changes::asker;
use super::follow::{FollowEventView, events, resume_after};
use crate::Shared;
use crate::answer::{Accepted, Ready};
use crate::body::Written;
use crate::once::SentOnce;
use crate::problem::{Failure, Kind, OfAccepting, OfAudit, OfRetrying, OfStored, OfWishing, Problem, shortened};
use crate::view::{FleetOperationBody, OperationBody, OperationListView, OperationView, StrategyBody};

pub(crate) struct OperationsApi;

#[OpenApi]
impl OperationsApi {
    /// Begin an operation on nodes of a cluster
    ///
    /// It is accepted, with its nodes fixed, and done step by step, whatever happens to the process that does it. Follow it under `Location`.
    #[oai(
        path = "/api/v1/clusters/:cluster/operations",
        method = "post",
        tag = "Group::Operations",
        operation_id = "createClusterOperation"
    )]
    async fn in_cluster(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The cluster's name.
        cluster: Path<String>,
        request: &Request,
        body: Written<OperationBody>,
    ) -> Result<Accepted<OperationView>, Failure<OfAccepting>> {
        let body = body.0;
        let wanted = Wanted {
            kind: body.kind,
            targets: vec![body.targets.request(cluster.0)],
            reason: body.reason,
            ticket: body.ticket,
            options: body.options,
            strategy: body.strategy,
            dry_run: body.dry_run,
        };
        Ok(accept(&shared, request, wanted).await?)
    }

    /// Begin an operation on nodes of several clusters
    ///
    /// As for the nodes of one cluster; the strategy counts the nodes of all of them together.
    #[oai(
        path = "/api/v1/operations",
        method = "post",
        tag = "Group::Operations",
        operation_id = "createOperation"
    )]
    async fn across(
        &self,
        shared: Data<&Arc<Shared>>,
        request: &Request,
        body: Written<FleetOperationBody>,
    ) -> Result<Accepted<OperationView>, Failure<OfAccepting>> {
        let body = body.0;
        let wanted = Wanted {
            kind: body.kind,
            targets: body.targets.into_iter().map(|targets| targets.request()).collect(),
            reason: body.reason,
            ticket: body.ticket,
            options: body.options,
            strategy: body.strategy,
            dry_run: body.dry_run,
        };
        Ok(accept(&shared, request, wanted).await?)
    }

    /// List operations
    ///
    /// The latest first, without their nodes. All filters that are given must hold. There is no total.
    #[oai(
        path = "/api/v1/operations",
        method = "get",
        tag = "Group::Operations",
        operation_id = "listOperations"
    )]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the operation")]
    async fn list(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
        /// The name of a cluster of one of its nodes.
        cluster: Query<Option<String>>,
        /// The name of one of its nodes; with `cluster`, of that cluster.
        node: Query<Option<String>>,
        /// What is done: `cordon`, `uncordon`, `drain`, `label`, `taint` or `apply_template`.
        kind: Query<Option<String>>,
        /// How far it is, one of several states separated by commas: `queued`, `running`, `paused`, `cancelling`, `cancelled`, `succeeded`,
        /// `failed`, `partly_failed`.
        state: Query<Option<String>>,
        /// The name of who asked for it, whole; `anonymous` for those without one.
        actor: Query<Option<String>>,
        /// Accepted from this time on, RFC 3339.
        from: Query<Option<String>>,
        /// Accepted before this time, RFC 3339.
        until: Query<Option<String>>,
        /// At most so many operations, 1 to 1,000; absent: 100.
        limit: Query<Option<String>>,
        /// The `next_cursor` of the page before; its other parameters must be the same.
        cursor: Query<Option<String>>,
    ) -> Result<Ready<OperationListView>, Failure<OfAudit>> {
        let query = OperationQuery::parse(&RawOperationQuery {
            cluster: cluster.0,
            node: node.0,
            kind: kind.0,
            state: state.0,
            actor: actor.0,
            from: from.0,
            until: until.0,
            limit: limit.0,
            cursor: cursor.0,
        })
        .map_err(Problem::invalid)?;
        let page = shared
            .operations
            .page(&query.filter, query.before, query.limit, &caller.access)
            .await?;
        Ok(Ready::of(&OperationListView::of(&page)))
    }

    /// Show an operation
    ///
    /// With its nodes, and of drains each pod and what it waits for, for those who may see the pods of the node.
    #[oai(
        path = "/api/v1/operations/:id",
        method = "get",
        tag = "Group::Operations",
        operation_id = "getOperation"
    )]
    async fn one(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
        /// The operation's id.
        id: Path<String>,
    ) -> Result<Ready<OperationView>, Failure<OfStored>> {
        let id = parse_id(&id.0)?;
        let shown = shared.operations.find_visible(id, &caller.access).await?;
        Ok(Ready::of(&OperationView::of(&shown)))
    }

    /// Cancel an operation
    ///
    /// Nothing new is begun. Drains stop where they are: their `on_cancel` says whether their nodes stay cordoned. What is cancelled already
    /// stays so.
    #[oai(
        path = "/api/v1/operations/:id/cancel",
        method = "post",
        tag = "Group::Operations",
        operation_id = "cancelOperation"
    )]
    async fn cancel(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The operation's id.
        id: Path<String>,
        request: &Request,
    ) -> Result<Ready<OperationView>, Failure<OfWishing>> {
        Ok(wish(&shared, request, &id.0, Wish::Cancel).await?)
    }

    /// Pause an operation
    ///
    /// No node is begun and no pod is asked to go until somebody resumes it. Pods that are on their way out go on.
    #[oai(
        path = "/api/v1/operations/:id/pause",
        method = "post",
        tag = "Group::Operations",
        operation_id = "pauseOperation"
    )]
    async fn pause(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The operation's id.
        id: Path<String>,
        request: &Request,
    ) -> Result<Ready<OperationView>, Failure<OfWishing>> {
        Ok(wish(&shared, request, &id.0, Wish::Pause).await?)
    }

    /// Resume an operation
    ///
    /// It goes on. Nodes that failed until now do not count for `max_failures` again.
    #[oai(
        path = "/api/v1/operations/:id/resume",
        method = "post",
        tag = "Group::Operations",
        operation_id = "resumeOperation"
    )]
    async fn resume(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The operation's id.
        id: Path<String>,
        request: &Request,
    ) -> Result<Ready<OperationView>, Failure<OfWishing>> {
        Ok(wish(&shared, request, &id.0, Wish::Resume).await?)
    }

    /// Try again what failed
    ///
    /// A new operation with the nodes for which an ended one failed, or was cancelled before it was done. Nodes that are gone are left out.
    #[oai(
        path = "/api/v1/operations/:id/retry",
        method = "post",
        tag = "Group::Operations",
        operation_id = "retryOperation"
    )]
    async fn retry(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The operation's id.
        id: Path<String>,
        request: &Request,
    ) -> Result<Accepted<OperationView>, Failure<OfRetrying>> {
        let (asker, once) = (asker(request), sent_once(request));
        let shown = shared.operations.retry(parse_id(&id.0)?, asker, once).await?;
        Ok(Accepted::operation(shown.operation.id, &OperationView::of(&shown)))
    }

    /// Follow an operation
    ///
    /// Server-sent events from its event log: `operation`, `node` and `pod`, each with what happened, and a `heartbeat` every 15 s without any.
    /// They are numbered from 1: with `Last-Event-ID` the stream goes on after that one, on any replica; a number that no event has yet is
    /// refused. It ends when the operation does.
    #[oai(
        path = "/api/v1/operations/:id/events",
        method = "get",
        tag = "Group::Operations",
        operation_id = "watchOperation"
    )]
    async fn events(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
        /// The operation's id.
        id: Path<String>,
        /// The number of the last event that was read, for readers that cannot send the header `Last-Event-ID`, which comes first.
        last_event_id: Query<Option<String>>,
        headers: &HeaderMap,
    ) -> Result<EventStream<futures::stream::BoxStream<'static, FollowEventView>>, Failure<OfStored>> {
        let id = parse_id(&id.0)?;
        let after = resume_after(headers, last_event_id.0).map_err(|error| Problem::invalid(vec![error]))?;
        let clusters = shared.operations.check_follow(id, after, &caller.access).await?;
        let follower = shared.follower(&caller, clusters, &[Permission::View, Permission::ViewPods]);
        let stream = events(shared.operations.follow(id, after), follower, shared.shutdown.clone());
        Ok(
            EventStream::new(futures::StreamExt::boxed(stream)).to_event(|event: FollowEventView| {
                let message = Event::message(event.data).event_type(event.kind);
                match event.number {
                    Some(number) => message.id(number.to_string()),
                    None => message,
                }
            }),
        )
    }
}

/// What is asked for, whatever it is about.
struct Wanted {
    kind: String,
    targets: Vec<TargetRequest>,
    reason: Option<String>,
    ticket: Option<String>,
    options: BTreeMap<String, Value>,
    strategy: StrategyBody,
    dry_run: bool,
}

async fn accept(shared: &Shared, request: &Request, wanted: Wanted) -> Result<Accepted<OperationView>, Problem> {
    let kind = OperationKind::parse(&wanted.kind).ok_or_else(|| {
        let known = OperationKind::ALL.map(OperationKind::as_str).join(", ");
        let message = format!("\"{}\" is not allowed: one of {known} is", excerpt(&wanted.kind));
        Problem::invalid(vec![QueryError::new("kind", message)])
    })?;
    let options = wanted.options.into_iter().collect();
    let wanted = OperationRequest {
        kind,
        targets: wanted.targets,
        reason: wanted.reason,
        ticket: wanted.ticket,
        options: match kind {
            OperationKind::ApplyTemplate => shared.templates.applied(&options).await?,
            _ => options,
        },
        strategy: wanted.strategy.raw(),
        dry_run: wanted.dry_run,
        retry_of: None,
    };
    begin(shared, request, wanted).await
}

/// Begins the drain of one node.
pub(super) async fn begin_drain(
    shared: &Shared,
    request: &Request,
    target: TargetRequest,
    body: &crate::view::DrainOptionsBody,
    dry_run: bool,
) -> Result<Accepted<OperationView>, Problem> {
    let wanted = OperationRequest {
        kind: OperationKind::Drain,
        targets: vec![target],
        reason: body.reason.clone(),
        ticket: body.ticket.clone(),
        options: body.options(),
        strategy: RawStrategy::default(),
        dry_run,
        retry_of: None,
    };
    begin(shared, request, wanted).await
}

async fn begin(
    shared: &Shared,
    request: &Request,
    wanted: OperationRequest,
) -> Result<Accepted<OperationView>, Problem> {
    let (asker, once) = (asker(request), sent_once(request));
    let shown = shared.operations.accept_once(wanted, asker, once).await?;
    Ok(Accepted::operation(shown.operation.id, &OperationView::of(&shown)))
}

async fn wish(shared: &Shared, request: &Request, id: &str, wish: Wish) -> Result<Ready<OperationView>, Problem> {
    let shown = shared.operations.wish(parse_id(id)?, wish, &asker(request)).await?;
    Ok(Ready::of(&OperationView::of(&shown)))
}

/// What names the request among all that are sent, if it may be sent again.
fn sent_once(request: &Request) -> Option<[u8; 32]> {
    request.data::<SentOnce>().map(|sent| sent.0)
}

fn parse_id(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| {
        let id = shortened(text);
        Problem::new(Kind::NotFound, format!("there is no operation {id:?}"))
    })
}
