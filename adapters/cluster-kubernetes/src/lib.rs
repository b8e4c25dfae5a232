//! Clusters through the Kubernetes API.

mod amount;
mod change;
mod connection;
mod convert;
mod credentials;
mod error;
mod eviction;
mod expiry;
mod lines;
mod metric;
mod pace;
mod registered;
mod review;
mod trace;
mod watch;
mod watched;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use knm_model::{
    ClusterName, DisruptionBudget, KubernetesAction, KubernetesIdentity, Node, NodeName, NodePatch, ObjectName,
    Permission, Pod,
};
use knm_ports::{AccessReviews, ClusterError, ClusterGateway, EvictOptions, Eviction, NodeEvents, PodEvents, PodRef};

pub use credentials::{KubernetesSource, OpenError, current_context, in_cluster_available};
pub use expiry::access;
pub use metric::describe_metrics;
pub use registered::{KubernetesOpener, SentCredentials};

use connection::{Connection, encoded};
use convert::PolicyVersion;
use error::Failure;
use metric::Call;
use pace::Pace;
use watch::Watched;
use watched::{Nodes, Pods};
use wire::{Version, WireBudget, WirePod};

const PODS: Call = Call {
    verb: "list",
    resource: "pods",
};
const BUDGETS: Call = Call {
    verb: "list",
    resource: "poddisruptionbudgets",
};
const VERSION: Call = Call {
    verb: "get",
    resource: "version",
};

/// How a cluster is reached.
#[derive(Clone, Debug)]
pub struct KubernetesOptions {
    /// Its name in this service, for labels of metrics.
    pub cluster: ClusterName,
    /// Where the access comes from.
    pub source: KubernetesSource,
    /// How many objects are asked for at once.
    pub page_size: u32,
    /// How long one answer may take.
    pub request_timeout: Duration,
    /// How many requests are sent in a second at most, all together; 0 is no limit. Questions about people come on top: as many, and 50 at most; so do
    /// those about this service itself: 10 at most.
    pub max_requests_per_second: u32,
}

/// A cluster, by each of the ports that it answers to. They share one connection with its deadlines; questions about
/// people have a pace of their own.
#[derive(Clone)]
pub struct KubernetesCluster {
    /// Its nodes and pods.
    pub gateway: Arc<dyn ClusterGateway>,
    /// What it says of people.
    pub reviews: Arc<dyn AccessReviews>,
}

/// Reads the credentials. The cluster need not be reachable; a credential plugin runs with the first request, so that a slow one does not hold
/// up the start.
///
/// # Errors
/// [`OpenError`] if the credentials are not there or malformed.
pub async fn open(options: KubernetesOptions) -> Result<KubernetesCluster, OpenError> {
    let made = options.source.load().await?;
    Ok(cluster(options, made.fingerprint))
}

/// The access to a cluster whose files have this fingerprint.
fn cluster(options: KubernetesOptions, fingerprint: u64) -> KubernetesCluster {
    let of_reviews = Pace::of_reviews(options.max_requests_per_second);
    let about_us = Pace::of_questions_about_us(options.max_requests_per_second);
    let connection = Connection::new(options, fingerprint);
    KubernetesCluster {
        reviews: Arc::new(KubernetesReviews {
            connection: connection.at(of_reviews),
        }),
        gateway: Arc::new(KubernetesGateway {
            about_us: connection.at(about_us),
            connection: Arc::new(connection),
            only_beta_budgets: AtomicBool::new(false),
            only_beta_evictions: AtomicBool::new(false),
        }),
    }
}

struct KubernetesReviews {
    connection: Connection,
}

struct KubernetesGateway {
    connection: Arc<Connection>,
    /// The same at the pace of questions about this service itself.
    about_us: Connection,
    /// The cluster did not know `policy/v1` when it was last asked for budgets.
    only_beta_budgets: AtomicBool,
    /// The cluster did not know evictions of `policy/v1`, which came later than budgets of it, when it was last asked for one.
    only_beta_evictions: AtomicBool,
}

#[async_trait]
impl ClusterGateway for KubernetesGateway {
    fn watch_nodes(&self) -> NodeEvents {
        metric::watch_known(self.connection.cluster(), Nodes::RESOURCE);
        watch::open::<Nodes>(Arc::clone(&self.connection))
    }

    fn watch_pods(&self) -> PodEvents {
        metric::watch_known(self.connection.cluster(), Pods::RESOURCE);
        watch::open::<Pods>(Arc::clone(&self.connection))
    }

    async fn pods_on_node(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        self.pods(node, "").await
    }

