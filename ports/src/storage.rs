//! Storage.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use knm_model::{ClusterName, ClusterRegistration};

use crate::cluster::BoxedSource;
use crate::{
    ApiTokens, AuditLog, CordonHolds, Definitions, IdempotencyKeys, Leases, OperationWork, Operations,
    RegisteredClusters, Wakes,
};

/// Everything that an opened store offers.
#[derive(Clone)]
pub struct Storage {
    /// The store as such.
    pub admin: Arc<dyn StorageAdmin>,
    /// The clusters that were registered.
    pub clusters: Arc<dyn ClusterRegistrations>,
    /// The API tokens that were given out.
    pub tokens: Arc<dyn ApiTokens>,
    /// Those that were registered while the service ran, with their credentials.
    pub registered: Arc<dyn RegisteredClusters>,
    /// What was tried, by whom, and what came of it.
    pub audit: Arc<dyn AuditLog>,
    /// Who keeps which node cordoned.
    pub holds: Arc<dyn CordonHolds>,
    /// Which requests came under which key.
    pub keys: Arc<dyn IdempotencyKeys>,
    /// Who does what only one replica may do.
    pub leases: Arc<dyn Leases>,
    /// What takes longer than one call, as callers see it.
    pub operations: Arc<dyn Operations>,
    /// The same as those see it who do the work.
    pub work: Arc<dyn OperationWork>,
    /// Templates and bindings.
    pub definitions: Arc<dyn Definitions>,
    /// When to look for what others did to operations.
    pub wakes: Arc<dyn Wakes>,
}

/// The store as such: whether it works, what its schema is, what its pool does.
///
/// Contract cases: `knm_contract::storage`.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait StorageAdmin: Send + Sync + 'static {
    /// Which technology this is.
    fn kind(&self) -> StorageKind;

    /// Does a round trip to the store.
    ///
    /// - MUST work before the first migration.
    async fn ping(&self) -> Result<(), StorageError>;

    /// The figures of the connection pool at this moment. It touches nothing but memory.
    ///
    /// - MUST report as many open connections as there are in use and idle together, and at most as many as may be open.
    fn pool(&self) -> PoolStatus;

    /// How far the schema is.
    ///
    /// - MUST report nothing pending after [`StorageAdmin::migrate`].
    /// - MUST return [`StorageError::Corrupt`] if a later version changed the schema in a way that this one does not know to be additive.
    async fn schema(&self) -> Result<SchemaStatus, StorageError>;

    /// How many connections the processes that share this store may open, and how many the store allows; `None` where connections are no
    /// matter between processes.
    ///
    /// - MUST count this process, once it has a connection.
    async fn demand(&self) -> Result<Option<ConnectionDemand>, StorageError>;

    /// Applies all pending migrations and returns how many that were.
    ///
    /// - MUST apply all that [`StorageAdmin::schema`] reported as pending.
    /// - MUST do nothing and return 0 when nothing is pending.
    /// - MUST be safe to be called by several replicas at once: each migration is applied once.
    async fn migrate(&self) -> Result<usize, StorageError>;

    /// Closes all connections.
    ///
    /// - MUST make every later call of every port of this store fail with [`StorageError::Unavailable`].
    /// - MUST do nothing when the store is closed already.
    async fn close(&self);
}

/// The clusters that were registered with this service. Times are stored to the millisecond, rounded as
/// [`Timestamp::unix_millis`](knm_model::Timestamp::unix_millis) rounds them.
///
/// Contract cases: `knm_contract::storage`.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait ClusterRegistrations: Send + Sync + 'static {
    /// All of them.
    ///
    /// - MUST sort them by name, byte by byte.
    async fn list(&self) -> Result<Vec<ClusterRegistration>, StorageError>;

    /// The one under this name.
    ///
    /// - MUST return `None` if there is none.
    /// - MUST return what was stored, its times to the millisecond.
    async fn find(&self, name: &ClusterName) -> Result<Option<ClusterRegistration>, StorageError>;

    /// Adds one.
    ///
    /// - MUST return [`StorageError::Conflict`] if the name is taken, and leave the old one as it was.
    /// - MUST let exactly one of several writers have a name that they want at once.
    async fn insert(&self, registration: &ClusterRegistration) -> Result<(), StorageError>;

    /// Replaces the one under the same name.
    ///
    /// - MUST return [`StorageError::NotFound`] if there is none, and add nothing.
    async fn replace(&self, registration: &ClusterRegistration) -> Result<(), StorageError>;

    /// Removes the one under this name.
    ///
    /// - MUST return [`StorageError::NotFound`] if there is none, and remove nothing else.
    async fn remove(&self, name: &ClusterName) -> Result<(), StorageError>;
}

