//! Clusters and their totals.

use std::collections::BTreeMap;

use knm_domain::{ClusterState, ClusterStatus, EXPIRES_SOON, PodsStatus, Snapshot};
use knm_model::{ClusterSource, Timestamp};
use poem_openapi::{Enum, Object};
use serde::Serialize;

use super::node::ResourcesView;
use super::permissions::PermissionsView;

/// All clusters.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "ClusterList")]
pub(crate) struct ClusterListView {
    /// The clusters, sorted by name.
    pub(crate) items: Vec<ClusterView>,
    /// Always null: all clusters come at once.
    pub(crate) next_cursor: Option<String>,
    /// The number of clusters.
    pub(crate) total: usize,
}

/// A cluster as this service sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "Cluster")]
pub(crate) struct ClusterView {
    /// Its name in this service.
    pub(crate) name: String,
    /// Where the access to it comes from.
    pub(crate) source: ClusterSourceView,
    /// Whether it can be seen.
    pub(crate) state: ClusterStateView,
    /// Why it cannot be seen, a sentence; null while it can.
    pub(crate) reason: Option<String>,
    /// The number of nodes that are known.
    pub(crate) nodes: usize,
    /// Whether what is known of its nodes may be old.
    pub(crate) stale: bool,
    /// When it was last seen, RFC 3339 in UTC; null if it never was.
    pub(crate) as_of: Option<String>,
    /// The version of its API server; null until it told.
    pub(crate) server_version: Option<String>,
    /// When it was first registered with this service, RFC 3339 in UTC; null until that is recorded.
    pub(crate) registered_at: Option<String>,
    /// The URL of its API server; null if it is not known, as for service accounts.
    pub(crate) server: Option<String>,
    /// Who we are there; null if it is not known.
    pub(crate) user: Option<String>,
    /// Until when its credentials are good, RFC 3339 in UTC; null if they do not tell.
    pub(crate) credentials_expire_at: Option<String>,
    /// Whether that is less than 14 days from now, or over.
    pub(crate) credentials_expire_soon: bool,
    /// What somebody should look at, in sentences.
    pub(crate) warnings: Vec<String>,
    /// How its pods are; null if they are not watched.
    pub(crate) pods: Option<ClusterPodsView>,
    /// What it lets this service do; null in lists.
    pub(crate) permissions: Option<PermissionsView>,
}

/// The pods of a cluster as this service sees them.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "ClusterPods")]
pub(crate) struct ClusterPodsView {
    /// The number of pods on nodes that are known.
    pub(crate) total: usize,
    /// Whether what is known of them may be old.
    pub(crate) stale: bool,
    /// When they were last seen, RFC 3339 in UTC; null if they never were.
    pub(crate) as_of: Option<String>,
    /// Why they cannot be seen, a sentence; null while they can.
    pub(crate) reason: Option<String>,
}

/// Where the access to a cluster comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[oai(rename = "ClusterSource", rename_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClusterSourceView {
    /// The service account of the pod that this service runs in.
    InCluster,
    /// A context of a kubeconfig file.
    Kubeconfig,
    /// A simulated fleet.
    Demo,
    /// Credentials that somebody sent while the service ran.
    Registered,
}

/// Whether a cluster can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Enum)]
#[oai(rename = "ClusterState", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClusterStateView {
    /// It has not answered yet, well or badly.
    Connecting,
    /// It can be seen.
    Healthy,
    /// It cannot be seen.
    Degraded,
}

/// Totals over the nodes of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "ClusterSummary")]
pub(crate) struct SummaryView {
    /// The name of the cluster.
    pub(crate) cluster: String,
    /// The time of what is told here, RFC 3339 in UTC; while it is stale, when the cluster was last seen.
    pub(crate) as_of: String,
    /// Whether the cluster cannot be seen, so that this may be old.
    pub(crate) stale: bool,
    /// The number of nodes.
    pub(crate) nodes: usize,
    /// Numbers of nodes by status.
    pub(crate) by_status: StatusCountsView,
    /// The number of nodes that the scheduler may use.
    pub(crate) schedulable: usize,
    /// The number of nodes that it may not use.
    pub(crate) unschedulable: usize,
    /// Numbers of nodes by role, each node once per role; `none` for those without.
    pub(crate) by_role: BTreeMap<String, usize>,
    /// Numbers of nodes by zone; `none` for those without.
    pub(crate) by_zone: BTreeMap<String, usize>,
    /// Numbers of nodes by version of the kubelet; `none` for those that did not report it.
    pub(crate) by_kubelet_version: BTreeMap<String, usize>,
    /// Numbers of nodes by instance type; `none` for those without.
    pub(crate) by_instance_type: BTreeMap<String, usize>,
    /// What all machines have together.
    pub(crate) capacity: ResourcesView,
    /// What pods may use of it.
    pub(crate) allocatable: ResourcesView,
}

