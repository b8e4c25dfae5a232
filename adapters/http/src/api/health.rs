//! Health and metrics: promised to the letter, see the first sections of the README.

use std::collections::BTreeMap;
use std::sync::Arc;

use knm_domain::{BasicHealth, ClusterStatus, DatabaseHealth, DetailedHealth, NamedCheck};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::PlainText;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Serialize;

use super::Group;
use crate::Shared;
use crate::answer::{Fleeting, Media, Ready};
use crate::problem::{Failure, Hardly, Kind, OfCheck, Problem};

const MEBIBYTE: u64 = 1024 * 1024;

pub(crate) struct HealthApi;

/// What can always be said of the service.
#[derive(Object, Serialize)]
#[oai(rename = "BasicHealth")]
struct BasicView {
    /// Always `healthy`: the service answers.
    status: String,
    /// The name of the service.
    service: String,
    /// Its version.
    version: String,
    /// The time of the answer, RFC 3339 in UTC with whole seconds.
    timestamp: String,
    /// How long the service runs, as Go prints a duration in whole seconds: `2h30m15s`.
    uptime: String,
}

/// The process answers.
#[derive(Object, Serialize)]
#[oai(rename = "Liveness")]
pub(crate) struct LiveView {
    /// Always `alive`.
    status: String,
    /// The time of the answer, RFC 3339 in UTC with whole seconds.
    timestamp: String,
}

/// Whether requests may be sent here.
#[derive(Object, Serialize)]
#[oai(rename = "Readiness")]
struct ReadyView {
    /// `ready` or `not ready`.
    #[oai(validator(pattern = "^(ready|not ready)$"))]
    status: String,
    /// The time of the answer, RFC 3339 in UTC with whole seconds.
    timestamp: String,
    /// The parts that decide about it.
    details: ReadyDetailsView,
}

/// The parts that decide about readiness.
#[derive(Object, Serialize)]
#[oai(rename = "ReadinessDetails")]
struct ReadyDetailsView {
    /// The database.
    database: DatabaseView,
}

/// The database.
#[derive(Object, Serialize)]
#[oai(rename = "DatabaseHealth")]
struct DatabaseView {
    /// `healthy` or `unhealthy`.
    #[oai(validator(pattern = "^(healthy|unhealthy)$"))]
    status: String,
    /// Its connections.
    data: ConnectionsView,
}

/// Connections to the database.
#[derive(Object, Serialize)]
#[oai(rename = "DatabaseConnections")]
struct ConnectionsView {
    /// Most connections that may be open.
    max_open_connections: u32,
    /// Connections that are open.
    open_connections: u32,
    /// Of these, those that are worked with.
    in_use: u32,
    /// Of these, those that wait for work.
    idle: u32,
    /// Connections that were ever held for longer than the leak threshold.
    leaked_total: u64,
}

/// All parts of the service.
#[derive(Object, Serialize)]
#[oai(rename = "DetailedHealth")]
struct DetailedView {
    /// `healthy`, or `degraded` when a part is not well.
    #[oai(validator(pattern = "^(healthy|degraded)$"))]
    status: String,
    /// The name of the service.
    service: String,
    /// Its version.
    version: String,
    /// The time of the answer, RFC 3339 in UTC with whole seconds.
    timestamp: String,
    /// How long the service runs, as Go prints a duration in whole seconds.
    uptime: String,
    /// Its parts.
    details: DetailsView,
}

/// The parts of the service.
#[derive(Object, Serialize)]
#[oai(rename = "HealthDetails")]
struct DetailsView {
    /// The database.
    database: DatabaseView,
    /// The process.
    system: SystemView,
    /// What the service was built with and where it runs.
    runtime: RuntimeView,
    /// The clusters by name.
    clusters: BTreeMap<String, ClusterHealthView>,
}

/// The process.
#[derive(Object, Serialize)]
#[oai(rename = "SystemHealth")]
struct SystemView {
    /// Always `healthy`: the process answers.
    status: String,
    /// Its figures.
    data: SystemDataView,
}

