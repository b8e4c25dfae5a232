//! Callers that keep their connections, as good clients do.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::CLUSTER;
use crate::wire::{Reply, Wire};

/// How many requests a connection is used for, so that some are always new.
const REQUESTS_PER_CONNECTION: usize = 50;
/// Every so many requests one changes something.
const CHANGE_EVERY: usize = 20;

/// How much is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// By how many callers, each with a connection.
    pub callers: usize,
    /// How many requests a second, all together.
    pub per_second: u32,
}

/// What callers got.
#[derive(Debug, Default)]
pub struct Asked {
    /// How long each answered request took.
    pub latencies: Vec<Duration>,
    /// How many changes were among them.
    pub changes: usize,
    /// What went wrong with the others.
    pub failures: Vec<String>,
    /// How many requests were sent again because the kept connection had been closed before a byte of the answer came. Clients do that
    /// without telling; whether a request met the end of its connection is no fault of anybody.
    pub sent_again: usize,
    /// For how long was asked.
    pub time: Duration,
}

pub(super) struct Callers<'scope> {
    threads: Vec<ScopedJoinHandle<'scope, Asked>>,
    began: Instant,
}

impl<'scope> Callers<'scope> {
    /// Asks until `stop` is set.
    pub(super) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        load: &Load,
        nodes: usize,
        address: SocketAddr,
        stop: &'env AtomicBool,
    ) -> Self {
        let period = Duration::from_secs(1) * u32::try_from(load.callers).unwrap_or(1) / load.per_second.max(1);
        let thread = |number| {
            let caller = Caller {
                number,
                nodes,
                address,
                wire: None,
                used: 0,
                asked: Asked::default(),
            };
            scope.spawn(move || caller.ask_on(period, stop))
        };
        Self {
            threads: (0..load.callers).map(thread).collect(),
            began: Instant::now(),
        }
    }

    pub(super) fn end(self) -> Asked {
        let parts = self
            .threads
            .into_iter()
            .map(|thread| thread.join().expect("a caller ends"));
        let mut whole = parts.fold(Asked::default(), |mut whole, part| {
            whole.latencies.extend(part.latencies);
            whole.failures.extend(part.failures);
            whole.changes += part.changes;
            whole.sent_again += part.sent_again;
            whole
        });
        whole.time = self.began.elapsed();
        whole
    }
}

struct Caller {
    number: usize,
    /// How many nodes there are to change.
    nodes: usize,
    address: SocketAddr,
    wire: Option<Wire>,
    /// How often the connection was used.
    used: usize,
    asked: Asked,
}

impl Caller {
    fn ask_on(mut self, period: Duration, stop: &AtomicBool) -> Asked {
        let mut count = 0;
        while !stop.load(Ordering::SeqCst) {
            let began = Instant::now();
            count += 1;
            let is_change = count % CHANGE_EVERY == 0;
            match self.ask(count, is_change) {
                Ok(reply) if reply.status == 200 => {
                    self.asked.latencies.push(began.elapsed());
                    self.asked.changes += usize::from(is_change);
                }
                Ok(reply) => self.asked.failures.push(format!("{}: {}", reply.status, reply.text())),
                Err(error) => self.asked.failures.push(error.to_string()),
            }
            std::thread::sleep(period.saturating_sub(began.elapsed()));
        }
        self.asked
    }

    fn ask(&mut self, count: usize, is_change: bool) -> io::Result<Reply> {
        static KEYS: AtomicUsize = AtomicUsize::new(0);
        let key = format!("idempotency-key: rollout-{}", KEYS.fetch_add(1, Ordering::Relaxed));
        if REQUESTS_PER_CONNECTION <= self.used {
            self.wire = None;
        }
        let is_reused = self.wire.is_some();
        let outcome = self.exchange(count, is_change, &key);
        match outcome {
            Err(_) if is_reused => {
                self.asked.sent_again += 1;
                self.exchange(count, is_change, &key)
            }
            outcome => outcome,
        }
    }

    fn exchange(&mut self, count: usize, is_change: bool, key: &str) -> io::Result<Reply> {
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => {
                self.used = 0;
                Wire::try_open(self.address)?
            }
        };
        let node = format!("{CLUSTER}/nodes/labelled-{}", self.number % self.nodes);
        let reply = match (is_change, count % 3) {
            (true, _) => {
                let body = json!({"set": {format!("example.com/caller-{}", self.number): count.to_string()}});
                wire.send_json("PATCH", &format!("{node}/labels"), &[key], &body)?
            }
            (false, 0) => wire.get(&format!("{CLUSTER}/nodes?limit=10"), &[])?,
            (false, 1) => wire.get(&node, &[])?,
            (false, _) => wire.get("/api/v1/operations?limit=5", &[])?,
        };
        self.used += 1;
        if reply.header("connection") != Some("close") {
            self.wire = Some(wire);
        }
        Ok(reply)
    }
}
