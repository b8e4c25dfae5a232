//! The same work done by the service and by kubectl, in turns.

use std::path::Path;
use std::time::Duration;

use http::Method;
use knm_test_support::cluster::pod;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::Operations;
use super::ground::Ground;
use super::kubectl::Kubectl;
use crate::Failure;
use crate::statistics::median;
use crate::table::{Bar, Row};

const LABELLED: usize = 1_000;
const CORDONED: usize = 500;
const DRAINED: usize = 10;
const PODS_PER_NODE: usize = 20;
/// How long a pod takes to end.
const FAREWELL: Duration = Duration::from_millis(250);
const PODS: &str = "/api/v1/namespaces/default/pods";

/// With its default of 500 requests a second the service cannot label 1,000 nodes in less than 2 s.
const UNBOUND: [(&str, &str); 1] = [("KNM__KUBERNETES__MAX_REQUESTS_PER_SECOND", "0")];

/// A race and what it is about.
struct Race<'a> {
    run: &'a Operations,
    ground: Ground,
    /// The word for it in names of files.
    name: &'static str,
    /// What the service is told besides its defaults.
    settings: &'static [(&'static str, &'static str)],
    /// What a reader must know of that, or of what is asked for.
    note: &'static str,
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

/// Who does the work in a turn.
#[derive(Clone, Copy)]
enum Side<'a> {
    Ours,
    Theirs(&'a Kubectl),
}

impl Operations {
    pub(super) async fn label(&self) -> Result<Row, Failure> {
        let mut race = Race::on(self, "label", LABELLED).await?;
        race.settings = &UNBOUND;
        race.note = "; the service without its limit of 500 requests a second";
        for round in 0..self.rounds {
            for side in self.sides() {
                let value = format!("{}-{round}", side.word());
                let body = json!({"kind": "label", "targets": {"label_selector": "bench"}, "options": {"set": {"bench": value}}});
                let label = format!("bench={value}");
                let arguments = ["label", "nodes", "--all", "--overwrite", label.as_str()];
                race.turn(side, round, 0, &body, &arguments).await?;
                let is_labelled = |node: &Value| node["metadata"]["labels"]["bench"] == value.as_str();
                race.ground.check_nodes("labelled", is_labelled).await?;
            }
        }
        Ok(race.row(
            "label 1,000 nodes, times as fast as kubectl label",
            "label 1,000 nodes, in s",
            2.5,
        ))
    }

    pub(super) async fn cordon(&self) -> Result<Row, Failure> {
        let mut race = Race::on(self, "cordon", CORDONED).await?;
        let names = race.ground.nodes.clone();
        for round in 0..self.rounds {
            for side in self.sides() {
                let body = json!({"kind": "cordon", "targets": {"nodes": names}, "reason": "measuring"});
                race.turn(side, round, 0, &body, &with_nodes("cordon", &names, &[]))
                    .await?;
                race.ground.check_nodes("cordoned", is_cordoned).await?;
                race.ground.uncordon().await?;
            }
        }
        Ok(race.row(
            "cordon 500 nodes, times as fast as kubectl cordon",
            "cordon 500 nodes, in s",
            40.0,
        ))
    }

    pub(super) async fn drain(&self) -> Result<Row, Failure> {
        let mut race = Race::on(self, "drain", DRAINED).await?;
        race.note = "; the service drains all ten at once, kubectl cannot";
        let names = race.ground.nodes.clone();
        let _kubelets = race.ground.server.kubelets(&Handle::current(), FAREWELL);
        for round in 0..self.rounds {
            for side in self.sides() {
                let pods = (0..DRAINED * PODS_PER_NODE).map(|number| {
                    let name = format!("pod-{}-{round}-{number}", side.word());
                    let pod = pod(&name, &names[number % DRAINED], "web");
                    (Method::POST, PODS.to_owned(), Some(pod))
                });
                race.ground.each(pods.collect()).await?;
                race.ground.wait_for_pods(DRAINED * PODS_PER_NODE).await?;
                let body = json!({"kind": "drain", "targets": {"nodes": names}, "reason": "measuring",
                    "options": {"ignore_daemonsets": true, "delete_emptydir_data": true, "force": true},
                    "strategy": {"max_concurrent": DRAINED}});
                let options = ["--ignore-daemonsets", "--delete-emptydir-data", "--force"];
                let pods = DRAINED * PODS_PER_NODE;
                race.turn(side, round, pods, &body, &with_nodes("drain", &names, &options))
                    .await?;
                race.ground.check_nodes("cordoned", is_cordoned).await?;
                if 0 < race.ground.pods(|_| true).await? {
                    return Err("pods are left on drained nodes".into());
                }
                race.ground.uncordon().await?;
            }
        }
        Ok(race.row(
            "drain 10 nodes of 20 pods, times as fast as kubectl drain",
            "drain 10 nodes of 20 pods, in s",
            10.0,
        ))
    }

