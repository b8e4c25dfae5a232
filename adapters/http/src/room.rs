//! Who is connected, so that those who have been silent for longest make room when there is no place for another.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::connection::Phases;
use crate::metric::CONNECTIONS_CLOSED;

/// Nobody who was silent for less is closed: callers think between two requests.
const LEAST_SILENCE: Duration = Duration::from_secs(1);
/// Which part of the connections is closed at once: to look at all of them for each new one would be work to make for others.
const PART: usize = 64;

/// The connections that are open.
pub(crate) struct Room {
    guests: Mutex<HashMap<u64, Arc<Phases>>>,
    next: AtomicU64,
}

/// One of them, until this is dropped.
pub(crate) struct Guest<'a> {
    room: &'a Room,
    number: u64,
}

impl Room {
    /// An empty one.
    pub(crate) fn new() -> Self {
        // So that the series is there before the first one is closed: rates need it.
        metrics::counter!(CONNECTIONS_CLOSED).increment(0);
        Self {
            guests: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    /// Takes a connection in.
    pub(crate) fn enter(&self, phases: Arc<Phases>) -> Guest<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.guests().insert(number, phases);
        Guest { room: self, number }
    }

    /// Asks those to leave that have been silent for longest. No request is lost by that: one that has arrived is answered, and only a peer
    /// that takes its time with an answer gets no more of it.
    pub(crate) fn make(&self) {
        let mut silent: Vec<(Duration, Arc<Phases>)> = {
            let guests = self.guests();
            let silence = |phases: &Arc<Phases>| Some((phases.silence()?, Arc::clone(phases)));
            let found = guests.values().filter_map(silence);
            found.filter(|(silence, _)| LEAST_SILENCE <= *silence).collect()
        };
        let count = silent.len().div_ceil(PART);
        if count < silent.len() {
            silent.select_nth_unstable_by(count, |one, other| other.0.cmp(&one.0));
        }
        for (_, phases) in silent.iter().take(count) {
            phases.ask_to_leave();
        }
        metrics::counter!(CONNECTIONS_CLOSED).increment(count as u64);
    }

    fn guests(&self) -> MutexGuard<'_, HashMap<u64, Arc<Phases>>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.room.guests().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_who_are_silent_for_longest_leave_first_and_nobody_who_is_answered() {
        let room = Room::new();
        let mut guests = Vec::new();
        let mut known = Vec::new();
        for _ in 0..130 {
            let phases = Arc::new(Phases::new(Duration::from_secs(30)));
            guests.push(room.enter(Arc::clone(&phases)));
            known.push(phases);
            advance(Duration::from_millis(10)).await;
        }
        known[0].busy();
        known[1].idle();
        room.make();
        // Of 130 the first 30 or so were silent for a second, which is one part; the two oldest were not silent.
        let leaving = |known: &[Arc<Phases>]| -> Vec<usize> {
            let asked = known.iter().enumerate().filter(|(_, phases)| phases.is_to_leave());
            asked.map(|(place, _)| place).collect()
        };
        assert_eq!(leaving(&known), [2]);
        advance(Duration::from_secs(60)).await;
        drop(guests.remove(2));
        room.make();
        assert_eq!(leaving(&known), [2, 3, 4]);
        drop(guests);
        assert!(room.guests().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_take_their_time_with_an_answer_leave_too() {
        let room = Room::new();
        let phases = Arc::new(Phases::new(Duration::from_secs(30)));
        let _guest = room.enter(Arc::clone(&phases));
        phases.busy();
        advance(Duration::from_secs(600)).await;
        room.make();
        assert!(!phases.is_to_leave(), "its answer is being made");
        phases.sending();
        advance(Duration::from_secs(30)).await;
        room.make();
        assert!(!phases.is_to_leave(), "it has its time");
        advance(Duration::from_secs(1)).await;
        room.make();
        assert!(phases.is_to_leave());
    }
}
