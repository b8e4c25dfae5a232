//! Which nodes of an operation may be begun now.

use std::collections::BTreeMap;

use super::{OperationTarget, Share, Strategy, TargetState};
use crate::{ClusterName, Node, NodeStatus, Timestamp};

/// What is known of the node of a target now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetNode {
    /// Pods can run there: it is ready and schedulable.
    Available,
    /// Pods cannot run there.
    Unavailable,
    /// Its cluster has no such node any more.
    Gone,
    /// Its cluster is not seen now: nobody knows.
    Unseen,
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
        /// What keeps nodes from being begun that somebody could do something about.
        because: Option<String>,
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
    /// What is known of `node` of a cluster that is seen, `None` if it is not there.
    #[must_use]
    pub fn of(node: Option<&Node>) -> Self {
        match node {
            Some(node) if node.schedulable && node.status == NodeStatus::Ready => Self::Available,
            Some(_) => Self::Unavailable,
            None => Self::Gone,
        }
    }
}

impl Strategy {
    /// Whether it matters what is known of the nodes.
    #[must_use]
    pub fn looks_at_nodes(&self) -> bool {
        self.max_unavailable.is_some() || self.max_unavailable_per_zone.is_some()
    }

    /// What comes next for `targets`, which are in their order; `nodes` tells of each what is known of its node, and may be empty
    /// unless [`Strategy::looks_at_nodes`]. `excused` failures do not
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
                return Next::Wait {
                    until: Some(until),
                    because: None,
                };
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
            true => Next::Wait {
                until: None,
                because: outages.refusal,
            },
            false => Next::Begin(begun),
        }
    }
}

/// How many nodes of the operation are out of use, and may be.
struct Outages<'a> {
    strategy: &'a Strategy,
    nodes: &'a [TargetNode],
    /// In all clusters together.
    all: Room,
    /// By cluster and zone.
    zones: BTreeMap<Zone<'a>, Room>,
    /// Why the first node was not begun for which there is more to say than that others are worked on.
    refusal: Option<String>,
}

/// Zones of different clusters may have the same name.
type Zone<'a> = (&'a ClusterName, Option<&'a str>);

/// How many nodes are out of use, and may be.
#[derive(Default)]
struct Room {
    total: u32,
    /// `None`: any number.
    most: Option<u32>,
    out: u32,
    /// Those of them that are not worked on any more.
    left: u32,
}

impl Room {
    fn limit(&mut self, share: Option<Share>) {
        // Less than one node would be nothing, ever.
        self.most = share.map(|share| share.of(self.total).max(1));
    }

    fn is_full(&self) -> bool {
        self.most.is_some_and(|most| most <= self.out)
    }
}

impl<'a> Outages<'a> {
    fn new(strategy: &'a Strategy, targets: &'a [OperationTarget], nodes: &'a [TargetNode]) -> Self {
        let mut all = Room::default();
        let mut zones: BTreeMap<Zone<'a>, Room> = BTreeMap::new();
        let counted = targets.iter().enumerate().filter(|_| strategy.looks_at_nodes());
        for (place, target) in counted {
            let (out, left) = match target.state {
                TargetState::Running => (1, 0),
                TargetState::Succeeded | TargetState::Failed => match known(nodes, place) {
                    TargetNode::Unavailable | TargetNode::Unseen => (1, 1),
                    // One that was removed does not come back.
                    TargetNode::Available | TargetNode::Gone => (0, 0),
                },
                // What was out of use before it is nothing that the operation did.
                TargetState::Waiting | TargetState::Skipped | TargetState::Cancelled => (0, 0),
            };
            for room in [&mut all, zones.entry(zone(target)).or_default()] {
                room.total += 1;
                room.out += out;
                room.left += left;
            }
        }
        all.limit(strategy.max_unavailable);
        for room in zones.values_mut() {
            room.limit(strategy.max_unavailable_per_zone);
        }
        Self {
            strategy,
            nodes,
            all,
            zones,
            refusal: None,
        }
    }

