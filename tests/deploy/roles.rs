//! The rights of the service, on an API server that holds it to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use http::Method;
use knm_test_support::cluster::{Cluster, node, pod};
use knm_test_support::patience::wait_for;
use knm_test_support::service::{Service, run};
use knm_test_support::wire::{Reply, Wire};
use serde_json::{Value, json};

use crate::manifests::{Manifests, NAMESPACE, OVERLAYS};
use crate::requests;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
/// What both overlays give the service.
const USUAL: [&str; 3] = ["change-nodes", "evict-pods", "read"];
/// What is added where it is wanted.
const MORE: [&str; 2] = ["delete-pods", "review-access"];
/// What every cluster lets everybody do.
const FOR_EVERYBODY: [(&str, &str); 2] = [("get", "version"), ("create", "selfsubjectaccessreviews")];

/// What is tried with the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Attempt {
    See,
    Change,
    Evict,
    Delete,
    SignIn,
}

#[test]
fn the_overlays_give_the_service_what_it_needs_and_nothing_that_destroys() {
    for overlay in OVERLAYS {
        let Some(manifests) = Manifests::of(&format!("overlays/{overlay}")) else {
            return;
        };
        let names = |kind: &str| -> BTreeSet<String> {
            let objects = manifests.all(kind).into_iter();
            objects
                .map(|one| one["metadata"]["name"].as_str().unwrap().to_owned())
                .collect()
        };
        let expected: BTreeSet<String> = USUAL.iter().map(|role| format!("kube-node-manager-{role}")).collect();
        assert_eq!(names("ClusterRole"), expected, "{overlay}");
        assert_eq!(names("ClusterRoleBinding"), expected, "{overlay}");
        assert!(manifests.all("Role").is_empty() && manifests.all("RoleBinding").is_empty());
    }
}

#[test]
fn no_role_says_everything_or_grows_by_itself() {
    let Some(manifests) = everything() else {
        return;
    };
    for role in manifests.all("ClusterRole") {
        assert_eq!(role["aggregationRule"], Value::Null, "{role}");
        assert!(!role.to_string().contains('*'), "{role}");
    }
    let subjects = json!([{"kind": "ServiceAccount", "name": "kube-node-manager", "namespace": NAMESPACE}]);
    for binding in manifests.all("ClusterRoleBinding") {
        assert_eq!(binding["subjects"], subjects, "{binding}");
        assert_eq!(binding["roleRef"]["name"], binding["metadata"]["name"], "{binding}");
    }
}

#[test]
fn the_roles_allow_exactly_what_the_service_asks_for() {
    let Some(stage) = Stage::set() else {
        return;
    };
    let (outcome, service) = stage.play("whole");
    for (attempt, told) in &outcome {
        assert_eq!(told, &Ok(()), "{attempt:?}");
    }
    let asked: BTreeSet<(String, String)> = service
        .get("/metrics")
        .body
        .lines()
        .filter(|line| line.starts_with("kube_node_manager_kubernetes_requests_total{"))
        .map(|line| {
            assert_ne!(label(line, "code"), "403", "{line}");
            (label(line, "verb"), label(line, "resource"))
        })
        .filter(is_granted)
        .collect();
    let allowed: BTreeSet<(String, String)> = USUAL
        .iter()
        .chain(&MORE)
        .flat_map(|role| rights(&stage.manifests, role))
        .map(|right| (right.verb, right.resource))
        .collect();
    assert_eq!(asked, allowed, "what is asked for, and what the roles allow");
}

#[test]
fn every_request_that_the_source_names_is_in_a_role() {
    let Some(manifests) = everything() else {
        return;
    };
    let named: BTreeSet<(String, String)> = requests::named().into_iter().filter(is_granted).collect();
    let allowed = USUAL.iter().chain(&MORE).flat_map(|role| rights(&manifests, role));
    let allowed: BTreeSet<_> = allowed.map(|right| (right.verb, right.resource)).collect();
    assert_eq!(named, allowed, "what the source names, and what the roles allow");
}

