//! How far the drain of a node is: what is known of each pod, which pods are asked to go next, and when to look again.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Barrier, Decision, DrainOptions, DrainPlan, ObjectName, PlannedPod, Rule, Turn};
use crate::Timestamp;

#[cfg(test)]
mod tests;

/// When a pod that a budget blocks is asked to go again, if the cluster did not say; each time after that it takes longer.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// The longest that takes.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// When it is looked again after something happened.
const FIRST_LOOK: Duration = Duration::from_millis(200);
/// The longest time between two looks.
const LONGEST_LOOK: Duration = Duration::from_secs(5);
/// How long what the cluster answered counts for more than what is watched, which may be older.
const LATE_NEWS: Duration = Duration::from_secs(30);
/// How long a drain has at least that is taken up again.
const FRESH_START: Duration = Duration::from_secs(60);
/// How many pods that come onto the node although it is cordoned are asked to go: whatever starts them may never stop doing so.
const MOST_LATECOMERS: u32 = 50;

/// How far the drain of a node is. It is stored after each step, for readers and for whoever takes over; what is left to do is read from the
/// cluster each time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DrainProgress {
    /// What is being done.
    pub phase: DrainPhase,
    /// When its time is up.
    pub deadline: Option<Timestamp>,
    /// Whether its pods were looked at already: those that are found from then on came although the node is cordoned.
    pub looked: bool,
    /// How many pods came although the node is cordoned.
    pub latecomers: u32,
    /// Whether what was left at the deadline is deleted.
    pub forced: bool,
    /// What whoever waits for it should know.
    pub notice: Option<String>,
    /// What is lost or risked by the drain, known before its first pod was asked to go.
    pub warnings: Vec<String>,
    /// The pods that are or were to go.
    pub pods: Vec<DrainedPod>,
}

/// What is being done to a node that is drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainPhase {
    /// It is looked whether all pods may be removed; nothing was changed yet.
    #[default]
    Planning,
    /// The node is held.
    Cordoning,
    /// Pods are removed, or go.
    Removing,
    /// All pods are gone; the node's volumes are waited for.
    Detaching,
    /// It is drained, and made schedulable again when it is ready.
    Returning,
}

/// A pod that is or was to go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrainedPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The cluster's own id of it.
    pub uid: String,
    /// Its place in the order.
    pub tier: usize,
    /// How far it is.
    pub state: PodProgress,
    /// Since when.
    pub since: Timestamp,
    /// How often it was asked to go in vain.
    pub attempts: u32,
    /// It is not asked before this time.
    pub retry_at: Option<Timestamp>,
}

/// How far a pod is that is to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodProgress {
    /// It was not asked to go yet, or will be asked again.
    Waiting {
        /// What for, if for anything but its turn.
        reason: Option<String>,
    },
    /// A disruption budget has no room for it.
    Blocked {
        /// The budget's name, if it was told.
        budget: Option<String>,
        /// Why, in a sentence.
        message: String,
    },
    /// It is on its way out.
    Terminating {
        /// By when it should be gone.
        until: Option<Timestamp>,
    },
    /// It cannot be found any more, or another one has its name.
    Gone,
    /// It stays, and nobody minds.
    Passed {
        /// Why.
        reason: String,
    },
    /// It cannot be removed.
    Failed {
        /// Why, in the cluster's words.
        message: String,
    },
}

/// How the pods of a node were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// As they are watched or cached, which may be a little old.
    Recent,
    /// As they are at this moment.
    Certain,
}

/// What became of the wish that a pod goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// It is on its way out.
    Accepted,
    /// It is gone already, or another pod has its name.
    Gone,
    /// A budget has no room for it now.
    Blocked {
        /// The budget's name, if it was told.
        budget: Option<String>,
        /// The cluster's own words.
        message: String,
        /// When it may be tried again, if that was told.
        retry_after: Option<Duration>,
    },
    /// It may work a little later.
    Later {
        /// Why it did not.
        message: String,
        /// When it may be tried again, if that was told.
        retry_after: Option<Duration>,
    },
    /// It will never work.
    Never {
        /// Why, in the cluster's words.
        message: String,
    },
}

