//! Pods that were evicted, and those that take their place elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use knm_model::{DisruptionBudget, NodeName, Pod, PodPhase, Timestamp};
use knm_ports::EvictOptions;

use crate::chance::Chance;

/// The grace period of pods that were given none.
const GRACE: Duration = Duration::from_secs(30);
/// Pods that are told to end do so after this, or after their grace period if that is shorter.
const ENDS_WITHIN: Duration = Duration::from_secs(3);
/// How long a pod takes to become ready.
const STARTS_WITHIN: Duration = Duration::from_secs(5);
/// When a place is looked for again that there was not: it takes a look at every node.
const LOOKS_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// The topic of what is drawn for pods that take others' places.
const TOPIC: u64 = 7;

/// Pods on the move.
#[derive(Default)]
pub(crate) struct Moves {
    /// Pods that were evicted, by their ids.
    departures: BTreeMap<String, Departure>,
    /// Pods that took the places of others, by their ids.
    arrivals: BTreeMap<String, Arrival>,
    /// How many pods took others' places until now.
    count: u64,
    /// Up to when it was told on which nodes something happened.
    settled_at: Option<Timestamp>,
}

/// What time did to pods on the move.
#[derive(Default)]
pub(crate) struct Settled {
    /// The ids of those that are gone.
    pub(crate) gone: Vec<String>,
    /// The nodes to which some came, or on which they became ready.
    pub(crate) hosts: BTreeSet<NodeName>,
}

/// A pod that was evicted.
struct Departure {
    pod: Pod,
    gone_at: Timestamp,
    /// Whether it used up room of its budget.
    counted: bool,
    /// When the pod that took its place is ready.
    replaced_at: Option<Timestamp>,
    /// When a place for that pod is looked for.
    look_at: Timestamp,
}

/// A pod that took the place of another one.
struct Arrival {
    pod: Pod,
    ready_at: Timestamp,
}

impl Moves {
    /// Makes of the pods that were there first the pods that are there now, all of them on `node`.
    pub(crate) fn apply(&self, node: &NodeName, pods: &mut Vec<Pod>, now: Timestamp) {
        let arrived = self.arrivals.values().filter(|arrival| arrival.pod.node == *node);
        pods.extend(arrived.map(|arrival| arrival.at(now)));
        self.depart(pods, now);
    }

    /// The pods under a name that took the places of others.
    pub(crate) fn arrived(&self, namespace: &str, name: &str, now: Timestamp) -> impl Iterator<Item = Pod> {
        let is_it = move |arrival: &&Arrival| arrival.pod.namespace == namespace && arrival.pod.name == name;
        self.arrivals.values().filter(is_it).map(move |arrival| arrival.at(now))
    }

    /// Takes out of `pods` those that are gone, and marks those that are going.
    pub(crate) fn depart(&self, pods: &mut Vec<Pod>, now: Timestamp) {
        pods.retain_mut(|pod| match self.departures.get(&pod.uid) {
            None => true,
            Some(departure) if departure.gone_at <= now => false,
            Some(departure) => {
                pod.deletion_at = departure.pod.deletion_at;
                pod.deletion_grace = departure.pod.deletion_grace;
                true
            }
        });
    }

    /// Sends `pod` away.
    pub(crate) fn evict(&mut self, mut pod: Pod, counted: bool, options: &EvictOptions, now: Timestamp) {
        let asked = options
            .grace_period_seconds
            .map(|seconds| Duration::from_secs(seconds.into()));
        let own = pod.deletion_grace.unwrap_or(GRACE);
        let grace = if pod.is_finished() {
            Duration::ZERO
        } else {
            asked.unwrap_or(own)
        };
        let gone_at = now.plus(grace.min(ENDS_WITHIN));
        let earlier = self.departures.get(&pod.uid);
        if earlier.is_some_and(|earlier| earlier.gone_at <= gone_at) {
            return;
        }
        let counted = counted || earlier.is_some_and(|earlier| earlier.counted);
        pod.deletion_at = Some(now.plus(grace));
        pod.deletion_grace = Some(grace);
        let departure = Departure {
            gone_at,
            counted,
            replaced_at: None,
            look_at: gone_at,
            pod,
        };
        self.departures.insert(departure.pod.uid.clone(), departure);
    }

