//! Who somebody is, and what they may do.

use async_trait::async_trait;
use knm_model::{ApiToken, KubernetesIdentity, Permission, Timestamp, TokenId};
use serde_json::{Map, Value};

use crate::cluster::{BoxedSource, ClusterError};
use crate::storage::StorageError;

/// The API tokens that this service gave out. Times are stored to the millisecond, rounded as
/// [`Timestamp::unix_millis`](knm_model::Timestamp::unix_millis) rounds them.
///
/// Contract cases: `knm_contract::storage`.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait ApiTokens: Send + Sync + 'static {
    /// All of them, also those that are revoked or have run out.
    ///
    /// - MUST sort them by the time at which they were made, the latest first, and those of the same time by id.
    async fn list(&self) -> Result<Vec<ApiToken>, StorageError>;

    /// The one with this id.
    ///
    /// - MUST return `None` if there is none.
    /// - MUST return what was stored, its times to the millisecond.
    async fn find(&self, id: TokenId) -> Result<Option<ApiToken>, StorageError>;

    /// Adds one.
    ///
    /// - MUST return [`StorageError::Conflict`] if the id is taken, or the name by one that is not revoked, and leave those as they were.
    /// - MUST let exactly one of several writers have a name that they want at once.
    /// - MUST accept the name of one that is revoked.
    async fn insert(&self, token: &ApiToken) -> Result<(), StorageError>;

    /// Revokes one for good.
    ///
    /// - MUST return [`StorageError::NotFound`] if there is none.
    /// - MUST leave one that is revoked already as it is, and succeed.
    async fn revoke(&self, id: TokenId, at: Timestamp, by: &str) -> Result<(), StorageError>;

    /// Notes that it was used.
    ///
    /// - MUST NOT set the time back.
    /// - MUST do nothing if there is none.
    async fn used(&self, id: TokenId, at: Timestamp) -> Result<(), StorageError>;
}

/// What a cluster can be asked about people.
///
/// Contract: the tests of `adapters/cluster-kubernetes` against a real API server with RBAC.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait AccessReviews: Send + Sync + 'static {
    /// Who a token belongs to (TokenReview); `None` if the cluster does not accept it.
    ///
    /// - MUST return `None` for a token that is not for one of `audiences`; with none, for one that is not for the API server.
    /// - MUST NOT tell the token to anybody but the API server.
    async fn identify(&self, token: &str, audiences: &[String]) -> Result<Option<KubernetesIdentity>, ClusterError>;

    /// Whether somebody may do in this cluster what `permission` stands for (SubjectAccessReview).
    ///
    /// - MUST return `false` where the cluster has no opinion.
    async fn may(&self, identity: &KubernetesIdentity, permission: Permission) -> Result<bool, ClusterError>;
}

/// Identity tokens of an OpenID provider.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait IdentityTokens: Send + Sync + 'static {
    /// The claims of a token that is valid at `now`: signed by the issuer with an algorithm that is allowed, for this audience, within its times.
    ///
    /// # Errors
    /// [`IdentityTokenError`].
    async fn verify(&self, token: &str, now: Timestamp) -> Result<Map<String, Value>, IdentityTokenError>;

    /// Whether a token says to be of this issuer, which anybody can write into one.
    fn names_issuer(&self, token: &str) -> bool;
}

/// Why the claims of an identity token are not to be believed. The texts are for the log and repeat nothing of the token.
#[derive(Debug, thiserror::Error)]
pub enum IdentityTokenError {
    /// It is worth nothing.
    #[error("the identity token is not accepted: {why}")]
    Refused {
        /// Why.
        why: String,
    },
    /// The keys of the issuer are not known and cannot be had.
    #[error("the identity provider cannot be reached")]
    Unavailable {
        /// What lies below.
        #[source]
        source: BoxedSource,
    },
}

/// Bytes that nobody can guess.
#[cfg_attr(feature = "mocks", mockall::automock)]
pub trait Randomness: Send + Sync + 'static {
    /// 32 of them.
    fn bytes(&self) -> [u8; 32];
}
