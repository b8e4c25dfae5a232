//! The HTTP interface: it translates and nothing else.

mod access;
mod answer;
mod api;
mod body;
mod client;
mod compression;
mod connection;
mod docs;
mod document;
mod edge;
mod example;
mod gate;
mod gather;
mod headers;
mod limit;
mod lines;
mod list;
mod metric;
mod once;
mod origin;
mod parameters;
mod problem;
mod refusal;
mod revised;
mod room;
mod route;
mod server;
mod shortcut;
mod stream;
mod tls;
mod trace;
mod view;

use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, ready};
use knm_domain::{
    Audit, ClusterRegistry, Health, Idempotency, Inventory, NodeChanges, Operations, SignIn, Templates, Tokens,
};
use knm_model::{Caller, ClusterName, Permission};
use knm_ports::MetricsExposition;
use poem::{Endpoint, IntoEndpoint, Request, Response};
use poem_openapi::{LicenseObject, OpenApiService};
use tokio_util::sync::CancellationToken;

pub use client::{Network, NetworkError};
pub use document::{openapi_json, openapi_yaml};
pub use metric::describe_metrics;
pub use route::Paths;
pub use server::{Entrance, serve};
pub use tls::{Tls, TlsError, TlsFiles};

use api::audit::AuditApi;
use api::changes::ChangesApi;
use api::clusters::ClustersApi;
use api::drain::DrainApi;
use api::health::HealthApi;
use api::nodes::NodesApi;
use api::operations::OperationsApi;
use api::templates::TemplatesApi;
use api::tokens::TokensApi;
use api::watch::WatchApi;
use docs::DocsApi;
use edge::Edge;
use gate::{Follower, Gate};
use list::Lists;
use once::Once;

/// What the interface translates to.
#[derive(Clone)]
pub struct App {
    /// The clusters and their nodes.
    pub inventory: Arc<Inventory>,
    /// Registers and removes clusters.
    pub registry: Arc<ClusterRegistry>,
    /// Changes their nodes.
    pub changes: Arc<NodeChanges>,
    /// Accepts and shows what takes longer.
    pub operations: Arc<Operations>,
    /// Templates, and the nodes that are to be as they say.
    pub templates: Arc<Templates>,
    /// What was tried with them.
    pub audit: Arc<Audit>,
    /// Keeps requests from being done twice.
    pub idempotency: Arc<Idempotency>,
    /// Tells who sends requests and what they may do.
    pub sign_in: Arc<SignIn>,
    /// The API tokens.
    pub tokens: Arc<Tokens>,
    /// Whether the service works.
    pub health: Arc<Health>,
    /// The metrics of the process.
    pub exposition: Arc<dyn MetricsExposition>,
    /// How answers are given.
    pub settings: AppSettings,
}

/// How answers are given.
#[derive(Clone, Debug)]
pub struct AppSettings {
    /// Whether problems tell what lies below them (`server.mode: debug`).
    pub debug_errors: bool,
    /// Whether `/metrics` needs a caller.
    pub metrics_require_auth: bool,
    /// Whether `/docs` and the document do.
    pub docs_require_auth: bool,
    /// Origins whose pages may read answers; none: no page of another origin may.
    pub cors_origins: Vec<String>,
    /// Proxies that are believed when they say whom they ask for.
    pub trusted_proxies: Vec<Network>,
    /// How long an answer may take, event streams excepted.
    pub write_timeout: Duration,
    /// How long the body of a request may take to arrive.
    pub read_timeout: Duration,
    /// How large the body of a request may be, in bytes.
    pub max_body_bytes: usize,
}

/// What callers may do to the server.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// How long the head of a request may take to arrive.
    pub header_read_timeout: Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// How long a caller may take nothing of an answer before it is cut off, and how long it may take for all of one while others wait for a
    /// connection.
    pub write_timeout: Duration,
    /// How large all headers of a request may be together, in bytes.
    pub max_header_bytes: usize,
    /// How long a URL may be, in bytes.
    pub max_url_bytes: usize,
    /// How many connections there may be at once; for others those make room that have been silent or slow for longest, else they wait.
    pub max_connections: usize,
    /// How many requests all callers together may send in a second; 0 is no limit.
    pub requests_per_second: u32,
    /// How many each of them may, and twice as many at once; 0 is no limit.
    pub caller_requests_per_second: u32,
    /// How many requests that take much work are answered at once, half of them for one caller; 0 is no limit.
    pub expensive_requests: usize,
    /// How many event streams a caller may have open; 0 is no limit.
    pub streams_per_caller: usize,
}

