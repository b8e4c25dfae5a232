//! knm-bench-soak: shows that hours of mixed load leave the service as it was.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use knm_bench::program::{self, print};
use knm_bench::soak::{self, Database, Plan};
use knm_bench::{Failure, service};

/// What a run may take beyond its time: to start and to end.
const AROUND: Duration = Duration::from_secs(120);

const DETAILS: &str = "\
What is done:
  The service with a simulated fleet that changes, and API tokens. Eight callers send short requests at the given rate: lists, with and \
without If-None-Match and with filters, single nodes, pods, summaries, labels, taints, cordons, plans, pages of the audit log, \
health, metrics, and what there is not. Beside them event streams come and go, nodes are drained and changed by operations that are \
followed to their end, tokens are made, used, revoked and guessed, clusters are registered and removed, templates written, and the \
audit log is exported.

What is told:
  A line for each twelfth of the run: resident memory, the part of it that no file is behind, open files, tasks, threads, requests per second, and p50 and \
p99 of four probes: /health/live, a page of 50 nodes, a node, a change of labels. After it the growth of each by a straight line \
through the time after the warm-up. A short run cannot tell a small leak from noise: a bar is missed when the growth is above it \
with a certainty of 95 %, over all of it and over its second half: a leak goes on, and what only fills up does not. Slopes are printed with their intervals. Files and tasks are counted once more at rest, after the warm-up and at the end. \
p99 is told and not judged: the machine may have had other things to do. A request that is answered with 503 or 504 is sent again, up to four times, before it counts as failed; how often that was is told.

Exit codes:
  0  memory, files, tasks and failed requests clear their bars
  1  one of them does not
  2  given up: nothing was found out about the bars

Examples:
  cargo build --release && cargo run --release -p knm-bench --bin knm-bench-soak
  cargo run --release -p knm-bench --bin knm-bench-soak -- --minutes 60 --database postgres";

/// Watches memory, files, tasks and times of kube-node-manager under mixed load.
#[derive(Debug, Parser)]
#[command(name = "knm-bench-soak", version, after_help = DETAILS)]
struct Arguments {
    /// The built service [default: KNM_BINARY, else release/kube-node-manager below CARGO_TARGET_DIR, else below ./target]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// How long the run takes: 60 is the real thing
    #[arg(long, default_value_t = 5, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(2..=1_440))]
    minutes: u64,
    /// The first minutes, in which nothing counts [default: a fifth, at least 2, at most half of the run]
    #[arg(long, value_name = "NUMBER")]
    warm_up: Option<u64>,
    /// Where the service keeps its data
    #[arg(long, value_enum, default_value_t = Database::Sqlite)]
    database: Database,
    /// Short requests per second
    #[arg(long, default_value_t = 100, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=2_000))]
    rate: u32,
    /// Nodes of the simulated fleet
    #[arg(long, default_value_t = 500, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(10..=10_000))]
    nodes: u64,
}

fn main() -> ExitCode {
    program::exit(Arguments::parse().plan().and_then(|plan| measure(&plan)))
}

impl Arguments {
    fn plan(&self) -> Result<Plan, Failure> {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let time = minutes(self.minutes);
        let warm_up = self.warm_up.map_or_else(|| Plan::usual_warm_up(time), minutes);
        if warm_up < minutes(1) || time < warm_up + minutes(1) {
            return Err(format!(
                "a warm-up of {} s is not allowed: it takes a minute at least and leaves a minute of the run at least",
                warm_up.as_secs()
            )
            .into());
        }
        Ok(Plan {
            binary: service::binary(self.binary.as_deref())?,
            database: self.database,
            time,
            warm_up,
            rate: self.rate,
            nodes: usize::try_from(self.nodes)?,
        })
    }
}

/// Whether every bar is cleared.
fn measure(plan: &Plan) -> Result<bool, Failure> {
    print(&format!(
        "{}, {:?}, {} nodes, {} short requests a second for {} s, the first {} s of them to warm up",
        plan.binary.display(),
        plan.database,
        plan.nodes,
        plan.rate,
        plan.time.as_secs(),
        plan.warm_up.as_secs()
    ))?;
    let running = plan.clone();
    let rows = program::run(plan.time + AROUND, async move { soak::run(&running, &mut print).await })?;
    program::tell(&rows)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_tells_what_is_judged() {
        let mut command = Arguments::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        for word in ["--minutes", "--database", "sqlite", "postgres", "95 %", "Exit codes"] {
            assert!(help.contains(word), "{word} is not in {help}");
        }
    }

    #[test]
    fn a_run_without_time_to_measure_is_refused() {
        let plan = |words: &[&str]| {
            let words = ["x"].iter().chain(words);
            Arguments::try_parse_from(words)
                .unwrap()
                .plan()
                .unwrap_err()
                .to_string()
        };
        assert!(plan(&["--minutes", "5", "--warm-up", "5"]).contains("300 s is not allowed"));
        assert!(plan(&["--warm-up", "0"]).contains("0 s is not allowed"));
        assert!(Arguments::try_parse_from(["x", "--minutes", "1"]).is_err());
    }
}
