use poem_openapi::types::ToJSON;

use crate::example;

#[test]
fn what_is_written_is_what_is_described() {
    let node = example::node_view().unwrap();
    assert_eq!(node.to_json(), serde_json::to_value(&node).ok());
    let pods = example::pod_list_view().unwrap();
    assert_eq!(pods.to_json(), serde_json::to_value(&pods).ok());
    let plan = example::drain_plan_view().unwrap();
    assert_eq!(plan.to_json(), serde_json::to_value(&plan).ok());
}
