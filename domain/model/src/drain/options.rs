//! What a caller asks of a drain.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

use crate::text::unprintable;
use crate::{ClusterFeature, Pod, QueryError, Selector, excerpt};

#[cfg(test)]
mod tests;

/// The longest grace period: a day.
const LONGEST_GRACE: i64 = 24 * 3600;
/// The longest time that a drain, or a part of one, may take: a week.
const LONGEST_TIMEOUT: i64 = 7 * 24 * 3600;
/// The most evictions at once that may be asked for.
const MOST_EVICTIONS: i64 = 1000;
/// The most tiers.
const MOST_TIERS: usize = 50;
/// The longest name of a priority class.
const LONGEST_NAME: usize = 253;

/// How a node is drained. The defaults are those of `kubectl drain`: nothing that loses anything is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainOptions {
    /// Pods that nobody starts again are removed.
    pub force: bool,
    /// Pods of DaemonSets are left alone, instead of standing in the way.
    pub ignore_daemonsets: bool,
    /// Pods are removed although the content of their `emptyDir` volumes goes with them.
    pub delete_emptydir_data: bool,
    /// How many seconds each pod gets to end; `None`: its own.
    pub grace_period_seconds: Option<u32>,
    /// How long it may take; `None`: as long as it takes.
    pub timeout: Option<Duration>,
    /// Which pods it is about.
    pub pod_selector: Selector,
    /// How pods are removed.
    pub removal: Removal,
    /// Pods that should have been gone for longer than this are not waited for; `None`: all are.
    pub skip_wait_for_delete_timeout: Option<Duration>,
    /// Which pods go first. Those that no tier names go last.
    pub order: Vec<Tier>,
    /// Pods that are waited for until they end by themselves.
    pub wait_for_completion: Option<Selector>,
    /// Whether it is over only when the node's volumes are detached: all of them, also those of pods that stay.
    pub wait_for_volume_detach: bool,
    /// What happens to pods that are left when the time is up.
    pub after_deadline: AfterDeadline,
    /// How many pods may be on their way out at once; `None`: any number.
    pub max_concurrent_evictions: Option<u32>,
    /// What becomes of the node when the drain is cancelled.
    pub on_cancel: OnCancel,
}

/// How pods are removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Removal {
    /// Disruption budgets are asked.
    #[default]
    Evict,
    /// They are deleted, whatever disruption budgets say.
    Delete,
}

/// What happens to pods that are left when a drain's time is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AfterDeadline {
    /// They stay, and the drain failed.
    #[default]
    Fail,
    /// They are deleted.
    Force,
}

/// What becomes of a node when its drain is cancelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnCancel {
    /// It stays cordoned.
    #[default]
    KeepCordoned,
    /// It is as schedulable as it was before.
    Restore,
}

/// Pods that are removed together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// Those that it matches.
    Selector(Selector),
    /// Those with the priority class of this name.
    PriorityClass(String),
}

/// Options of a drain as they came; what was not given is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawDrainOptions {
    /// `force`.
    pub force: Option<bool>,
    /// `ignore_daemonsets`.
    pub ignore_daemonsets: Option<bool>,
    /// `delete_emptydir_data`.
    pub delete_emptydir_data: Option<bool>,
    /// `grace_period_seconds`: −1, the pod's own, to 86,400.
    pub grace_period_seconds: Option<i64>,
    /// `timeout_seconds`: 0, none, to 604,800.
    pub timeout_seconds: Option<i64>,
    /// `pod_selector`, in Kubernetes' grammar.
    pub pod_selector: Option<String>,
    /// `disable_eviction`.
    pub disable_eviction: Option<bool>,
    /// `skip_wait_for_delete_timeout_seconds`: 0, never, to 604,800.
    pub skip_wait_for_delete_timeout_seconds: Option<i64>,
    /// `order`.
    pub order: Vec<RawTier>,
    /// `wait_for_completion`, in Kubernetes' grammar.
    pub wait_for_completion: Option<String>,
    /// `wait_for_volume_detach`.
    pub wait_for_volume_detach: Option<bool>,
    /// `after_deadline`: `fail` or `force`.
    pub after_deadline: Option<String>,
    /// `max_concurrent_evictions`: 1 to 1,000.
    pub max_concurrent_evictions: Option<i64>,
    /// `on_cancel`: `keep_cordoned` or `restore`.
    pub on_cancel: Option<String>,
}

