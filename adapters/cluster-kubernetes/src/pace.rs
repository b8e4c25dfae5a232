//! How fast an API server is asked.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use knm_ports::ClusterError;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::error::Failure;

/// How long a request waits for a server that asked for silence; beyond that whoever asks is told at once.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many requests are about to be sent or wait for the head of their answer at once: each has a connection of its own, whose buffers cost both
/// sides memory. A server that takes a tenth of a second still gets more than 500 requests a second.
const MOST_AT_ONCE: usize = 64;

/// The same of questions about people, which anybody who sends tokens can cause. They have a pace of their own, so that drains and watches neither
/// wait for them nor are silent with them.
const MOST_REVIEWS_AT_ONCE: usize = 16;
/// How many of these are sent in a second at most, where the limit for the rest is not lower.
const MOST_REVIEWS_PER_SECOND: u32 = 50;

/// The same of questions about this service itself: a dozen now and then, and some where somebody asks for what is forbidden.
const MOST_ABOUT_US_AT_ONCE: usize = 4;
const MOST_ABOUT_US_PER_SECOND: u32 = 10;

/// The pace of requests to one API server.
pub(crate) struct Pace {
    /// `None`: there is no limit.
    limiter: Option<DefaultDirectRateLimiter>,
    /// The server asked for silence until then.
    quiet_until: Mutex<Option<Instant>>,
    at_once: Semaphore,
}

impl Pace {
    /// At most `per_second` requests a second, evenly; 0 is no limit.
    pub(crate) fn new(per_second: u32) -> Self {
        Self::with(per_second, MOST_AT_ONCE)
    }

    /// The pace of questions about people beside requests of which there are `per_second` at most, 0 being no limit.
    pub(crate) fn of_reviews(per_second: u32) -> Self {
        Self::with(limited(per_second, MOST_REVIEWS_PER_SECOND), MOST_REVIEWS_AT_ONCE)
    }

    /// The pace of questions about this service itself beside those requests.
    pub(crate) fn of_questions_about_us(per_second: u32) -> Self {
        Self::with(limited(per_second, MOST_ABOUT_US_PER_SECOND), MOST_ABOUT_US_AT_ONCE)
    }

    fn with(per_second: u32, at_once: usize) -> Self {
        Self {
            limiter: quota(per_second).map(RateLimiter::direct),
            quiet_until: Mutex::default(),
            at_once: Semaphore::new(at_once),
        }
    }

    /// Waits until a request may be sent; others may take its place when what is returned is dropped.
    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>, Failure> {
        loop {
            self.silence().await?;
            // The limit comes last: whoever it lets through is sent at once, so that those who queued never go out all together.
            let turn = self
                .at_once
                .acquire()
                .await
                .map_err(|_| Failure::unavailable("nothing is asked any more"))?;
            if let Some(limiter) = &self.limiter {
                limiter.until_ready().await;
            }
            // The server may have asked for silence while this one queued.
            if self.silence_left().is_none() {
                return Ok(turn);
            }
        }
    }

    /// Waits until the server may be asked again, if that is soon.
    async fn silence(&self) -> Result<(), Failure> {
        match self.silence_left() {
            Some(left) if PATIENCE < left => Err(Failure::from_error(ClusterError::TooManyRequests {
                retry_after: Some(left),
            })),
            Some(left) => {
                tokio::time::sleep(left).await;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn silence_left(&self) -> Option<Duration> {
        let quiet = *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        let left = quiet?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Asks nothing for so long, because the server said so.
    pub(crate) fn hush(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut quiet = self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        *quiet = Some(quiet.map_or(until, |known| known.max(until)));
    }
}

/// How many questions of a kind are sent in a second, `most` of them at most, beside so many other requests.
fn limited(others: u32, most: u32) -> u32 {
    match others {
        0 => most,
        limit => limit.min(most),
    }
}

/// One request at a time, so that no second ever has more than the limit.
fn quota(per_second: u32) -> Option<Quota> {
    let rate = NonZeroU32::new(per_second)?;
    Some(Quota::per_second(rate).allow_burst(NonZeroU32::MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_spread_over_the_second() {
        let quota = quota(50).expect("a limit");
        assert_eq!(
            (quota.burst_size().get(), quota.replenish_interval()),
            (1, Duration::from_millis(20))
        );
        assert!(quota_is_kept(&Pace::new(50)));
        assert_eq!(super::quota(0), None);
    }

    #[test]
    fn questions_about_people_are_slower_and_always_limited() {
        assert_eq!([0, 500, 7].map(|others| limited(others, 50)), [50, 50, 7]);
        let pace = Pace::of_reviews(0);
        assert!(quota_is_kept(&pace));
        assert_eq!(pace.at_once.available_permits(), 16);
    }

    /// Whether of two requests at the same moment one has to wait.
    fn quota_is_kept(pace: &Pace) -> bool {
        let limiter = pace.limiter.as_ref().expect("a limit");
        limiter.check().is_ok() && limiter.check().is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nothing_waits() {
        let pace = Pace::new(0);
        let start = Instant::now();
        for _ in 0..1_000 {
            drop(pace.turn().await.expect("a turn"));
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_requests_are_under_way_at_once_and_no_more() {
        let pace = Pace::new(0);
        let mut turns = Vec::new();
        for _ in 0..MOST_AT_ONCE {
            turns.push(pace.turn().await.expect("a turn"));
        }
        let wait = Duration::from_secs(60);
        assert!(tokio::time::timeout(wait, pace.turn()).await.is_err());
        turns.pop();
        assert!(tokio::time::timeout(wait, pace.turn()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_asks_for_silence_gets_it() {
        let pace = Pace::new(0);
        pace.hush(Duration::from_secs(2));
        pace.hush(Duration::from_secs(1));
        let start = Instant::now();
        drop(pace.turn().await.expect("a turn"));
        assert_eq!(start.elapsed().as_secs(), 2);
        drop(pace.turn().await.expect("a turn"));
        assert_eq!(start.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_queued_when_the_server_asked_for_silence_is_silent_too() {
        let pace = Pace::new(0);
        let mut turns = Vec::new();
        for _ in 0..MOST_AT_ONCE {
            turns.push(pace.turn().await.expect("a turn"));
        }
        let start = Instant::now();
        let answered = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            pace.hush(Duration::from_secs(2));
            turns.clear();
        };
        let (queued, ()) = tokio::join!(pace.turn(), answered);
        drop(queued.expect("a turn"));
        assert_eq!(start.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_silence_is_told_to_those_who_queued() {
        let pace = Pace::new(0);
        let mut turns = Vec::new();
        for _ in 0..MOST_AT_ONCE {
            turns.push(pace.turn().await.expect("a turn"));
        }
        let answered = async {
            pace.hush(Duration::from_secs(30));
            turns.clear();
        };
        let (queued, ()) = tokio::join!(pace.turn(), answered);
        let failure = queued.expect_err("no turn");
        assert!(
            matches!(failure.error, ClusterError::TooManyRequests { .. }),
            "{failure:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_silence_is_told_at_once() {
        let pace = Pace::new(0);
        pace.hush(Duration::from_secs(30));
        let start = Instant::now();
        let failure = pace.turn().await.expect_err("no turn");
        let ClusterError::TooManyRequests { retry_after } = failure.error else {
            unreachable!("{failure:?}");
        };
        assert_eq!(
            (retry_after, start.elapsed()),
            (Some(Duration::from_secs(30)), Duration::ZERO)
        );
    }
}
