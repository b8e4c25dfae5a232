//! In which order pods can be evicted: each budget is counted down, because a dry run of the cluster does not do that.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use crate::{DisruptionBudget, Pod};

/// When a pod that is to be removed can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// In this round, counted from 1. The pods of a round can go at once; the next one begins when their replacements are ready elsewhere.
    Round(u32),
    /// Not before something else happened.
    Blocked(Barrier),
    /// Not at all, until somebody changes a budget or the number of pods.
    Never(Barrier),
}

/// What a pod cannot be evicted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// The budget of this name has no room at the moment: some of its pods are not healthy.
    NoRoom(String),
    /// The budget of this name allows nothing, ever.
    Closed(String),
    /// Budgets of these names match it. The cluster evicts no such pod.
    SeveralBudgets(Vec<String>),
    /// Pods of an earlier tier cannot go.
    EarlierTier,
}

impl Barrier {
    /// Its name, in snake case.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NoRoom(_) => "no_room",
            Self::Closed(_) => "closed",
            Self::SeveralBudgets(_) => "several_budgets",
            Self::EarlierTier => "earlier_tier",
        }
    }

    /// A sentence for whoever reads the plan.
    #[must_use]
    pub fn explanation(&self) -> String {
        match self {
            Self::NoRoom(budget) => {
                format!("the disruption budget {budget} has no room now: too few of its pods are healthy")
            }
            Self::Closed(budget) => {
                format!(
                    "the disruption budget {budget} allows nothing, ever: as many pods must be healthy as there are"
                )
            }
            Self::SeveralBudgets(budgets) => format!(
                "the disruption budgets {} match it, and a cluster evicts no pod that several match",
                budgets.join(", ")
            ),
            Self::EarlierTier => "pods of an earlier tier cannot go".to_owned(),
        }
    }
}

/// A pod that is to be removed.
pub(super) struct Candidate<'a> {
    pub(super) pod: &'a Pod,
    pub(super) tier: usize,
    /// The budgets that match it, by their place in the list of budgets.
    pub(super) budgets: Vec<usize>,
}

/// Pods that go by themselves, beside those that are to be removed.
#[derive(Clone, Copy, Default)]
pub(super) struct Others {
    /// How many are on their way out.
    pub(super) leaving: u32,
    /// The first tier that has any of them: later ones do not begin before they are gone.
    pub(super) first_tier: Option<usize>,
}

/// The turn of each candidate, in their order. At most `at_once` of them go in one round.
pub(super) fn turns(
    candidates: &[Candidate<'_>],
    budgets: &[impl Borrow<DisruptionBudget>],
    at_once: Option<u32>,
    others: Others,
) -> Vec<Turn> {
    let mut places: Vec<usize> = (0..candidates.len()).collect();
    places.sort_by_key(|place| candidates[*place].tier);
    let mut turns = vec![Turn::Blocked(Barrier::EarlierTier); candidates.len()];
    let mut rounds = Rounds {
        budgets,
        at_once,
        begun: Vec::from_iter((0 < others.leaving).then(|| Round::of(others.leaving))),
        first: 0,
    };
    for tier in places.chunk_by(|one, other| candidates[*one].tier == candidates[*other].tier) {
        let is_later = |first: usize| first < candidates[tier[0]].tier;
        if rounds.first == 0 && others.first_tier.is_some_and(is_later) {
            rounds.first = 1;
            rounds.begun.resize_with(rounds.begun.len().max(1), Round::default);
        }
        for place in tier {
            turns[*place] = rounds.turn(&candidates[*place]);
        }
        if tier.iter().any(|place| !matches!(turns[*place], Turn::Round(_))) {
            break;
        }
        rounds.first = rounds.begun.len();
    }
    turns
}

struct Rounds<'a, B> {
    budgets: &'a [B],
    at_once: Option<u32>,
    begun: Vec<Round>,
    /// Where the rounds of the current tier begin.
    first: usize,
}

