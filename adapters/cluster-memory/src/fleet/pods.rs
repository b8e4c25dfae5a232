//! What runs on the fleet's nodes, and what protects it.

use std::collections::BTreeSet;

use knm_model::{DisruptionBudget, Node, NodeName, NodeStatus, ObjectName, Pod, Taint, TaintEffect};
use knm_ports::{ClusterError, EvictOptions, Eviction, PodRef};
use tokio::sync::broadcast;

use super::{Fleet, Member, State, Told, reachable};
use crate::workload;

impl Fleet {
    /// Adds a pod or changes the one under its namespace and name.
    pub fn put_pod(&self, pod: Pod) {
        let key = (pod.namespace.clone(), pod.name.clone());
        let mut state = self.state();
        state.moves.forget_pod(&pod.uid);
        let (node, uid) = (pod.node.clone(), pod.uid.clone());
        if let Some(before) = state.pods.insert(key, pod).filter(|before| before.uid != uid) {
            self.tell(Told::PodGone(before.uid));
        }
        self.tell(Told::Pods(node));
    }

    /// Removes a pod that was put there; nothing happens if there is none under this name.
    pub fn remove_pod(&self, namespace: &str, name: &str) {
        let mut state = self.state();
        if let Some(pod) = state.pods.remove(&(namespace.to_owned(), name.to_owned())) {
            self.tell(Told::PodGone(pod.uid));
        }
    }

    pub(crate) fn pods(&self, name: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        let mut state = self.state();
        reachable(&state)?;
        self.settle(&mut state);
        let mut pods = self.pods_of(&state, name);
        pods.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
        Ok(pods)
    }

    pub(crate) fn daemon_sets(&self) -> Result<BTreeSet<ObjectName>, ClusterError> {
        let state = self.state();
        reachable(&state)?;
        let mut daemon_sets = state.daemon_sets.clone();
        if 0 < self.options.nodes {
            daemon_sets.extend(workload::daemon_sets());
        }
        Ok(daemon_sets)
    }

    /// The nodes that may have pods, and what happens on them from then on.
    pub(crate) fn watch_pods(&self) -> (Result<Vec<NodeName>, ClusterError>, broadcast::Receiver<Told>) {
        let state = self.state();
        let with_pods = state.pods.values().map(|pod| &pod.node);
        let names: BTreeSet<_> = state.nodes.keys().chain(with_pods).cloned().collect();
        let names = reachable(&state).map(|()| names.into_iter().collect());
        (names, self.told.subscribe())
    }

    pub(crate) fn budgets(&self) -> Result<Vec<DisruptionBudget>, ClusterError> {
        let mut state = self.state();
        reachable(&state)?;
        self.settle(&mut state);
        let mut budgets = self.budgets_of(&state);
        budgets.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
        Ok(budgets)
    }

    /// Lets go of a pod as its budgets allow; with `dry_run` only says whether it would.
    pub(crate) fn evict(&self, wanted: &PodRef, options: &EvictOptions) -> Result<Eviction, ClusterError> {
        let mut guard = self.state();
        let state = &mut *guard;
        reachable(state)?;
        self.settle(state);
        let Some(pod) = self.pod(state, &wanted.namespace, &wanted.name) else {
            return Ok(Eviction::Gone);
        };
        if pod.uid != wanted.uid {
            return Ok(Eviction::Replaced);
        }
        let budgets = match pod.is_outside_budgets() {
            true => Vec::new(),
            false => self.budgets_of(state),
        };
        let matching: Vec<_> = budgets.iter().filter(|budget| budget.matches(&pod)).collect();
        let counted = match matching.as_slice() {
            [] => false,
            [budget] if budget.lets_go(&pod) => false,
            [budget] if 0 < budget.disruptions_allowed => true,
            [budget] => {
                let (name, needed, healthy) = (&budget.name, budget.desired_healthy, budget.current_healthy);
                return Ok(Eviction::Blocked {
                    budget: Some(name.clone()),
                    message: format!(
                        "The disruption budget {name} needs {needed} healthy pods and has {healthy} currently"
                    ),
                    retry_after: None,
                });
            }
            _ => {
                return Ok(Eviction::SeveralBudgets {
                    message: "This pod has more than one PodDisruptionBudget".to_owned(),
                });
            }
        };
        if !options.dry_run {
            self.send_away(state, pod, counted, options);
        }
        Ok(Eviction::Accepted)
    }

