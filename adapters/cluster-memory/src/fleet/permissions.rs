//! What the fleet lets the service do.

use knm_model::{ClusterFeature, KubernetesAction};
use knm_ports::ClusterError;

use super::{Fleet, reachable};

impl Fleet {
    /// Forbids a feature from now on. Watches that are open go on, as API servers have it; new ones are not refused.
    pub fn withhold(&self, feature: ClusterFeature) {
        self.state().withheld.insert(feature);
    }

    /// Allows a feature that was forbidden.
    pub fn grant(&self, feature: ClusterFeature) {
        self.state().withheld.remove(&feature);
    }

    /// Whether `action` belongs to nothing that is forbidden.
    pub(crate) fn may(&self, action: &KubernetesAction) -> Result<bool, ClusterError> {
        let state = self.state();
        reachable(&state)?;
        Ok(!state.withheld.iter().any(|feature| feature.needs().contains(action)))
    }

    /// Refuses a request, named as rules name it, that is forbidden. A fleet that cannot be reached forbids nothing.
    pub(crate) fn allows(&self, verb: &str, resource: &str) -> Result<(), ClusterError> {
        let action = KubernetesAction::of_request(verb, resource);
        match action.map_or(Ok(true), |action| self.may(&action))? {
            true => Ok(()),
            false => Err(ClusterError::Forbidden {
                action,
                message: format!("the simulated fleet withholds {verb} of {resource}"),
            }),
        }
    }
}
