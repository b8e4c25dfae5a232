//! Changes of one node: what a caller may ask for, and the patch that it comes to.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::difference::taints_as_text;
use crate::label::{check_label_key, check_label_value};
use crate::{Node, QueryError, Taint, TaintEffect, excerpt};

/// How many labels, or taints, one change or template names at most.
pub(crate) const MOST_NAMED: usize = 100;

/// Labels that the kubelet sets again when somebody removes them or gives them another value.
const OWNED_BY_KUBELET: [&str; 5] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
/// Taints under these are set and removed by Kubernetes itself, by what it knows of the node.
const OWNED_BY_KUBERNETES: [&str; 2] = ["node.kubernetes.io/", "node.cloudprovider.kubernetes.io/"];

/// What changes on a node object, and nothing else. An absent object key in `labels` and `annotations` stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodePatch {
    /// The version of the object that this was worked out from: if there is another one meanwhile, nothing changes.
    pub resource_version: Option<String>,
    /// Values to set; `None` removes the label.
    pub labels: BTreeMap<String, Option<String>>,
    /// Values to set; `None` removes the annotation.
    pub annotations: BTreeMap<String, Option<String>>,
    /// All taints that the node has afterwards. Depends on those it had, so it goes with a `resource_version`.
    pub taints: Option<Vec<Taint>>,
    /// Whether the scheduler may place pods afterwards.
    pub schedulable: Option<bool>,
}

/// Labels to set and to remove, each key once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelChange {
    set: BTreeMap<String, String>,
    remove: BTreeSet<String>,
}

/// Taints to add and to remove. A taint that is added takes the place of the one with the same key and effect.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaintChange {
    add: Vec<Taint>,
    /// Keys, with `None` of every effect.
    remove: Vec<(String, Option<TaintEffect>)>,
}

/// A taint as a caller writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawTaint {
    /// The key.
    pub key: String,
    /// The value, empty if none was given. One that is to be removed has none.
    pub value: String,
    /// The effect's word; `None` if none was given.
    pub effect: Option<String>,
}

impl NodePatch {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty() && self.taints.is_none() && self.schedulable.is_none()
    }
}

impl LabelChange {
    /// The keys of the labels that it sets and removes.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.set.keys().chain(&self.remove).map(String::as_str)
    }

    /// Checks what a caller wants.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(set: &BTreeMap<String, String>, remove: &[String]) -> Result<Self, Vec<QueryError>> {
        let mut errors = too_many("set", set.len());
        errors.extend(too_many("remove", remove.len()));
        if !errors.is_empty() {
            return Err(errors);
        }
        for (key, value) in set {
            if let Err(error) = check_label_key(key) {
                errors.push(QueryError::new("set", error.to_string()));
            } else if let Err(error) = check_label_value(value) {
                errors.push(QueryError::new(format!("set.{key}"), error.to_string()));
            }
        }
        for key in remove {
            if let Err(error) = check_label_key(key) {
                errors.push(QueryError::new("remove", error.to_string()));
            } else if set.contains_key(key) {
                let message = format!("\"{key}\" is both set and removed: one of both is allowed");
                errors.push(QueryError::new("remove", message));
            }
        }
        if set.is_empty() && remove.is_empty() {
            errors.push(QueryError::new(
                "set",
                "nothing is asked for: a label in set or remove is expected",
            ));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            set: set.clone(),
            remove: remove.iter().cloned().collect(),
        })
    }

    /// What it changes on `node`: empty if the node has it all.
    #[must_use]
    pub fn patch(&self, node: &Node) -> NodePatch {
        let set = self
            .set
            .iter()
            .filter(|(key, value)| node.labels.get(*key) != Some(value))
            .map(|(key, value)| (key.clone(), Some(value.clone())));
        let removed = self
            .remove
            .iter()
            .filter(|key| node.labels.contains_key(*key))
            .map(|key| (key.clone(), None));
        NodePatch {
            labels: set.chain(removed).collect(),
            ..NodePatch::default()
        }
    }

    /// What the caller should know although it works.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let named = self.remove.iter().chain(self.set.keys());
        named
            .filter(|key| OWNED_BY_KUBELET.contains(&key.as_str()))
            .map(|key| format!("the label {key} belongs to the kubelet, which sets it again"))
            .collect()
    }

    /// What was asked for, for the audit log.
    #[must_use]
    pub fn options(&self) -> Map<String, Value> {
        object([("set", json!(self.set)), ("remove", json!(self.remove))])
    }
}

