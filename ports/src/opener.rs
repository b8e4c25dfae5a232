//! Access to clusters whose credentials somebody sent.

use std::sync::Arc;

use async_trait::async_trait;
use knm_model::{ClusterCredentials, ClusterName, Timestamp};

use crate::{AccessReviews, ClusterGateway};

/// The access to a cluster.
#[derive(Clone)]
pub struct OpenedCluster {
    /// To its nodes and pods.
    pub gateway: Arc<dyn ClusterGateway>,
    /// To what it knows of people; `None` if it knows none.
    pub reviews: Option<Arc<dyn AccessReviews>>,
}

/// Makes an access to a cluster of credentials.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait ClusterOpener: Send + Sync + 'static {
    /// Looks at credentials as closely as that goes without asking the cluster, and tells until when they are good, if they tell.
    ///
    /// - MUST refuse certificates and keys that cannot be used.
    /// - MUST refuse a server whose name leads to an address where no server may be.
    async fn check(&self, credentials: &ClusterCredentials) -> Result<Option<Timestamp>, OpenRefused>;

    /// The access to a cluster, which need not be reachable.
    ///
    /// - MUST NOT ask the cluster anything by itself.
    /// - MUST NOT connect to an address where no server may be, whatever a name leads to by then.
    fn open(&self, name: &ClusterName, credentials: &ClusterCredentials) -> Result<OpenedCluster, OpenRefused>;
}

/// Why there is no access. The texts hold nothing of the credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenRefused {
    /// This program was built without it.
    #[error("this program was built without the feature \"kubernetes\"")]
    NotBuilt,
    /// The credentials cannot be used.
    #[error("{field}: {message}")]
    Unusable {
        /// What of them.
        field: &'static str,
        /// Why.
        message: String,
    },
}
