//! What answers look like. Each view is written by serde and described by poem-openapi; a test holds the two against each other.

mod audit;
mod change;
mod cluster;
mod drain;
mod drain_options;
mod node;
mod operation;
mod permissions;
mod pod;
mod registration;
mod template;
mod token;

pub(crate) use audit::{AuditListView, AuditRecordView};
pub(crate) use change::{ChangedNodeView, CordonBody, LabelChangeBody, TaintChangeBody, UncordonBody};
pub(crate) use cluster::{ClusterListView, ClusterStateView, ClusterView, SummaryView};
pub(crate) use drain::DrainPlanView;
pub(crate) use drain_options::DrainOptionsBody;
pub(crate) use node::{AllNodesView, NodeListView, NodeSourceView, NodeView};
pub(crate) use operation::{FleetOperationBody, OperationBody, OperationListView, OperationView, StrategyBody};
pub(crate) use permissions::PermissionsView;
pub(crate) use pod::PodListView;
pub(crate) use registration::{ClusterCredentialsBody, ClusterTestView, NewClusterBody};
pub(crate) use template::{
    BindingBody, BindingListView, BindingView, ComparisonView, NewBindingBody, NewTemplateBody, PreviewBody,
    TemplateBody, TemplateListView, TemplateView, VersionListView,
};

pub(crate) use token::{MadeTokenView, NewTokenBody, TokenListView};

#[cfg(test)]
mod tests;
