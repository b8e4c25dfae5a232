//! What is known of a node of an operation beyond its state.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

const NOTHING: &str = "{}";

/// What is known of a node of an operation beyond its state, such as the pods of a drain: a JSON object, written and read by whoever works on
/// it. It is kept as text: trees of values take many times the memory, and there are thousands of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetDetail(Arc<str>);

impl TargetDetail {
    /// Writes it down.
    ///
    /// # Errors
    /// [`serde_json::Error`] if `what` is no JSON object.
    pub fn of(what: &impl Serialize) -> Result<Self, serde_json::Error> {
        Self::parse(&serde_json::to_string(what)?)
    }

    /// Takes a text that is a JSON object.
    ///
    /// # Errors
    /// [`serde_json::Error`] if it is none.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<BTreeMap<String, IgnoredAny>>(text)?;
        Ok(Self(Arc::from(text)))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        &*self.0 == NOTHING
    }

    /// Reads it; `None` if it says something else.
    #[must_use]
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(&self.0).ok()
    }
}

impl Default for TargetDetail {
    fn default() -> Self {
        Self(Arc::from(NOTHING))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let detail = TargetDetail::of(&json!({"phase": "removing", "pods": []})).unwrap();
        assert_eq!(detail.as_str(), r#"{"phase":"removing","pods":[]}"#);
        assert_eq!(detail.read(), Some(json!({"phase": "removing", "pods": []})));
        assert_eq!(detail.read::<u8>(), None);
        assert!(TargetDetail::default().is_empty() && !detail.is_empty());
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for wrong in ["", "[]", "1", "{", r#"{"a":1} b"#, "null"] {
            assert!(TargetDetail::parse(wrong).is_err(), "{wrong}");
        }
        assert!(TargetDetail::of(&[1]).is_err());
    }
}
