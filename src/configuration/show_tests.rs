use super::*;
use crate::configuration::Environment;

fn load(text: &str, variables: &[(&str, &str)]) -> Resolved {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, text).unwrap();
    let environment: Environment = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Resolved::load(Some(&path), &environment).unwrap()
}

#[test]
fn what_is_shown_has_origins_and_no_secrets() {
    let text = effective(&load(
        "server:\n  host: 127.0.0.1\ndatabase:\n  password: hunter2\n",
        &[("PORT", "9000"), ("DATABASE_URL", "postgres://me:hunter2@host/db")],
    ));
    assert!(text.contains("  port: 9000  # variable PORT\n"), "{text}");
    assert!(text.contains("  host: \"127.0.0.1\"  # file "), "{text}");
    assert!(
        text.contains("  dsn: \"postgres://me:***@host/db\"  # variable DATABASE_URL\n"),
        "{text}"
    );
    assert!(text.contains("  mode: release  # default\n"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn a_file_of_the_first_version_is_converted_into_one_that_means_the_same_and_warns_of_nothing() {
    let old = load(
        "server:\n  port: 9000\n  mode: debug\ndatabase:\n  type: postgresql\n  password: \"p#: w'd\"\n  max_open_conns: 7\nlogging:\n  format: text\n  structured: true\njwt:\n  secret: x\n",
        &[],
    );
    let text = converted(&old);
    let new = load(&text, &[]);
    assert!(new.warnings.is_empty(), "{:?}", new.warnings);
    assert!(!text.contains("jwt"), "{text}");
    for key in KEYS.iter().filter(|key| key.section() != "logging") {
        assert_eq!(old.get(key.path).0, new.get(key.path).0, "{}", key.path);
    }
    assert_eq!(new.get("logging.format").0, &Value::Text("json".to_owned()));
}

#[test]
fn a_group_of_keys_is_written_as_it_is_read() {
    let old = load(
        "server:\n  port: 9000\n  tls:\n    cert_file: a\n    key_file: b\ndatabase:\n  type: memory\n",
        &[],
    );
    let text = converted(&old);
    assert!(text.contains("  tls:\n    cert_file: a  #"), "{text}");
    let new = load(&text, &[]);
    for key in KEYS {
        assert_eq!(old.get(key.path).0, new.get(key.path).0, "{}", key.path);
    }
    assert!(
        effective(&old).contains("  tls:\n    cert_file: a  # file "),
        "{}",
        effective(&old)
    );
}

#[test]
fn a_converted_sqlite_file_and_an_empty_one_warn_of_nothing() {
    for text in [
        "database:\n  type: sqlite\n  max_open_conns: 25\n",
        "ldap:\n  host: x\n",
    ] {
        let new = load(&converted(&load(text, &[])), &[]);
        assert!(new.warnings.is_empty(), "{:?}", new.warnings);
    }
}

#[test]
fn texts_stay_texts() {
    for text in [
        "true",
        "null",
        "1.5",
        "a: b",
        "# x",
        "it's",
        "",
        "0x1F",
        "~",
        "a\nb",
        ".inf",
        "postgres",
        "./data/x.db",
    ] {
        let file = format!("service:\n  name: {}\n", scalar(text));
        assert_eq!(
            load(&file, &[]).get("service.name").0,
            &Value::Text(text.to_owned()),
            "{file}"
        );
    }
}