/// Where a drain stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Pods are left that may still go.
    Under,
    /// All pods that were to go are gone.
    Drained,
    /// Nothing more can go, and these pods, as `namespace/name: why`, are left.
    Stuck(Vec<String>),
}

impl DrainProgress {
    /// Takes in what the cluster tells; returns the places of the pods whose state changed.
    pub fn look(&mut self, plan: &DrainPlan, sight: Sight, now: Timestamp) -> Vec<usize> {
        let known: HashMap<String, usize> = self
            .pods
            .iter()
            .enumerate()
            .map(|(place, pod)| (pod.uid.clone(), place))
            .collect();
        let mut seen = vec![false; self.pods.len()];
        let mut changed = Vec::new();
        for planned in plan.pods() {
            match known.get(&planned.pod.uid) {
                Some(place) => {
                    seen[*place] = true;
                    let pod = &mut self.pods[*place];
                    pod.tier = planned.tier;
                    let state = told(planned, pod, sight, now);
                    if pod.becomes(state, now) {
                        changed.push(*place);
                    }
                }
                None if planned.verdict.decision() == Decision::Skip => {}
                None => {
                    changed.push(self.pods.len());
                    let fresh = self.fresh(planned, now);
                    let state = told(planned, &fresh, sight, now);
                    self.pods.push(DrainedPod { state, ..fresh });
                }
            }
        }
        for (place, _) in seen.iter().enumerate().filter(|(_, seen)| !**seen) {
            if self.pods[place].becomes(PodProgress::Gone, now) {
                changed.push(place);
            }
        }
        self.looked = true;
        changed
    }

    /// A pod that was not known before. What starts pods on a cordoned node again and again is not fought for ever.
    fn fresh(&mut self, planned: &PlannedPod, now: Timestamp) -> DrainedPod {
        self.latecomers += u32::from(self.looked);
        let state = match MOST_LATECOMERS < self.latecomers {
            true => PodProgress::Failed {
                message: format!(
                    "{MOST_LATECOMERS} pods came onto the node and were asked to go although it is cordoned, and more come"
                ),
            },
            false => PodProgress::Waiting { reason: None },
        };
        DrainedPod {
            namespace: planned.pod.namespace.clone(),
            name: planned.pod.name.clone(),
            uid: planned.pod.uid.clone(),
            tier: planned.tier,
            state,
            since: now,
            attempts: 0,
            retry_at: None,
        }
    }