#[derive(Default)]
struct Round {
    pods: u32,
    /// How many evictions it takes from each budget.
    taken: BTreeMap<usize, u32>,
}

impl Round {
    fn of(pods: u32) -> Self {
        Self {
            pods,
            taken: BTreeMap::new(),
        }
    }
}

impl<B: Borrow<DisruptionBudget>> Rounds<'_, B> {
    fn budget(&self, at: usize) -> &DisruptionBudget {
        self.budgets[at].borrow()
    }

    fn turn(&mut self, candidate: &Candidate<'_>) -> Turn {
        let names = || candidate.budgets.iter().map(|at| self.budget(*at).name.clone());
        let budget = match candidate.budgets.as_slice() {
            _ if candidate.pod.is_outside_budgets() => None,
            [] => None,
            [at] if self.budget(*at).lets_go(candidate.pod) => None,
            [at] => Some(*at),
            _ => return Turn::Never(Barrier::SeveralBudgets(names().collect())),
        };
        if let Some(budget) = budget.map(|at| self.budget(at)) {
            if budget.is_closed() {
                return Turn::Never(Barrier::Closed(budget.name.clone()));
            }
            if budget.disruptions_allowed == 0 {
                return Turn::Blocked(Barrier::NoRoom(budget.name.clone()));
            }
        }
        let mut at = self.first;
        while self.begun.get(at).is_some_and(|round| !self.has_room(round, budget)) {
            at += 1;
        }
        if at == self.begun.len() {
            self.begun.push(Round::default());
        }
        let round = &mut self.begun[at];
        round.pods += 1;
        if let Some(budget) = budget {
            *round.taken.entry(budget).or_default() += 1;
        }
        Turn::Round(u32::try_from(at + 1).unwrap_or(u32::MAX))
    }

    fn has_room(&self, round: &Round, budget: Option<usize>) -> bool {
        let in_budget = budget.is_none_or(|at| {
            let taken = round.taken.get(&at).copied().unwrap_or_default();
            taken < self.budget(at).disruptions_allowed
        });
        in_budget && self.at_once.is_none_or(|most| round.pods < most)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::pod;
    use crate::{PodPhase, Selector, UnhealthyPods};

    fn budget(name: &str, allowed: u32) -> DisruptionBudget {
        DisruptionBudget {
            namespace: "team".into(),
            name: name.into(),
            selector: Some(Selector::default()),
            disruptions_allowed: allowed,
            current_healthy: 3,
            desired_healthy: 2,
            expected_pods: 3,
            unhealthy_pods: UnhealthyPods::IfHealthyBudget,
        }
    }

    fn candidates<'a>(pods: &'a [Pod], budgets: &[usize]) -> Vec<Candidate<'a>> {
        let candidate = |pod| Candidate {
            pod,
            tier: 0,
            budgets: budgets.to_vec(),
        };
        pods.iter().map(candidate).collect()
    }

    const NONE: &[DisruptionBudget] = &[];

    fn round(turn: &Turn) -> Option<u32> {
        match turn {
            Turn::Round(round) => Some(*round),
            Turn::Blocked(_) | Turn::Never(_) => None,
        }
    }

    fn pods(count: usize) -> Vec<Pod> {
        (0..count).map(|number| pod(&format!("web-{number}"))).collect()
    }

    #[test]
    fn a_plan_counts_each_budget_down_itself() {
        let pods = pods(5);
        let told = turns(&candidates(&pods, &[0]), &[budget("web", 2)], None, Others::default());
        let rounds: Vec<_> = told.iter().map(round).collect();
        assert_eq!(rounds, [Some(1), Some(1), Some(2), Some(2), Some(3)]);
    }

    #[test]
    fn pods_without_a_budget_go_at_once() {
        let pods = pods(3);
        let told = turns(&candidates(&pods, &[]), NONE, None, Others::default());
        assert!(told.iter().all(|turn| *turn == Turn::Round(1)));
        let rounds: Vec<_> = turns(&candidates(&pods, &[]), NONE, Some(2), Others::default())
            .iter()
            .map(round)
            .collect();
        assert_eq!(rounds, [Some(1), Some(1), Some(2)]);
    }

    #[test]
    fn pods_that_two_budgets_match_can_never_be_evicted() {
        let pods = pods(1);
        let told = turns(
            &candidates(&pods, &[0, 1]),
            &[budget("web", 9), budget("all", 9)],
            None,
            Others::default(),
        );
        let both = Barrier::SeveralBudgets(vec!["web".into(), "all".into()]);
        assert_eq!(told, [Turn::Never(both)]);
    }

    #[test]
    fn a_budget_without_room_is_closed_if_as_many_must_be_healthy_as_there_are() {
        let pods = pods(1);
        let full = budget("web", 0);
        let told = turns(
            &candidates(&pods, &[0]),
            std::slice::from_ref(&full),
            None,
            Others::default(),
        );
        assert_eq!(told, [Turn::Blocked(Barrier::NoRoom("web".into()))]);
        for desired in [3, 4] {
            let closed = DisruptionBudget {
                desired_healthy: desired,
                ..full.clone()
            };
            let told = turns(&candidates(&pods, &[0]), &[closed], None, Others::default());
            assert_eq!(told, [Turn::Never(Barrier::Closed("web".into()))]);
        }
        // Nobody counted its pods yet, so nothing is known about ever.
        let uncounted = DisruptionBudget {
            current_healthy: 0,
            desired_healthy: 0,
            expected_pods: 0,
            ..full
        };
        let told = turns(&candidates(&pods, &[0]), &[uncounted], None, Others::default());
        assert_eq!(told, [Turn::Blocked(Barrier::NoRoom("web".into()))]);
    }

    #[test]
    fn pods_that_are_pending_finished_or_terminating_are_outside_budgets() {
        let mut terminating = pod("terminating");
        terminating.deletion_at = crate::Timestamp::parse("2030-01-01T00:00:00Z").ok();
        let phases = [PodPhase::Pending, PodPhase::Succeeded, PodPhase::Failed];
        let mut outside: Vec<Pod> = phases.map(|phase| Pod { phase, ..pod("x") }).into();
        outside.push(terminating);
        // Not even two budgets matter.
        for places in [&[0][..], &[0, 1]] {
            let told = turns(
                &candidates(&outside, places),
                &[budget("a", 0), budget("b", 0)],
                None,
                Others::default(),
            );
            assert!(told.iter().all(|turn| *turn == Turn::Round(1)), "{told:?}");
        }
    }

    #[test]
    fn a_pod_that_is_not_ready_goes_by_the_policy_of_its_budget() {
        let unready = [Pod {
            ready: false,
            ..pod("x")
        }];
        let cases = [
            (UnhealthyPods::AlwaysAllow, 0, 2, true),
            (UnhealthyPods::IfHealthyBudget, 2, 2, true),
            (UnhealthyPods::IfHealthyBudget, 1, 2, false),
            (UnhealthyPods::IfHealthyBudget, 0, 0, false),
        ];
        for (unhealthy_pods, current_healthy, desired_healthy, goes) in cases {
            let budget = DisruptionBudget {
                current_healthy,
                desired_healthy,
                unhealthy_pods,
                ..budget("web", 0)
            };
            let told = turns(
                &candidates(&unready, &[0]),
                std::slice::from_ref(&budget),
                None,
                Others::default(),
            );
            assert_eq!(told == [Turn::Round(1)], goes, "{budget:?}");
            let ready = [pod("x")];
            let told = turns(&candidates(&ready, &[0]), &[budget], None, Others::default());
            assert_ne!(told, [Turn::Round(1)]);
        }
    }

    #[test]
    fn a_tier_begins_when_the_one_before_it_is_gone() {
        let pods = pods(4);
        let mut all = candidates(&pods, &[0]);
        (all[0].tier, all[1].tier) = (1, 0);
        let rounds = |all: &[Candidate<'_>], allowed| -> Vec<_> {
            let budgets = [budget("web", allowed), budget("other", 0)];
            turns(all, &budgets, None, Others::default())
                .iter()
                .map(round)
                .collect()
        };
        assert_eq!(rounds(&all, 3), [Some(2), Some(1), Some(1), Some(1)]);
        assert_eq!(rounds(&all, 2), [Some(3), Some(1), Some(1), Some(2)]);
        all[2].budgets = vec![1];
        assert_eq!(rounds(&all, 3), [None, Some(1), None, Some(1)]);
    }

    #[test]
    fn pods_that_go_by_themselves_take_room_and_hold_later_tiers_back() {
        let pods = pods(3);
        let mut all = candidates(&pods, &[]);
        all[2].tier = 1;
        let rounds = |at_once, others| -> Vec<_> { turns(&all, NONE, at_once, others).iter().map(round).collect() };
        let waiting = |first_tier, leaving| Others {
            leaving,
            first_tier: Some(first_tier),
        };
        assert_eq!(rounds(None, waiting(1, 0)), [Some(1), Some(1), Some(2)]);
        assert_eq!(rounds(Some(2), waiting(0, 1)), [Some(1), Some(2), Some(3)]);
        assert_eq!(rounds(Some(2), waiting(0, 5)), [Some(2), Some(2), Some(3)]);
        let last = &all[2..];
        assert_eq!(turns(last, NONE, None, waiting(0, 0)), [Turn::Round(2)]);
        assert_eq!(turns(last, NONE, None, waiting(1, 0)), [Turn::Round(1)]);
    }

    proptest! {
        #[test]
        fn the_countdown_never_exceeds_a_budget(
            allowed in proptest::collection::vec(0_u32..4, 1..4),
            wanted in proptest::collection::vec((0_usize..3, proptest::collection::btree_set(0_usize..3, 0..3)), 0..40),
            at_once in proptest::option::of(1_u32..5),
        ) {
            let budgets: Vec<_> = allowed.iter().map(|allowed| budget("b", *allowed)).collect();
            let pods = pods(wanted.len());
            let all: Vec<Candidate<'_>> = pods
                .iter()
                .zip(&wanted)
                .map(|(pod, (tier, places))| Candidate {
                    pod,
                    tier: *tier,
                    budgets: places.iter().copied().filter(|at| *at < budgets.len()).collect(),
                })
                .collect();
            let told = turns(&all, &budgets, at_once, Others::default());
            prop_assert_eq!(told.len(), all.len());
            let mut taken: BTreeMap<(u32, usize), u32> = BTreeMap::new();
            let mut sizes: BTreeMap<u32, u32> = BTreeMap::new();
            let mut tiers: BTreeMap<u32, usize> = BTreeMap::new();
            for (turn, candidate) in told.iter().zip(&all) {
                let Some(round) = round(turn) else { continue };
                prop_assert!(candidate.budgets.len() < 2);
                *sizes.entry(round).or_default() += 1;
                prop_assert_eq!(*tiers.entry(round).or_insert(candidate.tier), candidate.tier);
                for at in &candidate.budgets {
                    *taken.entry((round, *at)).or_default() += 1;
                }
            }
            for ((_, at), count) in taken {
                prop_assert!(count <= budgets[at].disruptions_allowed);
            }
            for (round, size) in &sizes {
                prop_assert!(at_once.is_none_or(|most| *size <= most));
                // No round is empty, and no later tier goes before an earlier one.
                prop_assert!(*round == 1 || sizes.contains_key(&(round - 1)));
                prop_assert!(*round == 1 || tiers[&(round - 1)] <= tiers[round]);
            }
        }
    }
}
