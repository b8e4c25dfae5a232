//! Conversions without a server.

use knm_model::{Node, NodeName, NodeStatus, Pod, PodPhase, TaintEffect, Timestamp, UnhealthyPods};
use serde_json::{Value, json};
use std::time::Duration;

use crate::convert::{self, PolicyVersion};
use crate::wire::{Meta, WireBudget, WireNode, WirePod};

fn node(value: Value) -> Node {
    convert::node(serde_json::from_value::<WireNode>(value).expect("a node")).expect("its name")
}

fn pod(spec: Value) -> Pod {
    let value = json!({"metadata": {"name": "web-1", "namespace": "team"}, "spec": spec});
    let wire: WirePod = serde_json::from_value(value).expect("a pod");
    convert::pod(wire, &NodeName::parse("a").expect("a name"))
}

fn cpu_and_memory(spec: Value) -> (u64, u64) {
    let requests = pod(spec).requests;
    (requests.cpu_millicores, requests.memory_bytes)
}

fn container(cpu: &str, memory: &str) -> Value {
    json!({"resources": {"requests": {"cpu": cpu, "memory": memory}}})
}

fn sidecar(cpu: &str, memory: &str) -> Value {
    let mut sidecar = container(cpu, memory);
    sidecar["restartPolicy"] = json!("Always");
    sidecar
}

#[test]
fn a_node_is_read_with_all_that_is_shown() {
    let read = node(json!({
        "metadata": {"name": "a", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2030-01-01T00:00:00Z",
            "labels": {"topology.kubernetes.io/zone": "z1", "failure-domain.beta.kubernetes.io/zone": "old"}},
        "spec": {"providerID": "cloud://a", "podCIDRs": ["10.0.0.0/24", "fd00::/64"], "unschedulable": true,
            "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule", "timeAdded": "2030-01-02T00:00:00Z"}]},
        "status": {
            "capacity": {"cpu": "3920m", "memory": "16Gi", "ephemeral-storage": "100Gi", "pods": "110", "nvidia.com/gpu": "8"},
            "conditions": [{"type": "Ready", "status": "False", "reason": "KubeletNotReady", "lastTransitionTime": "2030-01-03T00:00:00Z"}],
            "addresses": [{"type": "InternalIP", "address": "10.1.2.3"}],
            "nodeInfo": {"kubeletVersion": "v1.33.1", "osImage": "Debian", "operatingSystem": "linux", "kernelVersion": "6.12",
                "containerRuntimeVersion": "containerd://2.1.0", "architecture": "arm64", "machineID": "m"}}}));

    assert_eq!(
        (read.name.as_str(), read.uid.as_str(), read.resource_version.as_str()),
        ("a", "u", "7")
    );
    assert_eq!(read.created_at, time("2030-01-01T00:00:00Z"));
    assert_eq!(read.zone.as_deref(), Some("z1"));
    assert_eq!((read.schedulable, read.status), (false, NodeStatus::NotReady));
    let tainted_at = Some(time("2030-01-02T00:00:00Z"));
    assert_eq!(
        (read.taints[0].effect, read.taints[0].added_at),
        (TaintEffect::NoSchedule, tainted_at)
    );
    assert_eq!(read.cordon.expect("it is cordoned").since, tainted_at);
    assert_eq!(read.capacity.cpu_millicores, 3920);
    assert_eq!(read.capacity.memory_bytes, 16 << 30);
    assert_eq!((read.capacity.pods, read.capacity.extended["nvidia.com/gpu"]), (110, 8));
    assert_eq!(
        read.conditions[0].last_transition_at,
        Some(time("2030-01-03T00:00:00Z"))
    );
    assert_eq!(read.addresses[0].address, "10.1.2.3");
    assert_eq!(
        (read.system.kubelet_version.as_str(), read.system.architecture.as_str()),
        ("v1.33.1", "arm64")
    );
    assert_eq!(read.provider_id.as_deref(), Some("cloud://a"));
    assert_eq!(read.pod_cidrs, ["10.0.0.0/24", "fd00::/64"]);
}

