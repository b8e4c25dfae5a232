//! In which order the nodes of an operation are worked on, and how many at once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::OperationKind;
use crate::{QueryError, excerpt};

/// The most nodes that may be worked on at once.
const MOST_CONCURRENT: i64 = 1_000;
/// The longest pause between nodes: a day.
const LONGEST_PAUSE: i64 = 24 * 3600;

/// In which order the nodes of an operation are worked on, and how many at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strategy {
    /// How many nodes of the operation may be out of use at once: drained, and not ready and schedulable again. `None`: any number.
    pub max_unavailable: Option<Share>,
    /// The same for each zone by itself.
    pub max_unavailable_per_zone: Option<Share>,
    /// How many nodes are worked on at once.
    pub max_concurrent: u32,
    /// In which order.
    pub order: TargetOrder,
    /// How long it waits between the beginnings of two nodes.
    pub pause_between: Duration,
    /// How many nodes may fail before it pauses: with one more it does. `None`: any number.
    pub max_failures: Option<Share>,
    /// Whether drained nodes are made schedulable again.
    pub uncordon_after: UncordonAfter,
}

/// A part of the nodes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Share {
    /// So many.
    Count(u32),
    /// So many of a hundred.
    Percent(u32),
}

/// In which order nodes are worked on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TargetOrder {
    /// As they were named; those that a selector found by name.
    #[default]
    AsGiven,
    /// One zone after the other.
    ByZone,
    /// Those with the fewest pods first.
    LeastPodsFirst,
}

/// Whether drained nodes are made schedulable again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UncordonAfter {
    /// They stay as they are.
    #[default]
    Never,
    /// As soon as they are ready.
    OnReady,
}

/// A strategy as it came; what was not given is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawStrategy {
    /// `max_unavailable`: a number or, with `%`, a share.
    pub max_unavailable: Option<String>,
    /// `max_unavailable_per_zone`: a number or, with `%`, a share.
    pub max_unavailable_per_zone: Option<String>,
    /// `max_concurrent`: 1 to 1,000.
    pub max_concurrent: Option<i64>,
    /// `order`: one of [`TargetOrder::ALL`].
    pub order: Option<String>,
    /// `pause_between_seconds`: 0 to 86,400.
    pub pause_between_seconds: Option<i64>,
    /// `max_failures`: a number or, with `%`, a share.
    pub max_failures: Option<String>,
    /// `uncordon_after`: one of [`UncordonAfter::ALL`].
    pub uncordon_after: Option<String>,
}

impl Share {
    /// Reads `3` or `25%`.
    ///
    /// # Errors
    /// What is wrong and what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "\"{}\" is not allowed: a whole number such as 3, or a share of 0% to 100% such as \"25%\" is",
                excerpt(text)
            )
        };
        let number = |digits: &str| {
            let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<u32>().ok().filter(|_| is_plain).ok_or_else(wrong)
        };
        match text.strip_suffix('%') {
            Some(digits) => {
                number(digits).and_then(|percent| (percent <= 100).then_some(Self::Percent(percent)).ok_or_else(wrong))
            }
            None => number(text).map(Self::Count),
        }
    }

    /// How many of `total` that are, rounded down.
    #[must_use]
    pub fn of(self, total: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                let part = u64::from(total) * u64::from(percent) / 100;
                u32::try_from(part).unwrap_or(u32::MAX)
            }
        }
    }

    /// `3` or `25%`.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::Count(count) => count.to_string(),
            Self::Percent(percent) => format!("{percent}%"),
        }
    }
}

impl TargetOrder {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::AsGiven, Self::ByZone, Self::LeastPodsFirst];

    /// `as_given`, `by_zone` or `least_pods_first`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AsGiven => "as_given",
            Self::ByZone => "by_zone",
            Self::LeastPodsFirst => "least_pods_first",
        }
    }
}

impl UncordonAfter {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Never, Self::OnReady];

    /// `never` or `on_ready`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::OnReady => "on_ready",
        }
    }
}

