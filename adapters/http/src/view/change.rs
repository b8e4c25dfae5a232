//! Changes of nodes: what is asked for, and what came of it.

use std::collections::BTreeMap;

use knm_domain::NodeChanged;
use knm_model::{ClusterName, RawTaint, Resources};
use poem_openapi::Object;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::NodeView;

/// Labels to set and to remove; each key once.
#[derive(Debug, Default, Deserialize, Object)]
#[oai(rename = "LabelChange", default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LabelChangeBody {
    /// Values by key; an empty value is fine.
    pub(crate) set: BTreeMap<String, String>,
    /// Keys; one that the node does not have is no error.
    pub(crate) remove: Vec<String>,
}

/// Taints to add and to remove.
#[derive(Debug, Default, Deserialize, Object)]
#[oai(rename = "TaintChange", default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TaintChangeBody {
    /// Taints that the node has afterwards; one with the same key and effect gets the new value.
    pub(crate) add: Vec<TaintBody>,
    /// Taints that it does not have afterwards; without an effect those of every effect with that key.
    pub(crate) remove: Vec<TaintKeyBody>,
    /// Needed for a `NoExecute` taint on a node with running pods: it evicts them without looking at disruption budgets.
    pub(crate) confirm_no_execute: bool,
}

/// A taint to add.
#[derive(Debug, Deserialize, Object)]
#[oai(rename = "TaintToAdd")]
#[serde(deny_unknown_fields)]
pub(crate) struct TaintBody {
    /// A qualified name.
    key: String,
    /// May be empty.
    #[oai(default)]
    #[serde(default)]
    value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    effect: String,
}

/// A taint to remove.
#[derive(Debug, Deserialize, Object)]
#[oai(rename = "TaintToRemove")]
#[serde(deny_unknown_fields)]
pub(crate) struct TaintKeyBody {
    /// A qualified name.
    key: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`; absent: all of them.
    effect: Option<String>,
}

/// Why a node is held, and for how long.
#[derive(Debug, Deserialize, Object)]
#[oai(rename = "CordonRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct CordonBody {
    /// Why, in 1 to 500 characters: it stands on the node and in the audit log.
    pub(crate) reason: String,
    /// A ticket, at most 100 characters.
    pub(crate) ticket: Option<String>,
    /// When the hold ends by itself, RFC 3339; absent: when it is released.
    pub(crate) until: Option<String>,
}

/// Which holds are released.
#[derive(Debug, Default, Deserialize, Object)]
#[oai(rename = "UncordonRequest", default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UncordonBody {
    /// Why, at most 500 characters, for the audit log.
    pub(crate) reason: Option<String>,
    /// The id of the only hold to be released; absent: all holds of the caller.
    pub(crate) hold: Option<String>,
    /// Releases everybody's holds, and a cordon that this service did not make.
    pub(crate) force: bool,
}

/// A node after a change, and what changed.
#[derive(Debug, Serialize, Object)]
#[oai(rename = "ChangedNode")]
pub(crate) struct ChangedNodeView {
    #[oai(flatten)]
    #[serde(flatten)]
    node: NodeView,
    /// What changed.
    change: ChangeView,
}

/// What changed.
#[derive(Debug, Serialize, Object)]
#[oai(rename = "Change")]
pub(crate) struct ChangeView {
    /// Whether this is only what would have come of it.
    dry_run: bool,
    /// What changed, as it was before: `labels`, `taints`, `schedulable` and `holds`, as far as they differ. Empty if nothing did.
    before: BTreeMap<String, Value>,
    /// What changed, as it is now, under the same keys.
    after: BTreeMap<String, Value>,
    /// What the caller should know although it worked.
    warnings: Vec<String>,
}

impl TaintBody {
    pub(crate) fn raw(&self) -> RawTaint {
        RawTaint {
            key: self.key.clone(),
            value: self.value.clone(),
            effect: Some(self.effect.clone()),
        }
    }
}

impl TaintKeyBody {
    pub(crate) fn raw(&self) -> RawTaint {
        RawTaint {
            key: self.key.clone(),
            value: String::new(),
            effect: self.effect.clone(),
        }
    }
}

impl ChangedNodeView {
    pub(crate) fn of(
        cluster: &ClusterName,
        changed: &NodeChanged,
        requested: Option<&Resources>,
        dry_run: bool,
    ) -> Self {
        Self {
            node: NodeView::of(cluster, &changed.node, requested),
            change: ChangeView {
                dry_run,
                before: changed.before.clone().into_iter().collect(),
                after: changed.after.clone().into_iter().collect(),
                warnings: changed.warnings.clone(),
            },
        }
    }
}
