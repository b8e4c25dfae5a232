//! How many connections the replicas may open together, and how many the server allows.

use knm_ports::{ConnectionDemand, ConnectionLimit};
use sqlx::PgConnection;

/// How connections are called that belong to no replica that is known, as those of commands and of versions that gave replicas no names.
pub(crate) const PROGRAM: &str = "kube-node-manager";
/// How a replica calls the connection over which it hears of the others.
pub(crate) const LISTENER: &str = "kube-node-manager listener";
/// Replicas have that beside their pools: the connection that listens.
const BESIDE_THE_POOL: u32 = 1;
/// PostgreSQL cuts names off behind this.
const LONGEST_NAME: usize = 63;

/// Superusers are let in whatever the limits of database and role are. `reserved_connections` came with PostgreSQL 16. Of connections of other
/// roles one may not see what kind they are, unless one may see everything.
const ASK: &str = "WITH ours AS (
    SELECT datid = (SELECT oid FROM pg_database WHERE datname = current_database()) AS here,
        usename = session_user AS by_us,
        coalesce(datid = (SELECT oid FROM pg_database WHERE datname = current_database()), false)
            AND starts_with(application_name, $1 || ' ') AND application_name <> $3 AS of_us,
        application_name
    FROM pg_stat_activity WHERE datid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'
)
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true)::int, 0),
    CASE WHEN role.rolsuper THEN -1 ELSE base.datconnlimit END,
    CASE WHEN role.rolsuper THEN -1 ELSE role.rolconnlimit END,
    (SELECT count(DISTINCT application_name) FROM ours WHERE of_us AND application_name <> $2),
    (SELECT count(*) FROM ours WHERE NOT of_us),
    (SELECT count(*) FROM ours WHERE NOT of_us AND here),
    (SELECT count(*) FROM ours WHERE NOT of_us AND by_us)
FROM pg_database base, pg_roles role WHERE base.datname = current_database() AND role.rolname = session_user";

/// What [`ASK`] answers: three limits, -1 for none; the replicas; who else is there, for each of the limits.
type Answer = (i32, i32, i32, i64, i64, i64, i64);

/// How this process calls its connections: the administrator of the server sees who it is, and the other replicas count it.
pub(crate) fn application_name(instance: Option<&str>) -> String {
    let Some(instance) = instance else {
        return PROGRAM.to_owned();
    };
    let room = LONGEST_NAME - PROGRAM.len() - 1;
    let plain: String = instance.chars().filter(char::is_ascii_graphic).collect();
    // The end differs between pods, the beginning does not.
    let end = &plain[plain.len().saturating_sub(room)..];
    format!("{PROGRAM} {end}")
}

/// Asks the server; each replica may have a pool of `max_open`.
pub(crate) async fn ask(connection: &mut PgConnection, max_open: u32) -> Result<ConnectionDemand, sqlx::Error> {
    let answer = sqlx::query_as(ASK)
        .bind(PROGRAM)
        .bind(LISTENER)
        .bind(crate::alone::NAME)
        .fetch_one(connection)
        .await?;
    Ok(demand(answer, max_open + BESIDE_THE_POOL))
}

fn demand(
    (server, database, role, replicas, others, others_here, others_by_us): Answer,
    each: u32,
) -> ConnectionDemand {
    let limits = [
        (ConnectionLimit::Server, server.max(0), others),
        (ConnectionLimit::Database, database, others_here),
        (ConnectionLimit::Role, role, others_by_us),
    ];
    let number = |count: i64| u32::try_from(count.max(0)).unwrap_or(u32::MAX);
    let left = |(_, limit, others): &(ConnectionLimit, i32, i64)| i64::from(*limit) - others;
    let least = limits.into_iter().filter(|(_, limit, _)| 0 <= *limit).min_by_key(left);
    // The server always has a limit.
    let (limit, allowed, others) = least.unwrap_or((ConnectionLimit::Server, 0, others));
    ConnectionDemand {
        replicas: number(replicas).max(1),
        each,
        allowed: number(i64::from(allowed)),
        others: number(others),
        limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_called_by_the_end_of_its_name_that_fits() {
        assert_eq!(application_name(None), "kube-node-manager");
        assert_eq!(application_name(Some("pod-1/7")), "kube-node-manager pod-1/7");
        let long = application_name(Some(&format!("{}-é-x7k2p/1", "y".repeat(200))));
        assert_eq!(long.len(), LONGEST_NAME);
        assert!(long.ends_with("yy--x7k2p/1"), "{long}");
    }

    #[test]
    fn the_limit_that_leaves_the_least_counts() {
        let limit = |answer| {
            let demand = demand(answer, 26);
            (demand.limit, demand.allowed, demand.others)
        };
        assert_eq!(limit((97, -1, -1, 3, 5, 2, 1)), (ConnectionLimit::Server, 97, 5));
        assert_eq!(limit((97, 50, -1, 3, 5, 2, 1)), (ConnectionLimit::Database, 50, 2));
        assert_eq!(limit((97, 50, 48, 3, 5, 2, 1)), (ConnectionLimit::Role, 48, 1));
        assert_eq!(limit((97, 95, -1, 3, 9, 2, 1)), (ConnectionLimit::Server, 97, 9));
    }
}
