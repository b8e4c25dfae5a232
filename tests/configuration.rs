//! The configuration, on the built binary.

use std::process::Output;

use knm_test_support::service::run;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");

const FIRST_VERSION: &str = "server:
  port: 9000
  mode: release
database:
  type: postgresql
  host: db
  password: hunter2
  max_open_conns: 25
logging:
  format: json
  level: info
  structured: true
jwt:
  secret: hunter2
ldap:
  host: ldap
progress:
  enabled: true
monitoring:
  enabled: true
";

fn on(file: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("config.yaml"), file).expect("a file");
    run(PROGRAM, folder.path(), arguments, variables)
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn every_problem_is_told_and_the_exit_code_is_78() {
    let output = on("server:\n  prot: 1\n  mode: fast\n", &["serve"], &[("DB_PORT", "many")]);
    let (_, errors) = texts(&output);
    assert_eq!(output.status.code(), Some(78), "{errors}");
    for part in [
        "server.prot",
        "server.port",
        "config.yaml",
        "\"fast\"",
        "DB_PORT",
        "\"many\"",
    ] {
        assert!(errors.contains(part), "{part} is missing in {errors}");
    }
}

#[test]
fn a_missing_file_is_a_problem_of_the_configuration() {
    let output = on("", &["serve", "--config", "nowhere.yaml"], &[]);
    assert_eq!(output.status.code(), Some(78));
    assert!(texts(&output).1.contains("nowhere.yaml"));
}

#[test]
fn what_is_in_force_is_shown_with_origins_and_without_secrets() {
    let output = on(FIRST_VERSION, &["config", "show"], &[("PORT", "9001")]);
    let (shown, errors) = texts(&output);
    assert!(output.status.success(), "{errors}");
    assert!(shown.contains("  port: 9001  # variable PORT\n"), "{shown}");
    assert!(shown.contains("  host: db  # file ./config.yaml\n"), "{shown}");
    assert!(shown.contains("  idle_timeout: 120  # default\n"), "{shown}");
    assert!(
        !shown.contains("hunter2") && !errors.contains("hunter2"),
        "{shown}{errors}"
    );
    assert_eq!(errors.matches("warning").count(), 1, "{errors}");
}

#[test]
fn a_converted_file_loads_without_a_warning() {
    let (converted, _) = texts(&on(FIRST_VERSION, &["config", "convert", "config.yaml"], &[]));
    let output = on(&converted, &["config", "show"], &[]);
    let (shown, errors) = texts(&output);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    assert!(shown.contains("  format: json  # file"), "{shown}");
    assert!(shown.contains("  host: db  # file"), "{shown}");
}

#[test]
fn a_file_that_cannot_be_written_ends_the_start_with_one_line() {
    let output = on(
        "",
        &["serve"],
        &[
            ("DATABASE_URL", "sqlite:///proc/nowhere/x.db"),
            ("PORT", "0"),
            ("LOG_LEVEL", "error"),
        ],
    );
    let (_, errors) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("/proc/nowhere/x.db"), "{errors}");
}

/// Keys of the pool and of the migrations, and a connection that is to be overridden.
const ELSEWHERE: &str = "database:
  type: postgres
  host: elsewhere
  port: 6000
  password: hunter2
  ssl_mode: require
  ssl_root_cert: nowhere.pem
  max_open_conns: 7
  max_lifetime: 60
  auto_migrate: false
";

#[test]
fn a_database_url_says_everything_about_the_connection_and_nothing_about_the_pool() {
    let variables = [
        ("DATABASE_URL", "postgres://me:s3cr%40t@here:6432/nodes"),
        ("DB_HOST", "elsewhere"),
        ("DB_TYPE", "memory"),
        ("DB_PASSWORD", "hunter2"),
    ];
    let (shown, errors) = texts(&on(ELSEWHERE, &["config", "show"], &variables));
    assert_eq!(errors, "", "overriding is what it is for");
    for line in [
        "  type: postgres  # variable DATABASE_URL\n",
        "  dsn: \"postgres://me:***@here:6432/nodes\"  # variable DATABASE_URL\n",
        "  host: null  # forced: database.dsn says it\n",
        "  ssl_mode: null  # forced: database.dsn says it\n",
        "  max_open_conns: 7  # file ./config.yaml\n",
        "  max_lifetime: 60  # file ./config.yaml\n",
        "  auto_migrate: false  # file ./config.yaml\n",
    ] {
        assert!(shown.contains(line), "{line} is missing in {shown}");
    }
    for secret in ["s3cr", "hunter2", "elsewhere", "nowhere.pem"] {
        assert!(!shown.contains(secret), "{secret} is shown in {shown}");
    }
}

#[test]
fn a_database_url_of_sqlite_overrides_a_postgres_of_the_file() {
    let output = on(ELSEWHERE, &["config", "show"], &[("DATABASE_URL", "sqlite://x.db")]);
    let (shown, errors) = texts(&output);
    assert!(
        shown.contains("  type: sqlite  # variable DATABASE_URL\n"),
        "{shown}{errors}"
    );
    for key in ["max_open_conns", "max_idle_conns"] {
        let line = format!("  {key}: 1  # forced: sqlite has one connection\n");
        assert!(shown.contains(&line), "{shown}");
    }
    assert_eq!(
        errors.matches("warning").count(),
        1,
        "the 7 of the file is overridden: {errors}"
    );
    let (shown, errors) = texts(&on("", &["config", "show"], &[]));
    assert!(
        shown.contains("  max_open_conns: 1  # forced: sqlite has one connection\n"),
        "{shown}"
    );
    assert_eq!(errors, "", "nobody asked for more");
}

#[test]
fn a_variable_that_a_connection_string_of_the_file_makes_useless_is_named() {
    let file = "database:\n  dsn: postgres://me@here/nodes\n";
    let (_, errors) = texts(&on(file, &["config", "show"], &[("DB_PASSWORD", "hunter2")]));
    assert!(
        errors.contains("database.password (variable DB_PASSWORD) has no effect"),
        "{errors}"
    );
    assert!(!errors.contains("hunter2"), "{errors}");
}

#[test]
fn a_database_url_that_cannot_be_used_is_a_problem_without_its_password() {
    let cases = [
        ("postgres://me:s3cret@here/nodes?pool=9", "\"pool\" is not known"),
        (
            "postgres://me:s3cret@here/nodes?sslmode=sometimes",
            "disable, prefer, require",
        ),
        ("postgres://me:s3cret@here:70000/nodes", "port"),
        ("postgres://me:s3/cret@here/nodes", "percent-encoded"),
        ("mysql://me:s3cret@here/nodes", "postgres://"),
        ("sqlite://", "names no file"),
    ];
    for (url, expected) in cases {
        let output = on("", &["serve"], &[("DATABASE_URL", url)]);
        let (_, errors) = texts(&output);
        assert_eq!(output.status.code(), Some(78), "{url}: {errors}");
        assert!(
            errors.contains(expected) && errors.contains("DATABASE_URL"),
            "{url}: {errors}"
        );
        assert!(!errors.contains("cret"), "{url}: {errors}");
    }
}
