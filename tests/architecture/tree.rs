//! The tree on disk and what cargo says about it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folders with code of this project.
const CODE: [&str; 6] = ["src", "domain", "ports", "adapters", "tests", "benches"];

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A text file of the workspace.
pub fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust files of the workspace, relative to its root.
pub fn rust_files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = CODE
        .iter()
        .flat_map(|folder| files_below(&root().join(folder)))
        .collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    files.sort();
    assert!(
        50 < files.len(),
        "only {} Rust files were found, is the list of folders right?",
        files.len()
    );
    files
}

/// What cargo prints, for arguments that must not fail.
pub fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "cargo {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The names of all packages that end up in a build of `package`, itself included.
pub fn linked(package: &str, options: &[&str]) -> BTreeSet<String> {
    let mut arguments = vec![
        "tree",
        "--offline",
        "--package",
        package,
        "--edges",
        "normal",
        "--prefix",
        "none",
    ];
    arguments.extend(["--format", "{p}"]);
    arguments.extend(options);
    cargo(&arguments)
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path.strip_prefix(root()).unwrap().to_owned());
        }
    }
    files
}
