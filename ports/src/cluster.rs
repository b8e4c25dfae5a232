//! Clusters.

use std::collections::BTreeSet;

use async_trait::async_trait;
use futures::stream::BoxStream;
use knm_model::{DisruptionBudget, KubernetesAction, Node, NodeName, NodePatch, ObjectName, Pod};

use crate::eviction::{EvictOptions, Eviction, PodRef};
use crate::pods::PodEvents;

/// What one cluster can be asked. One gateway serves one cluster.
///
/// - MUST name in [`ClusterError::Forbidden`] what the rules of the cluster do not allow.
///
/// Contract cases: `knm_contract::cluster`.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait ClusterGateway: Send + Sync + 'static {
    /// Watches the nodes.
    ///
    /// - MUST start with [`NodeEvent::Replaced`] with all nodes, or with [`NodeEvent::Lost`] while the cluster cannot be seen.
    /// - MUST tell each later change of a node, in order for each node; several changes of one node may be told as one.
    /// - MUST never end by itself: when the cluster cannot be seen it tells [`NodeEvent::Lost`], tries again by itself with a backoff, and
    ///   tells [`NodeEvent::Replaced`] or goes on where it was when it sees the cluster again.
    /// - MUST NOT tell an empty [`NodeEvent::Replaced`] because of an error.
    /// - MUST tell [`NodeEvent::Alive`] or another event at least every 15 s while the cluster can be seen.
    fn watch_nodes(&self) -> NodeEvents;

    /// Watches the pods that are on nodes, those that ended among them.
    ///
    /// - MUST start with a list of all of them ([`PodEvent::Listing`](crate::PodEvent::Listing), parts, and
    ///   [`PodEvent::Complete`](crate::PodEvent::Complete)), or with [`PodEvent::Lost`](crate::PodEvent::Lost) while they cannot be seen.
    /// - MUST leave out pods that are on no node, and tell each when it comes to one.
    /// - MUST tell each later change of a pod, in order for each pod; several changes of one pod may be told as one.
    /// - MUST tell which pods are gone.
    /// - MUST never end by itself, as the watch of the nodes: it tells [`PodEvent::Lost`](crate::PodEvent::Lost), tries again by itself with a
    ///   backoff, and tells a list or goes on where it was.
    /// - MUST NOT call a list complete that an error cut short.
    /// - MUST tell [`PodEvent::Alive`](crate::PodEvent::Alive) or another event at least every 15 s while the pods can be seen.
    fn watch_pods(&self) -> PodEvents;

    /// The pods on a node at this moment, sorted by namespace and name.
    ///
    /// - MUST return an empty list for a node without pods and for a node that does not exist.
    async fn pods_on_node(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError>;

    /// The pods on a node as they were a moment ago, sorted by namespace and name. To tell them costs the cluster little however many pods
    /// it has, so it may be asked for many nodes again and again.
    ///
    /// - MUST tell what [`ClusterGateway::pods_on_node`] tells once that is a moment old.
    async fn recent_pods_on_node(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError>;

    /// All disruption budgets of the cluster at this moment, sorted by namespace and name.
    ///
    /// - MUST work on clusters that only know `policy/v1beta1`.
    async fn disruption_budgets(&self) -> Result<Vec<DisruptionBudget>, ClusterError>;

    /// All DaemonSets of the cluster at this moment.
    async fn daemon_sets(&self) -> Result<BTreeSet<ObjectName>, ClusterError>;

    /// Asks the cluster to let go of a pod, as its disruption budgets allow. Errors are for what says nothing about this pod: a cluster that
    /// cannot be reached or does not know us.
    ///
    /// - MUST leave a pod with another UID alone and return [`Eviction::Replaced`].
    /// - MUST return [`Eviction::Gone`] if there is no pod under this name.
    /// - MUST give the pod the grace period that was asked for, or its own if none was.
    /// - MUST return [`Eviction::Blocked`] with the name of the budget that has no room, and leave the pod alone.
    /// - MUST return [`Eviction::SeveralBudgets`] if several budgets match the pod, and leave the pod alone.
    /// - MUST use room of a budget up with each pod that it protects, and none with pods outside of budgets.
    /// - MUST change nothing with `dry_run`.
    /// - MUST work on clusters that only know `policy/v1beta1`.
    async fn evict(&self, pod: &PodRef, options: &EvictOptions) -> Result<Eviction, ClusterError>;

    /// Deletes a pod, whatever disruption budgets say. Answers are those to evictions, but for those that come from budgets.
    ///
    /// - MUST leave a pod with another UID alone and return [`Eviction::Replaced`].
    /// - MUST return [`Eviction::Gone`] if there is no pod under this name.
    /// - MUST give the pod the grace period that was asked for, or its own if none was.
    /// - MUST change nothing with `dry_run`.
    async fn delete_pod(&self, pod: &PodRef, options: &EvictOptions) -> Result<Eviction, ClusterError>;

    /// The volumes that are attached to a node at this moment, by their names in the cluster.
    ///
    /// - MUST return none for a node without volumes and for one that does not exist.
    async fn attached_volumes(&self, node: &NodeName) -> Result<Vec<String>, ClusterError>;

    /// A node at this moment.
    ///
    /// - MUST return `None` if there is none.
    async fn node(&self, name: &NodeName) -> Result<Option<Node>, ClusterError>;

    /// Changes a node, in one call, and returns it as it is afterwards. With `dry_run` the cluster says what would come of it, and nothing
    /// changes.
    ///
    /// - MUST change nothing that `patch` does not name.
    /// - MUST return [`ClusterError::NotFound`] if there is no such node.
    /// - MUST return [`ClusterError::Conflict`] and change nothing if `patch` carries a resource version that is not the node's.
    /// - MUST change nothing with `dry_run`, and refuse what it would refuse without.
    /// - MUST tell watchers of the change.
    async fn patch_node(&self, name: &NodeName, patch: &NodePatch, dry_run: bool) -> Result<Node, ClusterError>;

    /// Whether the cluster lets this service do something, in all of its namespaces. That it could not look at all of its rules and found none that
    /// decides is an error.
    ///
    /// - MUST return `false` for what the cluster does not allow, or has no opinion of.
    /// - MUST NOT let other questions wait for these.
    async fn may(&self, action: &KubernetesAction) -> Result<bool, ClusterError>;

    /// The version of the API server, as `v1.36.0`.
    async fn server_version(&self) -> Result<String, ClusterError>;
}

/// An endless stream of what happens to the nodes of a cluster.
pub type NodeEvents = BoxStream<'static, NodeEvent>;

/// Something that happened to the nodes of a cluster.
#[derive(Debug)]
pub enum NodeEvent {
    /// These are all nodes now; whatever was known before is to be forgotten.
    Replaced(Vec<Node>),
    /// A node is new or changed.
    Applied(Box<Node>),
    /// A node is gone.
    Deleted(NodeName),
    /// Nothing changed, and the cluster can be seen.
    Alive,
    /// The cluster cannot be seen; what is known is getting old.
    Lost(ClusterError),
}

/// Why a cluster did not do what it was asked.
///
/// The texts are for the log; callers of the HTTP interface get texts of their own.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No such object.
    #[error("{what} is not in the cluster")]
    NotFound {
        /// The object.
        what: String,
    },
    /// The object changed meanwhile, or is there already.
    #[error("{what} was changed meanwhile")]
    Conflict {
        /// The object.
        what: String,
    },
    /// The cluster refused it as invalid.
    #[error("the cluster calls it invalid: {message}")]
    Invalid {
        /// The cluster's own words.
        message: String,
    },
    /// Our credentials are not accepted (401).
    #[error("the cluster does not accept our credentials")]
    Unauthenticated {
        /// What lies below.
        #[source]
        source: Option<BoxedSource>,
    },
    /// Our credentials do not suffice (403).
    #[error("the cluster forbids it: {message}")]
    Forbidden {
        /// What the rules of the cluster would have to allow; `None` if something else forbids it, such as a policy, or if that is nothing that this
        /// service is known to do.
        action: Option<KubernetesAction>,
        /// The cluster's own words.
        message: String,
    },
    /// The cluster is too busy (429).
    #[error("the cluster is too busy")]
    TooManyRequests {
        /// When it may be tried again, if it said so.
        retry_after: Option<std::time::Duration>,
    },
    /// The cluster cannot be reached, or answers 5xx.
    #[error("the cluster cannot be reached")]
    Unavailable {
        /// What lies below.
        #[source]
        source: BoxedSource,
    },
    /// The cluster did not answer in time.
    #[error("the cluster did not answer within {limit:?}")]
    TimedOut {
        /// How long it was waited for.
        limit: std::time::Duration,
    },
    /// The credentials of the cluster are stored, and cannot be opened or read.
    #[error("the stored credentials of the cluster cannot be opened: {message}")]
    Locked {
        /// Why not.
        message: String,
    },
    /// The configuration does not allow to ask the cluster.
    #[error("the cluster must not be asked: {message}")]
    Disallowed {
        /// What it does not allow.
        message: String,
    },
    /// The cluster answered something that cannot be read.
    #[error("the cluster's answer cannot be read: {message}")]
    Unreadable {
        /// What was wrong.
        message: String,
    },
}

/// The error below another one.
pub type BoxedSource = Box<dyn std::error::Error + Send + Sync + 'static>;

impl ClusterError {
    /// Whether the same call may work a little later without anybody doing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Conflict { .. } | Self::TooManyRequests { .. } | Self::Unavailable { .. } | Self::TimedOut { .. } => {
                true
            }
            Self::NotFound { .. }
            | Self::Invalid { .. }
            | Self::Unauthenticated { .. }
            | Self::Forbidden { .. }
            | Self::Locked { .. }
            | Self::Disallowed { .. }
            | Self::Unreadable { .. } => false,
        }
    }

    /// Whether the call may have done what it was to do: its answer did not arrive, or could not be read.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::TimedOut { .. } | Self::Unreadable { .. } => true,
            Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Invalid { .. }
            | Self::TooManyRequests { .. }
            | Self::Unauthenticated { .. }
            | Self::Locked { .. }
            | Self::Disallowed { .. }
            | Self::Forbidden { .. } => false,
        }
    }
}