/// A tier as it came: one of both is expected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawTier {
    /// `pod_selector`, in Kubernetes' grammar.
    pub pod_selector: Option<String>,
    /// `priority_class`.
    pub priority_class: Option<String>,
}

impl AfterDeadline {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Fail, Self::Force];

    /// `fail` or `force`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Force => "force",
        }
    }
}

impl OnCancel {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::KeepCordoned, Self::Restore];

    /// `keep_cordoned` or `restore`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeepCordoned => "keep_cordoned",
            Self::Restore => "restore",
        }
    }
}

impl Tier {
    /// Whether `pod` is one of its pods.
    #[must_use]
    pub fn has(&self, pod: &Pod) -> bool {
        match self {
            Self::Selector(selector) => selector.matches(&pod.labels),
            Self::PriorityClass(name) => pod.priority_class.as_ref() == Some(name),
        }
    }
}

impl DrainOptions {
    /// Whether pods may be removed that nobody starts again, or whatever disruption budgets say.
    #[must_use]
    pub fn is_forced(&self) -> bool {
        self.force || self.removal == Removal::Delete || self.after_deadline == AfterDeadline::Force
    }

    /// What the service does with a cluster for it.
    #[must_use]
    pub fn features(&self) -> &'static [ClusterFeature] {
        use ClusterFeature::{ChangeNodes, DeletePods, EvictPods, ViewBudgets, ViewDaemonSets, ViewNodes, ViewPods};
        match (self.removal, self.after_deadline) {
            (Removal::Evict, AfterDeadline::Fail) => {
                &[ViewNodes, ViewPods, ViewBudgets, ViewDaemonSets, ChangeNodes, EvictPods]
            }
            (Removal::Evict, AfterDeadline::Force) => &[
                ViewNodes,
                ViewPods,
                ViewBudgets,
                ViewDaemonSets,
                ChangeNodes,
                EvictPods,
                DeletePods,
            ],
            (Removal::Delete, AfterDeadline::Fail | AfterDeadline::Force) => &[
                ViewNodes,
                ViewPods,
                ViewBudgets,
                ViewDaemonSets,
                ChangeNodes,
                DeletePods,
            ],
        }
    }

    /// Checks what a caller wants.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once: each time the value and what is allowed.
    pub fn parse(raw: &RawDrainOptions) -> Result<Self, Vec<QueryError>> {
        let mut wrong = Wrong(Vec::new());
        let grace = wrong.number("grace_period_seconds", raw.grace_period_seconds, -1..=LONGEST_GRACE);
        let timeout = wrong.duration("timeout_seconds", raw.timeout_seconds);
        let pod_selector = wrong.selector("pod_selector", raw.pod_selector.as_deref());
        let skip = wrong.duration(
            "skip_wait_for_delete_timeout_seconds",
            raw.skip_wait_for_delete_timeout_seconds,
        );
        let order = wrong.tiers(&raw.order);
        let wait_for_completion = wrong.selector("wait_for_completion", raw.wait_for_completion.as_deref());
        let deadlines = AfterDeadline::ALL.map(|one| (one.as_str(), one));
        let after_deadline = wrong.word("after_deadline", raw.after_deadline.as_deref(), deadlines);
        let most = wrong.number(
            "max_concurrent_evictions",
            raw.max_concurrent_evictions,
            1..=MOST_EVICTIONS,
        );
        let cancels = OnCancel::ALL.map(|one| (one.as_str(), one));
        let on_cancel = wrong.word("on_cancel", raw.on_cancel.as_deref(), cancels);
        if raw.after_deadline.as_deref() == Some("force") && raw.timeout_seconds.unwrap_or_default() == 0 {
            let message = "\"force\" needs a deadline: timeout_seconds of at least 1 is expected beside it";
            wrong.add("after_deadline", message.to_owned());
        }
        if wait_for_completion
            .as_ref()
            .is_some_and(|one| one.requirements().is_empty())
        {
            let message = "an empty selector matches every pod, so that nothing would be evicted";
            wrong.add("wait_for_completion", message.to_owned());
        }
        if !wrong.0.is_empty() {
            return Err(wrong.0);
        }
        Ok(Self {
            force: raw.force.unwrap_or_default(),
            ignore_daemonsets: raw.ignore_daemonsets.unwrap_or_default(),
            delete_emptydir_data: raw.delete_emptydir_data.unwrap_or_default(),
            grace_period_seconds: grace.and_then(|seconds| u32::try_from(seconds).ok()),
            timeout,
            pod_selector: pod_selector.unwrap_or_default(),
            removal: match raw.disable_eviction {
                Some(true) => Removal::Delete,
                Some(false) | None => Removal::Evict,
            },
            skip_wait_for_delete_timeout: skip,
            order,
            wait_for_completion,
            wait_for_volume_detach: raw.wait_for_volume_detach.unwrap_or_default(),
            after_deadline,
            max_concurrent_evictions: most.and_then(|number| u32::try_from(number).ok()),
            on_cancel,
        })
    }

    /// The place of `pod` in the order, counted from 0: its first tier, or the one after the last.
    #[must_use]
    pub fn tier_of(&self, pod: &Pod) -> usize {
        let found = self.order.iter().position(|tier| tier.has(pod));
        found.unwrap_or(self.order.len())
    }
}

