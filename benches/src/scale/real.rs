//! A real API server with many nodes and pods.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use http::Method;
use knm_test_support::cluster::pod;
use tokio::time::{Instant, sleep};

use super::Tell;
use crate::Failure;
use crate::client::{Target, fetch};
use crate::operations::ground::{Ground, Service};

const PATH_OF_PODS: &str = "/api/v1/namespaces/default/pods";
const REQUESTS: &str = "kube_node_manager_kubernetes_requests_total{";
const LIST: &str = "/api/v1/clusters/test/nodes";
/// What the start leaves is done by then.
const SETTLING: Duration = Duration::from_secs(10);

/// What is put onto the server.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// How many nodes.
    pub nodes: usize,
    /// How many pods on each.
    pub pods_per_node: usize,
}

pub(super) async fn measure(binary: &Path, wanted: Wanted, time: Duration, tell: Tell<'_>) -> Result<(), Failure> {
    let start = Instant::now();
    let ground = Ground::with_nodes(wanted.nodes).await?;
    let pods = wanted.nodes * wanted.pods_per_node;
    let requests = (0..pods).map(|number| {
        let node = &ground.nodes[number % wanted.nodes];
        let app = format!("app-{:03}", number % 200);
        let pod = pod(&format!("{app}-{number}"), node, &app);
        (Method::POST, PATH_OF_PODS.to_owned(), Some(pod))
    });
    ground.each(requests.collect()).await?;
    tell(&format!(
        "a real API server with {} nodes and {pods} pods, made in {:.0} s",
        wanted.nodes,
        start.elapsed().as_secs_f64()
    ))?;

    let folder = tempfile::Builder::new().prefix("knm-bench-").tempdir()?;
    let start = Instant::now();
    let service = ground.serve(binary, folder.path(), "scale", &[], pods).await?;
    let known = start.elapsed();
    sleep(SETTLING).await;
    let before = service.process.memory()?;
    let began = asked(&service).await?;
    let on_core = service.process.on_core()?;
    sleep(time).await;
    let on_core = service.process.on_core()?.saturating_sub(on_core);
    let idle = asked(&service).await?;
    fetch(&Target::get(service.process.port, LIST)).await?;
    let after = service.process.memory()?;
    tell(&format!(
        "known after {:.1} s; RSS {:.0} MiB, {:.0} after the list of all nodes, {:.0} at most; {:.1} % of a core while nothing happens",
        known.as_secs_f64(),
        before.resident,
        after.resident,
        after.peak,
        100.0 * on_core.as_secs_f64() / time.as_secs_f64()
    ))?;
    tell(&format!("requests to it until all was known: {}", told(&began)))?;
    let more = idle
        .iter()
        .map(|(what, count)| (what.clone(), count - began.get(what).unwrap_or(&0.0)));
    let more: BTreeMap<String, f64> = more.filter(|(_, count)| 0.0 < *count).collect();
    tell(&format!(
        "requests in {} s of idling after that: {}",
        time.as_secs(),
        told(&more)
    ))?;
    service.process.end().await
}

/// Requests to the API server so far, by their labels.
async fn asked(service: &Service) -> Result<BTreeMap<String, f64>, Failure> {
    let metrics = fetch(&Target::get(service.process.port, "/metrics")).await?;
    Ok(counts(&String::from_utf8_lossy(&metrics.body)))
}

fn counts(metrics: &str) -> BTreeMap<String, f64> {
    let lines = metrics
        .lines()
        .filter_map(|line| line.strip_prefix(REQUESTS)?.split_once("} "));
    let label = |labels: &str, name: &str| {
        let mut pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
        let found = pairs.find_map(|(key, value)| (key == name).then(|| value.trim_matches('"').to_owned()));
        found.unwrap_or_default()
    };
    let named = lines.map(|(labels, count)| {
        let what = format!(
            "{} {} {}",
            label(labels, "verb"),
            label(labels, "resource"),
            label(labels, "code")
        );
        (what, count.parse().unwrap_or_default())
    });
    named.collect()
}

fn told(counts: &BTreeMap<String, f64>) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    let each = counts.iter().map(|(what, count)| format!("{count} × {what}"));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_by_verb_resource_and_code() {
        let metrics = "# TYPE x counter\nkube_node_manager_kubernetes_requests_total{cluster=\"test\",verb=\"list\",resource=\"nodes\",code=\"200\"} 4\n\
            kube_node_manager_kubernetes_requests_total{cluster=\"test\",verb=\"watch\",resource=\"pods\",code=\"200\"} 1\nup 1\n";
        assert_eq!(told(&counts(metrics)), "4 × list nodes 200, 1 × watch pods 200");
        assert_eq!(told(&counts("")), "none");
    }
}
