//! What was tried, by whom, and what came of it.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{Actor, ClusterName, NodeName, Timestamp};

/// One attempted change. It is written as an intent before the first call to the cluster and completed afterwards.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRecord {
    /// A UUID v7: ids sort by the time of their intents.
    pub id: Uuid,
    /// When it was about to begin.
    pub at: Timestamp,
    /// Who asked for it.
    pub actor: Actor,
    /// What was to be done.
    pub action: AuditAction,
    /// The cluster.
    pub cluster: ClusterName,
    /// The node; `None` for what concerns many.
    pub node: Option<NodeName>,
    /// The operation that it is part of.
    pub operation: Option<Uuid>,
    /// The request that asked for it.
    pub request_id: Option<String>,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// The caller's ticket.
    pub ticket: Option<String>,
    /// What was asked for in detail.
    pub options: Map<String, Value>,
    /// What came of it; `None` while it is not known yet.
    pub completion: Option<AuditCompletion>,
}

/// What came of an attempted change.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditCompletion {
    /// Whether it was done.
    pub outcome: AuditOutcome,
    /// When that was known.
    pub at: Timestamp,
    /// Why it was not done.
    pub error: Option<String>,
    /// What changed, as it was before: the same keys as in `after`.
    pub before: Map<String, Value>,
    /// What changed, as it was afterwards; empty if nothing did.
    pub after: Map<String, Value>,
}

/// What can be attempted; one word for each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuditAction {
    /// Labels of a node.
    NodeLabel,
    /// Taints of a node.
    NodeTaint,
    /// A hold on a node.
    NodeCordon,
    /// The end of holds on a node, by somebody who asked for it or by time.
    NodeUncordon,
    /// A drain of a node.
    NodeDrain,
}

/// Whether an attempted change was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuditOutcome {
    /// It was done.
    Succeeded,
    /// It was not done, and nothing of it stays behind.
    Failed,
    /// Nobody knows: whoever tried it was gone before it could tell.
    Unknown,
}

/// Which records a reader wants: those that satisfy everything that is given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditFilter {
    /// Of this cluster.
    pub cluster: Option<ClusterName>,
    /// Of this node.
    pub node: Option<NodeName>,
    /// Of the actor with this name, exactly.
    pub actor: Option<String>,
    /// Of this kind.
    pub action: Option<AuditAction>,
    /// With this outcome; `Some(None)` are those whose outcome is not known yet.
    pub outcome: Option<Option<AuditOutcome>>,
    /// From this time on.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// With this text in the reason, upper and lower case of ASCII alike.
    pub reason: Option<String>,
    /// Of this operation.
    pub operation: Option<Uuid>,
}

impl AuditAction {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::NodeLabel,
        Self::NodeTaint,
        Self::NodeCordon,
        Self::NodeUncordon,
        Self::NodeDrain,
    ];

    /// `node.label`, `node.taint`, `node.cordon`, `node.uncordon` or `node.drain`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NodeLabel => "node.label",
            Self::NodeTaint => "node.taint",
            Self::NodeCordon => "node.cordon",
            Self::NodeUncordon => "node.uncordon",
            Self::NodeDrain => "node.drain",
        }
    }

    /// Reads [`AuditAction::as_str`] back, `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }
}

impl AuditOutcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Succeeded, Self::Failed, Self::Unknown];

    /// `succeeded`, `failed` or `unknown`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }

    /// Reads [`AuditOutcome::as_str`] back, `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}
