//! A Kubernetes API server for tests that are not asynchronous.

use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use http::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::api_server::ApiServer;
use crate::kubelet::Kubelets;

/// How many requests are under way at once when many objects are created.
const AT_ONCE: usize = 16;
const NODES: &str = "/api/v1/nodes";

/// A server of this test, and the runtime that its client lives in.
pub struct Cluster {
    server: ApiServer,
    runtime: Runtime,
}

impl Cluster {
    /// Starts a server and waits until it is ready; `None`, after saying so, where `KUBEBUILDER_ASSETS` is missing.
    ///
    /// # Panics
    /// As [`ApiServer::start`].
    #[must_use]
    pub fn start() -> Option<Self> {
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.block_on(ApiServer::start())?;
        Some(Self { server, runtime })
    }

    /// The kubeconfig of an administrator; its current context is `test`.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.server.kubeconfig()
    }

    /// A kubeconfig of an administrator that looks for the server at another port.
    #[must_use]
    pub fn kubeconfig_through(&self, port: u16) -> PathBuf {
        self.server.kubeconfig_through(port)
    }

    /// A kubeconfig of an administrator with everything inside that it takes, as JSON.
    ///
    /// # Panics
    /// If its files cannot be read.
    #[must_use]
    pub fn inline_kubeconfig(&self) -> Value {
        self.server.inline_kubeconfig()
    }

    /// The URL of the server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.server.port())
    }

    /// The certificate of its authority, in PEM.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn authority(&self) -> String {
        self.server.file("ca.crt")
    }

    /// A token of a new administrator, which is good for an hour.
    ///
    /// # Panics
    /// If it is refused.
    #[must_use]
    pub fn token(&self, name: &str) -> String {
        let accounts = "/api/v1/namespaces/default/serviceaccounts";
        self.create(accounts, &json!({"metadata": {"name": name}}));
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
        });
        self.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding);
        let path = format!("{accounts}/{name}/token");
        let asked = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}});
        let (_, answer) = self
            .runtime
            .block_on(self.server.request(Method::POST, &path, Some(&asked)));
        answer["status"]["token"].as_str().expect("a token").to_owned()
    }

    /// Kills the API server; its data stays.
    pub fn stop(&mut self) {
        self.server.stop();
    }

    /// Starts it again at the same port and waits until it is ready.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_again(&mut self) {
        self.runtime.block_on(self.server.start_again());
    }

    /// Makes it hang: it accepts what arrives and answers nothing.
    pub fn freeze(&self) {
        self.server.freeze();
    }

    /// Lets it go on after [`Cluster::freeze`].
    pub fn thaw(&self) {
        self.server.thaw();
    }

    /// Asks the server as an administrator; the status of its answer and the answer. `PATCH` is a merge patch.
    ///
    /// # Panics
    /// If there is no answer.
    #[must_use]
    pub fn request(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.runtime.block_on(self.server.request(method, path, body))
    }

    /// Creates nodes, several at once.
    ///
    /// # Panics
    /// If one is refused.
    pub fn create_nodes(&self, nodes: impl IntoIterator<Item = Value>) {
        let creating = futures::stream::iter(nodes)
            .map(|node| async move { self.asked(Method::POST, NODES, Some(&node)).await })
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<_>>();
        self.runtime.block_on(creating);
    }

    /// Creates an object in the collection at `path`.
    ///
    /// # Panics
    /// If it is refused.
    pub fn create(&self, path: &str, object: &Value) {
        self.runtime.block_on(self.asked(Method::POST, path, Some(object)));
    }

    /// Changes the object at `path` with a merge patch.
    ///
    /// # Panics
    /// If it is refused.
    pub fn change(&self, path: &str, patch: &Value) {
        self.runtime.block_on(self.asked(Method::PATCH, path, Some(patch)));
    }

    /// Deletes the object at `path`.
    ///
    /// # Panics
    /// If it is refused.
    pub fn delete(&self, path: &str) {
        self.runtime.block_on(self.asked(Method::DELETE, path, None));
    }

    /// Creates a service account in the namespace `default` with these rules of a ClusterRole, and returns a token of it for the API server. The
    /// rules hold as long as the ClusterRoleBinding `account-<name>` is there.
    ///
    /// # Panics
    /// As [`ApiServer::service_account`].
    #[must_use]
    pub fn service_account(&self, name: &str, rules: &[Value]) -> String {
        self.runtime.block_on(self.server.service_account(name, rules))
    }

    /// Another token of a service account, for these audiences.
    ///
    /// # Panics
    /// As [`ApiServer::service_account_token`].
    #[must_use]
    pub fn service_account_token(&self, name: &str, audiences: &[&str]) -> String {
        self.runtime
            .block_on(self.server.service_account_token(name, audiences))
    }

    /// Starts kubelets that end pods `ends_after` they were told to; they work until they are dropped.
    #[must_use]
    pub fn kubelets(&self, ends_after: Duration) -> Kubelets {
        self.server.kubelets(self.runtime.handle(), ends_after)
    }

    /// What is at `path`, as text.
    ///
    /// # Panics
    /// If the server does not answer.
    #[must_use]
    pub fn text(&self, path: &str) -> String {
        self.runtime.block_on(self.server.text(path))
    }

    /// How many evictions the server accepted since its start: what it counted itself, whoever asked for them.
    ///
    /// # Panics
    /// If the server does not answer.
    #[must_use]
    pub fn evictions(&self) -> usize {
        let metrics = self.text("/metrics");
        let accepted = metrics.lines().filter(|line| {
            line.starts_with("apiserver_request_total{")
                && line.contains("subresource=\"eviction\"")
                && line.contains("code=\"201\"")
        });
        let count = |line: &str| line.rsplit(' ').next().and_then(|count| count.parse::<usize>().ok());
        accepted.filter_map(count).sum()
    }

    /// Whether there is something at `path`.
    ///
    /// # Panics
    /// If the server does not answer.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.runtime.block_on(self.server.request(Method::GET, path, None)).0 == 200
    }

    async fn asked(&self, method: Method, path: &str, body: Option<&Value>) {
        let (status, answer) = self.server.request(method.clone(), path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
    }
}

/// A rule of a ClusterRole; `resource` is in the core group, or has its group after a dot, as in `leases.coordination.k8s.io`.
#[must_use]
pub fn rule(verb: &str, resource: &str) -> Value {
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]})
}

/// A pod of a replica set on `node`, which runs as soon as a kubelet sees it.
#[must_use]
pub fn pod(name: &str, node: &str, app: &str) -> Value {
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": app, "uid": "11111111-2222-3333-4444-555555555555",
        "controller": true});
    json!({
        "metadata": {"name": name, "labels": {"app": app}, "ownerReferences": [owner]},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "example.com/main"}]},
    })
}

/// A ready node with these labels.
#[must_use]
pub fn node(name: &str, labels: &Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": labels},
        "status": {
            "capacity": {"cpu": "4", "memory": "16Gi", "pods": "110", "ephemeral-storage": "100Gi"},
            "allocatable": {"cpu": "3900m", "memory": "15Gi", "pods": "110", "ephemeral-storage": "90Gi"},
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status",
                "lastHeartbeatTime": "2030-01-01T00:00:00Z", "lastTransitionTime": "2030-01-01T00:00:00Z",
            }],
        },
    })
}