    /// Whether one more may be out of use, which it then is.
    fn take(&mut self, place: usize, target: &'a OperationTarget) -> bool {
        let room = self.zones.entry(zone(target)).or_default();
        let is_limited = self.all.most.is_some() || room.most.is_some();
        let refusal = if is_limited && known(self.nodes, place) == TargetNode::Unseen {
            Some(format!(
                "cluster {} is not seen now, so nobody knows how many of its nodes are out of use: while there is a max_unavailable, \
                 none is begun",
                target.cluster
            ))
        } else if self.all.is_full() {
            told("", &self.all, "max_unavailable", self.strategy.max_unavailable)
        } else if room.is_full() {
            let place = match &target.zone {
                Some(zone) => format!(" of zone {zone} of cluster {}", target.cluster),
                None => format!(" without a zone of cluster {}", target.cluster),
            };
            let share = self.strategy.max_unavailable_per_zone;
            told(&place, room, "max_unavailable_per_zone", share)
        } else {
            self.all.out += 1;
            room.out += 1;
            return true;
        };
        self.refusal = self.refusal.take().or(refusal);
        false
    }
}

/// That there is no room because of nodes that did not come back. That others are worked on can be seen.
fn told(place: &str, room: &Room, name: &str, share: Option<Share>) -> Option<String> {
    let share = share.filter(|_| 0 < room.left)?.describe();
    let (left, total) = (room.left, room.total);
    Some(format!(
        "{left} of {total} nodes{place} were worked on and are not ready and schedulable again: {name} {share} lets no other one begin"
    ))
}

fn known(nodes: &[TargetNode], place: usize) -> TargetNode {
    nodes.get(place).copied().unwrap_or(TargetNode::Unseen)
}

