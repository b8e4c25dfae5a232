//! `migrate-data`: moves all that one database holds into another one.

use std::fmt::Write as _;
use std::io::Write as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use knm_domain::{Phase, Transfer, TransferError, TransferProgress, TransferReport};
use knm_ports::{HoldError, Purpose, StoreContent};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::arguments::MoveArguments;
use crate::configuration::{Environment, Origin, Resolved, Settings, Value, kind_of_place};
use crate::signals::{Ending, Endings};
use crate::storage::{DatabaseSettings, OpenError};
use crate::{Failure, print, progress, serve, storage, warn};

/// How long saying goodbye to a database may take; what is not finished is undone without that, too.
const FAREWELL: Duration = Duration::from_secs(2);
/// What stands before the name of a variable.
const BY_VARIABLE: &str = "env:";

/// Moves everything, or only looks whether that would work.
///
/// # Errors
/// [`Failure`]; then nothing was moved.
pub fn run(arguments: &MoveArguments, environment: &Environment) -> Result<(), Failure> {
    let from = database("--from", arguments.from.as_deref(), arguments, environment)?;
    let to = database("--to", arguments.to.as_deref(), arguments, environment)?;
    let (report, took) = serve::runtime()?.block_on(transfer(&from, &to, arguments.dry_run))?;
    print(&format!(
        "from {}\nto   {}\n{}",
        from.place,
        to.place,
        tell(&report, took, arguments.dry_run)
    ))
}

