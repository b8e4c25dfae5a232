//! Where the pods of a drained node could go. An estimate: only the scheduler knows.

use std::collections::BTreeMap;

use super::verdict::daemon_set;
use super::{DrainPlan, ObjectName};
use crate::{Node, NodeName, NodeStatus, Pod, Resources, Taint, TaintEffect};

/// What an estimate leaves out although the scheduler looks at it.
pub const NOT_CONSIDERED: [&str; 8] = [
    "preferred node affinity",
    "pod affinity and anti-affinity",
    "topology spread constraints",
    "volumes and their zones",
    "host ports",
    "preemption by priority",
    "other schedulers, scheduling gates and dynamic resources",
    "nodes that an autoscaler would add",
];

/// Where the pods of a drained node could go.
#[derive(Clone, Debug, PartialEq)]
pub enum Fit {
    /// Each pod in turn was placed on the first node with room for it.
    Estimated {
        /// The pods that are started again elsewhere, in the order of their evictions.
        placements: Vec<Placement>,
        /// How many nodes there were to choose from.
        nodes: usize,
    },
    /// It cannot be told.
    NotEstimated {
        /// Why.
        reason: String,
    },
}

/// Where a pod could go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The pod.
    pub pod: ObjectName,
    /// A node that has room for it, given the pods before it.
    pub node: Option<NodeName>,
    /// If there is none: what stood in the way, and on how many nodes.
    pub obstacles: BTreeMap<Obstacle, usize>,
}

/// Why a node does not take a pod: the first of these that holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Obstacle {
    /// It lacks a label that the pod selects nodes by.
    NodeSelector,
    /// It meets no term of the pod's required node affinity.
    NodeAffinity,
    /// It has a taint that the pod does not tolerate.
    Taint,
    /// It has as many pods as it may have.
    Pods,
    /// It has too little of this resource left.
    Resource(String),
}

impl Obstacle {
    /// A few words for it.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::NodeSelector => "the node selector does not match".to_owned(),
            Self::NodeAffinity => "the required node affinity does not match".to_owned(),
            Self::Taint => "a taint is not tolerated".to_owned(),
            Self::Pods => "too many pods".to_owned(),
            Self::Resource(name) => format!("not enough {name}"),
        }
    }
}

impl Fit {
    /// Places the pods that `plan` removes on the other nodes of the cluster that are ready and schedulable. `requested` is what the pods on
    /// each node ask for now.
    #[must_use]
    pub fn estimate<'a>(
        plan: &DrainPlan,
        drained: &NodeName,
        nodes: impl Iterator<Item = &'a Node>,
        requested: &BTreeMap<NodeName, Resources>,
    ) -> Self {
        let mut rooms: Vec<Room<'a>> = nodes
            .filter(|node| node.name != *drained && node.schedulable && node.status == NodeStatus::Ready)
            .map(|node| Room::of(node, requested.get(&node.name)))
            .collect();
        let returning = plan.evictions().into_iter().map(|planned| &planned.pod);
        let placements = returning
            .filter(|pod| comes_back(pod))
            .map(|pod| place(pod, &mut rooms))
            .collect();
        Self::Estimated {
            placements,
            nodes: rooms.len(),
        }
    }
}

/// A node and what is left of it.
struct Room<'a> {
    node: &'a Node,
    left: Resources,
}

impl<'a> Room<'a> {
    fn of(node: &'a Node, requested: Option<&Resources>) -> Self {
        let mut left = node.allocatable.clone();
        if let Some(requested) = requested {
            left.subtract(requested);
        }
        Self { node, left }
    }

    fn obstacle(&self, pod: &Pod) -> Option<Obstacle> {
        let labels = &self.node.labels;
        if pod
            .node_selector
            .iter()
            .any(|(key, value)| labels.get(key) != Some(value))
        {
            return Some(Obstacle::NodeSelector);
        }
        let terms = pod.node_terms.as_ref();
        if terms.is_some_and(|terms| !terms.iter().any(|term| term.matches(self.node))) {
            return Some(Obstacle::NodeAffinity);
        }
        if self.node.taints.iter().any(|taint| keeps_off(taint, pod)) {
            return Some(Obstacle::Taint);
        }
        if self.left.pods == 0 {
            return Some(Obstacle::Pods);
        }
        let asked = &pod.requests;
        let plain = [
            ("cpu", asked.cpu_millicores, self.left.cpu_millicores),
            ("memory", asked.memory_bytes, self.left.memory_bytes),
            (
                "ephemeral-storage",
                asked.ephemeral_storage_bytes,
                self.left.ephemeral_storage_bytes,
            ),
        ];
        let left = |name: &str| self.left.extended.get(name).copied().unwrap_or_default();
        let extended = asked
            .extended
            .iter()
            .map(|(name, asked)| (name.as_str(), *asked, left(name)));
        let short = plain.into_iter().chain(extended).find(|(_, asked, left)| left < asked);
        short.map(|(name, _, _)| Obstacle::Resource(name.to_owned()))
    }
}

