//! How to reach a server.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

/// How to reach a server, and how the pool behaves.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Its name or address; a path that starts with `/` is the folder of a Unix socket.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database there.
    pub database: String,
    /// Who we are.
    pub username: String,
    /// How we prove it; may be empty.
    pub password: SecretString,
    /// Whether the connection is encrypted, and what is checked.
    pub ssl_mode: SslMode,
    /// A file with certificates that are trusted besides the public ones.
    pub ssl_root_cert: Option<PathBuf>,
    /// What the server and its administrator see this process as, if it is one of the replicas.
    pub instance: Option<String>,
    /// Most connections that are open.
    pub max_open_conns: u32,
    /// Most idle connections that are kept.
    pub max_idle_conns: u32,
    /// From when on a connection is replaced; zero: never.
    pub max_lifetime: Duration,
    /// From when on a held connection counts as leaked.
    pub leak_threshold: Duration,
    /// How long to wait for a connection.
    pub acquire_timeout: Duration,
    /// How long all migrations together may take, `None`: as long as they need.
    pub migration_timeout: Option<Duration>,
}

/// Whether a connection is encrypted, and what is checked of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted if the server can; nothing is checked.
    Prefer,
    /// Always encrypted; nothing is checked.
    Require,
    /// Always encrypted, with a certificate from somebody who is trusted.
    VerifyCa,
    /// As [`SslMode::VerifyCa`], and the certificate is for this host.
    VerifyFull,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 5432,
            database: "kube_node_manager".to_owned(),
            username: "postgres".to_owned(),
            password: SecretString::default(),
            ssl_mode: SslMode::Disable,
            ssl_root_cert: None,
            instance: None,
            max_open_conns: 25,
            max_idle_conns: 10,
            max_lifetime: Duration::from_secs(3600),
            leak_threshold: Duration::from_secs(30),
            acquire_timeout: Duration::from_secs(2),
            migration_timeout: Some(Duration::from_secs(300)),
        }
    }
}

impl SslMode {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Disable,
        Self::Prefer,
        Self::Require,
        Self::VerifyCa,
        Self::VerifyFull,
    ];

    /// The word that the configuration and connection strings use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    /// Reads [`SslMode::as_str`] back, `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text)
    }
}