    /// Starts pods in the place of those that are gone, on the nodes that `choose` finds for them. Returns what
    /// happened since the last time.
    pub(crate) fn settle(
        &mut self,
        seed: u64,
        now: Timestamp,
        mut choose: impl FnMut(&Pod, &mut Chance) -> Option<NodeName>,
    ) -> Settled {
        let since = self.settled_at.replace(now);
        let mut settled = Settled::default();
        for departure in self.departures.values_mut() {
            let is_due = departure.look_at <= now && departure.replaced_at.is_none() && !departure.pod.is_finished();
            if !is_due || departure.pod.controller.is_none() {
                continue;
            }
            let mut chance = Chance::of(seed, self.count, TOPIC);
            let Some(node) = choose(&departure.pod, &mut chance) else {
                departure.look_at = now.plus(LOOKS_AGAIN_AFTER);
                continue;
            };
            self.count += 1;
            settled.hosts.insert(node.clone());
            let pod = successor(&departure.pod, node, departure.gone_at, &mut chance);
            let ready_at = departure.gone_at.plus(STARTS_WITHIN);
            departure.replaced_at = Some(ready_at);
            self.arrivals.insert(pod.uid.clone(), Arrival { pod, ready_at });
        }
        let is_new = |at: Timestamp| at <= now && since.is_none_or(|since| since < at);
        let ended = self.departures.values().filter(|departure| is_new(departure.gone_at));
        settled.gone.extend(ended.map(|departure| departure.pod.uid.clone()));
        let ready = self.arrivals.values().filter(|arrival| is_new(arrival.ready_at));
        settled.hosts.extend(ready.map(|arrival| arrival.pod.node.clone()));
        // What came, went and was replaced in full is told by nothing else.
        let arrivals = &mut self.arrivals;
        self.departures.retain(|uid, departure| {
            let is_over = departure.replaced_at.is_some_and(|at| at <= now) && arrivals.contains_key(uid);
            if is_over {
                arrivals.remove(uid);
            }
            !is_over
        });
        settled
    }

    /// Takes what evictions use up out of `budget`, until the pods that take the places are ready.
    pub(crate) fn count_down(&self, budget: &mut DisruptionBudget, now: Timestamp) {
        let is_missing = |departure: &&Departure| {
            departure.counted && departure.replaced_at.is_none_or(|at| now < at) && budget.matches(&departure.pod)
        };
        let missing = self.departures.values().filter(is_missing).count();
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        budget.disruptions_allowed = budget.disruptions_allowed.saturating_sub(missing);
        budget.current_healthy = budget.current_healthy.saturating_sub(missing);
    }

    /// Forgets that a pod was evicted: it was put there again by hand.
    pub(crate) fn forget_pod(&mut self, uid: &str) {
        self.departures.remove(uid);
    }

    /// Forgets what came to a node and went from it: it is gone.
    pub(crate) fn forget_node(&mut self, node: &NodeName) {
        self.departures.retain(|_, departure| departure.pod.node != *node);
        self.arrivals.retain(|_, arrival| arrival.pod.node != *node);
    }
}

impl Arrival {
    fn at(&self, now: Timestamp) -> Pod {
        let mut pod = self.pod.clone();
        if self.ready_at <= now {
            (pod.phase, pod.ready) = (PodPhase::Running, true);
        }
        pod
    }
}

/// The pod that takes the place of `pod`.
fn successor(pod: &Pod, node: NodeName, since: Timestamp, chance: &mut Chance) -> Pod {
    let name = match &pod.controller {
        Some(controller) if controller.kind != "StatefulSet" => format!("{}-{}", controller.name, chance.suffix(5)),
        Some(_) | None => pod.name.clone(),
    };
    Pod {
        name,
        uid: chance.uid(),
        node,
        phase: PodPhase::Pending,
        ready: false,
        created_at: Some(since),
        deletion_at: None,
        deletion_grace: None,
        ..pod.clone()
    }
}
