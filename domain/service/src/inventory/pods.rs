//! The pods of one cluster, folded from what the cluster tells. No async, no lock, no time.

mod thin;

use std::collections::{BTreeMap, HashMap};

use knm_model::{NodeName, Pod, Resources};

use thin::{Pools, ThinPod, Uid};

/// The pods of a cluster by their nodes, in little memory.
#[derive(Debug, Default)]
pub struct PodIndex {
    nodes: HashMap<NodeName, OnNode>,
    /// Where each pod is.
    homes: HashMap<Uid, NodeName>,
    pools: Pools,
    /// Counts the lists that began.
    list: u32,
    /// Counts the changes of what the pods on any node ask for.
    revision: u64,
}

/// The pods on one node, in no particular order.
#[derive(Debug, Default)]
struct OnNode {
    pods: Vec<ThinPod>,
    /// What those that have not ended ask for, and how many they are.
    requested: Resources,
}

impl PodIndex {
    /// A list of all pods begins: those that do not come before it is [complete](Self::complete) are gone.
    pub fn begin(&mut self) {
        self.list = self.list.wrapping_add(1);
    }

    /// Takes a new or changed pod in.
    pub fn apply(&mut self, pod: Pod) {
        let name = match self.nodes.get_key_value(&pod.node) {
            // All that is kept of a node refers to one copy of its name.
            Some((name, _)) => name.clone(),
            None => pod.node.clone(),
        };
        let thin = ThinPod::of(pod, &mut self.pools, self.list);
        match self.homes.insert(thin.uid.clone(), name.clone()) {
            Some(home) if home != name => self.change(&home, |pods| pods.retain(|known| known.uid != thin.uid)),
            Some(_) | None => {}
        }
        self.change(&name, |pods| {
            match pods.iter_mut().find(|known| known.uid == thin.uid) {
                Some(known) => *known = thin,
                None => pods.push(thin),
            }
        });
    }

    /// Forgets a pod; nothing happens if it is not known.
    pub fn delete(&mut self, uid: &str) {
        let uid = Uid::of(uid);
        if let Some(home) = self.homes.remove(&uid) {
            self.change(&home, |pods| pods.retain(|known| known.uid != uid));
        }
    }

    /// The list that began last is whole.
    pub fn complete(&mut self) {
        let list = self.list;
        let names: Vec<NodeName> = self.nodes.keys().cloned().collect();
        for name in names {
            let homes = &mut self.homes;
            alter(&mut self.nodes, &mut self.revision, &name, |pods| {
                pods.retain(|pod| {
                    let is_there = pod.list == list;
                    if !is_there {
                        homes.remove(&pod.uid);
                    }
                    is_there
                });
                // Most of them come with lists, and few after those.
                pods.shrink_to_fit();
            });
        }
    }

    /// How many pods there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.homes.len()
    }

    /// Whether there are no pods.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.homes.is_empty()
    }

    /// The pods on a node, as they were told, sorted by namespace and name.
    #[must_use]
    pub fn on_node(&self, node: &NodeName) -> Vec<Pod> {
        let known = self
            .nodes
            .get(node)
            .map(|node| node.pods.as_slice())
            .unwrap_or_default();
        let mut pods: Vec<Pod> = known.iter().map(|pod| pod.to_pod(node)).collect();
        pods.sort_unstable_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        pods
    }

    /// What the pods on a node ask for that have not ended, and how many they are; `None`: nothing.
    #[must_use]
    pub fn requested(&self, node: &NodeName) -> Option<&Resources> {
        self.nodes.get(node).map(|node| &node.requested)
    }

    /// The same for all nodes that have pods.
    #[must_use]
    pub fn requested_by_node(&self) -> BTreeMap<NodeName, Resources> {
        let nodes = self.nodes.iter();
        nodes
            .map(|(name, node)| (name.clone(), node.requested.clone()))
            .collect()
    }

    /// Differs when what the pods on any node ask for does.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn change(&mut self, node: &NodeName, change: impl FnOnce(&mut Vec<ThinPod>)) {
        alter(&mut self.nodes, &mut self.revision, node, change);
    }
}

/// Changes the pods on a node, which is kept while there are any.
fn alter(
    nodes: &mut HashMap<NodeName, OnNode>,
    revision: &mut u64,
    name: &NodeName,
    change: impl FnOnce(&mut Vec<ThinPod>),
) {
    let node = nodes.entry(name.clone()).or_default();
    change(&mut node.pods);
    let requested = sum(&node.pods);
    if requested != node.requested {
        node.requested = requested;
        *revision += 1;
    }
    if node.pods.is_empty() {
        nodes.remove(name);
    }
}

fn sum(pods: &[ThinPod]) -> Resources {
    let mut sum = Resources::default();
    for requests in pods.iter().filter_map(ThinPod::takes) {
        sum.add(&Resources::of_pod(requests));
    }
    sum
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
