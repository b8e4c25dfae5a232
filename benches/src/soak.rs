//! Whether the service stays as it is under hours of mixed load: memory, files, tasks and times, and no request that fails.

mod actors;
mod ground;
mod load;
mod probes;
mod record;
mod verdict;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::Failure;
use crate::table::Row;
use ground::Ground;
use load::{Load, Phase};
use record::Record;

/// How long the load rests before it is counted what it left behind: streams and connections that were given up are noticed by then.
const REST: Duration = Duration::from_secs(15);
/// How many stretches a run is told in.
const WINDOWS: u32 = 12;

/// Where the service keeps its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Database {
    /// One file
    Sqlite,
    /// A server of this run, from this machine's programs
    Postgres,
}

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The file of the service.
    pub binary: PathBuf,
    /// Where it keeps its data.
    pub database: Database,
    /// How long the run takes.
    pub time: Duration,
    /// The part of it in which nothing counts yet.
    pub warm_up: Duration,
    /// How many short requests a second are sent.
    pub rate: u32,
    /// How many nodes the simulated fleet has.
    pub nodes: usize,
}

impl Plan {
    /// How long a run warms up if nobody says otherwise: caches and pools fill in the first minutes, however long it takes.
    #[must_use]
    pub fn usual_warm_up(time: Duration) -> Duration {
        (time / 5).max(Duration::from_secs(120)).min(time / 2)
    }
}

/// Takes each line as soon as there is one.
pub type Tell<'a> = &'a mut (dyn FnMut(&str) -> Result<(), Failure> + Send);

/// Runs `plan`; what came out of it, beside the bars.
pub async fn run(plan: &Plan, tell: Tell<'_>) -> Result<Vec<Row>, Failure> {
    let ground = Ground::prepare(plan).await?;
    let load = Arc::new(Load::new(ground.port(), ground.tokens(), plan.rate).await?);
    let mut tasks = JoinSet::new();
    load::start(&load, &mut tasks);
    actors::start(&load, &mut tasks);
    let start = Instant::now();

    let mut record = Record::new(start + plan.warm_up);
    tell(&record::head())?;
    // Once before anything counts, so that what it left behind later is seen against what it leaves behind always.
    record.follow(&ground, &load, start + plan.warm_up - REST).await?;
    tell(&record.window(start, &load))?;
    let before = rest(&ground, &load, start + plan.warm_up).await?;
    load.turn(Phase::Working);

    let end = start + plan.time - REST;
    let window = (end - (start + plan.warm_up)) / WINDOWS;
    for number in 1..=WINDOWS {
        record
            .follow(&ground, &load, start + plan.warm_up + window * number)
            .await?;
        tell(&record.window(start, &load))?;
    }
    let after = rest(&ground, &load, start + plan.time).await?;
    load.turn(Phase::Over);
    tasks.abort_all();
    let seen = load.seen();
    tell(&seen.describe())?;
    tell(&ground.describe()?)?;
    ground.end().await?;
    Ok(verdict::rows(&record, before, after, &seen))
}

/// What the service has left when nobody asks for anything.
async fn rest(ground: &Ground, load: &Load, until: Instant) -> Result<record::Sample, Failure> {
    load.turn(Phase::Resting);
    sleep_until(until).await;
    record::Sample::take(ground, until).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_warms_up_for_two_minutes_or_a_fifth_and_never_for_more_than_half() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert_eq!(Plan::usual_warm_up(minutes(60)), minutes(12));
        assert_eq!(Plan::usual_warm_up(minutes(5)), minutes(2));
        assert_eq!(Plan::usual_warm_up(minutes(2)), minutes(1));
    }
}
