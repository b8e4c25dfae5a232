//! From the wire to the model.

use std::collections::{BTreeMap, BTreeSet};

use knm_model::{
    Condition, Controller, Cordon, DisruptionBudget, NameError, Node, NodeAddress, NodeName, NodeStatus, NodeSystem,
    Operator, Pod, PodPhase, PodRequests, Requirement, Selector, Taint, TaintEffect, Timestamp,
};

use crate::amount;
use crate::wire::{
    Expression, NodeInfo, PodSpec, WireBudget, WireCondition, WireNode, WirePod, WireSelector, WireTaint,
};

const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";
const ZONE: [&str; 2] = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];
const REGION: [&str; 2] = [
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/region",
];
const INSTANCE_TYPE: [&str; 2] = ["node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type"];

/// Which API a budget was read from; they differ in what an empty selector means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PolicyVersion {
    /// `policy/v1`: an empty selector matches every pod.
    V1,
    /// `policy/v1beta1`: an empty selector matches no pod.
    V1Beta1,
}

pub(crate) fn node(wire: WireNode) -> Result<Node, NameError> {
    let (meta, spec, status) = (wire.metadata, wire.spec, wire.status);
    let labels = meta.labels.unwrap_or_default();
    let taints: Vec<Taint> = spec.taints.unwrap_or_default().into_iter().filter_map(taint).collect();
    let schedulable = !spec.unschedulable.unwrap_or_default();
    let conditions: Vec<Condition> = status
        .conditions
        .unwrap_or_default()
        .into_iter()
        .map(condition)
        .collect();
    let cordon = (!schedulable).then(|| {
        let tainted_at = taints
            .iter()
            .find(|taint| taint.key == UNSCHEDULABLE_TAINT)
            .and_then(|taint| taint.added_at);
        Cordon::read(&meta.annotations.unwrap_or_default().0, tainted_at)
    });
    Ok(Node {
        name: NodeName::parse(&meta.name)?,
        uid: meta.uid,
        resource_version: meta.resource_version,
        created_at: time(meta.creation_timestamp).unwrap_or(Timestamp::from(std::time::SystemTime::UNIX_EPOCH)),
        zone: first(&labels, ZONE),
        region: first(&labels, REGION),
        instance_type: first(&labels, INSTANCE_TYPE),
        labels,
        taints,
        schedulable,
        cordon,
        status: NodeStatus::of(&conditions),
        conditions,
        addresses: status
            .addresses
            .unwrap_or_default()
            .into_iter()
            .map(|one| NodeAddress {
                kind: one.kind,
                address: one.address,
            })
            .collect(),
        capacity: amount::resources(status.capacity),
        allocatable: amount::resources(status.allocatable),
        system: system(status.node_info.unwrap_or_default()),
        provider_id: spec.provider_id.filter(|id| !id.is_empty()),
        pod_cidrs: spec
            .pod_cidrs
            .unwrap_or_else(|| spec.pod_cidr.into_iter().filter(|range| !range.is_empty()).collect()),
    })
}

pub(crate) fn pod(wire: WirePod, node: &NodeName) -> Pod {
    let (meta, status) = (wire.metadata, wire.status);
    Pod {
        namespace: meta.namespace,
        name: meta.name,
        uid: meta.uid,
        node: node.clone(),
        labels: meta.labels.unwrap_or_default(),
        phase: PodPhase::parse(&status.phase),
        ready: status
            .conditions
            .unwrap_or_default()
            .iter()
            .any(|one| one.kind == "Ready" && one.status == "True"),
        controller: meta
            .owner_references
            .unwrap_or_default()
            .into_iter()
            .find(|owner| owner.controller == Some(true))
            .map(|owner| Controller {
                kind: owner.kind,
                name: owner.name,
            }),
        requests: requests(&wire.spec),
        created_at: time(meta.creation_timestamp),
        deletion_at: time(meta.deletion_timestamp),
    }
}

pub(crate) fn budget(wire: WireBudget, version: PolicyVersion) -> DisruptionBudget {
    let count = |number: i64| u32::try_from(number.max(0)).unwrap_or(u32::MAX);
    DisruptionBudget {
        namespace: wire.metadata.namespace,
        name: wire.metadata.name,
        selector: wire.spec.selector.and_then(|wire| selector(wire, version)),
        disruptions_allowed: count(wire.status.disruptions_allowed),
        current_healthy: count(wire.status.current_healthy),
        desired_healthy: count(wire.status.desired_healthy),
        expected_pods: count(wire.status.expected_pods),
    }
}

