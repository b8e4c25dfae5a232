//! Runs the service: starts the parts, waits for a signal, ends them in order.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use knm_domain::{
    Audit, AuditKeeper, ClusterHandle, ConnectionWatch, Health, HealthSettings, Idempotency, Inventory, NodeChanges,
    OperationKeeper, OperationRunner, Operations, OwnPod, Registrations, RunnerSettings, SelfCheck, SignIn,
    TemplateReconciler, Templates,
};
use knm_http::{App, AppSettings, ServerLimits, Tls};
use knm_model::ClusterName;
use knm_ports::{Clock, IdSource, Storage, StorageError, SystemStats};
use knm_system::{MachineStats, SystemClock, TimeOrderedIds};
use knm_telemetry::{Identity, Logs, PrometheusExposition, Traces};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::arguments::ServeArguments;
use crate::configuration::{
    ClusterSetting, ConfigurationError, DemoSetting, Environment, Origin, Resolved, Settings, SourceSetting, Value,
    refuses_open,
};
use crate::servers::Ports;
use crate::shutdown::Shutdown;
use crate::signals::{Endings, hangups};
use crate::{Failure, access, clusters, open_files, registration, reload, storage};

/// How often observed durations are folded into their buckets.
const FOLD_EVERY: Duration = Duration::from_secs(5);
/// How often is looked whether somebody has migrated.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs the service until a signal ends it.
///
/// # Errors
/// [`Failure`] if it does not start.
pub fn run(arguments: &ServeArguments, environment: &Environment) -> Result<(), Failure> {
    let mut resolved = Resolved::load(arguments.file.config.as_deref(), environment)?;
    let folder = match arguments.demo {
        true => Some(become_demo(&mut resolved, arguments)?),
        false => None,
    };
    let mut settings = Settings::from(&resolved);
    if let Some(problem) = refuses_open(&settings.sign_in, &settings.server.host) {
        return Err(ConfigurationError {
            problems: vec![problem],
        }
        .into());
    }
    let identity = Identity {
        service: settings.service.clone(),
        version: VERSION.to_owned(),
        hostname: settings.instance_id.clone().unwrap_or_else(knm_system::hostname),
    };
    settings.database.instance = Some(storage::instance(
        settings.instance_id.as_deref(),
        &knm_system::hostname(),
        std::process::id(),
    ));
    let traces = open_traces(&settings, &identity)?;
    let clock = Arc::new(SystemClock);
    let logs = knm_telemetry::start_logs(&settings.logging, identity, clock, traces.as_ref())?;
    let program = Program {
        arguments,
        environment,
        settings,
        logs: logs.clone(),
        traces,
        demo_folder: folder.as_ref().map(|folder| folder.path().to_owned()),
    };
    let outcome = runtime().and_then(|runtime| {
        let outcome = runtime.block_on(program.live(&resolved));
        // What still runs is nothing that anybody waits for.
        runtime.shutdown_timeout(Duration::from_millis(100));
        outcome
    });
    logs.flush();
    outcome
}

/// The traces, if some are configured.
///
/// # Errors
/// [`ConfigurationError`] if they cannot be sent as it is configured, or not by this build.
fn open_traces(settings: &Settings, identity: &Identity) -> Result<Option<Traces>, ConfigurationError> {
    let Some(wanted) = &settings.traces else {
        return Ok(None);
    };
    let opened = Traces::open(wanted, identity).map_err(|error| ConfigurationError {
        problems: vec![error.to_string()],
    });
    opened.map(Some)
}

/// The runtime of the program.
///
/// # Errors
/// [`Failure::System`] if the operating system refuses.
pub fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::System {
            what: "the runtime cannot be started",
            source,
        })
}