#[test]
fn without_a_role_exactly_its_part_fails_and_the_role_is_named() {
    use Attempt::{Change, Delete, Evict, See, SignIn};
    let Some(stage) = Stage::set() else {
        return;
    };
    for (role, failing) in [
        // A drain begins with a cordon.
        ("change-nodes", vec![Change, Evict, Delete]),
        ("evict-pods", vec![Evict]),
        ("delete-pods", vec![Delete]),
        ("review-access", vec![SignIn]),
        // What cannot be seen cannot be changed.
        ("read", vec![See, Change, Evict, Delete]),
    ] {
        stage.bind(role, false);
        let (outcome, service) = stage.play(role);
        let failed: Vec<Attempt> = outcome.iter().filter(|one| one.1.is_err()).map(|one| *one.0).collect();
        assert_eq!(failed, failing, "without {role}: {outcome:?}");
        let name = format!("kube-node-manager-{role}");
        // Who is not signed in is told less, and so are those who ask for a cluster that is not seen.
        if [SignIn, See].contains(&failing[0]) {
            service.wait_for_line(&name);
        } else {
            let told = outcome[&failing[0]].as_ref().unwrap_err();
            assert!(told.contains(&name), "without {role}: {told}");
        }
        stage.bind(role, true);
    }
}

/// Both overlays have the same roles; all that there are on top.
fn everything() -> Option<Manifests> {
    let components = ["roles/delete-pods", "roles/review-access"];
    let mut manifests = Manifests::with("postgres", components[0])?;
    manifests.0.extend(Manifests::with("postgres", components[1])?.0);
    manifests.0.sort_by_cached_key(Value::to_string);
    manifests.0.dedup();
    Some(manifests)
}

/// One thing that the service may do.
struct Right {
    verb: String,
    group: String,
    /// With its subresource after a slash.
    resource: String,
}

/// A cluster with the roles, and the service's identity there.
struct Stage {
    cluster: Cluster,
    manifests: Manifests,
    folder: tempfile::TempDir,
    /// Of somebody who may see nodes.
    person: String,
}

impl Stage {
    fn set() -> Option<Self> {
        let manifests = everything()?;
        let people = Manifests::with("postgres", "roles/people")?;
        let cluster = Cluster::start()?;
        cluster.create("/api/v1/namespaces", manifests.the("Namespace"));
        let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
        cluster.create(&accounts, manifests.the("ServiceAccount"));
        for role in manifests.all("ClusterRole") {
            cluster.create(&format!("{RBAC}/clusterroles"), role);
        }
        let viewers = people.all("ClusterRole");
        let viewer = viewers
            .iter()
            .find(|role| role["metadata"]["name"] == "kube-node-manager-viewer");
        let person = cluster.service_account("person", viewer.unwrap()["rules"].as_array().unwrap());

        let wanted = json!({"spec": {"expirationSeconds": 3600}});
        let (_, given) = cluster.request(
            Method::POST,
            &format!("{accounts}/kube-node-manager/token"),
            Some(&wanted),
        );
        let mut kubeconfig = cluster.inline_kubeconfig();
        kubeconfig["users"][0]["user"] = json!({"token": given["status"]["token"].as_str().unwrap()});
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        let stage = Self {
            cluster,
            manifests,
            folder,
            person,
        };
        for role in USUAL.iter().chain(&MORE) {
            stage.bind(role, true);
        }
        Some(stage)
    }

    /// Gives the service a role or takes it away, and waits until the API server knows.
    fn bind(&self, role: &str, is_bound: bool) {
        let bindings = format!("{RBAC}/clusterrolebindings");
        let name = format!("kube-node-manager-{role}");
        if is_bound {
            let objects = self.manifests.all("ClusterRoleBinding");
            let binding = objects.into_iter().find(|one| one["metadata"]["name"] == name.as_str());
            self.cluster.create(&bindings, binding.unwrap());
        } else {
            self.cluster.delete(&format!("{bindings}/{name}"));
        }
        for right in rights(&self.manifests, role) {
            let (resource, subresource) = right.resource.split_once('/').unwrap_or((&right.resource, ""));
            let review = json!({"spec": {
                "user": format!("system:serviceaccount:{NAMESPACE}:kube-node-manager"),
                "resourceAttributes": {"verb": right.verb, "group": right.group, "resource": resource,
                    "subresource": subresource},
            }});
            let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            wait_for("the API server to learn of a role", || {
                let (_, answer) = self.cluster.request(Method::POST, reviews, Some(&review));
                (answer["status"]["allowed"] == is_bound).then_some(())
            });
        }
    }

