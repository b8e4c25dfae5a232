//! The fleet: its nodes, what changes on them, and those who watch.

mod permissions;
mod pods;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use knm_model::{
    ClusterFeature, Cordon, CordonSource, DisruptionBudget, Node, NodeName, NodePatch, NodeStatus, ObjectName, Pod,
    Timestamp,
};
use knm_ports::{ClusterError, ClusterGateway};
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::chance::Chance;
use crate::change::{Overlay, patched};
use crate::eviction::Moves;
use crate::gateway::MemoryClusterGateway;
use crate::simulated::{Role, Simulated};
use crate::workload::Workload;

/// How many changes a watcher may be behind before it is told everything anew.
const BEHIND: usize = 1024;

/// What a fleet is like.
#[derive(Clone, Copy, Debug)]
pub struct FleetOptions {
    /// How many nodes it begins with.
    pub nodes: usize,
    /// The same seed makes the same fleet.
    pub seed: u64,
    /// One node changes per tick; `None`: the fleet stands still.
    pub change_every: Option<Duration>,
    /// The time in the fleet when it begins.
    pub started_at: Timestamp,
}

/// A simulated fleet of nodes with pods and budgets.
pub struct Fleet {
    options: FleetOptions,
    /// How many pods each node has at least: what its applications lack of them is made up by others.
    pods_per_node: usize,
    began: Instant,
    state: Mutex<State>,
    told: broadcast::Sender<Told>,
}

/// What watchers are told; they read the rest from the fleet.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Applied(NodeName),
    Deleted(NodeName),
    /// There are more pods on the node, or they changed.
    Pods(NodeName),
    /// The pod with this id is gone.
    PodGone(String),
    Lost,
    Recovered,
}

struct State {
    nodes: BTreeMap<NodeName, Member>,
    /// What others changed on simulated nodes.
    overlays: BTreeMap<NodeName, Overlay>,
    /// Put there by hand, in addition to the simulated ones.
    pods: BTreeMap<(String, String), Pod>,
    budgets: BTreeMap<(String, String), DisruptionBudget>,
    daemon_sets: BTreeSet<ObjectName>,
    /// Volumes that are attached, with their nodes.
    volumes: BTreeSet<(NodeName, String)>,
    moves: Moves,
    /// What the service may not do.
    withheld: BTreeSet<ClusterFeature>,
    reachable: bool,
    /// The number of the next node that is added.
    next: u64,
    /// How many changes there were, counted through all nodes as an API server does.
    revision: u64,
    ticks: u32,
    chance: Chance,
}

/// A node of the fleet.
enum Member {
    Simulated(Simulated),
    /// Put there by hand.
    Given(Box<Node>),
}

impl Fleet {
    /// A new fleet. If it changes by itself, this must be called in a tokio runtime, where it changes until it is dropped.
    pub fn new(options: FleetOptions) -> Arc<Self> {
        Self::with_pods_per_node(options, 0)
    }

    /// A new fleet, as [`Fleet::new`] makes one, whose nodes have so many pods at least.
    pub fn with_pods_per_node(options: FleetOptions, pods_per_node: usize) -> Arc<Self> {
        let count = options.nodes as u64;
        let nodes = (0..count)
            .filter_map(|number| {
                let simulated = Simulated::initial(options.seed, number, count, options.started_at);
                Some((node_name(number, count)?, Member::Simulated(simulated)))
            })
            .collect();
        let fleet = Arc::new(Self {
            options,
            pods_per_node,
            began: Instant::now(),
            state: Mutex::new(State {
                nodes,
                overlays: BTreeMap::new(),
                pods: BTreeMap::new(),
                budgets: BTreeMap::new(),
                daemon_sets: BTreeSet::new(),
                volumes: BTreeSet::new(),
                moves: Moves::default(),
                withheld: BTreeSet::new(),
                reachable: true,
                next: count,
                revision: count,
                ticks: 0,
                chance: Chance::new(options.seed),
            }),
            told: broadcast::Sender::new(BEHIND),
        });
        if let Some(period) = options.change_every {
            let weak = Arc::downgrade(&fleet);
            tokio::spawn(async move {
                // A period of zero would be refused; nothing changes faster than that anyway.
                let mut ticks = tokio::time::interval(period.max(Duration::from_micros(1)));
                loop {
                    ticks.tick().await;
                    match weak.upgrade() {
                        Some(fleet) => fleet.change(),
                        None => break,
                    }
                }
            });
        }
        fleet
    }

    /// The access to it.
    pub fn gateway(self: &Arc<Self>) -> Arc<dyn ClusterGateway> {
        Arc::new(MemoryClusterGateway::new(Arc::clone(self)))
    }