/// Sets what the demo is about, and makes the folder of its database, which goes with the returned value.
fn become_demo(resolved: &mut Resolved, arguments: &ServeArguments) -> Result<tempfile::TempDir, Failure> {
    let folder = tempfile::Builder::new()
        .prefix("kube-node-manager-demo-")
        .tempdir()
        .map_err(|source| Failure::System {
            what: "a temporary folder cannot be made",
            source,
        })?;
    let origin = || Origin::Option("--demo");
    let file = folder.path().join("demo.db").display().to_string();
    resolved.set("database.type", Value::Text("sqlite".to_owned()), origin());
    resolved.set("database.dsn", Value::Text(file), origin());
    resolved.set("database.auto_migrate", Value::Flag(true), origin());
    resolved.set("server.host", Value::Text("127.0.0.1".to_owned()), origin());
    resolved.set("auth.mode", Value::Text("none".to_owned()), origin());
    resolved.set("server.management_host", Value::Nothing, origin());
    let demo = ClusterSetting {
        name: ClusterName::from_any("demo"),
        source: SourceSetting::Demo(DemoSetting {
            nodes: arguments.demo_nodes,
            pods_per_node: arguments.demo_pods_per_node,
            seed: arguments.demo_seed,
            changes_per_second: arguments.demo_changes_per_second,
        }),
    };
    resolved.clusters = Some((vec![demo], origin()));
    Ok(folder)
}

struct Program<'a> {
    arguments: &'a ServeArguments,
    environment: &'a Environment,
    settings: Settings,
    logs: Logs,
    /// `None` where nobody traces.
    traces: Option<Traces>,
    /// Removed even when a second signal ends the process at once.
    demo_folder: Option<PathBuf>,
}

