//! Kubeconfigs that are missing, broken or lead nowhere, on the built binary. No cluster is needed.

use std::path::Path;
use std::process::Output;

use knm_test_support::service::{Service, run};
use serde_json::json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");

const LEADS_NOWHERE: &str = "apiVersion: v1
kind: Config
current-context: prod
contexts:
- name: prod
  context: {cluster: nobody, user: nobody}
";

fn text(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// Starts with a kubeconfig that cannot be used, and returns the last line.
fn refused(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let variables: Vec<_> = [("PORT", "0"), ("KNM__SERVER__HOST", "127.0.0.1")]
        .iter()
        .chain(variables)
        .copied()
        .collect();
    let arguments: Vec<_> = ["serve"].iter().chain(arguments).copied().collect();
    let output = run(PROGRAM, folder, &arguments, &variables);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    text(&output).lines().last().expect("a line").to_owned()
}

#[test]
fn without_any_cluster_the_service_runs_and_says_so_once() {
    let service = Service::start(PROGRAM, &[], &[]);
    service.wait_until_ready();
    let said = service
        .lines()
        .iter()
        .filter(|line| line.contains("no clusters"))
        .count();
    assert_eq!(said, 1);
    let clusters = service.get("/api/v1/clusters").json();
    assert_eq!((&clusters["items"], &clusters["total"]), (&json!([]), &json!(0)));
    assert_eq!(service.get("/api/v1/nodes").json()["items"], json!([]));
    let detailed = service.get("/health/detailed").json();
    assert_eq!(detailed["status"], "healthy", "{detailed}");
}

#[test]
fn a_kubeconfig_that_is_not_there_is_as_good_as_none_but_named() {
    let service = Service::start(PROGRAM, &[], &[("KUBECONFIG", "nowhere/config")]);
    service.wait_until_ready();
    let line = service.wait_for_line("no clusters");
    assert!(line.contains("nowhere/config, which is not there"), "{line}");
}

#[test]
fn a_kubeconfig_without_a_current_context_is_as_good_as_none_but_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    std::fs::write(&file, LEADS_NOWHERE.replace("current-context: prod\n", "")).unwrap();
    let service = Service::start(PROGRAM, &[], &[("KUBECONFIG", file.to_str().unwrap())]);
    service.wait_until_ready();
    let line = service.wait_for_line("no clusters");
    assert!(
        line.contains(file.to_str().unwrap()) && line.contains("use-context"),
        "{line}"
    );
}

#[test]
fn a_broken_kubeconfig_ends_the_start_and_nothing_in_it_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("broken"), "users: [{token: hunter2").unwrap();
    let line = refused(folder.path(), &[], &[("KUBECONFIG", "broken")]);
    for part in ["broken is not a kubeconfig", "clusters: []"] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
    assert!(!line.contains("hunter2"), "{line}");
}

#[test]
fn a_broken_kubeconfig_is_no_problem_for_whoever_wants_no_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken");
    std::fs::write(&file, "users: [").unwrap();
    let variables = [("KUBECONFIG", file.to_str().unwrap()), ("KNM__CLUSTERS", "[]")];
    Service::start(PROGRAM, &[], &variables).wait_until_ready();
}

#[test]
fn a_context_that_does_not_exist_is_named_beside_those_that_do() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config"), LEADS_NOWHERE).unwrap();
    let clusters = "[{name: east, source: {kubeconfig: {path: config, context: prodd}}}]";
    let line = refused(folder.path(), &[], &[("KNM__CLUSTERS", clusters)]);
    for part in ["cluster east", "config", "no context prodd", "\"prod\""] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
}

#[test]
fn a_context_without_its_cluster_and_user_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config"), LEADS_NOWHERE).unwrap();
    let line = refused(folder.path(), &[], &[("KUBECONFIG", "config")]);
    for part in [
        "cluster prod",
        "context prod of config",
        "cluster, user, certificates or key",
    ] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
}

#[test]
fn a_kubeconfig_that_the_configuration_names_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let clusters = "[{name: east, source: {kubeconfig: {path: nowhere}}}]";
    let line = refused(folder.path(), &[], &[("KNM__CLUSTERS", clusters)]);
    for part in ["cluster east", "nowhere", "No such file"] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
}

#[test]
fn a_service_account_is_only_there_in_a_pod() {
    let folder = tempfile::tempdir().unwrap();
    let clusters = "[{name: here, source: in-cluster}]";
    let line = refused(folder.path(), &[], &[("KNM__CLUSTERS", clusters)]);
    assert!(
        line.contains("cluster here") && line.contains("in a pod only"),
        "{line}"
    );
}

#[test]
fn a_credential_plugin_that_hangs_holds_up_its_cluster_only() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    // It ends with the service.
    let script = "while kill -0 $PPID 2>/dev/null; do sleep 0.2; done";
    let plugin = format!(
        "    exec: {{apiVersion: client.authentication.k8s.io/v1, command: sh, args: ['-c', '{script}'], interactiveMode: Never}}\n"
    );
    let cluster = "clusters:\n- name: nobody\n  cluster: {server: 'https://127.0.0.1:1'}\n";
    let text = format!("{LEADS_NOWHERE}{cluster}users:\n- name: nobody\n  user:\n{plugin}");
    std::fs::write(&file, text).unwrap();
    let service = Service::start(PROGRAM, &[], &[("KUBECONFIG", file.to_str().unwrap())]);
    service.wait_until_ready();
    let seen = service.get("/api/v1/clusters/prod").json();
    assert_ne!(seen["state"], "healthy", "the plugin still runs: {seen}");
}