/// Figures of the process.
#[derive(Object, Serialize)]
#[oai(rename = "SystemData")]
struct SystemDataView {
    /// Its memory.
    memory: MemoryView,
    /// Live asynchronous tasks; the name is the first version's.
    goroutines: u64,
}

/// Memory of the process.
#[derive(Object, Serialize)]
#[oai(rename = "Memory")]
struct MemoryView {
    /// Resident memory in MiB.
    alloc_mb: u64,
    /// Virtual memory that is reserved, in MiB.
    sys_mb: u64,
}

/// What the service was built with and where it runs.
#[derive(Object, Serialize)]
#[oai(rename = "Runtime")]
struct RuntimeView {
    /// Always null: the first version was written in Go.
    go_version: Option<String>,
    /// The version of Rust that the service was built with.
    rust_version: String,
    /// The machine or pod.
    hostname: String,
}

/// A cluster.
#[derive(Object, Serialize)]
#[oai(rename = "ClusterHealth")]
struct ClusterHealthView {
    /// `healthy`, `connecting` until the cluster answered for the first time, `degraded` while it cannot be seen.
    #[oai(validator(pattern = "^(connecting|healthy|degraded)$"))]
    status: String,
    /// What is known of it.
    data: ClusterDataView,
}

/// What is known of a cluster.
#[derive(Object, Serialize)]
#[oai(rename = "ClusterHealthData")]
struct ClusterDataView {
    /// How many nodes are known.
    nodes: u64,
    /// Whether what is known is getting old.
    stale: bool,
    /// When the cluster was last seen, RFC 3339 in UTC with whole seconds; null if it never was.
    as_of: Option<String>,
}

#[derive(ApiResponse)]
enum ReadyAnswer {
    /// Requests may be sent here.
    #[oai(status = 200)]
    Ready(Ready<ReadyView>),
    /// Requests should be sent elsewhere.
    #[oai(status = 503)]
    NotReady(Ready<ReadyView>),
}

#[derive(ApiResponse)]
enum DetailedAnswer {
    /// The database can be used; the status tells whether all else is well.
    #[oai(status = 200)]
    Usable(Ready<DetailedView>),
    /// The database cannot be used.
    #[oai(status = 503)]
    Unusable(Ready<DetailedView>),
}

#[derive(ApiResponse)]
enum CheckAnswer {
    /// All checks passed.
    #[oai(status = 200)]
    Passed(PlainText<String>),
    /// A check failed.
    #[oai(status = 503)]
    Failed(PlainText<String>),
}

/// Prometheus' text format.
struct Exposition;

impl Media for Exposition {
    const TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";
}

/// That the process lives, which is all that it tells.
pub(crate) fn liveness(shared: &Shared) -> Ready<LiveView> {
    Ready::of(&LiveView {
        status: "alive".to_owned(),
        timestamp: shared.health.now().to_whole_seconds(),
    })
}

#[OpenApi]
impl HealthApi {
    /// Say that the service answers
    ///
    /// Name, version and uptime. It touches nothing outside of the process. `/health/` answers the same.
    #[oai(path = "/health", method = "get", tag = "Group::Health", operation_id = "getHealth")]
    async fn basic(&self, shared: Data<&Arc<Shared>>) -> Result<Ready<BasicView>, Failure<Hardly>> {
        let BasicHealth {
            service,
            version,
            timestamp,
            uptime,
        } = shared.health.basic();
        Ok(Ready::of(&BasicView {
            status: "healthy".to_owned(),
            service,
            version,
            timestamp: timestamp.to_whole_seconds(),
            uptime: knm_model::go_duration(uptime),
        }))
    }

