//! Which pods of a node a drain removes, and why not the others.

use std::collections::BTreeSet;

use super::DrainOptions;
use crate::{Pod, Timestamp};

#[cfg(test)]
mod tests;

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
        // One that somebody deleted goes, whatever it was waited for.
        return match pod.is_terminating() {
            true => Rule::AlreadyTerminating,
            false => Rule::AwaitedCompletion,
        };
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
#[must_use]
pub fn daemon_set(pod: &Pod) -> Option<ObjectName> {
    let controller = pod.controller.as_ref()?;
    let is_it = controller.kind == "DaemonSet" && controller.api_version == "apps/v1";
    is_it.then(|| ObjectName {
        namespace: pod.namespace.clone(),
        name: controller.name.clone(),
    })
}
