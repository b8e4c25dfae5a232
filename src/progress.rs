//! Shows how far a transfer is: a bar on a terminal, a line now and then elsewhere.
//!
//! It is our own because it is one line of text: a crate for bars brings five others along and a twentieth of what the binary may still grow.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use knm_domain::{Phase, TransferProgress};
use tokio::sync::watch;
use tokio::time::Instant;

/// How often a bar is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// How often there is a line where there is no bar.
const TELL_EVERY: Duration = Duration::from_secs(5);
const WIDTH: usize = 30;
/// Goes to the start of the line and clears it.
const CLEAR: &str = "\r\x1b[K";

/// Shows what is told on stderr, until whoever tells it is gone.
pub async fn show(mut told: watch::Receiver<TransferProgress>) {
    let is_terminal = std::io::stderr().is_terminal();
    let started = Instant::now();
    let mut ticks = tokio::time::interval(if is_terminal { DRAW_EVERY } else { TELL_EVERY });
    ticks.tick().await;
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let progress = *told.borrow();
                write(&match is_terminal {
                    true => format!("{CLEAR}{}", bar(&progress, started.elapsed())),
                    false => format!("{}\n", sentence(&progress)),
                });
            }
            () = gone(&mut told) => break,
        }
    }
    if is_terminal {
        write(CLEAR);
    }
}

async fn gone(told: &mut watch::Receiver<TransferProgress>) {
    while told.changed().await.is_ok() {}
}

fn write(text: &str) {
    let mut output = std::io::stderr().lock();
    // Whoever closed stderr does not want to know.
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

fn bar(progress: &TransferProgress, took: Duration) -> String {
    let done = share(progress);
    // From 0 to the width.
    let full = (done * WIDTH as f64) as usize;
    format!(
        "{:8} [{}{}] {:3.0} % {} of {} rows, {} s {}",
        verb(progress.phase),
        "#".repeat(full),
        " ".repeat(WIDTH - full),
        done * 100.0,
        progress.rows,
        progress.of,
        took.as_secs(),
        progress.table
    )
}

fn sentence(progress: &TransferProgress) -> String {
    format!(
        "{}: {} of {} rows ({:.0} %) {}",
        verb(progress.phase),
        progress.rows,
        progress.of,
        share(progress) * 100.0,
        progress.table
    )
}

fn share(progress: &TransferProgress) -> f64 {
    match progress.of {
        0 => 1.0,
        of => (progress.rows as f64 / of as f64).clamp(0.0, 1.0),
    }
}

fn verb(phase: Phase) -> &'static str {
    match phase {
        Phase::Looking => "looking",
        Phase::Moving => "moving",
        Phase::Checking => "checking",
        Phase::Keeping => "ending",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(rows: u64, of: u64) -> TransferProgress {
        TransferProgress {
            phase: Phase::Moving,
            table: "audit_records",
            rows,
            of,
        }
    }

    #[test]
    fn the_bar_is_as_full_as_the_work_is_done_and_never_longer() {
        let filled = |rows, of| bar(&at(rows, of), Duration::ZERO).matches('#').count();
        assert_eq!([filled(0, 10), filled(5, 10), filled(10, 10)], [0, 15, 30]);
        // Rows that came after they were counted, and a store without any.
        assert_eq!([filled(11, 10), filled(0, 0)], [30, 30]);
    }

    #[test]
    fn without_a_terminal_it_is_a_sentence() {
        assert_eq!(
            sentence(&at(250, 1_000)),
            "moving: 250 of 1000 rows (25 %) audit_records"
        );
    }
}
