//! The table of allowed dependencies. An arrow that is not in it is a decision about the architecture: it belongs into
//! `ARCHITECTURE.md` first.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{cargo, linked};

/// Which crates of the workspace a crate uses: exactly these.
const USES: &[(&str, &[&str])] = &[
    ("knm-model", &[]),
    ("knm-ports", &["knm-model"]),
    ("knm-domain", &["knm-model", "knm-ports"]),
    // Driven adapters know the ports and nothing above them.
    ("knm-storage-memory", &["knm-model", "knm-ports"]),
    ("knm-storage-sql", &["knm-model", "knm-ports"]),
    ("knm-storage-sqlite", &["knm-model", "knm-ports", "knm-storage-sql"]),
    ("knm-storage-postgres", &["knm-model", "knm-ports", "knm-storage-sql"]),
    ("knm-cluster-kubernetes", &["knm-model", "knm-ports"]),
    ("knm-cluster-memory", &["knm-model", "knm-ports"]),
    ("knm-identity-oidc", &["knm-model", "knm-ports"]),
    ("knm-secrets", &["knm-model", "knm-ports"]),
    ("knm-system", &["knm-model", "knm-ports"]),
    ("knm-telemetry", &["knm-model", "knm-ports"]),
    // The driving adapter calls use cases and knows no driven adapter.
    ("knm-http", &["knm-domain", "knm-model", "knm-ports"]),
    // The composition root knows everyone.
    (
        "kube-node-manager",
        &[
            "knm-cluster-kubernetes",
            "knm-cluster-memory",
            "knm-domain",
            "knm-http",
            "knm-identity-oidc",
            "knm-model",
            "knm-ports",
            "knm-secrets",
            "knm-storage-memory",
            "knm-storage-postgres",
            "knm-storage-sqlite",
            "knm-system",
            "knm-telemetry",
        ],
    ),
    // For tests and measurements only.
    ("knm-contract", &["knm-model", "knm-ports"]),
    ("knm-test-support", &[]),
    // It measures on the same real servers that tests start.
    ("knm-bench", &["knm-domain", "knm-model", "knm-test-support"]),
];

/// What only tests may use on top of that.
const USES_IN_TESTS: &[(&str, &[&str])] = &[
    ("knm-domain", &["knm-ports", "knm-cluster-memory", "knm-storage-memory"]),
    ("knm-storage-memory", &["knm-contract"]),
    ("knm-storage-sqlite", &["knm-contract", "knm-test-support"]),
    ("knm-storage-postgres", &["knm-contract", "knm-test-support"]),
    ("knm-cluster-kubernetes", &["knm-contract", "knm-test-support"]),
    ("knm-cluster-memory", &["knm-contract"]),
    ("knm-http", &["knm-ports", "knm-cluster-memory", "knm-storage-memory"]),
    // The same crate once more, with the feature that tests try.
    ("kube-node-manager", &["knm-telemetry", "knm-test-support"]),
];

/// What a crate must not reach, not even through others.
const UNREACHABLE: &[(&str, &[&str])] = &[
    (
        "knm-model",
        &[
            "tokio",
            "futures",
            "async-trait",
            "sqlx-core",
            "kube-client",
            "poem",
            "hyper",
            "tracing",
            "metrics",
        ],
    ),
    (
        "knm-ports",
        &[
            "tokio",
            "sqlx-core",
            "kube-client",
            "poem",
            "hyper",
            "tracing",
            "metrics",
        ],
    ),
    (
        "knm-domain",
        &["sqlx-core", "kube-client", "k8s-openapi", "poem", "hyper", "http"],
    ),
    ("knm-http", &["sqlx-core", "kube-client", "k8s-openapi", "sysinfo"]),
    ("knm-storage-memory", &["sqlx-core", "kube-client", "poem"]),
    (
        "knm-storage-sql",
        &["sqlx-postgres", "sqlx-sqlite", "libsqlite3-sys", "kube-client", "poem"],
    ),
    ("knm-storage-sqlite", &["sqlx-postgres", "kube-client", "poem"]),
    (
        "knm-storage-postgres",
        &["sqlx-sqlite", "libsqlite3-sys", "kube-client", "poem"],
    ),
    ("knm-cluster-kubernetes", &["sqlx-core", "poem"]),
    (
        "knm-cluster-memory",
        &["sqlx-core", "kube-client", "k8s-openapi", "poem", "hyper"],
    ),
    (
        "knm-identity-oidc",
        &["sqlx-core", "kube-client", "k8s-openapi", "poem"],
    ),
    ("knm-secrets", &["tokio", "sqlx-core", "kube-client", "poem", "hyper"]),
    ("knm-system", &["sqlx-core", "kube-client", "poem", "hyper"]),
    ("knm-telemetry", &["sqlx-core", "kube-client", "poem", "hyper"]),
    // Never in the program: TLS is rustls with ring, and mocks are for tests.
    (
        "kube-node-manager",
        &[
            "openssl-sys",
            "native-tls",
            "aws-lc-sys",
            "sqlx-mysql",
            "mockall",
            "proptest",
        ],
    ),
];

#[test]
fn crates_use_exactly_what_the_table_allows() {
    let table: BTreeMap<String, BTreeSet<String>> =
        USES.iter().map(|(name, uses)| (name.to_string(), set(uses))).collect();

    assert_eq!(arrows(Purpose::Program), table);
}

#[test]
fn tests_use_only_what_the_table_allows() {
    for (name, used) in arrows(Purpose::Tests) {
        let allowed = USES_IN_TESTS
            .iter()
            .find(|row| row.0 == name)
            .map(|row| set(row.1))
            .unwrap_or_default();
        let wrong: Vec<_> = used.difference(&allowed).collect();
        assert!(
            wrong.is_empty(),
            "the tests of {name} use {wrong:?}, which the table does not allow"
        );
    }
}

#[test]
fn crates_do_not_reach_what_they_must_not_know() {
    for (name, unreachable) in UNREACHABLE {
        let reached = linked(name, &[]);
        assert!(reached.contains(*name), "cargo tree does not name {name} itself");
        let wrong: Vec<_> = reached.intersection(&set(unreachable)).cloned().collect();
        assert!(wrong.is_empty(), "{name} reaches {wrong:?}");
    }
}

/// Without this, a misspelt name in the table would forbid nothing.
#[test]
fn whatever_is_unreachable_for_one_crate_is_a_name_that_exists() {
    let lockfile = crate::tree::read("Cargo.lock");
    let never: BTreeSet<String> = set(&["openssl-sys", "native-tls", "aws-lc-sys"]);
    for name in UNREACHABLE.iter().flat_map(|(_, names)| names.iter()) {
        let known = lockfile.contains(&format!("name = \"{name}\"\n"));
        assert_eq!(known, !never.contains(*name), "{name}");
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Purpose {
    Program,
    Tests,
}

/// For every crate of the workspace the crates of the workspace that it uses.
fn arrows(purpose: Purpose) -> BTreeMap<String, BTreeSet<String>> {
    let metadata: serde_json::Value =
        serde_json::from_str(&cargo(&["metadata", "--no-deps", "--offline", "--format-version", "1"])).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let members: BTreeSet<&str> = packages
        .iter()
        .map(|package| package["name"].as_str().unwrap())
        .collect();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap();
            let used = dependencies
                .iter()
                .filter(|dependency| (dependency["kind"] == "dev") == (purpose == Purpose::Tests))
                .filter_map(|dependency| dependency["name"].as_str())
                .filter(|name| members.contains(name))
                .map(str::to_owned)
                .collect();
            (package["name"].as_str().unwrap().to_owned(), used)
        })
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