    /// The pods that are asked to go now, at most `room` of them: those of the first tier that is not over, as their budgets allow, or all that are
    /// left if they are deleted because the time is up. `own` is the pod of this service, which goes last. Pods that are not asked now take nobody's
    /// room.
    #[must_use]
    pub fn due<'a>(
        &self,
        plan: &'a DrainPlan,
        options: &DrainOptions,
        own: Option<&ObjectName>,
        room: usize,
        now: Timestamp,
    ) -> Vec<&'a PlannedPod> {
        let is_own = |pod: &DrainedPod| own.is_some_and(|own| own.namespace == pod.namespace && own.name == pod.name);
        let open = || self.pods.iter().filter(|pod| !pod.state.is_over());
        let only_own_is_left = self.pods.iter().all(|pod| pod.state.is_over() || is_own(pod));
        let first = open()
            .filter(|pod| only_own_is_left || !is_own(pod))
            .map(|pod| pod.tier)
            .min();
        let Some(tier) = first.filter(|tier| self.last_tier().is_none_or(|last| *tier <= last)) else {
            return Vec::new();
        };
        let leaving = open().filter(|pod| pod.is_leaving()).count();
        let most = options.max_concurrent_evictions.map_or(usize::MAX, |most| {
            usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(leaving)
        });
        let by_uid: HashMap<&str, &DrainedPod> = open().map(|pod| (pod.uid.as_str(), pod)).collect();
        let may_be_asked = |planned: &&PlannedPod| {
            let Some(pod) = by_uid.get(planned.pod.uid.as_str()) else {
                return false;
            };
            planned.verdict.decision() == Decision::Evict
                && (self.forced || pod.tier == tier)
                && !pod.is_leaving()
                && pod.retry_at.is_none_or(|at| at <= now)
                && (only_own_is_left || !is_own(pod))
        };
        let asked: Vec<_> = plan.pods().iter().filter(may_be_asked).collect();
        let mut due = plan.together(&asked, options.removal);
        due.truncate(most.min(room));
        due
    }

    /// Notes what became of the wish that a pod goes; returns its place if its state changed.
    pub fn answered(&mut self, uid: &str, farewell: Farewell, now: Timestamp) -> Option<usize> {
        let place = self.pods.iter().position(|pod| pod.uid == uid)?;
        let pod = &mut self.pods[place];
        let (state, retry_after) = match farewell {
            Farewell::Accepted => (PodProgress::Terminating { until: None }, None),
            Farewell::Gone => (PodProgress::Gone, None),
            Farewell::Never { message } => (PodProgress::Failed { message }, None),
            Farewell::Blocked {
                budget,
                message,
                retry_after,
            } => {
                let retry = retry_after.unwrap_or_else(|| pod.backoff());
                (PodProgress::Blocked { budget, message }, Some(retry))
            }
            Farewell::Later { message, retry_after } => {
                let retry = retry_after.unwrap_or_else(|| pod.backoff());
                let reason = Some(message);
                (PodProgress::Waiting { reason }, Some(retry))
            }
        };
        if let Some(retry) = retry_after {
            pod.attempts = pod.attempts.saturating_add(1);
            pod.retry_at = Some(now.plus(retry));
        }
        pod.becomes(state, now).then_some(place)
    }

    /// Where it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let last = self.last_tier();
        let may_go =
            |pod: &&DrainedPod| !pod.state.is_over() && (pod.is_leaving() || last.is_none_or(|last| pod.tier <= last));
        if self.pods.iter().any(|pod| may_go(&pod)) {
            return Standing::Under;
        }
        match self.left() {
            left if left.is_empty() => Standing::Drained,
            left => Standing::Stuck(left),
        }
    }

    /// The pods that are not gone and should be, as `namespace/name: why`.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        self.pods
            .iter()
            .filter(|pod| pod.is_left())
            .map(DrainedPod::told)
            .collect()
    }

    /// Somebody takes the drain up, perhaps long after it was worked on last: for a moment nothing is over because of that, so that each pod is
    /// asked to go before it counts as left. `timeout` is how long the drain may take.
    pub fn take_up(&mut self, timeout: Option<Duration>, now: Timestamp) {
        let least = timeout.map(|timeout| now.plus(timeout.min(FRESH_START)));
        self.deadline = self.deadline.max(least);
    }

    /// Whether its time is up.
    #[must_use]
    pub fn is_late(&self, now: Timestamp) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// When the time is up: what is left is deleted from now on, which may take until `deadline`. Returns what will be deleted, as
    /// `namespace/name: why it was left`.
    pub fn force(&mut self, now: Timestamp, deadline: Option<Timestamp>) -> Vec<String> {
        self.forced = true;
        self.deadline = deadline;
        let mut deleted = Vec::new();
        for pod in self.pods.iter_mut().filter(|pod| pod.is_left() && !pod.is_leaving()) {
            deleted.push(pod.told());
            pod.retry_at = None;
            if matches!(pod.state, PodProgress::Failed { .. }) {
                pod.becomes(PodProgress::Waiting { reason: None }, now);
            }
        }
        deleted
    }

    /// How long nobody needs to look: not long after something happened, longer while nothing does, and never past the deadline or the time
    /// at which a pod may be asked again.
    #[must_use]
    pub fn rest(&self, now: Timestamp) -> Duration {
        let quiet = self
            .pods
            .iter()
            .map(|pod| now.since(pod.since))
            .min()
            .unwrap_or_default();
        let look = (quiet / 4).clamp(FIRST_LOOK, LONGEST_LOOK);
        let retries = self
            .pods
            .iter()
            .filter(|pod| !pod.state.is_over())
            .filter_map(|pod| pod.retry_at);
        let moments = retries.chain(self.deadline);
        let next = moments.filter(|at| now < *at).min().map(|at| at.since(now));
        next.map_or(look, |next| look.min(next.max(FIRST_LOOK)))
    }

    /// How many pods a budget blocks.
    #[must_use]
    pub fn blocked(&self) -> usize {
        let is_blocked = |pod: &&DrainedPod| matches!(pod.state, PodProgress::Blocked { .. });
        self.pods.iter().filter(is_blocked).count()
    }

    /// How many pods are on their way out.
    #[must_use]
    pub fn leaving(&self) -> usize {
        self.pods.iter().filter(|pod| pod.is_leaving()).count()
    }

    /// The last tier whose pods may go: later ones are held back by a pod that cannot be removed, unless everything that is left is deleted.
    fn last_tier(&self) -> Option<usize> {
        let is_failed = |pod: &&DrainedPod| matches!(pod.state, PodProgress::Failed { .. });
        match self.forced {
            true => None,
            false => self.pods.iter().filter(is_failed).map(|pod| pod.tier).min(),
        }
    }
}

