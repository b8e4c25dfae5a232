//! Taints: what keeps pods off a node.

use crate::Timestamp;
use crate::label::{LabelError, check_label_key, check_label_value};

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
        let position_of = |part: &str| text.chars().count() - part.chars().count() + 1;
        let (rest, effect) = match text.split_once(':') {
            None => (text, None),
            Some((rest, word)) => {
                let effect = TaintEffect::parse(word).ok_or_else(|| TaintError {
                    position: position_of(word),
                    message: format!(
                        "{:?} is not an effect: NoSchedule, PreferNoSchedule or NoExecute is expected",
                        word.chars().take(64).collect::<String>()
                    ),
                })?;
                (rest, Some(effect))
            }
        };
        let (key, value) = match rest.split_once('=') {
            None => (rest, None),
            Some((key, value)) => (key, Some(value)),
        };
        let wrong = |position| {
            move |error: LabelError| TaintError {
                position,
                message: error.to_string(),
            }
        };
        check_label_key(key).map_err(wrong(1))?;
        if let Some(value) = value {
            check_label_value(value).map_err(wrong(key.chars().count() + 2))?;
        }
        Ok(Self {
            key: key.to_owned(),
            value: value.map(str::to_owned),
            effect,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taint(key: &str, value: &str, effect: TaintEffect) -> Taint {
        Taint {
            key: key.into(),
            value: value.into(),
            effect,
            added_at: None,
        }
    }

    #[test]
    fn a_filter_matches_by_what_it_names() {
        let gpu = taint("nvidia.com/gpu", "true", TaintEffect::NoSchedule);
        let cases = [
            ("nvidia.com/gpu", true),
            ("nvidia.com/gpu=true", true),
            ("nvidia.com/gpu=", false),
            ("nvidia.com/gpu=true:NoSchedule", true),
            ("nvidia.com/gpu:NoSchedule", true),
            ("nvidia.com/gpu:NoExecute", false),
            ("gpu", false),
        ];
        for (text, expected) in cases {
            assert_eq!(TaintFilter::parse(text).unwrap().matches(&gpu), expected, "{text}");
        }
    }

    #[test]
    fn a_wrong_filter_is_refused_at_its_place() {
        for (text, position) in [
            ("", 1),
            ("a b", 1),
            ("a=-", 3),
            ("a=b:noexecute", 5),
            ("a:", 3),
            ("key:NoExecute:x", 5),
        ] {
            let error = TaintFilter::parse(text).unwrap_err();
            assert_eq!(error.position, position, "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*|[a-z./]{0,80}[=:]{0,3}[a-zA-Z=:\u{0}\u{e4}-]{0,40}") {
            if let Err(error) = TaintFilter::parse(&text) {
                prop_assert!((1..=text.chars().count() + 1).contains(&error.position), "{}", error);
            }
        }

        #[test]
        fn a_filter_is_what_was_written(key in "([a-z]{1,8}/)?[a-z]{1,8}", value in proptest::option::of("[a-z]{0,8}"), effect in 0_usize..4) {
            let effect = TaintEffect::ALL.get(effect).copied();
            let mut text = key.clone();
            text.extend(value.iter().flat_map(|value| ["=", value.as_str()]));
            text.extend(effect.iter().flat_map(|effect| [":", effect.as_str()]));
            prop_assert_eq!(TaintFilter::parse(&text), Ok(TaintFilter { key, value, effect }));
        }
    }
}
