//! knm-bench: measures the built service against a bare server in the same run.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::{Parser, Subcommand};
use knm_bench::cores::Cores;
use knm_bench::program::{self, print};
use knm_bench::suite::Suite;
use knm_bench::table::Row;
use knm_bench::{Failure, bare, service};

/// A run that takes longer than this has met something that hangs.
const LIMIT: Duration = Duration::from_secs(175);

const DETAILS: &str = "\
What is measured:
  The program starts the service on core 0 with a simulated fleet of 5,000 nodes, and next to it, on the same core, \
hyper alone with the very bytes that the service sent. 64 connections from the other cores ask the two in turn, in \
rounds of 1.5 seconds. A ratio is the median over the rounds of answers per second of the service, divided by those of \
hyper. The same list is asked for again and again, so what the service keeps of its answers counts. Memory is what \
/proc/PID/status says, the start is the median of 5. It takes about 90 seconds; nothing else should run.

  \"busy\" is the part of a round in which a server was on its core. Below 90 % the load was the limit, not the \
server, and a ratio near 1 says less than it seems.

Exit codes:
  0  measured (with --check: and every bar is cleared)
  1  with --check: a bar is missed
  2  given up: nothing was found out about the bars

Examples:
  cargo build --release && cargo run --release -p knm-bench
  cargo run --release -p knm-bench -- --binary ./kube-node-manager --check";

/// Measures kube-node-manager against a bare server in the same run, on one core.
#[derive(Debug, Parser)]
#[command(name = "knm-bench", version, after_help = DETAILS, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// The built service [default: KNM_BINARY, else release/kube-node-manager below CARGO_TARGET_DIR, else below ./target]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Exit with 1 when a bar is missed
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send the bytes of a file as the answer to everything, and an empty 304 under /empty
    #[command(hide = true)]
    Bare {
        /// The port on loopback
        port: u16,
        /// The file
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program::exit(match &arguments.command {
        Some(Command::Bare { port, file }) => serve_bare(*port, file).map(|()| true),
        None => measure(&arguments),
    })
}

fn serve_bare(port: u16, file: &Path) -> Result<(), Failure> {
    let body = Bytes::from(std::fs::read(file)?);
    // The same kind of runtime as the service has, so that the ratio is about what it does on it.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(bare::serve(port, body))
}

/// Whether every bar is cleared, or nobody asked for that.
fn measure(arguments: &Arguments) -> Result<bool, Failure> {
    let binary = service::binary(arguments.binary.as_deref())?;
    // Before the runtime starts, because its threads stay where their parent was.
    let cores = Cores::claim()?;
    let rows = program::run(LIMIT, async move { run(&binary, cores).await })?;
    Ok(program::are_cleared(&rows)? || !arguments.check)
}

async fn run(binary: &Path, cores: Cores) -> Result<Vec<Row>, Failure> {
    print(&format!("{}: {cores}", binary.display()))?;
    let mut report = |row: &Row| print(&row.to_string());
    Suite::new(binary, cores)?.run(&mut report).await
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_tells_of_everything_but_the_bare_server() {
        let mut command = Arguments::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        for word in ["--binary", "KNM_BINARY", "--check", "Exit codes"] {
            assert!(help.contains(word), "{word} is not in {help}");
        }
        assert!(!help.contains("bare <PORT>"), "{help}");
    }

    #[test]
    fn the_bare_server_takes_a_port_and_a_file() {
        let arguments = Arguments::try_parse_from(["knm-bench", "bare", "80", "body"]).unwrap();
        assert!(matches!(arguments.command, Some(Command::Bare { port: 80, file }) if file == Path::new("body")));
        assert!(Arguments::try_parse_from(["knm-bench", "bare", "80"]).is_err());
    }
}
