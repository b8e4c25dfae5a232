//! Rules that no lint knows.

use std::path::Path;

use crate::tree::{cargo, read, rust_files};

/// Wiring stands in one file for storage and one for clusters.
const WIRING: [&str; 2] = ["src/storage.rs", "src/clusters.rs"];

/// Methods that take the time from the air.
const BANNED: [&str; 5] = [
    "std::time::SystemTime::now",
    "std::time::Instant::now",
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
    "uuid::Uuid::now_v7",
];

#[test]
fn the_program_asks_for_features_in_its_two_wiring_files_only() {
    for file in rust_files().iter().filter(|file| file.starts_with("src")) {
        let asks = read(file).contains("feature = \"");
        let may = WIRING.iter().any(|wiring| file == Path::new(wiring));
        assert!(!asks || may, "{} asks for a feature", file.display());
    }
    for wiring in WIRING {
        assert!(
            read(wiring).contains("cfg(feature = \""),
            "{wiring} asks for no feature: is it still the wiring file?"
        );
    }
}

#[test]
fn the_time_is_banned_everywhere_but_in_the_system_adapter() {
    let bans = read("clippy.toml");
    for method in BANNED {
        assert!(
            bans.contains(&format!("path = \"{method}\"")),
            "clippy.toml does not ban {method}"
        );
    }
    let lint = ["clippy::", "disallowed_methods"].concat();
    let excused: Vec<_> = rust_files()
        .into_iter()
        .filter(|file| read(file).contains(&lint))
        .collect();
    assert_eq!(excused, [Path::new("adapters/system/src/lib.rs")]);
}

#[test]
fn every_expectation_has_a_reason() {
    for file in rust_files() {
        let text = read(&file);
        for opening in ["#[expect(", "#![expect(", "#[allow(", "#![allow("] {
            for (at, _) in text.match_indices(opening).filter(|(at, _)| starts_a_line(&text, *at)) {
                let attribute = text[at..].split_once(")]").map_or("", |(attribute, _)| attribute);
                assert!(
                    attribute.contains("reason = \""),
                    "{}: {attribute} has no reason",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn every_crate_follows_the_lints_of_the_workspace() {
    let metadata: serde_json::Value =
        serde_json::from_str(&cargo(&["metadata", "--no-deps", "--offline", "--format-version", "1"])).unwrap();
    for package in metadata["packages"].as_array().unwrap() {
        let manifest = read(package["manifest_path"].as_str().unwrap());
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{} has lints of its own",
            package["name"]
        );
    }
}

#[test]
fn files_are_named_for_what_they_hold() {
    let empty_names = ["utils", "util", "helpers", "common", "prelude", "misc"];
    for file in rust_files() {
        let named = file
            .iter()
            .filter_map(|part| Path::new(part).file_stem()?.to_str())
            .find(|part| empty_names.contains(part));
        assert_eq!(named, None, "{}", file.display());
    }
}

fn starts_a_line(text: &str, at: usize) -> bool {
    text[..at]
        .rsplit('\n')
        .next()
        .is_none_or(|before| before.trim().is_empty())
}
