//! What a drain would do to the pods of a node. The drain itself asks the same plan at each of its steps.

use std::collections::BTreeSet;

use super::turns::{Candidate, Others, Turn, turns};
use super::{Decision, DrainOptions, ObjectName, Removal, Verdict};
use crate::{DisruptionBudget, Node, NodeStatus, Pod, PodRequests, Timestamp};

/// What becomes of each pod of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct DrainPlan {
    pods: Vec<PlannedPod>,
    budgets: Vec<PlannedBudget>,
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedPod {
    /// The pod.
    pub pod: Pod,
    /// What is done about it, and why.
    pub verdict: Verdict,
    /// Its place in the order, counted from 0.
    pub tier: usize,
    /// The names of the disruption budgets, all in its namespace, that match it.
    pub budgets: Vec<String>,
    /// When it can be removed, if it is to be.
    pub turn: Option<Turn>,
}

/// A disruption budget that matches pods that are to be removed.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedBudget {
    /// The budget.
    pub budget: DisruptionBudget,
    /// How many of those pods it matches.
    pub pods: usize,
}

/// Sums of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainTotals {
    /// All pods of the node.
    pub pods: usize,
    /// Those that are to be removed.
    pub evict: usize,
    /// Those that stay.
    pub skip: usize,
    /// Those that stand in the way.
    pub refuse: usize,
    /// Those that go by themselves.
    pub wait: usize,
    /// Of those to be removed: can go at once.
    pub at_once: usize,
    /// Of those to be removed: can go in a later round.
    pub later: usize,
    /// Of those to be removed: wait for something else than the pods before them.
    pub blocked: usize,
    /// Of those to be removed: cannot go.
    pub never: usize,
    /// How many rounds there are.
    pub rounds: u32,
    /// What the pods to be removed ask for together.
    pub requests: PodRequests,
}

impl DrainPlan {
    /// Decides about the `pods` of one node, which stay in their order. `daemon_sets` are those that there are.
    #[must_use]
    pub fn new(
        pods: Vec<Pod>,
        budgets: &[DisruptionBudget],
        daemon_sets: &BTreeSet<ObjectName>,
        options: &DrainOptions,
        now: Timestamp,
    ) -> Self {
        let matching = |pod: &Pod| -> Vec<usize> {
            let places = budgets.iter().enumerate();
            let found = places.filter(|(_, budget)| budget.matches(pod));
            found.map(|(place, _)| place).collect()
        };
        let mut counts = vec![0; budgets.len()];
        let mut candidates = Vec::new();
        let mut others = Others::default();
        let mut planned = Vec::with_capacity(pods.len());
        for pod in &pods {
            let verdict = Verdict::of(pod, options, daemon_sets, now);
            let (tier, places) = (options.tier_of(pod), matching(pod));
            let names = places.iter().map(|place| budgets[*place].name.clone()).collect();
            let is_candidate = verdict.decision() == Decision::Evict;
            if is_candidate {
                for place in &places {
                    counts[*place] += 1;
                }
                candidates.push(Candidate {
                    pod,
                    tier,
                    budgets: match options.removal {
                        Removal::Evict => places,
                        Removal::Delete => Vec::new(),
                    },
                });
            }
            if verdict.decision() == Decision::Wait {
                others.leaving += u32::from(pod.is_terminating());
                others.first_tier = Some(others.first_tier.map_or(tier, |first| first.min(tier)));
            }
            planned.push((verdict, tier, names, is_candidate));
        }
        let mut told = turns(&candidates, budgets, options.max_concurrent_evictions, others).into_iter();
        let planned: Vec<_> = planned
            .into_iter()
            .map(|(verdict, tier, names, is_candidate)| {
                (verdict, tier, names, is_candidate.then(|| told.next()).flatten())
            })
            .collect();
        let pods = pods.into_iter().zip(planned);
        let budgets = budgets.iter().zip(counts).filter(|(_, count)| 0 < *count);
        Self {
            pods: pods
                .map(|(pod, (verdict, tier, budgets, turn))| PlannedPod {
                    pod,
                    verdict,
                    tier,
                    budgets,
                    turn,
                })
                .collect(),
            budgets: budgets
                .map(|(budget, pods)| PlannedBudget {
                    budget: budget.clone(),
                    pods,
                })
                .collect(),
        }
    }

    /// All pods of the node, in the order in which they were given.
    #[must_use]
    pub fn pods(&self) -> &[PlannedPod] {
        &self.pods
    }

    /// The budgets that match pods that are to be removed, in the order in which they were given.
    #[must_use]
    pub fn budgets(&self) -> &[PlannedBudget] {
        &self.budgets
    }

    /// The pods that may not be removed: while there are any, none is.
    pub fn refusals(&self) -> impl Iterator<Item = &PlannedPod> {
        self.decided(Decision::Refuse)
    }

