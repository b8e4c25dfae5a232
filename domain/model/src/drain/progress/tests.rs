use std::collections::BTreeSet;

use super::*;
use crate::fixture::pod;
use crate::{DisruptionBudget, Pod, Removal, Selector, Tier, UnhealthyPods};

fn at(seconds: u64) -> Timestamp {
    let start = Timestamp::parse("2030-01-01T00:00:00Z").unwrap();
    start.plus(Duration::from_secs(seconds))
}

fn plan_of(pods: Vec<Pod>, budgets: &[DisruptionBudget], options: &DrainOptions) -> DrainPlan {
    DrainPlan::new(pods, budgets, &BTreeSet::new(), options, at(0))
}

fn plan(pods: &[Pod]) -> DrainPlan {
    plan_of(pods.to_vec(), &[], &DrainOptions::default())
}

fn pods<const N: usize>(names: [&str; N]) -> Vec<Pod> {
    names.map(pod).into()
}

fn due(progress: &DrainProgress, plan: &DrainPlan, options: &DrainOptions) -> Vec<String> {
    let due = progress.due(plan, options, None, usize::MAX, at(0));
    due.into_iter().map(|planned| planned.pod.name.clone()).collect()
}

fn own_pod() -> ObjectName {
    ObjectName {
        namespace: "team".into(),
        name: "a".into(),
    }
}

fn budget(allowed: u32) -> DisruptionBudget {
    DisruptionBudget {
        namespace: "team".into(),
        name: "web".into(),
        selector: Some(Selector::default()),
        disruptions_allowed: allowed,
        current_healthy: 3,
        desired_healthy: 2,
        expected_pods: 3,
        unhealthy_pods: UnhealthyPods::IfHealthyBudget,
    }
}

fn leaving(name: &str) -> Pod {
    Pod {
        deletion_at: Some(at(30)),
        deletion_grace: Some(Duration::from_secs(30)),
        ..pod(name)
    }
}

#[test]
fn a_pod_is_gone_when_it_cannot_be_found_and_not_when_it_was_asked_to_go() {
    let mut progress = DrainProgress::default();
    let all = pods(["a", "b"]);
    assert_eq!(progress.look(&plan(&all), Sight::Recent, at(0)), [0, 1]);
    assert_eq!(progress.answered("uid-of-a", Farewell::Accepted, at(1)), Some(0));
    assert_eq!(progress.standing(), Standing::Under);
    // By when it should be gone is no news.
    assert_eq!(
        progress.look(&plan(&[leaving("a"), pod("b")]), Sight::Recent, at(2)),
        Vec::<usize>::new()
    );
    let until = Some(at(30));
    assert_eq!(progress.pods[0].state, PodProgress::Terminating { until });
    assert_eq!(progress.pods[0].since, at(1));
    assert_eq!(progress.look(&plan(&pods(["b"])), Sight::Recent, at(3)), [0]);
    assert_eq!(progress.pods[0].state, PodProgress::Gone);
    assert_eq!(progress.standing(), Standing::Under);
    progress.look(&plan(&[]), Sight::Recent, at(4));
    assert_eq!(progress.standing(), Standing::Drained);
}

#[test]
fn another_pod_under_the_same_name_is_another_pod() {
    let mut progress = DrainProgress::default();
    progress.look(&plan(&pods(["a"])), Sight::Recent, at(0));
    let successor = Pod {
        uid: "another".into(),
        ..pod("a")
    };
    progress.look(&plan(&[successor]), Sight::Recent, at(1));
    let states: Vec<_> = progress.pods.iter().map(|pod| pod.state.as_str()).collect();
    assert_eq!(states, ["gone", "waiting"]);
}

#[test]
fn pods_that_no_budget_allows_are_blocked_since_the_first_time_and_not_asked() {
    let mut progress = DrainProgress::default();
    let options = DrainOptions::default();
    let full = plan_of(pods(["a", "b"]), &[budget(0)], &options);
    progress.look(&full, Sight::Recent, at(0));
    assert_eq!(progress.look(&full, Sight::Recent, at(5)), Vec::<usize>::new());
    assert_eq!(progress.pods[0].state.budget(), Some("web"));
    assert_eq!((progress.pods[0].since, progress.blocked()), (at(0), 2));
    assert_eq!(due(&progress, &full, &options), Vec::<String>::new());
    let room = plan_of(pods(["a", "b"]), &[budget(1)], &options);
    progress.look(&room, Sight::Recent, at(6));
    assert_eq!(due(&progress, &room, &options), ["a"]);
}

