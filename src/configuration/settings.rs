//! The configuration as the program uses it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use knm_http::{Network, TlsFiles};
use knm_model::{AccessRules, ObjectName};
use knm_ports::StorageKind;
use knm_telemetry::{LogFormat, LogSettings, TraceSettings};
use secrecy::SecretString;

use super::cluster_list::ClusterSetting;
use super::dsn::{self, Place};
use super::resolve::Resolved;
use super::sign_in::{self, SignInSettings};
use super::traces;
use super::value::Value;
use crate::storage::DatabaseSettings;

/// The whole configuration.
#[derive(Debug)]
pub struct Settings {
    /// The service's name.
    pub service: String,
    /// The name of this instance, if it is not the host's.
    pub instance_id: Option<String>,
    /// The HTTP server.
    pub server: ServerSettings,
    /// How much callers may ask for.
    pub limits: LimitSettings,
    /// The database.
    pub database: DatabaseSettings,
    /// The log.
    pub logging: LogSettings,
    /// Where traces are sent to; `None`: there are none.
    pub traces: Option<TraceSettings>,
    /// How clusters are asked.
    pub kubernetes: KubernetesSettings,
    /// What may be registered while the service runs.
    pub registration: RegistrationSettings,
    /// The file with the keys of stored secrets.
    pub key_file: Option<PathBuf>,
    /// How operations are worked on.
    pub operations: OperationSettings,
    /// How callers sign in.
    pub sign_in: SignInSettings,
    /// How long records of the audit log are kept; `None`: for ever.
    pub audit_retention: Option<Duration>,
    /// The clusters; `None` where the program is to find them.
    pub clusters: Option<Vec<ClusterSetting>>,
}

/// The HTTP server.
#[derive(Debug)]
pub struct ServerSettings {
    pub host: String,
    pub port: u16,
    /// Where health and metrics are, if they have a port of their own.
    pub management_port: Option<u16>,
    pub management_host: String,
    /// Whether errors may tell more.
    pub debug: bool,
    pub read_timeout: Duration,
    pub write_timeout: Duration,
    pub idle_timeout: Duration,
    pub header_read_timeout: Duration,
    pub shutdown_timeout: Duration,
    pub max_body_bytes: usize,
    pub max_header_bytes: usize,
    pub max_url_bytes: usize,
    pub max_connections: usize,
    pub cors_origins: Vec<String>,
    /// Proxies that are believed when they say whom they ask for.
    pub trusted_proxies: Vec<Network>,
    /// The certificate that is served; without it connections are plain.
    pub tls: Option<TlsFiles>,
}

/// How much callers may ask for; 0 is no limit.
#[derive(Debug)]
pub struct LimitSettings {
    pub requests_per_second: u32,
    pub caller_requests_per_second: u32,
    pub expensive_requests: usize,
    pub streams_per_caller: usize,
}

/// How clusters are asked.
#[derive(Clone, Debug)]
pub struct KubernetesSettings {
    pub page_size: u32,
    pub request_timeout: Duration,
    pub max_requests_per_second: u32,
    pub watch_pods: bool,
}

/// What may be registered while the service runs.
#[derive(Clone, Copy, Debug)]
pub struct RegistrationSettings {
    /// How many clusters.
    pub max_clusters: u32,
    /// What their credentials may be.
    pub rules: AccessRules,
}

/// How operations are worked on.
#[derive(Clone, Debug)]
pub struct OperationSettings {
    pub lease: Duration,
    pub max_concurrent_evictions: Option<u32>,
    /// After how long events are looked for without a hint.
    pub poll_interval: Duration,
    /// How long operations are kept after their end; `None`: for ever.
    pub retention: Option<Duration>,
    /// The pod that this process runs in, if it was told.
    pub own_pod: Option<ObjectName>,
}

const SQLITE_FILE: &str = "./data/kube-node-manager.db";

impl From<&Resolved> for Settings {
    fn from(resolved: &Resolved) -> Self {
        let read = Reader(resolved);
        Self {
            service: read.text("service.name"),
            instance_id: read.optional("service.instance_id"),
            server: ServerSettings {
                host: read.text("server.host"),
                port: read.number("server.port"),
                management_port: read.optional_number("server.management_port"),
                management_host: read
                    .optional("server.management_host")
                    .unwrap_or_else(|| read.text("server.host")),
                debug: read.text("server.mode") == "debug",
                read_timeout: read.seconds("server.read_timeout"),
                write_timeout: read.seconds("server.write_timeout"),
                idle_timeout: read.seconds("server.idle_timeout"),
                header_read_timeout: read.seconds("server.header_read_timeout"),
                shutdown_timeout: read.seconds("server.shutdown_timeout"),
                max_body_bytes: read.number("server.max_body_bytes"),
                max_header_bytes: read.number("server.max_header_bytes"),
                max_url_bytes: read.number("server.max_url_bytes"),
                max_connections: read.number("server.max_connections"),
                cors_origins: read.texts("server.cors_origins"),
                trusted_proxies: read.networks("server.trusted_proxies"),
                tls: tls(&read),
            },
            limits: LimitSettings {
                requests_per_second: read.number("limits.requests_per_second"),
                caller_requests_per_second: read.number("limits.caller_requests_per_second"),
                expensive_requests: read.number("limits.expensive_requests"),
                streams_per_caller: read.number("limits.streams_per_caller"),
            },
            database: database(&read),
            logging: LogSettings {
                format: log_format(&read),
                level: read.text("logging.level"),
            },
            // What is wrong with it was told when it was loaded.
            traces: traces::read(resolved, &mut Vec::new()),
            kubernetes: KubernetesSettings {
                page_size: read.number("kubernetes.page_size"),
                request_timeout: read.seconds("kubernetes.request_timeout"),
                max_requests_per_second: read.number("kubernetes.max_requests_per_second"),
                watch_pods: read.flag("kubernetes.watch_pods"),
            },
            registration: RegistrationSettings {
                max_clusters: read.number("registration.max_clusters"),
                rules: AccessRules {
                    allow_loopback: read.flag("registration.allow_loopback"),
                    allow_insecure_tls: read.flag("registration.allow_insecure_tls"),
                },
            },
            key_file: read.optional("secrets.key_file").map(PathBuf::from),
            operations: operations(&read),
            // What is wrong with it was told when it was loaded.
            sign_in: sign_in::read(resolved, &mut Vec::new()),
            audit_retention: retention(&read, "audit.retention_days"),
            clusters: resolved.clusters.as_ref().map(|(clusters, _)| clusters.clone()),
        }
    }
}

