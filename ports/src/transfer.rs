//! The whole content of a store, row by row, to move it into another one.

use async_trait::async_trait;
use uuid::Uuid;

use crate::StorageError;

/// A table, as every SQL store has it.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns, those of its primary key first.
    pub columns: &'static [Column],
    /// How many of them are the primary key.
    pub key: usize,
    /// How many rows are moved at once: less where rows may be large.
    pub page: usize,
}

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: ColumnKind,
}

/// What a column holds, whatever a database calls that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ColumnKind {
    /// Text in UTF-8.
    Text,
    /// A whole number of 64 bits, such as a time.
    Integer,
    /// A whole number of 16 bits.
    Small,
    /// True or false.
    Flag,
    /// Bytes.
    Bytes,
    /// A UUID.
    Id,
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Nothing is stored.
    Nothing,
    /// Of [`ColumnKind::Text`].
    Text(String),
    /// Of [`ColumnKind::Integer`] or [`ColumnKind::Small`].
    Integer(i64),
    /// Of [`ColumnKind::Flag`].
    Flag(bool),
    /// Of [`ColumnKind::Bytes`].
    Bytes(Vec<u8>),
    /// Of [`ColumnKind::Id`].
    Id(Uuid),
}

/// The values of one row, in the order of [`Table::columns`].
pub type Row = Vec<Cell>;

impl Table {
    /// The part of `row` that is its primary key.
    #[must_use]
    pub fn key_of<'a>(&self, row: &'a [Cell]) -> &'a [Cell] {
        row.get(..self.key).unwrap_or(row)
    }
}

/// What a held store is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To read it. Nothing of what it holds changes.
    Read,
    /// To fill it. It is made if it is not there.
    Fill,
    /// To look whether it could be filled. Nothing is made or changed.
    Rehearse,
}

/// Which schema a store has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaVersions {
    /// The version of its last migration; 0 if it has no schema yet.
    pub applied: i64,
    /// The version that this program works with.
    pub wanted: i64,
}

/// Why a store cannot be held.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Somebody has it open.
    #[error(
        "{place} is in use: a service, another move or another command has it open{}; stop that and try again",
        seen(sessions)
    )]
    InUse {
        /// Where it is, without any secret.
        place: String,
        /// What those who have it open are called, where a server tells.
        sessions: Vec<String>,
    },
    /// There is none.
    #[error("{place} does not exist")]
    Missing {
        /// Where it should be.
        place: String,
    },
    /// The database says no.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

fn seen(sessions: &[String]) -> String {
    if sessions.is_empty() {
        return String::new();
    }
    let names: Vec<String> = sessions.iter().map(|name| format!("\"{name}\"")).collect();
    format!(
        ", as pg_stat_activity shows: {} (a pooler keeps sessions for a while after those who used them have gone)",
        names.join(", ")
    )
}

/// A store that is held for a while and opened by nobody else meanwhile. All that is written to it is one transaction, which ends with
/// [`StoreContent::keep`]; without that, nothing was written.
///
/// Contract cases: `knm_contract::transfer`.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait StoreContent: Send + Sync + 'static {
    /// Where it is, for people: without any secret.
    fn place(&self) -> String;

    /// All tables with their columns, in an order in which they can be filled.
    ///
    /// - MUST name every table and column of the schema.
    fn tables(&self) -> &'static [Table];

    /// Which schema the store has.
    ///
    /// - MUST report 0 for a store without a schema.
    async fn schema(&self) -> Result<SchemaVersions, StorageError>;

    /// The names of all tables and views that anybody made in the place of the schema, but for the book of migrations.
    ///
    /// - MUST name what is no part of the schema.
    /// - MUST name nothing where nobody made anything.
    async fn relations(&self) -> Result<Vec<String>, StorageError>;

    /// Applies all migrations to a store that has none. This is no part of the transaction.
    async fn create_schema(&self) -> Result<(), StorageError>;

    /// How many rows `table` has.
    async fn count(&self, table: &'static Table) -> Result<u64, StorageError>;

    /// The next rows of `table` behind those up to the key `after`, at most [`Table::page`] of them.
    ///
    /// - MUST tell each row once, by its primary key, in the order of its bytes.
    /// - MUST tell what was put, also before it is kept.
    async fn rows(&self, table: &'static Table, after: Option<Row>) -> Result<Vec<Row>, StorageError>;

    /// Why the store could not hold `row`, if it could not.
    ///
    /// - MUST name the column.
    fn misfit(&self, table: &'static Table, row: &[Cell]) -> Option<String>;

    /// Adds `rows` to `table`.
    ///
    /// - MUST store nothing before [`StoreContent::keep`].
    async fn put(&self, table: &'static Table, rows: Vec<Row>) -> Result<(), StorageError>;

    /// Does what is still to be done with what was put before it is kept, as far as that can take long.
    ///
    /// - MUST keep nothing.
    async fn settle(&self) -> Result<(), StorageError>;

    /// Makes all that was put last.
    async fn keep(&self) -> Result<(), StorageError>;

    /// Lets go of the store. What was not kept is gone.
    ///
    /// - MUST let others open the store again.
    async fn close(&self);
}
