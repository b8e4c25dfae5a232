//! knm-bench-operations: measures operations of the built service beside kubectl, and its audit log when it is long.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum as _};
use knm_bench::operations::{Measure, Operations};
use knm_bench::program::{self, print};
use knm_bench::table::Row;
use knm_bench::{Failure, service};

/// A run that takes longer than this has met something that hangs.
const LIMIT: Duration = Duration::from_secs(45 * 60);

const DETAILS: &str = "\
What is measured:
  The program starts a real API server with etcd from KUBEBUILDER_ASSETS, afresh for each comparison, and creates nodes and \
pods in it. Hollow kubelets let pods run, and end 0.25 s after they were told to. The service runs as it is built, with its \
defaults and a fresh SQLite file, but labels without its limit of 500 requests a second: with that 1,000 nodes take 2 s at least; kubectl is the one on the PATH, with its defaults, which include how many requests a second \
it allows itself. Both do the same work in turns; the service is timed from the request until its operation has succeeded, \
kubectl from its start to its end. A ratio is that of the medians. After each turn the cluster is asked whether the work was \
done. The audit log is filled with SQL, and its first pages are asked for over HTTP by the filters that have an index, which are \
all but `reason`. Nothing else should run.

  Without kubectl the times of the service are told alone, and no ratio is checked.

Exit codes:
  0  every bar that was checked is cleared
  1  a bar is missed
  2  given up: nothing was found out about the bars

Examples:
  cargo build --release && cargo run --release -p knm-bench --bin knm-bench-operations
  cargo run --release -p knm-bench --bin knm-bench-operations -- --only label,drain --rounds 5";

/// Measures operations of kube-node-manager beside kubectl on a real API server, and its audit log with a million records.
#[derive(Debug, Parser)]
#[command(name = "knm-bench-operations", version, after_help = DETAILS)]
struct Arguments {
    /// The built service [default: KNM_BINARY, else release/kube-node-manager below CARGO_TARGET_DIR, else below ./target]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Measure these only, separated by commas
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    only: Vec<Measure>,
    /// How often each side has its turn in a comparison
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
}

fn main() -> ExitCode {
    program::exit(measure(&Arguments::parse()))
}

/// Whether every bar is cleared.
fn measure(arguments: &Arguments) -> Result<bool, Failure> {
    let binary = service::binary(arguments.binary.as_deref())?;
    let wanted = match arguments.only.as_slice() {
        [] => Measure::value_variants().to_vec(),
        only => only.to_vec(),
    };
    let rounds = usize::from(arguments.rounds);
    let rows = program::run(LIMIT, async move { run(binary, rounds, &wanted).await })?;
    program::are_cleared(&rows)
}

async fn run(binary: PathBuf, rounds: usize, wanted: &[Measure]) -> Result<Vec<Row>, Failure> {
    let operations = Operations::new(&binary, rounds).await?;
    match operations.compared_with() {
        Some(version) => print(&format!("{}, beside kubectl: {version}", binary.display()))?,
        None => print(&format!(
            "{}\nNO KUBECTL ON THE PATH: nothing is compared, only the times of the service are told",
            binary.display()
        ))?,
    }
    let mut report = |row: &Row| print(&row.to_string());
    operations.run(wanted, &mut report).await
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_tells_what_can_be_chosen() {
        let mut command = Arguments::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        for word in [
            "--only",
            "audit-postgres",
            "--rounds",
            "KUBEBUILDER_ASSETS",
            "Exit codes",
        ] {
            assert!(help.contains(word), "{word} is not in {help}");
        }
    }

    #[test]
    fn single_rows_are_chosen_by_name() {
        let arguments = Arguments::try_parse_from(["x", "--only", "label,audit-sqlite"]).unwrap();
        assert_eq!(arguments.only, [Measure::Label, Measure::AuditSqlite]);
        for wrong in [["x", "--only", "everything"], ["x", "--rounds", "0"]] {
            assert!(Arguments::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }
}
