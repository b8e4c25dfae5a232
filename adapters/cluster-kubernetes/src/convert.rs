//! From the wire to the model.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use knm_model::{
    Condition, Controller, Cordon, DisruptionBudget, NameError, Node, NodeAddress, NodeName, NodeStatus, NodeSystem,
    NodeTerm, Operator, Pod, PodPhase, PodRequests, Requirement, Selector, Taint, TaintEffect, Timestamp, Toleration,
    TolerationOperator, UnhealthyPods,
};

use crate::amount;
use crate::wire::{
    Expression, MIRROR_ANNOTATION, NodeInfo, PodSpec, Volume, WireBudget, WireCondition, WireNode, WireNodeTerm,
    WirePod, WireSelector, WireTaint, WireToleration,
};

const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";
const ZONE: [&str; 2] = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];
const REGION: [&str; 2] = [
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/region",
];
const INSTANCE_TYPE: [&str; 2] = ["node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type"];

/// Which API a budget is read from or a pod evicted by; they differ in what an empty selector means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PolicyVersion {
    /// `policy/v1`: an empty selector matches every pod.
    V1,
    /// `policy/v1beta1`: an empty selector matches no pod.
    V1Beta1,
}

impl PolicyVersion {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::V1 => Self::V1Beta1,
            Self::V1Beta1 => Self::V1,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "policy/v1",
            Self::V1Beta1 => "policy/v1beta1",
        }
    }
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
    let (meta, spec, status) = (wire.metadata, wire.spec, wire.status);
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
                api_version: owner.api_version,
                kind: owner.kind,
                name: owner.name,
            }),
        requests: requests(&spec),
        created_at: time(meta.creation_timestamp),
        deletion_at: time(meta.deletion_timestamp),
        deletion_grace: meta
            .deletion_grace_period_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs),
        is_mirror: meta
            .annotations
            .is_some_and(|annotations| annotations.0.contains_key(MIRROR_ANNOTATION)),
        has_empty_dir: spec.volumes.iter().flatten().any(is_empty_dir),
        priority: spec.priority.unwrap_or_default(),
        priority_class: spec.priority_class_name.filter(|name| !name.is_empty()),
        node_selector: spec.node_selector.unwrap_or_default(),
        node_terms: spec
            .affinity
            .and_then(|affinity| affinity.node_affinity)
            .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution)
            .map(|required| required.node_selector_terms.unwrap_or_default())
            .map(|terms| terms.into_iter().filter_map(node_term).collect()),
        tolerations: spec
            .tolerations
            .unwrap_or_default()
            .into_iter()
            .filter_map(toleration)
            .collect(),
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
        unhealthy_pods: match wire.spec.unhealthy_pod_eviction_policy.as_deref() {
            Some("AlwaysAllow") => UnhealthyPods::AlwaysAllow,
            _ => UnhealthyPods::IfHealthyBudget,
        },
    }
}

fn is_empty_dir(volume: &Volume) -> bool {
    volume.empty_dir.is_some()
}

/// `None` for a term with a requirement that this program does not know: such a term cannot be told to be met.
fn node_term(wire: WireNodeTerm) -> Option<NodeTerm> {
    let all = |expressions: Option<Vec<Expression>>| {
        let expressions = expressions.unwrap_or_default().into_iter();
        expressions.map(node_requirement).collect::<Option<Vec<_>>>()
    };
    Some(NodeTerm {
        labels: all(wire.match_expressions)?,
        fields: all(wire.match_fields)?,
    })
}

/// Requirements on nodes know two operators more than those of selectors.
fn node_requirement(wire: Expression) -> Option<Requirement> {
    let limit = || match wire.values.as_deref() {
        Some([one]) => one.parse().ok(),
        _ => None,
    };
    let operator = match wire.operator.as_str() {
        "Gt" => Operator::GreaterThan(limit()?),
        "Lt" => Operator::LessThan(limit()?),
        _ => return requirement(wire),
    };
    Some(Requirement {
        key: wire.key,
        operator,
    })
}

/// `None` for one with an operator or effect that this program does not know: it cannot be told to tolerate anything.
fn toleration(wire: WireToleration) -> Option<Toleration> {
    Some(Toleration {
        key: wire.key,
        operator: match wire.operator.as_str() {
            "Exists" => TolerationOperator::Exists,
            "Equal" | "" => TolerationOperator::Equal(wire.value),
            _ => return None,
        },
        effect: match wire.effect.as_str() {
            "" => None,
            effect => Some(TaintEffect::parse(effect)?),
        },
    })
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
            sidecars.add(&own);
        } else {
            let mut beside = sidecars.clone();
            beside.add(&own);
            raise(&mut most, &beside);
        }
    }
    let mut running = sidecars;
    for container in spec.containers.iter().flatten() {
        running.add(&of_container(container.resources.as_ref()));
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
    most.add(&amount::requests(spec.overhead.as_ref()));
    most
}

fn of_container(resources: Option<&crate::wire::Requirements>) -> PodRequests {
    amount::requests(resources.and_then(|one| one.requests.as_ref()))
}

fn raise(most: &mut PodRequests, other: &PodRequests) {
    most.cpu_millicores = most.cpu_millicores.max(other.cpu_millicores);
    most.memory_bytes = most.memory_bytes.max(other.memory_bytes);
    most.ephemeral_storage_bytes = most.ephemeral_storage_bytes.max(other.ephemeral_storage_bytes);
    for (name, amount) in &other.extended {
        let own = most.extended.entry(name.clone()).or_default();
        *own = (*own).max(*amount);
    }
}