    /// Deletes a pod, whatever its budgets say; with `dry_run` only says whether it would.
    pub(crate) fn delete_pod(&self, wanted: &PodRef, options: &EvictOptions) -> Result<Eviction, ClusterError> {
        let mut guard = self.state();
        let state = &mut *guard;
        reachable(state)?;
        self.settle(state);
        match self.pod(state, &wanted.namespace, &wanted.name) {
            None => Ok(Eviction::Gone),
            Some(pod) if pod.uid != wanted.uid => Ok(Eviction::Replaced),
            Some(pod) => {
                if !options.dry_run {
                    // Its absence counts in budgets as that of an evicted pod does.
                    let counted = !pod.is_outside_budgets();
                    self.send_away(state, pod, counted, options);
                }
                Ok(Eviction::Accepted)
            }
        }
    }

    fn send_away(&self, state: &mut State, pod: Pod, counted: bool, options: &EvictOptions) {
        let (node, uid) = (pod.node.clone(), pod.uid.clone());
        let now = self.pod_time(state);
        state.moves.evict(pod, counted, options, now);
        match self.pods_of(state, &node).iter().any(|pod| pod.uid == uid) {
            true => self.tell(Told::Pods(node)),
            false => self.tell(Told::PodGone(uid)),
        }
        self.settle(state);
    }

    /// Lets what time does to pods happen, and tells it.
    pub(crate) fn let_time_pass(&self) {
        let mut state = self.state();
        self.settle(&mut state);
    }

    pub(crate) fn attached_volumes(&self, node: &NodeName) -> Result<Vec<String>, ClusterError> {
        let state = self.state();
        reachable(&state)?;
        let volumes = state.volumes.iter().filter(|(on, _)| on == node);
        Ok(volumes.map(|(_, volume)| volume.clone()).collect())
    }

    pub(super) fn pods_of(&self, state: &State, name: &NodeName) -> Vec<Pod> {
        let mut pods = match state.nodes.get(name) {
            Some(Member::Simulated(node)) => self.workload().pods(name, node),
            Some(Member::Given(_)) | None => Vec::new(),
        };
        pods.extend(state.pods.values().filter(|pod| pod.node == *name).cloned());
        state.moves.apply(name, &mut pods, self.pod_time(state));
        pods
    }

    fn pod(&self, state: &State, namespace: &str, name: &str) -> Option<Pod> {
        let now = self.pod_time(state);
        let given = state.pods.get(&(namespace.to_owned(), name.to_owned())).cloned();
        let simulated = state.nodes.iter().filter_map(|(host, member)| match member {
            Member::Simulated(node) => self.workload().pod(host, node, namespace, name),
            Member::Given(_) => None,
        });
        let mut found: Vec<Pod> = state
            .moves
            .arrived(namespace, name, now)
            .chain(given)
            .chain(simulated)
            .collect();
        state.moves.depart(&mut found, now);
        found.into_iter().next()
    }

    /// Starts pods in the place of those that are gone, and tells what else time did to pods.
    pub(super) fn settle(&self, state: &mut State) {
        let now = self.pod_time(state);
        let mut moves = std::mem::take(&mut state.moves);
        let settled = moves.settle(self.options.seed, now, |pod, chance| {
            if pod
                .controller
                .as_ref()
                .is_some_and(|controller| controller.kind == "DaemonSet")
            {
                return Some(pod.node.clone());
            }
            let count = state.nodes.len();
            let start = chance.below(count as u64) as usize;
            let around = state.nodes.iter().cycle().skip(start).take(count);
            let mut suitable = around
                .filter(|(name, member)| **name != pod.node && is_suitable(&self.whole(state, name, member), pod));
            suitable.next().map(|(name, _)| name.clone())
        });
        state.moves = moves;
        settled.gone.into_iter().for_each(|uid| self.tell(Told::PodGone(uid)));
        settled.hosts.into_iter().for_each(|host| self.tell(Told::Pods(host)));
    }

    fn budgets_of(&self, state: &State) -> Vec<DisruptionBudget> {
        let simulated = state.nodes.values().filter_map(|member| match member {
            Member::Simulated(node) => Some(node),
            Member::Given(_) => None,
        });
        let mut budgets = match self.options.nodes {
            0 => Vec::new(),
            _ => self.workload().budgets(simulated),
        };
        budgets.extend(state.budgets.values().cloned());
        for budget in &mut budgets {
            state.moves.count_down(budget, self.pod_time(state));
        }
        budgets
    }
}

/// Whether the scheduler would place `pod` there, as far as this fleet cares.
fn is_suitable(node: &Node, pod: &Pod) -> bool {
    let keeps_off = |taint: &Taint| {
        taint.effect != TaintEffect::PreferNoSchedule && !pod.tolerations.iter().any(|one| one.tolerates(taint))
    };
    let is_labelled = |(key, value)| node.labels.get(key) == Some(value);
    node.schedulable
        && node.status == NodeStatus::Ready
        && pod.node_selector.iter().all(is_labelled)
        && !node.taints.iter().any(keeps_off)
}