/// A storage technology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorageKind {
    /// One SQLite file.
    Sqlite,
    /// A PostgreSQL server.
    Postgres,
    /// The memory of the process: gone when it ends.
    Memory,
}

impl StorageKind {
    /// `sqlite`, `postgres` or `memory`, as the configuration writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Memory => "memory",
        }
    }
}

/// Figures of a connection pool at one moment; a store without connections counts itself as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// Most connections that it may open.
    pub max_open: u32,
    /// Most idle connections that it keeps.
    pub max_idle: u32,
    /// Connections that are open.
    pub open: u32,
    /// Of these, those that somebody works with.
    pub in_use: u32,
    /// Of these, those that wait for work.
    pub idle: u32,
    /// How many connections were ever held for longer than the leak threshold.
    pub leaks: u64,
}

/// How far a schema is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchemaStatus {
    /// The version of the last applied migration, 0 before the first.
    pub applied: i64,
    /// How many migrations of this program are not applied yet.
    pub pending: usize,
    /// How many migrations were applied that only a later version has; all of them merely add something.
    pub later: usize,
}

/// What the processes that share a store may ask of it at most, beside what it allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionDemand {
    /// How many processes serve from this store now, this one included.
    pub replicas: u32,
    /// How many connections each of them may open: the pool and what is beside it.
    pub each: u32,
    /// How many connections they may have together with all others for whom the same limit is.
    pub allowed: u32,
    /// How many connections these others have now.
    pub others: u32,
    /// Whose limit it is.
    pub limit: ConnectionLimit,
}

/// Where the least number of connections is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionLimit {
    /// The whole server, less what it reserves.
    Server,
    /// The database.
    Database,
    /// Who we are there.
    Role,
}

impl ConnectionDemand {
    /// How many connections all replicas may open together.
    #[must_use]
    pub fn wanted(&self) -> u32 {
        self.replicas.saturating_mul(self.each)
    }

    /// How many there are for them.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.allowed.saturating_sub(self.others)
    }

    /// Whether all replicas can open all their connections.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.wanted() <= self.left()
    }
}

impl ConnectionLimit {
    /// What it is called where it is set.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "max_connections",
            Self::Database => "the CONNECTION LIMIT of the database",
            Self::Role => "the CONNECTION LIMIT of the role",
        }
    }
}

/// Why the store did not do what it was asked.
///
/// The texts are for the log; callers of the HTTP interface get texts of their own.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// What should be changed is not there.
    #[error("{what} is not stored")]
    NotFound {
        /// The kind of thing.
        what: &'static str,
    },
    /// It is there already, or was changed meanwhile.
    #[error("{what} is stored already or was changed meanwhile")]
    Conflict {
        /// The kind of thing.
        what: &'static str,
    },
    /// The store cannot be reached, or is closed.
    #[error("the database cannot be reached")]
    Unavailable {
        /// What lies below.
        #[source]
        source: BoxedSource,
    },
    /// The store did not answer in time, or no connection was free in time.
    #[error("the database did not answer within {limit:?}")]
    TimedOut {
        /// How long it was waited for.
        limit: Duration,
    },
    /// The store refuses us: wrong password, missing privilege, read-only file.
    #[error("the database refuses: {message}")]
    Refused {
        /// Why, without any secret.
        message: String,
        /// What lies below.
        #[source]
        source: Option<BoxedSource>,
    },
    /// There is no room left.
    #[error("the database has no room left")]
    Full {
        /// What lies below.
        #[source]
        source: BoxedSource,
    },
    /// What is stored cannot be read, or was written by a later version.
    #[error("what is stored for {what} cannot be read: {message}")]
    Corrupt {
        /// The kind of thing.
        what: &'static str,
        /// What was wrong with it.
        message: String,
    },
    /// Anything else: a defect of this program.
    #[error("the database failed")]
    Internal {
        /// What lies below.
        #[source]
        source: BoxedSource,
    },
}

impl StorageError {
    /// Whether the same call may work a little later without anybody doing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::TimedOut { .. } => true,
            Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Refused { .. }
            | Self::Full { .. }
            | Self::Corrupt { .. }
            | Self::Internal { .. } => false,
        }
    }
}
