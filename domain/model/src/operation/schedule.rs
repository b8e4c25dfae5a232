//! Which nodes of an operation may be begun now.

use std::collections::BTreeMap;

use super::{OperationTarget, Strategy, TargetState};
use crate::{ClusterName, Node, NodeStatus, Timestamp};

/// What is known of the node of a target now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetNode {
    /// Its zone.
    pub zone: Option<String>,
    /// Whether pods can run there: it is ready and schedulable.
    pub is_available: bool,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The nodes at these places are begun, one after the other.
    Begin(Vec<usize>),
    /// Nothing is begun now.
    Wait {
        /// Before this time nothing will be; `None`: that depends on what happens.
        until: Option<Timestamp>,
    },
    /// Too many nodes failed: nothing more is begun until somebody looked at it.
    Pause {
        /// Why.
        message: String,
    },
    /// All nodes are ended.
    End,
}

impl TargetNode {
    /// What is known of `node`, `None` if it is not there.
    #[must_use]
    pub fn of(node: Option<&Node>) -> Self {
        node.map_or_else(Self::default, |node| Self {
            zone: node.zone.clone(),
            is_available: node.schedulable && node.status == NodeStatus::Ready,
        })
    }
}

impl Strategy {
    /// What comes next for `targets`, which are in their order; `nodes` tells of each what is known of its node. `excused` failures do not
    /// count: somebody resumed the operation after them.
    #[must_use]
    pub fn next(&self, targets: &[OperationTarget], nodes: &[TargetNode], excused: u32, now: Timestamp) -> Next {
        let count = |wanted: TargetState| targets.iter().filter(|target| target.state == wanted).count();
        if targets.iter().all(|target| target.state.is_ended()) {
            return Next::End;
        }
        let total = number(targets.len());
        let failed = number(count(TargetState::Failed)).saturating_sub(excused);
        let is_waiting = targets.iter().any(|target| target.state == TargetState::Waiting);
        if let Some(allowed) = self.max_failures
            && is_waiting
            && allowed.of(total) < failed
        {
            return Next::Pause {
                message: format!(
                    "{failed} of {total} nodes failed, which is more than max_failures {} allows",
                    allowed.describe()
                ),
            };
        }
        if let Some(last) = targets.iter().filter_map(|target| target.started_at).max() {
            let until = last.plus(self.pause_between);
            if is_waiting && now < until {
                return Next::Wait { until: Some(until) };
            }
        }
        let mut room = usize::try_from(self.max_concurrent)
            .unwrap_or(usize::MAX)
            .saturating_sub(count(TargetState::Running));
        if !self.pause_between.is_zero() {
            room = room.min(1);
        }
        let mut outages = Outages::new(self, targets, nodes);
        let mut begun = Vec::new();
        for (place, target) in targets.iter().enumerate() {
            if begun.len() == room {
                break;
            }
            if target.state == TargetState::Waiting && outages.take(place, target) {
                begun.push(place);
            }
        }
        match begun.is_empty() {
            true => Next::Wait { until: None },
            false => Next::Begin(begun),
        }
    }
}

/// How many nodes of the operation are out of use, and may be.
struct Outages<'a> {
    nodes: &'a [TargetNode],
    /// In all clusters together.
    most: Option<u32>,
    now: u32,
    /// By cluster and zone: how many may be, and are.
    zones: Option<BTreeMap<Zone, (u32, u32)>>,
}

/// Zones of different clusters may have the same name.
type Zone = (ClusterName, Option<String>);