fn tls(read: &Reader<'_>) -> Option<TlsFiles> {
    Some(TlsFiles {
        cert_file: read.optional("server.tls.cert_file")?.into(),
        key_file: read.optional("server.tls.key_file")?.into(),
    })
}

fn operations(read: &Reader<'_>) -> OperationSettings {
    let most: u32 = read.number("operations.max_concurrent_evictions");
    let pod = read
        .optional("operations.pod_namespace")
        .zip(read.optional("operations.pod_name"));
    OperationSettings {
        lease: read.seconds("operations.lease"),
        max_concurrent_evictions: (0 < most).then_some(most),
        poll_interval: read.seconds("operations.poll_interval"),
        retention: retention(read, "operations.retention_days"),
        own_pod: pod.map(|(namespace, name)| ObjectName { namespace, name }),
    }
}

/// So many days; 0 is for ever.
fn retention(read: &Reader<'_>, path: &str) -> Option<Duration> {
    const DAY: Duration = Duration::from_secs(86_400);
    let days: u32 = read.number(path);
    (0 < days).then(|| DAY * days)
}

fn log_format(read: &Reader<'_>) -> LogFormat {
    match LogFormat::parse(&read.text("logging.format")) {
        Some(LogFormat::Text) | None if read.flag("logging.structured") => LogFormat::Json,
        Some(format) => format,
        None => LogFormat::Text,
    }
}

fn database(read: &Reader<'_>) -> DatabaseSettings {
    let kind = match read.text("database.type").as_str() {
        "postgres" => StorageKind::Postgres,
        "memory" => StorageKind::Memory,
        _ => StorageKind::Sqlite,
    };
    let dsn = read.optional("database.dsn");
    let place = dsn.as_deref().and_then(|dsn| dsn::parse(dsn).ok());
    let path = match &place {
        Some(Place::Sqlite(path)) => path.clone(),
        _ => PathBuf::from(SQLITE_FILE),
    };
    let url = match &place {
        Some(Place::Postgres(url)) => Some(url.clone()),
        _ => None,
    };
    let (host, port, name) = (
        read.text("database.host"),
        read.number("database.port"),
        read.text("database.database"),
    );
    let place = match (kind, &url) {
        (StorageKind::Memory, _) => "memory".to_owned(),
        (StorageKind::Sqlite, _) => shown_path(&path),
        (StorageKind::Postgres, Some(url)) => dsn::masked(url),
        (StorageKind::Postgres, None) => format!("{host}:{port}/{name}"),
    };
    let migration_timeout = read.seconds("database.migration_timeout");
    DatabaseSettings {
        kind,
        path,
        url: url.map(SecretString::from),
        host,
        port,
        database: name,
        username: read.text("database.username"),
        password: SecretString::from(read.text("database.password")),
        ssl_mode: read.text("database.ssl_mode"),
        ssl_root_cert: read.optional("database.ssl_root_cert").map(PathBuf::from),
        max_open_conns: read.number("database.max_open_conns"),
        max_idle_conns: read.number("database.max_idle_conns"),
        max_lifetime: read.seconds("database.max_lifetime"),
        acquire_timeout: read.seconds("database.acquire_timeout"),
        leak_threshold: read.seconds("database.leak_threshold"),
        auto_migrate: read.flag("database.auto_migrate"),
        migration_timeout: (!migration_timeout.is_zero()).then_some(migration_timeout),
        place,
        instance: None,
    }
}

fn shown_path(path: &Path) -> String {
    path.display().to_string()
}

/// Reads values that the schema has checked: what does not fit cannot be there.
pub(super) struct Reader<'a>(pub(super) &'a Resolved);

impl Reader<'_> {
    pub(super) fn optional(&self, path: &str) -> Option<String> {
        match self.0.get(path).0 {
            Value::Text(text) if !text.is_empty() => Some(text.clone()),
            _ => None,
        }
    }

    pub(super) fn text(&self, path: &str) -> String {
        self.optional(path).unwrap_or_default()
    }

    pub(super) fn texts(&self, path: &str) -> Vec<String> {
        match self.0.get(path).0 {
            Value::Texts(texts) => texts.clone(),
            _ => Vec::new(),
        }
    }

    fn networks(&self, path: &str) -> Vec<Network> {
        self.texts(path).iter().filter_map(|text| text.parse().ok()).collect()
    }

    pub(super) fn flag(&self, path: &str) -> bool {
        matches!(self.0.get(path).0, Value::Flag(true))
    }

    fn optional_number<T: TryFrom<i64>>(&self, path: &str) -> Option<T> {
        match self.0.get(path).0 {
            Value::Number(number) => T::try_from(*number).ok(),
            _ => None,
        }
    }

    pub(super) fn number<T: TryFrom<i64> + Default>(&self, path: &str) -> T {
        self.optional_number(path).unwrap_or_default()
    }

    fn seconds(&self, path: &str) -> Duration {
        Duration::from_secs(self.number(path))
    }
}
