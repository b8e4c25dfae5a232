//! Templates and bindings.

use async_trait::async_trait;
use knm_model::{Definition, DefinitionKind, DefinitionName};

use crate::StorageError;

/// What was written down under names, version by version. Times are stored to the millisecond.
///
/// Contract cases: `knm_contract::storage`.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Definitions: Send + Sync + 'static {
    /// Adds a version.
    ///
    /// - MUST return [`StorageError::Conflict`] if the definition has a version of this number, and leave that as it was.
    /// - MUST let exactly one of several writers add it.
    async fn add(&self, definition: &Definition) -> Result<(), StorageError>;

    /// The latest version of each definition of this kind, sorted by name.
    ///
    /// - MUST leave out those whose latest version says that they were deleted.
    async fn list(&self, kind: DefinitionKind) -> Result<Vec<Definition>, StorageError>;

    /// All versions of a definition, the latest first; none if there never was one.
    ///
    /// - MUST return what was stored, its times to the millisecond.
    /// - MUST return those that say that it was deleted, too.
    async fn versions(&self, kind: DefinitionKind, name: &DefinitionName) -> Result<Vec<Definition>, StorageError>;
}
