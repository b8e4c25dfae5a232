//! Who keeps a node unschedulable, and why.

use std::collections::BTreeMap;

use crate::Timestamp;

/// The annotation under which this service writes its cordons: a JSON array of holds, the oldest first, each
/// `{"by", "reason", "ticket"?, "since", "until"?}`.
pub const HOLDS_ANNOTATION: &str = "kube-node-manager.io/holds";
/// The annotation under which the first version wrote the reason of a cordon.
pub const FIRST_VERSION_REASON_ANNOTATION: &str = "deeproute.cn/kube-node-mgr";
/// The annotation under which the first version wrote the time of a cordon, RFC 3339.
pub const FIRST_VERSION_TIMESTAMP_ANNOTATION: &str = "deeproute.cn/kube-node-mgr-timestamp";

/// Why a node is unschedulable, as far as anybody wrote it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cordon {
    /// The reason that was given.
    pub reason: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Who did it. Never invented: `None` if it was not written down.
    pub by: Option<String>,
    /// Whose record this is.
    pub source: CordonSource,
}

/// Whose record of a cordon was found on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CordonSource {
    /// Ours, see [`HOLDS_ANNOTATION`].
    KubeNodeManager,
    /// The first version's, see [`FIRST_VERSION_REASON_ANNOTATION`].
    FirstVersion,
    /// None: somebody else cordoned it (kubectl, an autoscaler).
    Foreign,
}

impl Cordon {
    /// Reads the record of a node that is unschedulable off its annotations; ours wins over the first version's, and a record that
    /// cannot be read is no record. `tainted_at` is the time of the taint `node.kubernetes.io/unschedulable`, if it has one.
    #[must_use]
    pub fn read(annotations: &BTreeMap<String, String>, tainted_at: Option<Timestamp>) -> Self {
        let _ = annotations;
        Self {
            reason: None,
            since: tainted_at,
            by: None,
            source: CordonSource::Foreign,
        }
    }
}

impl CordonSource {
    /// `kube_node_manager`, `first_version` or `foreign`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KubeNodeManager => "kube_node_manager",
            Self::FirstVersion => "first_version",
            Self::Foreign => "foreign",
        }
    }
}
