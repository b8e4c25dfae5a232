//! Requests that may be sent twice and are done once.

use std::time::Duration;

use crate::Timestamp;

/// How long a key goes with its request: later it may come with another one.
pub const IDEMPOTENCY_KEPT: Duration = Duration::from_secs(24 * 3600);

/// The longest key, in characters.
const LONGEST_KEY: usize = 255;

/// A request under a key that its caller chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyClaim {
    /// Who sends it, see [`Actor::label`](crate::Actor::label): keys of different callers have nothing to do with each other.
    pub caller: String,
    /// The key.
    pub key: String,
    /// A SHA-256 of what is asked.
    pub fingerprint: [u8; 32],
    /// When it arrived.
    pub at: Timestamp,
}

/// What is known under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownRequest {
    /// A SHA-256 of what was asked.
    pub fingerprint: [u8; 32],
    /// What was answered; `None` while it is being worked on.
    pub answer: Option<KeptAnswer>,
}

/// An answer that is given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The media type of the body.
    pub content_type: Option<String>,
    /// The tag of the state that it tells.
    pub etag: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why a text is not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key has 1 to {LONGEST_KEY} printable ASCII characters")]
pub struct KeyError;

/// Checks a key.
///
/// # Errors
/// [`KeyError`] if it is empty, too long, or has other characters than printable ASCII.
pub fn check_idempotency_key(text: &str) -> Result<(), KeyError> {
    let is_fine = (1..=LONGEST_KEY).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if is_fine { Ok(()) } else { Err(KeyError) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_short_and_printable() {
        for key in ["a", "0192f0c1-a2b3", "two words", &"k".repeat(255)] {
            assert_eq!(check_idempotency_key(key), Ok(()), "{key}");
        }
        for key in ["", "\u{e4}", "a\tb", &"k".repeat(256)] {
            assert_eq!(check_idempotency_key(key), Err(KeyError), "{key}");
        }
    }
}
