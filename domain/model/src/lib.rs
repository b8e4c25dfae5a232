//! Values and rules of node management: no async, no I/O, no time but what is passed in.

mod access;
mod actor;
mod audit;
mod budget;
mod change;
mod cluster;
mod cordon;
mod credentials;
mod definition;
mod difference;
mod drain;
mod feature;
#[cfg(test)]
mod fixture;
mod hold;
mod idempotency;
mod label;
mod name;
mod node;
mod operation;
mod parameter;
mod placement;
mod pod;
mod quantity;
mod query;
mod selector;
mod summary;
mod taint;
mod template;
mod text;
mod time;
mod work;

pub use access::{
    Access, ApiToken, Authority, Caller, ClaimRule, ClaimRules, Grant, KubernetesAction, KubernetesIdentity, NewToken,
    Object, Permission, Permissions, RawClaimRule, RawRoleGrant, Reach, Role, RoleGrant, Ruling, TokenError, TokenId,
    TokenText, check_token_name, looks_like_a_token,
};
pub use actor::{Actor, ActorKind};
pub use audit::{AuditAction, AuditCompletion, AuditFilter, AuditOutcome, AuditQuery, AuditRecord, RawAuditQuery};
pub use budget::{DisruptionBudget, UnhealthyPods};
pub use change::{LabelChange, NodePatch, RawTaint, TaintChange};
pub use cluster::{ClusterRegistration, ClusterSource, RegisteredCluster, SealedSecret};
pub use cordon::{
    Cordon, CordonSource, FIRST_VERSION_REASON_ANNOTATION, FIRST_VERSION_TIMESTAMP_ANNOTATION, HOLDS_ANNOTATION,
    NotedHold,
};
pub use credentials::{
    AccessRules, ClusterAccess, ClusterCredentials, ClusterIdentity, RawClusterAccess, ServerUrl,
    UnreadableCredentials, token_expiry,
};
pub use definition::{Definition, DefinitionKind};
pub use difference::{before_change, difference, difference_since};
pub use drain::{
    AfterDeadline, Barrier, Decision, DrainOptions, DrainPhase, DrainPlan, DrainProgress, DrainTotals, DrainedPod,
    Farewell, Fit, NOT_CONSIDERED, ObjectName, Obstacle, OnCancel, Placement, PlannedBudget, PlannedPod, PodProgress,
    RawDrainOptions, RawTier, Removal, Rule, Sight, Standing, Tier, Turn, Verdict, Warning, daemon_set,
};
pub use feature::{ClusterFeature, ClusterUse, FeatureState, FeatureStatus};
pub use hold::{Hold, HoldChange, HoldRequest, HoldState, check_reason, holds_annotation};
pub use idempotency::{IDEMPOTENCY_KEPT, KeptAnswer, KeyClaim, KeyError, KnownRequest, check_idempotency_key};
pub use label::{LabelError, check_label_key, check_label_value};
pub use name::{ClusterName, DefinitionName, NameError, NodeName};
pub use node::{Condition, Node, NodeAddress, NodeStatus, NodeSystem, Resources, roles_of};
pub use operation::{
    EventKind, NewEvent, Next, Operation, OperationBacklog, OperationClaim, OperationEvent, OperationFilter,
    OperationKind, OperationLease, OperationProgress, OperationQuery, OperationState, OperationStep, OperationTarget,
    RawOperationQuery, RawStrategy, RefusedWish, Share, StepOutcome, Strategy, TargetDetail, TargetNode, TargetOrder,
    TargetState, UncordonAfter, Wish,
};
pub use placement::{NodeTerm, Toleration, TolerationOperator};
pub use pod::{Controller, Pod, PodPhase, PodRequests};
pub use quantity::{Quantity, QuantityError};
pub use query::{Cursor, NodeField, NodeFilter, NodeQuery, NodeSort, QueryError, RawNodeQuery, SortKey, excerpt};
pub use selector::{Operator, Requirement, Selector, SelectorError};
pub use summary::{ClusterSummary, StatusCounts};
pub use taint::{Taint, TaintEffect, TaintError, TaintFilter};
pub use template::{Binding, Drift, RawBinding, RawTemplate, Template};
pub use text::unprintable;
pub use time::{Timestamp, TimestampError, go_duration};
pub use work::{AppliedTemplate, Work};
