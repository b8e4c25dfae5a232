//! The way through a cluster that the README describes, by its own commands.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use http::Method;
use knm_test_support::cluster::{Cluster, node, pod};
use knm_test_support::patience::wait_for;
use knm_test_support::service::{Service, run};
use serde_json::json;
use tempfile::TempDir;

use crate::dry_run::knows_the_sleep;
use crate::manifests::{Manifests, NAMESPACE, components, folder_of, has_kubectl, kustomization};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");
const MARK: &str = "<!-- a test runs the next four blocks, but for what needs a kubelet -->";
/// What there is no kubelet or controller for.
const NEED_A_KUBELET: [&str; 3] = [
    "kubectl -n kube-node-manager rollout status deployment/kube-node-manager",
    "TOKEN=$(kubectl -n kube-node-manager exec deployment/kube-node-manager -- ",
    "kubectl -n kube-node-manager port-forward service/kube-node-manager 8080:80 &",
];

#[test]
fn the_readme_leads_from_an_empty_cluster_to_a_drained_node() {
    if !has_kubectl() {
        return;
    }
    let Some(cluster) = Cluster::start() else {
        return;
    };
    cluster.create_nodes(["worker-1", "worker-2"].map(|name| node(name, &json!({}))));
    cluster.create("/api/v1/namespaces/default/pods", &pod("web-1", "worker-1", "web"));
    let _kubelets = cluster.kubelets(Duration::from_millis(50));
    let [install, sign_in, walk, postgres] = blocks();

    let (apply, rest) = install.split_once('\n').unwrap();
    assert_eq!(rest.trim(), NEED_A_KUBELET[0]);
    let (apply, _folder) = applied(&cluster, apply);
    shell(&apply, &cluster, &[]);
    let deployments = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/kube-node-manager");
    assert!(cluster.has(&deployments), "nothing was installed");

    let (service, _kubeconfig) = in_a_pod(&cluster);
    let (exec, forward) = sign_in.split_once('\n').unwrap();
    let command = exec.strip_prefix(NEED_A_KUBELET[1]).unwrap().strip_suffix(')').unwrap();
    let words: Vec<&str> = command.strip_prefix("kube-node-manager ").unwrap().split(' ').collect();
    let made = run(PROGRAM, service.folder(), &words, &[]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert_eq!(forward.trim(), NEED_A_KUBELET[2]);

    let walk = walk.replace("localhost:8080", &service.address().to_string());
    let token = String::from_utf8(made.stdout).unwrap();
    let told = shell(&walk, &cluster, &[("TOKEN", token.trim())]);
    for part in [
        "\"name\":\"worker-2\"",
        "\"decision\":\"evict\"",
        "event: ",
        "\"state\":\"succeeded\"",
        "\"action\":\"node.drain\"",
        "\"reason\":\"kernel update\"",
        "\"schedulable\":true",
    ] {
        assert!(told.contains(part), "{part} is missing in {told}");
    }
    assert!(!told.contains("urn:kube-node-manager:problem"), "{told}");
    assert!(
        !cluster.has("/api/v1/namespaces/default/pods/web-1"),
        "the pod is still there"
    );
    let (_, node) = cluster.request(Method::GET, "/api/v1/nodes/worker-1", None);
    assert!(node["spec"]["unschedulable"].is_null(), "{node}");

    // The overlay itself is applied where a server knows all that is in it.
    let (before, apply) = postgres.trim().rsplit_once('\n').unwrap();
    shell(before, &cluster, &[]);
    assert_eq!(apply, "kubectl apply -k deploy/kubernetes/overlays/postgres");
    let secret = format!("/api/v1/namespaces/{NAMESPACE}/secrets/kube-node-manager-database");
    let (_, secret) = cluster.request(Method::GET, &secret, None);
    assert!(secret["data"]["url"].is_string(), "{secret}");
    if knows_the_sleep(&cluster) {
        shell(apply, &cluster, &[]);
    }
}

#[test]
fn the_readme_names_every_component_and_no_other() {
    let readme = readme();
    let (_, section) = readme.split_once(MARK).expect("the README has the mark");
    let (section, _) = section
        .split_once("\nThe namespace asks")
        .expect("what follows the tables");
    let cells = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let mut named: Vec<&str> = cells
        .flat_map(|cell| cell.trim_end_matches('`').split("`, `"))
        .collect();
    named.sort_unstable();
    assert_eq!(named, components());
}

#[test]
fn a_kustomization_of_ones_own_works_as_the_readme_shows_it() {
    if !has_kubectl() {
        return;
    }
    let readme = readme();
    let (_, block) = readme
        .split_once("```yaml\n# kustomization.yaml,")
        .expect("it is shown");
    let (block, _) = block.split_once("```").expect("it ends");
    let folder = tempfile::tempdir().unwrap();
    let clone = folder.path().join("kube-node-manager/deploy");
    fs::create_dir_all(&clone).unwrap();
    let copied = Command::new("cp").arg("-R").arg(folder_of("")).arg(&clone).status();
    assert!(copied.unwrap().success());
    fs::write(folder.path().join("kustomization.yaml"), format!("# {block}")).unwrap();
    fs::write(folder.path().join("config.yaml"), "logging: { level: debug }\n").unwrap();
    let manifests = Manifests::rendered(folder.path());
    let image = concat!("registry.example.com/kube-node-manager:", env!("CARGO_PKG_VERSION"));
    assert_eq!(manifests.container()["image"], image);
    assert_eq!(
        manifests.the("ConfigMap")["data"]["config.yaml"],
        "logging: { level: debug }\n"
    );
    for kind in ["ServiceMonitor", "NetworkPolicy"] {
        assert_eq!(manifests.the(kind)["metadata"]["namespace"], NAMESPACE);
    }
}

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// The blocks after the mark.
fn blocks() -> [String; 4] {
    let readme = readme();
    let (_, after) = readme.split_once(MARK).expect("the README has the mark");
    let mut blocks = after.split("```sh\n").skip(1);
    [(); 4].map(|()| {
        let block = blocks.next().expect("four blocks follow the mark");
        block.split("```").next().unwrap_or_default().to_owned()
    })
}

/// The command that applies an overlay; for a server that is too old for what the pod does before it is stopped, of the overlay without that,
/// and the folder of it.
fn applied(cluster: &Cluster, command: &str) -> (String, Option<TempDir>) {
    let (start, folder) = command.rsplit_once(' ').unwrap();
    let overlay = folder.strip_prefix("deploy/kubernetes/overlays/").unwrap();
    assert!(
        folder_of(&format!("overlays/{overlay}")).is_dir(),
        "there is no {folder}"
    );
    if knows_the_sleep(cluster) {
        return (command.to_owned(), None);
    }
    let patch = json!([{"op": "remove", "path": "/spec/template/spec/containers/0/lifecycle"}]);
    let without = json!({"patches": [{"target": {"kind": "Deployment"}, "patch": patch.to_string()}]});
    let folder = kustomization(overlay, &without);
    (format!("{start} {}", folder.path().display()), Some(folder))
}

/// The program as the installed pod would run it, with the rights of its account, and the folder of its kubeconfig.
fn in_a_pod(cluster: &Cluster) -> (Service, TempDir) {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/kube-node-manager/token");
    let wanted = json!({"spec": {"expirationSeconds": 3600}});
    let (_, given) = cluster.request(Method::POST, &path, Some(&wanted));
    let mut kubeconfig = cluster.inline_kubeconfig();
    kubeconfig["users"][0]["user"] = json!({"token": given["status"]["token"].as_str().unwrap()});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    fs::write(&file, kubeconfig.to_string()).unwrap();
    let clusters = format!(
        "[{{name: in-cluster, source: {{kubeconfig: {{path: {}}}}}}}]",
        file.display()
    );
    let service = Service::start(
        PROGRAM,
        &[],
        &[("KNM__CLUSTERS", &clusters), ("KNM__AUTH__MODE", "tokens")],
    );
    service.wait_until_ready();
    wait_for("the cluster to be seen", || {
        let metrics = service.get("/metrics").body;
        metrics
            .contains("kube_node_manager_cluster_up{cluster=\"in-cluster\"} 1")
            .then_some(())
    });
    (service, folder)
}

/// Runs commands in the folder of the project as somebody whose kubectl is set to the cluster, and returns what they print.
pub fn shell(commands: &str, cluster: &Cluster, variables: &[(&str, &str)]) -> String {
    let output = Command::new("timeout")
        .args(["120", "bash", "-euo", "pipefail", "-c", commands])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("KUBECONFIG", cluster.kubeconfig())
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{commands}\n{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    told
}