impl Strategy {
    /// What holds for operations of this kind if nobody says anything: one drain at a time, and a pause after the first failure.
    #[must_use]
    pub fn of(kind: OperationKind) -> Self {
        Self {
            max_unavailable: None,
            max_unavailable_per_zone: None,
            max_concurrent: match kind {
                OperationKind::Drain => 1,
                OperationKind::Cordon
                | OperationKind::Uncordon
                | OperationKind::Label
                | OperationKind::Taint
                | OperationKind::ApplyTemplate => 32,
            },
            order: TargetOrder::default(),
            pause_between: Duration::ZERO,
            max_failures: Some(Share::Count(0)),
            uncordon_after: UncordonAfter::default(),
        }
    }

    /// Checks what a caller wants of an operation of this kind.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(raw: &RawStrategy, kind: OperationKind) -> Result<Self, Vec<QueryError>> {
        let usual = Self::of(kind);
        let mut wrong = Vec::new();
        let unavailable = share(&mut wrong, "max_unavailable", raw.max_unavailable.as_deref());
        let per_zone = share(
            &mut wrong,
            "max_unavailable_per_zone",
            raw.max_unavailable_per_zone.as_deref(),
        );
        let concurrent = number(&mut wrong, "max_concurrent", raw.max_concurrent, 1, MOST_CONCURRENT);
        let orders = TargetOrder::ALL.map(|order| (order.as_str(), order));
        let order = word(&mut wrong, "order", raw.order.as_deref(), &orders);
        let pause = number(
            &mut wrong,
            "pause_between_seconds",
            raw.pause_between_seconds,
            0,
            LONGEST_PAUSE,
        );
        let failures = share(&mut wrong, "max_failures", raw.max_failures.as_deref());
        let endings = UncordonAfter::ALL.map(|after| (after.as_str(), after));
        let uncordon_after = word(&mut wrong, "uncordon_after", raw.uncordon_after.as_deref(), &endings);
        for (name, given) in [("max_unavailable", unavailable), ("max_unavailable_per_zone", per_zone)] {
            if let Some(none @ (Share::Count(0) | Share::Percent(0))) = given {
                let message = format!(
                    "{} is not allowed: nothing would ever begin; at least 1 or 1% is",
                    none.describe()
                );
                wrong.push(QueryError::new(parameter(name), message));
            }
        }
        if kind != OperationKind::Drain {
            for (name, is_given) in [
                ("max_unavailable", unavailable.is_some()),
                ("max_unavailable_per_zone", per_zone.is_some()),
                ("uncordon_after", uncordon_after == Some(UncordonAfter::OnReady)),
            ] {
                if is_given {
                    let message = format!(
                        "it means nothing to an operation of the kind {}: drains have it",
                        kind.as_str()
                    );
                    wrong.push(QueryError::new(parameter(name), message));
                }
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Self {
            max_unavailable: unavailable,
            max_unavailable_per_zone: per_zone,
            max_concurrent: concurrent.map_or(usual.max_concurrent, |number| {
                u32::try_from(number).unwrap_or(usual.max_concurrent)
            }),
            order: order.unwrap_or_default(),
            pause_between: pause.map_or(usual.pause_between, |seconds| {
                Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
            }),
            max_failures: failures.or(usual.max_failures),
            uncordon_after: uncordon_after.unwrap_or_default(),
        })
    }
}

fn parameter(name: &'static str) -> String {
    format!("strategy.{name}")
}

fn share(wrong: &mut Vec<QueryError>, name: &'static str, text: Option<&str>) -> Option<Share> {
    match Share::parse(text?) {
        Ok(share) => Some(share),
        Err(message) => {
            wrong.push(QueryError::new(parameter(name), message));
            None
        }
    }
}

fn number(wrong: &mut Vec<QueryError>, name: &'static str, value: Option<i64>, least: i64, most: i64) -> Option<i64> {
    let value = value?;
    if (least..=most).contains(&value) {
        return Some(value);
    }
    let message = format!("{value} is not allowed: {least} to {most} is");
    wrong.push(QueryError::new(parameter(name), message));
    None
}

