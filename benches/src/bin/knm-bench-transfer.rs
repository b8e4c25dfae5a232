//! knm-bench-transfer: measures how long a long audit log takes from PostgreSQL to SQLite and back, and how much memory that takes.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use knm_bench::program;
use knm_bench::table::{Bar, Row};
use knm_bench::{Failure, procfs, service};
use knm_test_support::postgres::PostgresServer;

/// How often the memory of the program is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// What a server has that nobody gave more: those of the tests have much less.
const MEMORY: &str = "shared_buffers=128MB";
/// How many records the small run has, beside which the memory of the large one must not have grown.
const PART: u64 = 10;

const DETAILS: &str = "\
What is measured:
  The program starts a PostgreSQL server of its own with the memory that one has by default (128 MB of shared buffers) and without waiting for the disk. \
It fills the audit log of one database with SQL, has the built service move it into an SQLite file, and from there into another \
database, each with the counts and checksums that `migrate-data` compares. Beside it stands what the server itself takes to copy \
the records into a table with the same indexes. Memory is the most that the process ever had; with ten times the records it must \
not be more than a quarter higher. Nothing else should run.

Exit codes:
  0  every bar is cleared
  1  a bar is missed
  2  given up: nothing was found out about the bars

Example:
  cargo build --release && cargo run --release -p knm-bench --bin knm-bench-transfer";

/// Measures `migrate-data` in both directions.
#[derive(Debug, Parser)]
#[command(name = "knm-bench-transfer", version, after_help = DETAILS)]
struct Arguments {
    /// The built service [default: KNM_BINARY, else release/kube-node-manager below CARGO_TARGET_DIR, else below ./target]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// How many audit records are moved
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10..=10_000_000))]
    records: u64,
}

fn main() -> ExitCode {
    program::exit(measure(&Arguments::parse()))
}

/// Whether every bar is cleared.
fn measure(arguments: &Arguments) -> Result<bool, Failure> {
    let binary = service::binary(arguments.binary.as_deref())?;
    let server = PostgresServer::start_with(&[MEMORY]).ok_or("the programs of PostgreSQL are missing")?;
    let few = Both::measure(&binary, &server, arguments.records / PART)?;
    let many = Both::measure(&binary, &server, arguments.records)?;
    let rows = [
        many.to_postgres
            .row("SQLite to PostgreSQL, seconds", many.records, many.server),
        many.to_sqlite
            .row("PostgreSQL to SQLite, seconds", many.records, many.server),
        grown(
            "the same, memory against a tenth of the records",
            &few.to_postgres,
            &many.to_postgres,
        ),
        grown("and the other way", &few.to_sqlite, &many.to_sqlite),
    ];
    program::tell(&rows)
}

/// What both directions took.
struct Both {
    records: u64,
    to_sqlite: Cost,
    to_postgres: Cost,
    /// What the server takes to copy the records by itself.
    server: Duration,
}

struct Cost {
    took: Duration,
    /// The most memory, in MiB.
    peak: f64,
}

impl Both {
    fn measure(binary: &Path, server: &PostgresServer, records: u64) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let file = format!("sqlite://{}", folder.path().join("nodes.db").display());
        let (from, to) = (server.create_database(), server.create_database());
        migrate(binary, &server.url(&from))?;
        server.run(&from, &fill(records));
        let to_sqlite = moved(binary, &server.url(&from), &file)?;
        let to_postgres = moved(binary, &file, &server.url(&to))?;
        let counted = server.run(&to, "SELECT count(*) FROM audit_records");
        if counted != records.to_string() {
            return Err(format!("{counted} of {records} records arrived").into());
        }
        server.run(&from, "CREATE TABLE copies (LIKE audit_records INCLUDING ALL)");
        let start = now();
        server.run(&from, "INSERT INTO copies SELECT * FROM audit_records ORDER BY id");
        Ok(Self {
            records,
            to_sqlite,
            to_postgres,
            server: start.elapsed(),
        })
    }
}

impl Cost {
    fn row(&self, what: &'static str, records: u64, server: Duration) -> Row {
        let seconds = self.took.as_secs_f64();
        Row {
            what,
            measured: seconds,
            // It grows with the records; the bar is for the million.
            bar: Bar::AtMost(60.0),
            detail: format!(
                "{:.0} records/s, at most {:.0} MiB; the server itself: {:.1} s, ratio {:.2}",
                records as f64 / seconds,
                self.peak,
                server.as_secs_f64(),
                seconds / server.as_secs_f64()
            ),
        }
    }
}

fn grown(what: &'static str, few: &Cost, many: &Cost) -> Row {
    Row {
        what,
        measured: many.peak / few.peak,
        bar: Bar::AtMost(1.25),
        detail: format!("{:.1} and {:.1} MiB", few.peak, many.peak),
    }
}

/// Records as services write them, with what is needed for each index.
fn fill(records: u64) -> String {
    format!(
        "INSERT INTO audit_records SELECT
            (lpad(to_hex(1700000000000 + n), 12, '0') || '7' || substr(md5(n::text), 1, 3) || 'a' || substr(md5('b' || n), 1, 15))::uuid,
            1700000000000 + n, 'person-' || n % 200, 'user', '10.0.0.' || n % 250, (ARRAY['cordon', 'drain', 'label', 'taint'])[1 + n % 4],
            'cluster-' || n % 10, 'worker-' || lpad((n % 5000)::text, 5, '0'), CASE WHEN n % 3 = 0 THEN md5((n / 300)::text)::uuid END,
            md5('r' || n), 'Gerät ' || n || ' hat Fehler', CASE WHEN n % 5 = 0 THEN 'OPS-' || n END,
            '{{\"dry_run\":false,\"over_foreign\":false}}', 'succeeded', 1700000001000 + n, NULL,
            '{{\"unschedulable\":false}}', '{{\"unschedulable\":true}}'
        FROM generate_series(1, {records}) AS n"
    )
}

fn migrate(binary: &Path, url: &str) -> Result<(), Failure> {
    let migrated = Command::new(binary).arg("migrate").env("DATABASE_URL", url).output()?;
    match migrated.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&migrated.stderr).into_owned().into()),
    }
}

/// Moves everything and tells what that took.
fn moved(binary: &Path, from: &str, to: &str) -> Result<Cost, Failure> {
    let start = now();
    let mut process = Command::new(binary)
        .args(["migrate-data", "--from", from, "--to", to])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let mut peak = 0.0_f64;
    loop {
        if let Some(status) = process.try_wait()? {
            let took = start.elapsed();
            return match status.success() {
                true => Ok(Cost { took, peak }),
                false => Err(format!("nothing was moved: {status}").into()),
            };
        }
        // It may have ended since.
        if let Ok(memory) = procfs::memory(process.id()) {
            peak = peak.max(memory.peak);
        }
        std::thread::sleep(LOOK);
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
