//! Templates: labels and taints that belong together, and the nodes that are to have them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::change::too_many;
use crate::text::unprintable;
use crate::{
    ClusterName, DefinitionName, LabelChange, Node, NodePatch, QueryError, RawTaint, Selector, TaintChange, difference,
    excerpt,
};

/// How long a description may be, in characters.
const LONGEST_DESCRIPTION: usize = 500;

/// A template as it is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawTemplate {
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Labels that a node is to have.
    pub labels: BTreeMap<String, String>,
    /// Taints that a node is to have.
    pub taints: Vec<RawTaint>,
}

/// What a node is to have. What a template does not name is none of its business: it takes nothing away.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    labels: Option<LabelChange>,
    taints: Option<TaintChange>,
}

/// How a node differs from a template.
#[derive(Clone, Debug, PartialEq)]
pub struct Drift {
    /// What would change, as it is: `labels` and `taints`, as the audit log has them.
    pub before: Map<String, Value>,
    /// The same as the template wants it.
    pub after: Map<String, Value>,
    /// Whether it is a `NoExecute` taint that is missing: it evicts pods without looking at budgets.
    pub evicts: bool,
}

/// A binding as it is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawBinding {
    /// The template's name.
    pub template: String,
    /// The cluster whose nodes it is about; `None`: those of all clusters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Which of them, in Kubernetes' grammar.
    pub label_selector: String,
    /// Whether nodes that lack something get it.
    pub reconcile: bool,
    /// Whether that may evict pods without looking at budgets.
    pub confirm_no_execute: bool,
}

/// Which nodes are to be as a template says.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// The template: its latest version.
    pub template: DefinitionName,
    /// The cluster; `None`: all of them.
    pub cluster: Option<ClusterName>,
    /// Which of their nodes.
    pub selector: Selector,
    /// Whether nodes that lack something get it.
    pub reconcile: bool,
    /// Whether that may evict pods without looking at budgets.
    pub confirm_no_execute: bool,
}

impl Template {
    /// The keys of the labels that it sets and removes.
    pub fn label_keys(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().flat_map(LabelChange::keys)
    }

    /// Checks what somebody wrote down.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(raw: &RawTemplate) -> Result<Self, Vec<QueryError>> {
        let mut errors = Vec::new();
        if let Some(text) = &raw.description {
            errors.extend(check_description(text));
        }
        for (parameter, count) in [("labels", raw.labels.len()), ("taints", raw.taints.len())] {
            errors.extend(too_many(parameter, count));
        }
        if raw.labels.is_empty() && raw.taints.is_empty() {
            let message = "nothing is asked for: a label or a taint is expected";
            errors.push(QueryError::new("labels", message));
        }
        let labels = (!raw.labels.is_empty()).then(|| LabelChange::parse(&raw.labels, &[]));
        let taints = (!raw.taints.is_empty()).then(|| TaintChange::parse(&raw.taints, &[]));
        let labels = named("labels", "set", labels, &mut errors);
        let taints = named("taints", "add", taints, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self { labels, taints })
    }

    /// What it changes on `node`: empty if the node has it all.
    #[must_use]
    pub fn patch(&self, node: &Node) -> NodePatch {
        let labels = self.labels.as_ref().map(|change| change.patch(node));
        let taints = self.taints.as_ref().map(|change| change.patch(node));
        NodePatch {
            labels: labels.unwrap_or_default().labels,
            ..taints.unwrap_or_default()
        }
    }

    /// Whether it adds a `NoExecute` taint that `node` does not have: that evicts pods without looking at budgets.
    #[must_use]
    pub fn evicts(&self, node: &Node) -> bool {
        self.taints.as_ref().is_some_and(|change| change.evicts(node))
    }

    /// How `node` differs from it; `None` if the node has it all.
    #[must_use]
    pub fn drift(&self, node: &Node) -> Option<Drift> {
        let patch = self.patch(node);
        if patch.is_empty() {
            return None;
        }
        let mut wanted = node.clone();
        for (key, value) in patch.labels {
            wanted.labels.extend(value.map(|value| (key, value)));
        }
        wanted.taints = patch.taints.unwrap_or(wanted.taints);
        let (before, after) = difference(node, &wanted);
        Some(Drift {
            before,
            after,
            evicts: self.evicts(node),
        })
    }

    /// What whoever writes it should know although it is allowed.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let labels = self.labels.iter().flat_map(LabelChange::warnings);
        labels
            .chain(self.taints.iter().flat_map(TaintChange::warnings))
            .collect()
    }
}