/// The database that an option names, or that of the configuration.
fn database(
    option: &'static str,
    text: Option<&str>,
    arguments: &MoveArguments,
    environment: &Environment,
) -> Result<DatabaseSettings, Failure> {
    let mut resolved = Resolved::load(arguments.file.config.as_deref(), environment)?;
    match text {
        None => warn(&resolved),
        Some(text) => {
            let wrong = |why: String| Failure::CommandLine { option, why };
            let text = match text.strip_prefix(BY_VARIABLE) {
                None => text,
                // A shell may have put the variable's value there.
                Some(name) if !is_name(name) => {
                    let why = "the name of a variable stands after env:, without $: letters, digits and _";
                    return Err(wrong(why.to_owned()));
                }
                Some(name) => environment
                    .get(name)
                    .map(String::as_str)
                    .ok_or_else(|| wrong(format!("the variable {name} is not set")))?,
            };
            let kind = kind_of_place(text).map_err(wrong)?.as_str().to_owned();
            resolved.set("database.type", Value::Text(kind), Origin::Option(option));
            resolved.set("database.dsn", Value::Text(text.to_owned()), Origin::Option(option));
        }
    }
    Ok(Settings::from(&resolved).database)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

async fn transfer(
    from: &DatabaseSettings,
    to: &DatabaseSettings,
    is_rehearsal: bool,
) -> Result<(TransferReport, Duration), Failure> {
    let mut endings = Endings::listen()?;
    let started = Instant::now();
    let (source, target) = tokio::select! {
        held = hold_both(from, to, is_rehearsal) => held?,
        // What is held or still connecting goes with this.
        ending = endings.next() => return Err(interrupted(ending)),
    };
    let done = move_between(&source, &target, is_rehearsal, &mut endings).await;
    for store in [&target, &source] {
        // What hangs now is undone when the connection goes.
        drop(timeout(FAREWELL, store.close()).await);
    }
    Ok((done?, started.elapsed()))
}

async fn hold_both(
    from: &DatabaseSettings,
    to: &DatabaseSettings,
    is_rehearsal: bool,
) -> Result<(Arc<dyn StoreContent>, Arc<dyn StoreContent>), Failure> {
    let source = storage::hold(from, Purpose::Read).await?;
    match hold_target(&source, to, is_rehearsal).await {
        Ok(target) => Ok((source, target)),
        Err(failure) => {
            source.close().await;
            Err(failure)
        }
    }
}

/// A target that is refused was not made or changed before: to be filled it is held only after somebody looked.
async fn hold_target(
    source: &Arc<dyn StoreContent>,
    to: &DatabaseSettings,
    is_rehearsal: bool,
) -> Result<Arc<dyn StoreContent>, Failure> {
    let hold = |purpose| async move {
        let held = storage::hold(to, purpose).await;
        held.map_err(|error| same(&source.place(), error))
    };
    let target = hold(Purpose::Rehearse).await?;
    if is_rehearsal {
        return Ok(target);
    }
    let transfer = Transfer {
        source: Arc::clone(source),
        target: Arc::clone(&target),
        progress: watch::Sender::new(TransferProgress::START),
    };
    let checked = transfer.check().await;
    target.close().await;
    checked?;
    hold(Purpose::Fill).await
}

/// That a database is held by this very process is told in other words.
fn same(source: &str, error: OpenError) -> Failure {
    match error {
        OpenError::Hold(HoldError::InUse { place, .. }) if place == source => Failure::CommandLine {
            option: "--to",
            why: format!("it is the same as --from: {place}"),
        },
        error => error.into(),
    }
}

async fn move_between(
    source: &Arc<dyn StoreContent>,
    target: &Arc<dyn StoreContent>,
    is_rehearsal: bool,
    endings: &mut Endings,
) -> Result<TransferReport, Failure> {
    let (progress, told) = watch::channel(TransferProgress::START);
    let showing = tokio::spawn(progress::show(told.clone()));
    let transfer = Transfer {
        source: Arc::clone(source),
        target: Arc::clone(target),
        progress,
    };
    let done = until_interrupted(&transfer, is_rehearsal, &told, endings).await;
    drop(transfer);
    // It ends by itself and has cleared its line then.
    drop(showing.await);
    done
}

async fn until_interrupted(
    transfer: &Transfer,
    is_rehearsal: bool,
    told: &watch::Receiver<TransferProgress>,
    endings: &mut Endings,
) -> Result<TransferReport, Failure> {
    let work = async {
        match is_rehearsal {
            true => transfer.rehearse().await,
            false => transfer.run().await,
        }
    };
    let mut work = pin!(work);
    let mut is_told_to_wait = false;
    loop {
        tokio::select! {
            done = &mut work => return done.map_err(|error: TransferError| error.into()),
            ending = endings.next() => {
                if told.borrow().phase != Phase::Keeping {
                    return Err(interrupted(ending));
                }
                let signal = ending.as_str();
                // Whether a transaction that is ending has ended cannot be told: that is waited for, as long as somebody wants to.
                if is_told_to_wait {
                    return Err(Failure::Uncertain { signal, place: transfer.target.place() });
                }
                is_told_to_wait = true;
                // Whoever closed stderr does not want to know.
                let _ = writeln!(
                    std::io::stderr(),
                    "{signal}: the transaction is ending, which is waited for; another signal ends this without knowing whether everything was moved"
                );
            }
        }
    }
}

fn interrupted(ending: Ending) -> Failure {
    Failure::Interrupted {
        signal: ending.as_str(),
        left: "nothing was moved; the source is as it was, and the target got no row",
    }
}

fn tell(report: &TransferReport, took: Duration, is_rehearsal: bool) -> String {
    let width = report.tables.iter().map(|table| table.name.len()).max().unwrap_or(0);
    let mut text = format!("{:width$}  {:>12}  {:64}  {}\n", "TABLE", "ROWS", "SHA-256", "TARGET");
    let target = match is_rehearsal {
        true => "not written",
        false => "the same",
    };
    for table in &report.tables {
        let (name, rows, checksum) = (table.name, table.rows, &table.checksum);
        // Writing to a text does not fail.
        let _ = writeln!(text, "{name:width$}  {rows:>12}  {checksum}  {target}");
    }
    let rows: u64 = report.tables.iter().map(|table| table.rows).sum();
    let (tables, seconds) = (report.tables.len(), took.as_secs_f64());
    let _ = match is_rehearsal {
        true => writeln!(
            text,
            "dry run: nothing was written; {rows} rows of {tables} tables were read in {seconds:.1} s and would be moved"
        ),
        false => writeln!(
            text,
            "moved {rows} rows of {tables} tables in {seconds:.1} s; each was read back before the end: counts and checksums are the same on both sides"
        ),
    };
    let _ = match (report.is_schema_new, is_rehearsal) {
        (true, true) => writeln!(
            text,
            "the target has no schema yet; it would get version {}",
            report.schema
        ),
        (true, false) => writeln!(text, "the target got schema version {}", report.schema),
        (false, _) => writeln!(text, "both have schema version {}", report.schema),
    };
    if !report.seal_keys.is_empty() {
        let keys: Vec<&str> = report.seal_keys.iter().map(String::as_str).collect();
        let _ = writeln!(
            text,
            "the credentials of registered clusters stay sealed: the service needs secrets.key_file with the keys {} there, too",
            keys.join(", ")
        );
    }
    text
}
