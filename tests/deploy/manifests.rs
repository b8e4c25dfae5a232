//! Rendering with kubectl, and finding objects in what comes out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use knm_test_support::skip;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What people apply.
pub const OVERLAYS: [&str; 2] = ["sqlite", "postgres"];
/// The namespace of everything that has one.
pub const NAMESPACE: &str = "kube-node-manager";

/// The objects of one rendering.
#[derive(Clone, Debug)]
pub struct Manifests(pub Vec<Value>);

impl Manifests {
    /// Renders a folder below `deploy/kubernetes`; `None`, after saying so, where kubectl is missing.
    pub fn of(folder: &str) -> Option<Self> {
        has_kubectl().then(|| Self::once(folder, || Self::rendered(&folder_of(folder))))
    }

    /// Renders an overlay with a component, which it may have already; `None`, after saying so, where kubectl is missing.
    pub fn with(overlay: &str, component: &str) -> Option<Self> {
        if is_part_of(overlay, component) {
            return Self::of(&format!("overlays/{overlay}"));
        }
        let changes = json!({"components": [reached_from_a_folder_of_ours(&format!("components/{component}"))]});
        has_kubectl().then(|| {
            Self::once(&format!("{overlay} {component}"), || {
                Self::rendered(kustomization(overlay, &changes).path())
            })
        })
    }

    /// Renders an overlay with more lines in a kustomization that uses it; `None`, after saying so, where kubectl is missing.
    pub fn changed(overlay: &str, changes: &Value) -> Option<Self> {
        has_kubectl().then(|| Self::rendered(kustomization(overlay, changes).path()))
    }

    /// The only object of this kind.
    pub fn the(&self, kind: &str) -> &Value {
        let found = self.all(kind);
        let [one] = found.as_slice() else {
            panic!("there are {} objects of the kind {kind}, one is expected", found.len());
        };
        one
    }

    /// All objects of this kind.
    pub fn all(&self, kind: &str) -> Vec<&Value> {
        self.0.iter().filter(|object| object["kind"] == kind).collect()
    }

    /// The pod that the Deployment makes.
    pub fn pod(&self) -> &Value {
        &self.the("Deployment")["spec"]["template"]["spec"]
    }

    /// Its only container.
    pub fn container(&self) -> &Value {
        let containers = self.pod()["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 1, "{containers:?}");
        &containers[0]
    }

    /// What `render` made, which is asked for by many tests, under this name.
    fn once(name: &str, render: impl FnOnce() -> Self) -> Self {
        static RENDERED: Mutex<BTreeMap<String, Arc<OnceLock<Manifests>>>> = Mutex::new(BTreeMap::new());
        let mut rendered = RENDERED.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Arc::clone(rendered.entry(name.to_owned()).or_default());
        drop(rendered);
        place.get_or_init(render).clone()
    }

    /// Renders any folder. There must be a kubectl.
    pub fn rendered(folder: &Path) -> Self {
        let output = Command::new("kubectl").arg("kustomize").arg(folder).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && told.is_empty(),
            "{}: {told}",
            folder.display()
        );
        let objects = serde_yaml::Deserializer::from_slice(&output.stdout)
            .map(|document| Value::deserialize(document).unwrap())
            .collect();
        Self(objects)
    }
}

/// A folder with a kustomization that uses an overlay and has these lines, too.
pub fn kustomization(overlay: &str, changes: &Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut lines = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [reached_from_a_folder_of_ours(&format!("overlays/{overlay}"))],
    });
    lines
        .as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    fs::write(folder.path().join("kustomization.yaml"), lines.to_string()).unwrap();
    folder
}

/// The names of all components, with the folder that groups them.
pub fn components() -> Vec<String> {
    let root = folder_of("components");
    let mut names = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(folder) = open.pop() {
        if folder.join("kustomization.yaml").is_file() {
            names.push(folder.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
            continue;
        }
        let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        open.extend(entries.filter(|path| path.is_dir()));
    }
    names.sort();
    names
}

/// Whether an overlay names a component itself.
pub fn is_part_of(overlay: &str, component: &str) -> bool {
    let file = folder_of(&format!("overlays/{overlay}/kustomization.yaml"));
    let text = fs::read_to_string(file).unwrap();
    text.lines()
        .any(|line| line.trim() == format!("- ../../components/{component}"))
}

/// A folder below `deploy/kubernetes`.
pub fn folder_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy/kubernetes")
        .join(name)
}

/// Whether there is a kubectl on the `PATH`; says so if not.
pub fn has_kubectl() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = *FOUND.get_or_init(|| {
        let version = Command::new("kubectl")
            .args(["version", "--client"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        version.is_ok_and(|status| status.success())
    });
    if !found {
        skip("kubectl", "kubectl on the PATH");
    }
    found
}

/// The path from a temporary folder to one below `deploy/kubernetes`: kustomize takes no absolute ones.
pub fn reached_from_a_folder_of_ours(name: &str) -> String {
    let depth = fs::canonicalize(std::env::temp_dir()).unwrap().components().count();
    let target = fs::canonicalize(folder_of(name)).unwrap();
    format!("{}{}", "../".repeat(depth), target.strip_prefix("/").unwrap().display())
}