#[test]
fn a_refusal_by_a_budget_is_tried_again_when_the_cluster_says_or_later_and_later() {
    let mut progress = DrainProgress::default();
    let all = plan(&pods(["a"]));
    progress.look(&all, Sight::Recent, at(0));
    let refusal = |retry_after| Farewell::Blocked {
        budget: Some("web".into()),
        message: "no room".into(),
        retry_after,
    };
    progress.answered("uid-of-a", refusal(Some(Duration::from_secs(9))), at(0));
    assert_eq!(progress.pods[0].retry_at, Some(at(9)));
    // What the plan thinks meanwhile does not matter.
    progress.look(&all, Sight::Recent, at(1));
    assert_eq!((progress.blocked(), progress.pods[0].since), (1, at(0)));
    let asked =
        |progress: &DrainProgress, second| progress.due(&all, &DrainOptions::default(), None, 9, at(second)).len();
    assert_eq!((asked(&progress, 8), asked(&progress, 9)), (0, 1));
    let mut before = Duration::ZERO;
    for _ in 0..3 {
        progress.answered("uid-of-a", refusal(None), at(10));
        let pause = progress.pods[0].retry_at.unwrap().since(at(10));
        assert!(before < pause && FIRST_RETRY <= pause, "{pause:?}");
        before = pause;
    }
    for _ in 0..99 {
        progress.answered("uid-of-a", refusal(None), at(10));
    }
    assert!(progress.pods[0].retry_at.unwrap().since(at(10)) <= LONGEST_RETRY * 5 / 4);
}

#[test]
fn a_pod_that_cannot_be_removed_fails_and_the_others_go_on() {
    let mut progress = DrainProgress::default();
    let all = plan(&pods(["a", "b"]));
    progress.look(&all, Sight::Recent, at(0));
    let never = Farewell::Never {
        message: "not this one".into(),
    };
    progress.answered("uid-of-a", never, at(0));
    assert_eq!(due(&progress, &all, &DrainOptions::default()), ["b"]);
    assert_eq!(progress.standing(), Standing::Under);
    progress.look(&plan(&pods(["a"])), Sight::Recent, at(1));
    assert_eq!(
        progress.standing(),
        Standing::Stuck(vec!["team/a: not this one".into()])
    );
}

#[test]
fn pods_that_two_budgets_match_fail_without_being_asked() {
    let mut progress = DrainProgress::default();
    let both = [
        budget(5),
        DisruptionBudget {
            name: "all".into(),
            ..budget(5)
        },
    ];
    progress.look(
        &plan_of(pods(["a"]), &both, &DrainOptions::default()),
        Sight::Recent,
        at(0),
    );
    let Standing::Stuck(left) = progress.standing() else {
        panic!("{progress:?}");
    };
    assert!(left[0].contains("web") && left[0].contains("all"), "{left:?}");
}

#[test]
fn tiers_are_drained_one_after_the_other() {
    let low = Tier::PriorityClass("low".into());
    let options = DrainOptions {
        order: vec![low],
        ..DrainOptions::default()
    };
    let in_low = |pod: Pod| Pod {
        priority_class: Some("low".into()),
        ..pod
    };
    let mut progress = DrainProgress::default();
    let first = plan_of(vec![in_low(pod("a")), pod("b")], &[], &options);
    progress.look(&first, Sight::Recent, at(0));
    assert_eq!(due(&progress, &first, &options), ["a"]);
    let second = plan_of(vec![in_low(leaving("a")), pod("b")], &[], &options);
    progress.look(&second, Sight::Recent, at(1));
    assert_eq!(
        due(&progress, &second, &options),
        Vec::<String>::new(),
        "the first tier is still going"
    );
    let third = plan_of(vec![pod("b")], &[], &options);
    progress.look(&third, Sight::Recent, at(2));
    assert_eq!(due(&progress, &third, &options), ["b"]);
}

