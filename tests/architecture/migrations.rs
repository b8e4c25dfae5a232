//! Two versions of the program run side by side on one schema during a rolling update, so a migration merely adds: what the version
//! before reads and writes stays as it was.

use std::collections::BTreeSet;
use std::path::Path;

use crate::tree::{read, root, rust_files};

const DIALECTS: [&str; 2] = ["sqlite", "postgres"];

/// The migrations up to this one were there before versions ran side by side. The names of later ones say that they merely add, and a
/// program that does not know them relies on that.
const FREELY_NAMED: usize = 10;

#[test]
fn migrations_have_the_same_numbers_and_names_in_both_dialects_without_gaps() {
    let [sqlite, postgres] = DIALECTS.map(names);
    assert_eq!(sqlite, postgres);
    for (name, number) in sqlite.iter().zip(1..) {
        assert!(
            name.starts_with(&format!("{number:04}_")),
            "{name} is not number {number}"
        );
    }
}

#[test]
fn a_new_migration_says_by_its_name_that_it_merely_adds() {
    for name in names("postgres").iter().skip(FREELY_NAMED) {
        let rest = name.split_once('_').map_or("", |(_, rest)| rest);
        assert!(
            rest.starts_with("add_"),
            "{name} is not called NNNN_add_<what>: versions before it would refuse its schema"
        );
    }
}

#[test]
fn every_migration_merely_adds() {
    for dialect in DIALECTS {
        for name in names(dialect) {
            let offences = offences(&read(format!("migrations/{dialect}/{name}")));
            assert!(
                offences.is_empty(),
                "{dialect}/{name} does more than add: {offences:#?}"
            );
        }
    }
}

#[test]
fn what_would_break_the_version_before_is_found() {
    for wrong in [
        "DROP TABLE operations",
        "DROP INDEX operations_of_kind",
        "ALTER TABLE operations DROP COLUMN kind",
        "ALTER TABLE operations RENAME COLUMN kind TO what",
        "ALTER TABLE operations RENAME TO works",
        "ALTER TABLE operations ALTER COLUMN kind TYPE INTEGER",
        "ALTER TABLE operations ALTER COLUMN reason SET NOT NULL",
        "ALTER TABLE operations ADD CONSTRAINT short CHECK (length(reason) < 9)",
        "ALTER TABLE operations ADD COLUMN owner TEXT NOT NULL",
        "ALTER TABLE operations ADD COLUMN owner TEXT, DROP COLUMN kind",
        "alter table operations\n    add column owner text -- who\n    not null",
        "CREATE UNIQUE INDEX one ON operations (kind)",
        "CREATE TRIGGER t AFTER INSERT ON operations BEGIN SELECT 1; END",
        "UPDATE operations SET kind = 'cordon'",
        "DELETE FROM operations",
        "TRUNCATE operations",
    ] {
        assert!(!offences(wrong).is_empty(), "{wrong} passes");
    }
    for right in [
        "CREATE TABLE owners (name TEXT NOT NULL); CREATE UNIQUE INDEX one ON owners (name)",
        "ALTER TABLE operations ADD COLUMN owner TEXT",
        "ALTER TABLE operations ADD COLUMN owner TEXT; CREATE UNIQUE INDEX one ON operations (owner) WHERE owner IS NOT NULL",
        "ALTER TABLE operations ADD COLUMN is_owned BOOLEAN NOT NULL DEFAULT FALSE",
        "-- DROP TABLE operations;\nCREATE INDEX operations_of_owner ON operations (kind)",
    ] {
        assert_eq!(offences(right), Vec::<String>::new(), "{right}");
    }
}

/// A column that a later version added must not end up in what this version writes or reads.
#[test]
fn statements_name_their_columns() {
    let mut inserts = 0;
    for file in rust_files().iter().filter(|file| is_storage(file)) {
        let text = read(file);
        for (at, _) in text.match_indices("INSERT INTO ") {
            let after = &text[at + "INSERT INTO ".len()..];
            // The name, or the place of a name in a statement that is put together.
            let rest = after.trim_start_matches(|letter: char| letter.is_ascii_lowercase() || "_{}".contains(letter));
            let rest = rest.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '\\');
            assert!(
                rest.starts_with('('),
                "{}: an INSERT names no columns: {:.60}",
                file.display(),
                after
            );
            inserts += 1;
        }
        for stars in ["SELECT *", "RETURNING *", "SELECT DISTINCT *"] {
            assert!(
                !text.contains(stars),
                "{} has {stars}: columns are named",
                file.display()
            );
        }
    }
    assert!(
        10 <= inserts,
        "only {inserts} INSERTs were found, is the list of folders right?"
    );
}

fn is_storage(file: &Path) -> bool {
    let is_test = file.iter().any(|part| part == "tests" || part == "tests.rs");
    file.starts_with("adapters") && file.to_string_lossy().contains("storage-sql") && !is_test
        || file.starts_with("adapters/storage-postgres/src")
}

fn names(dialect: &str) -> Vec<String> {
    let folder = root().join("migrations").join(dialect);
    let files = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What of a migration does more than add.
fn offences(text: &str) -> Vec<String> {
    let mut new = BTreeSet::new();
    let statements = statements(text);
    statements
        .into_iter()
        .filter(|statement| !merely_adds(statement, &mut new))
        .collect()
}

/// The statements of a migration in capitals, without comments, their words separated by one space.
fn statements(text: &str) -> Vec<String> {
    let code: Vec<&str> = text
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default())
        .collect();
    let statements = code.join(" ").to_ascii_uppercase();
    let plain = statements
        .split(';')
        .map(|statement| statement.split_whitespace().collect::<Vec<_>>().join(" "));
    plain.filter(|statement| !statement.is_empty()).collect()
}

/// Whether a statement does; `new` are the tables and columns that the same migration made before, which nobody uses yet.
fn merely_adds(statement: &str, new: &mut BTreeSet<String>) -> bool {
    let words: Vec<&str> = statement.split(' ').collect();
    match words.as_slice() {
        ["CREATE", "TABLE", table, ..] => {
            new.insert((*table).to_owned());
            true
        }
        ["CREATE", "INDEX", ..] => true,
        ["CREATE", "UNIQUE", "INDEX", _, "ON", table, columns, ..] => {
            new.contains(*table) || new.contains(&format!("{table}.{}", columns.trim_matches(['(', ')'])))
        }
        ["ALTER", "TABLE", table, "ADD", "COLUMN", column, rest @ ..] => {
            new.insert(format!("{table}.{column}"));
            let (rest, one) = (
                rest.join(" "),
                !statement.contains(" DROP ") && !statement.contains(" ALTER COLUMN "),
            );
            one && (!rest.contains("NOT NULL") || rest.contains(" DEFAULT ") || rest.contains("IS NOT NULL"))
        }
        // What the planner of SQLite is told concerns no version.
        ["ANALYZE", ..] | ["INSERT", "INTO", "SQLITE_STAT1", ..] => true,
        _ => false,
    }
}
