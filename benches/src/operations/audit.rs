//! A long audit log.

use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr as _;
use std::time::Duration;

use knm_test_support::postgres::PostgresServer;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tokio::time::Instant;

use super::Operations;
use super::ground::Service;
use crate::Failure;
use crate::service::alone;
use crate::statistics::median;
use crate::table::{Bar, Row};

const RECORDS: u32 = 1_000_000;
/// One record every half minute is almost a year of them.
const EVERY: Duration = Duration::from_secs(30);
/// 2030-01-01T00:00:00Z in milliseconds since 1970.
const FIRST_AT: i64 = 1_893_456_000_000;
/// How often each page is asked for, each time with other values.
const PAGES: u32 = 51;

/// A kind of first pages: a word for it, and the query with the values of a turn.
type Query = (&'static str, fn(u32) -> String);

const QUERIES: [Query; 9] = [
    ("cluster and node", |turn| {
        format!("cluster=cluster-{}&node=node-{}", turn % 10, turn * 17)
    }),
    ("node", |turn| format!("node=node-{}", turn * 13)),
    ("actor", |turn| format!("actor=user-{turn}")),
    ("action", |turn| {
        format!("action=node.{}", ["cordon", "drain", "label"][turn as usize % 3])
    }),
    ("outcome", |turn| {
        format!("outcome={}", ["failed", "unknown"][turn as usize % 2])
    }),
    ("cluster, outcome", |turn| {
        format!("cluster=cluster-{}&outcome=failed", turn % 10)
    }),
    ("cluster, actor, action", |turn| {
        format!("cluster=cluster-{}&actor=user-{turn}&action=node.drain", turn % 10)
    }),
    ("cluster, a day", |turn| {
        let (month, day) = (turn % 11 + 1, turn % 27 + 1);
        format!(
            "cluster=cluster-{}&from=2030-{month:02}-{day:02}T00:00:00Z&until=2030-{month:02}-{:02}T00:00:00Z",
            turn % 10,
            day + 1
        )
    }),
    ("operation", |turn| format!("operation={}", operation(turn * 300))),
];

/// How a database writes what the other one writes otherwise.
struct Dialect {
    /// An id from a text of 32 hexadecimal digits.
    id: fn(&str) -> String,
    /// A number as so many hexadecimal digits.
    hexadecimal: fn(&str, u32) -> String,
}

const SQLITE: Dialect = Dialect {
    id: |text| format!("unhex({text})"),
    hexadecimal: |number, digits| format!("format('%0{digits}x', {number})"),
};
const POSTGRES: Dialect = Dialect {
    id: |text| format!("CAST({text} AS UUID)"),
    hexadecimal: |number, digits| format!("lpad(to_hex({number}), {digits}, '0')"),
};

impl Operations {
    pub(super) async fn audit_in_sqlite(&self) -> Result<Row, Failure> {
        let url = format!("sqlite://{}", self.folder.path().join("audit.db").display());
        self.migrate(&url).await?;
        let options = SqliteConnectOptions::from_str(&url)?
            .journal_mode(SqliteJournalMode::Wal)
            // Only for filling: the service opens the file in its own way.
            .synchronous(SqliteSynchronous::Off)
            .pragma("cache_size", "-524288");
        let mut connection = options.connect().await?;
        sqlx::query(AssertSqlSafe(fill(&SQLITE)))
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        self.pages("first page of 1,000,000 records in SQLite, in ms", &url)
            .await
    }

    pub(super) async fn audit_in_postgres(&self) -> Result<Row, Failure> {
        let server =
            PostgresServer::start().ok_or("there is no PostgreSQL to measure on; --only chooses what needs none")?;
        let database = server.create_database();
        let url = server.url(&database);
        self.migrate(&url).await?;
        server.run(&database, &fill(&POSTGRES));
        // As autovacuum does it wherever it is not switched off.
        server.run(&database, "VACUUM ANALYZE audit_records");
        self.pages("the same in PostgreSQL, in ms", &url).await
    }

    /// Lets the service make its tables.
    async fn migrate(&self, url: &str) -> Result<(), Failure> {
        let mut command = alone(Command::new(&self.binary), self.folder.path());
        command.arg("migrate").env("DATABASE_URL", url).stdin(Stdio::null());
        let output = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .output()
            .await?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("the migration failed: {}", String::from_utf8_lossy(&output.stderr)).into()),
        }
    }

    /// Asks for first pages; what counts is the filter that takes longest.
    async fn pages(&self, what: &'static str, url: &str) -> Result<Row, Failure> {
        let folder: &Path = self.folder.path();
        let service = Service::start(&self.binary, folder, "audit", |command| {
            command.env("DATABASE_URL", url);
        })
        .await?;
        let mut medians = Vec::new();
        for (name, query) in QUERIES {
            let (mut times, mut records) = (Vec::new(), 0);
            for turn in 1..=PAGES {
                let path = format!("/api/v1/audit?{}", query(turn));
                let start = Instant::now();
                let page = service.get(&path).await?;
                times.push(start.elapsed().as_secs_f64() * 1_000.0);
                records += page["items"].as_array().map_or(0, Vec::len);
            }
            if records == 0 {
                return Err(format!("no page by {name} has a record").into());
            }
            medians.push((name, median(&times).unwrap_or(f64::NAN)));
        }
        service.process.end().await?;
        let details: Vec<_> = medians.iter().map(|(name, time)| format!("{name} {time:.1}")).collect();
        Ok(Row {
            what,
            measured: medians.iter().map(|(_, time)| *time).fold(f64::NAN, f64::max),
            bar: Bar::AtMost(20.0),
            detail: format!("the slowest of these medians: {}", details.join("; ")),
        })
    }
}

