//! The real clock, randomness, and the figures and limits of the process and its machine.

use std::io;
use std::sync::{Mutex, PoisonError};

use knm_model::Timestamp;
use knm_ports::{Clock, IdSource, ProcessStats, Randomness, SystemStats};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::runtime::Handle;
use uuid::{ContextV7, Uuid};

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the only place that reads the real time")]
    fn now(&self) -> Timestamp {
        Timestamp::from(std::time::SystemTime::now())
    }
}

/// Random ids that sort by time.
#[derive(Debug, Default)]
pub struct TimeOrderedIds {
    /// Counts within a millisecond.
    context: Mutex<ContextV7>,
}

impl IdSource for TimeOrderedIds {
    fn next(&self, at: Timestamp) -> Uuid {
        let context = self.context.lock().unwrap_or_else(PoisonError::into_inner);
        let millis = u64::try_from(at.unix_millis()).unwrap_or(0);
        // At most 999,999,999.
        let nanos = (millis % 1_000) as u32 * 1_000_000;
        Uuid::new_v7(uuid::Timestamp::from_unix(&*context, millis / 1_000, nanos))
    }
}

/// The randomness of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandomness;

impl Randomness for SystemRandomness {
    #[expect(
        clippy::expect_used,
        reason = "without randomness there must be no secret: any other value would be one that somebody can guess"
    )]
    fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the operating system has randomness");
        bytes
    }
}

/// The figures of this process, of one runtime and of the machine.
#[derive(Debug)]
pub struct MachineStats {
    /// Remembers what it saw last, which makes the next look cheap; `None` where the operating system tells nothing.
    system: Mutex<Option<System>>,
    process: Option<Pid>,
    runtime: Handle,
    hostname: String,
}

impl MachineStats {
    /// Figures of this process; tasks are those of `runtime`.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self {
            system: Mutex::new(System::new().ok()),
            process: sysinfo::get_current_pid().ok(),
            runtime,
            hostname: hostname(),
        }
    }
}

/// The name of the machine or pod, `unknown` if it has none.
#[must_use]
pub fn hostname() -> String {
    System::host_name()
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// Lets this process open as many files and connections as it may: most are started with a small soft limit, for the sake of programs that use
/// `select(2)`, and are expected to raise it themselves (systemd.exec(5), `LimitNOFILE`). Returns the limit, `None` if there is none.
///
/// # Errors
/// What the operating system says.
pub fn raise_open_files_limit() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                ..limit
            },
        )?;
    }
    Ok(limit.maximum)
}

impl SystemStats for MachineStats {
    fn process(&self) -> ProcessStats {
        let mut system = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(pid), Some(system)) = (self.process, system.as_mut()) else {
            return ProcessStats::default();
        };
        let wanted = ProcessRefreshKind::nothing().with_memory().with_cpu().without_tasks();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, wanted);
        let Some(process) = system.process(pid) else {
            return ProcessStats::default();
        };
        ProcessStats {
            resident_bytes: process.memory(),
            virtual_bytes: process.virtual_memory(),
            cpu_seconds: std::time::Duration::from_millis(process.accumulated_cpu_time()).as_secs_f64(),
            open_fds: process.open_files().map_or(0, count),
            max_fds: process.open_files_limit().map_or(0, count),
            threads: threads(),
        }
    }

    fn live_tasks(&self) -> u64 {
        count(self.runtime.metrics().num_alive_tasks())
    }

    fn hostname(&self) -> String {
        self.hostname.clone()
    }
}

/// sysinfo lists threads one by one; the kernel keeps the number.
fn threads() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("Threads:"))?;
            line.trim().parse().ok()
        })
        .unwrap_or(0)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_moves_and_shows_this_century() {
        let first = SystemClock.now();
        let second = SystemClock.now();
        assert!(first <= second);
        assert!(Timestamp::parse("2024-01-01T00:00:00Z").unwrap() < first);
    }

    #[tokio::test]
    async fn every_figure_of_a_running_process_is_told() {
        let stats = MachineStats::new(Handle::current());
        let figures = stats.process();
        assert!(1 << 20 < figures.resident_bytes, "{figures:?}");
        assert!(figures.resident_bytes <= figures.virtual_bytes, "{figures:?}");
        assert!(3 <= figures.open_fds, "{figures:?}");
        assert!(figures.open_fds <= figures.max_fds, "{figures:?}");
        assert!(1 <= figures.threads, "{figures:?}");
        assert!(!stats.hostname().is_empty());
    }

    #[tokio::test]
    async fn opened_files_and_used_time_show_at_the_next_look() {
        let stats = MachineStats::new(Handle::current());
        let before = stats.process();
        // Many more than the other tests of this process, which has one count for all, may close meanwhile.
        let files: Vec<_> = (0..200)
            .map(|_| std::fs::File::open("/proc/self/stat").unwrap())
            .collect();
        let mut sum = 0_u64;
        while stats.process().cpu_seconds <= before.cpu_seconds {
            sum = (0..1_000_000).fold(sum, |sum, number| std::hint::black_box(sum ^ number));
        }
        assert!(before.open_fds + 100 <= stats.process().open_fds);
        drop(files);
    }

    #[test]
    fn no_two_calls_get_the_same_bytes_and_none_gets_zeros() {
        let (first, second) = (SystemRandomness.bytes(), SystemRandomness.bytes());
        assert_ne!(first, second);
        for bytes in [first, second] {
            // Neither half was left as it was; that one is zero by chance happens once in 2^128 times.
            assert!(bytes[..16] != [0; 16] && bytes[16..] != [0; 16], "{bytes:?}");
        }
    }

    #[test]
    fn ids_sort_by_their_time_and_in_their_order() {
        let ids = TimeOrderedIds::default();
        let now = Timestamp::from_unix_millis(1_900_000_000_000).unwrap();
        let later = Timestamp::from_unix_millis(1_900_000_000_001).unwrap();
        let mut made: Vec<Uuid> = (0..1_000).map(|_| ids.next(now)).collect();
        made.push(ids.next(later));
        assert!(made.is_sorted() && made.iter().all(|id| id.get_version_num() == 7));
        made.dedup();
        assert_eq!(made.len(), 1_001);
    }

    #[tokio::test]
    async fn live_tasks_are_counted() {
        let stats = MachineStats::new(Handle::current());
        let before = stats.live_tasks();
        let tasks: Vec<_> = (0..5).map(|_| tokio::spawn(std::future::pending::<()>())).collect();
        assert_eq!(stats.live_tasks(), before + 5);
        for task in tasks {
            task.abort();
        }
    }
}