/// What is wrong with the options of a drain.
struct Wrong(Vec<QueryError>);

impl Wrong {
    fn add(&mut self, parameter: impl Into<String>, message: String) {
        self.0.push(QueryError::new(parameter.into(), message));
    }

    fn number(&mut self, parameter: &'static str, value: Option<i64>, allowed: RangeInclusive<i64>) -> Option<i64> {
        let value = value?;
        if !allowed.contains(&value) {
            let (least, most) = allowed.into_inner();
            self.add(parameter, format!("{value} is not allowed: {least} to {most} is"));
        }
        Some(value)
    }

    /// Seconds of which 0 means none.
    fn duration(&mut self, parameter: &'static str, value: Option<i64>) -> Option<Duration> {
        let seconds = self.number(parameter, value, 0..=LONGEST_TIMEOUT)?;
        u64::try_from(seconds)
            .ok()
            .filter(|seconds| 0 < *seconds)
            .map(Duration::from_secs)
    }

    fn selector(&mut self, parameter: impl Into<String>, text: Option<&str>) -> Option<Selector> {
        match Selector::parse(text?) {
            Ok(selector) => Some(selector),
            Err(error) => {
                self.0.push(QueryError {
                    parameter: parameter.into().into(),
                    position: Some(error.position),
                    message: error.message,
                });
                None
            }
        }
    }

    fn word<T: Default>(&mut self, parameter: &'static str, text: Option<&str>, allowed: [(&'static str, T); 2]) -> T {
        let Some(text) = text else {
            return T::default();
        };
        let [first, second] = &allowed;
        let expected = format!("{} or {} is", first.0, second.0);
        match allowed.into_iter().find(|(word, _)| *word == text) {
            Some((_, found)) => found,
            None => {
                self.add(parameter, not_allowed(text, &expected));
                T::default()
            }
        }
    }

    fn tiers(&mut self, raw: &[RawTier]) -> Vec<Tier> {
        if MOST_TIERS < raw.len() {
            self.add(
                "order",
                format!("{} tiers are not allowed: at most {MOST_TIERS} are", raw.len()),
            );
            return Vec::new();
        }
        let tiers = raw.iter().enumerate();
        tiers.filter_map(|(place, tier)| self.tier(place, tier)).collect()
    }

    fn tier(&mut self, place: usize, raw: &RawTier) -> Option<Tier> {
        match (&raw.pod_selector, &raw.priority_class) {
            (Some(text), None) => {
                let parameter = format!("order[{place}].pod_selector");
                self.selector(parameter, Some(text)).map(Tier::Selector)
            }
            (None, Some(name)) if name.is_empty() || LONGEST_NAME < name.len() || unprintable(name).is_some() => {
                let expected = format!("a name of 1 to {LONGEST_NAME} characters is");
                self.add(format!("order[{place}].priority_class"), not_allowed(name, &expected));
                None
            }
            (None, Some(name)) => Some(Tier::PriorityClass(name.clone())),
            (Some(_), Some(_)) | (None, None) => {
                let message = "a tier has either a pod_selector or a priority_class";
                self.add(format!("order[{place}]"), message.to_owned());
                None
            }
        }
    }
}

fn not_allowed(text: &str, expected: impl Display) -> String {
    format!("\"{}\" is not allowed: {expected}", excerpt(text))
}
