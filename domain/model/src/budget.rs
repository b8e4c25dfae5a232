//! Disruption budgets: how many pods of a group may be missing at once.

use crate::{Pod, Selector};

/// A PodDisruptionBudget as far as it decides about evictions.
#[derive(Clone, Debug, PartialEq)]
pub struct DisruptionBudget {
    /// Its namespace; it only ever concerns pods in it.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which pods it protects: `None` (no selector) matches nothing, an empty selector the whole namespace.
    pub selector: Option<Selector>,
    /// How many more pods may be evicted now.
    pub disruptions_allowed: u32,
    /// How many of its pods are healthy.
    pub current_healthy: u32,
    /// How many must be.
    pub desired_healthy: u32,
    /// How many pods it counts.
    pub expected_pods: u32,
    /// Which of its pods that are not ready may be evicted.
    pub unhealthy_pods: UnhealthyPods,
}

/// When a budget lets go of pods that are not ready (`unhealthyPodEvictionPolicy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UnhealthyPods {
    /// While as many pods are healthy as must be; otherwise they count like any other.
    #[default]
    IfHealthyBudget,
    /// Always.
    AlwaysAllow,
}

impl DisruptionBudget {
    /// Whether it protects `pod`.
    #[must_use]
    pub fn matches(&self, pod: &Pod) -> bool {
        self.namespace == pod.namespace
            && self
                .selector
                .as_ref()
                .is_some_and(|selector| selector.matches(&pod.labels))
    }

    /// Whether evicting `pod`, which it matches, neither asks for room in it nor uses any up.
    #[must_use]
    pub fn lets_go(&self, pod: &Pod) -> bool {
        let enough = 0 < self.desired_healthy && self.desired_healthy <= self.current_healthy;
        !pod.ready
            && match self.unhealthy_pods {
                UnhealthyPods::AlwaysAllow => true,
                UnhealthyPods::IfHealthyBudget => enough,
            }
    }

    /// Whether it allows nothing, ever: as many pods must be healthy as there are. Only another budget or more pods change that.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.disruptions_allowed == 0 && 0 < self.expected_pods && self.expected_pods <= self.desired_healthy
    }
}
