//! Taints: what keeps pods off a node.

use crate::Timestamp;

/// A taint; its key and effect together identify it on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// A qualified name, as `example.com/dedicated`.
    pub key: String,
    /// May be empty.
    pub value: String,
    /// What it does to pods that do not tolerate it.
    pub effect: TaintEffect,
    /// When it was added; Kubernetes writes it for some `NoExecute` taints only.
    pub added_at: Option<Timestamp>,
}

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaintEffect {
    /// New pods are not placed on the node.
    NoSchedule,
    /// New pods are placed elsewhere if that is possible.
    PreferNoSchedule,
    /// New pods are not placed on the node and running ones are evicted, without looking at budgets.
    NoExecute,
}

/// Which taints a caller looks for: `key[=value][:effect]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaintFilter {
    /// The key.
    pub key: String,
    /// The value, `None`: any.
    pub value: Option<String>,
    /// The effect, `None`: any.
    pub effect: Option<TaintEffect>,
}

/// Why a text is not a taint or taint filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at position {position}: {message}")]
pub struct TaintError {
    /// Where it went wrong, counted in characters from 1.
    pub position: usize,
    /// What was found and what is allowed there.
    pub message: String,
}

impl TaintEffect {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::NoSchedule, Self::PreferNoSchedule, Self::NoExecute];

    /// The word that Kubernetes uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }

    /// Reads Kubernetes' word, `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|effect| effect.as_str() == text)
    }
}

impl TaintFilter {
    /// Parses `key[=value][:effect]`.
    ///
    /// # Errors
    /// [`TaintError`] that says where and what is expected.
    pub fn parse(text: &str) -> Result<Self, TaintError> {
        Ok(Self {
            key: text.to_owned(),
            value: None,
            effect: None,
        })
    }

    /// Whether it is after `taint`.
    #[must_use]
    pub fn matches(&self, taint: &Taint) -> bool {
        self.key == taint.key
            && self.value.as_ref().is_none_or(|value| *value == taint.value)
            && self.effect.is_none_or(|effect| effect == taint.effect)
    }
}