    /// Tries everything with a service of its own; what was refused with the service's words.
    fn play(&self, act: &str) -> (BTreeMap<Attempt, Result<(), String>>, Service) {
        for purpose in ["change", "evict", "delete"] {
            let name = format!("{act}-{purpose}");
            self.cluster.create_nodes([node(&name, &json!({}))]);
            self.cluster
                .create("/api/v1/namespaces/default/pods", &pod(&name, &name, "web"));
        }
        let _kubelets = self.cluster.kubelets(Duration::from_millis(50));
        let service = Service::start(
            PROGRAM,
            &[],
            &[
                ("KUBECONFIG", self.folder.path().join("kubeconfig").to_str().unwrap()),
                ("KNM__AUTH__MODE", "tokens,kubernetes"),
            ],
        );
        service.wait_until_ready();
        let made = run(
            PROGRAM,
            service.folder(),
            &["token", "create", "--name", "me", "--role", "admin", "--force"],
            &[],
        );
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let caller = Caller {
            service: &service,
            token: String::from_utf8(made.stdout).unwrap().trim().to_owned(),
        };
        let mut outcome = BTreeMap::from([
            (Attempt::See, caller.sees(&format!("{act}-change"))),
            (Attempt::Change, caller.changes(&format!("{act}-change"))),
        ]);
        let gentle = json!({"ignore_daemonsets": true, "wait_for_volume_detach": true});
        outcome.insert(Attempt::Evict, caller.drains(&format!("{act}-evict"), &gentle));
        let forced = json!({"disable_eviction": true});
        outcome.insert(Attempt::Delete, caller.drains(&format!("{act}-delete"), &forced));
        let person = Caller {
            service: &service,
            token: self.person.clone(),
        };
        outcome.insert(Attempt::SignIn, succeeded(&person.ask("GET", "/clusters", None)));
        (outcome, service)
    }
}

struct Caller<'a> {
    service: &'a Service,
    token: String,
}

impl Caller<'_> {
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        let header = format!("authorization: Bearer {}", self.token);
        let path = format!("/api/v1{path}");
        let mut wire = Wire::open(self.service.address());
        match body {
            Some(body) => wire.send_json(method, &path, &[&header], body).unwrap(),
            None => wire.get(&path, &[&header]).unwrap(),
        }
    }

    /// Waits until the cluster is seen, or is known not to be.
    fn sees(&self, node: &str) -> Result<(), String> {
        wait_for("the cluster to be seen or not", || {
            if self.ask("GET", &format!("/clusters/test/nodes/{node}"), None).status == 200 {
                return Some(Ok(()));
            }
            let cluster = self.ask("GET", "/clusters/test", None).json();
            cluster["reason"].as_str().map(|reason| Err(reason.to_owned()))
        })
    }

    fn changes(&self, node: &str) -> Result<(), String> {
        let path = format!("/clusters/test/nodes/{node}/cordon");
        succeeded(&self.ask("POST", &path, Some(&json!({"reason": "disk"}))))
    }

    /// Waits until the drain is over.
    fn drains(&self, node: &str, options: &Value) -> Result<(), String> {
        let path = format!("/clusters/test/nodes/{node}/drain");
        let accepted = self.ask("POST", &path, Some(options));
        succeeded(&accepted)?;
        let operation = format!("/operations/{}", accepted.json()["id"].as_str().unwrap());
        let ended = wait_for("the drain to end", || {
            let operation = self.ask("GET", &operation, None).json();
            operation["ended_at"].is_string().then_some(operation)
        });
        match ended["state"] == "succeeded" {
            true => Ok(()),
            false => Err(ended.to_string()),
        }
    }
}

fn succeeded(reply: &Reply) -> Result<(), String> {
    match reply.status {
        200..300 => Ok(()),
        status => Err(format!("{status} {}", reply.text())),
    }
}

/// Whether a request needs a role of the service: some things every cluster lets everybody do.
fn is_granted(request: &(String, String)) -> bool {
    !FOR_EVERYBODY.contains(&(request.0.as_str(), request.1.as_str()))
}

/// What a role allows.
fn rights(manifests: &Manifests, role: &str) -> Vec<Right> {
    let name = format!("kube-node-manager-{role}");
    let roles = manifests.all("ClusterRole");
    let role = roles
        .iter()
        .find(|one| one["metadata"]["name"] == name.as_str())
        .unwrap();
    let texts = |list: &Value| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut rights = Vec::new();
    for rule in role["rules"].as_array().unwrap() {
        for (resource, verb) in texts(&rule["resources"])
            .iter()
            .flat_map(|resource| texts(&rule["verbs"]).into_iter().map(move |verb| (resource, verb)))
        {
            let groups = texts(&rule["apiGroups"]);
            assert_eq!(groups.len(), 1, "{rule}");
            rights.push(Right {
                verb,
                group: groups[0].clone(),
                resource: resource.clone(),
            });
        }
    }
    rights
}

/// The value of a label in a line of metrics.
fn label(line: &str, name: &str) -> String {
    let (_, rest) = line.split_once(&format!("{name}=\"")).unwrap();
    rest.split('"').next().unwrap().to_owned()
}
