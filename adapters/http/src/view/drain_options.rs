//! What is asked of a drain.

use knm_model::{AfterDeadline, OnCancel, RawDrainOptions, RawTier};
use poem_openapi::Object;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How a node is drained. What is left out is as in `kubectl drain`: nothing that loses anything is done.
#[derive(Debug, Deserialize, Serialize, Object)]
#[oai(rename = "DrainOptions", default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DrainOptionsBody {
    /// Why, in 1 to 500 characters: it stands on the node and in the audit log; absent: `drain`. A plan does not look at it.
    #[serde(skip_serializing)]
    pub(crate) reason: Option<String>,
    /// A ticket, at most 100 characters. A plan does not look at it.
    #[serde(skip_serializing)]
    pub(crate) ticket: Option<String>,
    /// Removes pods that nobody starts again.
    force: bool,
    /// Leaves the pods of DaemonSets alone; otherwise they stand in the way.
    ignore_daemonsets: bool,
    /// Removes pods although the content of their `emptyDir` volumes goes with them.
    delete_emptydir_data: bool,
    /// How long each pod gets to end; -1: as long as it says itself.
    #[oai(validator(minimum(value = "-1"), maximum(value = "86400")))]
    grace_period_seconds: i64,
    /// How long the drain may take; 0: as long as it takes.
    #[oai(validator(minimum(value = "0"), maximum(value = "604800")))]
    timeout_seconds: i64,
    /// Which pods it is about, by their labels, in Kubernetes' grammar.
    pod_selector: String,
    /// Deletes pods instead of evicting them: whatever disruption budgets say.
    disable_eviction: bool,
    /// Passes pods that should have been gone for longer than this; 0: none.
    #[oai(validator(minimum(value = "0"), maximum(value = "604800")))]
    skip_wait_for_delete_timeout_seconds: i64,
    /// Pods that go first, one tier after the other; those that no tier names go last.
    #[oai(validator(max_items = 50))]
    order: Vec<TierBody>,
    /// Pods, by their labels, that are waited for until they end by themselves.
    wait_for_completion: Option<String>,
    /// Whether it is over only when the node's volumes are detached: all of them, also those of pods that stay.
    wait_for_volume_detach: bool,
    /// What happens to pods that are left when the time is up: `fail` (they stay) or `force` (they are deleted). `force` needs `timeout_seconds`.
    after_deadline: String,
    /// How many pods may be on their way out at once; absent: any number.
    #[oai(validator(minimum(value = "1"), maximum(value = "1000")))]
    max_concurrent_evictions: Option<i64>,
    /// What becomes of the node when the drain is cancelled: `keep_cordoned` or `restore`.
    on_cancel: String,
}

/// Pods that are removed together: one of both keys.
#[derive(Debug, Default, Deserialize, Serialize, Object)]
#[oai(rename = "DrainTier", default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TierBody {
    /// By their labels, in Kubernetes' grammar.
    pod_selector: Option<String>,
    /// By the name of their priority class.
    priority_class: Option<String>,
}

impl Default for DrainOptionsBody {
    fn default() -> Self {
        Self {
            reason: None,
            ticket: None,
            force: false,
            ignore_daemonsets: false,
            delete_emptydir_data: false,
            grace_period_seconds: -1,
            timeout_seconds: 0,
            pod_selector: String::new(),
            disable_eviction: false,
            skip_wait_for_delete_timeout_seconds: 0,
            order: Vec::new(),
            wait_for_completion: None,
            wait_for_volume_detach: false,
            after_deadline: AfterDeadline::Fail.as_str().to_owned(),
            max_concurrent_evictions: None,
            on_cancel: OnCancel::KeepCordoned.as_str().to_owned(),
        }
    }
}

impl DrainOptionsBody {
    /// The options as an operation keeps them.
    pub(crate) fn options(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(options)) => options,
            // It holds nothing but texts, numbers and switches.
            Ok(_) | Err(_) => Map::new(),
        }
    }

    pub(crate) fn raw(&self) -> RawDrainOptions {
        RawDrainOptions {
            force: Some(self.force),
            ignore_daemonsets: Some(self.ignore_daemonsets),
            delete_emptydir_data: Some(self.delete_emptydir_data),
            grace_period_seconds: Some(self.grace_period_seconds),
            timeout_seconds: Some(self.timeout_seconds),
            pod_selector: Some(self.pod_selector.clone()),
            disable_eviction: Some(self.disable_eviction),
            skip_wait_for_delete_timeout_seconds: Some(self.skip_wait_for_delete_timeout_seconds),
            order: self.order.iter().map(TierBody::raw).collect(),
            wait_for_completion: self.wait_for_completion.clone(),
            wait_for_volume_detach: Some(self.wait_for_volume_detach),
            after_deadline: Some(self.after_deadline.clone()),
            max_concurrent_evictions: self.max_concurrent_evictions,
            on_cancel: Some(self.on_cancel.clone()),
        }
    }
}

impl TierBody {
    fn raw(&self) -> RawTier {
        RawTier {
            pod_selector: self.pod_selector.clone(),
            priority_class: self.priority_class.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use knm_model::DrainOptions;

    use super::*;

    #[test]
    fn what_is_left_out_is_the_default() {
        let body: DrainOptionsBody = serde_json::from_str("{}").unwrap();
        assert_eq!(DrainOptions::parse(&body.raw()).unwrap(), DrainOptions::default());
    }
}
