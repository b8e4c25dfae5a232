//! What a pod asks of the node that it is placed on, besides room.

use std::collections::BTreeMap;

use crate::{Node, Requirement, Taint, TaintEffect};

/// Taints that a pod puts up with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Toleration {
    /// The key; empty: any, which only [`TolerationOperator::Exists`] may say.
    pub key: String,
    /// What the value must be like.
    pub operator: TolerationOperator,
    /// The effect, `None`: any.
    pub effect: Option<TaintEffect>,
}

/// What a toleration asks of a taint's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TolerationOperator {
    /// Any value.
    Exists,
    /// This value.
    Equal(String),
}

/// One way to meet a pod's required node affinity: all of its requirements hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeTerm {
    /// On the node's labels.
    pub labels: Vec<Requirement>,
    /// On the node's fields, of which there is one: `metadata.name`.
    pub fields: Vec<Requirement>,
}

impl Toleration {
    /// Whether a pod with it puts up with `taint`.
    #[must_use]
    pub fn tolerates(&self, taint: &Taint) -> bool {
        let by_value = match &self.operator {
            TolerationOperator::Exists => true,
            TolerationOperator::Equal(value) => !self.key.is_empty() && *value == taint.value,
        };
        by_value
            && (self.key.is_empty() || self.key == taint.key)
            && self.effect.is_none_or(|effect| effect == taint.effect)
    }
}

impl NodeTerm {
    /// Whether `node` meets it; a term without requirements is met by no node.
    #[must_use]
    pub fn matches(&self, node: &Node) -> bool {
        let name = BTreeMap::from([("metadata.name", node.name.as_str())]);
        let asks = !self.labels.is_empty() || !self.fields.is_empty();
        asks && self
            .labels
            .iter()
            .all(|one| one.holds(node.labels.get(&one.key).map(String::as_str)))
            && self
                .fields
                .iter()
                .all(|one| one.holds(name.get(one.key.as_str()).copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Selector;
    use crate::fixture::node;

    #[test]
    fn a_toleration_asks_for_key_value_and_effect() {
        let taint = Taint {
            key: "gpu".into(),
            value: "big".into(),
            effect: TaintEffect::NoExecute,
            added_at: None,
        };
        let equal = |value: &str| TolerationOperator::Equal(value.into());
        for (key, operator, effect, expected) in [
            ("gpu", equal("big"), None, true),
            ("gpu", equal("small"), None, false),
            ("gpu", TolerationOperator::Exists, None, true),
            ("gpu", TolerationOperator::Exists, Some(TaintEffect::NoExecute), true),
            ("gpu", TolerationOperator::Exists, Some(TaintEffect::NoSchedule), false),
            ("disk", TolerationOperator::Exists, None, false),
            ("", TolerationOperator::Exists, None, true),
            ("", equal("big"), None, false),
        ] {
            let toleration = Toleration {
                key: key.into(),
                operator,
                effect,
            };
            assert_eq!(toleration.tolerates(&taint), expected, "{toleration:?}");
        }
    }

    #[test]
    fn a_term_asks_for_labels_and_the_name() {
        let mut node = node("a");
        node.labels.insert("gpus".into(), "4".into());
        let parts = |text: &str| Selector::parse(text).unwrap().requirements().to_vec();
        let name = |text: &str| {
            let mut found = parts(text);
            found[0].key = "metadata.name".into();
            found
        };
        for (labels, fields, expected) in [
            (parts(""), parts(""), false),
            (parts("gpus in (4,8)"), parts(""), true),
            (parts("gpus notin (4)"), parts(""), false),
            (parts("gpus>3,gpus<5"), parts(""), true),
            (parts("gpus>4"), parts(""), false),
            (parts("gpus,!zone"), parts(""), true),
            (parts(""), name("x=a"), true),
            (parts(""), name("x in (b)"), false),
            (parts("gpus"), name("x!=a"), false),
            (parts(""), parts("x=a"), false),
        ] {
            let term = NodeTerm { labels, fields };
            assert_eq!(term.matches(&node), expected, "{term:?}");
        }
    }
}
