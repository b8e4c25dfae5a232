//! What the SQL storage adapters share: error mapping, pool watching and migrations, without a driver.
//!
//! # How to add a table
//!
//! 1. One migration per dialect under the same number: `migrations/sqlite/NNNN_add_<what>.sql` and
//!    `migrations/postgres/NNNN_add_<what>.sql`; the name says that it merely adds, and versions that do not know it believe it. Tables are plural, columns carry their unit (`…_unix_ms`, `…_bytes`). A migration that
//!    was released never changes again, and it leaves the previous version of the program working: add, never rename or remove. SQLite
//!    runs all pending migrations in one transaction, so a migration must not ask to run without one.
//! 2. One port in `ports/src/storage.rs`, each obligation a sentence with MUST, and its field in `Storage`.
//! 3. One contract case per MUST in `tests/contract/src/storage/`, listed in the macro `storage_contract!`.
//! 4. The adapter types `Memory<Port>` and `Sql<Port>`, given out by `open` of each crate. `Sql<Port>` is one file in `tables/` beside this
//!    crate's `src`, which both drivers' crates compile as a module of theirs: generic code over both would need the driver's traits, which
//!    this crate does not know. Placeholders are `$1`, which SQLite understands, too; what differs stands in each crate's `dialect`. A row
//!    that cannot be read as a value of the model is [`StorageError::Corrupt`](knm_ports::StorageError::Corrupt); what is done with a row
//!    stands here, as in [`cluster_registration`].
//! 5. Its columns in [`TABLES`], so that it moves with the store, and some odd rows of it in `tests/contract/src/transfer/samples.rs`. A new
//!    column of an old table is added to both, too.
//!
//! # How to talk to the database
//!
//! ```text
//! self.pool
//!     .within_deadline(async {
//!         let mut held = self.pool.acquire("cluster_registrations.list").await?;
//!         let rows = sqlx::query_as(LIST).fetch_all(held.connection()).await;
//!         held.release("cluster registration", rows)
//!     })
//!     .await
//! ```
//!
//! A connection whose caller gave up in the middle is thrown away, never pooled: what it would answer next is unknown, and waiting for
//! that could hold its place in the pool for as long as the database hangs.

mod audit;
mod bell;
mod content;
mod definition;
mod error;
mod hold;
mod holders;
mod idempotency;
mod metric;
mod migration;
mod operation;
mod pool;
mod registered;
mod registration;
mod token;

pub use audit::{AuditRow, AuditStatements, audit_record, id_above, json};
pub use bell::Bell;
pub use content::TABLES;
pub use definition::{DefinitionRow, definition};
pub use error::{Dialect, Origin};
pub use hold::{HoldRow, hold, hold_state_number};
pub use idempotency::{KnownRequestRow, known_request};
pub use metric::describe_metrics;
pub use migration::{APPLIED, AppliedRow, apply_pending, schema_status};
pub use operation::{
    OperationEventRow, OperationRow, OperationTargetRow, operation, operation_event, operation_state, operation_target,
    strategy_json,
};
pub use pool::{Held, PoolSettings, WatchedPool};
pub use registered::{RegisteredClusterRow, registered_cluster};
pub use registration::{ClusterRegistrationRow, cluster_registration};
pub use token::{ApiTokenRow, api_token, clusters_json};
