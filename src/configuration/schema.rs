//! Every key of the configuration.

/// One key.
#[derive(Debug)]
pub struct Key {
    /// `section.key`, or `section.group.key`.
    pub path: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// Its value when nobody says anything.
    pub default: Preset,
    /// What it means, for the example file.
    pub meaning: &'static str,
    /// The variables that set it, the strongest first. A key without any is set by `KNM__SECTION__KEY`.
    pub variables: &'static [&'static str],
}

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number within these bounds.
    Number { least: i64, most: i64 },
    /// `true` or `false`.
    Flag,
    /// Any text.
    Text,
    /// A text that is never shown.
    Secret,
    /// A connection string: its password is never shown.
    Dsn,
    /// One of these words.
    Word(&'static [&'static str]),
    /// One of these words, or several separated by commas.
    Words(&'static [&'static str]),
    /// A level or filter of the log.
    Level,
    /// A list of texts.
    Texts,
    /// A list of addresses and networks.
    Networks,
}

/// A default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// A number.
    Number(i64),
    /// A switch.
    Flag(bool),
    /// A text.
    Text(&'static str),
    /// An empty list.
    NoTexts,
    /// Nothing: the program finds out by itself.
    Nothing,
}

/// A section of the first version that means nothing today.
#[derive(Debug)]
pub struct Retired {
    /// Its name; variables that begin with it in capitals and `_` are gone with it.
    pub section: &'static str,
    /// Why it is gone, and what takes its place.
    pub instead: &'static str,
}

/// All of them.
pub const RETIRED: [Retired; 4] = [
    Retired {
        section: "jwt",
        instead: "no shared secret signs sessions any more: callers send API tokens (`token create`), tokens of a cluster or of an OpenID provider, see auth.mode",
    },
    Retired {
        section: "ldap",
        instead: "there are no passwords here: an OpenID provider in front of the directory signs people in, see auth.oidc_issuer and auth.oidc_rules",
    },
    Retired {
        section: "progress",
        instead: "progress needs no setting: what takes long is an operation in the database, and GET /api/v1/operations/{id}/events streams it from any replica",
    },
    Retired {
        section: "monitoring",
        instead: "monitoring needs no setting: /metrics and /health always answer; server.management_port moves them to a port of their own, metrics.require_auth asks for a caller",
    },
];

/// The one key that is no single value.
pub const CLUSTERS: &str = "clusters";

/// Variables that override the whole connection.
pub const DATABASE_URL: [&str; 2] = ["DATABASE_URL", "DATABASE_DSN"];

const DAY: i64 = 86_400;
const fn number(least: i64, most: i64) -> Kind {
    Kind::Number { least, most }
}

const fn key(
    path: &'static str,
    kind: Kind,
    default: Preset,
    meaning: &'static str,
    variables: &'static [&'static str],
) -> Key {
    Key {
        path,
        kind,
        default,
        meaning,
        variables,
    }
}