fn taint(wire: WireTaint) -> Option<Taint> {
    Some(Taint {
        effect: TaintEffect::parse(&wire.effect)?,
        key: wire.key,
        value: wire.value.unwrap_or_default(),
        added_at: time(wire.time_added),
    })
}

fn condition(wire: WireCondition) -> Condition {
    Condition {
        kind: wire.kind,
        status: wire.status,
        reason: wire.reason.unwrap_or_default(),
        message: wire.message.unwrap_or_default(),
        last_transition_at: time(wire.last_transition_time),
        last_heartbeat_at: time(wire.last_heartbeat_time),
    }
}

fn system(info: NodeInfo) -> NodeSystem {
    NodeSystem {
        kubelet_version: info.kubelet_version,
        os_image: info.os_image,
        operating_system: info.operating_system,
        kernel_version: info.kernel_version,
        container_runtime_version: info.container_runtime_version,
        architecture: info.architecture,
    }
}

fn first(labels: &BTreeMap<String, String>, keys: [&str; 2]) -> Option<String> {
    keys.into_iter()
        .find_map(|key| labels.get(key))
        .filter(|value| !value.is_empty())
        .cloned()
}

fn time(text: Option<String>) -> Option<Timestamp> {
    text.and_then(|text| Timestamp::parse(&text).ok())
}

/// `None`, which matches nothing, also for an operator that this program does not know: such a budget cannot be told to match.
fn selector(wire: WireSelector, version: PolicyVersion) -> Option<Selector> {
    let labels = wire.match_labels.unwrap_or_default().into_iter().map(|(key, value)| {
        Some(Requirement {
            key,
            operator: Operator::In(BTreeSet::from([value])),
        })
    });
    let expressions = wire.match_expressions.unwrap_or_default().into_iter().map(requirement);
    let requirements: Vec<Requirement> = labels.chain(expressions).collect::<Option<_>>()?;
    if requirements.is_empty() && version == PolicyVersion::V1Beta1 {
        return None;
    }
    Some(Selector::new(requirements))
}

fn requirement(wire: Expression) -> Option<Requirement> {
    let values = || wire.values.unwrap_or_default().into_iter().collect();
    let operator = match wire.operator.as_str() {
        "In" => Operator::In(values()),
        "NotIn" => Operator::NotIn(values()),
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        _ => return None,
    };
    Some(Requirement {
        key: wire.key,
        operator,
    })
}

/// What the scheduler reserves. Init containers run one after the other, each beside the sidecars (init containers that always restart)
/// before it; containers run beside all sidecars.
fn requests(spec: &PodSpec) -> PodRequests {
    let mut most = PodRequests::default();
    let mut sidecars = PodRequests::default();
    for container in spec.init_containers.iter().flatten() {
        let own = of_container(container.resources.as_ref());
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut sidecars, &own);
        } else {
            let mut beside = sidecars.clone();
            add(&mut beside, &own);
            raise(&mut most, &beside);
        }
    }
    let mut running = sidecars;
    for container in spec.containers.iter().flatten() {
        add(&mut running, &of_container(container.resources.as_ref()));
    }
    raise(&mut most, &running);
    if let Some(whole) = spec.resources.as_ref().and_then(|one| one.requests.as_ref()) {
        let asked = amount::requests(Some(whole));
        if whole.contains_key("cpu") {
            most.cpu_millicores = asked.cpu_millicores;
        }
        if whole.contains_key("memory") {
            most.memory_bytes = asked.memory_bytes;
        }
        most.extended.extend(asked.extended);
    }
    add(&mut most, &amount::requests(spec.overhead.as_ref()));
    most
}

fn of_container(resources: Option<&crate::wire::Requirements>) -> PodRequests {
    amount::requests(resources.and_then(|one| one.requests.as_ref()))
}

fn add(sum: &mut PodRequests, other: &PodRequests) {
    combine(sum, other, u64::saturating_add);
}

fn raise(most: &mut PodRequests, other: &PodRequests) {
    combine(most, other, u64::max);
}

fn combine(one: &mut PodRequests, other: &PodRequests, with: fn(u64, u64) -> u64) {
    one.cpu_millicores = with(one.cpu_millicores, other.cpu_millicores);
    one.memory_bytes = with(one.memory_bytes, other.memory_bytes);
    one.ephemeral_storage_bytes = with(one.ephemeral_storage_bytes, other.ephemeral_storage_bytes);
    for (name, amount) in &other.extended {
        let own = one.extended.entry(name.clone()).or_default();
        *own = with(*own, *amount);
    }
}
