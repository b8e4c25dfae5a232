//! kube-node-manager: the composition root and command line.

mod access;
mod arguments;
mod backup;
mod clusters;
mod configuration;
mod moving;
mod open_files;
mod progress;
mod registration;
mod reload;
mod serve;
mod servers;
mod shutdown;
mod signals;
mod storage;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use configuration::{ConfigurationError, Environment, Resolved, Settings};

use crate::arguments::{Arguments, Command, ConfigCommand, DocumentFormat, SecretsCommand};

/// For a wrong command line, as clap has it.
const EXIT_COMMAND_LINE: u8 = 2;
/// What `sysexits.h` calls `EX_CONFIG`.
const EXIT_CONFIGURATION: u8 = 78;

/// Why the program ends with anything but 0.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The configuration is wrong.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// The log or the metrics do not start.
    #[error(transparent)]
    Telemetry(#[from] knm_telemetry::TelemetryError),
    /// The database does not open.
    #[error(transparent)]
    Storage(#[from] storage::OpenError),
    /// The database does not migrate.
    #[error("the migrations cannot be applied")]
    Migration(#[source] knm_ports::StorageError),
    /// An argument is of no use.
    #[error("{option}: {why}")]
    CommandLine {
        /// Which one.
        option: &'static str,
        /// Why, without the text: there may be a password in it.
        why: String,
    },
    /// Nothing was moved.
    #[error(transparent)]
    Transfer(#[from] knm_domain::TransferError),
    /// A signal came.
    #[error("interrupted by {signal}: {left}")]
    Interrupted {
        /// Its name.
        signal: &'static str,
        /// How things are now.
        left: &'static str,
    },
    /// A signal came while it was not known whether everything was moved.
    #[error(
        "interrupted by {signal} while the transaction ended: {place} has either all or nothing, which --dry-run tells"
    )]
    Uncertain {
        /// Its name.
        signal: &'static str,
        /// The target.
        place: String,
    },
    /// A cluster cannot be used.
    #[error(transparent)]
    Cluster(#[from] clusters::OpenError),
    /// Callers cannot sign in as it is configured, or a token is not made or revoked.
    #[error("{why}")]
    SignIn {
        /// Why.
        why: String,
    },
    /// The certificate cannot be served.
    #[error(transparent)]
    Tls(#[from] knm_http::TlsError),
    /// The keys that secrets are sealed with cannot be read.
    #[error(transparent)]
    Keys(#[from] knm_secrets::KeyFileError),
    /// There are no keys that secrets could be sealed with.
    #[error("secrets.key_file is not set: there are no keys that secrets could be sealed with")]
    NoKeys,
    /// What is stored cannot be sealed anew.
    #[error("the stored secrets cannot be sealed anew")]
    Rotation(#[source] knm_ports::StorageError),
    /// Some of what is stored cannot be opened.
    #[error("{count} stored secrets cannot be opened with the keys of secrets.key_file; they were left as they are")]
    NotRotated {
        /// How many.
        count: usize,
    },
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on")]
    Listen {
        /// The address.
        address: String,
        #[source]
        source: std::io::Error,
    },
    /// The operating system refuses something.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::try_parse().unwrap_or_else(|error| refuse(&error));
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            match failure {
                Failure::Configuration(_) => ExitCode::from(EXIT_CONFIGURATION),
                Failure::CommandLine { .. } => ExitCode::from(EXIT_COMMAND_LINE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    let environment = configuration::environment();
    match command {
        Command::Serve(arguments) => serve::run(&arguments, &environment),
        Command::Migrate(arguments) => migrate(arguments.config.as_deref(), &environment),
        Command::MigrateData(arguments) => moving::run(&arguments, &environment),
        Command::Backup(arguments) => backup::back_up(&arguments, &environment),
        Command::Restore(arguments) => backup::restore(&arguments, &environment),
        Command::Token(command) => access::command(command, &environment),
        Command::Config(ConfigCommand::Show(arguments)) => {
            let resolved = Resolved::load(arguments.config.as_deref(), &environment)?;
            warn(&resolved);
            print(&configuration::effective(&resolved))
        }
        Command::Config(ConfigCommand::Convert { old: Some(old), .. }) => {
            let resolved = Resolved::load(Some(&old), &Environment::new())?;
            print(&configuration::converted(&resolved))
        }
        Command::Config(ConfigCommand::Convert { old: None, .. }) => {
            print(&configuration::variables_today(&environment)?)
        }
        Command::Openapi { format } => print(&match format {
            DocumentFormat::Yaml => knm_http::openapi_yaml(),
            DocumentFormat::Json => knm_http::openapi_json(),
        }),
        Command::Secrets(SecretsCommand::GenerateKey { id }) => registration::generate_key(id.as_deref()),
        Command::Secrets(SecretsCommand::Rotate(arguments)) => {
            registration::rotate(arguments.config.as_deref(), &environment)
        }
        Command::Version => print(&format!("kube-node-manager {}\n", env!("CARGO_PKG_VERSION"))),
    }
}

fn migrate(file: Option<&Path>, environment: &Environment) -> Result<(), Failure> {
    let resolved = Resolved::load(file, environment)?;
    warn(&resolved);
    let settings = Settings::from(&resolved);
    let applied = serve::runtime()?.block_on(async {
        let storage = storage::open(&settings.database).await?;
        let applied = storage.admin.migrate().await.map_err(Failure::Migration);
        storage.admin.close().await;
        applied
    })?;
    print(&format!(
        "{} {}: {applied} migrations applied\n",
        settings.database.kind.as_str(),
        settings.database.place
    ))
}

fn warn(resolved: &Resolved) {
    for warning in &resolved.warnings {
        // Whoever closed stderr does not want to know.
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
}

/// Prints to stdout; a reader who has seen enough, such as `head`, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(source) if source.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::System {
            what: "stdout cannot be written",
            source,
        }),
        _ => Ok(()),
    }
}

/// Ends the program as clap would, but shows no password of an argument that it did not expect.
fn refuse(error: &clap::Error) -> ! {
    let masks = std::env::args().skip(1).filter_map(|argument| {
        let masked = configuration::masked(&argument);
        (masked != argument).then_some((argument, masked))
    });
    let told = error.render().to_string();
    let safe = masks.fold(told.clone(), |text, (argument, masked)| {
        text.replace(&argument, &masked)
    });
    if safe == told {
        error.exit();
    }
    // Whoever closed stderr does not want to know.
    let _ = write!(std::io::stderr(), "{safe}");
    std::process::exit(error.exit_code());
}

/// Says on stderr why the program ends, with everything that lies below.
fn complain(failure: &Failure) {
    let _ = writeln!(std::io::stderr(), "error: {}", knm_ports::chain(failure));
}
