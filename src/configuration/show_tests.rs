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
