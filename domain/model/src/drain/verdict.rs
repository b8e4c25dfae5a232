//! Which pods of a node a drain removes, and why not the others.

use std::collections::BTreeSet;

use super::DrainOptions;
use crate::{Pod, Timestamp};

/// An object of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What becomes of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What decided.
    pub rule: Rule,
    /// What the caller should know although it is done.
    pub warnings: Vec<Warning>,
}

/// What is done about a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// It is removed.
    Evict,
    /// It stays, and the drain does not mind.
    Skip,
    /// It may not be removed, so none of the node's pods is.
    Refuse,
    /// It goes by itself: the drain waits for that.
    Wait,
}

/// Why something is done about a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// It should have been gone for longer than the drain waits for such pods: its kubelet may be gone.
    OverdueTermination,
    /// Its DaemonSet would start it again at once; such pods are left alone.
    DaemonSetIgnored,
    /// Its DaemonSet would start it again at once, and nobody said to leave such pods alone.
    DaemonSetNotIgnored,
    /// Its DaemonSet is gone, and nobody said to remove what does not come back.
    DaemonSetGone,
    /// It stands for a static pod.
    StaticPod,
    /// Its `emptyDir` would be lost, and nobody agreed to that.
    EmptyDir,
    /// Nothing manages it, and nobody said to remove what does not come back.
    Unmanaged,
    /// The drain is about other pods.
    NotSelected,
    /// It is to end by itself.
    AwaitedCompletion,
    /// Its deletion was asked for already.
    AlreadyTerminating,
    /// Nothing speaks against it.
    Removable,
}

/// What is lost with a pod that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Warning {
    /// Its DaemonSet is gone: nobody starts it again.
    DaemonSetGone,
    /// The content of its `emptyDir` volumes.
    EmptyDirLost,
    /// Nothing manages it: nobody starts it again.
    Unmanaged,
}

impl Decision {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Evict, Self::Skip, Self::Refuse, Self::Wait];

    /// `evict`, `skip`, `refuse` or `wait`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evict => "evict",
            Self::Skip => "skip",
            Self::Refuse => "refuse",
            Self::Wait => "wait",
        }
    }
}

impl Rule {
    /// What it comes to.
    #[must_use]
    pub fn decision(self) -> Decision {
        match self {
            Self::OverdueTermination | Self::DaemonSetIgnored | Self::StaticPod | Self::NotSelected => Decision::Skip,
            Self::DaemonSetNotIgnored | Self::DaemonSetGone | Self::EmptyDir | Self::Unmanaged => Decision::Refuse,
            Self::AwaitedCompletion | Self::AlreadyTerminating => Decision::Wait,
            Self::Removable => Decision::Evict,
        }
    }

    /// Its name, in snake case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OverdueTermination => "overdue_termination",
            Self::DaemonSetIgnored => "daemon_set_ignored",
            Self::DaemonSetNotIgnored => "daemon_set_not_ignored",
            Self::DaemonSetGone => "daemon_set_gone",
            Self::StaticPod => "static_pod",
            Self::EmptyDir => "empty_dir",
            Self::Unmanaged => "unmanaged",
            Self::NotSelected => "not_selected",
            Self::AwaitedCompletion => "awaited_completion",
            Self::AlreadyTerminating => "already_terminating",
            Self::Removable => "removable",
        }
    }

    /// A sentence for whoever reads the plan; of a refusal, with the option that lifts it.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::OverdueTermination => {
                "it has been past its deletion time for longer than skip_wait_for_delete_timeout_seconds"
            }
            Self::DaemonSetIgnored => "its DaemonSet would start it again at once",
            Self::DaemonSetNotIgnored => {
                "its DaemonSet would start it again at once; ignore_daemonsets leaves such pods alone"
            }
            Self::DaemonSetGone => "its DaemonSet is gone, nobody would start it again; force removes such pods",
            Self::StaticPod => "the kubelet starts it from a file, removing it changes nothing",
            Self::EmptyDir => {
                "it has an emptyDir volume whose content would be lost; delete_emptydir_data accepts that"
            }
            Self::Unmanaged => "nothing manages it, nobody would start it again; force removes such pods",
            Self::NotSelected => "pod_selector does not match it",
            Self::AwaitedCompletion => "wait_for_completion matches it, it is left to end by itself",
            Self::AlreadyTerminating => "its deletion was asked for already",
            Self::Removable => "nothing speaks against removing it",
        }
    }
}

