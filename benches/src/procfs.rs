//! What Linux tells about a process.

use std::time::Duration;

use crate::Failure;

/// How long one tick of `/proc/PID/stat` is, on every Linux that programs see.
const TICK: Duration = Duration::from_millis(10);

/// How much memory a process has, in MiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// Now.
    pub resident: f64,
    /// The most that it ever had.
    pub peak: f64,
    /// The part of [`resident`](Self::resident) that no file is behind: what it allocated and touched.
    pub anonymous: f64,
}

/// The memory of the process `id`.
pub fn memory(id: u32) -> Result<Memory, Failure> {
    let path = format!("/proc/{id}/status");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path} cannot be read: {error}"))?;
    let found = || {
        Some(Memory {
            resident: mebibytes(&text, "VmRSS:")?,
            peak: mebibytes(&text, "VmHWM:")?,
            anonymous: mebibytes(&text, "RssAnon:")?,
        })
    };
    found().ok_or_else(|| format!("{path} does not tell VmRSS, VmHWM and RssAnon").into())
}

/// How long the process `id` was on a core since it started.
pub fn on_core(id: u32) -> Result<Duration, Failure> {
    let path = format!("/proc/{id}/stat");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path} cannot be read: {error}"))?;
    let ticks = ticks(&text).ok_or_else(|| format!("{path} does not tell the time on a core"))?;
    Ok(TICK * ticks)
}

/// How many threads the process `id` has.
pub fn threads(id: u32) -> Result<usize, Failure> {
    entries(&format!("/proc/{id}/task"))
}

/// How many files and sockets the process `id` has open.
pub fn open_files(id: u32) -> Result<usize, Failure> {
    entries(&format!("/proc/{id}/fd"))
}

fn entries(folder: &str) -> Result<usize, Failure> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{folder} cannot be read: {error}"))?;
    Ok(entries.count())
}

fn mebibytes(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes / 1_024.0)
}

fn ticks(stat: &str) -> Option<u32> {
    // The name in parentheses may have spaces and parentheses itself.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut times = after_name.split_whitespace().skip(11);
    let user: u32 = times.next()?.parse().ok()?;
    let system: u32 = times.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_by_its_key_in_mebibytes() {
        let status = "Name:\tx\nVmHWM:\t    4096 kB\nVmRSS:\t    2560 kB\n";
        assert_eq!(mebibytes(status, "VmRSS:"), Some(2.5));
        assert_eq!(mebibytes(status, "VmHWM:"), Some(4.0));
        assert_eq!(mebibytes(status, "VmSwap:"), None);
    }

    #[test]
    fn time_on_a_core_is_that_of_the_program_and_of_the_kernel_for_it() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 200 0 1 0 120 34 9 9 20 0 5 0 100";
        assert_eq!(ticks(stat), Some(154));
        assert_eq!(ticks("7 (a) S 1 7"), None);
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn this_process_has_memory_and_one_that_is_not_there_is_named() {
        let memory = memory(std::process::id()).unwrap();
        assert!(0.0 < memory.resident && memory.resident <= memory.peak, "{memory:?}");
        assert!(memory.anonymous < memory.resident, "{memory:?}");
        // Standard input, output and error, at least; this test runs in a thread beside the main one.
        assert!(3 <= open_files(std::process::id()).unwrap());
        assert!(2 <= threads(std::process::id()).unwrap());
        let error = super::memory(0).unwrap_err().to_string();
        assert!(error.contains("/proc/0/status"), "{error}");
    }
}
