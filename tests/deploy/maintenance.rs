//! The pods of `deploy/kubernetes/maintenance`, and what the README does with them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;

use http::Method;
use knm_test_support::cluster::Cluster;
use knm_test_support::patience::wait_for;
use knm_test_support::service::run;
use serde_json::{Value, json};

use crate::contract::variable;
use crate::dry_run::knows_the_sleep;
use crate::manifests::{Manifests, NAMESPACE, folder_of, has_kubectl, kustomization};
use crate::readme::shell;
use crate::schema::Schemas;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");
const MARK: &str = "<!-- a test runs the next four blocks, but for what needs nodes -->";
/// Where the volume is in every pod.
const DATA: &str = "/var/lib/kube-node-manager";

/// The pods by the names of their files.
fn pods() -> BTreeMap<String, Value> {
    let entries = fs::read_dir(folder_of("maintenance")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| {
            let pod = serde_yaml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), pod)
        })
        .collect()
}

/// The blocks of the README after the mark.
fn blocks() -> [String; 4] {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, after) = readme.split_once(MARK).expect("the README has the mark");
    let mut blocks = after.split("```sh\n").skip(1);
    [(); 4].map(|()| {
        let block = blocks.next().expect("four blocks follow the mark");
        block.split("```").next().unwrap_or_default().to_owned()
    })
}

#[test]
fn the_pods_are_as_the_schemas_say() {
    let Some(schemas) = Schemas::read() else {
        return;
    };
    let pods = pods();
    assert_eq!(pods.len(), 3);
    for (file, pod) in pods {
        assert_eq!(schemas.check(&pod), Some(Vec::new()), "{file}");
        assert_eq!(pod["metadata"]["namespace"], NAMESPACE, "{file}");
    }
}

#[test]
fn the_pods_are_restricted_as_the_service_is_and_have_its_files_but_not_its_callers() {
    let Some(manifests) = Manifests::of("overlays/sqlite") else {
        return;
    };
    let mut user = manifests.pod()["securityContext"].clone();
    for field in ["runAsUser", "runAsGroup"] {
        user[field] = user["fsGroup"].clone();
    }
    for (file, pod) in pods() {
        let spec = &pod["spec"];
        assert_eq!(spec["securityContext"], user, "{file}");
        assert_eq!(spec["automountServiceAccountToken"], false, "{file}");
        let account = &manifests.the("ServiceAccount")["metadata"]["name"];
        assert_eq!(&spec["serviceAccountName"], account, "{file}");
        let container = &spec["containers"][0];
        assert_eq!(
            container["securityContext"],
            manifests.container()["securityContext"],
            "{file}"
        );
        let claim = &manifests.the("PersistentVolumeClaim")["metadata"]["name"];
        let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
        assert_eq!(spec["volumes"], volumes, "{file}");
        let mounts = json!([{"name": "data", "mountPath": DATA}]);
        assert_eq!(container["volumeMounts"], mounts, "{file}");
        // The Service, the disruption budget and the Deployment look for it.
        let labels = &pod["metadata"]["labels"];
        assert_eq!(labels["app"], Value::Null, "{file}");
        assert_eq!(labels["app.kubernetes.io/name"], "kube-node-manager", "{file}");
    }
}

#[test]
fn the_pods_have_the_databases_of_the_overlays() {
    let (Some(sqlite), Some(postgres)) = (Manifests::of("overlays/sqlite"), Manifests::of("overlays/postgres")) else {
        return;
    };
    let pods = pods();
    for (file, overlay) in [("restore.yaml", sqlite), ("migrate-data.yaml", postgres)] {
        let variables = pods[file]["spec"]["containers"][0]["env"].as_array().unwrap();
        let url = variables.iter().find(|one| one["name"] == "DATABASE_URL").unwrap();
        assert_eq!(url, variable(&overlay, "DATABASE_URL"), "{file}");
    }
}