impl Warning {
    /// Its name, in snake case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DaemonSetGone => "daemon_set_gone",
            Self::EmptyDirLost => "empty_dir_lost",
            Self::Unmanaged => "unmanaged",
        }
    }

    /// A sentence for whoever reads the plan.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::DaemonSetGone => "its DaemonSet is gone, nobody will start it again",
            Self::EmptyDirLost => "the content of its emptyDir volumes will be lost",
            Self::Unmanaged => "nothing manages it, nobody will start it again",
        }
    }
}

impl Verdict {
    /// Decides about `pod`, as `kubectl drain` does, with all warnings. `daemon_sets` are those that there are.
    #[must_use]
    pub fn of(pod: &Pod, options: &DrainOptions, daemon_sets: &BTreeSet<ObjectName>, now: Timestamp) -> Self {
        let mut warnings = Vec::new();
        let rule = decide(pod, options, daemon_sets, now, &mut warnings);
        if rule.decision() != Decision::Evict {
            warnings.clear();
        }
        Self { rule, warnings }
    }

    /// What is done about the pod.
    #[must_use]
    pub fn decision(&self) -> Decision {
        self.rule.decision()
    }
}

fn decide(
    pod: &Pod,
    options: &DrainOptions,
    daemon_sets: &BTreeSet<ObjectName>,
    now: Timestamp,
    warnings: &mut Vec<Warning>,
) -> Rule {
    if is_overdue(pod, options, now) {
        return Rule::OverdueTermination;
    }
    if let Some(daemon_set) = daemon_set(pod).filter(|_| !pod.is_finished()) {
        match (daemon_sets.contains(&daemon_set), options.ignore_daemonsets) {
            (true, true) => return Rule::DaemonSetIgnored,
            (true, false) => return Rule::DaemonSetNotIgnored,
            (false, _) if options.force => warnings.push(Warning::DaemonSetGone),
            (false, _) => return Rule::DaemonSetGone,
        }
    }
    if pod.is_mirror {
        return Rule::StaticPod;
    }
    let is_selected = options.pod_selector.matches(&pod.labels);
    if is_selected && is_awaited(pod, options) {
        return Rule::AwaitedCompletion;
    }
    if pod.has_empty_dir && !pod.is_finished() {
        if !options.delete_emptydir_data {
            return Rule::EmptyDir;
        }
        warnings.push(Warning::EmptyDirLost);
    }
    if pod.controller.is_none() && !pod.is_finished() {
        if !options.force {
            return Rule::Unmanaged;
        }
        warnings.push(Warning::Unmanaged);
    }
    match (is_selected, pod.is_terminating()) {
        (false, _) => Rule::NotSelected,
        (true, true) => Rule::AlreadyTerminating,
        (true, false) => Rule::Removable,
    }
}

/// Whether the time by which the pod should have been gone is longer ago than the drain waits for.
fn is_overdue(pod: &Pod, options: &DrainOptions, now: Timestamp) -> bool {
    match (pod.deletion_at, options.skip_wait_for_delete_timeout) {
        (Some(deletion_at), Some(limit)) => limit < now.since(deletion_at),
        (None, _) | (_, None) => false,
    }
}

/// Whether the pod is to end by itself and did not yet.
fn is_awaited(pod: &Pod, options: &DrainOptions) -> bool {
    let awaited = options.wait_for_completion.as_ref();
    !pod.is_finished() && awaited.is_some_and(|selector| selector.matches(&pod.labels))
}

/// The DaemonSet that controls `pod`.
pub(super) fn daemon_set(pod: &Pod) -> Option<ObjectName> {
    let controller = pod.controller.as_ref()?;
    let is_it = controller.kind == "DaemonSet" && controller.api_version == "apps/v1";
    is_it.then(|| ObjectName {
        namespace: pod.namespace.clone(),
        name: controller.name.clone(),
    })
}

#[cfg(test)]
mod tests {
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
}