impl<'a> Outages<'a> {
    fn new(strategy: &Strategy, targets: &[OperationTarget], nodes: &'a [TargetNode]) -> Self {
        let is_out = |place: usize, target: &OperationTarget| match target.state {
            TargetState::Running => true,
            TargetState::Succeeded | TargetState::Failed => nodes.get(place).is_some_and(|node| !node.is_available),
            // What was out of use before it is nothing that the operation did.
            TargetState::Waiting | TargetState::Skipped | TargetState::Cancelled => false,
        };
        let out = targets
            .iter()
            .enumerate()
            .filter(|(place, target)| is_out(*place, target));
        let zones = strategy.max_unavailable_per_zone.map(|share| {
            let mut zones: BTreeMap<Zone, (u32, u32)> = BTreeMap::new();
            for (place, target) in targets.iter().enumerate() {
                zones.entry(zone(place, target, nodes)).or_default().0 += 1;
            }
            for (most, _) in zones.values_mut() {
                *most = share.of(*most).max(1);
            }
            for (place, target) in out.clone() {
                zones.entry(zone(place, target, nodes)).or_default().1 += 1;
            }
            zones
        });
        Self {
            nodes,
            // Less than one node would be nothing, ever.
            most: strategy
                .max_unavailable
                .map(|share| share.of(number(targets.len())).max(1)),
            now: number(out.count()),
            zones,
        }
    }

    /// Whether one more may be out of use, which it then is.
    fn take(&mut self, place: usize, target: &OperationTarget) -> bool {
        if self.most.is_some_and(|most| most <= self.now) {
            return false;
        }
        if let Some(zones) = &mut self.zones {
            let (most, out) = zones.entry(zone(place, target, self.nodes)).or_default();
            if *most <= *out {
                return false;
            }
            *out += 1;
        }
        self.now += 1;
        true
    }
}

