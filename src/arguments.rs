//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::configuration::DemoSetting;

const EXAMPLES: &str = "Examples:
  kube-node-manager serve --demo                     a simulated fleet, no cluster or database needed
  kube-node-manager serve                            the current context of your kubeconfig
  kube-node-manager serve --config config.yaml       what the file says
  PORT=9000 LOG_FORMAT=json kube-node-manager serve  variables win over the file
  kube-node-manager token create --name me --role admin   the first API token
  kube-node-manager config show                      what is in force, and why
  kube-node-manager backup knm.backup                a copy of the SQLite database, also while the service runs
  kube-node-manager migrate-data --to env:NEW_URL    everything into the empty database that NEW_URL names
  kube-node-manager openapi > api.yaml               the description of the API

The file is --config FILE, else ./config.yaml, ./config/config.yaml or ./configs/config.yaml, else none.
Exit codes: 0 after a clean shutdown, 1 when something fails, 2 for a wrong command line, 78 for a wrong configuration.";

/// A safe, audited, multi-cluster HTTP API for the nodes of Kubernetes clusters.
#[derive(Debug, Parser)]
#[command(name = "kube-node-manager", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service
    Serve(ServeArguments),
    /// Give out API tokens and take them back
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show or convert the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Apply the pending migrations of the database, then end
    Migrate(FileArguments),
    /// Move everything from one database into an empty one, such as from SQLite to PostgreSQL
    MigrateData(MoveArguments),
    /// Write what the SQLite database holds into a file, also while the service runs
    Backup(BackupArguments),
    /// Put a file that `backup` wrote in the place of the SQLite database
    Restore(RestoreArguments),
    /// Make keys for stored secrets, and go over to newer ones
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Print the OpenAPI document
    Openapi {
        /// How to write it
        #[arg(long, value_enum, default_value_t = DocumentFormat::Yaml)]
        format: DocumentFormat,
    },
    /// Print the version
    Version,
}

/// Which file to read.
#[derive(Args, Debug)]
pub struct FileArguments {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What to move where. What is left out is the database of the configuration.
#[derive(Args, Debug)]
#[group(id = "databases", required = true, multiple = true, args = ["from", "to"])]
pub struct MoveArguments {
    /// The database that is read: sqlite://PATH, postgres://…, or env:NAME for what the variable NAME says, so that no password is in the
    /// list of processes; left out: that of the configuration
    #[arg(long, value_name = "URL")]
    pub from: Option<String>,
    /// The empty database that is filled, written like --from; left out: that of the configuration
    #[arg(long, value_name = "URL")]
    pub to: Option<String>,
    /// Look at everything, read everything and write nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub file: FileArguments,
}

/// Where to write a backup.
#[derive(Args, Debug)]
pub struct BackupArguments {
    /// The file
    pub to: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub file: FileArguments,
}

/// What to restore.
#[derive(Args, Debug)]
pub struct RestoreArguments {
    /// The file
    pub from: PathBuf,
    /// Do not keep the database that is replaced
    #[arg(long)]
    pub discard_replaced: bool,
    #[command(flatten)]
    pub file: FileArguments,
}

/// How to run the service.
#[derive(Args, Debug)]
pub struct ServeArguments {
    #[command(flatten)]
    pub file: FileArguments,
    /// Simulate a fleet, with a database in a temporary folder, on loopback only
    #[arg(long)]
    pub demo: bool,
    /// How many nodes the fleet has
    #[arg(long, value_name = "N", requires = "demo", default_value_t = DemoSetting::default().nodes, value_parser = nodes)]
    pub demo_nodes: usize,
    /// How many pods each node has at least; with 0 those of its applications
    #[arg(long, value_name = "P", requires = "demo", default_value_t = DemoSetting::default().pods_per_node, value_parser = pods)]
    pub demo_pods_per_node: usize,
    /// The same seed makes the same fleet
    #[arg(long, value_name = "S", requires = "demo", default_value_t = DemoSetting::default().seed)]
    pub demo_seed: u64,
    /// How many nodes change per second; with 0 the fleet stands still
    #[arg(long, value_name = "R", requires = "demo", default_value_t = DemoSetting::default().changes_per_second, value_parser = rate)]
    pub demo_changes_per_second: f64,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print what is in force, each value with its origin, secrets masked
    Show(FileArguments),
    /// Print a file of the first version in today's form, secrets included
    Convert {
        /// The file of the first version
        #[arg(required_unless_present = "env", conflicts_with = "env")]
        old: Option<PathBuf>,
        /// Print what the variables mean today that are set here, secrets masked
        #[arg(long)]
        env: bool,
    },
}

/// What to do with API tokens. All but `generate` work on the database of the configuration; those of a running service, too.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, this once: only a hash of it is kept
    Create(NewTokenArguments),
    /// Print all tokens, without their secrets
    List(FileArguments),
    /// Revoke a token for good
    Revoke {
        /// Its id, which `token list` prints
        id: String,
        #[command(flatten)]
        file: FileArguments,
    },
    /// Print a token that is stored nowhere: for the file of auth.bootstrap_token_file
    Generate,
}

/// What a token is to be like.
#[derive(Args, Debug)]
pub struct NewTokenArguments {
    /// What people call it: it stands in the audit log and on nodes
    #[arg(long)]
    pub name: String,
    /// viewer, operator or admin
    #[arg(long)]
    pub role: String,
    /// Whether drains may be forced with it
    #[arg(long)]
    pub force: bool,
    /// A cluster that it is limited to; several times for several
    #[arg(long = "cluster", value_name = "NAME")]
    pub clusters: Vec<String>,
    /// A label selector of the nodes that it is limited to
    #[arg(long, value_name = "SELECTOR")]
    pub nodes: Option<String>,
    /// For how many days it is valid [default: 90]
    #[arg(long, value_name = "N")]
    pub days: Option<u32>,
    #[command(flatten)]
    pub file: FileArguments,
}

/// What to do about stored secrets.
#[derive(Debug, Subcommand)]
pub enum SecretsCommand {
    /// Print a line with a new key for the file that secrets.key_file names
    GenerateKey {
        /// The key's id: 1 to 32 lower case letters, digits and '-'; without it the day
        #[arg(long, value_name = "ID")]
        id: Option<String>,
    },
    /// Seal all stored secrets with the first key of the file; it may be repeated, also while the service runs
    Rotate(FileArguments),
}

/// How to write the document.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DocumentFormat {
    Yaml,
    Json,
}

fn nodes(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|nodes| (1..=10_000).contains(nodes))
        .ok_or_else(|| "a whole number from 1 to 10000 is allowed".to_owned())
}

fn pods(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|pods| (0..=250).contains(pods))
        .ok_or_else(|| "a whole number from 0 to 250 is allowed".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate| (0.0..=10_000.0).contains(rate))
        .ok_or_else(|| "a number from 0 to 10000 is allowed".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