impl DrainedPod {
    /// Whether its state changed by that, but for the time by which it should be gone.
    fn becomes(&mut self, state: PodProgress, now: Timestamp) -> bool {
        if self.state == state {
            return false;
        }
        let is_same_kind = std::mem::discriminant(&self.state) == std::mem::discriminant(&state);
        if is_same_kind && self.is_leaving() {
            self.state = state;
            return false;
        }
        let is_same_budget = self.state.budget() == state.budget();
        if !is_same_kind || !is_same_budget {
            self.since = now;
        }
        self.state = state;
        true
    }

    fn is_leaving(&self) -> bool {
        matches!(self.state, PodProgress::Terminating { .. })
    }

    /// Whether it is not gone and should be.
    fn is_left(&self) -> bool {
        !self.state.is_over() || matches!(self.state, PodProgress::Failed { .. })
    }

    fn told(&self) -> String {
        format!("{}/{}: {}", self.namespace, self.name, self.state.explanation())
    }

    /// Longer with each attempt, and a little different for each pod, so that not all come back at once.
    fn backoff(&self) -> Duration {
        let longer = FIRST_RETRY.saturating_mul(1 << self.attempts.min(8)).min(LONGEST_RETRY);
        let mut hasher = DefaultHasher::new();
        (&self.uid, self.attempts).hash(&mut hasher);
        let jitter = u32::try_from(hasher.finish() % 250).unwrap_or_default();
        longer + longer * jitter / 1000
    }
}

