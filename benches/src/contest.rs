//! Two servers that are asked in turn.

use std::time::Duration;

use tokio::time::Instant;

use crate::Failure;
use crate::client::{Run, Target, load};
use crate::process::Process;
use crate::statistics::median;

/// How many clients ask at once.
pub const CONNECTIONS: usize = 64;
/// How long one round takes.
pub const ROUND: Duration = Duration::from_millis(1_500);
/// How often each side is asked.
const ROUNDS: usize = 5;
/// Fills caches and pools before anything counts.
const WARM_UP: Duration = Duration::from_millis(300);

/// One server and what it is asked for.
pub struct Side<'a> {
    /// The server.
    pub process: &'a Process,
    /// What it is asked for.
    pub target: Target,
}

/// What came out.
pub struct Outcome {
    /// The median over the rounds of ours divided by theirs.
    pub ratio: f64,
    /// The numbers that it was made of, for a reader.
    pub detail: String,
}

/// One round of one side.
pub struct Round {
    /// What the load saw.
    pub run: Run,
    /// The part of the round that the server was on its core.
    pub busy: f64,
    /// The most memory that the server was seen with, in MiB.
    pub resident: f64,
}

#[derive(Default)]
struct Tally {
    per_second: Vec<f64>,
    busy: Vec<f64>,
}

/// Asks both sides in turn.
pub async fn contest(ours: &Side<'_>, theirs: &Side<'_>) -> Result<Outcome, Failure> {
    for side in [ours, theirs] {
        round(side, WARM_UP).await?;
    }
    let mut ratios = Vec::with_capacity(ROUNDS);
    let (mut our_tally, mut their_tally) = (Tally::default(), Tally::default());
    for _ in 0..ROUNDS {
        let our_speed = our_tally.add(&round(ours, ROUND).await?);
        let their_speed = their_tally.add(&round(theirs, ROUND).await?);
        // Of neighbours in time, because a machine is faster in one minute than in the next.
        ratios.push(our_speed / their_speed);
    }
    Ok(Outcome {
        ratio: median(&ratios).unwrap_or(f64::NAN),
        detail: format!("{} against {}", our_tally.describe(), their_tally.describe()),
    })
}

/// Asks one side for as long as `time`.
pub async fn round(side: &Side<'_>, time: Duration) -> Result<Round, Failure> {
    let before = side.process.on_core()?;
    let start = Instant::now();
    let (run, resident) = side.process.watched(load(&side.target, CONNECTIONS, time)).await?;
    let on_core = side.process.on_core()?.saturating_sub(before);
    Ok(Round {
        run,
        busy: on_core.as_secs_f64() / start.elapsed().as_secs_f64(),
        resident,
    })
}

impl Tally {
    fn add(&mut self, round: &Round) -> f64 {
        self.per_second.push(round.run.per_second);
        self.busy.push(round.busy);
        round.run.per_second
    }

    fn describe(&self) -> String {
        let speed = median(&self.per_second).unwrap_or(f64::NAN);
        let busy = median(&self.busy).unwrap_or(f64::NAN);
        format!("{speed:.0}/s ({:.0} % busy)", busy * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_tells_the_medians_of_its_rounds() {
        let mut tally = Tally::default();
        for (per_second, busy) in [(100.0, 0.5), (300.0, 0.97), (200.0, 0.9)] {
            let run = Run {
                per_second,
                latencies: Vec::new(),
            };
            tally.add(&Round {
                run,
                busy,
                resident: 1.0,
            });
        }
        assert_eq!(tally.describe(), "200/s (90 % busy)");
    }
}
