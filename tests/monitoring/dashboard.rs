//! The dashboard for Grafana.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::figures::{assert_known, listed, named};
use crate::rules::{recorded, rules};
use crate::{list, read, text};

const WIDTH: u64 = 24;
/// Metrics that no panel shows, and why.
const NOT_SHOWN: [(&str, &str); 2] = [
    (
        "process_resident_memory_bytes",
        "kube_node_manager_memory_usage_bytes is the same",
    ),
    (
        "process_start_time_seconds",
        "kube_node_manager_start_time_seconds is the same",
    ),
];
/// The units of Grafana that are used here.
const UNITS: [&str; 7] = ["short", "s", "bytes", "percentunit", "reqps", "ops", "bool_on_off"];

pub fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana/kube-node-manager.json")).unwrap()
}

/// The panels that show something.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(dashboard, "panels").iter().filter(|panel| panel["type"] != "row")
}

/// Every expression with the title of its panel, and those of the annotations with their names.
pub fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let of_panels = panels(dashboard).flat_map(|panel| {
        let title = text(panel, "title");
        let targets = list(panel, "targets").iter();
        targets.map(move |target| (title.to_owned(), text(target, "expr").to_owned()))
    });
    of_panels.collect()
}

#[test]
fn panels_have_ids_of_their_own_and_do_not_overlap() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut taken: BTreeMap<(u64, u64), &str> = BTreeMap::new();
    for panel in list(&dashboard, "panels") {
        let title = text(panel, "title");
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
        let place = &panel["gridPos"];
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| place[key].as_u64().unwrap());
        assert!(0 < w && 0 < h && x + w <= WIDTH, "{title}: {place}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            if let Some(other) = taken.insert(cell, title) {
                panic!("{title} lies over {other}");
            }
        }
    }
}

#[test]
fn rows_go_from_what_users_notice_to_the_causes() {
    let dashboard = dashboard();
    let panels = list(&dashboard, "panels").iter();
    let rows: Vec<_> = panels
        .filter(|panel| panel["type"] == "row")
        .map(|row| text(row, "title"))
        .collect();
    let expected = [
        "Overview",
        "Clusters and nodes",
        "Operations and drains",
        "Database",
        "Process",
        "Sign-in and abuse",
    ];
    assert_eq!(rows, expected);
}

#[test]
fn each_panel_explains_itself_and_says_its_unit() {
    let dashboard = dashboard();
    let mut titles = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = text(panel, "title");
        assert!(titles.insert(title), "{title} is there twice");
        assert!(
            text(panel, "description").ends_with('.'),
            "{title}: its description is no sentence"
        );
        let defaults = &panel["fieldConfig"]["defaults"];
        assert!(UNITS.contains(&text(defaults, "unit")), "{title}: {defaults}");
        let steps = list(&defaults["thresholds"], "steps");
        assert!(steps[0]["value"].is_null(), "{title}: its first threshold has a value");
        let values: Vec<f64> = steps[1..].iter().map(|step| step["value"].as_f64().unwrap()).collect();
        assert!(values.is_sorted(), "{title}: {values:?}");
        let mut ids = BTreeSet::new();
        for target in list(panel, "targets") {
            assert!(
                ids.insert(text(target, "refId")),
                "{title}: a query has no id of its own"
            );
            assert!(
                !text(target, "legendFormat").is_empty(),
                "{title}: a query has no legend"
            );
            assert_eq!(target["datasource"], panel["datasource"], "{title}");
        }
    }
}

#[test]
fn everything_comes_from_the_chosen_data_source_job_and_replicas() {
    let dashboard = dashboard();
    let variables: Vec<&str> = list(&dashboard["templating"], "list")
        .iter()
        .map(|one| text(one, "name"))
        .collect();
    assert_eq!(variables, ["datasource", "job", "instance", "cluster"]);
    for panel in panels(&dashboard) {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
    }
    for (title, expression) in expressions(&dashboard) {
        for selector in expression.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
            assert!(
                selector.contains("job=~\"$job"),
                "{title} shows every job: {expression}"
            );
            // What is recorded or fires is of all replicas together.
            let is_of_all = expression.contains("job:") || expression.contains("ALERTS");
            assert!(
                is_of_all || selector.contains("instance=~\"$instance\""),
                "{title} shows every replica: {expression}"
            );
        }
        for word in expression.split('$').skip(1) {
            let known = ["job", "instance", "cluster", "__rate_interval"];
            assert!(
                known.iter().any(|name| word.starts_with(name)),
                "{title}: there is no variable ${word}"
            );
        }
    }
}

#[test]
fn facts_of_clusters_are_not_added_up_over_replicas() {
    for (title, expression) in expressions(&dashboard()) {
        let facts = [
            "cluster_up",
            "cluster_nodes",
            "cluster_nodes_unschedulable",
            "cluster_pods",
            "operations",
            "operation_queue_age_seconds",
        ];
        for fact in facts {
            for (at, _) in expression.match_indices(&format!("kube_node_manager_{fact}{{")) {
                let before = expression[..at].trim_end_matches('(').trim_end();
                let innermost = before.rfind("max").max(before.rfind("min"));
                assert!(
                    innermost >= before.rfind("sum"),
                    "{title} adds up what each replica tells: {expression}"
                );
                assert!(
                    innermost.is_some(),
                    "{title} shows what each replica tells: {expression}"
                );
            }
        }
    }
}

#[test]
fn what_the_manifests_leave_out_on_purpose_neither_alarms_nor_shows_red() {
    let rules = rules();
    let of_rules = rules.iter().map(|rule| text(rule, "expr").to_owned());
    let of_panels = expressions(&dashboard()).into_iter().map(|(_, expression)| expression);
    let about_permissions = |one: &String| named(one).contains("kube_node_manager_cluster_permissions_missing");
    let asked: Vec<String> = of_rules.chain(of_panels).filter(about_permissions).collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    for expression in asked {
        assert!(expression.contains("feature!=\"delete_pods\""), "{expression}");
    }
}

#[test]
fn the_dashboard_names_metrics_that_there_are_and_leaves_none_out() {
    let (listed, recorded) = (listed(), recorded());
    let mut shown = BTreeSet::new();
    for (_, expression) in expressions(&dashboard()) {
        assert_known(&expression, &listed, &recorded);
        shown.extend(named(&expression));
    }
    for metric in &listed {
        let excuse = NOT_SHOWN.iter().find(|(name, _)| name == metric);
        assert_ne!(
            shown.contains(metric),
            excuse.is_some(),
            "{metric} is shown, or has an excuse: one of both"
        );
    }
}
