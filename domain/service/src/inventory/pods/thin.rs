//! Pods in little memory: what many of them have in common is kept once.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use knm_model::{Controller, NodeName, NodeTerm, Pod, PodPhase, PodRequests, Timestamp, Toleration};
use uuid::Uuid;

/// How many values a pool holds before it is looked through for the first time.
const FEWEST: usize = 64;

/// Texts by their keys, sorted.
type Texts = Arc<[(Arc<str>, Arc<str>)]>;

/// What is kept of a pod; its node is known from where it is kept.
#[derive(Debug)]
pub(super) struct ThinPod {
    pub(super) uid: Uid,
    name: Box<str>,
    labels: Texts,
    template: Arc<Template>,
    /// Not part of the template: each pod of a DaemonSet names its node here, as the others on that node do.
    node_terms: Option<Arc<Vec<NodeTerm>>>,
    created_at: Option<Timestamp>,
    /// Few pods are being deleted at any time.
    deletion: Option<Box<Deletion>>,
    phase: PodPhase,
    ready: bool,
    /// The list in which the pod was seen last, or that was the latest when it was told.
    pub(super) list: u32,
}

/// The cluster's own id of a pod: a UUID, unless somebody invented it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Uid {
    Uuid(Uuid),
    Text(Box<str>),
}

#[derive(Debug)]
struct Deletion {
    at: Option<Timestamp>,
    grace: Option<Duration>,
}

/// What the pods of one controller have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Template {
    namespace: Arc<str>,
    controller: Option<ThinController>,
    requests: PodRequests,
    is_mirror: bool,
    has_empty_dir: bool,
    priority: i32,
    priority_class: Option<Arc<str>>,
    node_selector: Texts,
    tolerations: Arc<Vec<Toleration>>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ThinController {
    api_version: Arc<str>,
    kind: Arc<str>,
    name: Arc<str>,
}

/// What the pods of a cluster share.
#[derive(Debug, Default)]
pub(super) struct Pools {
    texts: Pool<str>,
    labels: Pool<[(Arc<str>, Arc<str>)]>,
    templates: Pool<Template>,
    node_terms: Pool<Vec<NodeTerm>>,
    tolerations: Pool<Vec<Toleration>>,
}

/// Values that are each kept once. Those that nobody uses any more are let go when the pool has grown to twice what was in use.
#[derive(Debug)]
struct Pool<T: ?Sized> {
    known: HashSet<Arc<T>>,
    /// It is looked through when it holds so many.
    full: usize,
}

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self {
            known: HashSet::new(),
            full: FEWEST,
        }
    }
}

impl<T: ?Sized + Eq + Hash> Pool<T> {
    fn share(&mut self, value: impl Borrow<T> + Into<Arc<T>>) -> Arc<T> {
        if let Some(known) = self.known.get(value.borrow()) {
            return Arc::clone(known);
        }
        if self.full <= self.known.len() {
            self.known.retain(|one| 1 < Arc::strong_count(one));
            self.full = (2 * self.known.len()).max(FEWEST);
            self.known.shrink_to(self.full);
        }
        let shared = value.into();
        self.known.insert(Arc::clone(&shared));
        shared
    }
}

impl Pools {
    fn sorted(&mut self, texts: &BTreeMap<String, String>) -> Texts {
        let texts: Vec<_> = texts
            .iter()
            .map(|(key, value)| (self.texts.share(key.as_str()), self.texts.share(value.as_str())))
            .collect();
        self.labels.share(texts)
    }

    /// How many values are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let parts = [
            self.labels.known.len(),
            self.templates.known.len(),
            self.node_terms.known.len(),
        ];
        self.texts.known.len() + self.tolerations.known.len() + parts.iter().sum::<usize>()
    }
}

impl ThinPod {
    pub(super) fn of(pod: Pod, pools: &mut Pools, list: u32) -> Self {
        let template = Template {
            namespace: pools.texts.share(pod.namespace.as_str()),
            controller: pod.controller.map(|controller| ThinController {
                api_version: pools.texts.share(controller.api_version.as_str()),
                kind: pools.texts.share(controller.kind.as_str()),
                name: pools.texts.share(controller.name.as_str()),
            }),
            requests: pod.requests,
            is_mirror: pod.is_mirror,
            has_empty_dir: pod.has_empty_dir,
            priority: pod.priority,
            priority_class: pod.priority_class.map(|class| pools.texts.share(class.as_str())),
            node_selector: pools.sorted(&pod.node_selector),
            tolerations: pools.tolerations.share(pod.tolerations),
        };
        let is_deleted = pod.deletion_at.is_some() || pod.deletion_grace.is_some();
        Self {
            uid: Uid::of(&pod.uid),
            name: pod.name.into(),
            labels: pools.sorted(&pod.labels),
            template: pools.templates.share(template),
            node_terms: pod.node_terms.map(|terms| pools.node_terms.share(terms)),
            created_at: pod.created_at,
            deletion: is_deleted.then(|| {
                Box::new(Deletion {
                    at: pod.deletion_at,
                    grace: pod.deletion_grace,
                })
            }),
            phase: pod.phase,
            ready: pod.ready,
            list,
        }
    }

    /// The pod as it was told.
    pub(super) fn to_pod(&self, node: &NodeName) -> Pod {
        let template = &self.template;
        Pod {
            namespace: template.namespace.to_string(),
            name: self.name.to_string(),
            uid: self.uid.text(),
            node: node.clone(),
            labels: plain(&self.labels),
            phase: self.phase,
            ready: self.ready,
            controller: template.controller.as_ref().map(|controller| Controller {
                api_version: controller.api_version.to_string(),
                kind: controller.kind.to_string(),
                name: controller.name.to_string(),
            }),
            requests: template.requests.clone(),
            created_at: self.created_at,
            deletion_at: self.deletion.as_ref().and_then(|deletion| deletion.at),
            deletion_grace: self.deletion.as_ref().and_then(|deletion| deletion.grace),
            is_mirror: template.is_mirror,
            has_empty_dir: template.has_empty_dir,
            priority: template.priority,
            priority_class: template.priority_class.as_ref().map(ToString::to_string),
            node_selector: plain(&template.node_selector),
            node_terms: self.node_terms.as_ref().map(|terms| terms.to_vec()),
            tolerations: template.tolerations.to_vec(),
        }
    }

    /// What it takes of its node; `None` once it has ended.
    pub(super) fn takes(&self) -> Option<&PodRequests> {
        (!self.phase.is_finished()).then_some(&self.template.requests)
    }
}

impl Uid {
    pub(super) fn of(text: &str) -> Self {
        let mut buffer = Uuid::encode_buffer();
        match Uuid::try_parse(text) {
            // Only the one way of writing it, so that it is told as it came.
            Ok(uuid) if *uuid.hyphenated().encode_lower(&mut buffer) == *text => Self::Uuid(uuid),
            Ok(_) | Err(_) => Self::Text(text.into()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Uuid(uuid) => uuid.to_string(),
            Self::Text(text) => text.to_string(),
        }
    }
}

fn plain(texts: &Texts) -> BTreeMap<String, String> {
    let texts = texts.iter();
    texts.map(|(key, value)| (key.to_string(), value.to_string())).collect()
}
