//! A cluster to measure on, and the service on it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use http::Method;
use knm_test_support::api_server::ApiServer;
use knm_test_support::cluster::node;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Failure;
use crate::client::{Answer, Target, fetch, post};
use crate::process::{Process, free_port};
use crate::service;

/// The path of the cluster in the service; its name is that of the context in the kubeconfig.
const CLUSTER: &str = "/api/v1/clusters/test";
const READY: &str = "/health/ready";
const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/pods";
/// How many requests prepare the cluster at once.
const AT_ONCE: usize = 32;
/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often it is asked whether an operation is over: small against every time that is measured.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// A real API server with nodes and perhaps pods.
pub struct Ground {
    /// The server.
    pub server: ApiServer,
    /// The names of its nodes.
    pub nodes: Vec<String>,
}

/// A request: its method, path and body.
pub type Asked = (Method, String, Option<Value>);

/// The service, watching the cluster.
pub struct Service {
    /// Its process.
    pub process: Process,
    /// How often it asked to be asked again, because its database was busy.
    pub put_off: AtomicUsize,
}

impl Ground {
    /// Starts a server and creates `count` nodes.
    pub async fn with_nodes(count: usize) -> Result<Self, Failure> {
        let server = ApiServer::start()
            .await
            .ok_or("there is no API server to measure on; --only chooses what needs none")?;
        let ground = Self {
            server,
            nodes: (0..count).map(|number| format!("node-{number:04}")).collect(),
        };
        let nodes = ground.nodes.iter().map(|name| node(name, &json!({"bench": "fresh"})));
        let requests = nodes.map(|node| (Method::POST, NODES.to_owned(), Some(node)));
        ground.each(requests.collect()).await?;
        Ok(ground)
    }