impl Binding {
    /// Checks what somebody wrote down.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(raw: &RawBinding) -> Result<Self, Vec<QueryError>> {
        let mut errors = Vec::new();
        let template =
            DefinitionName::parse(&raw.template).map_err(|error| QueryError::new("template", error.to_string()));
        let cluster = raw.cluster.as_deref().map(ClusterName::parse).transpose();
        let cluster = cluster.map_err(|error| QueryError::new("cluster", error.to_string()));
        if raw.label_selector.trim().is_empty() {
            let message =
                "it is empty: a selector is expected, such as \"kubernetes.io/os\" for all nodes with that label";
            errors.push(QueryError::new("label_selector", message));
        }
        let selector = Selector::parse(&raw.label_selector).map_err(|error| QueryError {
            parameter: "label_selector".into(),
            position: Some(error.position),
            message: error.message,
        });
        if raw.confirm_no_execute && !raw.reconcile {
            let message = "it is only for a binding with \"reconcile\": true: nothing is changed without";
            errors.push(QueryError::new("confirm_no_execute", message));
        }
        match (template, cluster, selector) {
            (Ok(template), Ok(cluster), Ok(selector)) if errors.is_empty() => Ok(Self {
                template,
                cluster,
                selector,
                reconcile: raw.reconcile,
                confirm_no_execute: raw.confirm_no_execute,
            }),
            (template, cluster, selector) => {
                errors.extend(template.err());
                errors.extend(cluster.err());
                errors.extend(selector.err());
                Err(errors)
            }
        }
    }
}

fn check_description(text: &str) -> Option<QueryError> {
    let length = text.chars().count();
    let is_fine = !text.trim().is_empty() && length <= LONGEST_DESCRIPTION && unprintable(text).is_none();
    (!is_fine).then(|| {
        let message = format!(
            "\"{}\" is not allowed: 1 to {LONGEST_DESCRIPTION} characters without control characters are",
            excerpt(text)
        );
        QueryError::new("description", message)
    })
}

