//! Records of the audit log.

use std::collections::BTreeMap;

use knm_domain::AuditPage;
use knm_model::{Actor, ActorKind, AuditAction, AuditOutcome, AuditRecord};
use poem_openapi::types::Any;
use poem_openapi::{Enum, Object};
use serde::Serialize;
use serde_json::{Map, Value};

/// Any keys with any values.
type AnyObject = BTreeMap<String, Any<Value>>;

/// Records of the audit log. There is no total: to count millions of them takes too long.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "AuditList")]
pub(crate) struct AuditListView {
    /// The records, the latest first.
    pub(crate) items: Vec<AuditRecordView>,
    /// What to ask for the next page with, in `cursor`; null if there is none.
    pub(crate) next_cursor: Option<String>,
}

/// One attempted change: written before it was begun, completed afterwards.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "AuditRecord")]
pub(crate) struct AuditRecordView {
    /// Its id, a UUID; ids sort by time.
    pub(crate) id: String,
    /// When it was about to begin, RFC 3339 in UTC.
    pub(crate) at: String,
    /// Who asked for it.
    pub(crate) actor: ActorView,
    /// What was to be done.
    pub(crate) action: AuditActionView,
    /// The cluster.
    pub(crate) cluster: String,
    /// The node; null for what concerns many.
    pub(crate) node: Option<String>,
    /// The id of the operation that it is part of; null if it is none.
    pub(crate) operation_id: Option<String>,
    /// The id of the request that asked for it; null if none did.
    pub(crate) request_id: Option<String>,
    /// Why, in the caller's words; null if none were given.
    pub(crate) reason: Option<String>,
    /// The caller's ticket; null if none was given.
    pub(crate) ticket: Option<String>,
    /// What was asked for in detail.
    pub(crate) options: AnyObject,
    /// Whether it was done.
    pub(crate) outcome: AuditOutcomeView,
    /// When that was known, RFC 3339 in UTC; null while it is not.
    pub(crate) completed_at: Option<String>,
    /// Why it was not done, or not to its end; null if it was done, and while that is not known.
    pub(crate) error: Option<String>,
    /// What changed, as it was before: the same keys as in `after`.
    pub(crate) before: AnyObject,
    /// What changed, as it was afterwards; empty if nothing did.
    pub(crate) after: AnyObject,
}

/// Who asked for a change.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "Actor")]
pub(crate) struct ActorView {
    /// The name, as the kind of sign-in tells it; null for those who did not sign in.
    pub(crate) name: Option<String>,
    /// How it is known who it is.
    pub(crate) kind: ActorKindView,
    /// The network address that the request came from; null for what nobody asked for by a request.
    pub(crate) address: Option<String>,
}

/// How it is known who somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[oai(rename = "ActorKind", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(crate) enum ActorKindView {
    /// A caller who did not sign in.
    Anonymous,
    /// The holder of an API token, by the token's name.
    Token,
    /// A user of a cluster, by the cluster's word.
    Kubernetes,
    /// A user of an OpenID provider.
    Oidc,
    /// This service itself.
    Service,
    /// Somebody who changed the cluster without this service.
    Outside,
}

/// What can be attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[oai(rename = "AuditAction")]
pub(crate) enum AuditActionView {
    /// Labels of a node.
    #[oai(rename = "node.label")]
    #[serde(rename = "node.label")]
    Label,
    /// Taints of a node.
    #[oai(rename = "node.taint")]
    #[serde(rename = "node.taint")]
    Taint,
    /// Labels and taints of a node, as a template has them.
    #[oai(rename = "node.apply_template")]
    #[serde(rename = "node.apply_template")]
    ApplyTemplate,
    /// A hold on a node.
    #[oai(rename = "node.cordon")]
    #[serde(rename = "node.cordon")]
    Cordon,
    /// The end of holds on a node.
    #[oai(rename = "node.uncordon")]
    #[serde(rename = "node.uncordon")]
    Uncordon,
    /// A drain of a node.
    #[oai(rename = "node.drain")]
    #[serde(rename = "node.drain")]
    Drain,
}

/// Whether an attempted change was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[oai(rename = "AuditOutcome", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(crate) enum AuditOutcomeView {
    /// That is not known yet.
    Pending,
    /// It was done.
    Succeeded,
    /// It was not done, or not to its end: of a drain that stopped half-way the pods that went stay gone.
    Failed,
    /// Nobody knows: whoever tried it was gone before it could tell.
    Unknown,
}

impl AuditListView {
    pub(crate) fn of(page: &AuditPage) -> Self {
        Self {
            items: page.records.iter().map(AuditRecordView::of).collect(),
            next_cursor: page.next.map(|id| id.to_string()),
        }
    }
}

impl AuditRecordView {
    pub(crate) fn of(record: &AuditRecord) -> Self {
        let completion = record.completion.as_ref();
        let changed = |pick: fn(&knm_model::AuditCompletion) -> &Map<String, Value>| {
            completion
                .map(|completion| object(pick(completion)))
                .unwrap_or_default()
        };
        Self {
            id: record.id.to_string(),
            at: record.at.to_string(),
            actor: ActorView::of(&record.actor),
            action: record.action.into(),
            cluster: record.cluster.as_str().to_owned(),
            node: record.node.as_ref().map(|node| node.as_str().to_owned()),
            operation_id: record.operation.map(|id| id.to_string()),
            request_id: record.request_id.clone(),
            reason: record.reason.clone(),
            ticket: record.ticket.clone(),
            options: object(&record.options),
            outcome: record.outcome().into(),
            completed_at: completion.map(|completion| completion.at.to_string()),
            error: completion.and_then(|completion| completion.error.clone()),
            before: changed(|completion| &completion.before),
            after: changed(|completion| &completion.after),
        }
    }
}

impl ActorView {
    pub(crate) fn of(actor: &Actor) -> Self {
        Self {
            name: actor.name.clone(),
            kind: match actor.kind {
                ActorKind::Anonymous => ActorKindView::Anonymous,
                ActorKind::Token => ActorKindView::Token,
                ActorKind::Kubernetes => ActorKindView::Kubernetes,
                ActorKind::Oidc => ActorKindView::Oidc,
                ActorKind::Service => ActorKindView::Service,
                ActorKind::Outside => ActorKindView::Outside,
            },
            address: actor.address.clone(),
        }
    }
}

impl From<AuditAction> for AuditActionView {
    fn from(action: AuditAction) -> Self {
        match action {
            AuditAction::NodeLabel => Self::Label,
            AuditAction::NodeTaint => Self::Taint,
            AuditAction::NodeApplyTemplate => Self::ApplyTemplate,
            AuditAction::NodeCordon => Self::Cordon,
            AuditAction::NodeUncordon => Self::Uncordon,
            AuditAction::NodeDrain => Self::Drain,
        }
    }
}

impl From<Option<AuditOutcome>> for AuditOutcomeView {
    fn from(outcome: Option<AuditOutcome>) -> Self {
        match outcome {
            None => Self::Pending,
            Some(AuditOutcome::Succeeded) => Self::Succeeded,
            Some(AuditOutcome::Failed) => Self::Failed,
            Some(AuditOutcome::Unknown) => Self::Unknown,
        }
    }
}

fn object(map: &Map<String, Value>) -> AnyObject {
    map.iter()
        .map(|(key, value)| (key.clone(), Any(value.clone())))
        .collect()
}
