//! What was seen, beside the bars.

use super::load::Seen;
use super::probes::NAMES;
use super::record::{Record, Sample};
use crate::fit::{Line, in_parts};
use crate::statistics::percentile;
use crate::table::{Bar, Row};

/// MiB per hour that memory may grow.
const MEMORY: f64 = 1.0;
/// Files and tasks per hour that may come and stay.
const COUNTS: f64 = 10.0;
/// What the load may leave behind of files and tasks when it rests: what is between two states at that moment.
const LEFT: f64 = 4.0;
/// Into how many parts the samples are put together for the line: each is long against what comes and goes in it.
const PARTS: usize = 36;

/// All rows; `before` and `after` are what was there while nobody asked.
pub(super) fn rows(record: &Record, before: Sample, after: Sample, seen: &Seen) -> Vec<Row> {
    let samples = record.samples();
    let mut rows = vec![
        growth(
            "memory, RSS: growth, MiB per hour, at least",
            &samples,
            MEMORY,
            |sample| sample.resident,
        ),
        Row {
            bar: Bar::Nothing,
            ..growth("the same without what files are behind", &samples, MEMORY, |sample| {
                sample.anonymous
            })
        },
        growth("open files: growth per hour, at least", &samples, COUNTS, |sample| {
            sample.files
        }),
        growth("tasks: growth per hour, at least", &samples, COUNTS, |sample| {
            sample.tasks
        }),
        growth("threads: growth per hour, at least", &samples, COUNTS, |sample| {
            sample.threads
        }),
        left("open files that the load left behind", before.files, after.files),
        left("tasks that the load left behind", before.tasks, after.tasks),
        Row {
            what: "requests that failed",
            measured: seen.failed() as f64,
            bar: Bar::AtMost(0.0),
            detail: match seen.failures().first() {
                Some(first) => format!("of {}; the first: {first}", seen.requests()),
                None => format!("of {}", seen.requests()),
            },
        },
        Row {
            what: "answers 503 and 504, after which it was asked again",
            measured: seen.put_off() as f64,
            bar: Bar::Nothing,
            detail: "the database was busy for longer than a request waits".to_owned(),
        },
    ];
    for (number, what) in [
        "p99 of /health/live, last third / first third",
        "p99 of a page of 50 nodes, last third / first third",
        "p99 of a node, last third / first third",
        "p99 of a change of labels, last third / first third",
    ]
    .into_iter()
    .enumerate()
    {
        rows.push(steady(what, NAMES[number], &record.took(number)));
    }
    rows
}

/// How fast something grows, as far as it is sure: the lower end of the interval around the slope. A leak goes on, and what only fills up
/// does not: so the slope of the second half counts where that is less.
fn growth(what: &'static str, samples: &[Sample], bar: f64, of: fn(&Sample) -> f64) -> Row {
    let points: Vec<_> = samples.iter().map(|sample| (sample.hours, of(sample))).collect();
    let parts = in_parts(&points, PARTS);
    let first_and_last = points.first().zip(points.last());
    let lines = Line::through(&parts).zip(Line::through(&parts[parts.len() / 2..]));
    let (Some((whole, half)), Some((first, last))) = (lines, first_and_last) else {
        return Row {
            what,
            measured: f64::NAN,
            bar: Bar::AtMost(bar),
            detail: format!("{} samples are too few for a line", points.len()),
        };
    };
    let told = |line: &Line| format!("{:.2} ({:.2} to {:.2})", line.slope, line.at_least(), line.at_most());
    Row {
        what,
        measured: whole.at_least().min(half.at_least()),
        bar: Bar::AtMost(bar),
        detail: format!(
            "slope {}, of the second half {}; {:.1} at first, {:.1} at last, {} samples",
            told(&whole),
            told(&half),
            first.1,
            last.1,
            points.len()
        ),
    }
}

fn left(what: &'static str, before: f64, after: f64) -> Row {
    Row {
        what,
        measured: after - before,
        bar: Bar::AtMost(LEFT),
        detail: format!("{before:.0} at rest after the warm-up, {after:.0} at the end"),
    }
}

/// How the end compares with the beginning. Nothing is asserted about it: the machine may have had other things to do.
fn steady(what: &'static str, name: &str, took: &[f64]) -> Row {
    let third = took.len() / 3;
    let (first, last) = (&took[..third], &took[took.len() - third..]);
    let of = |part: &[f64], percent| percentile(part, percent).unwrap_or(f64::NAN);
    Row {
        what,
        measured: of(last, 99) / of(first, 99),
        bar: Bar::Nothing,
        detail: format!(
            "{name}: p50 {:.1} ms then {:.1}, p99 {:.1} ms then {:.1}, {} answers",
            of(first, 50),
            of(last, 50),
            of(first, 99),
            of(last, 99),
            took.len()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(resident: impl Fn(f64) -> f64) -> Vec<Sample> {
        let hours = (0..400).map(|number| f64::from(number) / 400.0);
        hours
            .map(|hours| Sample {
                hours,
                resident: resident(hours),
                anonymous: 0.0,
                files: 30.0,
                tasks: 50.0,
                threads: 9.0,
            })
            .collect()
    }

    #[test]
    fn memory_that_saws_or_fills_up_passes_and_memory_that_grows_does_not() {
        let saw = |hours: f64| 80.0 + (hours * 7.0).fract() * 3.0;
        let row = |samples: &[Sample]| growth("x", samples, MEMORY, |sample| sample.resident);
        let flat = row(&samples(saw));
        assert!(flat.passes(), "{flat}");
        let growing = row(&samples(|hours| saw(hours) + 8.0 * hours));
        assert!(!growing.passes(), "{growing}");
        let filling = row(&samples(|hours| saw(hours) + 8.0 * (1.0 - (-10.0 * hours).exp())));
        assert!(filling.passes(), "{filling}");
        let nothing = row(&[]);
        assert!(!nothing.passes(), "{nothing}");
    }

    #[test]
    fn counts_that_stand_still_pass_and_what_is_left_behind_is_a_difference() {
        assert!(growth("x", &samples(|_| 1.0), COUNTS, |sample| sample.files).passes());
        assert!(left("x", 30.0, 30.0).passes() && left("x", 30.0, 20.0).passes());
        assert!(!left("x", 30.0, 38.0).passes());
    }

    #[test]
    fn the_last_third_is_compared_with_the_first() {
        let took: Vec<f64> = (0..300).map(|number| if number < 150 { 2.0 } else { 3.0 }).collect();
        let row = steady("x", "live", &took);
        assert!((row.measured - 1.5).abs() < 1e-9 && row.passes(), "{row}");
    }
}
