//! `backup` and `restore`: copies of the file of the database.

use std::fmt::Write as _;
use std::path::Path;
use std::pin::Pin;

use knm_ports::Clock as _;
use knm_system::SystemClock;
use tokio::sync::oneshot;

use crate::arguments::{BackupArguments, RestoreArguments};
use crate::configuration::{Environment, Resolved, Settings, masked};
use crate::signals::Endings;
use crate::storage::{Copied, DatabaseSettings, InTheWay, OpenError};
use crate::{Failure, print, serve, storage, warn};

/// Writes a backup.
///
/// # Errors
/// [`Failure`]; then there is none.
pub fn back_up(arguments: &BackupArguments, environment: &Environment) -> Result<(), Failure> {
    refuse_password("TO", &arguments.to)?;
    let settings = database(arguments.file.config.as_deref(), environment)?;
    let in_the_way = match arguments.overwrite {
        true => InTheWay::Replaced,
        false => InTheWay::Kept,
    };
    let copied = unless_interrupted("there is no new backup", |ended| {
        storage::back_up(&settings, &arguments.to, in_the_way, ended)
    })?;
    print(&format!(
        "{}: {} of {}; it is whole\n{}it holds hashes of tokens, sealed credentials and the audit log: keep it as safe as the database\n",
        arguments.to.display(),
        size(copied.bytes),
        settings.place,
        tell(&copied)
    ))
}

/// Puts a backup in the place of the database.
///
/// # Errors
/// [`Failure`]; then the database is as it was.
pub fn restore(arguments: &RestoreArguments, environment: &Environment) -> Result<(), Failure> {
    refuse_password("FROM", &arguments.from)?;
    let settings = database(arguments.file.config.as_deref(), environment)?;
    let in_the_way = match arguments.discard_replaced {
        true => InTheWay::Replaced,
        false => InTheWay::Kept,
    };
    let now = SystemClock.now().to_whole_seconds().replace(['-', ':'], "");
    let suffix = format!("replaced-{now}");
    let copied = unless_interrupted("the database is as it was", |ended| {
        storage::restore(&settings, &arguments.from, in_the_way, &suffix, ended)
    })?;
    let kept = match &copied.kept {
        Some(kept) => format!("the database that was there is {} now\n", kept.display()),
        None => String::new(),
    };
    print(&format!(
        "{}: restored from {}\n{}{kept}{}",
        settings.place,
        arguments.from.display(),
        tell(&copied),
        cautions(&copied)
    ))
}

/// Does `work`, which ends without leaving anything behind when a signal comes.
fn unless_interrupted<W: Future<Output = Result<Copied, OpenError>>>(
    left: &'static str,
    work: impl FnOnce(Pin<Box<dyn Future<Output = ()>>>) -> W,
) -> Result<Copied, Failure> {
    serve::runtime()?.block_on(async {
        let mut endings = Endings::listen()?;
        let (tell, mut told) = oneshot::channel();
        let ended = async move {
            let ending = endings.next().await;
            // Who does not want to know has ended.
            let _ = tell.send(ending);
        };
        match (work(Box::pin(ended)).await, told.try_recv()) {
            (Ok(copied), _) => Ok(copied),
            (Err(_), Ok(ending)) => Err(Failure::Interrupted {
                signal: ending.as_str(),
                left,
            }),
            (Err(error), Err(_)) => Err(error.into()),
        }
    })
}

/// What was over or revoked after the backup was made is not so any more.
fn cautions(copied: &Copied) -> String {
    let mut text = String::new();
    // Writing to a text does not fail.
    if 0 < copied.unended_operations {
        let _ = writeln!(
            text,
            "warning: operations in it that are not over: {}; a service goes on with them as soon as it starts, also with drains that ended since; \
             look at them with `GET /api/v1/operations` then, and stop them with `POST /api/v1/operations/{{id}}/cancel`",
            copied.unended_operations
        );
    }
    if 0 < copied.active_tokens {
        let _ = writeln!(
            text,
            "warning: API tokens in it that are accepted: {}, also those that were revoked since; compare `token list` and use `token revoke` \
             before the service starts",
            copied.active_tokens
        );
    }
    if 0 < copied.repairing_bindings {
        let _ = writeln!(
            text,
            "warning: template bindings in it that repair nodes: {}, also those that were removed since; look at them with `GET /api/v1/bindings` \
             as soon as the service starts, and remove them with `DELETE /api/v1/bindings/{{name}}`",
            copied.repairing_bindings
        );
    }
    text
}

/// `migrate-data` takes connection strings; here a file would be called like one.
fn refuse_password(option: &'static str, file: &Path) -> Result<(), Failure> {
    let text = file.display().to_string();
    if masked(&text) == text {
        return Ok(());
    }
    Err(Failure::CommandLine {
        option,
        why: "the path of a file is expected, and not a connection string; one that looks like that begins with ./"
            .to_owned(),
    })
}

fn database(file: Option<&Path>, environment: &Environment) -> Result<DatabaseSettings, Failure> {
    let resolved = Resolved::load(file, environment)?;
    warn(&resolved);
    Ok(Settings::from(&resolved).database)
}

fn tell(copied: &Copied) -> String {
    let width = copied.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = format!("schema version {}\n", copied.schema);
    for (name, rows) in &copied.rows {
        // Writing to a text does not fail.
        let _ = writeln!(text, "  {name:width$}  {rows:>9}");
    }
    text
}

fn size(bytes: u64) -> String {
    match bytes {
        0..=1_048_575 => format!("{} KiB", bytes.div_ceil(1_024)),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
