//! A second installation in the same cluster, as the README says to make one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::manifests::{Manifests, OVERLAYS, components, is_part_of, reached_from_a_folder_of_ours};

/// The lines that the README has for it.
fn lines() -> Value {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, block) = readme
        .split_once("```yaml\n# kustomization.yaml of the second one\n")
        .expect("it is shown");
    let (block, _) = block.split_once("```").expect("it ends");
    let shown: Value = serde_yaml::from_str(block).unwrap();
    json!({"namespace": shown["namespace"], "nameSuffix": shown["nameSuffix"]})
}

/// An overlay with all components and these lines.
fn whole(overlay: &str, lines: &Value) -> Option<Manifests> {
    let more = components().into_iter().filter(|one| !is_part_of(overlay, one));
    let folders: Vec<String> = more
        .map(|one| reached_from_a_folder_of_ours(&format!("components/{one}")))
        .collect();
    let mut lines = lines.clone();
    lines["components"] = json!(folders);
    Manifests::changed(overlay, &lines)
}

/// What makes an object the same as another one.
fn identities(manifests: &Manifests) -> BTreeSet<String> {
    let identity = |object: &Value| {
        let metadata = &object["metadata"];
        format!("{} {} {}", object["kind"], metadata["namespace"], metadata["name"])
    };
    manifests.0.iter().map(identity).collect()
}

#[test]
fn a_second_installation_has_no_object_of_the_first() {
    for overlay in OVERLAYS {
        let (Some(first), Some(second)) = (whole(overlay, &json!({})), whole(overlay, &lines())) else {
            return;
        };
        assert_eq!(first.0.len(), second.0.len());
        let (first, second) = (identities(&first), identities(&second));
        let shared: Vec<&String> = first.intersection(&second).collect();
        assert!(shared.is_empty(), "{overlay}: {shared:?}");
    }
}

#[test]
fn the_objects_of_a_second_installation_find_each_other() {
    for overlay in OVERLAYS {
        let Some(manifests) = whole(overlay, &lines()) else {
            return;
        };
        let has = |kind: &str, name: &Value| {
            let found = manifests.all(kind).iter().any(|one| one["metadata"]["name"] == *name);
            assert!(found, "{overlay}: there is no {kind} {name}");
        };
        for binding in manifests.all("ClusterRoleBinding") {
            has("ClusterRole", &binding["roleRef"]["name"]);
            let account = manifests.the("ServiceAccount")["metadata"].clone();
            let subjects =
                json!([{"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}]);
            assert_eq!(binding["subjects"], subjects, "{overlay}");
        }
        has("ServiceAccount", &manifests.pod()["serviceAccountName"]);
        for volume in manifests.pod()["volumes"].as_array().unwrap() {
            // Secrets are made by hand, and keep their names.
            match (
                &volume["configMap"]["name"],
                &volume["persistentVolumeClaim"]["claimName"],
            ) {
                (Value::Null, Value::Null) => assert!(volume["secret"].is_object(), "{volume}"),
                (Value::Null, claim) => has("PersistentVolumeClaim", claim),
                (config, _) => has("ConfigMap", config),
            }
        }
        for autoscaler in manifests.all("HorizontalPodAutoscaler") {
            has("Deployment", &autoscaler["spec"]["scaleTargetRef"]["name"]);
        }
        for path in manifests.the("Ingress")["spec"]["rules"][0]["http"]["paths"]
            .as_array()
            .unwrap()
        {
            has("Service", &path["backend"]["service"]["name"]);
        }
        let pod = &manifests.the("Deployment")["spec"]["template"]["metadata"]["labels"];
        let service = manifests.the("Service");
        for (selector, labels) in [
            (&service["spec"]["selector"], pod),
            (
                &manifests.the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
                pod,
            ),
            (
                &manifests.the("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
                pod,
            ),
            (
                &manifests.the("ServiceMonitor")["spec"]["selector"]["matchLabels"],
                &service["metadata"]["labels"],
            ),
        ] {
            assert_eq!(selector["app"], labels["app"], "{overlay}: {selector}");
            assert!(selector["app"].is_string(), "{overlay}: {selector}");
        }
        // The operator calls the job after the Service, and so does the scrape configuration of the README.
        let name = service["metadata"]["name"].as_str().unwrap();
        assert!(name.contains("kube-node-manager"), "no alert knows the job {name}");
    }
}
