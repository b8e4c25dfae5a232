use std::time::Duration;

use super::*;
use crate::fixture::{controller, pod};
use crate::{PodPhase, Selector};

const NOW: &str = "2030-01-01T01:00:00Z";

fn verdict(pod: &Pod, options: &DrainOptions) -> Verdict {
    let existing = ObjectName {
        namespace: "team".into(),
        name: "web".into(),
    };
    Verdict::of(pod, options, &[existing].into(), Timestamp::parse(NOW).unwrap())
}

fn terminating(ago: u64) -> Pod {
    let asked_at = Timestamp::parse(NOW).unwrap().minus(Duration::from_secs(ago));
    Pod {
        deletion_at: Some(asked_at),
        ..pod("terminating")
    }
}

fn of_daemon_set(name: &str) -> Pod {
    let mut owner = controller("DaemonSet");
    owner.name = name.into();
    Pod {
        controller: Some(owner),
        ..pod("agent")
    }
}

fn finished(pod: &Pod) -> [Pod; 2] {
    [PodPhase::Succeeded, PodPhase::Failed].map(|phase| Pod { phase, ..pod.clone() })
}

fn selector(text: &str) -> Selector {
    Selector::parse(text).unwrap()
}

fn careful() -> DrainOptions {
    DrainOptions::default()
}

fn force() -> DrainOptions {
    DrainOptions {
        force: true,
        ..careful()
    }
}

fn ignoring() -> DrainOptions {
    DrainOptions {
        ignore_daemonsets: true,
        ..careful()
    }
}

fn losing_data() -> DrainOptions {
    DrainOptions {
        delete_emptydir_data: true,
        ..careful()
    }
}

fn everything() -> DrainOptions {
    DrainOptions {
        force: true,
        ignore_daemonsets: true,
        delete_emptydir_data: true,
        ..careful()
    }
}

#[test]
fn a_plain_pod_is_removed_without_any_option() {
    assert_eq!(
        verdict(&pod("web-1"), &careful()),
        Verdict {
            rule: Rule::Removable,
            warnings: vec![]
        }
    );
}

#[test]
fn pods_that_terminate_for_too_long_are_skipped_if_asked_for() {
    let patient = |seconds| DrainOptions {
        skip_wait_for_delete_timeout: Some(Duration::from_secs(seconds)),
        ..careful()
    };
    for (ago, options, rule) in [
        (3600, careful(), Rule::AlreadyTerminating),
        (61, patient(60), Rule::OverdueTermination),
        (60, patient(60), Rule::AlreadyTerminating),
        (59, patient(60), Rule::AlreadyTerminating),
    ] {
        assert_eq!(verdict(&terminating(ago), &options).rule, rule, "{ago}");
    }
    // It comes first: such a pod is asked about nothing else.
    let mut stuck = terminating(61);
    (stuck.controller, stuck.has_empty_dir) = (None, true);
    assert_eq!(verdict(&stuck, &patient(60)).rule, Rule::OverdueTermination);
    assert_eq!(verdict(&pod("alive"), &patient(60)).rule, Rule::Removable);
}

#[test]
fn terminating_pods_are_still_waited_for() {
    let verdict = verdict(&terminating(5), &careful());
    assert_eq!(
        (verdict.rule, verdict.decision()),
        (Rule::AlreadyTerminating, Decision::Wait)
    );
}

#[test]
fn daemon_set_pods_are_skipped_or_refused() {
    for (name, options, rule) in [
        ("web", careful(), Rule::DaemonSetNotIgnored),
        ("web", force(), Rule::DaemonSetNotIgnored),
        ("web", ignoring(), Rule::DaemonSetIgnored),
        ("web", everything(), Rule::DaemonSetIgnored),
        ("gone", careful(), Rule::DaemonSetGone),
        ("gone", ignoring(), Rule::DaemonSetGone),
        ("gone", force(), Rule::Removable),
    ] {
        assert_eq!(verdict(&of_daemon_set(name), &options).rule, rule, "{name}");
    }
    assert_eq!(
        verdict(&of_daemon_set("gone"), &force()).warnings,
        [Warning::DaemonSetGone]
    );
}

