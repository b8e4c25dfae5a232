//! What the tables must know of SQLite; the rest of them is the same for every SQL database.

use knm_ports::Wake;
use sqlx::QueryBuilder;
pub(crate) use sqlx::Sqlite as Driver;

/// Where a text is in the reason in lower case, see `AuditStatements`. SQLite lowers nothing but the letters of ASCII.
pub(crate) const PLACE_IN_REASON: &str = "instr(lower(reason), ";

/// How a transaction begins that writes: one that begins by reading cannot go on to write if another one wrote meanwhile.
pub(crate) const BEGIN: &str = "BEGIN IMMEDIATE";

/// What keeps two owners from taking the same row: here there is only one writer at a time.
pub(crate) const SKIP_LOCKED: &str = "";

/// What tells other processes of `wakes` when the transaction is committed: nothing here, they find out by looking.
pub(crate) fn notices(_wakes: &[Wake]) -> Option<QueryBuilder<Driver>> {
    None
}

/// The time of the database, in milliseconds since 1970.
macro_rules! now_unix_ms {
    () => {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    };
}
pub(crate) use now_unix_ms;

/// What makes text sort by its bytes: here it does.
pub(crate) const BY_BYTES: &str = "";

/// What makes a number one of 64 bits: here all are.
pub(crate) const WIDE: &str = "";