    /// Probe liveness
    ///
    /// For the liveness probe of Kubernetes. A broken database or cluster never fails it.
    #[oai(
        path = "/health/live",
        method = "get",
        tag = "Group::Health",
        operation_id = "getLiveness"
    )]
    async fn live(&self, shared: Data<&Arc<Shared>>) -> Result<Ready<LiveView>, Failure<Hardly>> {
        Ok(liveness(&shared))
    }

    /// Probe readiness
    ///
    /// For the readiness probe of Kubernetes: 503 while the database cannot be used, while its migrations are not applied, and as soon
    /// as the service is told to end.
    #[oai(
        path = "/health/ready",
        method = "get",
        tag = "Group::Health",
        operation_id = "getReadiness"
    )]
    async fn ready(&self, shared: Data<&Arc<Shared>>) -> Result<ReadyAnswer, Failure<Hardly>> {
        let readiness = shared.health.readiness().await;
        let view = Ready::of(&ReadyView {
            status: if readiness.ready { "ready" } else { "not ready" }.to_owned(),
            timestamp: shared.health.now().to_whole_seconds(),
            details: ReadyDetailsView {
                database: DatabaseView::from(&readiness.database),
            },
        });
        Ok(if readiness.ready {
            ReadyAnswer::Ready(view)
        } else {
            ReadyAnswer::NotReady(view)
        })
    }

    /// Show all parts
    ///
    /// The database, the process and each cluster. A cluster that cannot be seen makes the status `degraded` with 200; only the
    /// database makes it 503.
    #[oai(
        path = "/health/detailed",
        method = "get",
        tag = "Group::Health",
        operation_id = "getDetailedHealth"
    )]
    async fn detailed(&self, shared: Data<&Arc<Shared>>) -> Result<DetailedAnswer, Failure<Hardly>> {
        let health = shared.health.detailed().await;
        let view = Ready::of(&DetailedView::from(&health));
        Ok(if health.database_ok {
            DetailedAnswer::Usable(view)
        } else {
            DetailedAnswer::Unusable(view)
        })
    }

    /// Probe liveness as the API server of Kubernetes does
    ///
    /// `ok` in plain text; with `verbose` a line per check.
    #[oai(path = "/livez", method = "get", tag = "Group::Health", operation_id = "getLivez")]
    async fn livez(
        &self,
        /// Given (with any value), each check is told in a line `[+]name ok` or `[-]name failed`.
        verbose: Query<Option<String>>,
        /// A check to leave out; may be given several times.
        exclude: Query<Option<Vec<String>>>,
    ) -> Result<CheckAnswer, Failure<Hardly>> {
        Ok(told(
            "livez",
            &[ALIVE],
            verbose.0.is_some(),
            exclude.0.as_deref().unwrap_or_default(),
        ))
    }

    /// Run one liveness check
    ///
    /// There is one: `ping`.
    #[oai(
        path = "/livez/:check",
        method = "get",
        tag = "Group::Health",
        operation_id = "getLivezCheck"
    )]
    async fn livez_check(
        &self,
        /// The check.
        check: Path<String>,
    ) -> Result<CheckAnswer, Failure<OfCheck>> {
        single(&[ALIVE], &check.0)
    }

    /// Probe readiness as the API server of Kubernetes does
    ///
    /// `ok` in plain text, or 503 with a line per check; with `verbose` always a line per check.
    #[oai(path = "/readyz", method = "get", tag = "Group::Health", operation_id = "getReadyz")]
    async fn readyz(
        &self,
        shared: Data<&Arc<Shared>>,
        /// Given (with any value), each check is told in a line `[+]name ok` or `[-]name failed`.
        verbose: Query<Option<String>>,
        /// A check to leave out; may be given several times.
        exclude: Query<Option<Vec<String>>>,
    ) -> Result<CheckAnswer, Failure<Hardly>> {
        let checks = shared.health.checks().await;
        Ok(told(
            "readyz",
            &checks,
            verbose.0.is_some(),
            exclude.0.as_deref().unwrap_or_default(),
        ))
    }

    /// Run one readiness check
    ///
    /// `database`, `migrations` or `shutdown`.
    #[oai(
        path = "/readyz/:check",
        method = "get",
        tag = "Group::Health",
        operation_id = "getReadyzCheck"
    )]
    async fn readyz_check(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The check.
        check: Path<String>,
    ) -> Result<CheckAnswer, Failure<OfCheck>> {
        single(&shared.health.checks().await, &check.0)
    }

    /// Show the metrics
    ///
    /// In Prometheus' text format, version 0.0.4, with HELP and TYPE for each.
    #[oai(
        path = "/metrics",
        method = "get",
        tag = "Group::Health",
        operation_id = "getMetrics"
    )]
    async fn metrics(&self, shared: Data<&Arc<Shared>>) -> Result<Fleeting<Exposition>, Failure<Hardly>> {
        shared.inventory.observe();
        shared.health.observe();
        Ok(Fleeting::new(shared.exposition.render(&shared.inventory.names())))
    }
}

