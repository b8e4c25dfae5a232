//! What is read of the API server's answers. Everything else (managed fields, images, foreign annotations) is dropped while it is read.

use std::collections::BTreeMap;
use std::fmt;

use knm_model::{FIRST_VERSION_REASON_ANNOTATION, FIRST_VERSION_TIMESTAMP_ANNOTATION, HOLDS_ANNOTATION};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Marks the pod that stands for a static one.
pub(crate) const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Amounts by the name of their resource.
pub(crate) type Amounts = BTreeMap<String, String>;

#[derive(Deserialize)]
pub(crate) struct List<T> {
    pub(crate) metadata: ListMeta,
    /// There in every list, though Go writes an empty one as null at times.
    pub(crate) items: Items<T>,
}

/// Unlike an `Option`, it must be there.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Items<T> {
    Some(Vec<T>),
    None(()),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListMeta {
    pub(crate) resource_version: String,
    #[serde(default, rename = "continue")]
    pub(crate) next: String,
}

/// The kind of a watch event, before it is known what its object is.
#[derive(Deserialize)]
pub(crate) struct EventKind {
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

#[derive(Deserialize)]
pub(crate) struct EventObject<T> {
    pub(crate) object: T,
}

#[derive(Deserialize)]
pub(crate) struct Bookmark {
    pub(crate) metadata: BookmarkMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BookmarkMeta {
    pub(crate) resource_version: String,
}

/// What the API server says when it refuses.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    /// `Success` or `Failure`.
    pub(crate) status: String,
    pub(crate) code: u16,
    pub(crate) message: String,
    pub(crate) details: Option<StatusDetails>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct StatusDetails {
    pub(crate) retry_after_seconds: Option<u64>,
    pub(crate) causes: Option<Vec<Cause>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Cause {
    /// Its type; the field's name is a leftover of Kubernetes.
    pub(crate) reason: String,
    pub(crate) message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Version {
    pub(crate) git_version: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Meta {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) creation_timestamp: Option<String>,
    pub(crate) deletion_timestamp: Option<String>,
    pub(crate) deletion_grace_period_seconds: Option<i64>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) annotations: Option<Annotations>,
    pub(crate) owner_references: Option<Vec<Owner>>,
}

/// The annotations that cordons and static pods are read off.
#[derive(Default)]
pub(crate) struct Annotations(pub(crate) BTreeMap<String, String>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Owner {
    #[serde(default)]
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) controller: Option<bool>,
}

#[derive(Deserialize)]
pub(crate) struct WireNode {
    pub(crate) metadata: Meta,
    #[serde(default)]
    pub(crate) spec: NodeSpec,
    #[serde(default)]
    pub(crate) status: NodeState,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeSpec {
    pub(crate) unschedulable: Option<bool>,
    pub(crate) taints: Option<Vec<WireTaint>>,
    #[serde(rename = "providerID")]
    pub(crate) provider_id: Option<String>,
    #[serde(rename = "podCIDR")]
    pub(crate) pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pub(crate) pod_cidrs: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WireTaint {
    pub(crate) key: String,
    #[serde(default)]
    pub(crate) value: Option<String>,
    pub(crate) effect: String,
    #[serde(default)]
    pub(crate) time_added: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeState {
    pub(crate) capacity: Option<Amounts>,
    pub(crate) allocatable: Option<Amounts>,
    pub(crate) conditions: Option<Vec<WireCondition>>,
    pub(crate) addresses: Option<Vec<WireAddress>>,
    pub(crate) node_info: Option<NodeInfo>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WireCondition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) last_transition_time: Option<String>,
    pub(crate) last_heartbeat_time: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct WireAddress {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) address: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeInfo {
    pub(crate) kubelet_version: String,
    pub(crate) os_image: String,
    pub(crate) operating_system: String,
    pub(crate) kernel_version: String,
    pub(crate) container_runtime_version: String,
    pub(crate) architecture: String,
}

#[derive(Deserialize)]
pub(crate) struct WirePod {
    pub(crate) metadata: Meta,
    #[serde(default)]
    pub(crate) spec: PodSpec,
    #[serde(default)]
    pub(crate) status: PodState,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodSpec {
    pub(crate) containers: Option<Vec<Container>>,
    pub(crate) init_containers: Option<Vec<Container>>,
    pub(crate) overhead: Option<Amounts>,
    /// What the pod asks for as a whole, since 1.32.
    pub(crate) resources: Option<Requirements>,
    pub(crate) node_name: String,
    pub(crate) volumes: Option<Vec<Volume>>,
    pub(crate) priority: Option<i32>,
    pub(crate) priority_class_name: Option<String>,
    pub(crate) node_selector: Option<BTreeMap<String, String>>,
    pub(crate) affinity: Option<Affinity>,
    pub(crate) tolerations: Option<Vec<WireToleration>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Volume {
    pub(crate) empty_dir: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Affinity {
    pub(crate) node_affinity: Option<WireNodeAffinity>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WireNodeAffinity {
    pub(crate) required_during_scheduling_ignored_during_execution: Option<WireNodeSelector>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WireNodeSelector {
    pub(crate) node_selector_terms: Option<Vec<WireNodeTerm>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WireNodeTerm {
    pub(crate) match_expressions: Option<Vec<Expression>>,
    pub(crate) match_fields: Option<Vec<Expression>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct WireToleration {
    pub(crate) key: String,
    pub(crate) operator: String,
    pub(crate) value: String,
    pub(crate) effect: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Container {
    pub(crate) resources: Option<Requirements>,
    pub(crate) restart_policy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Requirements {
    pub(crate) requests: Option<Amounts>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodState {
    pub(crate) phase: String,
    pub(crate) conditions: Option<Vec<PodCondition>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodCondition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
}

/// A node of which only the attached volumes matter.
#[derive(Deserialize)]
pub(crate) struct NodeVolumes {
    #[serde(default)]
    pub(crate) status: VolumesState,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct VolumesState {
    pub(crate) volumes_attached: Vec<AttachedVolume>,
}

#[derive(Deserialize)]
pub(crate) struct AttachedVolume {
    pub(crate) name: String,
}

/// An object of which only the name matters.
#[derive(Deserialize)]
pub(crate) struct Named {
    pub(crate) metadata: NamedMeta,
}

#[derive(Deserialize)]
pub(crate) struct NamedMeta {
    pub(crate) name: String,
    pub(crate) namespace: String,
}

#[derive(Deserialize)]
pub(crate) struct WireBudget {
    pub(crate) metadata: Meta,
    #[serde(default)]
    pub(crate) spec: BudgetSpec,
    #[serde(default)]
    pub(crate) status: BudgetState,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct BudgetSpec {
    pub(crate) selector: Option<WireSelector>,
    pub(crate) unhealthy_pod_eviction_policy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WireSelector {
    pub(crate) match_labels: Option<BTreeMap<String, String>>,
    pub(crate) match_expressions: Option<Vec<Expression>>,
}

#[derive(Deserialize)]
pub(crate) struct Expression {
    pub(crate) key: String,
    pub(crate) operator: String,
    #[serde(default)]
    pub(crate) values: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct BudgetState {
    pub(crate) disruptions_allowed: i64,
    pub(crate) current_healthy: i64,
    pub(crate) desired_healthy: i64,
    pub(crate) expected_pods: i64,
}

impl<T> From<Items<T>> for Vec<T> {
    fn from(items: Items<T>) -> Self {
        match items {
            Items::Some(items) => items,
            Items::None(()) => Self::new(),
        }
    }
}

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kept;

        impl<'de> Visitor<'de> for Kept {
            type Value = Annotations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("annotations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
                let mut kept = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        HOLDS_ANNOTATION
                        | FIRST_VERSION_REASON_ANNOTATION
                        | FIRST_VERSION_TIMESTAMP_ANNOTATION
                        | MIRROR_ANNOTATION => {
                            kept.insert(key, map.next_value()?);
                        }
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(Annotations(kept))
            }
        }

        deserializer.deserialize_map(Kept)
    }
}
