//! knm-bench-rollout: shows that nobody notices a rolling restart.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use knm_bench::program;
use knm_bench::statistics::percentile;
use knm_bench::table::{Bar, Row};
use knm_bench::{Failure, service};
use knm_test_support::rollout::{Load, Rollout, Seen};

/// How many nodes are labelled, one a second: for longer than the replacement takes.
const NODES: usize = 40;

const DETAILS: &str = "\
What is measured:
  The program starts PostgreSQL from its programs on this machine, a real API server with etcd from KUBEBUILDER_ASSETS, and replicas of the \
service with pools of 6 behind a balancer, which leads new connections to those that are ready and leaves open ones alone. \
Callers keep their connections for 50 requests each; one request of twenty changes a node. Half of the operations are drains that wait \
for a budget, the others label 40 nodes, one a second; each has a reader that comes back with the number of its last event, and so does a \
reader of nodes. Then each replica is replaced as Kubernetes does it: a new one becomes ready, the old one leaves the balancer, and gets its \
signal when the pre-stop sleep is over.

  A request that met the end of its kept connection before a byte of the answer came is sent again, as clients do; how many is told.

Exit codes:
  0  every bar is cleared
  1  a bar is missed
  2  given up: nothing was found out about the bars";

/// Replaces replicas of kube-node-manager one after the other while callers ask, operations run and readers follow.
#[derive(Debug, Parser)]
#[command(name = "knm-bench-rollout", version, after_help = DETAILS)]
struct Arguments {
    /// The built service [default: KNM_BINARY, else release/kube-node-manager below CARGO_TARGET_DIR, else below ./target]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Replicas
    #[arg(long, default_value_t = 3, value_name = "NUMBER")]
    replicas: usize,
    /// Requests a second
    #[arg(long, default_value_t = 500, value_name = "NUMBER")]
    requests_per_second: u32,
    /// Callers, each with a connection
    #[arg(long, default_value_t = 50, value_name = "NUMBER")]
    callers: usize,
    /// Operations that run meanwhile
    #[arg(long, default_value_t = 20, value_name = "NUMBER")]
    operations: usize,
    /// The pre-stop sleep, in milliseconds
    #[arg(long, default_value_t = 2_000, value_name = "MILLISECONDS")]
    pre_stop: u64,
    /// How much later than its beginning the balancer hears of it, in milliseconds
    #[arg(long, default_value_t = 500, value_name = "MILLISECONDS")]
    propagation: u64,
}

fn main() -> ExitCode {
    program::exit(measure(&Arguments::parse()))
}

/// Whether every bar is cleared.
fn measure(arguments: &Arguments) -> Result<bool, Failure> {
    let pre_stop = Duration::from_millis(arguments.pre_stop);
    let rollout = Rollout {
        program: service::binary(arguments.binary.as_deref())?.display().to_string(),
        replicas: arguments.replicas,
        operations: arguments.operations,
        nodes: NODES,
        load: Load {
            callers: arguments.callers,
            per_second: arguments.requests_per_second,
        },
        pre_stop,
        propagation: Duration::from_millis(arguments.propagation),
    };
    let seen = rollout
        .run()
        .ok_or("PostgreSQL or the API server is missing, see above")?;
    let rows = rows(&rollout, &seen);
    program::tell(&rows)
}

fn rows(rollout: &Rollout, seen: &Seen) -> Vec<Row> {
    let asked = &seen.asked;
    let latencies: Vec<f64> = asked
        .latencies
        .iter()
        .map(|time| time.as_secs_f64() * 1_000.0)
        .collect();
    let latency = |percent| percentile(&latencies, percent).unwrap_or(f64::INFINITY);
    let wrong_ends = seen.stopped.iter().filter(|stopped| stopped.code != Some(0)).count();
    let cut_off = seen
        .stopped
        .iter()
        .filter(|stopped| !stopped.last_line.contains("\"cut_off\":0"))
        .count();
    let lost: Vec<&String> = seen.states.iter().filter(|state| *state != "succeeded").collect();
    let twice = seen.accepted_evictions.saturating_sub(seen.evictions.len());
    let gaps = seen.followed.iter().filter(|followed| !followed.is_whole()).count();
    let refusals: Vec<&String> = seen.followed.iter().flat_map(|followed| &followed.refusals).collect();
    let came_back: usize = seen.followed.iter().map(|followed| followed.came_back).sum();
    let events: usize = seen.followed.iter().map(|followed| followed.numbers.len()).sum();
    let none = |what, measured: usize, detail| Row {
        what,
        measured: measured as f64,
        bar: Bar::AtMost(0.0),
        detail,
    };
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    vec![
        Row {
            what: "requests a second",
            measured: (latencies.len() + asked.failures.len()) as f64 / asked.time.as_secs_f64(),
            bar: Bar::AtLeast(f64::from(rollout.load.per_second) * 0.9),
            detail: format!(
                "p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms",
                latency(50),
                latency(99),
                latency(100)
            ),
        },
        none(
            "requests that failed",
            asked.failures.len(),
            format!(
                "of {}, {} of them changes; {} sent again after the end of a kept connection {}",
                latencies.len(),
                asked.changes,
                asked.sent_again,
                first(&asked.failures)
            ),
        ),
        none(
            "replicas that ended badly or cut requests off",
            wrong_ends + cut_off,
            format!("of {} replaced in {:.1} s", seen.stopped.len(), seen.took.as_secs_f64()),
        ),
        none(
            "operations that were lost",
            lost.len(),
            format!("of {} {lost:?}", seen.states.len()),
        ),
        none(
            "evictions beyond one of each pod",
            twice,
            format!("of {}", seen.evictions.len()),
        ),
        none(
            "readers of operations with a gap",
            gaps + refusals.len(),
            format!(
                "of {}; {events} events, {came_back} times come back {refusals:?}",
                seen.followed.len()
            ),
        ),
        none(
            "nodes that the reader of nodes knows otherwise",
            seen.differs.len(),
            format!("{} times come back, {} times anew", seen.watched.0, seen.watched.1),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }
}
