//! What was seen, moment by moment.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::ground::Ground;
use super::load::Load;
use super::probes::{NAMES, PAUSE, Prober};
use crate::Failure;
use crate::caller::{Caller, Question, metric};
use crate::procfs::{memory, open_files, threads};
use crate::statistics::{median, percentile};

/// How often the process is looked at.
const LOOK: Duration = Duration::from_secs(2);
const TASKS: &str = "kube_node_manager_goroutines_total";

/// The process at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Hours since the warm-up was over, negative before.
    pub(super) hours: f64,
    /// Its memory, in MiB.
    pub(super) resident: f64,
    /// The part of it that no file is behind.
    pub(super) anonymous: f64,
    pub(super) files: f64,
    pub(super) tasks: f64,
    pub(super) threads: f64,
}

/// Everything that was seen.
pub(super) struct Record {
    /// When the warm-up is over.
    warm: Instant,
    samples: Vec<Sample>,
    /// When each round of probes was, and the milliseconds that each probe took.
    probes: Vec<(f64, [Option<f64>; 4])>,
    prober: Option<Prober>,
    /// What of it was told already.
    told: Told,
}

#[derive(Default)]
struct Told {
    samples: usize,
    probes: usize,
    requests: u64,
    at: Option<Instant>,
}

impl Sample {
    /// Looks at the process; its hours count from `zero`.
    pub(super) async fn take(ground: &Ground, zero: Instant) -> Result<Self, Failure> {
        let process = &ground.process;
        let memory = memory(process.id)?;
        let mut caller = Caller::new(process.port, None, Duration::from_secs(40));
        let metrics = caller.ask(&Question::get("/metrics")).await?.text();
        Ok(Self {
            hours: hours_since(zero),
            resident: memory.resident,
            anonymous: memory.anonymous,
            files: open_files(process.id)? as f64,
            tasks: metric(&metrics, TASKS).ok_or_else(|| format!("{TASKS} is not among the metrics"))?,
            threads: threads(process.id)? as f64,
        })
    }
}

impl Record {
    pub(super) fn new(warm: Instant) -> Self {
        Self {
            warm,
            samples: Vec::new(),
            probes: Vec::new(),
            prober: None,
            told: Told::default(),
        }
    }

    /// Looks and probes until `end`.
    pub(super) async fn follow(&mut self, ground: &Ground, load: &Load, end: Instant) -> Result<(), Failure> {
        let mut look = Instant::now();
        let mut prober = self.prober.take().unwrap_or_else(|| Prober::new(load));
        while Instant::now() < end {
            if look <= Instant::now() {
                self.samples.push(Sample::take(ground, self.warm).await?);
                look += LOOK;
            }
            let took = prober.round(load).await;
            self.probes.push((hours_since(self.warm), took));
            sleep_until(end.min(Instant::now() + PAUSE)).await;
        }
        self.prober = Some(prober);
        Ok(())
    }

    /// A line about what was seen since the last one.
    pub(super) fn window(&mut self, start: Instant, load: &Load) -> String {
        let (samples, probes) = (&self.samples[self.told.samples..], &self.probes[self.told.probes..]);
        let middle = |of: fn(&Sample) -> f64| median(&samples.iter().map(of).collect::<Vec<_>>()).unwrap_or(f64::NAN);
        let requests = load.seen().requests();
        let since = self.told.at.unwrap_or(start).elapsed().as_secs_f64();
        let mut line = format!(
            "{:>6.1} {:>8.2} {:>8.2} {:>6.0} {:>6.0} {:>7.0} {:>7.0}",
            start.elapsed().as_secs_f64() / 60.0,
            middle(|sample| sample.resident),
            middle(|sample| sample.anonymous),
            middle(|sample| sample.files),
            middle(|sample| sample.tasks),
            middle(|sample| sample.threads),
            (requests - self.told.requests) as f64 / since
        );
        for number in 0..NAMES.len() {
            let took: Vec<f64> = probes.iter().filter_map(|(_, took)| took[number]).collect();
            let of = |percent| percentile(&took, percent).unwrap_or(f64::NAN);
            // Writing into a text cannot fail.
            let _ = write!(line, " {:>6.1} {:>7.1}", of(50), of(99));
        }
        let _ = write!(line, " {:>6}", load.seen().failed());
        self.told = Told {
            samples: self.samples.len(),
            probes: self.probes.len(),
            requests,
            at: Some(Instant::now()),
        };
        line
    }

    /// What counts: after the warm-up.
    pub(super) fn samples(&self) -> Vec<Sample> {
        self.samples
            .iter()
            .filter(|sample| 0.0 <= sample.hours)
            .copied()
            .collect()
    }

    /// How long probe `number` took after the warm-up, in milliseconds.
    pub(super) fn took(&self, number: usize) -> Vec<f64> {
        let counting = self.probes.iter().filter(|(hours, _)| 0.0 <= *hours);
        counting.filter_map(|(_, took)| took[number]).collect()
    }
}

/// What stands above the lines of windows.
pub(super) fn head() -> String {
    let mut head = format!(
        "{:>6} {:>8} {:>8} {:>6} {:>6} {:>7} {:>7}",
        "minute", "RSS MiB", "anon MiB", "files", "tasks", "threads", "req/s"
    );
    for name in NAMES {
        // Writing into a text cannot fail.
        let _ = write!(head, " {:>6} {:>7}", format!("{name}"), "p99 ms");
    }
    let _ = write!(head, " {:>6}", "failed");
    head
}

fn hours_since(zero: Instant) -> f64 {
    let now = Instant::now();
    let hours = |time: Duration| time.as_secs_f64() / 3_600.0;
    match now.checked_duration_since(zero) {
        Some(after) => hours(after),
        None => -hours(zero - now),
    }
}