#[test]
fn older_labels_count_where_the_newer_ones_are_missing() {
    let read = node(json!({"metadata": {"name": "a", "labels": {
        "failure-domain.beta.kubernetes.io/zone": "z", "failure-domain.beta.kubernetes.io/region": "r",
        "beta.kubernetes.io/instance-type": "t"}}, "spec": {"podCIDR": "10.0.0.0/24"}}));
    assert_eq!((read.zone.as_deref(), read.region.as_deref()), (Some("z"), Some("r")));
    assert_eq!(read.instance_type.as_deref(), Some("t"));
    assert_eq!(read.pod_cidrs, ["10.0.0.0/24"]);
}

#[test]
fn a_bare_node_is_schedulable_and_unknown() {
    let read = node(json!({"metadata": {"name": "a"}}));
    assert_eq!(
        (read.schedulable, read.cordon, read.status),
        (true, None, NodeStatus::Unknown)
    );
}

#[test]
fn an_amount_that_cannot_be_read_is_0() {
    let read = node(json!({"metadata": {"name": "a"}, "status": {"capacity": {"cpu": "many", "pods": "7"}}}));
    assert_eq!((read.capacity.cpu_millicores, read.capacity.pods), (0, 7));
}

#[test]
fn foreign_annotations_are_dropped_while_they_are_read() {
    let meta: Meta = serde_json::from_value(
        json!({"name": "a", "managedFields": [{"manager": "kubectl"}], "annotations": {
        "deeproute.cn/kube-node-mgr": "disk", "kubectl.kubernetes.io/last-applied-configuration": "long",
        "kube-node-manager.io/holds": "[]"}}),
    )
    .expect("metadata");
    let kept: Vec<String> = meta.annotations.expect("some").0.into_keys().collect();
    assert_eq!(kept, ["deeproute.cn/kube-node-mgr", "kube-node-manager.io/holds"]);
}

#[test]
fn containers_add_up_and_the_largest_init_container_counts_if_it_is_larger() {
    let spec = json!({
        "initContainers": [container("100m", "1Gi"), container("200m", "512Mi")],
        "containers": [container("150m", "128Mi"), container("250m", "128Mi"), {}]});
    assert_eq!(cpu_and_memory(spec), (400, 1 << 30));
}

#[test]
fn sidecars_run_beside_what_starts_after_them() {
    let spec = json!({
        "initContainers": [container("900m", "1Mi"), sidecar("100m", "10Mi"), container("950m", "1Mi")],
        "containers": [container("200m", "100Mi")]});
    assert_eq!(cpu_and_memory(spec), (1050, 110 << 20));
}

#[test]
fn overhead_is_added_and_requests_of_the_whole_pod_replace_the_sum() {
    let spec = json!({
        "containers": [container("200m", "100Mi")], "resources": {"requests": {"cpu": "1"}},
        "overhead": {"cpu": "50m", "memory": "20Mi"}});
    assert_eq!(cpu_and_memory(spec), (1050, 120 << 20));
}

#[test]
fn the_owner_that_controls_a_pod_is_its_controller() {
    let value = json!({
        "metadata": {"name": "web-1", "namespace": "team", "deletionTimestamp": "2030-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30, "ownerReferences": [
            {"kind": "Node", "name": "a"}, {"kind": "ReplicaSet", "name": "web", "controller": true}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let wire: WirePod = serde_json::from_value(value).expect("a pod");
    let read = convert::pod(wire, &NodeName::parse("a").expect("a name"));
    assert_eq!(read.controller.as_ref().expect("one").name, "web");
    assert_eq!((read.phase, read.ready), (PodPhase::Running, true));
    assert_eq!(read.deletion_at, Some(time("2030-01-01T00:00:30Z")));
    assert_eq!(read.deletion_grace, Some(Duration::from_secs(30)));
    assert_eq!(read.deletion_asked_at(), Some(time("2030-01-01T00:00:00Z")));
}

#[test]
fn an_owner_that_does_not_control_a_pod_is_not_its_controller() {
    let value = json!({"metadata": {"name": "web-1", "namespace": "team", "ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web"},
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "controller": false}]}});
    let wire: WirePod = serde_json::from_value(value).expect("a pod");
    assert_eq!(
        convert::pod(wire, &NodeName::parse("a").expect("a name")).controller,
        None
    );
}

