//! knm-bench-faults: breaks the network to PostgreSQL and to an API server, and measures what the service promises meanwhile.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use knm_bench::faults::{self, Measured, Plan};
use knm_bench::program::{self, print};
use knm_bench::{Failure, service};

/// What each trouble may take beyond its time: to recover, and for the operation to end.
const AROUND: Duration = Duration::from_secs(180);

const DETAILS: &str = "\
What is done:
  The service runs on a real PostgreSQL and a real API server (from KUBEBUILDER_ASSETS), each behind a proxy that can delay, lose, cut \
off, swallow, slow down and refuse. Each of these troubles lasts for some seconds, first before PostgreSQL and then before the API \
server. All the while /health/live, /health/ready and a list of nodes are asked for four times a second, and a label is set twice a second, and \
an operation on 20 nodes is under way that began before.

What is promised, and told in a column each:
  /health/live          is answered with 200, whatever happens
  /health/ready         is answered within the two seconds of its ping; 503 when PostgreSQL cannot be used, never because of a cluster
  reads                 are answered with 200 from memory, and say that they are stale once that is known
  writes                are made, or refused as a problem, within server.write_timeout (30 s)
  operation under way   ends after the trouble
  changes and records   what was accepted was made and has one record that says so; what was made has a record
  writes again after    the end of the trouble, until the first change is made
  connections           are as few as before, and none is lent for ever
  The table is in Markdown. What was not kept is marked as BROKEN.

Exit codes:
  0  every promise was kept
  1  one was not
  2  given up

Example:
  cargo build --release && cargo run --release -p knm-bench --bin knm-bench-faults";

/// Measures what kube-node-manager promises while networks break.
#[derive(Debug, Parser)]
#[command(name = "knm-bench-faults", version, after_help = DETAILS)]
struct Arguments {
    /// The built service [default: KNM_BINARY, else release/kube-node-manager below CARGO_TARGET_DIR, else below ./target]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// How long each trouble lasts
    #[arg(long, default_value_t = 20, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(3..=600))]
    seconds: u64,
    /// Only troubles with this in their names, such as "half-open" or "PostgreSQL: stopped"
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

fn main() -> ExitCode {
    program::exit(measure(&Arguments::parse()))
}

/// Whether every promise is kept.
fn measure(arguments: &Arguments) -> Result<bool, Failure> {
    let plan = Plan {
        binary: service::binary(arguments.binary.as_deref())?,
        time: Duration::from_secs(arguments.seconds),
        only: arguments.only.clone(),
    };
    let limit = (plan.time + AROUND) * u32::try_from(faults::troubles().len())?;
    print(&faults::head())?;
    let all = program::run(limit, async move {
        faults::run(&plan, &mut |measured: &Measured| print(&measured.to_string())).await
    })?;
    let broken = all.iter().filter(|measured| !measured.is_kept()).count();
    if 0 < broken {
        print(&format!("\nin {broken} of {} troubles a promise was broken", all.len()))?;
    }
    Ok(broken == 0)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_the_help_names_each_promise() {
        let mut command = Arguments::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        for word in faults::COLUMNS
            .iter()
            .chain(&["--seconds", "--only", "KUBEBUILDER_ASSETS", "Exit codes"])
        {
            assert!(help.contains(word), "{word} is not in {help}");
        }
    }
}