#[test]
fn finished_daemon_set_pods_go_on() {
    for name in ["web", "gone"] {
        for pod in finished(&of_daemon_set(name)) {
            assert_eq!(verdict(&pod, &careful()).rule, Rule::Removable);
        }
    }
}

#[test]
fn a_daemon_set_of_another_group_is_a_controller_like_any_other() {
    let mut pod = of_daemon_set("web");
    pod.controller.as_mut().unwrap().api_version = "apps.example.com/v1".into();
    assert_eq!(verdict(&pod, &careful()).rule, Rule::Removable);
}

#[test]
fn a_daemon_set_of_another_namespace_is_not_the_one() {
    let mut pod = of_daemon_set("web");
    pod.namespace = "other".into();
    assert_eq!(verdict(&pod, &ignoring()).rule, Rule::DaemonSetGone);
}

#[test]
fn a_skipped_daemon_set_pod_is_never_asked_about_its_empty_dir() {
    let mut pod = of_daemon_set("web");
    pod.has_empty_dir = true;
    assert_eq!(
        verdict(&pod, &ignoring()),
        Verdict {
            rule: Rule::DaemonSetIgnored,
            warnings: vec![]
        }
    );
}

#[test]
fn a_pod_whose_daemon_set_is_gone_still_needs_consent_to_lose_its_empty_dir() {
    let mut pod = of_daemon_set("gone");
    pod.has_empty_dir = true;
    assert_eq!(verdict(&pod, &force()).rule, Rule::EmptyDir);
    let all = verdict(&pod, &everything());
    assert_eq!(all.rule, Rule::Removable);
    assert_eq!(all.warnings, [Warning::DaemonSetGone, Warning::EmptyDirLost]);
}

#[test]
fn static_pods_are_skipped() {
    let mut mirror = pod("kube-proxy");
    (mirror.is_mirror, mirror.controller, mirror.has_empty_dir) = (true, None, true);
    assert_eq!(verdict(&mirror, &careful()).rule, Rule::StaticPod);
}

#[test]
fn empty_dirs_are_lost_with_consent_only() {
    let mut pod = pod("web-1");
    pod.has_empty_dir = true;
    assert_eq!(verdict(&pod, &careful()).rule, Rule::EmptyDir);
    assert_eq!(verdict(&pod, &force()).rule, Rule::EmptyDir);
    let consented = verdict(&pod, &losing_data());
    assert_eq!(
        (consented.rule, consented.warnings),
        (Rule::Removable, vec![Warning::EmptyDirLost])
    );
    for pod in finished(&pod) {
        assert_eq!(verdict(&pod, &careful()).rule, Rule::Removable);
        assert_eq!(verdict(&pod, &losing_data()).warnings, []);
    }
}

#[test]
fn unmanaged_pods_are_removed_with_force_only() {
    let mut pod = pod("debug");
    pod.controller = None;
    assert_eq!(verdict(&pod, &careful()).rule, Rule::Unmanaged);
    let forced = verdict(&pod, &force());
    assert_eq!(
        (forced.rule, forced.warnings),
        (Rule::Removable, vec![Warning::Unmanaged])
    );
    for pod in finished(&pod) {
        assert_eq!(verdict(&pod, &careful()).rule, Rule::Removable);
        assert_eq!(verdict(&pod, &force()).warnings, []);
    }
}

#[test]
fn all_warnings_of_a_pod_are_kept() {
    let mut pod = pod("debug");
    (pod.controller, pod.has_empty_dir) = (None, true);
    let warnings = verdict(&pod, &everything()).warnings;
    assert_eq!(warnings, [Warning::EmptyDirLost, Warning::Unmanaged]);
}