#[test]
fn the_program_does_what_the_pods_ask_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().display().to_string();
    let pods = pods();
    let done = |arguments: &[&str], database: &str| {
        let url = format!("sqlite://{here}/{database}");
        let output = run(PROGRAM, folder.path(), arguments, &[("DATABASE_URL", &url)]);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let asked = |file: &str| -> Vec<String> {
        let arguments = pods[file]["spec"]["containers"][0]["args"].as_array().unwrap();
        let texts = arguments.iter().map(|one| one.as_str().unwrap());
        texts.map(|text| text.replace(DATA, &here)).collect()
    };
    let own = "kube-node-manager.db";
    done(&["token", "create", "--name", "me", "--role", "admin"], own);

    let [backup, ..] = blocks();
    let (_, command) = backup.split_once(" -- kube-node-manager ").expect("a backup is made");
    let command = command.lines().next().unwrap().replace("$data", &here);
    let words: Vec<&str> = command.split(' ').collect();
    done(&words, own);
    let restore = asked("restore.yaml");
    let told = done(&restore.iter().map(String::as_str).collect::<Vec<_>>(), own);
    assert!(told.contains("restored from"), "{told}");
    // Another file stands for the other database.
    let migrate = asked("migrate-data.yaml");
    let told = done(&migrate.iter().map(String::as_str).collect::<Vec<_>>(), "other.db");
    assert!(told.contains("moved 1 rows"), "{told}");
}

#[test]
fn the_commands_of_the_readme_restore_a_backup_and_go_over_to_postgresql() {
    if !has_kubectl() {
        return;
    }
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let [first, stop, restore, go_over] = blocks();
    let (variables, _) = first.split_once('\n').unwrap();
    assert!(variables.starts_with("export "), "{variables}");
    let installed = applied(&cluster, "sqlite");
    shell(
        &format!("kubectl apply -k {}", installed.path().display()),
        &cluster,
        &[],
    );

    let commands = format!("{variables}\n{stop}\n{}", without_logs(&restore));
    while_it_succeeds(&cluster, "kube-node-manager-restore", &commands);
    assert_eq!(deployment(&cluster)["spec"]["replicas"], 1);

    let other = applied(&cluster, "postgres");
    let go_over = without_logs(&go_over).replace(
        "deploy/kubernetes/overlays/postgres",
        &other.path().display().to_string(),
    );
    let commands = format!("{variables}\n{stop}\n{go_over}");
    while_it_succeeds(&cluster, "kube-node-manager-migrate-data", &commands);
    let spec = deployment(&cluster)["spec"].clone();
    // The autoscaler does nothing about a Deployment of none.
    assert_eq!(spec["replicas"], 1, "{spec}");
    assert_eq!(spec["strategy"]["type"], "RollingUpdate", "{spec}");
    let container = &spec["template"]["spec"]["containers"][0];
    let url = container["env"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "DATABASE_URL");
    assert!(url.unwrap()["valueFrom"]["secretKeyRef"].is_object(), "{container}");
}

/// An overlay, without what older servers do not know.
fn applied(cluster: &Cluster, overlay: &str) -> tempfile::TempDir {
    if knows_the_sleep(cluster) {
        return kustomization(overlay, &json!({}));
    }
    let mut fields = vec![json!({"op": "remove", "path": "/spec/template/spec/containers/0/lifecycle"})];
    let mut patches = Vec::new();
    if overlay == "postgres" {
        fields.push(json!({"op": "remove", "path": "/spec/template/spec/topologySpreadConstraints"}));
        for (kind, version) in [
            ("HorizontalPodAutoscaler", "autoscaling/v2"),
            ("PodDisruptionBudget", "policy/v1"),
        ] {
            let gone = json!({"$patch": "delete", "apiVersion": version, "kind": kind, "metadata": {"name": "any"}});
            patches.push(json!({"target": {"kind": kind}, "patch": gone.to_string()}));
        }
    }
    patches.push(json!({"target": {"kind": "Deployment"}, "patch": json!(fields).to_string()}));
    kustomization(overlay, &json!({"patches": patches}))
}

/// Only a kubelet has logs.
fn without_logs(block: &str) -> String {
    let lines = block.lines().filter(|line| !line.contains(" logs "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Runs the commands, while a pod of this name comes to its end as a kubelet would tell it.
fn while_it_succeeds(cluster: &Cluster, name: &str, commands: &str) {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}");
    thread::scope(|scope| {
        scope.spawn(|| {
            wait_for("the pod to be there", || cluster.has(&path).then_some(()));
            let (_, pod) = cluster.request(Method::GET, &path, None);
            let image = concat!("kube-node-manager:", env!("CARGO_PKG_VERSION"));
            assert_eq!(pod["spec"]["containers"][0]["image"], image, "{pod}");
            cluster.change(&format!("{path}/status"), &json!({"status": {"phase": "Succeeded"}}));
        });
        shell(commands, cluster, &[]);
    });
    assert!(!cluster.has(&path), "the pod is still there");
}

fn deployment(cluster: &Cluster) -> Value {
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/kube-node-manager");
    cluster.request(Method::GET, &path, None).1
}
