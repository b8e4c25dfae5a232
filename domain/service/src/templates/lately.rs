//! Which nodes a binding had repaired lately, so that it does not fight for ever with what changes them back.

use std::collections::BTreeMap;
use std::time::Duration;

use knm_model::{ClusterName, DefinitionName, NodeName, Timestamp};

use super::{Comparison, DriftedNode};

/// How long a node is left alone after its first repair; after each further one twice as long, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(60);
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// A node that needed no repair for so long begins anew.
const REMEMBERED: Duration = Duration::from_secs(1_800);

/// What a binding had repaired lately. It is kept in memory only: a replica that takes over repairs each node once more, which does no harm.
#[derive(Debug, Default)]
pub(super) struct Lately {
    /// By which versions: what another one wants is no repair of the same thing again.
    versions: Option<Versions>,
    nodes: BTreeMap<(ClusterName, NodeName), Repaired>,
    /// Whether it was told that something else changes the nodes.
    told: bool,
}

/// Of the binding, and of the template that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Versions {
    pub(super) binding: u32,
    pub(super) template: (DefinitionName, u32),
}

#[derive(Clone, Copy, Debug)]
struct Repaired {
    times: u32,
    at: Timestamp,
}

/// What is to be done now with nodes that lack something.
#[derive(Debug, PartialEq)]
pub(super) struct Due<'a> {
    /// These are repaired.
    pub(super) now: Vec<&'a DriftedNode>,
    /// One of those that were repaired a moment ago and wait, if it was not told yet that there are such.
    pub(super) fought_over: Option<&'a DriftedNode>,
}

impl Lately {
    /// Which of the nodes of `comparison` are repaired now. Those of clusters that cannot be seen are not: nobody knows what they lack.
    pub(super) fn due<'a>(&mut self, comparison: &'a Comparison, versions: Versions, now: Timestamp) -> Due<'a> {
        if self.versions.as_ref() != Some(&versions) {
            *self = Self {
                versions: Some(versions),
                ..Self::default()
            };
        }
        self.nodes.retain(|_, repaired| now.since(repaired.at) < REMEMBERED);
        self.told &= !self.nodes.is_empty();
        let (waiting, due): (Vec<_>, Vec<_>) = comparison
            .drifted
            .iter()
            .filter(|drifted| comparison.stale.iter().all(|stale| stale.cluster != drifted.cluster))
            .partition(|drifted| {
                let repaired = self.nodes.get(&key(drifted));
                repaired.is_some_and(|repaired| now.since(repaired.at) < repaired.wait())
            });
        let fought_over = waiting.first().copied().filter(|_| !self.told);
        self.told |= fought_over.is_some();
        Due { now: due, fought_over }
    }

    /// The repair of `nodes` was begun.
    pub(super) fn begun(&mut self, nodes: &[&DriftedNode], now: Timestamp) {
        for node in nodes {
            let repaired = self.nodes.entry(key(node)).or_insert(Repaired { times: 0, at: now });
            repaired.times = repaired.times.saturating_add(1);
            repaired.at = now;
        }
    }
}

impl Repaired {
    fn wait(self) -> Duration {
        let doublings = self.times.saturating_sub(1).min(8);
        (FIRST_WAIT * 2_u32.pow(doublings)).min(LONGEST_WAIT)
    }
}

fn key(drifted: &DriftedNode) -> (ClusterName, NodeName) {
    (drifted.cluster.clone(), drifted.node.clone())
}

#[cfg(test)]
mod tests {
    use knm_model::Drift;

    use super::super::StaleCluster;
    use super::*;

    fn drifted(cluster: &str, node: &str) -> DriftedNode {
        DriftedNode {
            cluster: ClusterName::from_any(cluster),
            node: NodeName::parse(node).unwrap(),
            drift: Drift {
                before: Default::default(),
                after: Default::default(),
                evicts: false,
            },
        }
    }

    fn comparison(drifted: Vec<DriftedNode>) -> Comparison {
        Comparison {
            template: DefinitionName::parse("gpu").unwrap(),
            version: 1,
            compared: drifted.len(),
            drifted,
            unknown: Vec::new(),
            stale: Vec::new(),
        }
    }

    fn versions(template: u32) -> Versions {
        Versions {
            binding: 1,
            template: (DefinitionName::parse("gpu").unwrap(), template),
        }
    }

    fn start() -> Timestamp {
        Timestamp::parse("2030-01-01T00:00:00Z").unwrap()
    }

    fn after(seconds: u64) -> Timestamp {
        start().plus(Duration::from_secs(seconds))
    }

    /// The names of the nodes that are due then, whose repair begins, and whether a fight is told.
    fn round(lately: &mut Lately, comparison: &Comparison, version: u32, seconds: u64) -> (Vec<String>, bool) {
        let due = lately.due(comparison, versions(version), after(seconds));
        lately.begun(&due.now, after(seconds));
        let names = due.now.iter().map(|node| node.node.to_string()).collect();
        (names, due.fought_over.is_some())
    }

    #[test]
    fn a_node_that_is_changed_back_waits_longer_and_longer() {
        let (mut lately, nodes) = (Lately::default(), comparison(vec![drifted("east", "a")]));
        let mut repairs = Vec::new();
        let mut told = 0;
        for seconds in (0..3_600).step_by(10) {
            let (due, fight) = round(&mut lately, &nodes, 1, seconds);
            repairs.extend(due.first().map(|_| seconds));
            told += usize::from(fight);
        }
        assert_eq!(repairs, [0, 60, 180, 420, 900, 1_500, 2_100, 2_700, 3_300]);
        assert_eq!(told, 1);
    }

    #[test]
    fn other_nodes_do_not_wait_for_it() {
        let mut lately = Lately::default();
        let first = comparison(vec![drifted("east", "a")]);
        assert_eq!(round(&mut lately, &first, 1, 0), (vec!["a".to_owned()], false));
        let both = comparison(vec![drifted("east", "a"), drifted("west", "a"), drifted("east", "b")]);
        assert_eq!(
            round(&mut lately, &both, 1, 10),
            (vec!["a".to_owned(), "b".to_owned()], true)
        );
    }

    #[test]
    fn what_another_version_wants_does_not_wait() {
        let (mut lately, nodes) = (Lately::default(), comparison(vec![drifted("east", "a")]));
        for (version, seconds) in [(1, 0), (2, 10)] {
            assert_eq!(
                round(&mut lately, &nodes, version, seconds),
                (vec!["a".to_owned()], false)
            );
        }
    }

    #[test]
    fn a_node_that_was_as_it_should_be_for_long_begins_anew() {
        let (mut lately, nodes) = (Lately::default(), comparison(vec![drifted("east", "a")]));
        let (nobody, node) = (Vec::<String>::new(), vec!["a".to_owned()]);
        for (seconds, expected, fight) in [
            (0, &node, false),
            (10, &nobody, true),
            (60, &node, false),
            (1_860, &node, false),
            (1_870, &nobody, true),
            (1_920, &node, false),
        ] {
            let (due, told) = round(&mut lately, &nodes, 1, seconds);
            assert_eq!((&due, told), (expected, fight), "{seconds}");
        }
    }

    #[test]
    fn clusters_that_cannot_be_seen_are_left_out() {
        let mut nodes = comparison(vec![drifted("east", "a"), drifted("west", "b")]);
        nodes.stale.push(StaleCluster {
            cluster: ClusterName::from_any("east"),
            as_of: start(),
        });
        let mut lately = Lately::default();
        assert_eq!(round(&mut lately, &nodes, 1, 0), (vec!["b".to_owned()], false));
    }
}
