//! The same questions again and again while something is in trouble.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::ground::Ground;
use crate::caller::{Caller, Question, Reply};

/// One answer, or that there was none.
pub(super) struct Answered {
    /// When it was asked.
    pub(super) asked: Instant,
    pub(super) took: Duration,
    /// `None` if there was no answer.
    pub(super) reply: Option<Reply>,
}

/// Asks until it is told that the trouble is over.
pub(super) struct Probe(JoinHandle<Vec<Answered>>);

/// Everything that one probe was answered.
pub(super) struct Answers(pub(super) Vec<Answered>);

impl Probe {
    /// Asks what `question` makes of each number, `every` so often.
    pub(super) fn start(
        ground: &Ground,
        over: watch::Receiver<bool>,
        every: Duration,
        question: impl Fn(usize) -> Question + Send + 'static,
    ) -> Self {
        let mut caller: Caller = ground.caller();
        Self(tokio::spawn(async move {
            let mut answers = Vec::new();
            for number in 0.. {
                if *over.borrow() {
                    break;
                }
                let asked = Instant::now();
                let reply = caller.ask(&question(number)).await.ok();
                answers.push(Answered {
                    asked,
                    took: asked.elapsed(),
                    reply,
                });
                sleep(every.saturating_sub(asked.elapsed())).await;
            }
            answers
        }))
    }

    /// What it was answered, when the last question is.
    pub(super) async fn end(self) -> Result<Answers, crate::Failure> {
        Ok(Answers(self.0.await?))
    }
}

impl Answers {
    pub(super) fn slowest(&self) -> Duration {
        self.0.iter().map(|answer| answer.took).max().unwrap_or_default()
    }

    /// Whether all have one of these statuses.
    pub(super) fn are_all(&self, statuses: &[u16]) -> bool {
        self.0
            .iter()
            .all(|answer| answer.status().is_some_and(|status| statuses.contains(&status)))
    }

    /// How many there were of each status, and how long the slowest took.
    pub(super) fn describe(&self) -> String {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for answer in &self.0 {
            let status = answer.status().map_or("none".to_owned(), |status| status.to_string());
            *counts.entry(status).or_default() += 1;
        }
        let mut text = String::new();
        for (status, count) in counts {
            // Writing into a text cannot fail.
            let _ = write!(text, "{count} × {status}, ");
        }
        text + &format!("at most {}", told(self.slowest()))
    }
}

impl Answered {
    pub(super) fn status(&self) -> Option<u16> {
        self.reply.as_ref().map(|reply| reply.status)
    }
}

/// A time for people: no more digits than it is worth.
pub(super) fn told(time: Duration) -> String {
    match time.as_millis() {
        millis @ 0..1_000 => format!("{millis} ms"),
        millis => format!("{:.1} s", millis as f64 / 1_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_status_and_none_is_none_of_them() {
        let answered = |status: Option<u16>, millis| Answered {
            asked: Instant::now(),
            took: Duration::from_millis(millis),
            reply: status.map(|status| Reply {
                status,
                headers: Default::default(),
                body: Default::default(),
            }),
        };
        let mut answers = Answers(vec![
            answered(Some(200), 4),
            answered(Some(503), 2_040),
            answered(Some(200), 9),
        ]);
        assert_eq!(answers.describe(), "2 × 200, 1 × 503, at most 2.0 s");
        assert!(answers.are_all(&[200, 503]) && !answers.are_all(&[200]));
        answers.0.push(answered(None, 45_000));
        assert!(!answers.are_all(&[200, 503]));
        assert!(answers.describe().contains("1 × none, at most 45.0 s"));
    }
}
