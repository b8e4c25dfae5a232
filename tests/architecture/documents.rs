//! What the documents promise.

use crate::tree::read;

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
