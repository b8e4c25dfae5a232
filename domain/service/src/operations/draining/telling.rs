//! What is told of a drain: to those who follow it, and to those who read how far it is.

use knm_model::{DrainPlan, EventKind, NewEvent, Node, NodeStatus, PodProgress, Timestamp};
use serde_json::json;

use super::Drain;
use crate::operations::step::target_event;

/// How many warnings of a drain are told.
const MOST_WARNINGS: usize = 100;

impl Drain<'_> {
    /// What whoever waits should know, if the node's kubelet seems to be gone.
    pub(super) fn notice(&self, node: &Node) -> Option<String> {
        let is_overdue = |state: &PodProgress| match state {
            PodProgress::Terminating { until } => until.is_some_and(|until| until < self.now),
            PodProgress::Waiting { .. }
            | PodProgress::Blocked { .. }
            | PodProgress::Gone
            | PodProgress::Passed { .. }
            | PodProgress::Failed { .. } => false,
        };
        let overdue = self
            .detail
            .progress
            .pods
            .iter()
            .filter(|pod| is_overdue(&pod.state))
            .count();
        (node.status == NodeStatus::Unknown && 0 < overdue).then(|| {
            format!(
                "the node's kubelet was not heard of for a while: without it {overdue} pods never finish terminating; \
                 skip_wait_for_delete_timeout_seconds passes them"
            )
        })
    }

    /// How many pods are how far, as a sentence.
    pub(super) fn summary(&self) -> Option<String> {
        let count = |word: &str| {
            let pods = self.detail.progress.pods.iter();
            pods.filter(|pod| pod.state.as_str() == word).count()
        };
        let words = ["waiting", "blocked", "terminating", "gone", "failed"];
        let told: Vec<_> = words
            .into_iter()
            .map(|word| (count(word), word))
            .filter(|(count, _)| 0 < *count)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        let pods = (!told.is_empty()).then(|| format!("pods: {}", told.join(", ")));
        let notice = self.detail.progress.notice.clone();
        let both: Vec<_> = pods.into_iter().chain(notice).collect();
        (!both.is_empty()).then(|| both.join("; "))
    }

    /// How many pods budgets block, and since when the first of them is.
    pub(super) fn blocked(&self) -> Option<(usize, Timestamp)> {
        let pods = self.detail.progress.pods.iter();
        let is_blocked = |state: &PodProgress| matches!(state, PodProgress::Blocked { .. });
        let since = pods.filter(|pod| is_blocked(&pod.state)).map(|pod| pod.since).min()?;
        Some((self.detail.progress.blocked(), since))
    }

    pub(super) fn gone(&self) -> usize {
        let is_gone = |state: &PodProgress| *state == PodProgress::Gone;
        self.detail
            .progress
            .pods
            .iter()
            .filter(|pod| is_gone(&pod.state))
            .count()
    }

    /// Notes what happened to these pods.
    pub(super) fn tell(&mut self, places: &[usize]) {
        let target = &self.step.target;
        for place in places {
            let Some(pod) = self.detail.progress.pods.get(*place) else {
                continue;
            };
            self.step.events.push(NewEvent::new(
                self.now,
                EventKind::Pod,
                [
                    ("cluster", json!(target.cluster.as_str())),
                    ("node", json!(target.node.as_str())),
                    ("namespace", json!(pod.namespace)),
                    ("pod", json!(pod.name)),
                    ("uid", json!(pod.uid)),
                    ("state", json!(pod.state.as_str())),
                    ("budget", json!(pod.state.budget())),
                    ("message", json!(pod.state.explanation())),
                ],
            ));
        }
    }

    /// Says what is waited for.
    pub(super) fn wait(&mut self, message: String) {
        if self.step.target.message.as_ref() != Some(&message) {
            self.step.target.message = Some(message);
            self.tell_of_node();
        }
    }

    /// Notes how far the node is.
    pub(super) fn tell_of_node(&mut self) {
        let event = target_event(&self.step.target, self.now);
        self.step.events.push(event);
    }

    /// What is lost or risked by it, as the plan tells.
    pub(super) fn warnings(&self, node: &Node, plan: &DrainPlan) -> Vec<String> {
        let of_pods = plan.pods().iter().flat_map(|planned| {
            let pod = &planned.pod;
            let warnings = planned.verdict.warnings.iter();
            warnings.map(move |warning| format!("{}/{}: {}", pod.namespace, pod.name, warning.explanation()))
        });
        let mut warnings = plan.warnings(node, self.options);
        warnings.extend(of_pods);
        let more = warnings.len().saturating_sub(MOST_WARNINGS);
        warnings.truncate(MOST_WARNINGS);
        warnings.extend((0 < more).then(|| format!("and {more} more")));
        warnings
    }
}

/// All reasons at once, each with its pod; none if nothing is refused. While pods are removed, those that go anyway do not matter.
pub(super) fn refusals(plan: &DrainPlan, has_begun: bool) -> Option<String> {
    let refused = plan.refusals();
    let told: Vec<_> = refused
        .filter(|planned| !has_begun || !planned.pod.is_terminating())
        .map(|planned| {
            let pod = &planned.pod;
            format!("{}/{}: {}", pod.namespace, pod.name, planned.verdict.rule.explanation())
        })
        .collect();
    let so = if has_begun {
        "no more are asked to go"
    } else {
        "none was"
    };
    (!told.is_empty()).then(|| format!("pods may not be removed, so {so}: {}", listed(&told)))
}

/// As much of a list as is read.
pub(super) fn listed(texts: &[String]) -> String {
    const MOST: usize = 20;
    let shown = texts.iter().take(MOST).cloned().collect::<Vec<_>>().join("; ");
    match texts.len().saturating_sub(MOST) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}