/// The one check of liveness: that it can be answered.
const ALIVE: NamedCheck = NamedCheck { name: "ping", ok: true };

fn told(all: &str, checks: &[NamedCheck], verbose: bool, excluded: &[String]) -> CheckAnswer {
    let checks: Vec<(&NamedCheck, bool)> = checks
        .iter()
        .map(|check| (check, excluded.iter().any(|name| name == check.name)))
        .collect();
    let passed = checks.iter().all(|(check, excluded)| check.ok || *excluded);
    if passed && !verbose {
        return CheckAnswer::Passed(PlainText("ok".to_owned()));
    }
    let mut text = String::new();
    for (check, excluded) in checks {
        text += &match (excluded, check.ok) {
            (true, _) => format!("[+]{} excluded: ok\n", check.name),
            (false, true) => format!("[+]{} ok\n", check.name),
            (false, false) => format!("[-]{} failed\n", check.name),
        };
    }
    if passed {
        return CheckAnswer::Passed(PlainText(text + all + " check passed\n"));
    }
    CheckAnswer::Failed(PlainText(text + all + " check failed\n"))
}

fn single(checks: &[NamedCheck], name: &str) -> Result<CheckAnswer, Failure<OfCheck>> {
    match checks.iter().find(|check| check.name == name) {
        Some(check) if check.ok => Ok(CheckAnswer::Passed(PlainText("ok".to_owned()))),
        Some(check) => Ok(CheckAnswer::Failed(PlainText(format!("[-]{} failed\n", check.name)))),
        None => {
            let known: Vec<&str> = checks.iter().map(|check| check.name).collect();
            Err(Problem::new(
                Kind::NotFound,
                format!("there is no check {name:?}: {} can be asked for", known.join(", ")),
            )
            .into())
        }
    }
}

impl From<&DatabaseHealth> for DatabaseView {
    fn from(health: &DatabaseHealth) -> Self {
        Self {
            status: if health.healthy { "healthy" } else { "unhealthy" }.to_owned(),
            data: ConnectionsView {
                max_open_connections: health.pool.max_open,
                open_connections: health.pool.open,
                in_use: health.pool.in_use,
                idle: health.pool.idle,
                leaked_total: health.pool.leaks,
            },
        }
    }
}

impl From<&DetailedHealth> for DetailedView {
    fn from(health: &DetailedHealth) -> Self {
        let BasicHealth {
            service,
            version,
            timestamp,
            uptime,
        } = health.basic.clone();
        Self {
            status: health.verdict.as_str().to_owned(),
            service,
            version,
            timestamp: timestamp.to_whole_seconds(),
            uptime: knm_model::go_duration(uptime),
            details: DetailsView {
                database: DatabaseView::from(&health.database),
                system: SystemView {
                    status: "healthy".to_owned(),
                    data: SystemDataView {
                        memory: MemoryView {
                            alloc_mb: health.process.resident_bytes / MEBIBYTE,
                            sys_mb: health.process.virtual_bytes / MEBIBYTE,
                        },
                        goroutines: health.live_tasks,
                    },
                },
                runtime: RuntimeView {
                    go_version: None,
                    rust_version: health.rust_version.clone(),
                    hostname: health.hostname.clone(),
                },
                clusters: health
                    .clusters
                    .iter()
                    .map(|cluster| (cluster.name.to_string(), cluster.into()))
                    .collect(),
            },
        }
    }
}

impl From<&ClusterStatus> for ClusterHealthView {
    fn from(status: &ClusterStatus) -> Self {
        Self {
            status: status.state.as_str().to_owned(),
            data: ClusterDataView {
                nodes: u64::try_from(status.nodes).unwrap_or(u64::MAX),
                stale: status.stale,
                as_of: status.as_of.map(|time| time.to_whole_seconds()),
            },
        }
    }
}