#[cfg(test)]
impl ServerLimits {
    /// Short times and small sizes, and no limits of rates.
    pub(crate) fn of_tests() -> Self {
        Self {
            header_read_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
            write_timeout: Duration::from_secs(1),
            max_header_bytes: 8_192,
            max_url_bytes: 300,
            max_connections: 1,
            requests_per_second: 0,
            caller_requests_per_second: 0,
            expensive_requests: 0,
            streams_per_caller: 0,
        }
    }
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeReport {
    /// Requests that had not been answered to their end when the time was up.
    pub cut_off: usize,
    /// How long the end took.
    pub took: Duration,
}

/// What the operations work with.
pub(crate) struct Shared {
    inventory: Arc<Inventory>,
    registry: Arc<ClusterRegistry>,
    changes: Arc<NodeChanges>,
    operations: Arc<Operations>,
    templates: Arc<Templates>,
    audit: Arc<Audit>,
    sign_in: Arc<SignIn>,
    tokens: Arc<Tokens>,
    health: Arc<Health>,
    exposition: Arc<dyn MetricsExposition>,
    lists: Lists,
    /// Event streams end when it is cancelled.
    shutdown: CancellationToken,
}

impl Shared {
    /// Somebody who follows something in these clusters.
    fn follower(
        &self,
        caller: &Arc<Caller>,
        clusters: Vec<ClusterName>,
        permissions: &'static [Permission],
    ) -> Follower {
        Follower {
            sign_in: Arc::clone(&self.sign_in),
            caller: Arc::clone(caller),
            clusters,
            permissions,
        }
    }
}

/// All operations, with what holds for every request around them.
pub(crate) fn router(
    app: App,
    limits: &ServerLimits,
    paths: Paths,
    shutdown: CancellationToken,
) -> impl Endpoint<Output = Response> + 'static {
    let gate = Gate {
        sign_in: Arc::clone(&app.sign_in),
        inventory: Arc::clone(&app.inventory),
        metrics_require_auth: app.settings.metrics_require_auth,
        docs_require_auth: app.settings.docs_require_auth,
        cors_origins: app.settings.cors_origins.clone(),
    };
    let shared = Arc::new(Shared {
        inventory: app.inventory,
        registry: app.registry,
        changes: app.changes,
        operations: Arc::clone(&app.operations),
        templates: app.templates,
        audit: app.audit,
        sign_in: app.sign_in,
        tokens: app.tokens,
        health: app.health,
        exposition: app.exposition,
        lists: Lists::new(),
        shutdown,
    });
    let operations = WithShared {
        inner: service().into_endpoint(),
        shared,
    };
    Edge::new(
        Once::new(operations, app.idempotency, app.operations),
        gate,
        app.settings,
        limits.clone(),
        paths,
    )
}

/// Gives every request what the operations work with, as poem's own `data` does, without another future around each request. What there
/// is a [`shortcut`] for never gets to the operations.
struct WithShared<E> {
    inner: E,
    shared: Arc<Shared>,
}

impl<E: Endpoint<Output = Response>> Endpoint for WithShared<E> {
    type Output = Response;

    fn call(&self, mut request: Request) -> impl Future<Output = poem::Result<Response>> + Send {
        if let Some(answer) = shortcut::answer(&self.shared, &request) {
            return Either::Left(ready(Ok(answer)));
        }
        request.set_data(Arc::clone(&self.shared));
        Either::Right(self.inner.call(request))
    }
}

/// All groups of operations.
type Groups = (
    HealthApi,
    ClustersApi,
    NodesApi,
    ChangesApi,
    DrainApi,
    OperationsApi,
    TemplatesApi,
    WatchApi,
    TokensApi,
    AuditApi,
    DocsApi,
);

/// The operations, and what they declare of themselves before [`document`] completes it.
pub(crate) fn service() -> OpenApiService<Groups, ()> {
    let operations = (
        HealthApi,
        ClustersApi,
        NodesApi,
        ChangesApi,
        DrainApi,
        OperationsApi,
        TemplatesApi,
        WatchApi,
        TokensApi,
        AuditApi,
        DocsApi,
    );
    OpenApiService::new(operations, "kube-node-manager", document::INTERFACE_VERSION)
        .description(
            "See and change the nodes of your Kubernetes clusters. Times are RFC 3339 in UTC, quantities are numbers with the unit in the key, \
             and every error is an `application/problem+json` with the id of the request.",
        )
        .license(LicenseObject::new("Apache-2.0").url("https://www.apache.org/licenses/LICENSE-2.0"))
        .server("/")
}