#[test]
fn pods_that_are_not_selected_are_skipped_last_of_all() {
    let options = DrainOptions {
        pod_selector: selector("app=web"),
        ..careful()
    };
    let mut other = pod("other");
    assert_eq!(verdict(&other, &options).rule, Rule::NotSelected);
    other.has_empty_dir = true;
    assert_eq!(verdict(&other, &options).rule, Rule::EmptyDir);
    let consented = DrainOptions {
        delete_emptydir_data: true,
        ..options.clone()
    };
    // Nothing is lost with a pod that stays.
    assert_eq!(verdict(&other, &consented).warnings, []);
    let mut web = pod("web-1");
    web.labels.insert("app".into(), "web".into());
    assert_eq!(verdict(&web, &options).rule, Rule::Removable);
}

#[test]
fn pods_that_are_waited_for_are_asked_about_nothing_that_removing_them_would_cost() {
    let options = DrainOptions {
        wait_for_completion: Some(selector("job")),
        ..careful()
    };
    let mut job = pod("job-1");
    job.labels.insert("job".into(), "1".into());
    (job.controller, job.has_empty_dir) = (None, true);
    let awaited = verdict(&job, &options);
    assert_eq!(
        (awaited.rule, awaited.decision()),
        (Rule::AwaitedCompletion, Decision::Wait)
    );
    for pod in finished(&job) {
        assert_eq!(verdict(&pod, &options).rule, Rule::Removable);
    }
    assert_eq!(verdict(&pod("web-1"), &options).rule, Rule::Removable);
    let others_only = DrainOptions {
        pod_selector: selector("!job"),
        force: true,
        delete_emptydir_data: true,
        ..options
    };
    assert_eq!(verdict(&job, &others_only).rule, Rule::NotSelected);
}

/// The table of drain.md: of two rules that both speak about a pod, the one that comes first decides.
#[test]
fn the_first_rule_of_the_table_that_speaks_about_a_pod_decides() {
    let overdue = DrainOptions {
        skip_wait_for_delete_timeout: Some(Duration::from_secs(60)),
        ..careful()
    };
    let other_pods = DrainOptions {
        pod_selector: selector("app=other"),
        ..careful()
    };
    let deleted_agent = Pod {
        deletion_at: terminating(61).deletion_at,
        ..of_daemon_set("web")
    };
    let mirror = |pod: Pod| Pod { is_mirror: true, ..pod };
    let local = |pod: Pod| Pod {
        has_empty_dir: true,
        ..pod
    };
    let bare = |pod: Pod| Pod {
        controller: None,
        ..pod
    };
    let cases = [
        ("1 before 2", deleted_agent, overdue, Rule::OverdueTermination),
        (
            "2 before 3",
            mirror(of_daemon_set("web")),
            careful(),
            Rule::DaemonSetNotIgnored,
        ),
        (
            "2 before 6",
            of_daemon_set("web"),
            other_pods.clone(),
            Rule::DaemonSetNotIgnored,
        ),
        ("3 before 4", mirror(local(pod("web-1"))), careful(), Rule::StaticPod),
        ("3 before 5", mirror(bare(pod("web-1"))), careful(), Rule::StaticPod),
        ("4 before 5", local(bare(pod("web-1"))), careful(), Rule::EmptyDir),
        ("4 before 6", local(pod("web-1")), other_pods.clone(), Rule::EmptyDir),
        ("5 before 6", bare(pod("web-1")), other_pods, Rule::Unmanaged),
    ];
    for (order, pod, options, rule) in cases {
        assert_eq!(verdict(&pod, &options).rule, rule, "{order}");
    }
}

#[test]
fn a_pod_that_is_waited_for_and_was_deleted_goes_like_any_other() {
    let options = DrainOptions {
        wait_for_completion: Some(selector("app=job")),
        ..careful()
    };
    let mut job = terminating(5);
    job.labels.insert("app".into(), "job".into());
    assert_eq!(verdict(&job, &options).rule, Rule::AlreadyTerminating);
}
