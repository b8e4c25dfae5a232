//! Examples of answers for the document, made by the code that makes the answers.

mod registration;

use std::collections::{BTreeMap, BTreeSet};

use knm_domain::{AuditPage, DrainPreview, NodePods, OperationPage, OperationShown, PodOnNode};
use knm_model::{
    Actor, AuditAction, AuditCompletion, AuditOutcome, AuditRecord, Authority, ClusterName, Condition, Controller,
    DisruptionBudget, DrainOptions, DrainPhase, DrainPlan, DrainProgress, Farewell, Fit, Node, NodeAddress, NodeName,
    NodeStatus, NodeSystem, Operation, OperationKind, OperationProgress, OperationState, OperationTarget, Pod,
    PodPhase, PodRequests, Resources, Selector, Sight, Strategy, Taint, TaintEffect, TargetDetail, TargetState,
    Timestamp, UnhealthyPods,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::view::{
    AuditListView, AuditRecordView, DrainPlanView, NodeView, OperationListView, OperationView, PodListView,
};

/// The id of the record in all examples.
const AUDIT_ID: &str = "01b8dac5-b400-7000-8000-00000000000a";

/// The id of the operation in all examples.
const OPERATION_ID: &str = "01b8dac5-b400-7000-8000-00000000000b";

/// The time of all examples: 2030-01-01T00:00:00Z.
fn time() -> Option<Timestamp> {
    Timestamp::from_unix_millis(1_893_456_000_000)
}

/// A node.
pub(crate) fn node_view() -> Option<NodeView> {
    let requested = Resources {
        cpu_millicores: 3_100,
        memory_bytes: 9_663_676_416,
        pods: 17,
        ..Resources::default()
    };
    Some(NodeView::of(
        &ClusterName::from_any("demo"),
        &node(time()?)?,
        Some(&requested),
    ))
}

/// The pods on that node.
pub(crate) fn pod_list_view() -> Option<PodListView> {
    let time = time()?;
    Some(PodListView::of(&NodePods {
        pods: vec![pod(&node(time)?, time)],
        as_of: time,
    }))
}

/// The plan of a drain of that node: one pod goes, another one has to wait for it.
pub(crate) fn drain_plan_view() -> Option<DrainPlanView> {
    let time = time()?;
    let node = node(time)?;
    let mut second = pod(&node, time).pod;
    "web-5c9f-z7k4".clone_into(&mut second.name);
    "5b1d2c0e-3f60-4a2b-8f1d-7c9e0a6b4d21".clone_into(&mut second.uid);
    let budget = web_budget();
    let options = DrainOptions::default();
    let pods = vec![pod(&node, time).pod, second];
    let plan = DrainPlan::new(pods, &[budget], &BTreeSet::new(), &options, time);
    let other = Node {
        name: NodeName::parse("worker-b-1").ok()?,
        taints: Vec::new(),
        ..node.clone()
    };
    let fit = Fit::estimate(&plan, &node.name, [&other].into_iter(), &BTreeMap::new());
    Some(DrainPlanView::of(&DrainPreview {
        cluster: ClusterName::from_any("demo"),
        warnings: plan.warnings(&node, &options),
        node,
        plan,
        fit,
        as_of: time,
    }))
}

/// A drain under way: one pod is on its way out, another one waits for a budget.
pub(crate) fn operation_view() -> Option<OperationView> {
    Some(OperationView::of(&operation(time()?)?))
}

/// A page of operations.
pub(crate) fn operation_list_view() -> Option<OperationListView> {
    let shown = operation(time()?)?;
    Some(OperationListView::of(&OperationPage {
        next: Some(shown.operation.id),
        operations: vec![(shown.operation, Some(60))],
    }))
}

fn operation(time: Timestamp) -> Option<OperationShown> {
    let node = node(time)?;
    let mut second = pod(&node, time).pod;
    "web-5c9f-z7k4".clone_into(&mut second.name);
    "5b1d2c0e-3f60-4a2b-8f1d-7c9e0a6b4d21".clone_into(&mut second.uid);
    let first = pod(&node, time).pod;
    let uid = first.uid.clone();
    let full = DisruptionBudget {
        disruptions_allowed: 0,
        ..web_budget()
    };
    let plan = DrainPlan::new(
        vec![first, second],
        &[full],
        &BTreeSet::new(),
        &DrainOptions::default(),
        time,
    );
    let mut drain = DrainProgress {
        phase: DrainPhase::Removing,
        ..DrainProgress::default()
    };
    drain.look(&plan, Sight::Certain, time);
    drain.answered(&uid, Farewell::Accepted, time);
    let detail = TargetDetail::of(&drain).ok()?;
    let target = OperationTarget {
        place: 0,
        cluster: ClusterName::from_any("demo"),
        node: node.name,
        zone: node.zone,
        state: TargetState::Running,
        message: Some("pods: 1 blocked, 1 terminating".to_owned()),
        started_at: Some(time),
        ended_at: None,
        audit: Uuid::try_parse(AUDIT_ID).ok(),
        hold: Uuid::try_parse("01b8dac5-b400-7000-8000-00000000000c").ok(),
        detail,
    };
    let operation = Operation {
        id: Uuid::try_parse(OPERATION_ID).ok()?,
        kind: OperationKind::Drain,
        actor: Actor::anonymous(Some("192.0.2.7".to_owned())),
        authority: Authority::Open,
        request_id: Some("0192f0c1a2b3c4d5e6f70123".to_owned()),
        reason: Some("kernel update".to_owned()),
        ticket: None,
        options: Map::from_iter([("ignore_daemonsets".to_owned(), true.into())]),
        strategy: Strategy::of(OperationKind::Drain),
        dry_run: false,
        retry_of: None,
        idempotency: None,
        created_at: time,
        started_at: Some(time),
        ended_at: None,
        state: OperationState::Running,
        message: None,
        progress: OperationProgress::of([&target]),
        excused: 0,
    };
    Some(OperationShown {
        operation,
        targets: vec![target],
        eta_seconds: None,
    })
}

fn web_budget() -> DisruptionBudget {
    DisruptionBudget {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        selector: Some(Selector::default()),
        disruptions_allowed: 1,
        current_healthy: 3,
        desired_healthy: 2,
        expected_pods: 3,
        unhealthy_pods: UnhealthyPods::IfHealthyBudget,
    }
}

/// A page of the audit log.
pub(crate) fn audit_list_view() -> Option<AuditListView> {
    let record = audit_record(time()?)?;
    Some(AuditListView::of(&AuditPage {
        next: Some(record.id),
        records: vec![record],
    }))
}

/// An example of a line of what the operation answers with.
pub(crate) fn of_line(operation: &str) -> Option<Value> {
    match operation {
        "listAuditRecords" | "getNodeHistory" => audit_record_view(),
        _ => None,
    }
}

fn audit_record_view() -> Option<Value> {
    serde_json::to_value(AuditRecordView::of(&audit_record(time()?)?)).ok()
}

/// An example of what the operation answers with and this status.
pub(crate) fn of(operation: &str, status: &str) -> Option<Value> {
    let time = time()?;
    let listed = || serde_json::to_value(node_view()?).ok();
    let second = time.to_whole_seconds();
    Some(match (operation, status) {
        ("listTokens", "200") => json!({"items": [token(time)], "next_cursor": null, "total": 1}),
        ("createToken", "201") => json!({"secret": "knm_5f0c9a1be2d34876_…", "token": token(time)}),
        ("getNode", "200") => {
            let mut node = listed()?;
            node["stale"] = json!(false);
            node["as_of"] = Value::Null;
            node
        }
        ("listNodes", "200") => {
            json!({"items": [listed()?], "next_cursor": null, "total": 1, "as_of": time, "stale": false})
        }
        ("listAllNodes", "200") => json!({
            "items": [listed()?], "next_cursor": null, "total": 1,
            "clusters": [
                {"name": "demo", "state": "healthy", "as_of": time, "stale": false, "error": null},
                {"name": "edge", "state": "degraded", "as_of": null, "stale": true, "error": "the cluster cannot be reached"},
            ],
        }),
        ("changeLabels", "200") => changed(
            &json!({"labels": {"team": null}}),
            &json!({"labels": {"team": "storage"}}),
        )?,
        ("changeTaints", "200") => changed(
            &json!({"taints": []}),
            &json!({"taints": ["dedicated=storage:NoSchedule"]}),
        )?,
        ("cordonNode", "200") => changed(&json!({"schedulable": true}), &json!({"schedulable": false}))?,
        ("uncordonNode", "200") => changed(&json!({"schedulable": false}), &json!({"schedulable": true}))?,
        ("listAuditRecords" | "getNodeHistory", "200") => serde_json::to_value(audit_list_view()?).ok()?,
        ("getAuditRecord", "200") => audit_record_view()?,
        ("listPodsOnNode", "200") => serde_json::to_value(pod_list_view()?).ok()?,
        ("drainNode" | "createClusterOperation" | "createOperation" | "retryOperation", "202")
        | ("getOperation" | "cancelOperation" | "pauseOperation" | "resumeOperation", "200") => {
            serde_json::to_value(operation_view()?).ok()?
        }
        ("createTemplate", "201") | ("getTemplate" | "updateTemplate", "200") => template(),
        ("listTemplates", "200") => json!({"items": [template()], "next_cursor": null, "total": 1}),
        ("createBinding", "201") | ("getBinding" | "updateBinding", "200") => binding(),
        ("listBindings", "200") => json!({"items": [binding()], "next_cursor": null, "total": 1}),
        ("listTemplateVersions" | "listBindingVersions", "200") => versions(operation)?,
        ("previewTemplate" | "getBindingDrift", "200") => json!({
            "template": "gpu", "version": 1, "compared": 30, "drifted": 1, "unknown_clusters": [],
            "stale_clusters": [{"cluster": "west", "as_of": "2030-01-01T00:00:00Z"}],
            "nodes": [{
                "cluster": "demo", "node": "worker-a-1", "evicts": false,
                "before": {"labels": {"pool": null}, "taints": []},
                "after": {"labels": {"pool": "gpu"}, "taints": ["example.com/gpu=yes:NoSchedule"]},
            }],
        }),
        ("listOperations", "200") => serde_json::to_value(operation_list_view()?).ok()?,
        ("watchOperation", "200") => json!(
            "id: 7\nevent: pod\ndata: {\"at\":\"2030-01-01T00:00:00Z\",\"cluster\":\"demo\",\"node\":\"worker-a-1\",\"namespace\":\"shop\",\"pod\":\"web-5c9f-x2x1\",\"state\":\"terminating\"}\n\n"
        ),
        ("planDrain", "200") => serde_json::to_value(drain_plan_view()?).ok()?,
        ("getCluster", "200") => registration::configured(time),
        ("registerCluster", "201") | ("replaceCluster", "200") => registration::registered(),
        ("registerCluster" | "testCluster", "200") => registration::test(),
        ("getClusterSummary", "200") => summary(time),
        ("listClusters", "200") => {
            json!({"items": [registration::listed(time)], "next_cursor": null, "total": 1})
        }
        ("getHealth", "200") => json!({
            "status": "healthy", "service": "kube-node-manager", "version": "2.0.0", "timestamp": second, "uptime": "2h30m15s",
        }),
        ("getLiveness", "200") => json!({"status": "alive", "timestamp": second}),
        ("getReadiness", "200") => {
            json!({"status": "ready", "timestamp": second, "details": {"database": database("healthy", 3)}})
        }
        ("getReadiness", "503") => {
            json!({"status": "not ready", "timestamp": second, "details": {"database": database("unhealthy", 0)}})
        }
        ("getDetailedHealth", "200") => detailed(time, "healthy", &database("healthy", 3)),
        ("getDetailedHealth", "503") => detailed(time, "degraded", &database("unhealthy", 0)),
        ("getLivez" | "getReadyz" | "getLivezCheck" | "getReadyzCheck", "200") => json!("ok"),
        ("getLivez", "503") => json!("[-]ping failed\nlivez check failed\n"),
        ("getLivezCheck", "503") => json!("[-]ping failed\n"),
        ("getReadyz", "503") => {
            json!("[-]database failed\n[+]migrations ok\n[+]shutdown ok\nreadyz check failed\n")
        }
        ("getReadyzCheck", "503") => json!("[-]database failed\n"),
        ("getMetrics", "200") => json!(
            "# HELP kube_node_manager_up Whether the service is ready: 1 if it is, else 0.\n# TYPE kube_node_manager_up gauge\nkube_node_manager_up 1\n"
        ),
        ("getDocs", "200") => json!("<!DOCTYPE html>…"),
        ("getDocumentAsJson" | "getDocumentAsYaml", "200") => {
            json!({"openapi": "3.0.0", "info": {"title": "kube-node-manager"}})
        }
        ("watchNodes", "200") => json!(
            "event: snapshot\ndata: {\"cluster\":\"demo\",\"resumed\":false,\"reason\":null,\"total\":30,\"as_of\":\"2030-01-01T00:00:00Z\",\"stale\":false}\n\n"
        ),
        _ => return None,
    })
}

fn template() -> Value {
    json!({
        "name": "gpu", "version": 1, "changed_at": "2030-01-01T00:00:00Z", "changed_by": "anonymous", "warnings": [],
        "description": "nodes with a GPU", "labels": {"pool": "gpu"},
        "taints": [{"key": "example.com/gpu", "value": "yes", "effect": "NoSchedule"}],
    })
}

fn binding() -> Value {
    json!({
        "name": "gpu-nodes", "version": 1, "changed_at": "2030-01-01T00:00:00Z", "changed_by": "anonymous",
        "template": "gpu", "cluster": "demo", "label_selector": "nvidia.com/gpu.present=true", "reconcile": true,
        "confirm_no_execute": false,
    })
}

/// The first version of what the operation lists the versions of.
fn versions(operation: &str) -> Option<Value> {
    let of = if operation == "listTemplateVersions" {
        "updateTemplate"
    } else {
        "updateBinding"
    };
    let version = json!({
        "version": 1, "changed_at": "2030-01-01T00:00:00Z", "changed_by": "anonymous", "content": of_body(of)?,
    });
    Some(json!({"items": [version], "next_cursor": null, "total": 1}))
}

fn token(time: Timestamp) -> Value {
    json!({
        "id": "5f0c9a1be2d34876", "name": "ci", "role": "operator", "force": false, "clusters": ["demo"], "nodes": null,
        "state": "valid", "created_at": time, "created_by": "ann", "expires_at": "2030-01-31T00:00:00Z", "last_used_at": null,
        "revoked_at": null, "revoked_by": null,
    })
}

/// The node after a change.
fn changed(before: &Value, after: &Value) -> Option<Value> {
    let mut node = serde_json::to_value(node_view()?).ok()?;
    node["change"] = json!({"dry_run": false, "before": before, "after": after, "warnings": []});
    Some(node)
}

/// An example of the body of a request.
pub(crate) fn of_body(operation: &str) -> Option<Value> {
    Some(match operation {
        "changeLabels" => json!({"set": {"team": "storage"}, "remove": ["owner"]}),
        "changeTaints" => json!({
            "add": [{"key": "dedicated", "value": "storage", "effect": "NoSchedule"}],
            "remove": [{"key": "old"}],
        }),
        "cordonNode" => json!({"reason": "disk errors", "ticket": "OPS-1"}),
        "uncordonNode" => json!({"reason": "disk replaced"}),
        "drainNode" => json!({
            "ignore_daemonsets": true, "delete_emptydir_data": true, "timeout_seconds": 600, "reason": "kernel update",
        }),
        "createClusterOperation" => json!({
            "kind": "drain", "targets": {"label_selector": "pool=web"}, "reason": "kernel update",
            "options": {"ignore_daemonsets": true, "delete_emptydir_data": true},
            "strategy": {"max_unavailable": "10%", "max_concurrent": 3, "uncordon_after": "on_ready"},
        }),
        "createOperation" => json!({
            "kind": "label", "options": {"set": {"team": "storage"}},
            "targets": [{"cluster": "demo", "nodes": ["worker-a-1"]}, {"cluster": "edge", "label_selector": "pool=web"}],
        }),
        "registerCluster" => named("east", registration::credentials()),
        "replaceCluster" => registration::credentials(),
        "createTemplate" => named("gpu", of_body("updateTemplate")?),
        "updateTemplate" => json!({
            "description": "nodes with a GPU", "labels": {"pool": "gpu"},
            "taints": [{"key": "example.com/gpu", "value": "yes", "effect": "NoSchedule"}],
        }),
        "previewTemplate" => json!({"cluster": "demo", "label_selector": "nvidia.com/gpu.present=true"}),
        "createBinding" => named("gpu-nodes", of_body("updateBinding")?),
        "updateBinding" => json!({
            "template": "gpu", "cluster": "demo", "label_selector": "nvidia.com/gpu.present=true", "reconcile": true,
        }),
        "createToken" => json!({"name": "ci", "role": "operator", "clusters": ["demo"], "expires_in_days": 30}),
        "planDrain" => json!({"ignore_daemonsets": true, "delete_emptydir_data": true, "timeout_seconds": 600}),
        _ => return None,
    })
}

fn named(name: &str, mut body: Value) -> Value {
    body["name"] = name.into();
    body
}

/// An example of the value of a parameter.
pub(crate) fn of_parameter(operation: &str, name: &str) -> Option<Value> {
    Some(match name {
        "If-Match" if matches!(operation, "replaceCluster" | "removeCluster") => json!(format!("\"{OPERATION_ID}\"")),
        "cancel_operations" => json!("true"),
        "cluster" => json!("demo"),
        "template" => json!("gpu"),
        "binding" => json!("gpu-nodes"),
        "version" => json!(1),
        "If-Match" if operation.ends_with("Template") || operation.ends_with("Binding") => json!("\"1\""),
        "node" => json!("worker-a-1"),
        "check" if operation == "getReadyzCheck" => json!("database"),
        "check" => json!("ping"),
        "verbose" => json!(""),
        "exclude" => json!(["database"]),
        "label_selector" => json!("topology.kubernetes.io/zone in (a,b),!node-role.kubernetes.io/control-plane"),
        "status" => json!("not_ready,unknown"),
        "schedulable" => json!("false"),
        "role" => json!("worker"),
        "zone" => json!("zone-a"),
        "taint" => json!("node-role.kubernetes.io/control-plane:NoSchedule"),
        "search" => json!("worker-a"),
        "sort" => json!("-memory"),
        "limit" => json!(100),
        "cursor" if has_ids_as_cursors(operation) => json!(AUDIT_ID),
        "id" if operation == "getAuditRecord" => json!(AUDIT_ID),
        "id" => json!(OPERATION_ID),
        "kind" => json!("drain"),
        "state" => json!("running,paused"),
        "last_event_id" | "Last-Event-ID" if operation == "watchOperation" => json!("42"),
        "actor" => json!("anonymous"),
        "action" => json!("node.cordon"),
        "outcome" => json!("failed"),
        "from" => json!("2030-01-01T00:00:00Z"),
        "until" => json!("2030-02-01T00:00:00Z"),
        "reason" => json!("disk"),
        "operation" => json!(OPERATION_ID),
        "cursor" => json!("eyJhZnRlciI6IndvcmtlciJ9"),
        "fields" => json!("name,status,zone"),
        "last_event_id" | "Last-Event-ID" => json!("18f2a-42"),
        "Idempotency-Key" => json!("rollout-42/worker-a-1"),
        "If-Match" => json!("\"0b4a-1722\""),
        "dry_run" => json!("true"),
        "If-None-Match" => json!("W/\"18f2a-42\""),
        _ => return None,
    })
}

/// Whether the operation lists what has ids that sort by time.
pub(crate) fn has_ids_as_cursors(operation: &str) -> bool {
    matches!(operation, "listAuditRecords" | "getNodeHistory" | "listOperations")
}

fn audit_record(time: Timestamp) -> Option<AuditRecord> {
    let object = |key: &str, value: bool| Map::from_iter([(key.to_owned(), Value::from(value))]);
    Some(AuditRecord {
        id: Uuid::try_parse(AUDIT_ID).ok()?,
        at: time,
        actor: Actor::anonymous(Some("192.0.2.7".to_owned())),
        action: AuditAction::NodeCordon,
        cluster: ClusterName::from_any("demo"),
        node: Some(NodeName::parse("worker-a-1").ok()?),
        operation: None,
        request_id: Some("0192f0c1a2b3c4d5e6f70123".to_owned()),
        reason: Some("disk is failing".to_owned()),
        ticket: Some("OPS-4711".to_owned()),
        options: Map::new(),
        completion: Some(AuditCompletion {
            outcome: AuditOutcome::Succeeded,
            at: time,
            error: None,
            before: object("unschedulable", false),
            after: object("unschedulable", true),
        }),
    })
}

fn database(status: &str, open: u32) -> Value {
    json!({
        "status": status,
        "data": {
            "max_open_connections": 25, "open_connections": open, "in_use": open.min(1), "idle": open.saturating_sub(1),
            "leaked_total": 0,
        },
    })
}

fn detailed(time: Timestamp, status: &str, database: &Value) -> Value {
    json!({
        "status": status, "service": "kube-node-manager", "version": "2.0.0", "timestamp": time.to_whole_seconds(),
        "uptime": "2h30m15s",
        "details": {
            "database": database,
            "system": {"status": "healthy", "data": {"memory": {"alloc_mb": 45, "sys_mb": 78}, "goroutines": 25}},
            "runtime": {"go_version": null, "rust_version": "1.95.0", "hostname": "pod-abc123"},
            "clusters": {"demo": {"status": "healthy", "data": {"nodes": 30, "stale": false, "as_of": time.to_whole_seconds()}}},
        },
    })
}

fn summary(time: Timestamp) -> Value {
    let total = json!({
        "cpu_millicores": 240_000, "memory_bytes": 1_030_792_151_040_u64, "ephemeral_storage_bytes": 3_221_225_472_000_u64,
        "pods": 3_300, "extended": {"nvidia.com/gpu": 4},
    });
    json!({
        "cluster": "demo", "as_of": time, "stale": false, "nodes": 30,
        "by_status": {"ready": 28, "not_ready": 1, "unknown": 1}, "schedulable": 29, "unschedulable": 1,
        "by_role": {"control-plane": 3, "worker": 27}, "by_zone": {"zone-a": 10, "zone-b": 10, "zone-c": 10},
        "by_kubelet_version": {"v1.36.0": 30}, "by_instance_type": {"m5.2xlarge": 30},
        "capacity": total, "allocatable": total,
    })
}

fn node(time: Timestamp) -> Option<Node> {
    let labels = [
        ("kubernetes.io/hostname", "worker-a-1"),
        ("node-role.kubernetes.io/worker", ""),
        ("topology.kubernetes.io/zone", "zone-a"),
    ];
    let capacity = Resources {
        cpu_millicores: 8_000,
        memory_bytes: 34_359_738_368,
        ephemeral_storage_bytes: 107_374_182_400,
        pods: 110,
        extended: BTreeMap::from([("nvidia.com/gpu".to_owned(), 1)]),
    };
    Some(Node {
        name: NodeName::parse("worker-a-1").ok()?,
        uid: "7f3c0a52-91de-4b6e-8a3f-2d1c5e9b7a10".to_owned(),
        resource_version: "4711".to_owned(),
        created_at: time,
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        taints: vec![Taint {
            key: "example.com/dedicated".to_owned(),
            value: "batch".to_owned(),
            effect: TaintEffect::NoSchedule,
            added_at: None,
        }],
        schedulable: true,
        cordon: None,
        status: NodeStatus::Ready,
        conditions: vec![Condition {
            kind: "Ready".to_owned(),
            status: "True".to_owned(),
            reason: "KubeletReady".to_owned(),
            message: "kubelet is posting ready status".to_owned(),
            last_transition_at: Some(time),
            last_heartbeat_at: Some(time),
        }],
        addresses: vec![NodeAddress {
            kind: "InternalIP".to_owned(),
            address: "192.0.2.11".to_owned(),
        }],
        allocatable: Resources {
            cpu_millicores: 7_800,
            ..capacity.clone()
        },
        capacity,
        system: NodeSystem {
            kubelet_version: "v1.36.0".to_owned(),
            os_image: "Debian GNU/Linux 13".to_owned(),
            operating_system: "linux".to_owned(),
            kernel_version: "6.12.0".to_owned(),
            container_runtime_version: "containerd://2.1.0".to_owned(),
            architecture: "amd64".to_owned(),
        },
        zone: Some("zone-a".to_owned()),
        region: Some("region-1".to_owned()),
        instance_type: Some("m5.2xlarge".to_owned()),
        provider_id: Some("example:///zone-a/i-0123".to_owned()),
        pod_cidrs: vec!["203.0.113.0/24".to_owned()],
    })
}

fn pod(node: &Node, time: Timestamp) -> PodOnNode {
    PodOnNode {
        pod: Pod {
            namespace: "shop".to_owned(),
            name: "web-5c9f-x2x1".to_owned(),
            uid: "0b9e6a34-7a7e-4f5e-9a50-6f0a4c1d2e3f".to_owned(),
            node: node.name.clone(),
            labels: BTreeMap::new(),
            phase: PodPhase::Running,
            ready: true,
            controller: Some(Controller {
                api_version: "apps/v1".to_owned(),
                kind: "ReplicaSet".to_owned(),
                name: "web-5c9f".to_owned(),
            }),
            requests: PodRequests {
                cpu_millicores: 250,
                memory_bytes: 268_435_456,
                ..PodRequests::default()
            },
            created_at: Some(time),
            deletion_at: None,
            deletion_grace: None,
            is_mirror: false,
            has_empty_dir: false,
            priority: 0,
            priority_class: None,
            node_selector: BTreeMap::new(),
            node_terms: None,
            tolerations: Vec::new(),
        },
        budgets: vec!["web".to_owned()],
    }
}
