//! Reads the parameters of queries; everything in them is hostile until it was read.

use uuid::Uuid;

use crate::query::excerpt;
use crate::text::is_unprintable;
use crate::{QueryError, Timestamp};

/// No name, role, zone, address or text that is searched for is longer.
const LONGEST_WORD: usize = 253;

/// Collects what is wrong, so that all of it is told at once.
#[derive(Default)]
pub(crate) struct Errors(Vec<QueryError>);

/// Why one value was refused: where in it, if that can be told, and what was wrong and is allowed.
pub(crate) type Refusal = (Option<usize>, String);

impl Errors {
    /// Reads a parameter if it was given.
    pub(crate) fn read<T>(
        &mut self,
        parameter: &'static str,
        text: &Option<String>,
        read: impl FnOnce(&str) -> Result<T, Refusal>,
    ) -> Option<T> {
        match read(text.as_deref()?) {
            Ok(value) => Some(value),
            Err((position, message)) => {
                self.0.push(QueryError {
                    parameter: parameter.into(),
                    position,
                    message,
                });
                None
            }
        }
    }

    /// That nothing was wrong, else all that was.
    pub(crate) fn none(self) -> Result<(), Vec<QueryError>> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(self.0),
        }
    }
}

/// A text without control characters that is not too long.
pub(crate) fn word(text: &str) -> Result<String, Refusal> {
    if text.is_empty() {
        return Err((
            None,
            "an empty text matches nothing: leave the parameter out".to_owned(),
        ));
    }
    if LONGEST_WORD < text.len() {
        return Err((
            None,
            format!("it has {} bytes, at most {LONGEST_WORD} are allowed", text.len()),
        ));
    }
    match text.chars().position(is_unprintable) {
        Some(index) => Err((Some(index + 1), "control characters are not allowed".to_owned())),
        None => Ok(text.to_owned()),
    }
}

/// A number from 1 to `most`.
pub(crate) fn whole_number(text: &str, most: usize) -> Result<usize, Refusal> {
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
        _ => Err((None, format!("{} is not a whole number from 1 to {most}", quoted(text)))),
    }
}

/// As much of a caller's text as an error repeats, in quotes.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", excerpt(text))
}

/// A time.
pub(crate) fn time(text: &str) -> Result<Timestamp, Refusal> {
    Timestamp::parse(text).map_err(|_| {
        let example = "an RFC 3339 time such as 2030-01-01T00:00:00Z is expected";
        (None, format!("{} is not a time: {example}", quoted(text)))
    })
}

/// An id, in the one form in which ids are told.
pub(crate) fn uuid(text: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(text).ok()?;
    id.to_string().eq_ignore_ascii_case(text).then_some(id)
}
