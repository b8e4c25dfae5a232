//! knm-bench-scale: measures what nodes, pods and clusters cost, and the law that they follow.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum as _};
use knm_bench::program::{self, print};
use knm_bench::scale::{self, Measure, Plan, Wanted};
use knm_bench::{Failure, service};

/// After this long a run is given up: everything together takes about ten minutes.
const LIMIT: Duration = Duration::from_secs(45 * 60);

const DETAILS: &str = "\
What is measured:
  nodes        one simulated cluster of 500, 1,000, 2,000 and 5,000 nodes, with the 4.4 pods on a node that the applications of the simulation have, \
and with 30: 150,000 pods in the end
  clusters     1, 10, 25 and 50 simulated clusters of 500 nodes
  api-server   a real API server from KUBEBUILDER_ASSETS, with nodes and pods that are made first

Of each size: resident memory once everything is known, after the list of all nodes of each cluster was asked for once (rendered nodes are kept), and at most under load; the part of a \
core while 20 nodes a second of each cluster change, and under load. A straight line through memory after the lists says what one of them takes. What the simulation \
itself takes is in it. Memory is the same on a busy machine; times are not.

Exit codes:
  0  measured
  2  given up

Examples:
  cargo build --release && cargo run --release -p knm-bench --bin knm-bench-scale
  cargo run --release -p knm-bench --bin knm-bench-scale -- --only clusters";

/// Measures what nodes, pods and clusters cost kube-node-manager.
#[derive(Debug, Parser)]
#[command(name = "knm-bench-scale", version, after_help = DETAILS)]
struct Arguments {
    /// The built service [default: KNM_BINARY, else release/kube-node-manager below CARGO_TARGET_DIR, else below ./target]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Measure these only, separated by commas
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    only: Vec<Measure>,
    /// How long each size is looked at, idle and again under load
    #[arg(long, default_value_t = 5, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Nodes on the real API server
    #[arg(long, default_value_t = 2_000, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=20_000))]
    api_nodes: u64,
    /// Pods on each of them
    #[arg(long, default_value_t = 10, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(0..=100))]
    api_pods_per_node: u64,
}

fn main() -> ExitCode {
    // It has no bars.
    program::exit(Arguments::parse().plan().and_then(measure).map(|()| true))
}

impl Arguments {
    fn plan(&self) -> Result<Plan, Failure> {
        Ok(Plan {
            binary: service::binary(self.binary.as_deref())?,
            measures: match self.only.as_slice() {
                [] => Measure::value_variants().to_vec(),
                only => only.to_vec(),
            },
            time: Duration::from_secs(self.seconds),
            wanted: Wanted {
                nodes: usize::try_from(self.api_nodes)?,
                pods_per_node: usize::try_from(self.api_pods_per_node)?,
            },
        })
    }
}

fn measure(plan: Plan) -> Result<(), Failure> {
    program::run(LIMIT, async move { scale::run(&plan, &mut print).await })
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
            "nodes",
            "clusters",
            "api-server",
            "KUBEBUILDER_ASSETS",
            "Exit codes",
        ] {
            assert!(help.contains(word), "{word} is not in {help}");
        }
        let arguments = Arguments::try_parse_from(["x", "--only", "clusters,api-server"]).unwrap();
        assert_eq!(arguments.only, [Measure::Clusters, Measure::ApiServer]);
        assert!(Arguments::try_parse_from(["x", "--only", "everything"]).is_err());
    }
}