    /// Who has a turn in each round.
    fn sides(&self) -> Vec<Side<'_>> {
        [Side::Ours]
            .into_iter()
            .chain(self.kubectl.as_ref().map(Side::Theirs))
            .collect()
    }
}

impl Side<'_> {
    fn word(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Theirs(_) => "theirs",
        }
    }
}

impl<'a> Race<'a> {
    async fn on(run: &'a Operations, name: &'static str, nodes: usize) -> Result<Self, Failure> {
        let ground = Ground::with_nodes(nodes).await?;
        if let Some(kubectl) = &run.kubectl {
            // What it discovers and keeps is there before anything counts.
            kubectl.time(&ground.server.kubeconfig(), &["get", "nodes"]).await?;
        }
        Ok(Self {
            run,
            ground,
            name,
            settings: &[],
            note: "",
            ours: Vec::new(),
            theirs: Vec::new(),
        })
    }

    /// Lets one side do the work. The service is there for its own turns only, and knows its cluster when they begin.
    async fn turn(
        &mut self,
        side: Side<'_>,
        round: usize,
        pods: usize,
        body: &Value,
        arguments: &[&str],
    ) -> Result<(), Failure> {
        match side {
            Side::Ours => {
                let folder: &Path = self.run.folder.path();
                let name = format!("{}-{round}", self.name);
                let service = self
                    .ground
                    .serve(&self.run.binary, folder, &name, self.settings, pods)
                    .await?;
                self.ours.push(service.time(body).await?.as_secs_f64());
                service.process.end().await
            }
            Side::Theirs(kubectl) => {
                let took = kubectl.time(&self.ground.server.kubeconfig(), arguments).await?;
                self.theirs.push(took.as_secs_f64());
                Ok(())
            }
        }
    }

    fn row(&self, compared: &'static str, alone: &'static str, bar: f64) -> Row {
        let ours = median(&self.ours).unwrap_or(f64::NAN);
        match median(&self.theirs) {
            Some(theirs) => Row {
                what: compared,
                measured: theirs / ours,
                bar: Bar::AtLeast(bar),
                detail: format!(
                    "{ours:.2} s against {theirs:.2} s, medians of {} and {}{}",
                    listed(&self.ours),
                    listed(&self.theirs),
                    self.note
                ),
            },
            None => Row {
                what: alone,
                measured: ours,
                bar: Bar::Nothing,
                detail: format!("median of {}; not compared{}", listed(&self.ours), self.note),
            },
        }
    }
}

fn with_nodes<'a>(command: &'a str, nodes: &'a [String], options: &[&'a str]) -> Vec<&'a str> {
    let names = nodes.iter().map(String::as_str);
    [command]
        .into_iter()
        .chain(names)
        .chain(options.iter().copied())
        .collect()
}

fn is_cordoned(node: &Value) -> bool {
    node["spec"]["unschedulable"] == true
}

fn listed(seconds: &[f64]) -> String {
    let texts: Vec<_> = seconds.iter().map(|time| format!("{time:.2}")).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_is_told_the_nodes_between_the_command_and_its_options() {
        let nodes = ["a".to_owned(), "b".to_owned()];
        assert_eq!(
            with_nodes("drain", &nodes, &["--force"]),
            ["drain", "a", "b", "--force"]
        );
    }
}
