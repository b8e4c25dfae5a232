//! A configuration with secrets that is wrong, and is told to be without them.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

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
        ("DATABASE_URL", format!("env:{url}")),
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
    let key = STANDARD.encode(&secret.as_bytes()[..32]);
    for (variable, value) in [
        (
            "KNM__AUTH__BOOTSTRAP_TOKEN_FILE",
            format!("knm_0123456789abcdef_{secret}"),
        ),
        ("KNM__SECRETS__KEY_FILE", format!("first:{key}")),
        ("KNM__SECRETS__KEY_FILE", key.clone()),
        ("KNM__TRACES__HEADERS_FILE", format!("authorization: Bearer {secret}")),
        (
            "KNM__SERVER__TLS__KEY_FILE",
            format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n"),
        ),
    ] {
        told(&mut canaries, folder, &["config", "show"], &[(variable, &value)]);
        told(
            &mut canaries,
            folder,
            &["config", "convert", "--env"],
            &[(variable, &value)],
        );
        told(&mut canaries, folder, &["secrets", "rotate"], &[(variable, &value)]);
    }
    // A connection string where another argument belongs.
    let by_variable = format!("env:{url}");
    for arguments in [
        ["migrate-data", "--to", by_variable.as_str()].as_slice(),
        &["migrate-data", "--from", &by_variable],
        &["migrate-data", &url],
        &["migrate-data", "--dry-run", &by_variable],
        &["backup", &url],
        &["backup", &by_variable],
        &["restore", &url],
        &["migrate", "--config", &url],
        &["migrate", &url],
        &[&url],
    ] {
        told(&mut canaries, folder, arguments, &[]);
    }
    assert!(100 < canaries.seen());
    let leaks = canaries.leaks();
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
}
