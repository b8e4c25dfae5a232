//! knm-bench-load: shows that a few valid callers are served well while thousands of others hold the service up.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use knm_bench::client::{Target, fetch};
use knm_bench::crowd::{Mob, Seen, Wanted, ask};
use knm_bench::process::{Process, free_port};
use knm_bench::program;
use knm_bench::statistics::percentile;
use knm_bench::table::{Bar, Row};
use knm_bench::{Failure, service};

/// Set in a run that has raised its limit of open files.
const RAISED: &str = "KNM_BENCH_RAISED";
const CLUSTER: &str = "/api/v1/clusters/demo/nodes";
/// How long the service has after the crowd has left before it is measured again.
const REST: Duration = Duration::from_secs(3);

const DETAILS: &str = "\
What is measured:
  The service, with its defaults, API tokens and a simulated fleet, and a crowd of connections on the same cores. Most of the crowd \
means ill: a quarter connects and says nothing, a quarter sends a head byte by byte, a quarter asks once and stays, a \
quarter sends what is no HTTP, and 16 connections of one address guess tokens as fast as they can; all come back when they are cut \
off. Valid callers ask for an unchanged list and for one node, and come by a new connection after every 40 requests. What \
they wait is measured from before the connection to the end of the answer.

Exit codes:
  0  measured (with --check: and every bar is cleared)
  1  with --check: a bar is missed
  2  given up: nothing was found out about the bars";

/// Measures what valid callers get from kube-node-manager while thousands of connections mean ill.
#[derive(Debug, Parser)]
#[command(name = "knm-bench-load", version, after_help = DETAILS)]
struct Arguments {
    /// The built service [default: KNM_BINARY, else release/kube-node-manager below CARGO_TARGET_DIR, else below ./target]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Connections, those of valid callers among them
    #[arg(long, default_value_t = 10_000, value_name = "NUMBER")]
    connections: usize,
    /// Valid callers
    #[arg(long, default_value_t = 64, value_name = "NUMBER")]
    valid: usize,
    /// Nodes of the simulated fleet
    #[arg(long, default_value_t = 1_000, value_name = "NUMBER")]
    nodes: usize,
    /// How long is measured
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    seconds: u64,
    /// Exit with 1 when a bar is missed
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if std::env::var_os(RAISED).is_none() {
        // Does not return unless it fails.
        let error = again_with_more_files();
        let _ = writeln!(std::io::stderr(), "warning: the limit of open files stays: {error}");
    }
    program::exit(measure(&arguments).map(|are_cleared| are_cleared || !arguments.check))
}

/// Starts this program once more, with as many files as it may open; the service inherits that.
fn again_with_more_files() -> std::io::Error {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error,
    };
    Command::new("sh")
        .args(["-c", r#"ulimit -n "$(ulimit -H -n)"; exec "$0" "$@""#])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(RAISED, "1")
        .exec()
}

/// Whether every bar is cleared.
fn measure(arguments: &Arguments) -> Result<bool, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rows = runtime.block_on(run(arguments))?;
    program::tell(&rows)
}

async fn run(arguments: &Arguments) -> Result<Vec<Row>, Failure> {
    let folder = tempfile::tempdir()?;
    let port = free_port()?;
    let mut command = service::serve(
        Command::new(service::binary(arguments.binary.as_deref())?),
        folder.path(),
        port,
    );
    for (variable, _) in service::UNLIMITED {
        command.env_remove(variable);
    }
    let program = service::binary(arguments.binary.as_deref())?;
    // Each valid caller is one of its own: limits count for each.
    let mut tokens = Vec::with_capacity(arguments.valid);
    for number in 0..arguments.valid.max(1) {
        let name = format!("caller-{number}");
        let made = service::alone(Command::new(&program), folder.path())
            .args(["token", "create", "--name", &name, "--role", "viewer"])
            .output()?;
        tokens.push(String::from_utf8(made.stdout)?.trim().to_owned());
    }
    let nodes = arguments.nodes;
    command.env("KNM__AUTH__MODE", "tokens").env(
        "KNM__CLUSTERS",
        format!("[{{name: demo, source: {{demo: {{nodes: {nodes}, changes_per_second: 0}}}}}}]"),
    );
    let (process, _) = Process::start(command, port, "/health/ready", &folder.path().join("log")).await?;
    let wanted = wanted(port, tokens, arguments.nodes).await?;

    let time = Duration::from_secs(arguments.seconds);
    let alone = ask(&wanted, arguments.valid, time / 6).await;
    let before = process.memory()?.resident;
    let mob = Mob::gather(port, arguments.connections.saturating_sub(arguments.valid)).await;
    let measured = async { Ok::<Seen, Failure>(ask(&wanted, arguments.valid, time).await) };
    let (crowded, most) = process.watched(measured).await?;
    let opened = mob.opened();
    let open = open_connections(port).await?;
    drop(mob);
    tokio::time::sleep(REST).await;
    let after = ask(&wanted, arguments.valid, time / 6).await;

    let failures = [&alone, &crowded, &after].map(|seen| seen.failures.len());
    let first = crowded.failures.first().map_or("none", String::as_str);
    Ok(vec![
        latency("valid callers alone, p99, ms", &alone, Bar::Nothing),
        latency("valid callers in the crowd, p99, ms", &crowded, Bar::AtMost(250.0)),
        latency("valid callers after it has left, p99, ms", &after, Bar::AtMost(250.0)),
        Row {
            what: "requests of valid callers that failed",
            measured: failures.iter().sum::<usize>() as f64,
            bar: Bar::AtMost(0.0),
            detail: format!("alone, in the crowd, after it: {failures:?}; the first in the crowd: {first}"),
        },
        Row {
            what: "most memory of the service, MiB",
            measured: most.max(process.memory()?.peak),
            bar: Bar::AtMost(200.0),
            detail: format!(
                "before the crowd {before:.0}, now {:.0}; {open} connections open, {opened} opened by the crowd",
                process.memory()?.resident
            ),
        },
    ])
}

fn latency(what: &'static str, seen: &Seen, bar: Bar) -> Row {
    let of = |percent| percentile(&seen.latencies, percent).unwrap_or(f64::INFINITY);
    Row {
        what,
        measured: of(99),
        bar,
        detail: format!(
            "p50 {:.2}, most {:.1}, {} answers",
            of(50),
            of(100),
            seen.latencies.len()
        ),
    }
}

/// The list as it is once all nodes with their pods are there, and its first node.
async fn wanted(port: u16, tokens: Vec<String>, nodes: usize) -> Result<Wanted, Failure> {
    let target = Target {
        token: tokens.first().cloned(),
        ..Target::get(port, CLUSTER)
    };
    loop {
        let answer = fetch(&target).await?;
        let list: serde_json::Value = serde_json::from_slice(&answer.body)?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        if items.len() == nodes && items.iter().all(|node| !node["requested"].is_null()) {
            let name = items.first().and_then(|node| node["name"].as_str()).unwrap_or_default();
            return Ok(Wanted {
                port,
                list: CLUSTER.to_owned(),
                etag: answer.etag.ok_or("a list came without a tag")?,
                tokens,
                node: format!("{CLUSTER}/{name}"),
            });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn open_connections(port: u16) -> Result<String, Failure> {
    let answer = fetch(&Target::get(port, "/metrics")).await?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let mut lines = text.lines();
    let count = lines.find_map(|line| line.strip_prefix("kube_node_manager_http_connections "));
    Ok(count.unwrap_or("?").to_owned())
}
