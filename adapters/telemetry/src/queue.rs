//! The queue between those who log and the one who writes.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many bytes of lines may wait: some ten thousand lines, while nobody reads stderr.
const WAITING_BYTES: usize = 4 * 1024 * 1024;
/// How much memory an empty queue keeps.
const KEPT_BYTES: usize = 64 * 1024;
/// How long the first line of a batch waits for others. Nobody reads faster, and to wake the writer for every line costs those who log
/// more than the rest of a small request.
const GATHERING: Duration = Duration::from_millis(10);
/// How long a flush waits for a reader that takes nothing.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

const DROPPED: &str = "kube_node_manager_log_lines_dropped_total";

pub(crate) fn describe() {
    metrics::describe_counter!(DROPPED, "Log lines dropped because stderr did not take them in time.");
    metrics::counter!(DROPPED).increment(0);
}

/// Takes lines without ever waiting for whoever reads them.
#[derive(Clone)]
pub(crate) struct LineQueue {
    shared: Arc<Shared>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    /// Tells the writer that there is something to write.
    filled: Condvar,
    /// Tells those who flush that something was written.
    written: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Whether the writer sleeps until it is told.
    idle: bool,
    /// How many are waiting for everything to be written.
    flushing: usize,
    /// Batches that were taken by the writer, and those that it has written.
    taken: u64,
    done: u64,
}

impl LineQueue {
    pub(crate) fn start(output: impl Write + Send + 'static) -> Self {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            filled: Condvar::new(),
            written: Condvar::new(),
            dropped: AtomicU64::new(0),
        });
        let writer = Arc::clone(&shared);
        let started = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.write_lines(output));
        // Without a thread the queue fills up and every further line counts as dropped, which the metric shows.
        drop(started);
        Self { shared }
    }

    pub(crate) fn push(&self, line: &[u8]) {
        let mut waiting = self.shared.lock();
        if WAITING_BYTES < waiting.lines.len() + line.len() {
            drop(waiting);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            metrics::counter!(DROPPED).increment(1);
            return;
        }
        waiting.lines.extend_from_slice(line);
        if std::mem::take(&mut waiting.idle) {
            self.shared.filled.notify_one();
        }
    }

    /// Waits until everything that was pushed before is written, or for as long as a reader that takes nothing is waited for.
    pub(crate) fn flush(&self) {
        let mut waiting = self.shared.lock();
        let last = waiting.taken + u64::from(!waiting.lines.is_empty());
        waiting.flushing += 1;
        self.shared.filled.notify_one();
        let outcome = self
            .shared
            .written
            .wait_timeout_while(waiting, FLUSH_LIMIT, |waiting| waiting.done < last);
        // Whoever asked goes on anyway when the reader takes nothing.
        outcome.unwrap_or_else(PoisonError::into_inner).0.flushing -= 1;
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_lines(&self, mut output: impl Write) {
        let mut batch = Vec::with_capacity(KEPT_BYTES);
        loop {
            self.take(&mut batch);
            // There is no other place to say that stderr is gone.
            drop(output.write_all(&batch).and_then(|()| output.flush()));
            batch.clear();
            batch.shrink_to(KEPT_BYTES);
            self.lock().done += 1;
            self.written.notify_all();
        }
    }

    /// Swaps the empty `batch` for the lines that wait, once there are some.
    fn take(&self, batch: &mut Vec<u8>) {
        let mut waiting = self.lock();
        while waiting.lines.is_empty() {
            waiting.idle = true;
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.idle = false;
        let outcome = self
            .filled
            .wait_timeout_while(waiting, GATHERING, |waiting| waiting.flushing == 0);
        let (mut waiting, _) = outcome.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(batch, &mut waiting.lines);
        waiting.taken += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// What was written, readable by the test.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn everything_before_a_flush_is_written_in_order() {
        let paper = Paper::default();
        let queue = LineQueue::start(paper.clone());
        let expected: String = (0..5_000).map(|number| format!("{number}\n")).collect();
        for number in 0..5_000 {
            queue.push(format!("{number}\n").as_bytes());
        }
        queue.flush();
        assert_eq!(String::from_utf8(paper.0.lock().unwrap().clone()).unwrap(), expected);
        assert_eq!(queue.dropped(), 0);
    }

    /// Takes nothing until the test lets go.
    struct Stuck(Arc<Mutex<()>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            drop(self.0.lock().unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_dropped_and_counted_when_nobody_takes_them() {
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        let queue = LineQueue::start(Stuck(gate.clone()));
        let line = [b'x'; 1024];
        let pushed = 3 * WAITING_BYTES / line.len();
        for _ in 0..pushed {
            queue.push(&line);
        }
        // What the writer holds and what waits is kept.
        assert!(pushed as u64 / 4 < queue.dropped(), "{}", queue.dropped());
        drop(closed);
        queue.flush();
    }
}