impl PodProgress {
    /// Whether nothing more happens to the pod.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self {
            Self::Waiting { .. } | Self::Blocked { .. } | Self::Terminating { .. } => false,
            Self::Gone | Self::Passed { .. } | Self::Failed { .. } => true,
        }
    }

    /// `waiting`, `blocked`, `terminating`, `gone`, `passed` or `failed`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Blocked { .. } => "blocked",
            Self::Terminating { .. } => "terminating",
            Self::Gone => "gone",
            Self::Passed { .. } => "passed",
            Self::Failed { .. } => "failed",
        }
    }

    /// The budget that blocks the pod.
    #[must_use]
    pub fn budget(&self) -> Option<&str> {
        match self {
            Self::Blocked { budget, .. } => budget.as_deref(),
            Self::Waiting { .. }
            | Self::Terminating { .. }
            | Self::Gone
            | Self::Passed { .. }
            | Self::Failed { .. } => None,
        }
    }

    /// Why it is so, as a sentence.
    #[must_use]
    pub fn explanation(&self) -> String {
        match self {
            Self::Waiting { reason: None } => "it was not asked to go yet".to_owned(),
            Self::Waiting { reason: Some(reason) } | Self::Passed { reason } => reason.clone(),
            Self::Blocked { message, .. } | Self::Failed { message } => message.clone(),
            Self::Terminating { until: Some(until) } => {
                format!(
                    "it is on its way out and should be gone by {}",
                    until.to_whole_seconds()
                )
            }
            Self::Terminating { until: None } => "it is on its way out".to_owned(),
            Self::Gone => "it is gone".to_owned(),
        }
    }
}

/// The state of a pod as the plan tells it, given what was known before.
fn told(planned: &PlannedPod, known: &DrainedPod, sight: Sight, now: Timestamp) -> PodProgress {
    let is_late = sight == Sight::Recent && now.since(known.since) < LATE_NEWS;
    if is_late && known.state == PodProgress::Gone {
        return PodProgress::Gone;
    }
    let terminating = || PodProgress::Terminating {
        until: planned.pod.deletion_at,
    };
    let rule = planned.verdict.rule;
    match rule.decision() {
        Decision::Skip => PodProgress::Passed {
            reason: rule.explanation().to_owned(),
        },
        Decision::Wait if rule == Rule::AwaitedCompletion => PodProgress::Waiting {
            reason: Some(rule.explanation().to_owned()),
        },
        Decision::Wait => terminating(),
        // It was asked to go when that was allowed, or somebody else did that.
        Decision::Refuse if planned.pod.is_terminating() => terminating(),
        Decision::Refuse => PodProgress::Failed {
            message: rule.explanation().to_owned(),
        },
        // It agreed to go, which is not to be seen yet.
        Decision::Evict if is_late && known.is_leaving() => known.state.clone(),
        Decision::Evict => to_be_evicted(planned, known, now),
    }
}

/// The state of a pod that is to be evicted and was not yet.
fn to_be_evicted(planned: &PlannedPod, known: &DrainedPod, now: Timestamp) -> PodProgress {
    match (&planned.turn, &known.state) {
        (_, PodProgress::Failed { .. }) => known.state.clone(),
        // What the cluster said counts for as long as it wants not to be asked again.
        (_, PodProgress::Blocked { .. } | PodProgress::Waiting { reason: Some(_) })
            if known.retry_at.is_some_and(|at| now < at) =>
        {
            known.state.clone()
        }
        (Some(Turn::Never(barrier @ Barrier::Closed(budget))), _) => blocked(budget, barrier),
        // The cluster's own words say more.
        (Some(Turn::Blocked(Barrier::NoRoom(budget))), PodProgress::Blocked { .. })
            if known.retry_at.is_some() && known.state.budget() == Some(budget) =>
        {
            known.state.clone()
        }
        (Some(Turn::Blocked(barrier @ Barrier::NoRoom(budget))), _) => blocked(budget, barrier),
        (Some(Turn::Never(barrier)), _) => PodProgress::Failed {
            message: barrier.explanation(),
        },
        // A budget that seems to have room now blocks it until the cluster has let it go.
        (Some(Turn::Blocked(_) | Turn::Round(_)) | None, PodProgress::Blocked { .. }) => known.state.clone(),
        (Some(Turn::Blocked(_) | Turn::Round(_)) | None, _) => PodProgress::Waiting { reason: None },
    }
}

fn blocked(budget: &str, barrier: &Barrier) -> PodProgress {
    PodProgress::Blocked {
        budget: Some(budget.to_owned()),
        message: barrier.explanation(),
    }
}
