//! Clusters as this service knows them.

use crate::{ClusterName, Timestamp};

/// A cluster that was registered with this service, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRegistration {
    /// Its name in this service.
    pub name: ClusterName,
    /// Where the access to it comes from.
    pub source: ClusterSource,
    /// When it was first registered.
    pub registered_at: Timestamp,
    /// When the registration last changed.
    pub changed_at: Timestamp,
}

/// Where the access to a cluster comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClusterSource {
    /// The service account of the pod that this service runs in.
    InCluster,
    /// A context of a kubeconfig file.
    Kubeconfig,
    /// A simulated fleet.
    Demo,
}

impl ClusterSource {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::InCluster, Self::Kubeconfig, Self::Demo];

    /// `in-cluster`, `kubeconfig` or `demo`, as the configuration writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InCluster => "in-cluster",
            Self::Kubeconfig => "kubeconfig",
            Self::Demo => "demo",
        }
    }

    /// Reads [`ClusterSource::as_str`] back, `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == text)
    }
}
