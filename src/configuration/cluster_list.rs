//! The list of clusters.

use std::collections::BTreeSet;
use std::path::PathBuf;

use config::{Map, Value, ValueKind};
use knm_model::ClusterName;

use super::nearest::nearest;
use super::value::{Origin, plain};

/// A cluster as it is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSetting {
    /// Its name here.
    pub name: ClusterName,
    /// Where the access to it comes from.
    pub source: SourceSetting,
}

/// Where the access to a cluster comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceSetting {
    /// The service account of this pod.
    InCluster,
    /// A context of a kubeconfig file, its current one without a name.
    Kubeconfig { path: PathBuf, context: Option<String> },
    /// A simulated fleet.
    Demo(DemoSetting),
}

/// A simulated fleet.
#[derive(Clone, Debug, PartialEq)]
pub struct DemoSetting {
    /// How many nodes, 1 to 10,000.
    pub nodes: usize,
    /// How many pods each node has at least, up to 250; with 0 those of its applications.
    pub pods_per_node: usize,
    /// The same seed makes the same fleet.
    pub seed: u64,
    /// How many nodes change per second; with 0 the fleet stands still.
    pub changes_per_second: f64,
}

impl Default for DemoSetting {
    fn default() -> Self {
        Self {
            nodes: 30,
            pods_per_node: 0,
            seed: 1,
            changes_per_second: 1.0,
        }
    }
}

const SOURCES: &str =
    "in-cluster, kubeconfig: {path, context} or demo: {nodes, pods_per_node, seed, changes_per_second} is";

/// Reads the list and adds to `problems` what is wrong with it.
pub fn read(value: &Value, origin: &Origin, problems: &mut Vec<String>) -> Vec<ClusterSetting> {
    let ValueKind::Array(items) = &value.kind else {
        problems.push(format!(
            "clusters ({origin}) is not a list: a list of {{name, source}} is allowed"
        ));
        return Vec::new();
    };
    let mut reader = Reader { origin, problems };
    let mut names = BTreeSet::new();
    let mut clusters = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let place = format!("clusters[{index}]");
        let Some(cluster) = reader.cluster(&place, item) else {
            continue;
        };
        if !names.insert(cluster.name.clone()) {
            reader.complain(
                &place,
                &format!("name \"{}\" is taken by an earlier cluster", cluster.name),
            );
        }
        clusters.push(cluster);
    }
    clusters
}

struct Reader<'a> {
    origin: &'a Origin,
    problems: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn complain(&mut self, place: &str, what: &str) {
        self.problems.push(format!("{place} ({}): {what}", self.origin));
    }

    fn cluster(&mut self, place: &str, item: &Value) -> Option<ClusterSetting> {
        let table = self.table(place, item, &["name", "source"])?;
        let name = match table.get("name").and_then(plain) {
            None => {
                self.complain(place, "name is missing");
                None
            }
            Some(text) => ClusterName::parse(&text)
                .map_err(|error| self.complain(&format!("{place}.name"), &error.to_string()))
                .ok(),
        };
        let source = self.source(&format!("{place}.source"), table.get("source"));
        Some(ClusterSetting {
            name: name?,
            source: source?,
        })
    }

    fn source(&mut self, place: &str, value: Option<&Value>) -> Option<SourceSetting> {
        let Some(value) = value else {
            self.complain(place, &format!("it is missing: {SOURCES} allowed"));
            return None;
        };
        if let Some(word) = plain(value) {
            return match word.as_str() {
                "in-cluster" => Some(SourceSetting::InCluster),
                "demo" => Some(SourceSetting::Demo(DemoSetting::default())),
                _ => {
                    self.complain(place, &format!("\"{word}\" is not allowed: {SOURCES}"));
                    None
                }
            };
        }
        let table = self.table(place, value, &["in-cluster", "kubeconfig", "demo"])?;
        let mut kinds = table.iter();
        let (Some((kind, options)), None) = (kinds.next(), kinds.next()) else {
            self.complain(place, &format!("exactly one source is needed: {SOURCES} allowed"));
            return None;
        };
        let inside = format!("{place}.{kind}");
        match kind.as_str() {
            "in-cluster" => Some(SourceSetting::InCluster),
            "kubeconfig" => self.kubeconfig(&inside, options),
            _ => self.demo(&inside, options),
        }
    }

    fn kubeconfig(&mut self, place: &str, options: &Value) -> Option<SourceSetting> {
        let table = self.table(place, options, &["path", "context"])?;
        let Some(path) = table.get("path").and_then(plain).filter(|path| !path.is_empty()) else {
            self.complain(place, "path is missing: the path of a kubeconfig file is needed");
            return None;
        };
        Some(SourceSetting::Kubeconfig {
            path: PathBuf::from(path),
            context: table
                .get("context")
                .and_then(plain)
                .filter(|context| !context.is_empty()),
        })
    }

    fn demo(&mut self, place: &str, options: &Value) -> Option<SourceSetting> {
        let mut demo = DemoSetting::default();
        if matches!(options.kind, ValueKind::Nil) {
            return Some(SourceSetting::Demo(demo));
        }
        let table = self.table(
            place,
            options,
            &["nodes", "pods_per_node", "seed", "changes_per_second"],
        )?;
        if let Some(value) = table.get("nodes") {
            demo.nodes = self.checked(
                &format!("{place}.nodes"),
                value,
                "a whole number from 1 to 10000",
                |nodes| (1..=10_000).contains(nodes),
            )?;
        }
        if let Some(value) = table.get("pods_per_node") {
            let place = format!("{place}.pods_per_node");
            demo.pods_per_node = self.checked(&place, value, "a whole number from 0 to 250", |pods| {
                (0..=250).contains(pods)
            })?;
        }
        if let Some(value) = table.get("seed") {
            demo.seed = self.checked(&format!("{place}.seed"), value, "a whole number from 0", |_| true)?;
        }
        if let Some(value) = table.get("changes_per_second") {
            let place = format!("{place}.changes_per_second");
            demo.changes_per_second = self.checked(&place, value, "a number from 0 to 10000", |rate: &f64| {
                (0.0..=10_000.0).contains(rate)
            })?;
        }
        Some(SourceSetting::Demo(demo))
    }

    fn checked<T: std::str::FromStr>(
        &mut self,
        place: &str,
        value: &Value,
        allowed: &str,
        fits: impl Fn(&T) -> bool,
    ) -> Option<T> {
        let text = plain(value).unwrap_or_else(|| "a list or section".to_owned());
        let read = text.parse().ok().filter(|number| fits(number));
        if read.is_none() {
            self.complain(place, &format!("\"{text}\" is not allowed: {allowed} is"));
        }
        read
    }

    fn table<'v>(&mut self, place: &str, value: &'v Value, keys: &[&'static str]) -> Option<&'v Map<String, Value>> {
        let ValueKind::Table(table) = &value.kind else {
            self.complain(place, &format!("it is not a section with {}", keys.join(", ")));
            return None;
        };
        for key in table.keys().filter(|key| !keys.contains(&key.as_str())) {
            let meant = nearest(key, keys.iter().copied()).unwrap_or_default();
            self.complain(
                place,
                &format!("the key \"{key}\" is not known; the nearest is \"{meant}\""),
            );
        }
        Some(table)
    }
}