#[test]
fn a_tier_whose_pod_failed_holds_the_later_ones_back() {
    let options = DrainOptions {
        order: vec![Tier::PriorityClass("low".into())],
        ..DrainOptions::default()
    };
    let low = Pod {
        priority_class: Some("low".into()),
        ..pod("a")
    };
    let mut progress = DrainProgress::default();
    let all = plan_of(vec![low, pod("b")], &[], &options);
    progress.look(&all, Sight::Recent, at(0));
    let never = Farewell::Never { message: "no".into() };
    progress.answered("uid-of-a", never, at(0));
    assert_eq!(due(&progress, &all, &options), Vec::<String>::new());
    assert!(matches!(progress.standing(), Standing::Stuck(left) if left.len() == 2));
}

#[test]
fn no_more_pods_are_on_their_way_out_than_asked_for() {
    let options = DrainOptions {
        max_concurrent_evictions: Some(2),
        ..DrainOptions::default()
    };
    let mut progress = DrainProgress::default();
    let all = plan_of(vec![leaving("a"), pod("b"), pod("c")], &[], &options);
    progress.look(&all, Sight::Recent, at(0));
    assert_eq!(due(&progress, &all, &options), ["b"]);
    assert_eq!(progress.due(&all, &DrainOptions::default(), None, 0, at(0)).len(), 0);
}

