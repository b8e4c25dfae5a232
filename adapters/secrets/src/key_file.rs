//! The file of keys. What is wrong with it is told by its line, never by what stands there.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::LessSafeKey;
use secrecy::{ExposeSecret, SecretSlice};

use crate::key_of;

/// The longest id of a key.
pub const LONGEST_ID: usize = 32;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("the file of keys {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What lies below.
        #[source]
        source: std::io::Error,
    },
    /// A line is none of a file of keys.
    #[error(
        "the file of keys {}, line {line}: {message}; <id>:<base64 of 32 bytes> is expected, as `secrets generate-key` prints it",
        path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        message: &'static str,
    },
    /// There is no key in it.
    #[error("the file of keys {} has no key: `secrets generate-key` prints one", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// An id is none.
    #[error("an id of a key has 1 to {LONGEST_ID} lower case letters, digits and '-'")]
    WrongId,
    /// The machine gives no random bytes.
    #[error("there are no random bytes for a key")]
    NoRandomness,
}

/// Reads the keys, the newest first.
pub(crate) fn parse(text: &str, path: &Path) -> Result<Vec<(String, LessSafeKey)>, KeyFileError> {
    let mut keys: Vec<(String, LessSafeKey)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |message: &'static str| KeyFileError::Line {
            path: path.to_owned(),
            line: number + 1,
            message,
        };
        let (id, key) = line.split_once(':').ok_or_else(|| wrong("there is no ':'"))?;
        if !is_id(id) {
            return Err(wrong("the id is not 1 to 32 lower case letters, digits and '-'"));
        }
        if keys.iter().any(|(known, _)| known == id) {
            return Err(wrong("the id stands on a line before, too"));
        }
        let bytes = STANDARD.decode(key).map_err(|_| wrong("the key is not base64"))?;
        let bytes = SecretSlice::from(bytes);
        let key = key_of(bytes.expose_secret()).ok_or_else(|| wrong("the key does not have 32 bytes"))?;
        keys.push((id.to_owned(), key));
    }
    match keys.is_empty() {
        true => Err(KeyFileError::Empty { path: path.to_owned() }),
        false => Ok(keys),
    }
}

pub(crate) fn is_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=LONGEST_ID).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    #[test]
    fn keys_are_read_in_their_order() {
        let text = format!("# newest first\n\n  b:{KEY}  \r\na-1:{KEY}\n");
        let keys = parse(&text, Path::new("keys")).unwrap();
        let ids: Vec<&str> = keys.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["b", "a-1"]);
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line_and_not_shown() {
        for (text, expected) in [
            ("# nothing\n", "has no key"),
            ("", "has no key"),
            ("\nhunter2\n", "line 2: there is no ':'"),
            ("Hunter2:x", "line 1: the id"),
            ("a:hunter2!", "line 1: the key is not base64"),
            ("a:aHVudGVyMg==", "line 1: the key does not have 32 bytes"),
            (&format!("a:{KEY}\na:{KEY}"), "line 2: the id stands on a line before"),
        ] {
            let error = parse(text, Path::new("keys")).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(
                !error.to_lowercase().contains("hunter2") && !error.contains(KEY),
                "{error}"
            );
        }
    }
}