/// What was parsed; what is wrong with it goes to `errors`, under the key that whoever wrote it knows.
fn named<T>(
    parameter: &'static str,
    parsed_as: &str,
    parsed: Option<Result<T, Vec<QueryError>>>,
    errors: &mut Vec<QueryError>,
) -> Option<T> {
    match parsed? {
        Ok(parsed) => Some(parsed),
        Err(wrong) => {
            errors.extend(wrong.into_iter().map(|error| {
                let below = error.parameter.strip_prefix(parsed_as).unwrap_or_default();
                QueryError {
                    parameter: format!("{parameter}{below}").into(),
                    ..error
                }
            }));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixture::node;

    fn raw(value: Value) -> RawTemplate {
        serde_json::from_value(value).expect("the shape of a template")
    }

    fn gpu() -> Template {
        Template::parse(&raw(json!({
            "description": "nodes with a GPU",
            "labels": {"example.com/pool": "gpu", "team": "ml"},
            "taints": [{"key": "example.com/gpu", "value": "yes", "effect": "NoSchedule"}],
        })))
        .unwrap()
    }

    #[test]
    fn a_node_gets_what_it_lacks_and_keeps_the_rest() {
        let mut node = node("a");
        node.labels.insert("team".to_owned(), "web".to_owned());
        node.labels.insert("mine".to_owned(), "stays".to_owned());
        let drift = gpu().drift(&node).unwrap();
        assert_eq!(
            Value::Object(drift.after),
            json!({"labels": {"example.com/pool": "gpu", "team": "ml"}, "taints": ["example.com/gpu=yes:NoSchedule"]})
        );
        assert_eq!(
            Value::Object(drift.before),
            json!({"labels": {"example.com/pool": null, "team": "web"}, "taints": []})
        );
        assert!(!drift.evicts);
        let patch = gpu().patch(&node);
        assert_eq!(patch.labels.len(), 2);
        assert!(patch.taints.is_some() && patch.resource_version.is_some());
    }

    #[test]
    fn a_node_that_has_it_all_does_not_drift() {
        let mut node = node("a");
        for (key, value) in [("example.com/pool", "gpu"), ("team", "ml"), ("mine", "stays")] {
            node.labels.insert(key.to_owned(), value.to_owned());
        }
        node.taints = gpu().patch(&node).taints.unwrap();
        assert_eq!(gpu().drift(&node), None);
        assert!(gpu().patch(&node).is_empty());
    }

    #[test]
    fn a_no_execute_taint_is_told() {
        let template = raw(json!({"taints": [{"key": "out", "effect": "NoExecute"}]}));
        let template = Template::parse(&template).unwrap();
        assert!(template.drift(&node("a")).unwrap().evicts);
    }

    #[test]
    fn what_is_wrong_with_a_template_is_told_with_what_is_allowed() {
        let many: BTreeMap<String, String> = (0..101).map(|key| (format!("k{key}"), String::new())).collect();
        for (template, parameter, expected) in [
            (json!({}), "labels", "a label or a taint is expected"),
            (json!({"labels": {"-a": "b"}}), "labels", "\"-a\""),
            (json!({"labels": {"a": "b c"}}), "labels.a", "\"b c\""),
            (json!({"labels": many}), "labels", "101 are too many"),
            (json!({"taints": [{"key": "a"}]}), "taints", "no effect"),
            (
                json!({"taints": [{"key": "a", "value": "-", "effect": "NoSchedule"}]}),
                "taints.a",
                "\"-\"",
            ),
            (
                json!({"labels": {"a": "b"}, "description": "\n"}),
                "description",
                "control characters",
            ),
        ] {
            let errors = Template::parse(&raw(template)).unwrap_err();
            assert_eq!(errors[0].parameter, parameter, "{errors:?}");
            assert!(errors[0].message.contains(expected), "{errors:?}");
        }
        assert!(serde_json::from_value::<RawTemplate>(json!({"label": {}})).is_err());
    }

    #[test]
    fn what_is_wrong_with_a_binding_is_told_with_what_is_allowed() {
        let fine = RawBinding {
            template: "gpu".to_owned(),
            label_selector: "pool in (gpu)".to_owned(),
            ..RawBinding::default()
        };
        assert!(
            Binding::parse(&fine)
                .unwrap()
                .selector
                .matches(&BTreeMap::from([("pool".to_owned(), "gpu".to_owned())]))
        );
        let changed = |change: fn(&mut RawBinding)| {
            let mut raw = fine.clone();
            change(&mut raw);
            Binding::parse(&raw).unwrap_err()
        };
        for (errors, parameter) in [
            (changed(|raw| raw.template = "GPU".to_owned()), "template"),
            (changed(|raw| raw.cluster = Some(String::new())), "cluster"),
            (changed(|raw| raw.label_selector = " ".to_owned()), "label_selector"),
            (changed(|raw| raw.label_selector = "a in".to_owned()), "label_selector"),
            (changed(|raw| raw.confirm_no_execute = true), "confirm_no_execute"),
        ] {
            assert_eq!(errors[0].parameter, parameter, "{errors:?}");
        }
    }

    #[test]
    fn labels_of_the_kubelet_are_warned_of() {
        let template = Template::parse(&raw(json!({"labels": {"kubernetes.io/os": "bsd"}}))).unwrap();
        assert_eq!(template.warnings().len(), 1);
        assert!(gpu().warnings().is_empty());
    }
}
