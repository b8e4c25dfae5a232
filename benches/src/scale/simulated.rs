//! Simulated clusters of one size.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::Failure;
use crate::client::{Target, fetch, load};
use crate::process::{Process, free_port};
use crate::service;

/// How often a second each cluster changes.
const CHANGES: u32 = 20;
/// How long the clusters may take until all of them are known.
const PATIENCE: Duration = Duration::from_secs(180);
/// What the start leaves is done by then.
const SETTLING: Duration = Duration::from_secs(5);
/// How many ask at once under load.
const CALLERS: usize = 8;

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    /// How many clusters.
    pub clusters: usize,
    /// Nodes of each.
    pub nodes: usize,
    /// Pods on each node at least; 0 for those of the applications of the simulation.
    pub pods_per_node: usize,
}

/// What it costs.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    /// How many clusters.
    pub clusters: usize,
    /// Nodes of all of them.
    pub nodes: usize,
    /// Pods of all of them.
    pub pods: usize,
    /// How long it took from the start of the process until all were known.
    pub known_after: Duration,
    /// Resident memory before anybody asked, in MiB.
    pub resident: f64,
    /// The same after every list was asked for: rendered nodes are kept.
    pub listed: f64,
    /// The most while pages were asked for without a pause, in MiB.
    pub most: f64,
    /// The part of a core that it takes while nothing but the changes of the clusters happens.
    pub idle: f64,
    /// How many pages of 100 nodes a second were answered.
    pub per_second: f64,
    /// The part of a core that it took meanwhile.
    pub busy: f64,
}

impl Cost {
    /// The first two lines of a table in Markdown.
    pub const HEAD: &'static str = "| clusters | nodes | pods | known after | RSS, MiB | after every list | under load | core, idle with changes | pages of 100 nodes/s | core under load |\n\
        |--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|";

    /// How many pods a node has.
    #[must_use]
    pub fn pods_per_node(&self) -> f64 {
        self.pods as f64 / self.nodes as f64
    }
}

/// A row of the table.
impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "| {} | {} | {} | {:.1} s | {:.0} | {:.0} | {:.0} | {:.1} % | {:.0} | {:.0} % |",
            self.clusters,
            self.nodes,
            self.pods,
            self.known_after.as_secs_f64(),
            self.resident,
            self.listed,
            self.most,
            100.0 * self.idle,
            self.per_second,
            100.0 * self.busy
        )
    }
}

/// Measures what `fleet` costs; `time` is how long it is looked at while nobody asks, and again under load.
pub(super) async fn measure(binary: &Path, fleet: Fleet, time: Duration) -> Result<Cost, Failure> {
    let folder = tempfile::Builder::new().prefix("knm-bench-").tempdir()?;
    let port = free_port()?;
    let mut command = service::serve(Command::new(binary), folder.path(), port);
    command.env("KNM__CLUSTERS", fleet.setting()).env("LOG_LEVEL", "warn");
    let start = Instant::now();
    let (process, _) = Process::start(command, port, "/health/ready", &folder.path().join("log")).await?;
    let mut cost = known(port, fleet, start).await?;
    sleep(SETTLING).await;
    cost.resident = process.memory()?.resident;

    let on_core = process.on_core()?;
    let began = Instant::now();
    sleep(time).await;
    cost.idle = (process.on_core()? - on_core).as_secs_f64() / began.elapsed().as_secs_f64();

    for name in fleet.names() {
        let list = fetch(&Target::get(port, &format!("/api/v1/clusters/{name}/nodes"))).await?;
        if list.status != 200 {
            return Err(format!("the list of {name} was answered with {}", list.status).into());
        }
    }
    cost.listed = process.memory()?.resident;
    let page = Target::get(port, &format!("/api/v1/clusters/{}/nodes?limit=100", fleet.name(0)));
    let on_core = process.on_core()?;
    let began = Instant::now();
    let (run, most) = process.watched(load(&page, CALLERS, time)).await?;
    cost.busy = (process.on_core()? - on_core).as_secs_f64() / began.elapsed().as_secs_f64();
    (cost.most, cost.per_second) = (most, run.per_second);
    process.end().await?;
    Ok(cost)
}

/// Waits until every cluster is known with its pods.
async fn known(port: u16, fleet: Fleet, start: Instant) -> Result<Cost, Failure> {
    let mut cost = Cost {
        clusters: fleet.clusters,
        ..Cost::default()
    };
    for name in fleet.names() {
        let target = Target::get(port, &format!("/api/v1/clusters/{name}"));
        loop {
            let cluster: Value = serde_json::from_slice(&fetch(&target).await?.body)?;
            let count = |value: &Value| {
                value
                    .as_u64()
                    .and_then(|count| usize::try_from(count).ok())
                    .unwrap_or_default()
            };
            if cluster["stale"] == false && cluster["pods"]["stale"] == false {
                cost.nodes += count(&cluster["nodes"]);
                cost.pods += count(&cluster["pods"]["total"]);
                break;
            }
            if PATIENCE < start.elapsed() {
                return Err(format!("{name} is not known after {} s: {cluster}", PATIENCE.as_secs()).into());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    cost.known_after = start.elapsed();
    Ok(cost)
}

impl Fleet {
    fn name(self, number: usize) -> String {
        format!("c{number:02}")
    }

    fn names(self) -> impl Iterator<Item = String> {
        (0..self.clusters).map(move |number| self.name(number))
    }

    /// The list of clusters as the configuration has it.
    fn setting(self) -> String {
        let (nodes, pods) = (self.nodes, self.pods_per_node);
        let each = (0..self.clusters).map(|number| {
            format!(
                "{{name: {}, source: {{demo: {{nodes: {nodes}, pods_per_node: {pods}, seed: {}, changes_per_second: {CHANGES}}}}}}}",
                self.name(number),
                number + 1
            )
        });
        format!("[{}]", each.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_is_a_list_of_clusters_with_names_and_seeds_of_their_own() {
        let fleet = Fleet {
            clusters: 2,
            nodes: 500,
            pods_per_node: 30,
        };
        let expected = "[{name: c00, source: {demo: {nodes: 500, pods_per_node: 30, seed: 1, changes_per_second: 20}}}, \
            {name: c01, source: {demo: {nodes: 500, pods_per_node: 30, seed: 2, changes_per_second: 20}}}]";
        assert_eq!(fleet.setting(), expected);
    }

    #[test]
    fn a_row_has_a_cell_for_each_column() {
        let columns = Cost::HEAD.lines().next().unwrap_or_default().matches('|').count();
        assert_eq!(Cost::default().to_string().matches('|').count(), columns);
    }
}
