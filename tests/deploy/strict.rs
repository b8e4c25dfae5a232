//! Every object that can be rendered, strictly against the schemas of Kubernetes.

use serde_json::{Value, json};

use crate::manifests::{Manifests, NAMESPACE, OVERLAYS, components, is_part_of};
use crate::schema::Schemas;

/// Kinds that are no part of Kubernetes.
const FOREIGN: [&str; 2] = ["ServiceMonitor", "PrometheusRule"];

/// Kinds that are in no namespace.
const OF_THE_CLUSTER: [&str; 3] = ["Namespace", "ClusterRole", "ClusterRoleBinding"];

/// Fails if an object is not as its schema says, or would go into whatever namespace kubectl is set to.
fn check(schemas: &Schemas, rendered: &str, manifests: &Manifests) {
    assert!(4 < manifests.0.len(), "{rendered} renders to almost nothing");
    for object in &manifests.0 {
        let kind = object["kind"].as_str().unwrap();
        let has_namespace = object["metadata"]["namespace"].is_string();
        assert_ne!(has_namespace, OF_THE_CLUSTER.contains(&kind), "{rendered}: {object}");
        match schemas.check(object) {
            Some(wrong) => assert_eq!(wrong, [""; 0], "{rendered}, {kind} {}", object["metadata"]["name"]),
            None => assert!(FOREIGN.contains(&kind), "{rendered}: there is no schema for {object}"),
        }
    }
}

#[test]
fn the_base_and_the_overlays_are_as_the_schemas_say() {
    let Some(schemas) = Schemas::read() else {
        return;
    };
    for folder in ["base", "overlays/sqlite", "overlays/postgres"] {
        let Some(manifests) = Manifests::of(folder) else {
            return;
        };
        check(&schemas, folder, &manifests);
    }
}

#[test]
fn each_overlay_with_each_component_is_as_the_schemas_say() {
    let Some(schemas) = Schemas::read() else {
        return;
    };
    let components = components();
    assert!(10 < components.len(), "{components:?}");
    for overlay in OVERLAYS {
        let Some(plain) = Manifests::of(&format!("overlays/{overlay}")) else {
            return;
        };
        for component in &components {
            if is_part_of(overlay, component) {
                continue;
            }
            let manifests = Manifests::with(overlay, component).unwrap();
            check(&schemas, &format!("{overlay} with {component}"), &manifests);
            assert_ne!(manifests.0, plain.0, "{component} changes nothing");
        }
    }
}

#[test]
fn everything_moves_into_another_namespace() {
    for overlay in OVERLAYS {
        let Some(manifests) = Manifests::changed(overlay, &json!({"namespace": "elsewhere"})) else {
            return;
        };
        let text = serde_json::to_string(&manifests.0).unwrap();
        assert!(!text.contains(&format!("\"namespace\":\"{NAMESPACE}\"")), "{text}");
        assert_eq!(manifests.the("Namespace")["metadata"]["name"], "elsewhere");
    }
}

#[test]
fn the_check_finds_a_field_that_is_unknown_missing_of_another_type_or_out_of_its_values() {
    let (Some(schemas), Some(manifests)) = (Schemas::read(), Manifests::of("overlays/sqlite")) else {
        return;
    };
    let container = "/spec/template/spec/containers/0";
    for (at, field, value, expected) in [
        ("", "spce", json!({}), "there is no such field"),
        ("/metadata", "lables", json!({}), "there is no such field"),
        (container, "resuorces", json!({}), "there is no such field"),
        (
            &format!("{container}/lifecycle/preStop"),
            "nap",
            json!({"seconds": 5}),
            "there is no such field",
        ),
        (
            &format!("{container}/resources/limits"),
            "cpu",
            json!([1]),
            "of another type",
        ),
        (
            &format!("{container}/ports/0"),
            "containerPort",
            json!("8080"),
            "is no integer",
        ),
        (container, "name", Value::Null, "it is missing"),
        ("/spec", "selector", Value::Null, "it is missing"),
        (container, "imagePullPolicy", json!("Sometimes"), "is none of"),
        ("/metadata", "labels", json!({"app": true}), "is no string"),
    ] {
        let mut object = manifests.the("Deployment").clone();
        let changed = object.pointer_mut(at).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            changed.remove(field);
        } else {
            changed.insert(field.to_owned(), value);
        }
        let wrong = schemas.check(&object).unwrap();
        assert!(
            wrong.len() == 1 && wrong[0].contains(field) && wrong[0].contains(expected),
            "{at}/{field}: {wrong:?}"
        );
    }
}
