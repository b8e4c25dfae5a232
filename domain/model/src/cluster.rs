//! Clusters as this service knows them.

use uuid::Uuid;

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

/// A secret as it may lie anywhere: only whoever has the key can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSecret {
    /// Which key it was sealed with.
    pub key_id: String,
    /// What was never used with that key before.
    pub nonce: Vec<u8>,
    /// The secret, and the proof that nobody changed it.
    pub ciphertext: Vec<u8>,
}

/// A cluster that somebody registered while the service ran, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredCluster {
    /// Its name in this service.
    pub name: ClusterName,
    /// Another one with each registration and replacement: what one replica knows of it is as good as this.
    pub revision: Uuid,
    /// Its credentials.
    pub sealed: SealedSecret,
    /// The URL of its API server.
    pub server: String,
    /// Who we are there.
    pub user: String,
    /// Until when its credentials are good; `None` if they do not tell.
    pub expires_at: Option<Timestamp>,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// When it was last replaced, or registered.
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
    /// Credentials that somebody sent to the service, which keeps them sealed.
    Registered,
}

impl ClusterSource {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::InCluster, Self::Kubeconfig, Self::Demo, Self::Registered];

    /// `in-cluster`, `kubeconfig` or `demo`, as the configuration writes it, or `registered`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InCluster => "in-cluster",
            Self::Kubeconfig => "kubeconfig",
            Self::Demo => "demo",
            Self::Registered => "registered",
        }
    }

    /// Reads [`ClusterSource::as_str`] back, `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == text)
    }
}