    /// Whether a pod may not be removed, so that none is.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.refusals().next().is_some()
    }

    /// The pods that are removed, those of earlier rounds first and those that cannot go at the moment last; none if a pod is refused.
    #[must_use]
    pub fn evictions(&self) -> Vec<&PlannedPod> {
        if self.is_refused() {
            return Vec::new();
        }
        let mut found: Vec<_> = self.decided(Decision::Evict).collect();
        found.sort_by_key(|planned| match planned.turn {
            Some(Turn::Round(round)) => round,
            Some(Turn::Blocked(_) | Turn::Never(_)) | None => u32::MAX,
        });
        found
    }

    /// Those of `wanted` that can go together now, each budget counted down: pods that are planned and not wanted take nobody's room.
    #[must_use]
    pub fn together<'a>(&self, wanted: &[&'a PlannedPod], removal: Removal) -> Vec<&'a PlannedPod> {
        let place = |pod: &Pod, name: &String| {
            let is_it = |one: &PlannedBudget| one.budget.namespace == pod.namespace && one.budget.name == *name;
            self.budgets.iter().position(is_it)
        };
        let candidates: Vec<_> = wanted
            .iter()
            .map(|planned| Candidate {
                pod: &planned.pod,
                tier: 0,
                budgets: match removal {
                    Removal::Evict => planned
                        .budgets
                        .iter()
                        .filter_map(|name| place(&planned.pod, name))
                        .collect(),
                    Removal::Delete => Vec::new(),
                },
            })
            .collect();
        let budgets: Vec<_> = self.budgets.iter().map(|one| &one.budget).collect();
        let told = turns(&candidates, &budgets, None, Others::default());
        let both = wanted.iter().zip(told);
        both.filter(|(_, turn)| *turn == Turn::Round(1))
            .map(|(planned, _)| *planned)
            .collect()
    }

    /// The sums.
    #[must_use]
    pub fn totals(&self) -> DrainTotals {
        let mut totals = DrainTotals {
            pods: self.pods.len(),
            ..DrainTotals::default()
        };
        for planned in &self.pods {
            match planned.verdict.decision() {
                Decision::Evict => {
                    totals.evict += 1;
                    totals.requests.add(&planned.pod.requests);
                }
                Decision::Skip => totals.skip += 1,
                Decision::Refuse => totals.refuse += 1,
                Decision::Wait => totals.wait += 1,
            }
            match planned.turn {
                None => {}
                Some(Turn::Round(round)) => {
                    totals.rounds = totals.rounds.max(round);
                    *if round == 1 {
                        &mut totals.at_once
                    } else {
                        &mut totals.later
                    } += 1;
                }
                Some(Turn::Blocked(_)) => totals.blocked += 1,
                Some(Turn::Never(_)) => totals.never += 1,
            }
        }
        totals
    }

    /// What the caller should know besides.
    #[must_use]
    pub fn warnings(&self, node: &Node, options: &DrainOptions) -> Vec<String> {
        let mut warnings = Vec::new();
        if node.status == NodeStatus::Unknown && options.skip_wait_for_delete_timeout.is_none() {
            warnings.push(
                "the node's kubelet was not heard of for a while: without it evicted pods never finish terminating; \
                 skip_wait_for_delete_timeout_seconds passes them"
                    .to_owned(),
            );
        }
        if options.removal == Removal::Delete && !self.budgets.is_empty() {
            warnings.push("disable_eviction deletes pods although disruption budgets protect them".to_owned());
        }
        if options.grace_period_seconds == Some(0) {
            warnings.push("grace_period_seconds 0 kills pods without a chance to end well".to_owned());
        }
        warnings
    }

    fn decided(&self, decision: Decision) -> impl Iterator<Item = &PlannedPod> {
        self.pods
            .iter()
            .filter(move |planned| planned.verdict.decision() == decision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{controller, node, pod};
    use crate::{Barrier, Rule, Selector, UnhealthyPods};

    fn plan(pods: Vec<Pod>, budgets: &[DisruptionBudget], options: &DrainOptions) -> DrainPlan {
        let now = Timestamp::parse("2030-01-01T00:00:00Z").unwrap();
        DrainPlan::new(pods, budgets, &BTreeSet::new(), options, now)
    }

    fn budget(name: &str, selector: &str, allowed: u32) -> DisruptionBudget {
        DisruptionBudget {
            namespace: "team".into(),
            name: name.into(),
            selector: Selector::parse(selector).ok(),
            disruptions_allowed: allowed,
            current_healthy: 5,
            desired_healthy: 4,
            expected_pods: 5,
            unhealthy_pods: UnhealthyPods::default(),
        }
    }

    fn labelled(name: &str, app: &str) -> Pod {
        let mut pod = pod(name);
        pod.labels.insert("app".into(), app.into());
        pod
    }

    fn unmanaged(name: &str) -> Pod {
        Pod {
            controller: None,
            ..pod(name)
        }
    }

    fn names(pods: &[&PlannedPod]) -> Vec<String> {
        pods.iter().map(|planned| planned.pod.name.clone()).collect()
    }

    #[test]
    fn one_refused_pod_keeps_all_pods_and_all_reasons_are_told_at_once() {
        let mut local = pod("local");
        local.has_empty_dir = true;
        let agent = Pod {
            controller: Some(controller("DaemonSet")),
            ..pod("agent")
        };
        let pods = vec![agent, unmanaged("debug"), local, pod("web-1")];
        let refused = plan(pods, &[], &DrainOptions::default());
        assert!(refused.is_refused());
        assert_eq!(refused.evictions(), Vec::<&PlannedPod>::new());
        let rules: Vec<_> = refused.refusals().map(|planned| planned.verdict.rule).collect();
        assert_eq!(rules, [Rule::DaemonSetGone, Rule::Unmanaged, Rule::EmptyDir]);
        let totals = refused.totals();
        assert_eq!((totals.pods, totals.evict, totals.refuse), (4, 1, 3));
    }

    #[test]
    fn evictions_come_in_the_order_in_which_they_can_go() {
        let pods = ["web-1", "web-2", "web-3"].map(|name| labelled(name, "web"));
        let mut pods = Vec::from(pods);
        pods.push(labelled("ledger-1", "ledger"));
        pods.push(labelled("job-1", "job"));
        let budgets = [budget("web", "app=web", 1), budget("ledger", "app=ledger", 0)];
        let plan = plan(pods, &budgets, &DrainOptions::default());
        assert_eq!(
            names(&plan.evictions()),
            ["web-1", "job-1", "web-2", "web-3", "ledger-1"]
        );
        let totals = plan.totals();
        assert_eq!(
            (
                totals.at_once,
                totals.later,
                totals.blocked,
                totals.never,
                totals.rounds
            ),
            (2, 2, 1, 0, 3)
        );
    }

    #[test]
    fn budgets_count_the_pods_that_are_to_be_removed() {
        let pods = vec![labelled("web-1", "web"), labelled("web-2", "web"), pod("other")];
        let budgets = [
            budget("everything", "", 1),
            budget("nothing", "app=none", 1),
            budget("web", "app=web", 1),
        ];
        let options = DrainOptions {
            pod_selector: Selector::parse("app=web").unwrap(),
            ..DrainOptions::default()
        };
        let plan = plan(pods, &budgets, &options);
        let counted: Vec<_> = plan
            .budgets()
            .iter()
            .map(|one| (one.budget.name.as_str(), one.pods))
            .collect();
        assert_eq!(counted, [("everything", 2), ("web", 2)]);
        assert_eq!(plan.pods()[0].budgets, ["everything", "web"]);
        assert!(matches!(
            &plan.pods()[0].turn,
            Some(Turn::Never(Barrier::SeveralBudgets(names))) if names.len() == 2
        ));
        assert_eq!(plan.pods()[2].turn, None);
    }

    #[test]
    fn pods_that_are_deleted_do_not_wait_for_budgets() {
        let options = DrainOptions {
            removal: Removal::Delete,
            ..DrainOptions::default()
        };
        let plan = plan(vec![labelled("web-1", "web")], &[budget("web", "", 0)], &options);
        assert_eq!(plan.pods()[0].turn, Some(Turn::Round(1)));
        // It still is told which budgets are passed over.
        assert_eq!(plan.budgets().len(), 1);
    }

    #[test]
    fn what_could_go_wrong_beyond_single_pods_is_told() {
        let silent = Node {
            status: NodeStatus::Unknown,
            ..node("a")
        };
        let budgets = [budget("web", "", 1)];
        let warned = |node: &Node, options: &DrainOptions| {
            let plan = plan(vec![pod("web-1")], &budgets, options);
            plan.warnings(node, options).len()
        };
        let plain = DrainOptions::default();
        assert_eq!((warned(&node("a"), &plain), warned(&silent, &plain)), (0, 1));
        let harsh = DrainOptions {
            grace_period_seconds: Some(0),
            removal: Removal::Delete,
            skip_wait_for_delete_timeout: Some(std::time::Duration::from_secs(1)),
            ..plain
        };
        assert_eq!(warned(&silent, &harsh), 2);
    }

    #[test]
    fn what_removed_pods_ask_for_is_added_up() {
        let mut one = pod("one");
        one.requests.cpu_millicores = 250;
        let mut other = pod("other");
        other.requests.cpu_millicores = 500;
        let mut stays = pod("stays");
        (stays.is_mirror, stays.requests.cpu_millicores) = (true, 100);
        let totals = plan(vec![one, other, stays], &[], &DrainOptions::default()).totals();
        assert_eq!((totals.requests.cpu_millicores, totals.skip), (750, 1));
    }
}
