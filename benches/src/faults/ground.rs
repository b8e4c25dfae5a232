//! The service, with a proxy before each of the servers that it needs.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use http::Method;
use knm_test_support::api_server::ApiServer;
use knm_test_support::cluster::node;
use knm_test_support::postgres::PostgresServer;
use knm_test_support::proxy::Proxy;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{Side, troubles};
use crate::Failure;
use crate::caller::{Caller, Question, Reply, metric};
use crate::process::{Process, free_port};
use crate::procfs::open_files;
use crate::service;

/// The path of the cluster in the service; its name is that of the context in the kubeconfig.
pub(super) const CLUSTER: &str = "/api/v1/clusters/test";
/// Longer than any deadline of the service: what takes longer hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(45);
/// How many nodes an operation is under way on.
pub(super) const WORKED_ON: usize = 20;

pub(super) struct Ground {
    pub(super) process: Process,
    server: ApiServer,
    database: PostgresServer,
    database_name: String,
    to_database: Proxy,
    to_cluster: Proxy,
    _folder: TempDir,
}

/// What is open at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) files: usize,
    /// Connections to PostgreSQL, as that counts them.
    pub(super) database: usize,
    /// Connections to the API server, as the proxy counts them.
    pub(super) cluster: usize,
    /// Connections that the pool has lent.
    pub(super) lent: f64,
}

impl Ground {
    pub(super) async fn prepare(binary: &Path) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("knm-bench-").tempdir()?;
        let database = PostgresServer::start().ok_or("there is no PostgreSQL on this machine")?;
        let server = ApiServer::start()
            .await
            .ok_or("there is no API server on this machine")?;
        // One for each trouble, which gets the labels, and those that operations work on.
        let names = (0..troubles().len()).map(|number| format!("written-{number}"));
        let names = names.chain((0..WORKED_ON).map(|number| format!("worked-on-{number}")));
        for name in names {
            let node = node(&name, &json!({}));
            let (status, answer) = server.request(Method::POST, "/api/v1/nodes", Some(&node)).await;
            if status != 201 {
                return Err(format!("the API server answered {status} for a node: {answer}").into());
            }
        }
        let database_name = database.create_database();
        let (to_database, to_cluster) = (Proxy::start(database.port()), Proxy::start(server.port()));
        let url = database.url(&database_name);
        let url = url.replace(&format!(":{}/", database.port()), &format!(":{}/", to_database.port()));
        let port = free_port()?;
        let mut command = service::serve(Command::new(binary), folder.path(), port);
        command
            .env("DATABASE_URL", url)
            .env("KUBECONFIG", server.kubeconfig_through(to_cluster.port()));
        let (process, _) = Process::start(command, port, "/health/ready", &folder.path().join("log")).await?;
        let ground = Self {
            process,
            server,
            database,
            database_name,
            to_database,
            to_cluster,
            _folder: folder,
        };
        ground.wait_until_well().await?;
        Ok(ground)
    }

    pub(super) fn caller(&self) -> Caller {
        Caller::new(self.process.port, None, PATIENCE)
    }

    pub(super) fn proxy(&self, side: Side) -> &Proxy {
        match side {
            Side::Database => &self.to_database,
            Side::Cluster => &self.to_cluster,
        }
    }

    /// How long it takes from now until everything is as it should be.
    pub(super) async fn wait_until_well(&self) -> Result<Duration, Failure> {
        let start = Instant::now();
        let mut caller = self.caller();
        loop {
            let ready = caller.ask(&Question::get("/health/ready")).await;
            let cluster = caller.ask(&Question::get(CLUSTER)).await.and_then(|reply| reply.json());
            if ready.is_ok_and(|reply| reply.status == 200)
                && cluster.is_ok_and(|cluster| cluster["state"] == "healthy")
            {
                return Ok(start.elapsed());
            }
            if Duration::from_secs(120) < start.elapsed() {
                return Err("the service was not well again after 120 s".into());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) async fn open(&self) -> Result<Open, Failure> {
        let metrics = self.caller().ask(&Question::get("/metrics")).await?.text();
        let count =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        Ok(Open {
            files: open_files(self.process.id)?,
            database: self.database.run(&self.database_name, count).parse()?,
            cluster: self.to_cluster.open(),
            lent: metric(&metrics, "kube_node_manager_database_connections{state=\"in_use\"}").unwrap_or(f64::NAN),
        })
    }

    /// The labels that a node has in the cluster, whatever the service thinks.
    pub(super) async fn labels(&self, node: &str) -> Value {
        let (_, answer) = self
            .server
            .request(Method::GET, &format!("/api/v1/nodes/{node}"), None)
            .await;
        answer["metadata"]["labels"].clone()
    }

    /// All records of a node.
    pub(super) async fn records(&self, node: &str) -> Result<Vec<Value>, Failure> {
        let mut caller = self.caller();
        let mut records = Vec::new();
        let mut cursor = String::new();
        loop {
            let question = Question::get(format!("{CLUSTER}/nodes/{node}/history?limit=100{cursor}"));
            let page = expected(caller.ask(&question).await?, 200)?;
            records.extend(page["items"].as_array().cloned().unwrap_or_default());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(records),
            }
        }
    }

    /// Begins an operation that takes a second for each node; its id.
    pub(super) async fn begin(&self, number: usize) -> Result<String, Failure> {
        let nodes: Vec<String> = (0..WORKED_ON).map(|number| format!("worked-on-{number}")).collect();
        let body = json!({"kind": "label", "targets": {"nodes": nodes}, "reason": "measuring",
            "options": {"set": {"trouble": format!("number-{number}")}},
            "strategy": {"max_concurrent": 1, "pause_between_seconds": 1, "max_failures": "100%"}});
        let question = Question::of(Method::POST, format!("{CLUSTER}/operations"), Some(body));
        let accepted = expected(self.caller().ask(&question).await?, 202)?;
        Ok(accepted["id"].as_str().unwrap_or_default().to_owned())
    }

    pub(super) async fn end(self) -> Result<(), Failure> {
        self.process.end().await
    }
}

pub(super) fn expected(reply: Reply, status: u16) -> Result<Value, Failure> {
    if reply.status != status {
        return Err(format!("{} where {status} was expected: {}", reply.status, reply.text()).into());
    }
    reply.json()
}
