//! Use cases over the ports.

mod audit;
mod changes;
mod clusters;
mod connections;
mod duty;
mod health;
mod idempotency;
mod inventory;
mod metric;
mod operations;
mod registrations;
mod sight;
mod sign_in;
mod templates;
mod transfer;
mod visible;

pub use audit::{Audit, AuditKeeper, AuditPage};
pub use changes::{Asked, ChangeError, NodeChanged, NodeChanges, Uncordon};
pub use clusters::{
    AccessCheck, AccessTest, ClusterRegistry, ConfiguredAccess, ExpiryWatch, RegistryError, RegistryParts,
    RegistrySettings, Rotation, UnderWay, rotate,
};
pub use connections::ConnectionWatch;
pub use health::{
    BasicHealth, DatabaseHealth, DetailedHealth, Health, HealthSettings, NamedCheck, NotReady, Readiness, Verdict,
};
pub use idempotency::{Idempotency, Turn};
pub use inventory::{
    Block, ChangeKind, ClusterHandle, ClusterState, ClusterStatus, DrainPreview, EXPIRES_SOON, EventId, Expiring,
    Inventory, InventoryError, Lagged, NodeChange, NodeEntry, NodePods, PermissionsStatus, PodIndex, PodOnNode,
    PodsStatus, SelfCheck, Snapshot, SnapshotVersion, Subscription, SubscriptionStart, UnseenReason,
};
pub use metric::describe_metrics;
pub use operations::{
    Asker, OperationError, OperationKeeper, OperationPage, OperationRequest, OperationRunner, OperationShown,
    Operations, OwnPod, RunnerSettings, TargetRequest,
};
pub use registrations::Registrations;
pub use sight::Sight;
pub use sign_in::{
    KubernetesSignIn, MadeToken, OidcSignIn, SignIn, SignInError, Standing, TokenAdminError, Tokens, UnknowableError,
    Wanted, Ways, random_token,
};
pub use templates::{
    Comparison, Content, DriftedNode, StaleCluster, TemplateError, TemplateReconciler, Templates, Versioned,
};
pub use transfer::{MovedTable, Phase, Transfer, TransferError, TransferProgress, TransferReport};
pub use visible::Visible;