impl Program<'_> {
    async fn live(&self, resolved: &Resolved) -> Result<(), Failure> {
        let mut endings = Endings::listen()?;
        let settings = &self.settings;
        let program = concat!("kube-node-manager ", env!("CARGO_PKG_VERSION"));
        tracing::info!(program, rust = env!("KNM_RUST_VERSION"), "starting");
        match &resolved.file {
            Some(file) => tracing::info!(file = %file.display(), "configuration read"),
            None => tracing::info!("no configuration file: defaults and environment"),
        }
        for warning in &resolved.warnings {
            tracing::warn!("{warning}");
        }
        let exposition = knm_telemetry::install_metrics()?;
        describe_metrics();
        if let (Some(traces), Some(wanted)) = (&self.traces, &settings.traces) {
            traces.start();
            tracing::info!(
                endpoint = wanted.endpoint,
                percent = wanted.sample_percent,
                "traces are sent"
            );
        }

        let ports = Ports::listen(&settings.server).await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let tls = self.open_tls(&clock).await?;
        let vault = registration::vault(settings)?;
        let configured = self.configured_clusters()?;
        let handles = self.open_clusters(&configured, &clock).await?;
        let storage = storage::open(&settings.database).await?;
        tracing::info!(
            kind = settings.database.kind.as_str(),
            place = settings.database.place,
            "storage opened"
        );
        log_clusters(&handles);

        let background = CancellationToken::new();
        let registered: Vec<_> = handles
            .iter()
            .map(|handle| (handle.name.clone(), handle.source))
            .collect();
        let inventory = Inventory::start(Arc::clone(&clock), handles, background.clone());
        let stats: Arc<dyn SystemStats> = Arc::new(MachineStats::new(tokio::runtime::Handle::current()));
        let health = Health::start(
            HealthSettings {
                service: settings.service.clone(),
                version: VERSION.to_owned(),
                rust_version: env!("KNM_RUST_VERSION").to_owned(),
            },
            Arc::clone(&storage.admin),
            Arc::clone(&clock),
            stats,
            Arc::clone(&inventory),
            background.clone(),
        );
        let ids: Arc<dyn IdSource> = Arc::new(TimeOrderedIds::default());
        let changes = NodeChanges::new(
            Arc::clone(&inventory),
            Arc::clone(&storage.audit),
            Arc::clone(&storage.holds),
            Arc::clone(&clock),
            Arc::clone(&ids),
        );
        let operations = Operations::new(
            Arc::clone(&inventory),
            Arc::clone(&storage.operations),
            &*storage.wakes,
            Arc::clone(&clock),
            Arc::clone(&ids),
            settings.operations.poll_interval,
        );
        let registry = registration::registry(settings, vault, &inventory, &storage, &operations, (&clock, &ids));
        let templates = Templates::new(
            Arc::clone(&inventory),
            Arc::clone(&storage.definitions),
            Arc::clone(&clock),
        );
        let tokens = access::tokens(&storage, &clock);
        let sign_in = access::sign_in(&settings.sign_in, &tokens, &inventory, &clock, own_cluster(&registered)).await?;
        let self_check = SelfCheck {
            inventory: Arc::clone(&inventory),
            home: sign_in.home().cloned(),
        };
        tokio::spawn(self_check.keep(background.clone()));
        let idempotency = Arc::new(Idempotency::new(Arc::clone(&storage.keys), Arc::clone(&clock)));
        self.announce(&ports, tls.is_some());
        let stop = CancellationToken::new();
        let app = App {
            inventory: Arc::clone(&inventory),
            registry: Arc::clone(&registry),
            changes: Arc::clone(&changes),
            operations: Arc::clone(&operations),
            templates: Arc::clone(&templates),
            idempotency: Arc::clone(&idempotency),
            audit: Arc::new(Audit::new(Arc::clone(&storage.audit), Arc::clone(&inventory))),
            sign_in: Arc::clone(&sign_in),
            tokens: Arc::clone(&tokens),
            health: Arc::clone(&health),
            exposition: Arc::new(exposition.clone()),
            settings: app_settings(settings),
        };
        let mut servers = ports.serve(
            app,
            tls.clone(),
            &limits(settings, open_files::connections(settings.server.max_connections)),
            &stop,
            settings.server.shutdown_timeout,
        );

        tokio::spawn(fold(exposition, Arc::clone(&inventory), background.clone()));
        tokio::spawn(reload::at_each_hangup(
            hangups()?,
            self.logs.clone(),
            self.arguments.file.config.clone(),
            background.clone(),
        ));

        if let Some(tls) = tls {
            tokio::spawn(reload::certificate(tls, hangups()?, background.clone()));
        }

        let shutdown = Shutdown {
            health: &health,
            stop: &stop,
            background: &background,
            storage: &storage,
            patience: settings.server.shutdown_timeout,
            logs: &self.logs,
            traces: self.traces.as_ref(),
            demo_folder: self.demo_folder.as_deref(),
        };
        let prepared = async {
            match settings.database.auto_migrate {
                true => migrate(&storage).await?,
                false => wait_for_migrations(&storage).await?,
            }
            point_out_a_later_schema(&storage).await;
            register(&storage, &clock, &inventory, &registered).await;
            // Before operations are worked on: they may be on nodes of these clusters.
            registry.follow_once().await;
            access::prepare(&settings.sign_in, &tokens, clock.now()).await?;
            Ok::<(), Failure>(())
        };
        tokio::select! {
            prepared = prepared => {
                if let Err(failure) = prepared {
                    stop.cancel();
                    background.cancel();
                    storage.admin.close().await;
                    return Err(failure);
                }
            }
            ending = endings.next() => {
                shutdown.run(ending, endings, servers, None).await;
                return Ok(());
            }
        }
        // Who works before the schema is there would take leases from replicas that can do the work.
        tokio::spawn(Arc::clone(&changes).keep_holds(
            Arc::clone(&storage.leases),
            replica(&clock),
            settings.operations.lease,
            background.clone(),
        ));
        tokio::spawn(idempotency.sweep(background.clone()));
        tokio::spawn(Arc::clone(&registry).follow(background.clone()));
        let expiry = registration::expiry_watch(configured, &inventory, &clock);
        tokio::spawn(expiry.keep(background.clone()));
        let reconciler = TemplateReconciler {
            templates,
            operations: Arc::clone(&operations),
            leases: Arc::clone(&storage.leases),
            clock: Arc::clone(&clock),
            owner: replica(&clock),
        };
        tokio::spawn(reconciler.keep(background.clone()));
        tokio::spawn(ConnectionWatch::new(Arc::clone(&storage.admin)).keep(background.clone()));
        let runner = OperationRunner::new(
            operations,
            Arc::clone(&changes),
            Arc::clone(&storage.work),
            self.runner_settings(&clock, &registered, sign_in),
        );
        let working = tokio::spawn(runner.run(stop.clone()));
        let keeper = self.audit_keeper(&storage, &clock);
        tokio::spawn(keeper.keep(background.clone()));
        if let Some(keeper) = self.operation_keeper(&storage, &clock) {
            tokio::spawn(keeper.keep(background.clone()));
        }
        tokio::select! {
            ending = endings.next() => {
                shutdown.run(ending, endings, servers, Some(working)).await;
                Ok(())
            }
            stopped = &mut servers.main => {
                background.cancel();
                storage.admin.close().await;
                let why = stopped.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string());
                Err(Failure::System { what: "the server stopped by itself", source: std::io::Error::other(why) })
            }
        }
    }

    async fn open_tls(&self, clock: &Arc<dyn Clock>) -> Result<Option<Arc<Tls>>, Failure> {
        let Some(files) = self.settings.server.tls.clone() else {
            return Ok(None);
        };
        Ok(Some(Arc::new(Tls::open(files, Arc::clone(clock)).await?)))
    }

    /// The clusters of the configuration, or the one that can be found.
    fn configured_clusters(&self) -> Result<Vec<ClusterSetting>, Failure> {
        if let Some(configured) = &self.settings.clusters {
            return Ok(configured.clone());
        }
        let found = clusters::find(self.environment)?;
        match &found.cluster {
            Some(cluster) => tracing::info!(cluster = %cluster.name, found = found.how, "cluster found"),
            None => tracing::warn!(
                why = found.how,
                "no clusters: the node API answers with an empty list of clusters until some are registered"
            ),
        }
        Ok(found.cluster.into_iter().collect())
    }

    async fn open_clusters(
        &self,
        configured: &[ClusterSetting],
        clock: &Arc<dyn Clock>,
    ) -> Result<Vec<ClusterHandle>, Failure> {
        let mut handles = Vec::with_capacity(configured.len());
        for cluster in configured {
            handles.push(clusters::open(cluster, &self.settings.kubernetes, clock).await?);
        }
        Ok(handles)
    }

    fn runner_settings(
        &self,
        clock: &Arc<dyn Clock>,
        clusters: &[(ClusterName, knm_model::ClusterSource)],
        sign_in: Arc<SignIn>,
    ) -> RunnerSettings {
        let settings = &self.settings.operations;
        let own_pod = settings.own_pod.clone().and_then(|name| {
            let cluster = own_cluster(clusters).cloned();
            if cluster.is_none() {
                tracing::warn!(
                    pod = name.name,
                    "none of the clusters has the source in-cluster: a drain of the node of the own pod does not evict it last"
                );
            }
            cluster.map(|cluster| OwnPod { cluster, name })
        });
        RunnerSettings {
            owner: replica(clock),
            lease: settings.lease,
            max_concurrent_evictions: settings.max_concurrent_evictions,
            own_pod,
            sign_in,
        }
    }

    fn audit_keeper(&self, storage: &Storage, clock: &Arc<dyn Clock>) -> AuditKeeper {
        AuditKeeper {
            log: Arc::clone(&storage.audit),
            leases: Arc::clone(&storage.leases),
            clock: Arc::clone(clock),
            owner: replica(clock),
            retention: self.settings.audit_retention,
        }
    }

    fn operation_keeper(&self, storage: &Storage, clock: &Arc<dyn Clock>) -> Option<OperationKeeper> {
        let retention = self.settings.operations.retention?;
        Some(OperationKeeper {
            operations: Arc::clone(&storage.operations),
            leases: Arc::clone(&storage.leases),
            clock: Arc::clone(clock),
            owner: replica(clock),
            retention,
        })
    }

    fn announce(&self, ports: &Ports, has_tls: bool) {
        ports.announce(if self.settings.server.debug { "debug" } else { "release" });
        if self.arguments.demo {
            // Not in the log: whoever tries the demo sees it at every level. Without a stdout nobody wants to know.
            let base = format!("{}://{}", if has_tls { "https" } else { "http" }, ports.main());
            let nodes = format!("{base}/api/v1/clusters/demo/nodes");
            let _ = crate::print(&format!("docs: {base}/docs\ntry:  curl -s {nodes}\n"));
        }
    }
}

