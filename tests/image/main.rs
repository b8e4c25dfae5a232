//! The program with nothing around it but what its image has: proven without an engine for containers.
//!
//! `KNM_TEST_PROGRAM` names another binary than the one that was built with these tests, such as the optimised one.

#![cfg(test)]

mod dockerfile;
mod names;
mod root;

use std::fs;
use std::process::Command;

use knm_test_support::cluster::{Cluster, node, rule};
use knm_test_support::patience::wait_for;
use knm_test_support::postgres::PostgresServer;
use knm_test_support::service::Service;
use knm_test_support::tls::Authority;
use knm_test_support::wire::Wire;
use names::NameServer;
use root::Root;
use serde_json::json;

const DATABASE_HOST: &str = "database.knm.test";

/// The path of the program.
fn program() -> String {
    std::env::var("KNM_TEST_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_kube-node-manager").to_owned())
}

#[test]
fn nobody_in_particular_serves_from_a_root_that_cannot_be_written() {
    let Some(root) = Root::make() else {
        return;
    };
    let service = root.serve(&[
        ("DATABASE_URL", "sqlite:///var/lib/kube-node-manager/knm.db"),
        ("KNM__CLUSTERS", "[{name: demo, source: {demo: {nodes: 3}}}]"),
    ]);
    service.wait_until_ready();
    let status = fs::read_to_string(format!("/proc/{}/status", service.id())).unwrap();
    for (field, expected) in [
        ("Uid", format!("{0}\t{0}\t{0}\t{0}", root::USER)),
        ("Gid", format!("{0}\t{0}\t{0}\t{0}", root::USER)),
        ("Groups", String::new()),
        ("CapPrm", "0000000000000000".to_owned()),
        ("CapEff", "0000000000000000".to_owned()),
        ("CapInh", "0000000000000000".to_owned()),
        ("NoNewPrivs", "1".to_owned()),
    ] {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
        assert_eq!(line.map(str::trim), Some(expected.as_str()), "{field}");
    }
    assert_eq!(options_of_mount(&service, "/").split(',').next(), Some("ro"));
    assert_eq!(service.get("/api/v1/clusters/demo/nodes").json()["total"], 3);
    let cordoned = service.get("/api/v1/audit").json();
    assert_eq!(cordoned["items"], json!([]), "the database answers");
    assert!(root.data().join("knm.db").is_file());
    service.signal("-TERM");
    let mut service = service;
    assert!(service.wait().success(), "{}", service.lines().join("\n"));
}

