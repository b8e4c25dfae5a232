//! How one process has the database for itself.
//!
//! There are two signs of those who work with it. One is an advisory lock of the server. A service holds it, shared with other replicas,
//! with the connection over which it hears of them; it ends with that connection, however the process ends. It is missing until that
//! connection has heard itself, while it is away, and behind a proxy that pools transactions, where a lock of a session would stay with a
//! connection of the proxy. The other sign are the sessions themselves, which the server shows by name. So whoever wants the database alone
//! takes the lock alone, with its transaction, and then looks for sessions; who comes later asks for the lock over a session that can be
//! seen. Either of the two sees the other one.

use std::time::Duration;

use knm_ports::{HoldError, StorageError};
use knm_storage_sql::{Origin, WatchedPool};
use sqlx::{PgConnection, Postgres};

use crate::demand::PROGRAM;

/// How the server shows who has it alone.
pub(crate) const NAME: &str = "kube-node-manager migrate-data";
/// The advisory lock: `knm_data`, read as a number.
pub(crate) const LOCK: i64 = 0x6b6e_6d5f_6461_7461;
const TAKE_ALONE: &str = "SELECT pg_try_advisory_xact_lock($1)";
/// For as long as the session lives.
pub(crate) const SHARE: &str = "SELECT pg_try_advisory_lock_shared($1)";
/// For this statement only: it works behind each proxy.
const IS_FREE: &str = "SELECT pg_try_advisory_xact_lock_shared($1)";

/// Statements must see what was committed before they got their locks, whatever the server, the database or the role has for a default: with
/// one snapshot for the whole transaction, rows would be missing that were committed while a lock was waited for.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
/// Once in the transaction: moving takes as long as it takes, waiting for others does not. A client that went without a word, with its
/// machine, would keep everybody out until the system's keepalives notice, which is hours by default.
const SETTINGS: [&str; 6] = [
    "SET LOCAL statement_timeout = 0",
    "SET LOCAL idle_in_transaction_session_timeout = 0",
    "SET LOCAL lock_timeout = '5s'",
    "SET LOCAL tcp_keepalives_idle = 30",
    "SET LOCAL tcp_keepalives_interval = 10",
    "SET LOCAL tcp_keepalives_count = 3",
];
/// The sessions of this program in this database, but for the own one and those of the name $2. Everybody may see these names.
const SESSIONS: &str = "SELECT DISTINCT application_name FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND (application_name = $1 OR starts_with(application_name, $1 || ' ')) AND application_name <> $2
ORDER BY application_name";

/// A session that ends is there for a moment more: it is looked so often, and waited so long in between.
const LOOKS: usize = 10;
const GLANCE: Duration = Duration::from_millis(100);

/// Begins a transaction that has the database alone.
///
/// # Errors
/// [`HoldError::InUse`] if somebody works with it.
pub(crate) async fn begin(origin: &Origin, connection: &mut PgConnection) -> Result<(), HoldError> {
    let failed = |error| HoldError::from(origin.storage_error("the connection", error));
    let mut looks = 0;
    loop {
        looks += 1;
        let Some(sessions) = try_to_begin(connection).await.map_err(failed)? else {
            return Ok(());
        };
        sqlx::query("ROLLBACK")
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
        if looks == LOOKS {
            return Err(HoldError::InUse {
                place: origin.place.clone(),
                sessions,
            });
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// Begins it; who is in its way if somebody is.
async fn try_to_begin(connection: &mut PgConnection) -> Result<Option<Vec<String>>, sqlx::Error> {
    sqlx::query(BEGIN).execute(&mut *connection).await?;
    for setting in SETTINGS {
        sqlx::query(setting).execute(&mut *connection).await?;
    }
    let is_alone: bool = sqlx::query_scalar(TAKE_ALONE)
        .bind(LOCK)
        .fetch_one(&mut *connection)
        .await?;
    // Among those who have it alone the lock decides; without it they are among those that may have it.
    let but_for = if is_alone { NAME } else { "" };
    let sessions: Vec<String> = sqlx::query_scalar(SESSIONS)
        .bind(PROGRAM)
        .bind(but_for)
        .fetch_all(connection)
        .await?;
    Ok((!is_alone || !sessions.is_empty()).then_some(sessions))
}

/// Whether nobody has the database for himself.
pub(crate) async fn is_free(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(IS_FREE).bind(LOCK).fetch_one(connection).await
}

/// Asks over a connection of the pool, which can be seen from then on.
///
/// # Errors
/// [`StorageError::Refused`] while somebody has the database for himself.
pub(crate) async fn refuse_unless_free(pool: &WatchedPool<Postgres>) -> Result<(), StorageError> {
    pool.within_deadline(async {
        let mut held = pool.acquire("open").await?;
        let is_free = is_free(held.connection()).await;
        match held.release("the connection", is_free)? {
            true => Ok(()),
            false => Err(taken(pool.origin())),
        }
    })
    .await
}

/// Somebody has the database for himself.
pub(crate) fn taken(origin: &Origin) -> StorageError {
    StorageError::Refused {
        message: format!(
            "{}: migrate-data works on it; try again when that has ended \
             (pg_stat_activity shows it with the application_name \"{NAME}\")",
            origin.place
        ),
        source: None,
    }
}

#[cfg(test)]
mod tests {
    use knm_test_support::postgres::PostgresServer;
    use sqlx::Connection;

    use super::*;
    use crate::PostgresOptions;

    #[tokio::test]
    async fn the_server_looks_after_half_a_minute_whether_who_holds_it_is_still_there() {
        let Some(server) = PostgresServer::start() else {
            return;
        };
        let url = server.url(&server.create_database());
        let origin = crate::holding::origin(&PostgresOptions::from_url(&url).expect("a connection string"));
        let mut connection = PgConnection::connect(&url).await.expect("a connection");
        begin(&origin, &mut connection).await.expect("nobody else");
        let set: String = sqlx::query_scalar(
            "SELECT concat_ws(' ', current_setting('tcp_keepalives_idle'), current_setting('tcp_keepalives_interval'),
                current_setting('tcp_keepalives_count'))",
        )
        .fetch_one(&mut connection)
        .await
        .expect("settings");
        assert_eq!(set, "30 10 3");
    }
}
