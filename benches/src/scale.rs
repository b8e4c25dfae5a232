//! What nodes, pods and clusters cost: memory, time on a core and requests to API servers, at several sizes, and the law they follow.

mod real;
mod simulated;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;

use crate::Failure;
use crate::fit::Line;

pub use real::Wanted;
pub use simulated::{Cost, Fleet};

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Measure {
    /// One simulated cluster that grows, with the pods of its applications and with 30 on each node
    Nodes,
    /// More and more simulated clusters of 500 nodes
    Clusters,
    /// A real API server
    ApiServer,
}

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The file of the service.
    pub binary: PathBuf,
    /// What is measured, in this order.
    pub measures: Vec<Measure>,
    /// How long it is looked at while nobody asks, and again while somebody does.
    pub time: Duration,
    /// What is put onto the real API server.
    pub wanted: Wanted,
}

/// Takes each line as soon as there is one.
pub type Tell<'a> = &'a mut (dyn FnMut(&str) -> Result<(), Failure> + Send);

/// Nodes of one cluster.
const NODES: [usize; 4] = [500, 1_000, 2_000, 5_000];
/// Pods on each node: those of the applications of the simulation, and as many as 5,000 nodes with 150,000 pods have.
const PODS: [usize; 2] = [0, 30];
const CLUSTERS: [usize; 4] = [1, 10, 25, 50];
/// Nodes of each of many clusters.
const EACH: usize = 500;
const MEBIBYTE: f64 = 1_048_576.0;

/// Measures what `plan` says.
pub async fn run(plan: &Plan, tell: Tell<'_>) -> Result<(), Failure> {
    for measure in &plan.measures {
        match measure {
            Measure::Nodes => nodes(&plan.binary, plan.time, tell).await?,
            Measure::Clusters => clusters(&plan.binary, plan.time, tell).await?,
            Measure::ApiServer => real::measure(&plan.binary, plan.wanted, plan.time, tell).await?,
        }
        tell("")?;
    }
    Ok(())
}

async fn nodes(binary: &Path, time: Duration, tell: Tell<'_>) -> Result<(), Failure> {
    tell(Cost::HEAD)?;
    let mut series = Vec::new();
    for pods_per_node in PODS {
        let mut costs = Vec::new();
        for nodes in NODES {
            let fleet = Fleet {
                clusters: 1,
                nodes,
                pods_per_node,
            };
            let cost = simulated::measure(binary, fleet, time).await?;
            tell(&cost.to_string())?;
            costs.push(cost);
        }
        series.push(costs);
    }
    tell("")?;
    let lines: Vec<Option<Line>> = series
        .iter()
        .map(|costs| line(costs, |cost| cost.nodes as f64))
        .collect();
    for (costs, law) in series.iter().zip(&lines) {
        let per_node = costs.last().map_or(0.0, Cost::pods_per_node);
        tell(&law_of(&format!("a node with {per_node:.1} pods"), law.as_ref()))?;
    }
    if let ([few, many], [Some(of_few), Some(of_many)]) = (series.as_slice(), lines.as_slice()) {
        let of = |costs: &[Cost]| costs.last().map_or(f64::NAN, Cost::pods_per_node);
        let pod = (of_many.slope - of_few.slope) / (of(many) - of(few));
        let node = of_few.slope - pod * of(few);
        tell(&format!(
            "so a pod takes {:.0} bytes, and a node without pods {:.0}",
            pod * MEBIBYTE,
            node * MEBIBYTE
        ))?;
    }
    Ok(())
}

async fn clusters(binary: &Path, time: Duration, tell: Tell<'_>) -> Result<(), Failure> {
    tell(Cost::HEAD)?;
    let mut costs = Vec::new();
    for clusters in CLUSTERS {
        let fleet = Fleet {
            clusters,
            nodes: EACH,
            pods_per_node: 0,
        };
        let cost = simulated::measure(binary, fleet, time).await?;
        tell(&cost.to_string())?;
        costs.push(cost);
    }
    tell("")?;
    let law = line(&costs, |cost| cost.clusters as f64);
    tell(&law_of(&format!("a cluster of {EACH} nodes"), law.as_ref()))
}

/// How memory, in MiB, grows with something.
fn line(costs: &[Cost], of: fn(&Cost) -> f64) -> Option<Line> {
    let points: Vec<_> = costs.iter().map(|cost| (of(cost), cost.listed)).collect();
    Line::through(&points)
}

fn law_of(what: &str, law: Option<&Line>) -> String {
    match law {
        Some(line) => format!(
            "{what} takes {:.1} KiB (with 95 % between {:.1} and {:.1}), on top of {:.0} MiB; R² = {:.4}",
            line.slope * 1_024.0,
            line.at_least() * 1_024.0,
            line.at_most() * 1_024.0,
            line.intercept,
            line.r_squared
        ),
        None => format!("too little was measured to tell what {what} takes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_law_is_told_in_kibibytes_with_its_certainty() {
        let costs: Vec<Cost> = [1, 10, 25, 50]
            .map(|clusters| Cost {
                clusters,
                listed: 40.0 + 2.5 * clusters as f64,
                ..Cost::default()
            })
            .into();
        let law = line(&costs, |cost| cost.clusters as f64);
        let told = law_of("a cluster", law.as_ref());
        assert!(
            told.starts_with("a cluster takes 2560.0 KiB (with 95 % between 2560.0 and 2560.0)"),
            "{told}"
        );
        assert!(told.ends_with("on top of 40 MiB; R² = 1.0000"), "{told}");
        assert!(law_of("a cluster", None).contains("too little"));
    }
}
