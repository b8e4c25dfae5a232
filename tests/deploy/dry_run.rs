//! What a real API server says of the objects, without keeping them.

use std::collections::BTreeMap;

use http::Method;
use knm_test_support::cluster::Cluster;
use serde_json::{Value, json};

use crate::manifests::{Manifests, NAMESPACE, OVERLAYS, components};

/// Kinds that every API server knows that tests run with.
const KNOWN: [&str; 10] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "Deployment",
    "Ingress",
    "Namespace",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "Service",
    "ServiceAccount",
];
/// Kinds whose version is too new for some of them, or that are no part of Kubernetes.
const UNKNOWN_TO_SOME: [&str; 4] = [
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "PrometheusRule",
    "ServiceMonitor",
];

#[test]
fn an_api_server_takes_every_kind_that_it_knows() {
    let Some(base) = Manifests::of("base") else {
        return;
    };
    let Some(cluster) = Cluster::start() else {
        return;
    };
    // What is in a namespace is refused where there is none.
    let namespace = json!({"metadata": {"name": NAMESPACE}});
    let (status, answer) = cluster.request(Method::POST, "/api/v1/namespaces", Some(&namespace));
    assert_eq!(status, 201, "{answer}");
    let knows_the_sleep = knows_the_sleep(&cluster);
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    let mut unknown: BTreeMap<String, usize> = BTreeMap::new();
    let mut rendered = vec![base];
    for overlay in OVERLAYS {
        rendered.extend(components().iter().filter_map(|one| Manifests::with(overlay, one)));
    }
    let mut objects: Vec<Value> = rendered.into_iter().flat_map(|manifests| manifests.0).collect();
    objects.sort_by_cached_key(Value::to_string);
    objects.dedup();
    for object in &objects {
        let kind = object["kind"].as_str().unwrap().to_owned();
        // It is there already, and its name is what is asked about.
        let mut object = object.clone();
        if kind == "Namespace" {
            object["metadata"]["name"] = json!("another");
        }
        if kind == "Deployment" && !knows_the_sleep {
            let container = &mut object["spec"]["template"]["spec"]["containers"][0];
            container.as_object_mut().unwrap().remove("lifecycle");
        }
        let (status, answer) = cluster.request(Method::POST, &collection(&object), Some(&object));
        match status {
            201 => *taken.entry(kind).or_default() += 1,
            404 if UNKNOWN_TO_SOME.contains(&kind.as_str()) => *unknown.entry(kind).or_default() += 1,
            _ => panic!("{kind}: {status} {answer}"),
        }
    }
    println!("taken: {taken:?}; not known to this API server: {unknown:?}");
    for kind in KNOWN {
        assert!(taken.contains_key(kind), "{kind} was not asked about: {taken:?}");
    }
}

/// Whether containers may sleep before they are stopped: older servers drop that, and then miss what is to be done.
pub fn knows_the_sleep(cluster: &Cluster) -> bool {
    let (_, version) = cluster.request(Method::GET, "/version", None);
    let minor = version["minor"].as_str().unwrap().trim_end_matches('+');
    30 <= minor.parse::<u32>().unwrap()
}

/// Where an object is created without being kept.
fn collection(object: &Value) -> String {
    let version = object["apiVersion"].as_str().unwrap();
    let root = if version.contains('/') { "apis" } else { "api" };
    let kind = object["kind"].as_str().unwrap().to_lowercase();
    let plural = match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if kind.ends_with('s') => format!("{kind}es"),
        None => format!("{kind}s"),
    };
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/{root}/{version}/namespaces/{namespace}/{plural}?dryRun=All"),
        None => format!("/{root}/{version}/{plural}?dryRun=All"),
    }
}
