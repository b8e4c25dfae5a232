use std::collections::BTreeSet;

use super::*;
use crate::configuration::{Settings, effective};

/// Every key that the description of the first version names or shows, with a value of its own, and those of its files.
const FIRST_VERSION: &str = r#"
server:
  port: 9000
  host: "127.0.0.2"
  mode: "debug"
  read_timeout: 31
  write_timeout: 32
  idle_timeout: 121
database:
  type: "postgresql"
  host: "db.example"
  port: 6432
  database: "nodes"
  username: "manager"
  password: "p#: w'd"
  ssl_mode: "require"
  max_open_conns: 26
  max_idle_conns: 11
  max_lifetime: 3601
  auto_migrate: false
  migration_timeout: 301
logging:
  format: "text"
  level: "debug"
  structured: true
jwt:
  secret: "hunter2"
  expire: 24
ldap:
  enabled: true
  bind: { dn: "cn=admin", password: "hunter2" }
progress:
monitoring:
  enabled: true
"#;

fn try_load(text: &str) -> Result<Resolved, ConfigurationError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, text).unwrap();
    Resolved::load(Some(&path), &Environment::new())
}

fn load(text: &str) -> Resolved {
    try_load(text).unwrap()
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    variables.iter().map(owned).collect()
}

/// `config show` without the origins, which differ.
fn in_force(resolved: &Resolved) -> String {
    let shown = effective(resolved);
    let lines = shown.lines().map(|line| line.split("  # ").next().unwrap_or_default());
    lines.skip(1).map(|line| format!("{line}\n")).collect()
}

/// Converts, and says what came out after it was held against what it came from.
fn convert(old: &str) -> String {
    let old = load(old);
    let text = converted(&old);
    let new = load(&text);
    assert!(new.warnings.is_empty(), "{:?}\n{text}", new.warnings);
    assert_eq!(in_force(&new), in_force(&old), "{text}");
    let settings = |resolved: &Resolved| format!("{:?}", Settings::from(resolved));
    assert_eq!(settings(&new), settings(&old), "{text}");
    text
}

#[test]
fn every_key_of_the_first_version_is_converted_or_named_as_gone_with_what_takes_its_place() {
    let text = convert(FIRST_VERSION);
    let old = load(FIRST_VERSION);

    let live: String = text.lines().filter(|line| !line.starts_with('#')).collect();
    for path in &old.stated {
        let section = path.split('.').next().unwrap();
        match RETIRED.iter().find(|retired| retired.section == section) {
            Some(retired) => {
                let gone = text.split("# gone: ").skip(1).find(|note| note.starts_with(section));
                let gone = gone.unwrap_or_else(|| panic!("{path} is not named as gone in {text}"));
                assert!(gone.contains(path) && gone.contains(retired.instead), "{path}: {gone}");
            }
            None => {
                let name = path.rsplit('.').next().unwrap();
                assert!(live.contains(&format!("{name}: ")), "{path} is not in {text}");
            }
        }
    }
    assert!(
        !text.contains("hunter2"),
        "secrets that mean nothing are left out: {text}"
    );
    assert!(text.contains("  type: postgres  #"), "{text}");
    assert!(
        text.contains("  format: json  # text, json or bunyan; logging.structured says it\n"),
        "{text}"
    );
}

#[test]
fn the_file_of_this_test_has_every_key_that_the_first_version_had() {
    let stated: BTreeSet<String> = load(FIRST_VERSION).stated.into_iter().collect();
    for key in FIRST_VERSION_KEYS {
        assert!(stated.iter().any(|path| path == key), "{key} is not in {stated:?}");
        assert!(KEYS.iter().any(|known| known.path == *key), "{key} is not known today");
    }
    for retired in &RETIRED {
        assert!(
            stated.iter().any(|path| path.starts_with(retired.section)),
            "{}",
            retired.section
        );
    }
}

/// Those of its description and of the promises that were made to its users, but for the connection string, which replaces others.
const FIRST_VERSION_KEYS: &[&str] = &[
    "server.port",
    "server.host",
    "server.mode",
    "server.read_timeout",
    "server.write_timeout",
    "server.idle_timeout",
    "database.type",
    "database.host",
    "database.port",
    "database.database",
    "database.username",
    "database.password",
    "database.ssl_mode",
    "database.max_open_conns",
    "database.max_idle_conns",
    "database.max_lifetime",
    "database.auto_migrate",
    "database.migration_timeout",
    "logging.format",
    "logging.level",
    "logging.structured",
];

#[test]
fn the_page_about_the_first_version_tells_each_of_its_keys_and_variables_and_what_is_gone() {
    let page = include_str!("../../docs/from-version-1.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let has_row = |name: &str| {
        rows.iter().any(|row| {
            row.split('|')
                .nth(1)
                .is_some_and(|cell| cell.contains(&format!("`{name}`")))
        })
    };
    for key in FIRST_VERSION_KEYS.iter().chain(&["database.dsn"]) {
        assert!(has_row(key), "{key} has no row");
    }
    let short = KEYS.iter().flat_map(|key| key.variables);
    let of_today = ["POD_NAMESPACE", "POD_NAME"];
    for variable in short.chain(&DATABASE_URL).filter(|name| !of_today.contains(name)) {
        assert!(has_row(variable), "{variable} has no row");
    }
    for retired in &RETIRED {
        let row = rows
            .iter()
            .find(|row| row.starts_with(&format!("| `{}` |", retired.section)));
        let row = row.unwrap_or_else(|| panic!("{} has no row", retired.section));
        assert!(row.contains(retired.instead), "{row}");
    }
}

