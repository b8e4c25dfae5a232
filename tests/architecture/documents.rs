//! What the documents promise.

use std::collections::BTreeSet;

use crate::tree::{read, rust_files};

#[test]
fn the_readme_opens_with_the_two_commands_that_ci_runs() {
    let script = read(".ci/run");
    let readme = read("README.md");
    let opening: Vec<&str> = readme.lines().take(40).collect();
    for variable in ["RUN_COMMAND", "TEST_COMMAND"] {
        let command = script
            .lines()
            .find_map(|line| line.strip_prefix(variable)?.strip_prefix("=\"")?.strip_suffix('"'));
        let command = command.unwrap_or_else(|| panic!(".ci/run does not set {variable}"));
        assert!(opening.contains(&command), "the README does not open with: {command}");
    }
}

#[test]
fn the_example_of_the_architecture_is_the_tested_one() {
    let example = read("domain/service/tests/architecture_example.rs");
    let shown = read("ARCHITECTURE.md");
    assert!(
        shown.contains(&format!("```rust\n{example}```\n")),
        "ARCHITECTURE.md shows another example than the one that is tested"
    );
}

#[test]
fn the_readme_names_every_metric_and_no_other() {
    let mut declared = BTreeSet::new();
    for file in rust_files()
        .iter()
        .filter(|file| !file.starts_with("tests") && !file.iter().any(|part| part == "tests"))
    {
        declared.extend(metrics_between(&read(file), '"'));
    }
    let named = metrics_between(&read("README.md"), '`');

    assert_eq!(named, declared);
}

#[test]
fn the_readme_lists_every_key_of_the_configuration_with_its_meaning() {
    let schema = read("src/configuration/schema.rs");
    let keys: Vec<String> = schema.lines().filter_map(|line| key_and_meaning(line.trim())).collect();
    assert!(30 < keys.len(), "only {} keys were found in the schema", keys.len());

    let readme = read("README.md");
    let table: Vec<&str> = readme
        .lines()
        .skip_while(|line| *line != "| key | meaning | default |")
        .skip(2)
        .collect();
    let rows = table
        .iter()
        .take_while(|line| line.starts_with("| `") && !line.starts_with("| `clusters`"));
    let listed: Vec<String> = rows
        .filter_map(|row| Some(row.rsplit_once(" | ")?.0.to_owned()))
        .collect();

    assert_eq!(listed, keys);
}

/// What the README says of the key that a line of the schema declares.
fn key_and_meaning(line: &str) -> Option<String> {
    let (path, rest) = line.strip_prefix("key(\"")?.split_once('"')?;
    let (before, _) = rest.rsplit_once("\", &[")?;
    let (_, meaning) = before.rsplit_once(", \"")?;
    Some(format!("| `{path}` | {meaning}"))
}

/// The names of metrics that stand between two `quote`s.
fn metrics_between(text: &str, quote: char) -> BTreeSet<String> {
    let of_a_metric =
        |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_';
    text.split(quote)
        .filter(|piece| piece.starts_with("kube_node_manager_") || piece.starts_with("process_"))
        .filter(|piece| piece.chars().all(of_a_metric))
        .map(str::to_owned)
        .collect()
}
