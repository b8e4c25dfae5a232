//! What differs between two states of a node, as the audit log tells it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{HOLDS_ANNOTATION, Node, NodePatch, Taint};

const LABELS: &str = "labels";
const TAINTS: &str = "taints";
const SCHEDULABLE: &str = "schedulable";
const HOLDS: &str = "holds";

/// What differs between two states of a node, as far as this service changes it: what was there before and what is there afterwards, under
/// the same keys.
#[must_use]
pub fn difference(before: &Node, after: &Node) -> (Map<String, Value>, Map<String, Value>) {
    let keys: BTreeSet<&String> = before.labels.keys().chain(after.labels.keys()).collect();
    let mut was = Map::from_iter([(LABELS.to_owned(), labels(before, keys))]);
    was.extend([TAINTS, SCHEDULABLE, HOLDS].map(|key| (key.to_owned(), part(before, key))));
    difference_since(&was, after)
}

/// What stands on `node` now that `patch` is about to change, for [`difference_since`].
#[must_use]
pub fn before_change(patch: &NodePatch, node: &Node) -> Map<String, Value> {
    let mut was = Map::new();
    if !patch.labels.is_empty() {
        was.insert(LABELS.to_owned(), labels(node, patch.labels.keys()));
    }
    for (key, is_changed) in [
        (TAINTS, patch.taints.is_some()),
        (SCHEDULABLE, patch.schedulable.is_some()),
        (HOLDS, patch.annotations.contains_key(HOLDS_ANNOTATION)),
    ] {
        if is_changed {
            was.insert(key.to_owned(), part(node, key));
        }
    }
    was
}

/// What differs between what stood on a node and what stands there now, as [`difference`] tells it.
#[must_use]
pub fn difference_since(was: &Map<String, Value>, node: &Node) -> (Map<String, Value>, Map<String, Value>) {
    let (mut before, mut after) = (Map::new(), Map::new());
    for (key, stood) in was {
        let (one, other) = match (key.as_str(), stood) {
            (LABELS, Value::Object(stood)) => {
                let stands = labels(node, stood.keys());
                let differs = |(label, value): &(&String, &Value)| stands[label.as_str()] != **value;
                let differing: Vec<&String> = stood.iter().filter(differs).map(|(label, _)| label).collect();
                let only = |all: &dyn Fn(&str) -> Value| -> Value {
                    let told = differing.iter().map(|label| ((*label).clone(), all(label)));
                    told.collect::<Map<_, _>>().into()
                };
                (
                    only(&|label| stood[label].clone()),
                    only(&|label| stands[label].clone()),
                )
            }
            (key, stood) => (stood.clone(), part(node, key)),
        };
        if one != other {
            before.insert(key.clone(), one);
            after.insert(key.clone(), other);
        }
    }
    (before, after)
}

/// Taints as texts.
pub(crate) fn taints_as_text(taints: &[Taint]) -> Value {
    let text = |taint: &Taint| format!("{}={}:{}", taint.key, taint.value, taint.effect.as_str());
    taints.iter().map(text).collect()
}

/// The values of labels; null for those that the node does not have.
fn labels<'a>(node: &Node, keys: impl IntoIterator<Item = &'a String>) -> Value {
    let pairs = keys.into_iter().map(|key| (key.clone(), json!(node.labels.get(key))));
    pairs.collect::<Map<_, _>>().into()
}

/// What stands on a node under one of the other keys.
fn part(node: &Node, key: &str) -> Value {
    match key {
        TAINTS => taints_as_text(&node.taints),
        SCHEDULABLE => node.schedulable.into(),
        HOLDS => {
            let holds = node.cordon.iter().flat_map(|cordon| &cordon.holds);
            holds
                .map(|hold| json!({"by": hold.by, "reason": hold.reason, "ticket": hold.ticket}))
                .collect()
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::node;
    use crate::{LabelChange, TaintEffect};

    #[test]
    fn a_difference_names_what_changed_and_nothing_else() {
        let before = node("a");
        let mut after = before.clone();
        after.labels.insert("new".to_owned(), "x".to_owned());
        after.schedulable = !before.schedulable;
        let (was, is) = difference(&before, &after);
        assert_eq!(
            json!(was),
            json!({"labels": {"new": null}, "schedulable": before.schedulable})
        );
        assert_eq!(
            json!(is),
            json!({"labels": {"new": "x"}, "schedulable": after.schedulable})
        );
        assert_eq!(difference(&before, &before), (Map::new(), Map::new()));
    }

    #[test]
    fn what_a_patch_changed_can_be_told_afterwards() {
        let mut before = node("a");
        before.labels = [("old", "1"), ("other", "1")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        before.schedulable = true;
        let change = LabelChange::parse(&[("new".to_owned(), "x".to_owned())].into(), &["old".to_owned()]).unwrap();
        let patch = NodePatch {
            schedulable: Some(false),
            ..change.patch(&before)
        };
        let was = before_change(&patch, &before);
        assert_eq!(difference_since(&was, &before), (Map::new(), Map::new()));

        let mut after = before.clone();
        after.labels = [("new", "x"), ("other", "2")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        after.schedulable = false;
        after.taints = vec![Taint {
            key: "k".to_owned(),
            value: String::new(),
            effect: TaintEffect::NoSchedule,
            added_at: None,
        }];

        let (was, is) = difference_since(&was, &after);

        assert_eq!(
            json!(was),
            json!({"labels": {"new": null, "old": "1"}, "schedulable": true})
        );
        assert_eq!(
            json!(is),
            json!({"labels": {"new": "x", "old": null}, "schedulable": false})
        );
    }
}
