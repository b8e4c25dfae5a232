//! How a cluster is, and why what was asked about it has no answer.

use std::fmt;

use knm_model::{ClusterAccess, ClusterFeature, ClusterName, ClusterSource, FeatureStatus, Timestamp};
use knm_ports::ClusterError;
use uuid::Uuid;

/// A cluster as this service sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Its name.
    pub name: ClusterName,
    /// Where the access to it comes from.
    pub source: ClusterSource,
    /// Whether it can be seen.
    pub state: ClusterState,
    /// How many nodes are known.
    pub nodes: usize,
    /// When it was last seen, `None` if it never was.
    pub as_of: Option<Timestamp>,
    /// Whether what is known of it is getting old; so it is before anything is known.
    pub stale: bool,
    /// Why it cannot be seen, while it cannot.
    pub reason: Option<UnseenReason>,
    /// The version of its API server, once it told.
    pub server_version: Option<String>,
    /// Counts the snapshots of it, 0 before the first.
    pub generation: u64,
    /// When it was first registered, once that was recorded.
    pub registered_at: Option<Timestamp>,
    /// What may be shown of the access to it; `None` if it is not known, as for service accounts.
    pub access: Option<ClusterAccess>,
    /// Of a registered cluster: another one with each registration and replacement.
    pub revision: Option<Uuid>,
    /// How its pods are; `None` if they are not watched.
    pub pods: Option<PodsStatus>,
    /// What it lets this service do.
    pub permissions: PermissionsStatus,
}

/// What a cluster lets this service do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionsStatus {
    /// When it last answered all questions about that, `None` if it never did.
    pub checked_at: Option<Timestamp>,
    /// Why it did not the last time; then what is told here is as old as `checked_at` says.
    pub reason: Option<UnseenReason>,
    /// All features, as [`ClusterFeature::ALL`](knm_model::ClusterFeature::ALL) has them.
    pub features: Vec<FeatureStatus>,
}

/// The pods of a cluster as this service sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodsStatus {
    /// How many pods on nodes are known.
    pub pods: usize,
    /// When they were last seen, `None` if they never were.
    pub as_of: Option<Timestamp>,
    /// Whether what is known of them is getting old; so it is before anything is known.
    pub stale: bool,
    /// Why they cannot be seen, while they cannot.
    pub reason: Option<UnseenReason>,
}

/// Whether a cluster can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClusterState {
    /// It has not answered yet, well or badly.
    Connecting,
    /// It can be seen.
    Healthy,
    /// It cannot be seen.
    Degraded,
}

/// Why a cluster cannot be seen: coarse enough to be shown to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnseenReason {
    /// No connection, or no useful answer over it.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// It does not accept our credentials.
    Unauthenticated,
    /// It does not let us see them.
    Forbidden,
    /// It answers something that we cannot read.
    Unreadable,
    /// Its stored credentials cannot be opened.
    Locked,
    /// The configuration does not allow to ask it.
    Disallowed,
}

/// Why what was asked about a cluster has no answer.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// There is no such cluster.
    #[error("cluster {cluster} is not known")]
    UnknownCluster {
        /// The name that was asked for.
        cluster: String,
    },
    /// There is no such node.
    #[error("node {node} is not known in cluster {cluster}")]
    UnknownNode {
        /// The cluster.
        cluster: ClusterName,
        /// The name that was asked for.
        node: String,
    },
    /// The cluster was never seen since the service started.
    #[error("cluster {cluster} was not seen yet{}", because(*.reason))]
    NotSeenYet {
        /// The cluster.
        cluster: ClusterName,
        /// Why not; `None` while it is simply too early.
        reason: Option<UnseenReason>,
    },
    /// The cluster does not let this service do what it takes.
    #[error("{}", missing.iter().map(|one| one.refusal(cluster)).collect::<Vec<_>>().join("; "))]
    NotAllowed {
        /// The cluster.
        cluster: ClusterName,
        /// What is missing, never empty.
        missing: Vec<FeatureStatus>,
    },
    /// The cluster failed to answer.
    #[error("cluster {cluster} did not answer")]
    Cluster {
        /// The cluster.
        cluster: ClusterName,
        /// What went wrong.
        source: ClusterError,
    },
}

impl InventoryError {
    /// What the cluster does not let this service do, in sentences that say what would help; `None` if that is not why.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::NotAllowed { .. } => Some(self.to_string()),
            Self::Cluster {
                cluster,
                source: ClusterError::Forbidden {
                    action: Some(action), ..
                },
            } => ClusterFeature::that_needs(*action).map(|feature| feature.refusal(cluster, &[*action])),
            Self::Cluster { .. } | Self::UnknownCluster { .. } | Self::UnknownNode { .. } | Self::NotSeenYet { .. } => {
                None
            }
        }
    }
}

impl ClusterState {
    /// `connecting`, `healthy` or `degraded`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
        }
    }
}

impl UnseenReason {
    /// `unreachable`, `timed_out`, `unauthenticated`, `forbidden`, `unreadable`, `locked` or `disallowed`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::Unreadable => "unreadable",
            Self::Locked => "locked",
            Self::Disallowed => "disallowed",
        }
    }

    /// A sentence for people, without addresses.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Unreachable => "the cluster cannot be reached",
            Self::TimedOut => "the cluster does not answer in time",
            Self::Unauthenticated => "the cluster does not accept our credentials",
            Self::Forbidden => "the cluster does not let us see what we ask for",
            Self::Unreadable => "the cluster answers something that we cannot read",
            Self::Locked => "the stored credentials of the cluster cannot be opened: no key of secrets.key_file fits",
            Self::Disallowed => {
                "the configuration does not allow to ask the cluster: look at the keys under registration"
            }
        }
    }
}

impl From<&ClusterError> for UnseenReason {
    fn from(error: &ClusterError) -> Self {
        match error {
            ClusterError::Unavailable { .. } | ClusterError::TooManyRequests { .. } => Self::Unreachable,
            ClusterError::TimedOut { .. } => Self::TimedOut,
            ClusterError::Unauthenticated { .. } => Self::Unauthenticated,
            ClusterError::Forbidden { .. } => Self::Forbidden,
            ClusterError::Locked { .. } => Self::Locked,
            ClusterError::Disallowed { .. } => Self::Disallowed,
            ClusterError::NotFound { .. }
            | ClusterError::Conflict { .. }
            | ClusterError::Invalid { .. }
            | ClusterError::Unreadable { .. } => Self::Unreadable,
        }
    }
}

impl fmt::Display for UnseenReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

fn because(reason: Option<UnseenReason>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}