/// All of them, in the order of the example file.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("service.name", Kind::Text, Preset::Text("kube-node-manager"), "the name in logs and health answers", &["SERVICE_NAME"]),
    key("service.instance_id", Kind::Text, Preset::Nothing, "the name of this instance in logs; without it the host's name", &["INSTANCE_ID"]),
    key("server.host", Kind::Text, Preset::Text("0.0.0.0"), "address to listen on", &[]),
    key("server.port", number(0, 65_535), Preset::Number(8080), "port to listen on; 0 takes a free one", &["PORT"]),
    key("server.management_port", number(0, 65_535), Preset::Nothing, "a port for health and metrics, without TLS, which are then nowhere else; 0 takes a free one", &[]),
    key("server.management_host", Kind::Text, Preset::Nothing, "address to listen on there; without it that of server.host", &[]),
    key("server.mode", Kind::Word(&["debug", "release"]), Preset::Text("release"), "debug may tell more in errors", &["SERVER_MODE"]),
    key("server.read_timeout", number(1, DAY), Preset::Number(30), "seconds to receive a whole request", &[]),
    key("server.write_timeout", number(1, DAY), Preset::Number(30), "seconds to produce a response, streams excepted", &[]),
    key("server.idle_timeout", number(1, DAY), Preset::Number(120), "seconds an idle keep-alive connection is kept", &[]),
    key("server.header_read_timeout", number(1, DAY), Preset::Number(10), "seconds to receive the head of a request", &[]),
    key("server.shutdown_timeout", number(0, DAY), Preset::Number(30), "seconds that requests in flight may take at the end", &[]),
    key("server.max_body_bytes", number(1, 1 << 30), Preset::Number(1 << 20), "largest body of a request, in bytes", &[]),
    key("server.max_header_bytes", number(8_192, 1 << 20), Preset::Number(32_768), "largest head of a request, in bytes", &[]),
    key("server.max_url_bytes", number(256, 1 << 16), Preset::Number(8_192), "longest path with query, in bytes", &[]),
    key("server.max_connections", number(1, 1_000_000), Preset::Number(10_000), "most connections at once; the most silent ones make room for others", &[]),
    key("server.cors_origins", Kind::Texts, Preset::NoTexts, "origins whose pages may call this service; empty switches CORS off", &[]),
    key("server.trusted_proxies", Kind::Networks, Preset::NoTexts, "addresses and networks of the proxies whose X-Forwarded-For is believed", &[]),
    key("server.tls.cert_file", Kind::Text, Preset::Nothing, "a file with the certificate to serve TLS with and those that lead to a trusted one, as PEM", &[]),
    key("server.tls.key_file", Kind::Text, Preset::Nothing, "the file with its key; both files are read again when they change", &[]),
    key("limits.requests_per_second", number(0, 1_000_000), Preset::Number(5_000), "most requests a second of all callers together, health and metrics excepted; 0 is no limit", &[]),
    key("limits.caller_requests_per_second", number(0, 1_000_000), Preset::Number(500), "most requests a second of one caller, twice as many at once; 0 is no limit", &[]),
    key("limits.expensive_requests", number(0, 100_000), Preset::Number(16), "most plans, previews, comparisons and exports at once, half of them for one caller; 0 is no limit", &[]),
    key("limits.streams_per_caller", number(0, 100_000), Preset::Number(32), "most event streams of one caller; 0 is no limit", &[]),
    key("database.type", Kind::Word(&["sqlite", "postgres", "postgresql", "memory"]), Preset::Text("sqlite"), "sqlite, postgres or memory", &["DATABASE_TYPE", "DB_TYPE"]),
    key("database.host", Kind::Text, Preset::Text("localhost"), "PostgreSQL: its address", &["DB_HOST", "DATABASE_HOST"]),
    key("database.port", number(1, 65_535), Preset::Number(5432), "PostgreSQL: its port", &["DB_PORT", "DATABASE_PORT"]),
    key("database.database", Kind::Text, Preset::Text("kube_node_manager"), "PostgreSQL: the database", &["DB_NAME", "DB_DATABASE", "DATABASE_NAME", "DATABASE_DATABASE"]),
    key("database.username", Kind::Text, Preset::Text("postgres"), "PostgreSQL: who we are", &["DB_USER", "DB_USERNAME", "DATABASE_USER", "DATABASE_USERNAME"]),
    key("database.password", Kind::Secret, Preset::Text(""), "PostgreSQL: how we prove it; better in DB_PASSWORD than in a file", &["DB_PASSWORD", "DATABASE_PASSWORD"]),
    key("database.ssl_mode", Kind::Word(&["disable", "prefer", "require", "verify-ca", "verify-full"]), Preset::Text("disable"), "PostgreSQL: disable, prefer, require, verify-ca or verify-full", &["DB_SSL_MODE", "DATABASE_SSL_MODE", "DB_SSLMODE", "DATABASE_SSLMODE"]),
    key("database.ssl_root_cert", Kind::Text, Preset::Nothing, "PostgreSQL: a file with certificates to trust besides the public ones", &[]),
    key("database.dsn", Kind::Dsn, Preset::Nothing, "whole connection string, replaces the keys above; SQLite: its file, ./data/kube-node-manager.db without it", &[]),
    key("database.max_open_conns", number(1, 10_000), Preset::Number(25), "most connections; SQLite always has 1", &[]),
    key("database.max_idle_conns", number(0, 10_000), Preset::Number(10), "most idle connections kept; SQLite always has 1", &[]),
    key("database.max_lifetime", number(0, 30 * DAY), Preset::Number(3600), "seconds a connection lives at most; 0 is no limit", &[]),
    key("database.acquire_timeout", number(1, 300), Preset::Number(2), "seconds to wait for a connection", &[]),
    key("database.leak_threshold", number(1, DAY), Preset::Number(30), "seconds after which a held connection counts as a leak", &[]),
    key("database.auto_migrate", Kind::Flag, Preset::Flag(true), "run pending migrations at start", &[]),
    key("database.migration_timeout", number(0, DAY), Preset::Number(300), "seconds they may take; 0 is no limit", &[]),
    key("logging.format", Kind::Word(&["text", "json", "bunyan"]), Preset::Text("text"), "text, json or bunyan", &["LOG_FORMAT"]),
    key("logging.level", Kind::Level, Preset::Text("info"), "debug, info, warn, error or a filter such as info,knm_http=debug", &["LOG_LEVEL"]),
    key("logging.structured", Kind::Flag, Preset::Flag(false), "true with the format text means json", &[]),
    key("traces.otlp_endpoint", Kind::Text, Preset::Nothing, "where traces are sent to by OTLP over HTTP, such as http://127.0.0.1:4318; without it there are none", &[]),
    key("traces.sample_percent", number(0, 100), Preset::Number(100), "of how many requests and operations in a hundred traces are kept", &[]),
    key("traces.headers_file", Kind::Text, Preset::Nothing, "a file with a header in each line that the collector wants to see, such as one with a token", &[]),
    key("traces.ca_file", Kind::Text, Preset::Nothing, "a file with certificates to trust besides the public ones", &[]),
    key("kubernetes.page_size", number(1, 10_000), Preset::Number(500), "nodes or pods per page of a list", &[]),
    key("kubernetes.request_timeout", number(1, 600), Preset::Number(10), "seconds a call to a cluster may take", &[]),
    key("kubernetes.max_requests_per_second", number(0, 100_000), Preset::Number(500), "most requests a second to each API server; 0 is no limit", &[]),
    key("kubernetes.watch_pods", Kind::Flag, Preset::Flag(true), "keep the pods on nodes in memory: nodes tell what theirs ask for, plans of drains estimate the fit", &[]),
    key("registration.max_clusters", number(0, 10_000), Preset::Number(100), "most clusters that may be registered while the service runs", &[]),
    key("registration.allow_loopback", Kind::Flag, Preset::Flag(false), "whether a registered cluster may be at an address of this machine itself", &[]),
    key("registration.allow_insecure_tls", Kind::Flag, Preset::Flag(false), "whether the certificate of a registered cluster may go unchecked", &[]),
    key("secrets.key_file", Kind::Text, Preset::Nothing, "a file with the keys that credentials of registered clusters are stored with; without it none can be registered", &[]),
    key("operations.lease", number(3, 3_600), Preset::Number(10), "seconds without a sign of life after which another replica goes on with an operation", &[]),
    key("operations.max_concurrent_evictions", number(0, 100_000), Preset::Number(0), "most pods of a cluster that may be on their way out at once, for each replica; 0 is no limit", &[]),
    key("operations.poll_interval", number(1, 3_600), Preset::Number(1), "seconds after which whoever follows an operation looks for events though nobody told of any", &[]),
    key("operations.retention_days", number(0, 36_500), Preset::Number(90), "days that operations are kept after their end; 0 keeps them for ever", &[]),
    key("operations.pod_namespace", Kind::Text, Preset::Nothing, "the namespace of the pod that this replica runs in", &["POD_NAMESPACE"]),
    key("operations.pod_name", Kind::Text, Preset::Nothing, "the name of that pod: a drain of its node evicts it last", &["POD_NAME"]),
    key("auth.mode", Kind::Words(&["tokens", "kubernetes", "oidc", "none"]), Preset::Text("tokens"), "how callers sign in: tokens, kubernetes, oidc, or several separated by commas; none: nobody does, on loopback only", &[]),
    key("auth.bootstrap_token_file", Kind::Text, Preset::Nothing, "a file with the first API token, which may do everything: `token generate` prints one", &[]),
    key("auth.kubernetes_cluster", Kind::Text, Preset::Nothing, "the cluster that is asked whose a token is; without it the one of this pod, or the only one", &[]),
    key("auth.kubernetes_audiences", Kind::Texts, Preset::NoTexts, "whom tokens of a cluster must be for; empty: for the API server", &[]),
    key("auth.oidc_issuer", Kind::Text, Preset::Nothing, "URL of the OpenID provider, as in the claim iss", &[]),
    key("auth.oidc_audiences", Kind::Texts, Preset::NoTexts, "whom its tokens must be for: one of these must be in the claim aud", &[]),
    key("auth.oidc_algorithms", Kind::Texts, Preset::NoTexts, "signatures that are accepted; empty: RS256 and ES256", &[]),
    key("auth.oidc_name_claim", Kind::Text, Preset::Text("sub"), "the claim with the name for the audit log and for nodes", &[]),
    key("auth.oidc_ca_file", Kind::Text, Preset::Nothing, "a file with certificates to trust besides the public ones", &[]),
    key("auth.oidc_rules", Kind::Texts, Preset::NoTexts, "what claims allow, one rule each, such as groups=sre -> operator+force", &[]),
    key("metrics.require_auth", Kind::Flag, Preset::Flag(false), "whether /metrics needs a caller", &[]),
    key("docs.require_auth", Kind::Flag, Preset::Flag(false), "whether /docs and the OpenAPI document need a caller", &[]),
    key("audit.retention_days", number(0, 36_500), Preset::Number(0), "days that records of the audit log are kept; 0 keeps them for ever", &[]),
];

