//! What a cluster tells of its pods.

use futures::stream::BoxStream;
use knm_model::Pod;

use crate::cluster::ClusterError;

/// An endless stream of what happens to the pods of a cluster that are on nodes.
pub type PodEvents = BoxStream<'static, PodEvent>;

/// Something that happened to the pods of a cluster that are on nodes.
#[derive(Debug)]
pub enum PodEvent {
    /// A list of all pods begins; one that had begun before is void.
    Listing,
    /// Some pods of the list. There may be too many pods for one event.
    Listed(Vec<Pod>),
    /// The list is whole: pods that were not in it are gone.
    Complete,
    /// A pod is new on its node, or changed.
    Applied(Box<Pod>),
    /// A pod is gone.
    Deleted {
        /// The cluster's own id of it: another pod may have its name already.
        uid: String,
    },
    /// Nothing changed, and the cluster can be seen.
    Alive,
    /// The pods cannot be seen; what is known is getting old.
    Lost(ClusterError),
}
