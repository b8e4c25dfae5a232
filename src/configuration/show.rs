//! The configuration as YAML.

use std::fmt::Write as _;

use super::cluster_list::{ClusterSetting, SourceSetting};
use super::resolve::Resolved;
use super::schema::{KEYS, Key};
use super::value::{Value, shown};

/// What is in force, each value with its origin; secrets are masked.
#[must_use]
pub fn effective(resolved: &Resolved) -> String {
    let mut text = match &resolved.file {
        Some(file) => format!("# in force; file {}\n", file.display()),
        None => "# in force; no file\n".to_owned(),
    };
    write_sections(&mut text, |key| {
        let (value, origin) = resolved.get(key.path);
        let value = match value {
            Value::Text(text) => Value::Text(shown(key, text)),
            other => other.clone(),
        };
        Some((yaml(&value), origin.to_string()))
    });
    match &resolved.clusters {
        Some((clusters, origin)) => write_clusters(&mut text, clusters, &origin.to_string()),
        None => text
            .push_str("clusters: null  # default: the pod's service account, else the kubeconfig's current context\n"),
    }
    text
}

/// Every key with its default and its meaning.
#[cfg(test)]
pub fn example() -> String {
    let mut text = "# Every key with its default. Variables of the environment win over this file; `config show` tells which did.\n".to_owned();
    write_sections(&mut text, |key| {
        let comment = match key.variables {
            [] => format!("{} ({})", key.meaning, key.long_variable()),
            variables => format!("{} ({})", key.meaning, variables.join(", ")),
        };
        Some((yaml(&key.default.into()), comment))
    });
    add(&mut text, EXAMPLE_CLUSTERS);
    // With SQLite, which the example has, these two would be overridden with a warning.
    text.replace("  max_open_conns:", "  # max_open_conns:")
        .replace("  max_idle_conns:", "  # max_idle_conns:")
}

#[cfg(test)]
const EXAMPLE_CLUSTERS: &str = "# Without a list: the pod's service account, else the current context of KUBECONFIG or ~/.kube/config, else none. For example:
#   - name: here
#     source: in-cluster
#   - name: east
#     source:
#       kubeconfig: { path: /etc/knm/east.kubeconfig, context: admin@east }
#   - name: simulated
#     source:
#       demo: { nodes: 30, pods_per_node: 0, seed: 1, changes_per_second: 1 }
clusters:
";

pub(super) fn write_sections(text: &mut String, entry: impl Fn(&'static Key) -> Option<(String, String)>) {
    let (mut section, mut group) = ("", None);
    for key in KEYS {
        let Some((value, comment)) = entry(key) else {
            continue;
        };
        if section != key.section() {
            (section, group) = (key.section(), None);
            add(text, &format!("{section}:\n"));
        }
        if group != key.group() {
            group = key.group();
            add(text, &group.map(|group| format!("  {group}:\n")).unwrap_or_default());
        }
        let indent = if group.is_some() { "    " } else { "  " };
        add(text, &format!("{indent}{}: {value}  # {comment}\n", key.name()));
    }
}

pub(super) fn write_clusters(text: &mut String, clusters: &[ClusterSetting], comment: &str) {
    if clusters.is_empty() {
        add(text, &format!("clusters: []  # {comment}\n"));
        return;
    }
    add(text, &format!("clusters:  # {comment}\n"));
    for cluster in clusters {
        add(text, &format!("  - name: {}\n", scalar(cluster.name.as_str())));
        match &cluster.source {
            SourceSetting::InCluster => add(text, "    source: in-cluster\n"),
            SourceSetting::Kubeconfig { path, context } => {
                let path = scalar(&path.display().to_string());
                add(text, &format!("    source:\n      kubeconfig:\n        path: {path}\n"));
                if let Some(context) = context {
                    add(text, &format!("        context: {}\n", scalar(context)));
                }
            }
            SourceSetting::Demo(demo) => add(
                text,
                &format!(
                    "    source:\n      demo:\n        nodes: {}\n        pods_per_node: {}\n        seed: {}\n        changes_per_second: {}\n",
                    demo.nodes, demo.pods_per_node, demo.seed, demo.changes_per_second
                ),
            ),
        }
    }
}

pub(super) fn yaml(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::Text(text) => scalar(text),
        Value::Texts(texts) => format!(
            "[{}]",
            texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ")
        ),
        Value::Nothing => "null".to_owned(),
    }
}

/// A text as YAML reads it back as a text: quoted unless it is clearly a word.
fn scalar(text: &str) -> String {
    let word = text.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '/' || letter == '.')
        && text
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "._/-".contains(letter))
        && !["true", "false", "yes", "no", "on", "off", "null", "y", "n"].contains(&text.to_ascii_lowercase().as_str())
        && text.parse::<f64>().is_err()
        && !text.starts_with(".") | text.starts_with("./");
    if word { text.to_owned() } else { quoted(text) }
}

/// JSON's texts are YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

pub(super) fn add(text: &mut String, more: &str) {
    // Writing into a text cannot fail.
    let _ = text.write_str(more);
}

#[cfg(test)]
#[path = "show_tests.rs"]
mod tests;