/// Whether somebody starts the pod again, and not on the same node.
fn comes_back(pod: &Pod) -> bool {
    !pod.is_finished() && pod.controller.is_some() && daemon_set(pod).is_none()
}

fn keeps_off(taint: &Taint, pod: &Pod) -> bool {
    match taint.effect {
        TaintEffect::NoSchedule | TaintEffect::NoExecute => !pod.tolerations.iter().any(|one| one.tolerates(taint)),
        TaintEffect::PreferNoSchedule => false,
    }
}

fn place(pod: &Pod, rooms: &mut [Room<'_>]) -> Placement {
    let name = ObjectName {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
    };
    let mut obstacles = BTreeMap::new();
    for room in rooms {
        match room.obstacle(pod) {
            None => {
                room.left.subtract(&Resources::of_pod(&pod.requests));
                return Placement {
                    pod: name,
                    node: Some(room.node.name.clone()),
                    obstacles: BTreeMap::new(),
                };
            }
            Some(obstacle) => *obstacles.entry(obstacle).or_default() += 1,
        }
    }
    Placement {
        pod: name,
        node: None,
        obstacles,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::fixture::{controller, node, pod};
    use crate::{DrainOptions, NodeTerm, PodPhase, PodRequests, Selector, Timestamp, Toleration, TolerationOperator};

    fn roomy(name: &str, millicores: u64) -> Node {
        Node {
            allocatable: Resources {
                cpu_millicores: millicores,
                memory_bytes: 1 << 30,
                pods: 10,
                ..Resources::default()
            },
            ..node(name)
        }
    }

    fn asking(name: &str, millicores: u64) -> Pod {
        Pod {
            requests: PodRequests {
                cpu_millicores: millicores,
                ..PodRequests::default()
            },
            ..pod(name)
        }
    }

    fn plan(pods: &[Pod]) -> DrainPlan {
        let options = DrainOptions {
            force: true,
            ..DrainOptions::default()
        };
        let now = Timestamp::parse("2030-01-01T00:00:00Z").unwrap();
        DrainPlan::new(pods.to_vec(), &[], &BTreeSet::new(), &options, now)
    }

    fn fit(pods: &[Pod], nodes: &[Node], requested: &[(&str, Resources)]) -> Vec<Placement> {
        let requested = requested
            .iter()
            .map(|(name, used)| (NodeName::parse(name).unwrap(), used.clone()))
            .collect();
        let drained = NodeName::parse("a").unwrap();
        match Fit::estimate(&plan(pods), &drained, nodes.iter(), &requested) {
            Fit::Estimated { placements, .. } => placements,
            Fit::NotEstimated { reason } => unreachable!("{reason}"),
        }
    }

    fn places(found: &[Placement]) -> Vec<Option<&str>> {
        found
            .iter()
            .map(|one| one.node.as_ref().map(NodeName::as_str))
            .collect()
    }

    fn only_obstacle(pod: Pod, node: Node) -> Option<Obstacle> {
        let found = fit(&[pod], &[node], &[]);
        found[0].obstacles.keys().next().cloned()
    }

    fn with_taint(effect: TaintEffect) -> Node {
        let mut node = roomy("b", 1000);
        node.taints.push(Taint {
            key: "gpu".into(),
            value: String::new(),
            effect,
            added_at: None,
        });
        node
    }

    #[test]
    fn pods_fill_the_room_that_other_pods_leave() {
        let used = Resources {
            cpu_millicores: 500,
            pods: 9,
            ..Resources::default()
        };
        let pods = [asking("web-1", 500), asking("web-2", 500), asking("web-3", 600)];
        let nodes = [roomy("a", 9000), roomy("b", 1000), roomy("c", 1000)];
        let found = fit(&pods, &nodes, &[("b", used)]);
        assert_eq!(places(&found), [Some("b"), Some("c"), None]);
        let expected = [(Obstacle::Pods, 1), (Obstacle::Resource("cpu".into()), 1)];
        assert_eq!(found[2].obstacles, BTreeMap::from(expected));
    }

    #[test]
    fn only_nodes_that_are_ready_and_schedulable_count_and_never_the_drained_one() {
        let mut cordoned = roomy("b", 1000);
        cordoned.schedulable = false;
        let mut silent = roomy("c", 1000);
        silent.status = NodeStatus::Unknown;
        let nodes = [roomy("a", 1000), cordoned, silent];
        let found = fit(&[pod("web-1")], &nodes, &[]);
        assert_eq!(places(&found), [None]);
        assert_eq!(found[0].obstacles, BTreeMap::new());
    }

    #[test]
    fn pods_that_nobody_starts_again_elsewhere_are_left_out() {
        let mut unmanaged = pod("debug");
        unmanaged.controller = None;
        let mut done = pod("job-1");
        done.phase = PodPhase::Succeeded;
        let mut agent = pod("agent");
        agent.controller = Some(controller("DaemonSet"));
        assert_eq!(fit(&[unmanaged, done, agent], &[roomy("b", 1000)], &[]), []);
    }

    #[test]
    fn a_node_must_have_the_selected_labels() {
        let mut picky = pod("web-1");
        picky.node_selector.insert("disk".into(), "ssd".into());
        let mut right = roomy("b", 1000);
        right.labels.insert("disk".into(), "ssd".into());
        assert_eq!(only_obstacle(picky.clone(), right), None);
        assert_eq!(only_obstacle(picky, roomy("b", 1000)), Some(Obstacle::NodeSelector));
    }

    #[test]
    fn a_node_must_meet_one_term_of_the_required_affinity() {
        let term = |text: &str| NodeTerm {
            labels: Selector::parse(text).unwrap().requirements().to_vec(),
            fields: Vec::new(),
        };
        let mut right = roomy("b", 1000);
        right.labels.insert("zone".into(), "z2".into());
        for (terms, obstacle) in [
            (vec![term("zone=z1"), term("zone=z2")], None),
            (vec![term("zone=z1")], Some(Obstacle::NodeAffinity)),
            (vec![], Some(Obstacle::NodeAffinity)),
        ] {
            let mut picky = pod("web-1");
            picky.node_terms = Some(terms);
            assert_eq!(only_obstacle(picky, right.clone()), obstacle);
        }
    }

    #[test]
    fn taints_that_are_not_tolerated_keep_pods_off() {
        for (effect, obstacle) in [
            (TaintEffect::NoSchedule, Some(Obstacle::Taint)),
            (TaintEffect::NoExecute, Some(Obstacle::Taint)),
            (TaintEffect::PreferNoSchedule, None),
        ] {
            assert_eq!(only_obstacle(pod("web-1"), with_taint(effect)), obstacle);
            let mut tolerant = pod("web-1");
            tolerant.tolerations.push(Toleration {
                key: "gpu".into(),
                operator: TolerationOperator::Exists,
                effect: None,
            });
            assert_eq!(only_obstacle(tolerant, with_taint(effect)), None);
        }
    }

    #[test]
    fn other_resources_are_counted_by_their_name() {
        let mut training = pod("training-1");
        training.requests.extended.insert("nvidia.com/gpu".into(), 2);
        let mut big = roomy("b", 1000);
        big.allocatable.extended.insert("nvidia.com/gpu".into(), 3);
        let found = fit(&[training.clone(), training], &[big], &[]);
        assert_eq!(places(&found), [Some("b"), None]);
        let expected = Obstacle::Resource("nvidia.com/gpu".into());
        assert_eq!(found[1].obstacles, BTreeMap::from([(expected, 1)]));
    }

    #[test]
    fn a_refused_plan_places_nothing() {
        let mut local = pod("local");
        local.has_empty_dir = true;
        assert_eq!(fit(&[local, pod("web-1")], &[roomy("b", 1000)], &[]), []);
    }

    proptest! {
        #[test]
        fn no_node_is_filled_past_what_it_has(
            asked in proptest::collection::vec(0_u64..800, 0..30),
            sizes in proptest::collection::vec(0_u64..2000, 0..6),
        ) {
            let pods: Vec<_> = (0..).zip(&asked).map(|(at, asked)| asking(&format!("web-{at}"), *asked)).collect();
            let nodes: Vec<_> = (0..).zip(&sizes).map(|(at, size)| roomy(&format!("n{at}"), *size)).collect();
            let found = fit(&pods, &nodes, &[]);
            prop_assert_eq!(found.len(), pods.len());
            let mut used: BTreeMap<NodeName, u64> = BTreeMap::new();
            for (placement, pod) in found.iter().zip(&pods) {
                if let Some(node) = &placement.node {
                    *used.entry(node.clone()).or_default() += pod.requests.cpu_millicores;
                } else {
                    prop_assert_eq!(placement.obstacles.values().sum::<usize>(), nodes.len());
                }
            }
            for node in &nodes {
                prop_assert!(used.get(&node.name).copied().unwrap_or_default() <= node.allocatable.cpu_millicores);
            }
        }
    }
}
