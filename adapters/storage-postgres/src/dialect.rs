//! What the tables must know of PostgreSQL; the rest of them is the same for every SQL database.

pub(crate) use sqlx::Postgres as Driver;

/// Where a text is in the reason in lower case, see `AuditStatements`. The collation lowers nothing but the letters of ASCII, whatever the
/// database's locale is.
pub(crate) const PLACE_IN_REASON: &str = "strpos(lower(reason COLLATE \"C\"), ";

/// How a transaction begins that writes.
pub(crate) const BEGIN: &str = "BEGIN";

/// What keeps two owners from taking the same row, and from waiting for each other.
pub(crate) const SKIP_LOCKED: &str = " FOR UPDATE SKIP LOCKED";

/// The time of the database, in milliseconds since 1970.
macro_rules! now_unix_ms {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    };
}
pub(crate) use now_unix_ms;
