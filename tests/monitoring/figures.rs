//! Which metrics there are, and which ones an expression asks for.

use std::collections::BTreeSet;

use crate::read;

/// What Prometheus itself adds.
const OF_PROMETHEUS: [&str; 2] = ["up", "ALERTS"];

/// The metrics that the README lists.
pub fn listed() -> BTreeSet<String> {
    let readme = read("README.md");
    let listed: BTreeSet<String> = readme
        .split('`')
        .filter(|piece| is_metric(piece))
        .map(str::to_owned)
        .collect();
    assert!(40 < listed.len(), "only {} metrics were found", listed.len());
    listed
}

/// The metrics and recorded series that an expression names: series of histograms as the histogram.
pub fn named(expression: &str) -> BTreeSet<String> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_' || character == ':';
    without_texts(expression)
        .split(|character| !is_part(character))
        .filter(|word| is_metric(word) || is_recorded(word) || OF_PROMETHEUS.contains(word))
        .map(|word| {
            let of_histogram = ["_bucket", "_count", "_sum"];
            let base = of_histogram.iter().find_map(|suffix| word.strip_suffix(suffix));
            base.unwrap_or(word).to_owned()
        })
        .collect()
}

/// That an expression names nothing that there is not.
#[track_caller]
pub fn assert_known(expression: &str, listed: &BTreeSet<String>, recorded: &BTreeSet<String>) {
    let named = named(expression);
    assert!(!named.is_empty(), "it names no metric: {expression}");
    for name in named {
        let is_known = listed.contains(&name) || recorded.contains(&name) || OF_PROMETHEUS.contains(&name.as_str());
        assert!(is_known, "{name} is no metric of this service: {expression}");
    }
}

fn is_metric(word: &str) -> bool {
    let is_ours = word.starts_with("kube_node_manager_") || word.starts_with("process_");
    is_ours
        && word
            .chars()
            .all(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || one == '_')
}

fn is_recorded(word: &str) -> bool {
    word.contains(":kube_node_manager_")
}

/// The expression without what stands in quotes: values of labels.
fn without_texts(expression: &str) -> String {
    expression.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

#[test]
fn names_are_found_in_expressions_and_values_of_labels_are_none() {
    let expression = r#"job:kube_node_manager_x:rate5m / sum(rate(kube_node_manager_y_seconds_bucket{of="kube_node_manager_z"}[5m])) and up"#;
    let expected = ["job:kube_node_manager_x:rate5m", "kube_node_manager_y_seconds", "up"];
    assert_eq!(named(expression), expected.map(str::to_owned).into());
}
