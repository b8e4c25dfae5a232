//! Label selectors, in Kubernetes' grammar.

use std::collections::{BTreeMap, BTreeSet};

mod parse;

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
        Ok(Self {
            requirements: parse::parse(text)?,
        })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn each_operator_of_the_grammar_decides_as_kubernetes_does() {
        let node = labels(&[("zone", "a"), ("empty", ""), ("gpus", "4")]);
        let cases = [
            ("", true),
            ("  ", true),
            ("zone", true),
            ("!zone", false),
            ("! zone", false),
            ("absent", false),
            ("!absent", true),
            ("zone=a", true),
            ("zone == a", true),
            ("zone=b", false),
            ("zone!=a", false),
            ("zone!=b", true),
            ("absent!=b", true),
            ("absent=", false),
            ("empty=", true),
            ("empty!=", false),
            ("zone in (a,b)", true),
            ("zone in ( b , c )", false),
            ("zone notin (b,c)", true),
            ("absent notin (b)", true),
            ("zone in (,b)", false),
            ("empty in (,b)", true),
            ("empty in ()", true),
            ("gpus>3", true),
            ("gpus > 4", false),
            ("gpus<5", true),
            ("zone>1", false),
            ("absent<1", false),
            ("zone=a,gpus in (4),!absent", true),
            ("zone=a,gpus in (3)", false),
            ("zone in (a),\n empty", true),
        ];
        for (text, expected) in cases {
            assert_eq!(Selector::parse(text).unwrap().matches(&node), expected, "{text}");
        }
    }

    #[test]
    fn a_wrong_selector_is_refused_at_its_place() {
        let cases = [
            (",", 1),
            ("a,", 3),
            ("a,,b", 3),
            ("=a", 1),
            ("a b", 3),
            ("a=b c", 5),
            ("a=b=c", 4),
            ("a in b", 6),
            ("a in (b", 8),
            ("a in (b c)", 9),
            ("a in (b))", 9),
            ("a notin", 8),
            ("a>b", 3),
            ("a>", 3),
            ("!", 2),
            ("!a=b", 3),
            ("-a=b", 1),
            ("a=-b", 3),
            ("a in (b,c!)", 10),
            ("\u{e4}=b", 1),
            ("a=b,\u{e4}\u{e4} c", 5),
            ("a/b/c", 1),
            ("a=b\u{0}", 3),
        ];
        for (text, position) in cases {
            let error = Selector::parse(text).unwrap_err();
            assert_eq!(error.position, position, "{text}: {error}");
            assert!(!error.to_string().contains('\u{0}'), "{error}");
        }
        assert!(Selector::parse(&"a".repeat(5_000)).is_err());
    }

    #[test]
    fn a_selector_has_so_many_bytes_requirements_and_values_and_no_more() {
        let listed = |count: usize, one: &str| vec![one; count].join(",");
        let values = |counts: [usize; 2]| counts.map(|count| format!("k in ({})", listed(count, "v"))).join(",");
        for (text, wrong) in [
            (listed(100, "k=v"), None),
            (listed(101, "k=v"), Some((401, "at most 100 requirements"))),
            (values([500, 500]), None),
            (values([500, 501]), Some((2_014, "at most 1000 values"))),
            (listed(2_048, "k"), Some((201, "at most 100 requirements"))),
            ("k".repeat(4_097), Some((1, "at most 4096 bytes"))),
        ] {
            let error = Selector::parse(&text).err();
            let told = error.as_ref().map(|error| (error.position, &*error.message));
            match (told, wrong) {
                (None, None) => {}
                (Some((at, message)), Some((place, part))) => {
                    assert!(at == place && message.contains(part), "{at}: {message}");
                }
                other => unreachable!("{other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-c=!<>(), \\-\u{e4}]{0,40}|in|notin") {
            let _ = Selector::parse(&text);
        }

        #[test]
        fn what_is_wrong_is_wrong_somewhere_in_the_text(text in any::<String>(), shape in "(\\(|\\)|!|,|=|<|>| in | notin |a){0,60}", times in 1_usize..100) {
            for text in [text, shape.repeat(times), shape] {
                if let Err(error) = Selector::parse(&text) {
                    prop_assert!((1..=text.chars().count() + 1).contains(&error.position), "{}", error);
                    prop_assert!(error.message.len() < 2_000, "{}", error);
                }
            }
        }

        #[test]
        fn a_set_of_values_holds_for_each_of_them(values in proptest::collection::btree_set("[a-z0-9]{1,8}", 1..6)) {
            let text = format!("key in ({})", values.iter().cloned().collect::<Vec<_>>().join(","));
            let negated = format!("key notin ({})", values.iter().cloned().collect::<Vec<_>>().join(", "));
            for value in &values {
                let node = labels(&[("key", value)]);
                prop_assert!(Selector::parse(&text).unwrap().matches(&node));
                prop_assert!(!Selector::parse(&negated).unwrap().matches(&node));
            }
        }
    }
}
