//! Leases: who does what only one replica may do.

use std::time::Duration;

use async_trait::async_trait;

use crate::StorageError;

/// Leases by name, each held by at most one owner until it runs out by the store's own clock. A lease keeps others from beginning; whoever
/// lost it without noticing is not stopped by it.
///
/// Contract cases: `knm_contract::storage`.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Leases: Send + Sync + 'static {
    /// Takes the lease `name` for `owner` until `ttl` from now, if nobody else holds it, and returns whether `owner` holds it now.
    ///
    /// - MUST let exactly one of several owners have a lease that they want at once.
    /// - MUST extend a lease that `owner` holds already.
    /// - MUST take a lease over that ran out.
    /// - MUST leave a lease that another owner holds as it was.
    async fn hold(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool, StorageError>;

    /// Gives the lease `name` back, so that others need not wait until it runs out.
    ///
    /// - MUST do nothing if `owner` does not hold it.
    async fn release(&self, name: &str, owner: &str) -> Result<(), StorageError>;
}