#[test]
fn it_tells_the_right_time_without_data_about_time_zones() {
    let Some(root) = Root::make() else {
        return;
    };
    let service = root.serve(&[
        ("DATABASE_TYPE", "memory"),
        ("KNM__CLUSTERS", "[]"),
        ("TZ", "Asia/Shanghai"),
    ]);
    service.wait_until_ready();
    let seconds = |text: &str| {
        let output = Command::new("date").args(["-u", "-d", text, "+%s"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse::<i64>().unwrap()
    };
    let before = seconds("now");
    let told = service.get("/health").json()["timestamp"].as_str().unwrap().to_owned();
    let after = seconds("now");
    assert!(told.ends_with('Z'), "{told}");
    assert!((before..=after).contains(&seconds(&told)), "{before} {told} {after}");
}

#[test]
fn it_finds_its_database_by_dns_and_clusters_by_the_account_of_its_pod_and_by_the_authorities_of_the_image() {
    let Some(mut root) = Root::make() else {
        return;
    };
    let (Some(postgres), Some(cluster)) = (PostgresServer::start(), Cluster::start()) else {
        return;
    };
    cluster.create_nodes([node("worker-1", &json!({}))]);
    let rights = ["get", "list", "watch"].map(|verb| rule(verb, "nodes"));
    let token = cluster.service_account("in-pod", &rights);
    root.mount_service_account(&token, &cluster.authority(), "kube-node-manager");
    root.trust(&cluster.authority());
    // The name is in the file of hosts only, the certificate is for it, and nothing here says who signed that.
    let mut kubeconfig = cluster.inline_kubeconfig();
    let port = cluster.url().rsplit_once(':').unwrap().1.to_owned();
    kubeconfig["clusters"][0]["cluster"] = json!({"server": format!("https://localhost:{port}")});
    fs::write(root.data().join("kubeconfig"), kubeconfig.to_string()).unwrap();
    let names = NameServer::start(DATABASE_HOST);
    root.resolve_with(names.address());
    let database = postgres.create_database();
    let url = postgres.url(&database).replace("127.0.0.1", DATABASE_HOST);

    let service = root.serve(&[
        ("DATABASE_URL", &url),
        ("KUBERNETES_SERVICE_HOST", "localhost"),
        ("KUBERNETES_SERVICE_PORT", &port),
        (
            "KNM__CLUSTERS",
            "[{name: own, source: in-cluster}, {name: other, source: {kubeconfig: {path: /var/lib/kube-node-manager/kubeconfig}}}]",
        ),
    ]);
    service.wait_until_ready();
    for (name, source) in [("own", "in-cluster"), ("other", "kubeconfig")] {
        let seen = wait_for("the cluster", || {
            let seen = service.get(&format!("/api/v1/clusters/{name}")).json();
            (seen["state"] == "healthy").then_some(seen)
        });
        assert_eq!((&seen["source"], &seen["nodes"]), (&json!(source), &json!(1)), "{seen}");
    }
    assert!(0 < names.asked(), "nobody asked for the name of the database");
    let tables = postgres.run(
        &database,
        "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'",
    );
    assert!(3 < tables.parse::<u32>().unwrap(), "{tables}");
}

#[test]
fn the_pod_of_the_manifests_sees_its_own_cluster_and_makes_the_first_token() {
    let Some(mut root) = Root::make() else {
        return;
    };
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let token = cluster.service_account("in-pod", &["list", "watch"].map(|verb| rule(verb, "nodes")));
    root.mount_service_account(&token, &cluster.authority(), "kube-node-manager");
    root.configure(&dockerfile::text("deploy/kubernetes/base/config.yaml"));
    let port = cluster.url().rsplit_once(':').unwrap().1.to_owned();
    let overlay = dockerfile::yaml("deploy/kubernetes/overlays/sqlite/deployment.yaml");
    let of_the_pod = overlay["spec"]["template"]["spec"]["containers"][0]["env"]
        .as_array()
        .unwrap();
    let mut variables: Vec<(&str, &str)> = of_the_pod
        .iter()
        .map(|one| (one["name"].as_str().unwrap(), one["value"].as_str().unwrap()))
        .collect();
    variables.extend([
        ("KUBERNETES_SERVICE_HOST", "127.0.0.1"),
        ("KUBERNETES_SERVICE_PORT", &port),
        ("KNM__AUTH__MODE", "tokens"),
    ]);
    let service = root.serve(&variables);
    service.wait_until_ready();
    assert_eq!(service.get("/api/v1/clusters").status, 401);

    // As kubectl exec does it: the same root, variables and folder.
    let made = root.run(&["token", "create", "--name", "me", "--role", "admin"], &variables);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let header = format!("authorization: Bearer {}", String::from_utf8_lossy(&made.stdout).trim());
    wait_for("the cluster", || {
        let mut wire = Wire::open(service.address());
        let seen = wire.get("/api/v1/clusters/in-cluster", &[&header]).unwrap();
        assert_eq!(seen.status, 200, "{}", seen.text());
        (seen.json()["state"] == "healthy").then_some(())
    });
}

#[test]
fn without_a_configuration_the_account_of_the_pod_is_taken() {
    let Some(mut root) = Root::make() else {
        return;
    };
    let authority = Authority::new().certify(2100).certificate;
    root.mount_service_account("token", &authority, "kube-node-manager");
    let service = root.serve(&[
        ("DATABASE_TYPE", "memory"),
        ("KUBERNETES_SERVICE_HOST", "127.0.0.1"),
        ("KUBERNETES_SERVICE_PORT", "1"),
    ]);
    service.wait_until_ready();
    let line = service.wait_for_line("cluster found");
    assert!(
        line.contains("in-cluster") && line.contains("service account"),
        "{line}"
    );
    assert_eq!(
        service.get("/api/v1/clusters/in-cluster").json()["source"],
        "in-cluster"
    );
}

/// The options of what is mounted at `path`, as the process sees it.
fn options_of_mount(service: &Service, path: &str) -> String {
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", service.id())).unwrap();
    let found = mounts.lines().rev().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields[4] == path).then(|| fields[5].to_owned())
    });
    found.unwrap_or_else(|| panic!("nothing is mounted at {path}:\n{mounts}"))
}