#[test]
fn own_pod_goes_last() {
    let own = own_pod();
    let mut progress = DrainProgress::default();
    let all = plan(&pods(["a", "b"]));
    progress.look(&all, Sight::Recent, at(0));
    let due = |progress: &DrainProgress, plan: &DrainPlan| {
        let due = progress.due(plan, &DrainOptions::default(), Some(&own), 9, at(0));
        due.into_iter()
            .map(|planned| planned.pod.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(due(&progress, &all), ["b"]);
    let last = plan(&pods(["a"]));
    progress.look(&last, Sight::Recent, at(1));
    assert_eq!(due(&progress, &last), ["a"]);
}

#[test]
fn a_terminating_pod_that_is_overdue_is_passed() {
    let options = DrainOptions {
        skip_wait_for_delete_timeout: Some(Duration::from_secs(60)),
        ..DrainOptions::default()
    };
    let mut progress = DrainProgress::default();
    let stuck = [leaving("a")];
    let plan_at = |now| DrainPlan::new(stuck.to_vec(), &[], &BTreeSet::new(), &options, now);
    progress.look(&plan_at(at(80)), Sight::Recent, at(80));
    assert_eq!(progress.standing(), Standing::Under);
    progress.look(&plan_at(at(91)), Sight::Recent, at(91));
    assert_eq!(progress.pods[0].state.as_str(), "passed");
    assert_eq!(progress.standing(), Standing::Drained);
}

#[test]
fn after_the_deadline_everything_is_due_if_asked_for() {
    let mut progress = DrainProgress::default();
    let options = DrainOptions::default();
    let full = plan_of(pods(["a", "b"]), &[budget(0)], &options);
    progress.look(&full, Sight::Recent, at(0));
    progress.answered("uid-of-b", Farewell::Never { message: "no".into() }, at(0));
    let deleted = progress.force(at(1), Some(at(60)));
    assert!(
        deleted[0].contains("budget web") && deleted[1] == "team/b: no",
        "{deleted:?}"
    );
    let without_budgets = DrainOptions {
        removal: Removal::Delete,
        ..options
    };
    let all = plan_of(pods(["a", "b"]), &[budget(0)], &without_budgets);
    progress.look(&all, Sight::Recent, at(1));
    assert_eq!(due(&progress, &all, &without_budgets), ["a", "b"]);
    assert_eq!(progress.deadline, Some(at(60)));
}

#[test]
fn it_is_looked_often_while_something_happens_and_seldom_while_nothing_does() {
    let mut progress = DrainProgress::default();
    let full = plan_of(pods(["a"]), &[budget(0)], &DrainOptions::default());
    progress.look(&full, Sight::Recent, at(0));
    assert_eq!(progress.rest(at(0)), FIRST_LOOK);
    assert_eq!(progress.rest(at(8)), Duration::from_secs(2));
    assert_eq!(progress.rest(at(99)), LONGEST_LOOK);
    progress.deadline = Some(at(102));
    assert_eq!(progress.rest(at(99)), Duration::from_secs(3));
}

#[test]
fn what_is_stored_is_read_back() {
    let mut progress = DrainProgress {
        phase: DrainPhase::Removing,
        deadline: Some(at(60)),
        notice: Some("slow".into()),
        ..DrainProgress::default()
    };
    let all = [pod("a"), leaving("b"), pod("c")];
    progress.look(&plan(&all), Sight::Recent, at(0));
    progress.answered("uid-of-c", Farewell::Never { message: "no".into() }, at(0));
    let text = serde_json::to_string(&progress).unwrap();
    assert_eq!(serde_json::from_str::<DrainProgress>(&text).unwrap(), progress);
    assert_eq!(
        serde_json::from_str::<DrainProgress>("{}").unwrap(),
        DrainProgress::default()
    );
}

#[test]
fn a_pod_that_agreed_to_go_is_not_asked_again_because_it_is_seen_late() {
    let mut progress = DrainProgress::default();
    let all = plan(&pods(["a"]));
    progress.look(&all, Sight::Certain, at(0));
    progress.answered("uid-of-a", Farewell::Accepted, at(1));
    assert_eq!(progress.look(&all, Sight::Recent, at(2)), Vec::<usize>::new());
    assert_eq!(progress.pods[0].state, PodProgress::Terminating { until: None });
    assert_eq!(
        (progress.leaving(), due(&progress, &all, &DrainOptions::default())),
        (1, Vec::new())
    );
    // A cluster that still has it as it was for so long has lost what it agreed to.
    progress.look(&all, Sight::Recent, at(40));
    assert_eq!(due(&progress, &all, &DrainOptions::default()), ["a"]);
}

#[test]
fn a_pod_that_is_gone_comes_back_only_when_it_is_certainly_there() {
    let mut progress = DrainProgress::default();
    let all = plan(&pods(["a"]));
    progress.look(&all, Sight::Certain, at(0));
    progress.answered("uid-of-a", Farewell::Gone, at(1));
    for told in [&all, &plan(&[leaving("a")])] {
        assert_eq!(progress.look(told, Sight::Recent, at(2)), Vec::<usize>::new());
    }
    progress.look(&all, Sight::Certain, at(3));
    assert_eq!(progress.pods[0].state.as_str(), "waiting");
}

#[test]
fn pods_that_are_not_asked_take_nobodys_room() {
    let own = own_pod();
    let one_at_once = DrainOptions {
        max_concurrent_evictions: Some(1),
        ..DrainOptions::default()
    };
    for options in [&DrainOptions::default(), &one_at_once] {
        let all = plan_of(pods(["a", "b", "c"]), &[budget(1)], options);
        let asked = |progress: &DrainProgress, own| {
            let due = progress.due(&all, options, own, usize::MAX, at(1));
            due.into_iter()
                .map(|planned| planned.pod.name.clone())
                .collect::<Vec<_>>()
        };
        let mut progress = DrainProgress::default();
        progress.look(&all, Sight::Certain, at(0));
        assert_eq!(asked(&progress, Some(&own)), ["b"], "the own pod goes last");
        let never = Farewell::Never { message: "no".into() };
        progress.answered("uid-of-a", never, at(0));
        assert_eq!(asked(&progress, None), ["b"], "the first pod cannot go");
        let later = Farewell::Later {
            message: "a webhook is away".into(),
            retry_after: Some(Duration::from_secs(60)),
        };
        progress.answered("uid-of-b", later, at(0));
        assert_eq!(asked(&progress, None), ["c"], "the second pod is not to be asked yet");
    }
}

#[test]
fn an_own_pod_of_an_earlier_tier_goes_last_all_the_same() {
    let options = DrainOptions {
        order: vec![Tier::PriorityClass("low".into())],
        ..DrainOptions::default()
    };
    let low = Pod {
        priority_class: Some("low".into()),
        ..pod("a")
    };
    let own = own_pod();
    let all = plan_of(vec![low, pod("b")], &[], &options);
    let mut progress = DrainProgress::default();
    progress.look(&all, Sight::Certain, at(0));
    let due = progress.due(&all, &options, Some(&own), usize::MAX, at(0));
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].pod.name, "b");
}

