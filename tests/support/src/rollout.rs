//! A rolling restart of replicas while callers ask, operations run and readers follow them, as Kubernetes does it.
//!
//! Of a pod that is to go, two things begin at once: its address leaves the Service, which each node of the cluster hears of a little later,
//! and the pre-stop sleep. The signal comes after the sleep, so that nobody is led to a process that does not accept any more. The times
//! are shorter here than in a cluster, in the same order.

mod callers;
mod fleet;
mod followers;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::balancer::Balancer;
use crate::cluster::{Cluster, node, pod};
use crate::patience::wait_for;
use crate::postgres::PostgresServer;
use crate::wire::Wire;

pub use callers::{Asked, Load};
pub use fleet::Stopped;
pub use followers::Followed;

use callers::Callers;
use fleet::Fleet;
use followers::{Follower, Watcher};

pub(crate) const CLUSTER: &str = "/api/v1/clusters/test";
const BUDGET: &str = "/apis/policy/v1beta1/namespaces/default/poddisruptionbudgets";

/// What is done.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// The built service.
    pub program: String,
    /// How many replicas are replaced, one after the other.
    pub replicas: usize,
    /// How many operations run meanwhile: half of them wait for a budget, the others change one node a second.
    pub operations: usize,
    /// How many nodes each of these others goes through.
    pub nodes: usize,
    /// What callers ask for meanwhile.
    pub load: Load,
    /// From the removal of a replica from the balancer to its signal.
    pub pre_stop: Duration,
    /// How much later than the beginning of the pre-stop sleep the balancer hears of it.
    pub propagation: Duration,
}

/// What was seen.
#[derive(Debug)]
pub struct Seen {
    /// What callers got.
    pub asked: Asked,
    /// How each replica that was replaced ended.
    pub stopped: Vec<Stopped>,
    /// How long the replacement of all took.
    pub took: Duration,
    /// What readers of the operations' events got, each its operation.
    pub followed: Vec<Followed>,
    /// The state of each operation at its end.
    pub states: Vec<String>,
    /// How often each pod that should go was asked to, by what readers were told.
    pub evictions: BTreeMap<String, usize>,
    /// How many evictions the API server accepted, by its own count.
    pub accepted_evictions: usize,
    /// How often the reader of nodes had to come back, and start anew.
    pub watched: (usize, usize),
    /// What the reader of nodes knows otherwise than the service, after all changes were told.
    pub differs: Vec<String>,
}

impl Rollout {
    /// Does it; `None`, after saying so, where PostgreSQL or the API server is missing.
    ///
    /// # Panics
    /// If something that is not about the rollout breaks.
    #[must_use]
    pub fn run(&self) -> Option<Seen> {
        let database = PostgresServer::start()?;
        let cluster = self.cluster()?;
        let _kubelets = cluster.kubelets(Duration::from_millis(250));
        let balancer = Balancer::start();
        let url = database.url(&database.create_database());
        let kubeconfig = cluster.kubeconfig().display().to_string();
        let mut fleet = Fleet::new(&self.program, &balancer, &url, &kubeconfig);
        for _ in 0..self.replicas {
            fleet.add();
        }
        let operations = self.begin(&balancer);
        let follow = |id: &String| Follower::start(balancer.address(), id.clone());
        let followers: Vec<Follower> = operations.iter().map(follow).collect();
        let watcher = Watcher::start(balancer.address());
        for id in &operations {
            wait_for("an operation to run", || {
                (state(&balancer, id)? == "running").then_some(())
            });
        }

        let stop = AtomicBool::new(false);
        let (asked, stopped, took) = std::thread::scope(|scope| {
            let callers = Callers::start(scope, &self.load, self.nodes, balancer.address(), &stop);
            std::thread::sleep(Duration::from_secs(1));
            let began = Instant::now();
            let stopped: Vec<Stopped> = (0..self.replicas)
                .map(|_| fleet.replace_oldest(self.pre_stop, self.propagation))
                .collect();
            let took = began.elapsed();
            std::thread::sleep(Duration::from_secs(1));
            stop.store(true, Ordering::SeqCst);
            (callers.end(), stopped, took)
        });

        allow(&cluster, 99);
        let followed: Vec<Followed> = followers.into_iter().map(Follower::end).collect();
        let evictions = followed.iter().flat_map(|one| one.evicted.iter().cloned());
        let states = operations.iter().map(|id| state(&balancer, id).unwrap_or_default());
        Some(Seen {
            asked,
            stopped,
            took,
            states: states.collect(),
            evictions: evictions.fold(BTreeMap::new(), |mut counts, uid| {
                *counts.entry(uid).or_default() += 1;
                counts
            }),
            accepted_evictions: cluster.evictions(),
            followed,
            watched: watcher.comings_back(),
            differs: watcher.differences(),
        })
    }

    /// A cluster with a node for each drain, on it a pod that a budget keeps, and nodes to label.
    fn cluster(&self) -> Option<Cluster> {
        let cluster = Cluster::start()?;
        let drained = (0..self.drains()).map(|number| node(&format!("drained-{number}"), &json!({"pool": "drained"})));
        let labelled = (0..self.nodes).map(|number| node(&format!("labelled-{number}"), &json!({"pool": "labelled"})));
        cluster.create_nodes(drained.chain(labelled));
        for number in 0..self.drains() {
            let object = pod(&format!("guarded-{number}"), &format!("drained-{number}"), "guarded");
            cluster.create("/api/v1/namespaces/default/pods", &object);
        }
        cluster.create(
            BUDGET,
            &json!({"metadata": {"name": "guarded"},
                "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}}}),
        );
        allow(&cluster, 0);
        Some(cluster)
    }

    fn drains(&self) -> usize {
        self.operations / 2
    }

    /// Accepts all operations; their ids.
    fn begin(&self, balancer: &Balancer) -> Vec<String> {
        let drain = |number: usize| {
            json!({"kind": "drain", "reason": "kernel update", "options": {"force": true},
                "targets": {"nodes": [format!("drained-{number}")]}})
        };
        let label = |number: usize| {
            json!({"kind": "label", "options": {"set": {format!("example.com/rollout-{number}"): "done"}},
                "targets": {"label_selector": "pool=labelled"},
                "strategy": {"max_concurrent": 1, "pause_between_seconds": 1}})
        };
        let wanted = (0..self.operations).map(|number| match number < self.drains() {
            true => drain(number),
            false => label(number),
        });
        wanted.map(|body| accepted(balancer, &body)).collect()
    }
}

/// Gives the budget room, as the disruption controller would.
fn allow(cluster: &Cluster, pods: usize) {
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": pods, "currentHealthy": pods + 1,
        "desiredHealthy": 1, "expectedPods": 99}});
    cluster.change(&format!("{BUDGET}/guarded/status"), &status);
}

fn accepted(balancer: &Balancer, body: &Value) -> String {
    let mut wire = Wire::open(balancer.address());
    let reply = wire
        .send_json("POST", &format!("{CLUSTER}/operations"), &[], body)
        .expect("an answer");
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.json()["id"].as_str().expect("an id").to_owned()
}

fn state(balancer: &Balancer, id: &str) -> Option<String> {
    let mut wire = Wire::open(balancer.address());
    let reply = wire.get(&format!("/api/v1/operations/{id}"), &[]).ok()?;
    (reply.status == 200).then(|| reply.json()["state"].as_str().map(str::to_owned))?
}
