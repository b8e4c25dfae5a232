//! What is switched off is not in the program.

use std::collections::BTreeSet;

use crate::tree::{cargo, linked, read};

/// Every feature and what it alone brings along.
const BRINGS: &[(&str, &[&str])] = &[
    ("sqlite", &["knm-storage-sqlite", "sqlx-sqlite", "libsqlite3-sys"]),
    ("postgres", &["knm-storage-postgres", "sqlx-postgres"]),
    ("memory", &["knm-storage-memory", "knm-cluster-memory"]),
    ("kubernetes", &["knm-cluster-kubernetes", "kube-client", "k8s-openapi"]),
    ("docs-ui", &[]),
    ("otel", &["opentelemetry-proto", "prost"]),
];

#[test]
fn a_feature_brings_its_packages_and_no_other_feature_does() {
    for (feature, packages) in BRINGS {
        let alone = linked("kube-node-manager", &["--no-default-features", "--features", feature]);
        let without = linked(
            "kube-node-manager",
            &["--no-default-features", "--features", &all_but(feature)],
        );
        for package in *packages {
            assert!(
                alone.contains(*package),
                "the feature {feature} does not bring {package}"
            );
            assert!(
                !without.contains(*package),
                "{package} is there without the feature {feature}"
            );
        }
    }
}

#[test]
fn without_features_there_is_neither_a_database_nor_a_cluster() {
    let bare = linked("kube-node-manager", &["--no-default-features"]);
    let adapters: Vec<_> = bare
        .iter()
        .filter(|name| {
            ["sqlx", "kube-c", "k8s", "knm-storage", "knm-cluster"]
                .iter()
                .any(|it| name.starts_with(it))
        })
        .collect();
    assert!(adapters.is_empty(), "{adapters:?} are there without any feature");
}

/// The page is no package of its own: it is a feature of the web framework.
#[test]
fn the_page_of_the_document_is_built_in_only_with_its_feature() {
    assert!(features_of_the_web_framework("docs-ui").contains("swagger-ui"));
    assert!(!features_of_the_web_framework(&all_but("docs-ui")).contains("swagger-ui"));
}

#[test]
fn the_table_names_every_feature_and_so_does_ci() {
    let metadata: serde_json::Value =
        serde_json::from_str(&cargo(&["metadata", "--no-deps", "--offline", "--format-version", "1"])).unwrap();
    let program = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["name"] == "kube-node-manager")
        .unwrap();
    let features: BTreeSet<&str> = program["features"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .filter(|name| *name != "default")
        .collect();

    assert_eq!(BRINGS.iter().map(|row| row.0).collect::<BTreeSet<_>>(), features);

    let script = read(".ci/run");
    let listed = script
        .lines()
        .find_map(|line| line.strip_prefix("FEATURES=(")?.strip_suffix(')'))
        .unwrap();
    assert_eq!(listed.split(' ').collect::<BTreeSet<_>>(), features);
}

fn all_but(feature: &str) -> String {
    BRINGS
        .iter()
        .map(|row| row.0)
        .filter(|name| *name != feature)
        .collect::<Vec<_>>()
        .join(",")
}

fn features_of_the_web_framework(features: &str) -> String {
    let program = [
        "tree",
        "--offline",
        "--package",
        "kube-node-manager",
        "--edges",
        "normal",
        "--prefix",
        "none",
    ];
    let options = ["--format", "{p} {f}", "--no-default-features", "--features", features];
    let tree = cargo(&[program.as_slice(), &options].concat());
    tree.lines()
        .find(|line| line.starts_with("poem-openapi v"))
        .unwrap()
        .to_owned()
}
