//! What was tried, by whom, and what came of it.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::query::contains;
use crate::{Actor, ClusterName, NodeName, QueryError, Timestamp};

mod parse;
#[cfg(test)]
mod tests;

/// One attempted change. It is written as an intent before the first call to the cluster and completed afterwards.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRecord {
    /// A UUID v7 that was made for the time of the intent, `at`: ids sort by it, and differ from it by less than an hour.
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
    /// Labels and taints of a node, as a template has them.
    NodeApplyTemplate,
    /// A hold on a node.
    NodeCordon,
    /// The end of holds on a node, by somebody who asked for it or by time.
    NodeUncordon,
    /// A drain of a node.
    NodeDrain,
    /// The registration of a cluster.
    ClusterRegister,
    /// Other credentials for a registered cluster.
    ClusterReplace,
    /// The end of a registration.
    ClusterRemove,
}

/// Whether an attempted change was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuditOutcome {
    /// It was done.
    Succeeded,
    /// It was not done, or not to its end: of a drain that stopped half-way the pods that went stay gone.
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
    /// Of the actor who is called this, exactly, see [`Actor::label`].
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

/// The parameters of a list of records as they came, unparsed; a parameter that was not given is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawAuditQuery {
    /// `cluster`.
    pub cluster: Option<String>,
    /// `node`.
    pub node: Option<String>,
    /// `actor`.
    pub actor: Option<String>,
    /// `action`: one of [`AuditAction::ALL`].
    pub action: Option<String>,
    /// `outcome`: `pending` or one of [`AuditOutcome::ALL`].
    pub outcome: Option<String>,
    /// `from`: RFC 3339.
    pub from: Option<String>,
    /// `until`: RFC 3339, later than `from`.
    pub until: Option<String>,
    /// `reason`: part of it, case ignored.
    pub reason: Option<String>,
    /// `operation`: its id.
    pub operation: Option<String>,
    /// `limit`: 1 to 1,000 records a page.
    pub limit: Option<String>,
    /// `cursor`: the `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// Which records a reader wants, and which of them now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditQuery {
    /// Which records.
    pub filter: AuditFilter,
    /// At most so many; `None`: as many as is usual.
    pub limit: Option<u32>,
    /// Only those before this one: the last record of the page before.
    pub before: Option<Uuid>,
}

impl AuditQuery {
    /// Parses the parameters of a list.
    ///
    /// # Errors
    /// All that is wrong, in the order of the parameters, never empty.
    pub fn parse(raw: &RawAuditQuery) -> Result<Self, Vec<QueryError>> {
        parse::parse(raw)
    }
}

impl AuditFilter {
    /// Whether it lets `record` through.
    #[must_use]
    pub fn matches(&self, record: &AuditRecord) -> bool {
        fn fits<T: PartialEq + ?Sized>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_none_or(|wanted| found == Some(wanted))
        }
        fits(self.cluster.as_ref(), Some(&record.cluster))
            && fits(self.node.as_ref(), record.node.as_ref())
            && fits(self.actor.as_deref(), Some(record.actor.label()))
            && fits(self.action.as_ref(), Some(&record.action))
            && fits(self.outcome.as_ref(), Some(&record.outcome()))
            && self.from.is_none_or(|from| from <= record.at)
            && self.until.is_none_or(|until| record.at < until)
            && self
                .reason
                .as_ref()
                .is_none_or(|text| record.reason.as_ref().is_some_and(|reason| contains(reason, text)))
            && fits(self.operation.as_ref(), record.operation.as_ref())
    }
}

impl AuditRecord {
    /// Whether it was done; `None` while that is not known yet.
    #[must_use]
    pub fn outcome(&self) -> Option<AuditOutcome> {
        self.completion.as_ref().map(|completion| completion.outcome)
    }
}

impl AuditAction {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::NodeLabel,
        Self::NodeTaint,
        Self::NodeApplyTemplate,
        Self::NodeCordon,
        Self::NodeUncordon,
        Self::NodeDrain,
        Self::ClusterRegister,
        Self::ClusterReplace,
        Self::ClusterRemove,
    ];

    /// `node.label`, `node.taint`, `node.apply_template`, `node.cordon`, `node.uncordon`, `node.drain`, `cluster.register`, `cluster.replace` or
    /// `cluster.remove`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NodeLabel => "node.label",
            Self::NodeTaint => "node.taint",
            Self::NodeApplyTemplate => "node.apply_template",
            Self::NodeCordon => "node.cordon",
            Self::NodeUncordon => "node.uncordon",
            Self::NodeDrain => "node.drain",
            Self::ClusterRegister => "cluster.register",
            Self::ClusterReplace => "cluster.replace",
            Self::ClusterRemove => "cluster.remove",
        }
    }

    /// Reads [`AuditAction::as_str`] back, `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }
}

impl AuditOutcome {
    /// The word for an outcome that is not known yet.
    pub const PENDING: &str = "pending";

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
