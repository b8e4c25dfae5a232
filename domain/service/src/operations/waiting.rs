//! Who waits for something in the store, and is woken when it may be there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use knm_ports::{Wake, WakeStream};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use uuid::Uuid;

/// What happens within this time after a look is looked at together: a busy operation writes many steps a second.
pub(super) const GATHER: Duration = Duration::from_millis(100);

/// Those who wait.
#[derive(Default)]
pub(super) struct Waiting {
    /// Who looks for work, which one does.
    work: Notify,
    /// Those who follow an operation; the others are not here.
    followers: Mutex<HashMap<Uuid, watch::Sender<()>>>,
}

impl Waiting {
    /// Wakes those who wait whenever `wakes` says so.
    pub(super) async fn pass_on(self: Arc<Self>, mut wakes: WakeStream) {
        while let Some(wake) = wakes.next().await {
            match wake {
                Wake::Work(operation) => {
                    self.work.notify_one();
                    self.wake_followers(operation);
                }
                Wake::Events(operation) => self.wake_followers(operation),
                Wake::Missed => {
                    self.work.notify_one();
                    for follower in self.followers().values() {
                        follower.send_replace(());
                    }
                }
            }
        }
    }

    /// Waits until there may be work. What came up since the last time counts, and several wakes are one.
    pub(super) async fn work(&self) {
        self.work.notified().await;
    }

    /// Waits for events of `operation` from now on.
    pub(super) fn follow(self: &Arc<Self>, operation: Uuid) -> News {
        let mut followers = self.followers();
        let sender = followers.entry(operation).or_insert_with(|| watch::Sender::new(()));
        News {
            operation,
            heard: sender.subscribe(),
            waiting: Arc::clone(self),
        }
    }

    fn wake_followers(&self, operation: Uuid) {
        if let Some(follower) = self.followers().get(&operation) {
            follower.send_replace(());
        }
    }

    fn followers(&self) -> MutexGuard<'_, HashMap<Uuid, watch::Sender<()>>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What somebody hears who follows an operation.
pub(super) struct News {
    operation: Uuid,
    heard: watch::Receiver<()>,
    waiting: Arc<Waiting>,
}

impl News {
    /// Waits for events after those that were read a moment ago, for `limit` at most.
    pub(super) async fn next(&mut self, limit: Duration) {
        tokio::time::sleep(GATHER).await;
        // Without a word of them they are looked for, too.
        let _ = timeout(limit.saturating_sub(GATHER), self.heard.changed()).await;
    }
}

impl Drop for News {
    fn drop(&mut self) {
        let mut followers = self.waiting.followers();
        // The receiver of this one is still among them.
        if followers
            .get(&self.operation)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            followers.remove(&self.operation);
        }
    }
}

#[cfg(test)]
mod tests {
    use knm_ports::Wake::{Events, Missed, Work};
    use tokio::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    async fn told(waiting: &Arc<Waiting>, wakes: &[Wake]) {
        let wakes = futures::stream::iter(wakes.to_vec()).boxed();
        Arc::clone(waiting).pass_on(wakes).await;
    }

    /// How long it is waited for news.
    async fn waited(news: &mut News) -> Duration {
        let began = Instant::now();
        news.next(LONG).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn followers_are_woken_for_their_operation_only_and_by_whatever_was_missed() {
        let waiting = Arc::new(Waiting::default());
        let (mut one, mut other) = (waiting.follow(id(1)), waiting.follow(id(2)));
        for (wakes, expected) in [
            (&[Events(id(1)), Work(id(3))][..], [GATHER, LONG]),
            (&[Work(id(2))][..], [LONG, GATHER]),
            (&[Missed][..], [GATHER, GATHER]),
        ] {
            told(&waiting, wakes).await;
            assert_eq!(
                [waited(&mut one).await, waited(&mut other).await],
                expected,
                "{wakes:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_looks_for_work_is_woken_once_by_many_wakes_and_not_by_events() {
        let waiting = Arc::new(Waiting::default());
        let is_woken = || async { timeout(LONG, waiting.work()).await.is_ok() };
        told(&waiting, &[Events(id(1))]).await;
        assert!(!is_woken().await);
        for wakes in [&[Work(id(1)), Work(id(2))][..], &[Missed][..]] {
            told(&waiting, wakes).await;
            assert_eq!((is_woken().await, is_woken().await), (true, false), "{wakes:?}");
        }
    }

    #[tokio::test]
    async fn nothing_is_kept_of_those_who_left() {
        let waiting = Arc::new(Waiting::default());
        let (one, again) = (waiting.follow(id(1)), waiting.follow(id(1)));
        drop(one);
        assert_eq!(waiting.followers().len(), 1);
        drop(again);
        assert!(waiting.followers().is_empty());
    }
}