/// The id of the operation that the records with this number and the next ones belong to.
fn operation(number: u32) -> String {
    format!("00000000-0000-7000-8000-{:012x}", number / 100)
}

/// A statement that adds the records: of ten clusters of a thousand nodes, by two hundred users, one of a hundred failed.
fn fill(dialect: &Dialect) -> String {
    let hexadecimal = dialect.hexadecimal;
    let at = format!("({FIRST_AT} + i * {})", EVERY.as_millis());
    let id = (dialect.id)(&format!(
        "{} || '70008000' || {}",
        hexadecimal(&at, 12),
        hexadecimal("i", 12)
    ));
    let operation = (dialect.id)(&format!("'00000000000070008000' || {}", hexadecimal("(i / 100)", 12)));
    // Numbers that look independent of each other and of the time: the upper bits of products with odd constants.
    let spread = |factor: u32, count: u32| format!("((i * {factor} % 4294967296) / 65536 % {count})");
    let (cluster, node, actor) = (
        spread(2_654_435_761, 10),
        spread(2_246_822_519, 1_000),
        spread(3_266_489_917, 200),
    );
    let (outcome, action) = (spread(668_265_263, 1_000), spread(374_761_393, 10));
    format!(
        "INSERT INTO audit_records (id, at_unix_ms, actor_name, actor_kind, actor_address, action, cluster, node, operation, \
         request_id, reason, ticket, options_json, outcome, completed_at_unix_ms, error, before_json, after_json) \
         WITH RECURSIVE numbers (i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM numbers WHERE i < {RECORDS}) \
         SELECT {id}, {at}, 'user-' || {actor}, 'anonymous', '10.1.2.3', \
         CASE WHEN {action} < 4 THEN 'node.label' WHEN {action} < 6 THEN 'node.cordon' WHEN {action} < 8 THEN 'node.uncordon' \
         WHEN {action} < 9 THEN 'node.drain' ELSE 'node.taint' END, \
         'cluster-' || {cluster}, 'node-' || {node}, CASE WHEN i / 100 % 3 = 0 THEN {operation} END, \
         '8d63276856e19335' || {request}, 'kernel update of week ' || (i / 20000), 'OPS-' || (i / 50), \
         '{{\"set\":{{\"example.com/team\":\"storage\"}},\"remove\":[]}}', \
         CASE WHEN {outcome} < 10 THEN 'failed' WHEN {outcome} < 12 THEN 'unknown' ELSE 'succeeded' END, {at} + 40, \
         CASE WHEN {outcome} < 10 THEN 'the cluster did not answer within 10 s' END, \
         '{{\"labels\":{{\"example.com/team\":null}}}}', '{{\"labels\":{{\"example.com/team\":\"storage\"}}}}' FROM numbers",
        request = hexadecimal("i", 8),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_asked_for_by_an_id_that_its_records_have() {
        assert_eq!(operation(30_099), "00000000-0000-7000-8000-00000000012c");
        for (dialect, expected) in [
            (SQLITE, "unhex('00000000000070008000' || format('%012x', (i / 100)))"),
            (
                POSTGRES,
                "CAST('00000000000070008000' || lpad(to_hex((i / 100)), 12, '0') AS UUID)",
            ),
        ] {
            assert!(fill(&dialect).contains(expected), "{}", fill(&dialect));
        }
    }
}