impl TaintChange {
    /// Checks what a caller wants.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(add: &[RawTaint], remove: &[RawTaint]) -> Result<Self, Vec<QueryError>> {
        // Each is compared with each.
        let mut errors = too_many("add", add.len());
        errors.extend(too_many("remove", remove.len()));
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut change = Self::default();
        for raw in add {
            let effect = effect(raw, "add", &mut errors);
            let expected = TaintEffect::ALL.map(TaintEffect::as_str).join(", ");
            if raw.effect.is_none() {
                let message = format!(
                    "the taint \"{}\" has no effect: one of {expected} is expected",
                    excerpt(&raw.key)
                );
                errors.push(QueryError::new("add", message));
            }
            check(raw, "add", &mut errors);
            let Some(effect) = effect else {
                continue;
            };
            if change
                .add
                .iter()
                .any(|known| known.key == raw.key && known.effect == effect)
            {
                errors.push(QueryError::new(
                    "add",
                    format!("{} is added twice: once is allowed", name(raw)),
                ));
            }
            change.add.push(Taint {
                key: raw.key.clone(),
                value: raw.value.clone(),
                effect,
                added_at: None,
            });
        }
        for raw in remove {
            let effect = effect(raw, "remove", &mut errors);
            check(raw, "remove", &mut errors);
            if !raw.value.is_empty() {
                let message = format!(
                    "{} has the value \"{}\": a taint is removed whatever its value is, so none is allowed here",
                    name(raw),
                    excerpt(&raw.value)
                );
                errors.push(QueryError::new("remove", message));
            }
            let is_added = |taint: &Taint| taint.key == raw.key && effect.is_none_or(|effect| effect == taint.effect);
            if change.add.iter().any(is_added) {
                let message = format!("{} is both added and removed: one of both is allowed", name(raw));
                errors.push(QueryError::new("remove", message));
            }
            change.remove.push((raw.key.clone(), effect));
        }
        if add.is_empty() && remove.is_empty() {
            errors.push(QueryError::new(
                "add",
                "nothing is asked for: a taint in add or remove is expected",
            ));
        }
        if errors.is_empty() { Ok(change) } else { Err(errors) }
    }

    /// What it changes on `node`: empty if the node has it all. Taints that it does not name stay, in their order.
    #[must_use]
    pub fn patch(&self, node: &Node) -> NodePatch {
        let is_removed = |taint: &Taint| {
            let names = |(key, effect): &(String, Option<TaintEffect>)| {
                *key == taint.key && effect.is_none_or(|effect| effect == taint.effect)
            };
            self.remove.iter().any(names)
        };
        let mut taints: Vec<Taint> = node.taints.iter().filter(|taint| !is_removed(taint)).cloned().collect();
        for added in &self.add {
            match taints
                .iter_mut()
                .find(|taint| taint.key == added.key && taint.effect == added.effect)
            {
                Some(taint) => taint.value.clone_from(&added.value),
                None => taints.push(added.clone()),
            }
        }
        NodePatch {
            resource_version: Some(node.resource_version.clone()),
            taints: (taints != node.taints).then_some(taints),
            ..NodePatch::default()
        }
    }

    /// Whether it adds a `NoExecute` taint that `node` does not have: that evicts pods without looking at budgets.
    #[must_use]
    pub fn evicts(&self, node: &Node) -> bool {
        let is_new = |added: &Taint| {
            let is_it =
                |taint: &Taint| taint.key == added.key && taint.effect == added.effect && taint.value == added.value;
            added.effect == TaintEffect::NoExecute && !node.taints.iter().any(is_it)
        };
        self.add.iter().any(is_new)
    }

    /// What the caller should know although it works.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let added = self.add.iter().map(|taint| taint.key.as_str());
        let named = added.chain(self.remove.iter().map(|(key, _)| key.as_str()));
        named
            .filter(|key| OWNED_BY_KUBERNETES.iter().any(|prefix| key.starts_with(prefix)))
            .map(|key| format!("taints with the key {key} belong to Kubernetes, which sets and removes them by itself"))
            .collect()
    }

    /// What was asked for, for the audit log.
    #[must_use]
    pub fn options(&self) -> Map<String, Value> {
        let removed = |(key, effect): &(String, Option<TaintEffect>)| match effect {
            Some(effect) => format!("{key}:{}", effect.as_str()),
            None => key.clone(),
        };
        object([
            ("add", taints_as_text(&self.add)),
            ("remove", self.remove.iter().map(removed).collect()),
        ])
    }
}

