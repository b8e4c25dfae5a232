//! A configuration with secrets that is wrong, and is told to be without them.

use std::fs;

use crate::canaries::Canaries;
use crate::told;

#[test]
fn a_wrong_configuration_is_told_without_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut canaries = Canaries::default();
    let secret = canaries.secret("a password in the configuration");
    let url = format!("postgres://nodes:{secret}@db/nodes");
    for text in [
        format!("database: {url}\n"),
        format!("database: [{{password: {secret}}}]\n"),
        format!("database: password={secret}\n"),
        format!("database: password {secret}\n"),
        format!("database:\n  password: [{secret}]\n"),
        format!("database:\n  password: {{is: {secret}}}\n"),
        format!("database:\n  password: {secret}: x\n"),
        format!("database:\n  password: '{secret}\n"),
        format!("database:\n  password: \"\\q{secret}\"\n"),
        format!("database:\n\tpassword: {secret}\n"),
        format!("database:\n  password: *{secret}\n"),
        format!("database:\n  passwrd: {secret}\n"),
        format!("database:\n  dsn: [{url}]\n"),
        format!("database:\n  dsn: {}\n", url.replace("postgres:", "mysql:")),
        format!("database:\n  dsn: postgres://db/nodes?user=a&password={secret}&nonsense=1\n"),
        format!("database:\n  dsn: postgres://db/nodes?Password={secret}\n"),
        format!("database:\n  dsn: {}\n", url.replace("://", ":/")),
        format!("database:\n  dsn: {}\n", url.replace("://", ":")),
        format!("database:\n  dsn: {}\n", url.replace("postgres://", "")),
        format!("database:\n  dsn: user=nodes password={secret} host\n"),
        format!("database:\n  port: {url}\n"),
        format!("database:\n  password: {secret}\n  password: {secret}\n"),
        format!("databas:\n  password: {secret}\n"),
        format!("server: {{port: x}}\ndatabase: {{password: {secret}}}\n"),
    ] {
        let file = folder.join("config.yaml");
        fs::write(&file, &text).unwrap();
        for command in [["config", "show"].as_slice(), &["migrate"]] {
            let command = [command, &["--config", file.to_str().unwrap()]].concat();
            told(&mut canaries, folder, &command, &[]);
        }
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = elsewhere.path();
    for (variable, value) in [
        ("DATABASE_URL", url.replace("postgres:", "mysql:")),
        ("DATABASE_URL", url.replace("://", ":/")),
        ("DATABASE_URL", url.replace("postgres://", "")),
        ("DATABASE_URL", format!("{url}?nonsense=1")),
        ("DATABASE_URL", url.replace("/nodes", ":port/nodes")),
        ("DB_PORT", url.clone()),
        ("DB_TYPE", url.clone()),
        ("DB_SSL_MODE", url.clone()),
        (
            "KNM__CLUSTERS",
            format!("[{{name: a, source: {{kubeconfig: {{users: [{secret}]}}}}}}]"),
        ),
        ("KNM__CLUSTERS", format!("users: [{{user: {{token: {secret}}}}}]")),
        ("KNM__CLUSTERS", format!("[{{token: '{secret}}}]")),
        ("KNM__CLUSTERS", format!("{{token: [{secret}")),
    ] {
        told(&mut canaries, folder, &["config", "show"], &[(variable, &value)]);
        told(&mut canaries, folder, &["migrate"], &[(variable, &value)]);
    }
    assert!(100 < canaries.seen());
    let leaks = canaries.leaks();
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
}
