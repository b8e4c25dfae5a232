//! Who holds a connection, since when, and whether that is a leak.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::metric;

/// The book of all connections that somebody holds.
pub(crate) struct Holders {
    /// From when on a connection counts as leaked.
    threshold: Duration,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    next: u64,
    held: HashMap<u64, Holding>,
    leaks: u64,
}

struct Holding {
    operation: &'static str,
    since: Instant,
    watched: Watched,
}

/// Whether somebody who holds a connection for long is suspicious.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watched {
    Yes,
    /// It takes long by its nature, or was counted already.
    No,
}

impl Holders {
    pub(crate) fn new(threshold: Duration) -> Self {
        // So that the series is there before the first leak: rates need it.
        metrics::counter!(metric::CONNECTION_LEAKS).increment(0);
        Self {
            threshold,
            book: Mutex::default(),
        }
    }

    /// Notes that `operation` holds a connection from now on; the number is what it gives back later.
    pub(crate) fn enter(&self, operation: &'static str, watched: Watched) -> u64 {
        let mut book = self.book();
        let number = book.next;
        book.next += 1;
        let since = Instant::now();
        book.held.insert(
            number,
            Holding {
                operation,
                since,
                watched,
            },
        );
        number
    }

    /// Notes that the connection was given back.
    pub(crate) fn leave(&self, number: u64) {
        self.book().held.remove(&number);
    }

    /// How many connections are held.
    pub(crate) fn count(&self) -> usize {
        self.book().held.len()
    }

    /// How many leaks there ever were.
    pub(crate) fn leaks(&self) -> u64 {
        self.book().leaks
    }

    /// Counts and logs who holds a connection for too long and was not counted yet.
    pub(crate) fn inspect(&self) {
        let mut book = self.book();
        let mut found = 0;
        for holding in book.held.values_mut() {
            let held_for = holding.since.elapsed();
            if holding.watched == Watched::No || held_for < self.threshold {
                continue;
            }
            holding.watched = Watched::No;
            found += 1;
            metrics::counter!(metric::CONNECTION_LEAKS).increment(1);
            tracing::warn!(
                operation = holding.operation,
                held_for_ms = u64::try_from(held_for.as_millis()).unwrap_or(u64::MAX),
                threshold_ms = u64::try_from(self.threshold.as_millis()).unwrap_or(u64::MAX),
                "a database connection is held for too long"
            );
        }
        book.leaks += found;
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_held_too_long_is_counted_once() {
        let holders = Holders::new(Duration::from_secs(30));
        let number = holders.enter("test.hold", Watched::Yes);
        tokio::time::advance(Duration::from_secs(29)).await;
        holders.inspect();
        assert_eq!(holders.leaks(), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        holders.inspect();
        holders.inspect();
        assert_eq!((holders.leaks(), holders.count()), (1, 1));
        holders.leave(number);
        assert_eq!((holders.leaks(), holders.count()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_by_its_nature_is_no_leak() {
        let holders = Holders::new(Duration::from_secs(30));
        holders.enter("migrate", Watched::No);
        tokio::time::advance(Duration::from_secs(300)).await;
        holders.inspect();
        assert_eq!(holders.leaks(), 0);
    }
}
