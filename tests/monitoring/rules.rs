//! The rules for Prometheus.

use std::collections::{BTreeMap, BTreeSet};

use knm_test_support::prometheus::promtool;
use serde_json::Value;

use crate::figures::{assert_known, listed};
use crate::{list, read, read_yaml, root, text};

pub const RULES: &str = "deploy/prometheus/kube-node-manager.rules.yaml";
const FOLDER: &str = "deploy/prometheus";
const CASES: &str = ".test.yaml";
const COMPONENT: &str = "deploy/kubernetes/components/prometheus-rule/prometheusrule.yaml";

/// All rules, in their order.
pub fn rules() -> Vec<Value> {
    let file = read_yaml(RULES);
    let groups = list(&file, "groups").iter();
    groups.flat_map(|group| list(group, "rules").to_vec()).collect()
}

/// The alerts, in their order; some names come twice, with two severities.
pub fn alerts() -> Vec<Value> {
    rules().into_iter().filter(|rule| rule.get("alert").is_some()).collect()
}

/// The names of what is recorded.
pub fn recorded() -> BTreeSet<String> {
    let rules = rules();
    let names = rules.iter().filter_map(|rule| rule["record"].as_str());
    names.map(str::to_owned).collect()
}

/// The files with cases.
fn cases() -> Vec<String> {
    let entries = std::fs::read_dir(root().join(FOLDER)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut cases: Vec<String> = names.filter(|name| name.ends_with(CASES)).collect();
    cases.sort();
    assert!(!cases.is_empty(), "there are no cases");
    cases
}

/// That `promtool` is content; nothing where there is none.
fn assert_content(arguments: &[&str]) {
    if let Some(output) = promtool(&root().join(FOLDER), arguments) {
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn promtool_has_nothing_to_say_about_the_rules() {
    assert_content(&[
        "check",
        "rules",
        "--lint=all",
        "--lint-fatal",
        "kube-node-manager.rules.yaml",
    ]);
}

#[test]
fn alerts_fire_when_they_must_and_are_silent_when_they_must_be() {
    for file in cases() {
        assert_content(&["test", "rules", &file]);
    }
}

#[test]
fn each_alert_has_cases_in_which_it_fires_and_cases_in_which_it_does_not() {
    let mut fires: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut silent: BTreeSet<String> = BTreeSet::new();
    for file in cases() {
        let file = read_yaml(&format!("{FOLDER}/{file}"));
        for case in list(&file, "tests")
            .iter()
            .filter(|case| case.get("promql_expr_test").is_some())
        {
            for check in list(case, "promql_expr_test") {
                let asked = text(check, "expr").split("alertname=\"").nth(1);
                let Some((name, _)) = asked.and_then(|rest| rest.split_once('"')) else {
                    continue;
                };
                let samples = list(check, "exp_samples");
                if samples.is_empty() {
                    silent.insert(name.to_owned());
                }
                for sample in samples {
                    let severity = text(sample, "labels").split("severity=\"").nth(1).unwrap();
                    let severity = severity.split('"').next().unwrap();
                    *fires.entry((name.to_owned(), severity.to_owned())).or_default() += 1;
                }
            }
        }
    }
    for alert in alerts() {
        let name = text(&alert, "alert");
        let severity = text(&alert["labels"], "severity");
        assert!(
            fires.contains_key(&(name.to_owned(), severity.to_owned())),
            "no case in which {name} fires as {severity}"
        );
        assert!(silent.contains(name), "no case in which {name} is silent");
    }
}

#[test]
fn each_alert_says_how_bad_it_is_what_is_wrong_and_where_to_read_on() {
    let mut seen = BTreeSet::new();
    for alert in alerts() {
        let name = text(&alert, "alert");
        let severity = text(&alert["labels"], "severity");
        assert!(
            seen.insert((name.to_owned(), severity.to_owned())),
            "{name} is {severity} twice"
        );
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}: {severity}"
        );
        let annotations = &alert["annotations"];
        assert!(
            !text(annotations, "summary").ends_with('.'),
            "{name}: a summary is no sentence"
        );
        assert!(
            text(annotations, "description").ends_with('.'),
            "{name}: a description is sentences"
        );
        let section = format!("docs/runbooks.md#{}", name.to_ascii_lowercase());
        assert_eq!(text(annotations, "runbook_url"), section);
    }
}

#[test]
fn the_text_of_an_alert_asks_for_labels_that_it_has() {
    for alert in alerts() {
        let expression = text(&alert, "expr");
        // What is recorded by cluster carries it.
        let has = |label: &str| {
            let aggregated = expression
                .split(" by (")
                .skip(1)
                .filter_map(|rest| rest.split(')').next());
            let mut kept = aggregated.flat_map(|labels| labels.split(", "));
            let recorded_by_cluster = expression.contains("cluster:kube_node_manager_");
            kept.any(|one| one == label) || (recorded_by_cluster && ["namespace", "job", "cluster"].contains(&label))
        };
        let description = text(&alert["annotations"], "description");
        for asked in description.split("$labels.").skip(1) {
            let label = asked.split(' ').next().unwrap();
            assert!(has(label), "{} has no label {label}", text(&alert, "alert"));
        }
    }
}

#[test]
fn rules_name_metrics_that_there_are() {
    let (listed, recorded) = (listed(), recorded());
    for rule in rules() {
        assert_known(text(&rule, "expr"), &listed, &recorded);
    }
}

#[test]
fn the_component_for_the_operator_has_the_same_rules() {
    let component = read_yaml(COMPONENT);
    assert_eq!(component["kind"], "PrometheusRule");
    assert_eq!(component["spec"]["groups"], read_yaml(RULES)["groups"]);
    let kustomization = read_yaml("deploy/kubernetes/components/prometheus-rule/kustomization.yaml");
    assert_eq!(kustomization["resources"], serde_json::json!(["prometheusrule.yaml"]));
    // Comments say what the rules assume; the component points at them.
    assert!(read(COMPONENT).starts_with("# The rules of deploy/prometheus/kube-node-manager.rules.yaml"));
}