/// Numbers of nodes by status.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "StatusCounts")]
pub(crate) struct StatusCountsView {
    /// The number of nodes that are ready.
    pub(crate) ready: usize,
    /// The number of nodes that are not.
    pub(crate) not_ready: usize,
    /// The number of nodes that nobody knows of.
    pub(crate) unknown: usize,
}

impl ClusterListView {
    pub(crate) fn of(clusters: &[ClusterStatus], now: Timestamp) -> Self {
        Self {
            items: clusters
                .iter()
                .map(|cluster| ClusterView::in_list(cluster, now))
                .collect(),
            next_cursor: None,
            total: clusters.len(),
        }
    }
}

impl ClusterView {
    pub(crate) fn of(cluster: &ClusterStatus, now: Timestamp) -> Self {
        Self {
            permissions: Some(PermissionsView::of(&cluster.permissions)),
            ..Self::in_list(cluster, now)
        }
    }

    fn in_list(cluster: &ClusterStatus, now: Timestamp) -> Self {
        let expires_at = cluster.expires_at();
        let expires_soon = expires_at.is_some_and(|at| at < now.plus(EXPIRES_SOON));
        let warning = expires_at.filter(|_| expires_soon).map(|at| match at <= now {
            true => format!("its credentials ended at {at}: replace them"),
            false => format!("its credentials end at {at}: replace them before"),
        });
        Self {
            name: cluster.name.as_str().to_owned(),
            source: match cluster.source {
                ClusterSource::InCluster => ClusterSourceView::InCluster,
                ClusterSource::Kubeconfig => ClusterSourceView::Kubeconfig,
                ClusterSource::Demo => ClusterSourceView::Demo,
                ClusterSource::Registered => ClusterSourceView::Registered,
            },
            state: cluster.state.into(),
            reason: cluster.reason.map(|reason| reason.sentence().to_owned()),
            nodes: cluster.nodes,
            stale: cluster.stale,
            as_of: cluster.as_of.map(|time| time.to_string()),
            server_version: cluster.server_version.clone(),
            registered_at: cluster.registered_at.map(|time| time.to_string()),
            server: cluster.access.as_ref().map(|access| access.server.clone()),
            user: cluster.access.as_ref().map(|access| access.user.clone()),
            credentials_expire_at: expires_at.map(|at| at.to_string()),
            credentials_expire_soon: expires_soon,
            warnings: warning.into_iter().collect(),
            pods: cluster.pods.as_ref().map(ClusterPodsView::of),
            permissions: None,
        }
    }
}

impl ClusterPodsView {
    fn of(pods: &PodsStatus) -> Self {
        Self {
            total: pods.pods,
            stale: pods.stale,
            as_of: pods.as_of.map(|time| time.to_string()),
            reason: pods.reason.map(|reason| reason.sentence().to_owned()),
        }
    }
}

impl From<ClusterState> for ClusterStateView {
    fn from(state: ClusterState) -> Self {
        match state {
            ClusterState::Connecting => Self::Connecting,
            ClusterState::Healthy => Self::Healthy,
            ClusterState::Degraded => Self::Degraded,
        }
    }
}

impl SummaryView {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let summary = snapshot.summary();
        Self {
            cluster: snapshot.cluster().as_str().to_owned(),
            as_of: snapshot.as_of().to_string(),
            stale: snapshot.stale(),
            nodes: summary.nodes,
            by_status: StatusCountsView {
                ready: summary.by_status.ready,
                not_ready: summary.by_status.not_ready,
                unknown: summary.by_status.unknown,
            },
            schedulable: summary.schedulable,
            unschedulable: summary.unschedulable,
            by_role: summary.by_role.clone(),
            by_zone: summary.by_zone.clone(),
            by_kubelet_version: summary.by_kubelet_version.clone(),
            by_instance_type: summary.by_instance_type.clone(),
            capacity: (&summary.capacity).into(),
            allocatable: (&summary.allocatable).into(),
        }
    }
}
