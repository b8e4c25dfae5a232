//! Points in time and how they are written.

use std::fmt;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time, in UTC, as exact as nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(jiff::Timestamp);

/// A text that is not an RFC 3339 time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not a time: an RFC 3339 time such as 2030-01-01T00:00:00Z is expected")]
pub struct TimestampError {
    text: String,
}

impl Timestamp {
    /// Parses an RFC 3339 time, with any offset.
    ///
    /// # Errors
    /// [`TimestampError`] if `text` is anything else.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        text.parse().map(Self).map_err(|_| TimestampError {
            text: text.chars().take(64).collect(),
        })
    }

    /// The time `milliseconds` after 1970-01-01T00:00:00Z, or `None` outside of the years −9999 to 9999.
    #[must_use]
    pub fn from_unix_millis(milliseconds: i64) -> Option<Self> {
        jiff::Timestamp::from_millisecond(milliseconds).ok().map(Self)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z, rounded towards zero.
    #[must_use]
    pub fn unix_millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// Milliseconds since 1970-01-01T00:00:00Z, rounded up: what is known to the millisecond is not before this time if it is not
    /// before these.
    #[must_use]
    pub fn unix_millis_rounded_up(self) -> i64 {
        let milliseconds = self.unix_millis();
        match Self::from_unix_millis(milliseconds) {
            Some(rounded) if rounded < self => milliseconds + 1,
            Some(_) | None => milliseconds,
        }
    }

    /// Seconds since 1970-01-01T00:00:00Z with their fraction.
    #[must_use]
    pub fn unix_seconds(self) -> f64 {
        self.0.as_duration().as_secs_f64()
    }

    /// Nanoseconds since 1970-01-01T00:00:00Z; 0 for times before it.
    #[must_use]
    pub fn unix_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanosecond()).unwrap_or(0)
    }

    /// The time that passed from `earlier` to this one; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::try_from(self.0.duration_since(earlier.0)).unwrap_or(Duration::ZERO)
    }

    /// This time moved forward by `duration`; the last time that can be written if that is too far.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration).unwrap_or(jiff::Timestamp::MAX))
    }

    /// This time moved back by `duration`; the first time that can be written if that is too far.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration).unwrap_or(jiff::Timestamp::MIN))
    }

    /// RFC 3339 in UTC with whole seconds and `Z`, as the contract's health answers write it.
    #[must_use]
    pub fn to_whole_seconds(self) -> String {
        format!("{:.0}", self.0)
    }
}

impl From<std::time::SystemTime> for Timestamp {
    fn from(time: std::time::SystemTime) -> Self {
        Self(jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH))
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(time: jiff::Timestamp) -> Self {
        Self(time)
    }
}

/// RFC 3339 in UTC with as many digits of a second as it has.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

/// Writes a duration as Go's `time.Duration` prints it, in whole seconds: `15s`, `2m0s`, `49h0m1s`.
#[must_use]
pub fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if 0 < hours {
        return format!("{hours}h{minutes}m{rest}s");
    }
    if 0 < minutes {
        return format!("{minutes}m{rest}s");
    }
    format!("{rest}s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_prints_them() {
        let cases = [
            (0, "0s"),
            (15, "15s"),
            (59, "59s"),
            (60, "1m0s"),
            (120, "2m0s"),
            (9015, "2h30m15s"),
            (176_401, "49h0m1s"),
        ];
        for (seconds, text) in cases {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!(go_duration(Duration::from_millis(1999)), "1s");
    }

    #[test]
    fn times_are_written_in_utc() {
        let time = Timestamp::parse("2023-12-07T12:30:00.25+02:00").unwrap();
        assert_eq!(time.to_string(), "2023-12-07T10:30:00.25Z");
        assert_eq!(time.to_whole_seconds(), "2023-12-07T10:30:00Z");
    }

    #[test]
    fn what_is_not_a_time_is_refused_with_the_value() {
        for text in ["", "yesterday", "2023-12-07", "2023-13-07T00:00:00Z"] {
            let error = Timestamp::parse(text).unwrap_err();
            assert!(error.to_string().contains(&format!("\"{text}\"")), "{error}");
        }
    }

    #[test]
    fn an_earlier_time_is_no_time_ago() {
        let (early, late) = (
            Timestamp::from_unix_millis(1_000).unwrap(),
            Timestamp::from_unix_millis(3_500).unwrap(),
        );
        assert_eq!(late.since(early), Duration::from_millis(2_500));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(early.plus(Duration::from_millis(2_500)), late);
        assert_eq!(late.minus(Duration::from_millis(2_500)), early);
    }

    #[test]
    fn milliseconds_are_rounded_up_on_both_sides_of_1970() {
        let cases = [
            ("1970-01-01T00:00:00.001Z", 1),
            ("1970-01-01T00:00:00.0010001Z", 2),
            ("1969-12-31T23:59:59.9985Z", -1),
            ("1969-12-31T23:59:59.999Z", -1),
        ];
        for (text, expected) in cases {
            assert_eq!(
                Timestamp::parse(text).unwrap().unix_millis_rounded_up(),
                expected,
                "{text}"
            );
        }
    }
}
