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
}
