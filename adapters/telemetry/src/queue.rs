//! The queue between those who log and the one who writes.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// How many lines may wait. A burst of this length is written completely however slow the reader is.
const WAITING_LINES: usize = 8192;
/// How many bytes are written with one call.
const BATCH_BYTES: usize = 64 * 1024;
/// How long the first line of a batch waits for others. Nobody reads faster, and a line alone costs whoever logs it a system call and
/// a change of threads, more than the whole rest of a small request.
const GATHERING: Duration = Duration::from_millis(10);
/// How long a flush waits for a reader that takes nothing.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

const DROPPED: &str = "kube_node_manager_log_lines_dropped_total";

pub(crate) fn describe() {
    metrics::describe_counter!(DROPPED, "Log lines dropped because stderr did not take them in time.");
    metrics::counter!(DROPPED).increment(0);
}

/// Takes lines without ever blocking.
#[derive(Clone)]
pub(crate) struct LineQueue {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

enum Message {
    Line(Vec<u8>),
    /// Everything before this is to be written, then this is to be answered.
    Flush(SyncSender<()>),
}

impl LineQueue {
    pub(crate) fn start(output: impl Write + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel(WAITING_LINES);
        let writer = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&receiver, output));
        // Without a thread the receiver is gone and every line counts as dropped, which the metric shows.
        drop(writer);
        Self {
            sender,
            dropped: Arc::default(),
        }
    }

    pub(crate) fn push(&self, line: Vec<u8>) {
        if self.sender.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            metrics::counter!(DROPPED).increment(1);
        }
    }

    pub(crate) fn flush(&self) {
        let (done, finished) = sync_channel(1);
        let mut message = Message::Flush(done);
        // The queue may be full: a flush is worth waiting for a place in it.
        for _ in 0..100 {
            match self.sender.try_send(message) {
                Ok(()) => {
                    // Whoever asked goes on anyway when the reader takes nothing.
                    let _ = finished.recv_timeout(FLUSH_LIMIT);
                    return;
                }
                Err(std::sync::mpsc::TrySendError::Full(back)) => message = back,
                Err(std::sync::mpsc::TrySendError::Disconnected(_)) => return,
            }
            std::thread::sleep(FLUSH_LIMIT / 100);
        }
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn write_lines(receiver: &Receiver<Message>, mut output: impl Write) {
    let mut batch = Vec::with_capacity(BATCH_BYTES);
    while let Ok(first) = receiver.recv() {
        if let Message::Line(_) = first {
            std::thread::sleep(GATHERING);
        }
        let mut next = Some(first);
        let mut flushed = None;
        while let Some(message) = next {
            match message {
                Message::Line(line) => batch.extend_from_slice(&line),
                Message::Flush(done) => flushed = Some(done),
            }
            next = (flushed.is_none() && batch.len() < BATCH_BYTES)
                .then(|| receiver.try_recv().ok())
                .flatten();
        }
        // There is no other place to say that stderr is gone.
        drop(output.write_all(&batch).and_then(|()| output.flush()));
        batch.clear();
        if let Some(done) = flushed {
            let _ = done.send(());
        }
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
            queue.push(format!("{number}\n").into_bytes());
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
        for _ in 0..(8 * WAITING_LINES) {
            queue.push(b"line\n".to_vec());
        }
        assert!(WAITING_LINES as u64 / 2 < queue.dropped(), "{}", queue.dropped());
        drop(closed);
        queue.flush();
    }
}
