//! Where metrics are recorded: those of each cluster apart, so that they can be forgotten with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use knm_model::ClusterName;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusRecorder};

/// The label by which series belong to a cluster.
const CLUSTER: &str = "cluster";

/// Records into one recorder for what belongs to no cluster and one for each cluster: a recorder forgets no series by itself.
#[derive(Clone)]
pub(crate) struct RecorderByCluster(Arc<Recorders>);

struct Recorders {
    builder: fn() -> Result<PrometheusBuilder, BuildError>,
    common: PrometheusRecorder,
    clusters: RwLock<BTreeMap<String, Arc<PrometheusRecorder>>>,
    /// What metrics mean, by name: every recorder would keep all of it.
    helps: RwLock<BTreeMap<String, SharedString>>,
}

/// One metric with all of its series.
#[derive(Default)]
struct Family<'a> {
    kind: &'a str,
    series: Vec<&'a str>,
}

impl RecorderByCluster {
    /// Makes each of its recorders as `builder` does.
    pub(crate) fn new(builder: fn() -> Result<PrometheusBuilder, BuildError>) -> Result<Self, BuildError> {
        Ok(Self(Arc::new(Recorders {
            builder,
            common: builder()?.build_recorder(),
            clusters: RwLock::default(),
            helps: RwLock::default(),
        })))
    }

    /// Folds what was observed into its buckets.
    pub(crate) fn fold(&self) {
        self.0.common.handle().run_upkeep();
        for recorder in self.recorders() {
            recorder.handle().run_upkeep();
        }
    }

    /// Forgets the series of all clusters but these.
    pub(crate) fn keep(&self, clusters: &BTreeSet<ClusterName>) {
        let mut recorders = self.0.clusters.write().unwrap_or_else(PoisonError::into_inner);
        // Names are compared as texts, because a label may hold any.
        recorders.retain(|label, _| clusters.iter().any(|name| name.as_str() == label));
    }

    /// All series, sorted by the names of their metrics.
    pub(crate) fn render(&self) -> String {
        let recorders = self.recorders();
        let texts: Vec<String> = std::iter::once(self.0.common.handle().render())
            .chain(recorders.iter().map(|recorder| recorder.handle().render()))
            .collect();
        let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
        for block in texts.iter().flat_map(|text| text.split("\n\n")) {
            let mut lines = block.lines().filter(|line| !line.is_empty());
            let told = lines
                .next()
                .and_then(|first| first.strip_prefix("# TYPE ")?.split_once(' '));
            let Some((name, kind)) = told else {
                continue;
            };
            let family = families.entry(name).or_default();
            family.kind = kind;
            family.series.extend(lines);
        }
        let helps = self.0.helps.read().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::with_capacity(texts.iter().map(String::len).sum::<usize>() * 2);
        for (name, family) in families {
            if let Some(help) = helps.get(name) {
                let help = help.replace('\\', "\\\\").replace('\n', "\\n");
                text.extend(["# HELP ", name, " ", &help, "\n"]);
            }
            text.extend(["# TYPE ", name, " ", family.kind, "\n"]);
            text.extend(family.series.into_iter().flat_map(|line| [line, "\n"]));
            text.push('\n');
        }
        text
    }

    fn recorders(&self) -> Vec<Arc<PrometheusRecorder>> {
        let recorders = self.0.clusters.read().unwrap_or_else(PoisonError::into_inner);
        recorders.values().cloned().collect()
    }

    /// Lets `record` record `key` where it belongs.
    fn with<T>(&self, key: &Key, record: impl FnOnce(&PrometheusRecorder) -> T) -> T {
        let Some(cluster) = key.labels().find(|label| label.key() == CLUSTER) else {
            return record(&self.0.common);
        };
        let known = self.0.clusters.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(recorder) = known.get(cluster.value()) {
            return record(recorder);
        }
        drop(known);
        let mut all = self.0.clusters.write().unwrap_or_else(PoisonError::into_inner);
        match (self.0.builder)() {
            Ok(builder) => {
                let made = || Arc::new(builder.build_recorder());
                record(all.entry(cluster.value().to_owned()).or_insert_with(made))
            }
            // It is the builder of the common one, so this cannot be; nothing is lost all the same.
            Err(_) => record(&self.0.common),
        }
    }

    fn describe(&self, name: &KeyName, help: SharedString) {
        let mut helps = self.0.helps.write().unwrap_or_else(PoisonError::into_inner);
        helps.entry(name.as_str().to_owned()).or_insert(help);
    }
}

impl Recorder for RecorderByCluster {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, help);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, help);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, help);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.with(key, |recorder| recorder.register_counter(key, metadata))
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.with(key, |recorder| recorder.register_gauge(key, metadata))
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.with(key, |recorder| recorder.register_histogram(key, metadata))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder() -> RecorderByCluster {
        RecorderByCluster::new(|| Ok(PrometheusBuilder::new())).unwrap()
    }

    fn names(names: &[&str]) -> BTreeSet<ClusterName> {
        names.iter().map(|name| ClusterName::from_any(name)).collect()
    }

    #[test]
    fn a_metric_is_rendered_once_with_the_series_of_all_clusters() {
        let recorder = recorder();
        metrics::with_local_recorder(&recorder, || {
            metrics::describe_counter!("asked", "How often.\nAnd \\ why.");
            for cluster in ["prod", "prod-eu"] {
                metrics::counter!("asked", "cluster" => cluster).increment(2);
            }
            metrics::counter!("asked", "of_cluster" => "prod").increment(3);
            metrics::gauge!("plain").set(4.0);
        });
        let expected = "# HELP asked How often.\\nAnd \\\\ why.\n# TYPE asked counter\nasked{of_cluster=\"prod\"} 3\n\
            asked{cluster=\"prod\"} 2\nasked{cluster=\"prod-eu\"} 2\n\n# TYPE plain gauge\nplain 4\n\n";
        assert_eq!(recorder.render(), expected);
    }

    #[test]
    fn series_of_clusters_that_are_not_kept_are_forgotten_and_begin_anew() {
        let recorder = recorder();
        let count = |cluster: &'static str| {
            metrics::with_local_recorder(&recorder, || {
                metrics::counter!("asked", "cluster" => cluster).increment(1)
            });
        };
        count("prod");
        count("prod-eu");
        recorder.keep(&names(&["prod-eu"]));
        assert_eq!(
            recorder.render(),
            "# TYPE asked counter\nasked{cluster=\"prod-eu\"} 1\n\n"
        );
        assert_eq!(recorder.recorders().len(), 1);
        count("prod");
        recorder.keep(&names(&["prod", "prod-eu"]));
        let text = recorder.render();
        assert!(
            text.contains("asked{cluster=\"prod\"} 1\n"),
            "it is another cluster: {text}"
        );
    }

    #[test]
    fn durations_of_clusters_are_folded_too() {
        let recorder = RecorderByCluster::new(|| PrometheusBuilder::new().set_buckets(&[1.0])).unwrap();
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("took", "cluster" => "prod").record(0.5);
        });
        recorder.fold();
        let text = recorder.render();
        assert!(text.contains("took_bucket{cluster=\"prod\",le=\"1\"} 1\n"), "{text}");
    }
}