    /// Adds a node or changes the one under its name. One that is unschedulable and has no record of a cordon was cordoned by somebody
    /// else; one that is schedulable has none.
    pub fn put_node(&self, mut node: Node) {
        let somebody_else = || Cordon::read(&BTreeMap::new(), None);
        node.cordon = match node.schedulable {
            true => None,
            false => Some(node.cordon.unwrap_or_else(somebody_else)),
        };
        let mut state = self.state();
        let name = node.name.clone();
        state.nodes.insert(name.clone(), Member::Given(Box::new(node)));
        self.tell(Told::Applied(name));
    }

    /// Removes a node, and the pods on it; nothing happens if there is none under this name.
    pub fn delete_node(&self, name: &NodeName) {
        let mut state = self.state();
        if state.nodes.contains_key(name) {
            self.remove(&mut state, name);
            state.pods.retain(|_, pod| pod.node != *name);
        }
    }

    /// Adds a disruption budget or changes the one under its namespace and name.
    pub fn put_budget(&self, budget: DisruptionBudget) {
        let key = (budget.namespace.clone(), budget.name.clone());
        self.state().budgets.insert(key, budget);
    }

    /// Adds a DaemonSet, which has only the pods that are put there.
    pub fn put_daemon_set(&self, name: ObjectName) {
        self.state().daemon_sets.insert(name);
    }

    /// Attaches a volume to a node.
    pub fn attach_volume(&self, node: NodeName, volume: &str) {
        self.state().volumes.insert((node, volume.to_owned()));
    }

    /// Detaches a volume from a node.
    pub fn detach_volume(&self, node: &NodeName, volume: &str) {
        self.state().volumes.remove(&(node.clone(), volume.to_owned()));
    }

    /// Makes the fleet unreachable.
    pub fn lose(&self) {
        let mut state = self.state();
        if std::mem::replace(&mut state.reachable, false) {
            self.tell(Told::Lost);
        }
    }