fn word<T: Copy>(
    wrong: &mut Vec<QueryError>,
    name: &'static str,
    text: Option<&str>,
    allowed: &[(&'static str, T)],
) -> Option<T> {
    let text = text?;
    let found = allowed.iter().find(|(word, _)| *word == text);
    if found.is_none() {
        let words: Vec<_> = allowed.iter().map(|(word, _)| *word).collect();
        let message = format!("\"{}\" is not allowed: one of {} is", excerpt(text), words.join(", "));
        wrong.push(QueryError::new(parameter(name), message));
    }
    found.map(|(_, meaning)| *meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_number_or_a_part() {
        assert_eq!(Share::parse("3"), Ok(Share::Count(3)));
        assert_eq!(Share::parse("25%"), Ok(Share::Percent(25)));
        for text in ["", "%", "-1", "+1", "101%", "1.5", "25 %", "x", "99999999999"] {
            let message = Share::parse(text).unwrap_err();
            assert!(
                message.starts_with(&format!("\"{text}\"")) && message.contains("25%"),
                "{message}"
            );
        }
        for (share, total, expected) in [
            (Share::Count(3), 2, 3),
            (Share::Percent(25), 10, 2),
            (Share::Percent(100), 7, 7),
            (Share::Percent(10), 5, 0),
            (Share::Percent(50), u32::MAX, u32::MAX / 2),
        ] {
            assert_eq!(share.of(total), expected, "{share:?} of {total}");
        }
    }

    #[test]
    fn a_drain_goes_node_by_node_and_stops_at_the_first_failure_unless_asked_otherwise() {
        let strategy = Strategy::parse(&RawStrategy::default(), OperationKind::Drain).unwrap();
        assert_eq!(strategy, Strategy::of(OperationKind::Drain));
        assert_eq!(
            (strategy.max_concurrent, strategy.max_failures),
            (1, Some(Share::Count(0)))
        );
        assert_eq!(strategy.uncordon_after, UncordonAfter::Never);
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let raw = RawStrategy {
            max_unavailable: Some("0".to_owned()),
            max_unavailable_per_zone: Some("many".to_owned()),
            max_concurrent: Some(0),
            order: Some("backwards".to_owned()),
            pause_between_seconds: Some(-1),
            max_failures: Some("200%".to_owned()),
            uncordon_after: Some("soon".to_owned()),
        };
        let errors = Strategy::parse(&raw, OperationKind::Drain).unwrap_err();
        let mut parameters: Vec<_> = errors.iter().map(|error| error.parameter.as_ref()).collect();
        parameters.sort_unstable();
        assert_eq!(
            parameters,
            [
                "strategy.max_concurrent",
                "strategy.max_failures",
                "strategy.max_unavailable",
                "strategy.max_unavailable_per_zone",
                "strategy.order",
                "strategy.pause_between_seconds",
                "strategy.uncordon_after",
            ]
        );
        let raw = RawStrategy {
            uncordon_after: Some("on_ready".to_owned()),
            ..RawStrategy::default()
        };
        let errors = Strategy::parse(&raw, OperationKind::Label).unwrap_err();
        assert!(errors[0].message.contains("kind label"), "{errors:?}");
    }

    #[test]
    fn a_limit_that_would_let_nothing_begin_is_refused() {
        for text in ["0", "00", "0%", "00%"] {
            let raw = RawStrategy {
                max_unavailable: Some(text.to_owned()),
                max_unavailable_per_zone: Some(text.to_owned()),
                max_failures: Some(text.to_owned()),
                ..RawStrategy::default()
            };
            let errors = Strategy::parse(&raw, OperationKind::Drain).unwrap_err();
            assert_eq!(errors.len(), 2, "{errors:?}");
            assert!(errors[0].message.contains("nothing would ever begin"), "{errors:?}");
        }
    }

    #[test]
    fn what_is_asked_for_is_taken() {
        let raw = RawStrategy {
            max_unavailable: Some("10%".to_owned()),
            max_unavailable_per_zone: Some("1".to_owned()),
            max_concurrent: Some(5),
            order: Some("by_zone".to_owned()),
            pause_between_seconds: Some(30),
            max_failures: Some("2".to_owned()),
            uncordon_after: Some("on_ready".to_owned()),
        };
        let strategy = Strategy::parse(&raw, OperationKind::Drain).unwrap();
        let expected = Strategy {
            max_unavailable: Some(Share::Percent(10)),
            max_unavailable_per_zone: Some(Share::Count(1)),
            max_concurrent: 5,
            order: TargetOrder::ByZone,
            pause_between: Duration::from_secs(30),
            max_failures: Some(Share::Count(2)),
            uncordon_after: UncordonAfter::OnReady,
        };
        assert_eq!(strategy, expected);
    }
}