impl Key {
    /// The section, the part before the dot.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(section, _)| section)
    }

    /// The part after the last dot.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    /// The part between the dots, for a key in a group of its section.
    #[must_use]
    pub fn group(&self) -> Option<&'static str> {
        let (_, rest) = self.path.split_once('.')?;
        rest.rsplit_once('.').map(|(group, _)| group)
    }

    /// The variable that every key has.
    #[must_use]
    pub fn long_variable(&self) -> String {
        format!("KNM__{}", self.path.replace('.', "__").to_ascii_uppercase())
    }
}

impl Kind {
    /// What is allowed, for an error.
    #[must_use]
    pub fn allowed(self) -> String {
        match self {
            Self::Number { least, most } => format!("a whole number from {least} to {most}"),
            Self::Flag => "true or false".to_owned(),
            Self::Text | Self::Secret => "a text".to_owned(),
            Self::Dsn => {
                "postgres://user:password@host:port/database, sqlite://path or the path of an SQLite file".to_owned()
            }
            Self::Word(words) => words.join(", "),
            Self::Words(words) => format!("one of {}, or several separated by commas,", words.join(", ")),
            Self::Level => "debug, info, warn, error or a filter such as info,knm_http=debug".to_owned(),
            Self::Texts => "a list of texts".to_owned(),
            Self::Networks => "a list of addresses and of networks such as 10.0.0.0/8 or 2001:db8::/32".to_owned(),
        }
    }
}
