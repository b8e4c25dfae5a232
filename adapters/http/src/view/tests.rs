use knm_domain::{Comparison, DriftedNode, StaleCluster, Versioned};
use knm_model::{AuditAction, ClusterName, DefinitionName, Drift, NodeName, RawTemplate, Timestamp};
use poem_openapi::types::ToJSON;

use super::audit::AuditActionView;
use super::{ComparisonView, TemplateView, VersionListView};
use crate::example;

#[test]
fn what_is_written_is_what_is_described() {
    let node = example::node_view().unwrap();
    assert_eq!(node.to_json(), serde_json::to_value(&node).ok());
    let pods = example::pod_list_view().unwrap();
    assert_eq!(pods.to_json(), serde_json::to_value(&pods).ok());
    let plan = example::drain_plan_view().unwrap();
    assert_eq!(plan.to_json(), serde_json::to_value(&plan).ok());
    let records = example::audit_list_view().unwrap();
    assert_eq!(records.to_json(), serde_json::to_value(&records).ok());
    let operation = example::operation_view().unwrap();
    assert_eq!(operation.to_json(), serde_json::to_value(&operation).ok());
    let operations = example::operation_list_view().unwrap();
    assert_eq!(operations.to_json(), serde_json::to_value(&operations).ok());
}

#[test]
fn what_is_written_of_templates_is_what_is_described() {
    let name = DefinitionName::parse("gpu").unwrap();
    let template: RawTemplate = serde_json::from_value(example::of_body("updateTemplate").unwrap()).unwrap();
    let changed_at = Timestamp::parse("2030-01-01T00:00:00Z").unwrap();
    let changed_by = || "anonymous".to_owned();
    let view = TemplateView::of(&Versioned {
        name: name.clone(),
        version: 1,
        changed_at,
        changed_by: changed_by(),
        content: template.clone(),
    });
    assert_eq!(view.to_json(), serde_json::to_value(&view).ok());
    // The examples of the document are what the code writes.
    assert_eq!(view.to_json(), example::of("getTemplate", "200"));
    let versions = VersionListView::of(&[Versioned {
        name: name.clone(),
        version: 1,
        changed_at,
        changed_by: changed_by(),
        content: Some(template),
    }]);
    assert_eq!(versions.to_json(), serde_json::to_value(&versions).ok());
    assert_eq!(versions.to_json(), example::of("listTemplateVersions", "200"));
    let node = NodeName::parse("worker-a-1").unwrap();
    let comparison = ComparisonView::of(&Comparison {
        template: name,
        version: 1,
        compared: 30,
        drifted: vec![DriftedNode {
            cluster: ClusterName::from_any("demo"),
            node,
            drift: Drift {
                before: example::of("getBindingDrift", "200").unwrap()["nodes"][0]["before"]
                    .as_object()
                    .unwrap()
                    .clone(),
                after: example::of("getBindingDrift", "200").unwrap()["nodes"][0]["after"]
                    .as_object()
                    .unwrap()
                    .clone(),
                evicts: false,
            },
        }],
        unknown: Vec::new(),
        stale: vec![StaleCluster {
            cluster: ClusterName::from_any("west"),
            as_of: Timestamp::parse("2030-01-01T00:00:00Z").unwrap(),
        }],
    });
    assert_eq!(comparison.to_json(), example::of("getBindingDrift", "200"));
}

#[test]
fn every_action_has_its_word() {
    for action in AuditAction::ALL {
        let view = AuditActionView::from(action);
        assert_eq!(view.to_json(), Some(action.as_str().into()));
        assert_eq!(serde_json::to_value(view).unwrap(), action.as_str());
    }
}
