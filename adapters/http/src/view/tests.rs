use knm_model::AuditAction;
use poem_openapi::types::ToJSON;

use super::audit::AuditActionView;
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
fn every_action_has_its_word() {
    for action in AuditAction::ALL {
        let view = AuditActionView::from(action);
        assert_eq!(view.to_json(), Some(action.as_str().into()));
        assert_eq!(serde_json::to_value(view).unwrap(), action.as_str());
    }
}
