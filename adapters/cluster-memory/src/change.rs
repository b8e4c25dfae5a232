//! What others changed on the nodes of a fleet, on top of what is simulated.

use std::collections::BTreeMap;

use knm_model::{Cordon, CordonSource, HOLDS_ANNOTATION, Node, NodePatch, Taint, TaintEffect, Timestamp};

use crate::simulated::Simulated;

/// What was changed on one simulated node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    labels: BTreeMap<String, Option<String>>,
    added: Vec<Taint>,
    removed: Vec<(String, TaintEffect)>,
    /// The record of a cordon that the simulation did not make.
    cordon: Option<Cordon>,
}

impl Overlay {
    /// Whether somebody keeps the node cordoned, so that the simulation does not uncordon it.
    pub(crate) fn is_cordon(&self) -> bool {
        self.cordon.is_some()
    }

    /// Changes `node`, which the simulation made.
    pub(crate) fn apply(&self, node: &mut Node) {
        for (key, value) in &self.labels {
            match value {
                Some(value) => node.labels.insert(key.clone(), value.clone()),
                None => node.labels.remove(key),
            };
        }
        let is_removed = |taint: &Taint| {
            let is_it = |(key, effect): &(String, TaintEffect)| *key == taint.key && *effect == taint.effect;
            self.removed.iter().any(is_it)
        };
        node.taints.retain(|taint| !is_removed(taint));
        for added in &self.added {
            node.taints.retain(|taint| !is_same(taint, added));
            node.taints.push(added.clone());
        }
        if let (Some(cordon), false) = (&self.cordon, node.schedulable) {
            node.cordon = Some(cordon.clone());
        }
    }

    /// Takes over `patch`, which made `after` of `before`.
    pub(crate) fn note(&mut self, patch: &NodePatch, before: &Node, after: &Node, simulated: &mut Simulated) {
        self.labels
            .extend(patch.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
        if let Some(taints) = &patch.taints {
            let gone = |taint: &&Taint| !taints.iter().any(|other| is_same(other, taint));
            self.added.retain(|added| !gone(&added));
            let removed = before.taints.iter().filter(gone);
            self.removed
                .extend(removed.map(|taint| (taint.key.clone(), taint.effect)));
            for taint in taints.iter().filter(|taint| !before.taints.contains(taint)) {
                self.added.retain(|added| !is_same(added, taint));
                self.removed
                    .retain(|(key, effect)| (key, *effect) != (&taint.key, taint.effect));
                self.added.push(taint.clone());
            }
        }
        self.cordon.clone_from(&after.cordon);
        let since = |cordon: &Cordon| cordon.since.unwrap_or(simulated.heartbeat_at);
        simulated.cordon = after.cordon.as_ref().map(|cordon| (cordon.source, since(cordon)));
    }
}

/// `node` as `patch` makes it.
pub(crate) fn patched(node: &Node, patch: &NodePatch, now: Timestamp) -> Node {
    let mut after = node.clone();
    for (key, value) in &patch.labels {
        match value {
            Some(value) => after.labels.insert(key.clone(), value.clone()),
            None => after.labels.remove(key),
        };
    }
    if let Some(taints) = &patch.taints {
        after.taints.clone_from(taints);
    }
    after.schedulable = patch.schedulable.unwrap_or(node.schedulable);
    after.cordon = match patch.annotations.get(HOLDS_ANNOTATION) {
        _ if after.schedulable => None,
        Some(Some(text)) => {
            let annotations = BTreeMap::from([(HOLDS_ANNOTATION.to_owned(), text.clone())]);
            Some(Cordon::read(&annotations, Some(now)))
        }
        // Without our record it is as if somebody else had done it.
        Some(None) => Some(node.cordon.clone().filter(is_not_ours).unwrap_or_else(|| foreign(now))),
        None => Some(node.cordon.clone().unwrap_or_else(|| foreign(now))),
    };
    after
}

fn is_not_ours(cordon: &Cordon) -> bool {
    cordon.source != CordonSource::KubeNodeManager
}

fn foreign(now: Timestamp) -> Cordon {
    Cordon::read(&BTreeMap::new(), Some(now))
}

fn is_same(one: &Taint, other: &Taint) -> bool {
    one.key == other.key && one.effect == other.effect
}
