//! knm-bench-pods: measures what the pods of a large cluster cost, beside the plain values that they are told as.

use std::alloc::System;
use std::fmt;
use std::process::ExitCode;

use cap::Cap;
use knm_bench::program::{self, print};
use knm_bench::table::{Bar, Row};
use knm_bench::{Failure, pods, procfs};
use knm_domain::PodIndex;
use knm_model::Pod;

#[global_allocator]
static ALLOCATED: Cap<System> = Cap::new(System, usize::MAX);

const PODS: usize = 150_000;
const MEBIBYTE: f64 = 1_048_576.0;

fn main() -> ExitCode {
    program::exit(measure())
}

/// Whether the bar is cleared.
fn measure() -> Result<bool, Failure> {
    // The small one first: memory that was given back may still count as resident.
    let watched = cost(|| {
        let mut index = PodIndex::default();
        index.begin();
        for number in 0..PODS {
            index.apply(pods::pod(number)?);
        }
        index.complete();
        Ok(index)
    })?;
    let plain = cost(|| (0..PODS).map(pods::pod).collect::<Result<Vec<Pod>, Failure>>())?;
    let row = Row {
        what: "150,000 watched pods, MiB",
        measured: watched.bytes as f64 / MEBIBYTE,
        bar: Bar::AtMost(90.0),
        detail: format!("{watched}; plain values: {plain}"),
    };
    print(&row.to_string())?;
    Ok(row.passes())
}

/// What many pods cost.
struct Cost {
    /// What they asked the allocator for.
    bytes: usize,
    /// By how much the memory of the process grew, in MiB.
    resident: f64,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = self.bytes / PODS;
        write!(f, "{each} bytes per pod, resident +{:.0} MiB", self.resident)
    }
}

/// What is held while the result of `build` lives.
fn cost<T>(build: impl FnOnce() -> Result<T, Failure>) -> Result<Cost, Failure> {
    let resident = procfs::memory(std::process::id())?.resident;
    let before = ALLOCATED.allocated();
    let built = build()?;
    let cost = Cost {
        bytes: ALLOCATED.allocated() - before,
        resident: procfs::memory(std::process::id())?.resident - resident,
    };
    drop(built);
    Ok(cost)
}