    /// Sends requests, many at once; all must be granted.
    pub async fn each(&self, requests: Vec<Asked>) -> Result<(), Failure> {
        futures::stream::iter(requests)
            .map(|(method, path, body)| async move { self.asked(method, &path, body.as_ref()).await.map(drop) })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// What the API server answers; it must grant it.
    pub async fn asked(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let (status, answer) = self.server.request(method.clone(), path, body).await;
        match status {
            200..300 => Ok(answer),
            _ => Err(format!("the API server answered {method} {path} with {status}: {answer}").into()),
        }
    }

    /// Fails unless `holds` for every node: what did not do its work is not measured.
    pub async fn check_nodes(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<(), Failure> {
        let list = self.asked(Method::GET, NODES, None).await?;
        let right = items(&list).filter(|node| holds(node)).count();
        match self.nodes.len() {
            all if all == right => Ok(()),
            all => Err(format!("only {right} of {all} nodes are {what}").into()),
        }
    }

    /// Makes every node schedulable, and takes off it what is left of holds.
    pub async fn uncordon(&self) -> Result<(), Failure> {
        let fresh = json!({"metadata": {"annotations": null}, "spec": {"unschedulable": null}});
        let patch = |name: &String| (Method::PATCH, format!("{NODES}/{name}"), Some(fresh.clone()));
        self.each(self.nodes.iter().map(patch).collect()).await
    }

    /// How many pods there are of which this holds.
    pub async fn pods(&self, holds: impl Fn(&Value) -> bool) -> Result<usize, Failure> {
        let list = self.asked(Method::GET, PODS, None).await?;
        Ok(items(&list).filter(|pod| holds(pod)).count())
    }

    /// Waits until `count` pods run.
    pub async fn wait_for_pods(&self, count: usize) -> Result<(), Failure> {
        let start = Instant::now();
        while self.pods(|pod| pod["status"]["phase"] == "Running").await? != count {
            patient("the pods to run", start)?;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Starts the service in the file `binary` with a database of its own and these `settings`, and waits until it knows all nodes and `pods`
    /// pods.
    pub async fn serve(
        &self,
        binary: &Path,
        folder: &Path,
        name: &str,
        settings: &[(&str, &str)],
        pods: usize,
    ) -> Result<Service, Failure> {
        let database = format!("sqlite://{}", folder.join(format!("{name}.db")).display());
        let kubeconfig = self.server.kubeconfig();
        let service = Service::start(binary, folder, name, |command| {
            command
                .env("DATABASE_URL", database)
                .env("KUBECONFIG", kubeconfig)
                .envs(settings.iter().copied());
        })
        .await?;
        let start = Instant::now();
        loop {
            let known = service.get(CLUSTER).await?;
            let is_whole = |stale: &Value, count: &Value, expected: usize| *stale == false && *count == expected;
            if is_whole(&known["stale"], &known["nodes"], self.nodes.len())
                && is_whole(&known["pods"]["stale"], &known["pods"]["total"], pods)
            {
                return Ok(service);
            }
            patient(&format!("the service to know the cluster: {known}"), start)?;
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }
}

impl Service {
    /// Starts the service with its log in `folder`, and waits until it is ready.
    pub async fn start(
        binary: &Path,
        folder: &Path,
        name: &str,
        configure: impl FnOnce(&mut Command),
    ) -> Result<Self, Failure> {
        let port = free_port()?;
        let mut command = service::serve(Command::new(binary), folder, port);
        configure(&mut command);
        let log: PathBuf = folder.join(format!("{name}.log"));
        let (process, _) = Process::start(command, port, READY, &log).await?;
        Ok(Self {
            process,
            put_off: AtomicUsize::new(0),
        })
    }

    /// What is at `path`.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        let target = Target::get(self.process.port, path);
        let answer = self.answer(|| fetch(&target)).await?;
        expected(&answer, 200, path)
    }

    /// Begins an operation on the cluster, below whose path `path` is; its id.
    pub async fn begin(&self, path: &str, body: &Value) -> Result<String, Failure> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let key = format!("bench-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let whole = format!("{CLUSTER}{path}");
        let answer = self.answer(|| post(self.process.port, &whole, &key, body)).await?;
        match expected(&answer, 202, path)?["id"].as_str() {
            Some(id) => Ok(id.to_owned()),
            None => Err(format!("{path} answered without an id").into()),
        }
    }

    /// Asks again while the service says that it cannot answer now, or that it is still at work on the same, as every client should.
    async fn answer<A>(&self, ask: impl Fn() -> A) -> Result<Answer, Failure>
    where
        A: Future<Output = Result<Answer, Failure>>,
    {
        let start = Instant::now();
        loop {
            let answer = ask().await?;
            if ![409, 503, 504].contains(&answer.status) {
                return Ok(answer);
            }
            self.put_off.fetch_add(1, Ordering::Relaxed);
            patient("the service to answer", start)?;
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Does an operation, and says how long it took from the request to its end. It must succeed.
    pub async fn time(&self, body: &Value) -> Result<Duration, Failure> {
        let start = Instant::now();
        let id = self.begin("/operations", body).await?;
        loop {
            // The list does not tell the nodes: to ask for it costs the service little, however many there are.
            let list = self.get("/api/v1/operations?limit=1").await?;
            let operation = &list["items"][0];
            if operation["id"] != id.as_str() {
                return Err(format!("another operation than {id} is the latest: {operation}").into());
            }
            match operation["state"].as_str().unwrap_or_default() {
                "succeeded" => return Ok(start.elapsed()),
                "queued" | "running" => patient("the operation to end", start)?,
                _ => return Err(format!("an operation did not succeed: {operation}").into()),
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }
}

/// A failure if what began at `start` takes too long.
pub fn patient(what: &str, start: Instant) -> Result<(), Failure> {
    if PATIENCE < start.elapsed() {
        return Err(format!("waited in vain for {what}").into());
    }
    Ok(())
}

/// The body of an answer, which must have this status.
fn expected(answer: &Answer, status: u16, path: &str) -> Result<Value, Failure> {
    let text = String::from_utf8_lossy(&answer.body);
    if answer.status != status {
        return Err(format!("{path} answered {}: {text}", answer.status).into());
    }
    Ok(serde_json::from_str(&text)?)
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}