#[test]
fn a_pod_stays_blocked_since_the_first_time_until_its_budget_lets_it_go() {
    let mut progress = DrainProgress::default();
    let options = DrainOptions::default();
    let room = plan_of(pods(["a"]), &[budget(1)], &options);
    progress.look(&room, Sight::Certain, at(0));
    for second in [1, 20, 40] {
        let refusal = Farewell::Blocked {
            budget: Some("web".into()),
            message: "needs 2 healthy pods and has 2 currently".into(),
            retry_after: Some(Duration::from_secs(9)),
        };
        progress.answered("uid-of-a", refusal, at(second));
        // The budget seems to have room, or to have none, which is no news either.
        progress.look(&room, Sight::Recent, at(second + 10));
        let full = plan_of(pods(["a"]), &[budget(0)], &options);
        assert_eq!(
            progress.look(&full, Sight::Recent, at(second + 11)),
            Vec::<usize>::new()
        );
        assert_eq!((progress.blocked(), progress.pods[0].since), (1, at(1)));
        progress.look(&room, Sight::Recent, at(second + 12));
        let asked = progress.due(&room, &options, None, 9, at(second + 12)).len();
        assert_eq!(asked, 1);
    }
}

#[test]
fn a_refused_pod_that_is_on_its_way_out_is_waited_for() {
    let mut progress = DrainProgress::default();
    let bare = Pod {
        controller: None,
        ..leaving("a")
    };
    progress.look(&plan(&[bare]), Sight::Certain, at(0));
    assert_eq!(progress.pods[0].state.as_str(), "terminating");
}

#[test]
fn pods_that_come_again_and_again_are_not_fought_for_ever() {
    let mut progress = DrainProgress::default();
    progress.look(&plan(&pods(["a"])), Sight::Certain, at(0));
    for number in 0..=MOST_LATECOMERS {
        let next = plan(&[pod(&format!("b-{number}"))]);
        assert_eq!(progress.standing(), Standing::Under);
        progress.look(&next, Sight::Recent, at(u64::from(number)));
    }
    assert!(matches!(progress.standing(), Standing::Stuck(left) if left[0].contains("cordoned")));
}

#[test]
fn when_the_time_is_up_tiers_and_pods_that_failed_hold_nobody_back() {
    let options = DrainOptions {
        order: vec![Tier::PriorityClass("low".into())],
        removal: Removal::Delete,
        ..DrainOptions::default()
    };
    let low = Pod {
        priority_class: Some("low".into()),
        ..leaving("a")
    };
    let mut progress = DrainProgress::default();
    let all = plan_of(vec![low, pod("b"), pod("c")], &[], &options);
    progress.look(&all, Sight::Certain, at(0));
    assert_eq!(due(&progress, &all, &options), Vec::<String>::new());
    let deleted = progress.force(at(1), Some(at(60)));
    assert_eq!(deleted.len(), 2, "one is on its way out already: {deleted:?}");
    assert_eq!(due(&progress, &all, &options), ["b", "c"]);
}

#[test]
fn the_time_during_which_nobody_worked_on_a_drain_is_not_held_against_its_pods() {
    let mut progress = DrainProgress {
        deadline: Some(at(300)),
        ..DrainProgress::default()
    };
    let timeout = Some(Duration::from_secs(300));
    progress.take_up(timeout, at(100));
    assert_eq!(progress.deadline, Some(at(300)), "there is time enough");
    assert!(!progress.is_late(at(299)) && progress.is_late(at(300)));
    progress.take_up(timeout, at(4000));
    assert_eq!(progress.deadline, Some(at(4060)));
    progress.take_up(Some(Duration::from_secs(5)), at(5000));
    assert_eq!(progress.deadline, Some(at(5005)));
    let mut patient = DrainProgress::default();
    patient.take_up(None, at(5000));
    assert_eq!(patient.deadline, None);
}