    async fn recent_pods_on_node(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        // Any version will do: the API server answers from its cache, which has an index of nodes. For the latest one most versions of it
        // read all pods of the cluster from etcd.
        self.pods(node, "&resourceVersion=0").await
    }

    async fn disruption_budgets(&self) -> Result<Vec<DisruptionBudget>, ClusterError> {
        let mut versions = [PolicyVersion::V1, PolicyVersion::V1Beta1];
        if self.only_beta_budgets.load(Ordering::Relaxed) {
            versions.reverse();
        }
        let [first, second] = versions;
        let (known, listed) = match self.budgets(first).await {
            Err(failure) if failure.code == Some(StatusCode::NOT_FOUND) => (second, self.budgets(second).await),
            listed => (first, listed),
        };
        let mut budgets = listed?;
        self.only_beta_budgets
            .store(known == PolicyVersion::V1Beta1, Ordering::Relaxed);
        budgets.sort_unstable_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(budgets)
    }

    async fn daemon_sets(&self) -> Result<BTreeSet<ObjectName>, ClusterError> {
        Ok(eviction::daemon_sets(&self.connection).await?)
    }

    async fn evict(&self, pod: &PodRef, options: &EvictOptions) -> Result<Eviction, ClusterError> {
        let mut version = match self.only_beta_evictions.load(Ordering::Relaxed) {
            true => PolicyVersion::V1Beta1,
            false => PolicyVersion::V1,
        };
        let mut told = eviction::evict(&self.connection, version, pod, options).await?;
        if told.is_none() {
            version = version.other();
            told = eviction::evict(&self.connection, version, pod, options).await?;
        }
        self.only_beta_evictions
            .store(version == PolicyVersion::V1Beta1, Ordering::Relaxed);
        told.ok_or_else(|| ClusterError::Unreadable {
            message: "the cluster knows no evictions that this program knows".to_owned(),
        })
    }

    async fn delete_pod(&self, pod: &PodRef, options: &EvictOptions) -> Result<Eviction, ClusterError> {
        Ok(eviction::delete(&self.connection, pod, options).await?)
    }

    async fn attached_volumes(&self, node: &NodeName) -> Result<Vec<String>, ClusterError> {
        Ok(change::attached_volumes(&self.connection, node).await?)
    }

    async fn node(&self, name: &NodeName) -> Result<Option<Node>, ClusterError> {
        Ok(change::node(&self.connection, name).await?)
    }

    async fn patch_node(&self, name: &NodeName, patch: &NodePatch, dry_run: bool) -> Result<Node, ClusterError> {
        Ok(change::patch(&self.connection, name, patch, dry_run).await?)
    }

    async fn may(&self, action: &KubernetesAction) -> Result<bool, ClusterError> {
        Ok(review::may_we(&self.about_us, action).await?)
    }

    async fn server_version(&self) -> Result<String, ClusterError> {
        let version: Version = self
            .connection
            .get(VERSION, "/version", self.connection.request_timeout)
            .await?;
        Ok(version.git_version)
    }
}

#[async_trait]
impl AccessReviews for KubernetesReviews {
    async fn identify(&self, token: &str, audiences: &[String]) -> Result<Option<KubernetesIdentity>, ClusterError> {
        Ok(review::identify(&self.connection, token, audiences).await?)
    }

    async fn may(&self, identity: &KubernetesIdentity, permission: Permission) -> Result<bool, ClusterError> {
        Ok(review::may(&self.connection, identity, permission.kubernetes()).await?)
    }
}

impl KubernetesGateway {
    /// The pods on a node, asked for with more of a query.
    async fn pods(&self, node: &NodeName, query: &str) -> Result<Vec<Pod>, ClusterError> {
        let path = format!(
            "/api/v1/pods?fieldSelector={}{query}",
            encoded(&format!("spec.nodeName={}", node.as_str()))
        );
        let keep = |wire: WirePod| Some(convert::pod(wire, node));
        let (mut pods, _) = self.connection.list(PODS, &path, keep).await?;
        pods.sort_unstable_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(pods)
    }

    async fn budgets(&self, version: PolicyVersion) -> Result<Vec<DisruptionBudget>, Failure> {
        let path = match version {
            PolicyVersion::V1 => "/apis/policy/v1/poddisruptionbudgets",
            PolicyVersion::V1Beta1 => "/apis/policy/v1beta1/poddisruptionbudgets",
        };
        let keep = |wire: WireBudget| Some(convert::budget(wire, version));
        self.connection
            .list(BUDGETS, path, keep)
            .await
            .map(|(budgets, _)| budgets)
    }
}

impl From<Failure> for ClusterError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}
