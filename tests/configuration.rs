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