#[test]
fn a_connection_string_takes_the_place_of_the_keys_that_it_replaces() {
    let text = convert(
        "database:\n  type: postgres\n  host: elsewhere\n  password: hunter2\n  dsn: postgres://me:secret@here/nodes\n  max_open_conns: 7\n",
    );
    assert!(text.contains("  dsn: \"postgres://me:secret@here/nodes\""), "{text}");
    assert!(
        text.contains("# database.host is left out: database.dsn says it\n"),
        "{text}"
    );
    assert!(!text.contains("elsewhere") && !text.contains("hunter2"), "{text}");
}

#[test]
fn sqlite_has_one_connection_and_says_so_where_more_were_asked_for() {
    let text = convert("database:\n  type: sqlite\n  dsn: ./data/old.db\n  max_open_conns: 25\n");
    assert!(text.contains("  dsn: ./data/old.db  #"), "{text}");
    assert!(
        text.contains("# database.max_open_conns is left out: sqlite has one connection, 1 is used\n"),
        "{text}"
    );
}

#[test]
fn files_that_say_little_are_converted_too() {
    for text in ["", "ldap:\n  host: x\n", "# nothing\n", "clusters: []\n"] {
        convert(text);
    }
}

#[test]
fn a_key_that_nobody_ever_defined_is_refused_and_not_dropped() {
    let problems = try_load("server:\n  prot: 1\nha:\n  enabled: true\n")
        .unwrap_err()
        .problems;
    assert!(
        problems.iter().any(|problem| problem.contains("server.prot")),
        "{problems:?}"
    );
    assert!(
        problems.iter().any(|problem| problem.contains("\"ha\"")),
        "{problems:?}"
    );
}

#[test]
fn a_group_of_keys_is_written_as_it_is_read() {
    let old = "server:\n  port: 9000\n  tls:\n    cert_file: a\n    key_file: b\ndatabase:\n  type: memory\n";
    let text = convert(old);
    assert!(text.contains("  tls:\n    cert_file: a  #"), "{text}");
    assert!(
        effective(&load(old)).contains("  tls:\n    cert_file: a  # file "),
        "{text}"
    );
}

#[test]
fn each_variable_that_is_set_is_told_with_what_it_means_today() {
    let told = variables_today(&environment(&[
        ("PORT", "9000"),
        ("DB_TYPE", "postgresql"),
        ("DB_HOST", "here"),
        ("DATABASE_HOST", "there"),
        ("DB_PASSWORD", "hunter2"),
        ("JWT_SECRET", "hunter2"),
        ("HOME", "/root"),
        ("INSTANCE_ID", "pod-1"),
    ]))
    .unwrap();
    for line in [
        "PORT           server.port = 9000\n",
        "DB_TYPE        database.type = postgresql\n",
        "DB_HOST        database.host = here\n",
        "DATABASE_HOST  no effect: DB_HOST is stronger\n",
        "DB_PASSWORD    database.password = ***\n",
        "JWT_SECRET     gone: no shared secret signs",
        "INSTANCE_ID    service.instance_id = pod-1\n",
    ] {
        assert!(told.contains(line), "{line} is not in {told}");
    }
    assert!(!told.contains("hunter2") && !told.contains("HOME"), "{told}");
}

#[test]
fn a_database_url_is_told_to_replace_the_others() {
    let told = variables_today(&environment(&[
        ("DATABASE_URL", "postgres://me:hunter2@here/nodes"),
        ("DATABASE_DSN", "sqlite://x.db"),
        ("DB_HOST", "there"),
        ("KNM__DATABASE__MAX_OPEN_CONNS", "7"),
    ]))
    .unwrap();
    for part in [
        "the whole connection, postgres://me:***@here/nodes",
        "no effect: DATABASE_URL is stronger",
        "no effect: DATABASE_URL says everything about the connection",
        "database.max_open_conns = 7",
    ] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn every_variable_of_the_first_version_is_told() {
    let names = KEYS
        .iter()
        .flat_map(|key| key.variables.iter().map(move |name| (key, *name)));
    for (key, name) in names {
        let value = match key.kind {
            super::super::schema::Kind::Number { least, .. } => least.max(1).to_string(),
            super::super::schema::Kind::Word(words) => words[0].to_owned(),
            _ => "debug".to_owned(),
        };
        let told = variables_today(&environment(&[(name, &value)])).unwrap();
        assert!(told.starts_with(&format!("{name}  {}", key.path)), "{name}: {told}");
    }
    assert!(variables_today(&environment(&[("PORT", "many")])).is_err());
    assert_eq!(
        variables_today(&Environment::new()).unwrap(),
        "none of the variables that set a key is set\n"
    );
}
