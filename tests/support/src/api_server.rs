//! A real Kubernetes API server, from `KUBEBUILDER_ASSETS`.
//!
//! Each server has a folder, ports and an etcd of its own and ends with the process that started it, however that ends. There are no kubelets
//! and controllers: a test plays them.

mod accounts;
mod certificates;

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::kubelet::Kubelets;

/// Starts a program (`$@`, its log to `$1`), tells its process id, and ends it when standard input ends, which it does with the process that
/// holds the other end.
const SUPERVISOR: &str = r#"
log=$1; shift
"$@" >>"$log" 2>&1 </dev/null &
program=$!
echo "$program"
read -r word
kill -CONT "$program" 2>/dev/null
kill -KILL "$program" 2>/dev/null
wait "$program"
"#;

/// How often it is asked whether the server is ready, every 50 ms.
const QUESTIONS: u32 = 1200;

/// A server of this test.
pub struct ApiServer {
    assets: PathBuf,
    folder: TempDir,
    port: u16,
    etcd_port: u16,
    client: Client,
    /// Before the store that it needs, so that it ends first.
    server: Option<Program>,
    _etcd: Program,
}

/// A program that ends with this value.
struct Program {
    supervisor: Child,
    process: u32,
}

impl ApiServer {
    /// Starts a server and waits until it is ready; `None`, after saying so, where `KUBEBUILDER_ASSETS` is missing.
    ///
    /// # Panics
    /// If it does not start, or if `KUBEBUILDER_ASSETS` is missing and `KNM_TEST_REQUIRE` asks for kubernetes.
    pub async fn start() -> Option<Self> {
        let assets = assets()?;
        let folder = TempDir::with_prefix("knm-api-server-").expect("a folder");
        certificates::write(folder.path());
        let [port, etcd_port, peer_port] = free_ports();
        let etcd = Program::start(
            folder.path(),
            "etcd",
            &etcd_command(&assets, folder.path(), etcd_port, peer_port),
        );
        let client = client(folder.path(), port).await;
        let mut server = Self {
            assets,
            folder,
            port,
            etcd_port,
            client,
            server: None,
            _etcd: etcd,
        };
        server.start_again().await;
        Some(server)
    }

    /// The kubeconfig of an administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Writes a kubeconfig of an administrator that reaches the server through another port at 127.0.0.1.
    ///
    /// # Panics
    /// If it cannot be written.
    #[must_use]
    pub fn kubeconfig_through(&self, port: u16) -> PathBuf {
        certificates::write_kubeconfig(self.folder.path(), &format!("kubeconfig-{port}"), port)
    }

    /// A kubeconfig of an administrator with everything inside that it takes, as JSON.
    ///
    /// # Panics
    /// If its files cannot be read.
    #[must_use]
    pub fn inline_kubeconfig(&self) -> Value {
        let data = |name: &str| STANDARD.encode(self.file(name));
        serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port), "certificate-authority-data": data("ca.crt")}}],
            "users": [{"name": "admin", "user": {
                "client-certificate-data": data("admin.crt"), "client-key-data": data("admin.key")}}],
        })
    }

    /// One of its certificates or keys, in PEM.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).expect("a file in our own folder")
    }

    /// The port at 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the API server; its data stays.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Starts it again at the same port and waits until it is ready.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_again(&mut self) {
        self.stop();
        let command = server_command(&self.assets, self.folder.path(), self.port, self.etcd_port);
        self.server = Some(Program::start(self.folder.path(), "kube-apiserver", &command));
        for _ in 0..QUESTIONS {
            // The namespace shows that the storage answers too.
            if self.answer(Method::GET, "/readyz", None).await == Some(200)
                && self.answer(Method::GET, "/api/v1/namespaces/default", None).await == Some(200)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = fs::read_to_string(self.folder.path().join("kube-apiserver.log")).unwrap_or_default();
        unreachable!("the API server does not become ready:\n{log}");
    }

    /// Makes it hang: it accepts what arrives and answers nothing.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on after [`ApiServer::freeze`].
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Asks the server as an administrator; the status of its answer and the answer. `PATCH` is a merge patch.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let answer = self.client.send(request(method, path, body)).await.expect("an answer");
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect_bytes().await.expect("a whole answer");
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// What is at `path`, as text.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn text(&self, path: &str) -> String {
        let asked = self.client.send(request(Method::GET, path, None)).await;
        let bytes = asked.expect("an answer").into_body().collect_bytes().await;
        String::from_utf8_lossy(&bytes.expect("a whole answer")).into_owned()
    }

    /// Starts kubelets that end pods `ends_after` they were told to; they work until they are dropped.
    #[must_use]
    pub fn kubelets(&self, runtime: &Handle, ends_after: Duration) -> Kubelets {
        Kubelets::start(self.client.clone(), runtime, ends_after)
    }

    async fn answer(&self, method: Method, path: &str, body: Option<&Value>) -> Option<u16> {
        let answer = self.client.send(request(method, path, body)).await.ok()?;
        Some(answer.status().as_u16())
    }

    fn signal(&self, signal: &str) {
        if let Some(server) = &self.server {
            let sent = Command::new("kill")
                .args([signal, &server.process.to_string()])
                .status();
            assert!(sent.expect("kill runs").success(), "{signal}");
        }
    }
}