fn zone(target: &OperationTarget) -> Zone<'_> {
    (&target.cluster, target.zone.as_deref())
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::TargetDetail;

    use super::TargetNode::*;
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
            zone: Some(if place < 2 { "a" } else { "b" }.to_owned()),
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

    /// Waits for what happens, and there is nothing to say about it.
    const WAIT: Next = Next::Wait {
        until: None,
        because: None,
    };

    fn because(next: Next) -> String {
        match next {
            Next::Wait {
                until: None,
                because: Some(because),
            } => because,
            other => panic!("{other:?}"),
        }
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
        let begin = |states| two.next(&targets(states), &[Available; 4], 0, at(1));
        assert_eq!(begin([Waiting, Waiting, Waiting, Waiting]), Next::Begin(vec![0, 1]));
        assert_eq!(begin([Succeeded, Running, Waiting, Waiting]), Next::Begin(vec![2]));
        assert_eq!(begin([Running, Running, Waiting, Waiting]), WAIT);
        assert_eq!(begin([Succeeded, Skipped, Cancelled, Failed]), Next::End);
        assert_eq!(begin([Succeeded, Skipped, Cancelled, Running]), WAIT);
    }

    #[test]
    fn no_more_nodes_are_out_of_use_than_allowed() {
        let one = strategy(|strategy| strategy.max_unavailable = Some(Share::Count(1)));
        let states = [Succeeded, Waiting, Waiting];
        let told = because(one.next(&targets(states), &[Unavailable; 3], 0, at(1)));
        assert!(
            told.starts_with("1 of 3 nodes") && told.contains("max_unavailable 1"),
            "{told}"
        );
        assert_eq!(
            one.next(&targets(states), &[Available; 3], 0, at(1)),
            Next::Begin(vec![1])
        );
        // That another one is worked on is nothing to tell of.
        let running = targets([Running, Waiting, Waiting]);
        assert_eq!(one.next(&running, &[Available; 3], 0, at(1)), WAIT);
        // Nodes that were out of use before do not count.
        let fresh = [Waiting, Waiting, Waiting];
        assert_eq!(
            one.next(&targets(fresh), &[Unavailable; 3], 0, at(1)),
            Next::Begin(vec![0])
        );
        let part = strategy(|strategy| strategy.max_unavailable = Some(Share::Percent(70)));
        assert_eq!(
            part.next(&targets(fresh), &[Available; 3], 0, at(1)),
            Next::Begin(vec![0, 1])
        );
        // A share of less than one node is one node: nothing would ever begin.
        let little = strategy(|strategy| strategy.max_unavailable = Some(Share::Percent(1)));
        assert_eq!(
            little.next(&targets(fresh), &[Available; 3], 0, at(1)),
            Next::Begin(vec![0])
        );
    }

    #[test]
    fn a_node_that_was_removed_after_its_drain_is_not_waited_for() {
        let one = strategy(|strategy| strategy.max_unavailable = Some(Share::Count(1)));
        let drained = targets([Succeeded, Waiting]);
        assert_eq!(one.next(&drained, &[Gone, Available], 0, at(1)), Next::Begin(vec![1]));
    }

    #[test]
    fn while_a_cluster_is_not_seen_a_limit_lets_none_of_its_nodes_begin() {
        let limits: [fn(&mut Strategy); 2] = [
            |strategy| strategy.max_unavailable = Some(Share::Count(2)),
            |strategy| strategy.max_unavailable_per_zone = Some(Share::Count(2)),
        ];
        for limit in limits {
            let limited = strategy(limit);
            let told = because(limited.next(&targets([Waiting, Waiting]), &[Unseen; 2], 0, at(1)));
            assert!(told.contains("cluster demo is not seen"), "{told}");
            // One that was drained counts as long as nobody knows, and nodes of other clusters go on.
            let mut drained = targets([Succeeded, Waiting, Waiting]);
            for target in &mut drained {
                target.zone = None;
            }
            let next = limited.next(&drained, &[Unseen, Available, Available], 0, at(1));
            assert_eq!(next, Next::Begin(vec![1]));
        }
        let unlimited = strategy(|_| {});
        assert_eq!(
            unlimited.next(&targets([Waiting, Waiting]), &[], 0, at(1)),
            Next::Begin(vec![0, 1])
        );
    }

    #[test]
    fn each_zone_has_its_own_room() {
        let one = strategy(|strategy| strategy.max_unavailable_per_zone = Some(Share::Count(1)));
        let fresh = targets([Waiting, Waiting, Waiting, Waiting]);
        assert_eq!(one.next(&fresh, &[Available; 4], 0, at(1)), Next::Begin(vec![0, 2]));
        let begun = targets([Succeeded, Waiting, Succeeded, Waiting]);
        let back = [Unavailable, Available, Available, Available];
        assert_eq!(one.next(&begun, &back, 0, at(1)), Next::Begin(vec![3]));
        let told = because(one.next(&begun, &[Unavailable; 4], 0, at(1)));
        assert!(told.starts_with("1 of 2 nodes of zone a of cluster demo"), "{told}");
        let both = strategy(|strategy| {
            strategy.max_unavailable = Some(Share::Count(1));
            strategy.max_unavailable_per_zone = Some(Share::Count(2));
        });
        assert_eq!(both.next(&fresh, &[Available; 4], 0, at(1)), Next::Begin(vec![0]));
    }

    #[test]
    fn it_pauses_when_too_many_failed() {
        let strict = strategy(|_| {});
        let nodes = [Available; 3];
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
        let nodes = [Available; 3];
        assert_eq!(
            slow.next(&targets([Waiting, Waiting, Waiting]), &nodes, 0, at(1)),
            Next::Begin(vec![0])
        );
        let begun = targets([Succeeded, Waiting, Waiting]);
        let wait = Next::Wait {
            until: Some(at(30)),
            because: None,
        };
        assert_eq!(slow.next(&begun, &nodes, 0, at(29)), wait);
        assert_eq!(slow.next(&begun, &nodes, 0, at(30)), Next::Begin(vec![1]));
    }
}
