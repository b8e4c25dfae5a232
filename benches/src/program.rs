//! What the programs have in common: they end in time, take what they started with them, and say by their exit code what came out.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::Failure;
use crate::table::Row;

/// The exit code of a run that was given up, which says nothing about any bar.
const EXIT_GIVEN_UP: u8 = 2;

/// Ends a program: 0 when all bars are cleared, 1 when one is not, 2 with the reason when the run was given up.
pub fn exit(are_cleared: Result<bool, Failure>) -> ExitCode {
    match are_cleared {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(std::io::stderr(), "error: {failure}");
            ExitCode::from(EXIT_GIVEN_UP)
        }
    }
}

/// Whether every bar is cleared; says how many are not.
pub fn are_cleared(rows: &[Row]) -> Result<bool, Failure> {
    let missed = rows.iter().filter(|row| !row.passes()).count();
    if 0 < missed {
        print(&format!("{missed} of {} bars missed", rows.len()))?;
    }
    Ok(missed == 0)
}

/// Prints all rows; whether every bar is cleared.
pub fn tell(rows: &[Row]) -> Result<bool, Failure> {
    for row in rows {
        print(&row.to_string())?;
    }
    are_cleared(rows)
}

/// Does `work` in a runtime of its own, for as long as `limit` and until somebody ends it.
pub fn run<T: Send + 'static>(
    limit: Duration,
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        // A task of its own, because the servers of the tests panic where they cannot go on.
        let mut run = tokio::spawn(work);
        // Whichever ends first, the runtime drops the run, and every child with it.
        tokio::select! {
            done = tokio::time::timeout(limit, &mut run) => {
                done.map_err(|_| format!("not finished after {} s", limit.as_secs()))?
                    .map_err(|_| "a server of the run broke, see above")?
            }
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
            _ = terminated.recv() => Err("terminated".into()),
        }
    })
}

/// Prints a line at once, also where nobody sits at a terminal.
pub fn print(line: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_long_is_given_up_and_what_panics_is_a_failure() {
        let forever = run(Duration::from_millis(10), std::future::pending::<Result<(), Failure>>());
        assert!(forever.unwrap_err().to_string().contains("not finished"));
        let broken: Result<(), Failure> = run(Duration::from_secs(60), async {
            assert!(std::env::args().next().is_none(), "there is always a program");
            Ok(())
        });
        assert!(broken.unwrap_err().to_string().contains("broke"));
        assert_eq!(run(Duration::from_secs(60), async { Ok(7) }).unwrap(), 7);
    }
}
