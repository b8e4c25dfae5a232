//! Changes of a cluster's nodes for those who follow them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use knm_model::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::snapshot::{NodeEntry, Snapshot};

/// How many changes are remembered: a reader that is further behind has lost some. Each may hold a node that is otherwise forgotten.
const REMEMBERED: usize = 2048;

/// Identifies a change in the feed of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventId {
    epoch: u64,
    sequence: u64,
}

/// Something that happened to the nodes of a cluster, or to our view of them.
#[derive(Clone, Debug)]
pub struct NodeChange {
    /// Its place in the feed.
    pub id: EventId,
    /// What happened.
    pub kind: ChangeKind,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum ChangeKind {
    /// The node is new.
    Added(Arc<NodeEntry>),
    /// The node changed into this.
    Modified(Arc<NodeEntry>),
    /// The node is gone; this was it.
    Deleted(Arc<NodeEntry>),
    /// The cluster cannot be seen any more; the nodes are those of that time.
    Stale {
        /// When the cluster was last seen.
        as_of: Timestamp,
    },
    /// The cluster can be seen again.
    Fresh,
}

/// The reader was so slow that changes were lost to it; it has to start anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {REMEMBERED} changes behind")]
pub struct Lagged;

/// Follows the changes of a cluster from one position on.
pub struct Subscription {
    /// Where it starts.
    pub start: SubscriptionStart,
    /// The change that it starts after: whoever comes back with this id goes on here.
    pub position: EventId,
    next: u64,
    ended: bool,
    feed: Arc<Feed>,
    published: watch::Receiver<u64>,
    over: CancellationToken,
}

/// Where a subscription starts.
#[derive(Clone, Debug)]
pub enum SubscriptionStart {
    /// Right after the change that the reader saw last.
    Resumed {
        /// That change.
        after: EventId,
    },
    /// With everything there is.
    Fresh {
        /// Everything there is.
        snapshot: Arc<Snapshot>,
        /// Whether the reader wanted to resume and cannot: what it missed is not known any more.
        resume_failed: bool,
    },
}

/// The snapshots of a cluster and the changes between them.
pub(super) struct Feed {
    epoch: u64,
    current: ArcSwapOption<Snapshot>,
    log: Mutex<Log>,
    /// The generation of `current`, 0 before the first.
    published: watch::Sender<u64>,
}

#[derive(Default)]
struct Log {
    /// The sequence number of the last change that was ever told.
    last: u64,
    /// The latest changes, the last one at the end.
    changes: VecDeque<NodeChange>,
}

impl Feed {
    pub(super) fn new(epoch: u64) -> Self {
        Self {
            epoch,
            current: ArcSwapOption::empty(),
            log: Mutex::default(),
            published: watch::Sender::new(0),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn current(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }

    /// Makes `snapshot` the current one, which came out of the one before by `kinds`.
    pub(super) fn publish(&self, snapshot: Arc<Snapshot>, kinds: Vec<ChangeKind>) {
        let generation = snapshot.version().generation;
        let mut log = self.log();
        for kind in kinds {
            log.push(self.epoch, kind);
        }
        self.current.store(Some(snapshot));
        drop(log);
        self.published.send_replace(generation);
    }

    /// Waits for the first snapshot.
    pub(super) async fn first(&self) {
        // The sender is ours, so this ends with a generation.
        let _ = self.published.subscribe().wait_for(|generation| 0 < *generation).await;
    }

    /// `None` before the first snapshot.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        resume_after: Option<EventId>,
        over: CancellationToken,
    ) -> Option<Subscription> {
        let published = self.published.subscribe();
        // Under this lock the snapshot and the end of the log belong together.
        let log = self.log();
        let snapshot = self.current()?;
        let resumed = resume_after.filter(|id| id.epoch == self.epoch && log.reaches(id.sequence));
        let (start, sequence) = match resumed {
            Some(after) => (SubscriptionStart::Resumed { after }, after.sequence),
            None => {
                let resume_failed = resume_after.is_some();
                (
                    SubscriptionStart::Fresh {
                        snapshot,
                        resume_failed,
                    },
                    log.last,
                )
            }
        };
        drop(log);
        Some(Subscription {
            start,
            position: EventId {
                epoch: self.epoch,
                sequence,
            },
            next: sequence + 1,
            ended: false,
            feed: Arc::clone(self),
            published,
            over,
        })
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn push(&mut self, epoch: u64, kind: ChangeKind) {
        self.last += 1;
        if self.changes.len() == REMEMBERED {
            self.changes.pop_front();
        }
        let id = EventId {
            epoch,
            sequence: self.last,
        };
        self.changes.push_back(NodeChange { id, kind });
    }

    /// Whether everything after `sequence` is still known.
    fn reaches(&self, sequence: u64) -> bool {
        self.last - self.changes.len() as u64 <= sequence && sequence <= self.last
    }

    /// The change with this number, `None` if it is still to come.
    fn get(&self, sequence: u64) -> Result<Option<NodeChange>, Lagged> {
        let forgotten = self.last - self.changes.len() as u64;
        let place = sequence.checked_sub(forgotten + 1).ok_or(Lagged)?;
        Ok(usize::try_from(place)
            .ok()
            .and_then(|place| self.changes.get(place))
            .cloned())
    }
}

impl Subscription {
    /// The next change, waiting for it; `Some(Err(Lagged))` once if the reader was too slow, and `None` after that, when the
    /// cluster was removed or replaced, or when the service shuts down. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<NodeChange, Lagged>> {
        while !self.ended {
            self.published.borrow_and_update();
            let found = self.feed.log().get(self.next);
            match found {
                Ok(Some(change)) => {
                    self.next += 1;
                    return Some(Ok(change));
                }
                Ok(None) => {}
                Err(lagged) => {
                    self.ended = true;
                    return Some(Err(lagged));
                }
            }
            tokio::select! {
                () = self.over.cancelled() => self.ended = true,
                changed = self.published.changed() => self.ended = changed.is_err(),
            }
        }
        None
    }
}

impl EventId {
    /// Reads what [`EventId`] is displayed as; `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, sequence) = text.split_once('-')?;
        let id = Self {
            epoch: u64::from_str_radix(epoch, 16).ok()?,
            sequence: sequence.parse().ok()?,
        };
        // Only the one way of writing it: no signs, no leading zeros.
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.epoch, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_is_read_in_the_form_in_which_it_is_told_and_in_no_other(epoch in any::<u64>(), sequence in any::<u64>(), text in "\\PC*|\\+?[0-9a-fA-F]{0,20}-\\+?[0-9]{0,22}") {
            let id = EventId { epoch, sequence };
            prop_assert_eq!(EventId::parse(&id.to_string()), Some(id));
            for other in [format!("0{id}"), format!("+{id}"), format!("{id} "), format!("{epoch:x}-0{sequence}"), format!("{id}-0"), text] {
                prop_assert!(EventId::parse(&other).is_none_or(|read| read.to_string() == other), "{}", other);
            }
        }
    }
}