#[test]
fn an_empty_dir_of_any_medium_is_one() {
    for (volume, expected) in [
        (json!({"emptyDir": {}}), true),
        (json!({"emptyDir": {"medium": "Memory"}}), true),
        (json!({"emptyDir": null}), false),
        (json!({"hostPath": {"path": "/"}}), false),
    ] {
        let read = pod(json!({"volumes": [{"name": "config", "configMap": {"name": "web"}}, volume]}));
        assert_eq!(read.has_empty_dir, expected, "{volume}");
    }
}

#[test]
fn what_is_not_known_of_affinity_and_tolerations_meets_nothing() {
    let terms = |terms: Value| {
        let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        pod(json!({"affinity": {"nodeAffinity": required}})).node_terms
    };
    for operator in [
        json!({"key": "a", "operator": "Near", "values": ["1"]}),
        json!({"key": "a", "operator": "Gt", "values": ["many"]}),
        json!({"key": "a", "operator": "Gt", "values": ["1", "2"]}),
    ] {
        assert_eq!(terms(json!([{"matchExpressions": [operator]}])), Some(vec![]));
    }
    assert_eq!(
        terms(json!([{"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}]))
            .expect("one")
            .len(),
        1
    );
    assert_eq!(pod(json!({"affinity": {"podAffinity": {}}})).node_terms, None);
    let tolerations =
        json!([{"key": "a", "operator": "Near"}, {"key": "a", "effect": "Soon"}, {"key": "a", "value": "b"}]);
    assert_eq!(pod(json!({"tolerations": tolerations})).tolerations.len(), 1);
}

#[test]
fn a_budget_tells_what_becomes_of_pods_that_are_not_ready() {
    for (policy, expected) in [
        (Value::Null, UnhealthyPods::IfHealthyBudget),
        (json!("IfHealthyBudget"), UnhealthyPods::IfHealthyBudget),
        (json!("AlwaysAllow"), UnhealthyPods::AlwaysAllow),
    ] {
        let spec = json!({"unhealthyPodEvictionPolicy": policy});
        let value = json!({"metadata": {"name": "b", "namespace": "team"}, "spec": spec});
        let wire: WireBudget = serde_json::from_value(value).expect("a budget");
        assert_eq!(convert::budget(wire, PolicyVersion::V1).unhealthy_pods, expected);
    }
}

#[test]
fn what_an_empty_selector_means_depends_on_the_version() {
    for (selector, version, matches) in [
        (json!({}), PolicyVersion::V1, true),
        (json!({}), PolicyVersion::V1Beta1, false),
        (Value::Null, PolicyVersion::V1, false),
        (json!({"matchLabels": {}}), PolicyVersion::V1, true),
        (
            json!({"matchExpressions": [{"key": "a", "operator": "Near"}]}),
            PolicyVersion::V1,
            false,
        ),
        (
            json!({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}),
            PolicyVersion::V1Beta1,
            true,
        ),
    ] {
        let value = json!({"metadata": {"name": "b", "namespace": "team"}, "spec": {"selector": selector}});
        let wire: WireBudget = serde_json::from_value(value).expect("a budget");
        let budget = convert::budget(wire, version);
        assert_eq!(budget.matches(&pod(json!({}))), matches, "{selector} {version:?}");
    }
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("a time")
}
