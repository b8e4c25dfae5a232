//! The service that is watched, with what it needs.

use std::path::Path;
use std::process::Command;

use knm_test_support::postgres::PostgresServer;
use tempfile::TempDir;

use super::{Database, Plan};
use crate::Failure;
use crate::process::{Process, free_port};
use crate::service;

/// How often a second the simulated fleet changes.
const CHANGES: u32 = 20;

/// A service with a simulated fleet, and who may sign in.
pub(super) struct Ground {
    pub(super) process: Process,
    tokens: Tokens,
    database: Option<(PostgresServer, String)>,
    folder: TempDir,
}

/// What callers sign in with.
#[derive(Clone)]
pub(super) struct Tokens {
    pub(super) admin: String,
    pub(super) operator: String,
    pub(super) viewer: String,
}

impl Ground {
    pub(super) async fn prepare(plan: &Plan) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("knm-bench-").tempdir()?;
        let (url, database) = match plan.database {
            Database::Sqlite => (format!("sqlite://{}", folder.path().join("soak.db").display()), None),
            Database::Postgres => {
                let server = PostgresServer::start().ok_or("there is no PostgreSQL on this machine")?;
                let name = server.create_database();
                (server.url(&name), Some((server, name)))
            }
        };
        let told = |arguments: &[&str]| told(&plan.binary, folder.path(), &url, arguments);
        let keys = folder.path().join("keys");
        std::fs::write(&keys, told(&["secrets", "generate-key"])?)?;
        let token = |role: &str| {
            let made = told(&["token", "create", "--name", role, "--role", role, "--force"])?;
            Ok::<_, Failure>(made.trim().to_owned())
        };
        let tokens = Tokens {
            admin: token("admin")?,
            operator: token("operator")?,
            viewer: token("viewer")?,
        };
        let port = free_port()?;
        let mut command = service::serve(Command::new(&plan.binary), folder.path(), port);
        let nodes = plan.nodes;
        command
            .env("DATABASE_URL", &url)
            .env("KNM__AUTH__MODE", "tokens")
            .env("KNM__SECRETS__KEY_FILE", &keys)
            .env("KNM__REGISTRATION__ALLOW_LOOPBACK", "true")
            .env("LOG_LEVEL", "warn")
            .env(
                "KNM__CLUSTERS",
                format!("[{{name: demo, source: {{demo: {{nodes: {nodes}, changes_per_second: {CHANGES}}}}}}}]"),
            );
        let (process, _) = Process::start(command, port, "/health/ready", &folder.path().join("log")).await?;
        Ok(Self {
            process,
            tokens,
            database,
            folder,
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.process.port
    }

    pub(super) fn tokens(&self) -> Tokens {
        self.tokens.clone()
    }

    /// What is on the disk by now.
    pub(super) fn describe(&self) -> Result<String, Failure> {
        let stored = match &self.database {
            Some((server, name)) => server.run(name, "SELECT pg_size_pretty(pg_database_size(current_database()))"),
            None => {
                let mut bytes = 0;
                for entry in std::fs::read_dir(self.folder.path())? {
                    let entry = entry?;
                    if entry.file_name().to_string_lossy().starts_with("soak.db") {
                        bytes += entry.metadata()?.len();
                    }
                }
                format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
            }
        };
        let log = std::fs::read_to_string(self.folder.path().join("log"))?;
        let complaints: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
        let last = complaints
            .last()
            .map_or(String::new(), |line| format!(", the last: {line}"));
        Ok(format!(
            "database: {stored}; log: {} lines of warnings, {} of errors{last}",
            log.lines().count() - complaints.len(),
            complaints.len()
        ))
    }

    pub(super) async fn end(self) -> Result<(), Failure> {
        self.process.end().await
    }
}

/// What the program prints.
fn told(binary: &Path, folder: &Path, url: &str, arguments: &[&str]) -> Result<String, Failure> {
    let output = service::alone(Command::new(binary), folder)
        .args(arguments)
        .env("DATABASE_URL", url)
        .output()?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} {} failed: {complaint}", binary.display(), arguments.join(" ")).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