impl Program {
    fn start(folder: &Path, name: &str, command: &[String]) -> Self {
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "supervisor"])
            .arg(folder.join(format!("{name}.log")))
            .args(command)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let mut process = String::new();
        BufReader::new(supervisor.stdout.take().expect("it is piped"))
            .read_line(&mut process)
            .expect("a process id");
        Self {
            supervisor,
            process: process.trim().parse().expect("a process id"),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(mut input) = self.supervisor.stdin.take() {
            drop(input.write_all(b"\n"));
        }
        drop(self.supervisor.wait());
    }
}

fn assets() -> Option<PathBuf> {
    let folder = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let found = folder.filter(|folder| ["etcd", "kube-apiserver"].iter().all(|one| folder.join(one).is_file()));
    if found.is_none() {
        crate::skip(
            "kubernetes",
            "KUBEBUILDER_ASSETS, a folder with etcd and kube-apiserver (setup-envtest use -p path prints one)",
        );
    }
    found
}

fn etcd_command(assets: &Path, folder: &Path, port: u16, peer_port: u16) -> Vec<String> {
    let peer = format!("http://127.0.0.1:{peer_port}");
    let own = format!("http://127.0.0.1:{port}");
    vec![
        assets.join("etcd").display().to_string(),
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={own}"),
        format!("--advertise-client-urls={own}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
    ]
}

fn server_command(assets: &Path, folder: &Path, port: u16, etcd_port: u16) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    vec![
        assets.join("kube-apiserver").display().to_string(),
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--cert-dir={}", file("certs")),
        format!("--tls-cert-file={}", file("server.crt")),
        format!("--tls-private-key-file={}", file("server.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        "--authorization-mode=RBAC".to_owned(),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        "--service-cluster-ip-range=10.0.0.0/16".to_owned(),
        "--disable-admission-plugins=ServiceAccount".to_owned(),
    ]
}

async fn client(folder: &Path, port: u16) -> Client {
    let path = certificates::write_kubeconfig(folder, "kubeconfig", port);
    let file = Kubeconfig::read_from(path).expect("our own kubeconfig");
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .expect("our own kubeconfig");
    config.read_timeout = Some(Duration::from_secs(20));
    config.default_retry = false;
    Client::try_from(config).expect("a client")
}

pub(crate) fn request(method: Method, path: &str, body: Option<&Value>) -> Request<Body> {
    let kind = if method == Method::PATCH {
        "application/merge-patch+json"
    } else {
        "application/json"
    };
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string().into_bytes()));
    Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind)
        .body(body)
        .expect("a request")
}

/// Held together until all are known, so that they differ.
fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("its address").port())
}
