//! What the tables must know of PostgreSQL; the rest of them is the same for every SQL database.

use knm_ports::Wake;
pub(crate) use sqlx::Postgres as Driver;
use sqlx::QueryBuilder;
use uuid::Uuid;

/// Where a text is in the reason in lower case, see `AuditStatements`. The collation lowers nothing but the letters of ASCII, whatever the
/// database's locale is.
pub(crate) const PLACE_IN_REASON: &str = "strpos(lower(reason COLLATE \"C\"), ";

/// How a transaction begins that writes. What waits for a row goes on with what the row is then, which no other level does.
pub(crate) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// What keeps two owners from taking the same row, and from waiting for each other.
pub(crate) const SKIP_LOCKED: &str = " FOR UPDATE SKIP LOCKED";

/// The channel of [`Wake::Work`].
pub(crate) const WORK_CHANNEL: &str = "knm_operation_work";
/// The channel of [`Wake::Events`].
pub(crate) const EVENTS_CHANNEL: &str = "knm_operation_events";

/// What tells other processes of `wakes` when the transaction is committed, and the same one only once.
pub(crate) fn notices(wakes: &[Wake]) -> Option<QueryBuilder<Driver>> {
    let told: Vec<(&str, Uuid)> = wakes.iter().filter_map(notice).collect();
    if told.is_empty() {
        return None;
    }
    let mut statement = QueryBuilder::new("SELECT pg_notify(channel, id::text) FROM (");
    statement.push_values(told, |mut values, (channel, id)| {
        values.push_bind(channel).push_bind(id);
    });
    statement.push(") AS told (channel, id)");
    Some(statement)
}

fn notice(wake: &Wake) -> Option<(&'static str, Uuid)> {
    match wake {
        Wake::Work(id) => Some((WORK_CHANNEL, *id)),
        Wake::Events(id) => Some((EVENTS_CHANNEL, *id)),
        Wake::Missed => None,
    }
}

/// The time of the database, in milliseconds since 1970.
macro_rules! now_unix_ms {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    };
}
pub(crate) use now_unix_ms;

/// What makes text sort by its bytes.
pub(crate) const BY_BYTES: &str = " COLLATE \"C\"";

/// What makes a number one of 64 bits.
pub(crate) const WIDE: &str = "::bigint";

#[cfg(test)]
mod tests {
    use knm_test_support::postgres::PostgresServer;
    use sqlx::{Connection, PgConnection};

    use super::*;

    #[tokio::test]
    async fn a_transaction_that_writes_has_the_same_level_everywhere() {
        let Some(server) = PostgresServer::start() else {
            return;
        };
        let database = server.create_database();
        let statement = format!("ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'");
        server.run(&database, &statement);
        let mut connection = PgConnection::connect(&server.url(&database))
            .await
            .expect("a connection");
        let mut transaction = connection.begin_with(BEGIN).await.expect("a transaction");
        let level: String = sqlx::query_scalar("SHOW transaction_isolation")
            .fetch_one(&mut *transaction)
            .await
            .expect("its level");
        assert_eq!(level, "read committed");
    }
}