/// The cluster that the own pod runs in: the one whose access comes with the pod, or the only one that there is.
fn own_cluster(clusters: &[(ClusterName, knm_model::ClusterSource)]) -> Option<&ClusterName> {
    let mut own = clusters
        .iter()
        .filter(|(_, source)| *source == knm_model::ClusterSource::InCluster);
    match (own.next(), clusters) {
        (Some((name, _)), _) => Some(name),
        (None, [(name, _)]) => Some(name),
        (None, _) => None,
    }
}

async fn migrate(storage: &Storage) -> Result<(), Failure> {
    let applied = storage.admin.migrate().await.map_err(Failure::Migration)?;
    tracing::info!(applied, "migrations applied");
    Ok(())
}

/// Somebody must apply them: until then the service is not ready, and nothing is done on a schema that lacks something. That they cannot be
/// counted now is told by the health check.
///
/// # Errors
/// [`Failure::Migration`] if no migration will make it the schema of this version.
async fn wait_for_migrations(storage: &Storage) -> Result<(), Failure> {
    let mut is_told = false;
    loop {
        match storage.admin.schema().await {
            Ok(schema) if schema.pending == 0 => return Ok(()),
            Ok(schema) if !is_told => {
                tracing::warn!(
                    pending = schema.pending,
                    "migrations are not applied and database.auto_migrate is false: not ready until `kube-node-manager migrate` was run"
                );
                is_told = true;
            }
            Err(error @ StorageError::Corrupt { .. }) => return Err(Failure::Migration(error)),
            Ok(_) | Err(_) => {}
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// A later version runs beside this one, or did: during a rolling update, or before a rollback.
async fn point_out_a_later_schema(storage: &Storage) {
    if let Ok(schema) = storage.admin.schema().await
        && 0 < schema.later
    {
        tracing::info!(
            migration = schema.applied,
            later = schema.later,
            "the schema is that of a later version, which only added to what this version knows"
        );
    }
}

/// Records which clusters are configured. The service works without that, so a problem is a line in the log.
async fn register(
    storage: &Storage,
    clock: &Arc<dyn Clock>,
    inventory: &Inventory,
    clusters: &[(ClusterName, knm_model::ClusterSource)],
) {
    let registrations = Registrations::new(Arc::clone(&storage.clusters), Arc::clone(clock));
    match registrations.record(clusters).await {
        Ok(recorded) => inventory.registered(&recorded),
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the clusters could not be recorded in the database"
        ),
    }
}

fn log_clusters(handles: &[ClusterHandle]) {
    for handle in handles {
        tracing::info!(cluster = %handle.name, source = handle.source.as_str(), "cluster watched");
    }
}

/// The name of this process among the replicas. Containers on several hosts may have the same name and process id, but hardly started in
/// the same millisecond.
fn replica(clock: &Arc<dyn Clock>) -> String {
    let started = clock.now().unix_millis();
    format!("{}/{}/{started}", knm_system::hostname(), std::process::id())
}

async fn fold(exposition: PrometheusExposition, inventory: Arc<Inventory>, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(FOLD_EVERY);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        exposition.fold(&inventory.names());
    }
}

fn describe_metrics() {
    knm_telemetry::describe_metrics();
    knm_domain::describe_metrics();
    knm_http::describe_metrics();
    storage::describe_metrics();
    clusters::describe_metrics();
}

fn app_settings(settings: &Settings) -> AppSettings {
    let server = &settings.server;
    AppSettings {
        metrics_require_auth: settings.sign_in.metrics_require_auth,
        docs_require_auth: settings.sign_in.docs_require_auth,
        debug_errors: server.debug,
        cors_origins: server.cors_origins.clone(),
        trusted_proxies: server.trusted_proxies.clone(),
        write_timeout: server.write_timeout,
        read_timeout: server.read_timeout,
        max_body_bytes: server.max_body_bytes,
    }
}

fn limits(settings: &Settings, max_connections: usize) -> ServerLimits {
    let (server, limits) = (&settings.server, &settings.limits);
    ServerLimits {
        header_read_timeout: server.header_read_timeout,
        idle_timeout: server.idle_timeout,
        write_timeout: server.write_timeout,
        max_header_bytes: server.max_header_bytes,
        max_url_bytes: server.max_url_bytes,
        max_connections,
        requests_per_second: limits.requests_per_second,
        caller_requests_per_second: limits.caller_requests_per_second,
        expensive_requests: limits.expensive_requests,
        streams_per_caller: limits.streams_per_caller,
    }
}