    /// Makes the fleet reachable again.
    pub fn recover(&self) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.reachable, true) {
            self.tell(Told::Recovered);
        }
    }

    /// Lets one tick pass: mostly a heartbeat, sometimes a node that fails or recovers, is cordoned or uncordoned, comes or goes.
    pub fn change(&self) {
        let mut state = self.state();
        state.ticks = state.ticks.saturating_add(1);
        let now = self.now(&state);
        self.settle(&mut state);
        let size = state.nodes.len() as u64;
        let place = state.chance.below(size);
        let dice = state.chance.below(1000);
        if dice < 5 && size < self.fleet() + self.slack() {
            return self.add(&mut state, now);
        }
        let Some(name) = state.nodes.keys().nth(place as usize).cloned() else {
            return;
        };
        state.revision += 1;
        let revision = state.revision;
        let is_held = state.overlays.get(&name).is_some_and(Overlay::is_cordon);
        let Some(Member::Simulated(node)) = state.nodes.get_mut(&name) else {
            return;
        };
        let before = node.status;
        let control_plane = Role::of(node.number, self.fleet()) == Role::ControlPlane;
        if !control_plane && (5..10).contains(&dice) && self.fleet() < size + self.slack() {
            return self.remove(&mut state, &name);
        }
        node.revision = revision;
        if !control_plane {
            let cordon = node.cordon;
            node.live(dice, now);
            if is_held {
                node.cordon = cordon;
            }
        }
        if node.status != NodeStatus::Unknown {
            node.heartbeat_at = now;
        }
        let is_other = node.status != before;
        self.tell(Told::Applied(name.clone()));
        if is_other {
            // How pods are depends on how their node is.
            self.tell(Told::Pods(name));
        }
    }

    pub(crate) fn reachable(&self) -> Result<(), ClusterError> {
        reachable(&self.state())
    }

    /// All nodes, and what happens to them from then on.
    pub(crate) fn watch(&self) -> (Result<Vec<Node>, ClusterError>, broadcast::Receiver<Told>) {
        let state = self.state();
        (self.all(&state), self.told.subscribe())
    }

    /// All nodes, for a watcher that lost track: what `behind` still holds is forgotten, because it is in the list.
    pub(crate) fn catch_up(&self, behind: &mut broadcast::Receiver<Told>) -> Result<Vec<Node>, ClusterError> {
        let state = self.state();
        *behind = self.told.subscribe();
        self.all(&state)
    }

    /// The node as it is now; `None` if there is none or the fleet cannot be reached.
    pub(crate) fn node(&self, name: &NodeName) -> Option<Node> {
        let state = self.state();
        let member = state.nodes.get(name).filter(|_| state.reachable)?;
        Some(self.whole(&state, name, member))
    }

    /// Changes a node as somebody else than the simulation wants it; with `dry_run` only says what would come of it.
    pub(crate) fn patch(&self, name: &NodeName, patch: &NodePatch, dry_run: bool) -> Result<Node, ClusterError> {
        let mut guard = self.state();
        let state = &mut *guard;
        reachable(state)?;
        let what = || format!("node {name}");
        let Some(member) = state.nodes.get(name) else {
            return Err(ClusterError::NotFound { what: what() });
        };
        let before = self.whole(state, name, member);
        let is_expected = |version: &String| *version == before.resource_version;
        if !patch.resource_version.as_ref().is_none_or(is_expected) {
            return Err(ClusterError::Conflict { what: what() });
        }
        let mut after = patched(&before, patch, self.now(state));
        if dry_run {
            return Ok(after);
        }
        // A node that was put there by hand came with a version of its own.
        let known = before.resource_version.parse().unwrap_or(0);
        state.revision = state.revision.max(known) + 1;
        after.resource_version = state.revision.to_string();
        if let Some(Member::Simulated(simulated)) = state.nodes.get_mut(name) {
            simulated.revision = state.revision;
            let overlay = state.overlays.entry(name.clone()).or_default();
            overlay.note(patch, &before, &after, simulated);
        } else {
            let given = Member::Given(Box::new(after.clone()));
            state.nodes.insert(name.clone(), given);
        }
        self.tell(Told::Applied(name.clone()));
        Ok(state
            .nodes
            .get(name)
            .map_or(after, |member| self.whole(state, name, member)))
    }

    fn all(&self, state: &State) -> Result<Vec<Node>, ClusterError> {
        reachable(state)?;
        Ok(state
            .nodes
            .iter()
            .map(|(name, member)| self.whole(state, name, member))
            .collect())
    }

    fn whole(&self, state: &State, name: &NodeName, member: &Member) -> Node {
        match member {
            Member::Simulated(node) => {
                let mut node = node.node(self.options.seed, self.fleet(), name);
                if let Some(overlay) = state.overlays.get(name) {
                    overlay.apply(&mut node);
                }
                node
            }
            Member::Given(node) => node.as_ref().clone(),
        }
    }

    /// The time by which pods come and go: it passes in a fleet that stands still, too.
    fn pod_time(&self, state: &State) -> Timestamp {
        self.now(state).max(self.options.started_at.plus(self.began.elapsed()))
    }

    /// The time in the fleet, by which nodes change.
    fn now(&self, state: &State) -> Timestamp {
        let passed = self.options.change_every.unwrap_or(Duration::from_secs(1)) * state.ticks;
        self.options.started_at.plus(passed)
    }

    /// Removes a node with what is simulated on it.
    fn remove(&self, state: &mut State, name: &NodeName) {
        let pods = self.pods_of(state, name);
        state.nodes.remove(name);
        state.overlays.remove(name);
        state.moves.forget_node(name);
        self.tell(Told::Deleted(name.clone()));
        pods.into_iter().for_each(|pod| self.tell(Told::PodGone(pod.uid)));
    }

    fn add(&self, state: &mut State, now: Timestamp) {
        let number = state.next;
        let Some(name) = node_name(number, self.fleet()) else {
            return;
        };
        state.next += 1;
        state.revision += 1;
        let node = Simulated {
            number,
            created_at: now,
            status: NodeStatus::NotReady,
            status_since: now,
            cordon: None,
            heartbeat_at: now,
            revision: state.revision,
        };
        state.nodes.insert(name.clone(), Member::Simulated(node));
        self.tell(Told::Applied(name.clone()));
        self.tell(Told::Pods(name));
    }

    /// What the fleet runs.
    fn workload(&self) -> Workload {
        Workload {
            seed: self.options.seed,
            fleet: self.fleet(),
            pods_per_node: self.pods_per_node,
        }
    }

    /// How many nodes the fleet began with.
    fn fleet(&self) -> u64 {
        self.options.nodes as u64
    }

    /// By how many nodes its size may differ from that.
    fn slack(&self) -> u64 {
        1 + self.fleet() / 50
    }

    /// Called with the state locked, so that watchers are told in the order in which it happened.
    fn tell(&self, told: Told) {
        // Without watchers there is nobody to tell.
        let _ = self.told.send(told);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Simulated {
    /// What `dice`, a number below 1000, brings to a node: few fail or are cordoned, and those do not stay so for long.
    fn live(&mut self, dice: u64, now: Timestamp) {
        let status = match (self.status, dice) {
            (NodeStatus::Ready, 10..20) => NodeStatus::NotReady,
            (NodeStatus::Ready, 20..25) => NodeStatus::Unknown,
            (NodeStatus::NotReady | NodeStatus::Unknown, 10..400) => NodeStatus::Ready,
            (status, _) => status,
        };
        if status != self.status {
            (self.status, self.status_since) = (status, now);
        }
        self.cordon = match (self.cordon, dice) {
            (None, 500..520) => Some((CordonSource::Foreign, now)),
            (Some(_), 500..750) => None,
            (cordon, _) => cordon,
        };
    }
}

fn node_name(number: u64, fleet: u64) -> Option<NodeName> {
    NodeName::parse(&Simulated::name(number, fleet)).ok()
}

fn reachable(state: &State) -> Result<(), ClusterError> {
    match state.reachable {
        true => Ok(()),
        false => Err(ClusterError::Unavailable {
            source: "the simulated fleet was made unreachable".into(),
        }),
    }
}