/// What is wrong with naming so many.
pub(crate) fn too_many(parameter: &'static str, count: usize) -> Vec<QueryError> {
    if count <= MOST_NAMED {
        return Vec::new();
    }
    let message = format!("{count} are too many: at most {MOST_NAMED} are allowed");
    vec![QueryError::new(parameter, message)]
}

fn object<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}

fn effect(raw: &RawTaint, place: &'static str, errors: &mut Vec<QueryError>) -> Option<TaintEffect> {
    let word = raw.effect.as_deref()?;
    let effect = TaintEffect::parse(word);
    if effect.is_none() {
        let expected = TaintEffect::ALL.map(TaintEffect::as_str).join(", ");
        let message = format!("\"{}\" is not an effect: one of {expected} is expected", excerpt(word));
        errors.push(QueryError::new(place, message));
    }
    effect
}

fn check(raw: &RawTaint, place: &'static str, errors: &mut Vec<QueryError>) {
    if let Err(error) = check_label_key(&raw.key) {
        errors.push(QueryError::new(place, error.to_string()));
    } else if check_label_value(&raw.value).is_err() {
        let message = format!(
            "\"{}\" is not a taint's value: nothing or at most 63 letters, digits, '-', '_' or '.', starting and ending with a letter or digit are expected",
            excerpt(&raw.value)
        );
        errors.push(QueryError::new(format!("{place}.{}", raw.key), message));
    }
}