fn zone(place: usize, target: &OperationTarget, nodes: &[TargetNode]) -> Zone {
    let zone = nodes.get(place).and_then(|node| node.zone.clone());
    (target.cluster.clone(), zone)
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::TargetDetail;

    use super::TargetState::*;
    use super::*;
    use crate::{NodeName, OperationKind, Share};

    fn at(seconds: u64) -> Timestamp {
        let start = Timestamp::parse("2030-01-01T00:00:00Z").unwrap();
        start.plus(Duration::from_secs(seconds))
    }

    fn targets<const N: usize>(states: [TargetState; N]) -> Vec<OperationTarget> {
        let target = |(place, state)| OperationTarget {
            place,
            cluster: ClusterName::from_any("demo"),
            node: NodeName::parse(&format!("node-{place}")).unwrap(),
            state,
            message: None,
            started_at: (state != Waiting).then(|| at(0)),
            ended_at: None,
            audit: None,
            hold: None,
            detail: TargetDetail::default(),
        };
        (0..).zip(states).map(target).collect()
    }

    fn nodes(zones: &str, available: bool) -> Vec<TargetNode> {
        let node = |zone: char| TargetNode {
            zone: Some(zone.to_string()),
            is_available: available,
        };
        zones.chars().map(node).collect()
    }

    fn strategy(change: impl FnOnce(&mut Strategy)) -> Strategy {
        let mut strategy = Strategy {
            max_concurrent: 100,
            ..Strategy::of(OperationKind::Drain)
        };
        change(&mut strategy);
        strategy
    }

    #[test]
    fn as_many_run_at_once_as_asked_for() {
        let two = strategy(|strategy| strategy.max_concurrent = 2);
        let nodes = nodes("aaaa", true);
        let begin = |states| two.next(&targets(states), &nodes, 0, at(1));
        assert_eq!(begin([Waiting, Waiting, Waiting, Waiting]), Next::Begin(vec![0, 1]));
        assert_eq!(begin([Succeeded, Running, Waiting, Waiting]), Next::Begin(vec![2]));
        assert_eq!(begin([Running, Running, Waiting, Waiting]), Next::Wait { until: None });
        assert_eq!(begin([Succeeded, Skipped, Cancelled, Failed]), Next::End);
        assert_eq!(
            begin([Succeeded, Skipped, Cancelled, Running]),
            Next::Wait { until: None }
        );
    }

    #[test]
    fn no_more_nodes_are_out_of_use_than_allowed() {
        let one = strategy(|strategy| strategy.max_unavailable = Some(Share::Count(1)));
        let states = [Succeeded, Waiting, Waiting];
        assert_eq!(
            one.next(&targets(states), &nodes("aaa", false), 0, at(1)),
            Next::Wait { until: None },
            "the first one is drained and not back"
        );
        assert_eq!(
            one.next(&targets(states), &nodes("aaa", true), 0, at(1)),
            Next::Begin(vec![1])
        );
        // Nodes that were out of use before do not count.
        let fresh = [Waiting, Waiting, Waiting];
        assert_eq!(
            one.next(&targets(fresh), &nodes("aaa", false), 0, at(1)),
            Next::Begin(vec![0])
        );
        let part = strategy(|strategy| strategy.max_unavailable = Some(Share::Percent(70)));
        assert_eq!(
            part.next(&targets(fresh), &nodes("aaa", true), 0, at(1)),
            Next::Begin(vec![0, 1])
        );
        // A share of less than one node is one node: nothing would ever begin.
        let little = strategy(|strategy| strategy.max_unavailable = Some(Share::Percent(1)));
        assert_eq!(
            little.next(&targets(fresh), &nodes("aaa", true), 0, at(1)),
            Next::Begin(vec![0])
        );
    }

    #[test]
    fn each_zone_has_its_own_room() {
        let one = strategy(|strategy| strategy.max_unavailable_per_zone = Some(Share::Count(1)));
        let fresh = targets([Waiting, Waiting, Waiting, Waiting]);
        assert_eq!(
            one.next(&fresh, &nodes("aabb", true), 0, at(1)),
            Next::Begin(vec![0, 2])
        );
        let begun = targets([Succeeded, Waiting, Succeeded, Waiting]);
        let mut back = nodes("aabb", false);
        back[2].is_available = true;
        assert_eq!(one.next(&begun, &back, 0, at(1)), Next::Begin(vec![3]));
        let both = strategy(|strategy| {
            strategy.max_unavailable = Some(Share::Count(1));
            strategy.max_unavailable_per_zone = Some(Share::Count(2));
        });
        assert_eq!(both.next(&fresh, &nodes("aabb", true), 0, at(1)), Next::Begin(vec![0]));
    }

    #[test]
    fn it_pauses_when_too_many_failed() {
        let strict = strategy(|_| {});
        let nodes = nodes("aaa", true);
        let next = strict.next(&targets([Failed, Waiting, Waiting]), &nodes, 0, at(1));
        assert!(
            matches!(&next, Next::Pause { message } if message.contains("1 of 3") && message.contains("max_failures 0"))
        );
        // Somebody looked at it.
        let resumed = strict.next(&targets([Failed, Waiting, Waiting]), &nodes, 1, at(1));
        assert_eq!(resumed, Next::Begin(vec![1, 2]));
        // Nothing is left to be held back.
        assert_eq!(
            strict.next(&targets([Failed, Failed, Succeeded]), &nodes, 0, at(1)),
            Next::End
        );
        let half = strategy(|strategy| strategy.max_failures = Some(Share::Percent(50)));
        assert_eq!(
            half.next(&targets([Failed, Waiting, Waiting]), &nodes, 0, at(1)),
            Next::Begin(vec![1, 2])
        );
        let any = strategy(|strategy| strategy.max_failures = Some(Share::Percent(100)));
        assert_eq!(
            any.next(&targets([Failed, Failed, Waiting]), &nodes, 0, at(1)),
            Next::Begin(vec![2])
        );
    }

    #[test]
    fn there_is_a_pause_between_two_nodes() {
        let slow = strategy(|strategy| strategy.pause_between = Duration::from_secs(30));
        let nodes = nodes("aaa", true);
        assert_eq!(
            slow.next(&targets([Waiting, Waiting, Waiting]), &nodes, 0, at(1)),
            Next::Begin(vec![0])
        );
        let begun = targets([Succeeded, Waiting, Waiting]);
        assert_eq!(slow.next(&begun, &nodes, 0, at(29)), Next::Wait { until: Some(at(30)) });
        assert_eq!(slow.next(&begun, &nodes, 0, at(30)), Next::Begin(vec![1]));
    }
}