/// A taint as texts name it.
fn name(raw: &RawTaint) -> String {
    match &raw.effect {
        Some(effect) => format!("\"{}:{}\"", excerpt(&raw.key), excerpt(effect)),
        None => format!("\"{}\"", excerpt(&raw.key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::node;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn raw(key: &str, value: &str, effect: &str) -> RawTaint {
        RawTaint {
            key: key.to_owned(),
            value: value.to_owned(),
            effect: (!effect.is_empty()).then(|| effect.to_owned()),
        }
    }

    fn tainted(taints: &[(&str, &str, TaintEffect)]) -> Node {
        let mut node = node("a");
        node.taints = taints
            .iter()
            .map(|(key, value, effect)| Taint {
                key: (*key).to_owned(),
                value: (*value).to_owned(),
                effect: *effect,
                added_at: None,
            })
            .collect();
        node
    }

    fn told(errors: &[QueryError]) -> String {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn one_change_names_a_hundred_labels_or_taints_at_most() {
        let set = |count: usize| (0..count).map(|number| (format!("k{number}"), String::new())).collect();
        let keys = |count: usize| (0..count).map(|number| format!("r{number}")).collect::<Vec<_>>();
        let taints = |count: usize| {
            (0..count)
                .map(|number| raw(&format!("k{number}"), "", "NoSchedule"))
                .collect()
        };
        let bare = |count: usize| keys(count).iter().map(|key| raw(key, "", "")).collect();
        assert!(LabelChange::parse(&set(100), &keys(100)).is_ok());
        let (most, one_more): (Vec<_>, Vec<_>) = (taints(100), taints(101));
        let (most_bare, one_more_bare): (Vec<_>, Vec<_>) = (bare(100), bare(101));
        assert!(TaintChange::parse(&most, &most_bare).is_ok());
        for (errors, parameter) in [
            (LabelChange::parse(&set(101), &[]).unwrap_err(), "set"),
            (LabelChange::parse(&set(0), &keys(101)).unwrap_err(), "remove"),
            (TaintChange::parse(&one_more, &[]).unwrap_err(), "add"),
            (TaintChange::parse(&[], &one_more_bare).unwrap_err(), "remove"),
        ] {
            assert_eq!(errors.len(), 1);
            assert_eq!(
                (&*errors[0].parameter, &*errors[0].message),
                (parameter, "101 are too many: at most 100 are allowed")
            );
        }
    }

    #[test]
    fn an_empty_label_value_is_valid() {
        assert!(LabelChange::parse(&labels(&[("a", "")]), &[]).is_ok());
    }

    #[test]
    fn everything_that_is_wrong_with_labels_is_told_at_once() {
        let set = labels(&[("-bad", "x"), ("fine", "not fine"), ("both", "x")]);
        let errors = LabelChange::parse(&set, &["both".to_owned(), "a/b/c".to_owned()]).unwrap_err();
        let text = told(&errors);
        for expected in [
            "\"-bad\"",
            "\"not fine\"",
            "\"both\" is both set and removed",
            "\"a/b/c\"",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert_eq!(errors.len(), 4, "{text}");
        assert!(told(&LabelChange::parse(&labels(&[]), &[]).unwrap_err()).contains("nothing is asked for"));
    }

    #[test]
    fn only_labels_that_differ_are_patched() {
        let mut node = node("a");
        node.labels = labels(&[("same", "x"), ("other", "x"), ("gone", "x")]);
        let change = LabelChange::parse(
            &labels(&[("same", "x"), ("other", "y"), ("new", "")]),
            &["gone".to_owned(), "absent".to_owned()],
        );
        let patch = change.unwrap().patch(&node);
        let expected = [("gone", None), ("new", Some("")), ("other", Some("y"))];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
        assert_eq!(patch.labels, expected.into());
    }

    #[test]
    fn labels_of_the_kubelet_come_back_and_that_is_said() {
        let change = LabelChange::parse(&labels(&[]), &["kubernetes.io/hostname".to_owned()]).unwrap();
        assert!(
            change.warnings()[0].contains("kubernetes.io/hostname"),
            "{:?}",
            change.warnings()
        );
    }

    #[test]
    fn taints_are_identified_by_key_and_effect() {
        use TaintEffect::{NoExecute, NoSchedule};
        let node = tainted(&[("k", "1", NoSchedule), ("k", "1", NoExecute), ("other", "", NoSchedule)]);
        let change = TaintChange::parse(&[raw("k", "2", "NoSchedule")], &[]).unwrap();
        let after = change.patch(&node).taints.unwrap();
        assert_eq!(
            taints_as_text(&after),
            json!(["k=2:NoSchedule", "k=1:NoExecute", "other=:NoSchedule"])
        );
    }

    #[test]
    fn a_removal_without_effect_removes_every_effect_of_that_key() {
        use TaintEffect::{NoExecute, NoSchedule};
        let node = tainted(&[("k", "1", NoSchedule), ("k", "1", NoExecute), ("other", "", NoSchedule)]);
        let all = TaintChange::parse(&[], &[raw("k", "", "")]).unwrap();
        assert_eq!(
            taints_as_text(&all.patch(&node).taints.unwrap()),
            json!(["other=:NoSchedule"])
        );
        let one = TaintChange::parse(&[], &[raw("k", "", "NoExecute")]).unwrap();
        let left = one.patch(&node).taints.unwrap();
        assert_eq!(taints_as_text(&left), json!(["k=1:NoSchedule", "other=:NoSchedule"]));
        let absent = TaintChange::parse(&[], &[raw("absent", "", "")]).unwrap();
        assert!(absent.patch(&node).is_empty());
    }

    #[test]
    fn a_patch_of_taints_carries_the_version_that_it_was_worked_out_from() {
        let node = node("a");
        let change = TaintChange::parse(&[raw("k", "", "NoSchedule")], &[]).unwrap();
        assert_eq!(change.patch(&node).resource_version, Some(node.resource_version));
    }

    #[test]
    fn taints_of_kubernetes_stay_through_changes_of_others_and_that_they_come_and_go_is_said() {
        use TaintEffect::{NoExecute, NoSchedule};
        let node = tainted(&[
            ("node.kubernetes.io/unreachable", "", NoExecute),
            ("team", "web", NoSchedule),
            ("node.cloudprovider.kubernetes.io/shutdown", "", NoSchedule),
            ("others.example.com/busy", "1", NoSchedule),
        ]);
        let change = TaintChange::parse(&[raw("new", "", "NoSchedule")], &[raw("team", "", "")]).unwrap();
        assert_eq!(
            taints_as_text(&change.patch(&node).taints.unwrap()),
            json!([
                "node.kubernetes.io/unreachable=:NoExecute",
                "node.cloudprovider.kubernetes.io/shutdown=:NoSchedule",
                "others.example.com/busy=1:NoSchedule",
                "new=:NoSchedule",
            ])
        );
        assert_eq!(change.warnings(), Vec::<String>::new());

        let named = TaintChange::parse(
            &[raw("node.kubernetes.io/out-of-service", "", "NoExecute")],
            &[raw("node.cloudprovider.kubernetes.io/shutdown", "", "")],
        );
        let warnings = named.unwrap().warnings();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        for (warning, key) in warnings.iter().zip(["out-of-service", "shutdown"]) {
            assert!(
                warning.contains(key) && warning.contains("belong to Kubernetes"),
                "{warning}"
            );
        }
    }

    #[test]
    fn values_with_blanks_around_them_are_refused_and_never_trimmed() {
        for value in [" web", "web ", " ", "\tweb", "web\n"] {
            let errors = LabelChange::parse(&labels(&[("team", value)]), &[]).unwrap_err();
            assert_eq!(errors[0].parameter, "set.team", "{value:?}");
            let errors = TaintChange::parse(&[raw("team", value, "NoSchedule")], &[]).unwrap_err();
            assert_eq!(errors[0].parameter, "add.team", "{value:?}");
            assert!(
                LabelChange::parse(&labels(&[(value, "web")]), &[]).is_err(),
                "{value:?}"
            );
        }
    }

    #[test]
    fn contradictory_taints_are_refused_with_the_reason() {
        let cases = [
            (
                vec![raw("k", "a", "NoSchedule"), raw("k", "b", "NoSchedule")],
                vec![],
                "added twice",
            ),
            (
                vec![],
                vec![raw("k", "a", "NoSchedule")],
                "\"k:NoSchedule\" has the value \"a\": a taint is removed whatever its value is",
            ),
            (
                vec![raw("k", "a", "NoSchedule")],
                vec![raw("k", "", "NoSchedule")],
                "both added and removed",
            ),
            (
                vec![raw("k", "a", "NoSchedule")],
                vec![raw("k", "", "")],
                "both added and removed",
            ),
            (vec![raw("k", "a", "")], vec![], "has no effect"),
            (
                vec![raw("k", "a", "noschedule")],
                vec![],
                "\"noschedule\" is not an effect",
            ),
            (vec![], vec![raw("k", "", "x")], "\"x\" is not an effect"),
            (
                vec![raw("k", "a b", "NoSchedule")],
                vec![],
                "\"a b\" is not a taint's value",
            ),
            (vec![raw("", "", "NoSchedule")], vec![], "\"\" is not a key"),
            (vec![], vec![], "nothing is asked for"),
        ];
        for (add, remove, expected) in cases {
            let text = told(&TaintChange::parse(&add, &remove).unwrap_err());
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let different = TaintChange::parse(&[raw("k", "", "NoExecute")], &[raw("k", "", "NoSchedule")]);
        assert!(different.is_ok());
    }

    #[test]
    fn only_a_new_no_execute_taint_evicts() {
        let node = tainted(&[("k", "1", TaintEffect::NoExecute)]);
        for (taint, evicts) in [
            (raw("k", "1", "NoExecute"), false),
            (raw("k", "2", "NoExecute"), true),
            (raw("new", "", "NoExecute"), true),
            (raw("new", "", "NoSchedule"), false),
        ] {
            let change = TaintChange::parse(std::slice::from_ref(&taint), &[]).unwrap();
            assert_eq!(change.evicts(&node), evicts, "{taint:?}");
        }
    }
}
