//! Templates and bindings: what is written down, and which nodes differ from it.

use std::collections::BTreeMap;

use knm_domain::{Comparison, DriftedNode, StaleCluster, Versioned};
use knm_model::{RawBinding, RawTaint, RawTemplate, Template};
use poem_openapi::Object;
use poem_openapi::types::Any;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::change::TaintBody;

/// Any keys with any values.
type AnyObject = BTreeMap<String, Any<Value>>;

/// A new template.
#[derive(Debug, Deserialize, Object)]
#[oai(rename = "NewTemplate")]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTemplateBody {
    /// Its name: 1 to 63 lower case letters, digits and '-', starting and ending with a letter or digit.
    pub(crate) name: String,
    /// What it is for, in 1 to 500 characters.
    #[oai(default)]
    #[serde(default)]
    description: Option<String>,
    /// Labels that a node is to have, values by key.
    #[oai(default)]
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Taints that a node is to have.
    #[oai(default)]
    #[serde(default)]
    taints: Vec<TaintBody>,
}

/// What a template says from now on.
#[derive(Debug, Default, Deserialize, Object)]
#[oai(rename = "TemplateContent", default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TemplateBody {
    /// What it is for, in 1 to 500 characters.
    description: Option<String>,
    /// Labels that a node is to have, values by key.
    labels: BTreeMap<String, String>,
    /// Taints that a node is to have.
    taints: Vec<TaintBody>,
}

/// Which nodes are compared with a template.
#[derive(Debug, Deserialize, Object)]
#[oai(rename = "TemplatePreviewRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct PreviewBody {
    /// A cluster; absent: the nodes of all clusters.
    #[oai(default)]
    pub(crate) cluster: Option<String>,
    /// Nodes with these labels, in Kubernetes' grammar; absent: all of them.
    #[oai(default)]
    #[serde(default)]
    pub(crate) label_selector: String,
    /// A version of the template; absent: the latest.
    #[oai(default, validator(minimum(value = "1")))]
    pub(crate) version: Option<u32>,
}

/// A new binding.
#[derive(Debug, Deserialize, Object)]
#[oai(rename = "NewBinding")]
#[serde(deny_unknown_fields)]
pub(crate) struct NewBindingBody {
    /// Its name: 1 to 63 lower case letters, digits and '-', starting and ending with a letter or digit.
    pub(crate) name: String,
    /// The name of a template: its latest version counts.
    template: String,
    /// A cluster; absent: the nodes of all clusters.
    #[oai(default)]
    #[serde(default)]
    cluster: Option<String>,
    /// Nodes with these labels, in Kubernetes' grammar.
    label_selector: String,
    /// Whether nodes that lack something get it, by operations that the service begins.
    #[oai(default)]
    #[serde(default)]
    reconcile: bool,
    /// Whether these may evict pods by `NoExecute` taints, without looking at disruption budgets.
    #[oai(default)]
    #[serde(default)]
    confirm_no_execute: bool,
}

/// What a binding says from now on.
#[derive(Debug, Deserialize, Object)]
#[oai(rename = "BindingContent")]
#[serde(deny_unknown_fields)]
pub(crate) struct BindingBody {
    /// The name of a template: its latest version counts.
    template: String,
    /// A cluster; absent: the nodes of all clusters.
    #[oai(default)]
    #[serde(default)]
    cluster: Option<String>,
    /// Nodes with these labels, in Kubernetes' grammar.
    label_selector: String,
    /// Whether nodes that lack something get it, by operations that the service begins.
    #[oai(default)]
    #[serde(default)]
    reconcile: bool,
    /// Whether these may evict pods by `NoExecute` taints, without looking at disruption budgets.
    #[oai(default)]
    #[serde(default)]
    confirm_no_execute: bool,
}

/// Labels and taints that belong together.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "Template")]
pub(crate) struct TemplateView {
    /// Its name.
    name: String,
    /// Its version, counted from 1; each change makes a new one.
    #[oai(validator(minimum(value = "1")))]
    version: u32,
    /// When this version was written, RFC 3339 in UTC.
    changed_at: String,
    /// Who wrote it.
    changed_by: String,
    /// What it is for.
    description: Option<String>,
    /// Labels that a node is to have, values by key.
    labels: BTreeMap<String, String>,
    /// Taints that a node is to have.
    taints: Vec<TemplateTaintView>,
    /// What whoever wrote it should know although it is allowed.
    warnings: Vec<String>,
}

/// A taint of a template.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "TemplateTaint")]
pub(crate) struct TemplateTaintView {
    /// Its key.
    key: String,
    /// Its value; may be empty.
    value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    effect: String,
}

/// Templates, sorted by name.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "TemplateList")]
pub(crate) struct TemplateListView {
    /// All of them: there are at most 1,000.
    items: Vec<TemplateView>,
    /// Always null: all of them are on the first page.
    next_cursor: Option<String>,
    /// How many there are.
    total: u64,
}

/// A version of a template or binding.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "DefinitionVersion")]
pub(crate) struct VersionView {
    /// Its number.
    #[oai(validator(minimum(value = "1")))]
    version: u32,
    /// When it was written, RFC 3339 in UTC.
    changed_at: String,
    /// Who wrote it.
    changed_by: String,
    /// What it says, as it can be written again; null: with this version it was deleted.
    content: Option<AnyObject>,
}

/// Versions of a template or binding, the latest first.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "DefinitionVersionList")]
pub(crate) struct VersionListView {
    /// All of them, the latest first.
    items: Vec<VersionView>,
    /// Always null: all of them are on the first page.
    next_cursor: Option<String>,
    /// How many there are.
    total: u64,
}

/// Nodes that are to be as a template says.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "Binding")]
pub(crate) struct BindingView {
    /// Its name.
    name: String,
    /// Its version, counted from 1; each change makes a new one.
    #[oai(validator(minimum(value = "1")))]
    version: u32,
    /// When this version was written, RFC 3339 in UTC.
    changed_at: String,
    /// Who wrote it.
    changed_by: String,
    /// The name of the template.
    template: String,
    /// The cluster; null: the nodes of all clusters.
    cluster: Option<String>,
    /// Nodes with these labels.
    label_selector: String,
    /// Whether nodes that lack something get it.
    reconcile: bool,
    /// Whether that may evict pods by `NoExecute` taints.
    confirm_no_execute: bool,
}

/// Bindings, sorted by name.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "BindingList")]
pub(crate) struct BindingListView {
    /// All of them: there are at most 1,000.
    items: Vec<BindingView>,
    /// Always null: all of them are on the first page.
    next_cursor: Option<String>,
    /// How many there are.
    total: u64,
}

/// Nodes that were compared with a template.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "TemplateDrift")]
pub(crate) struct ComparisonView {
    /// The template.
    template: String,
    /// Its version.
    #[oai(validator(minimum(value = "1")))]
    version: u32,
    /// How many nodes were compared.
    compared: u64,
    /// How many of them lack something.
    drifted: u64,
    /// Those that do, by cluster and name.
    nodes: Vec<DriftedNodeView>,
    /// Clusters that were left out because their nodes are not known yet.
    unknown_clusters: Vec<String>,
    /// Clusters that cannot be seen now: their nodes were compared as they were then.
    stale_clusters: Vec<StaleClusterView>,
}

/// A cluster that cannot be seen now.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "StaleCluster")]
pub(crate) struct StaleClusterView {
    /// The cluster.
    cluster: String,
    /// When it was last seen, RFC 3339 in UTC.
    as_of: String,
}

/// A node that lacks something.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "DriftedNode")]
pub(crate) struct DriftedNodeView {
    /// The cluster.
    cluster: String,
    /// The node.
    node: String,
    /// What would change, as it is: `labels` and `taints`, as far as they differ.
    before: AnyObject,
    /// The same as the template wants it.
    after: AnyObject,
    /// Whether it lacks a `NoExecute` taint, which evicts pods without looking at disruption budgets.
    evicts: bool,
}

impl NewTemplateBody {
    pub(crate) fn split(self) -> (String, RawTemplate) {
        let content = TemplateBody {
            description: self.description,
            labels: self.labels,
            taints: self.taints,
        };
        (self.name, content.raw())
    }
}

impl TemplateBody {
    pub(crate) fn raw(self) -> RawTemplate {
        RawTemplate {
            description: self.description,
            labels: self.labels,
            taints: self.taints.iter().map(TaintBody::raw).collect(),
        }
    }
}

impl NewBindingBody {
    pub(crate) fn split(self) -> (String, RawBinding) {
        let content = BindingBody {
            template: self.template,
            cluster: self.cluster,
            label_selector: self.label_selector,
            reconcile: self.reconcile,
            confirm_no_execute: self.confirm_no_execute,
        };
        (self.name, content.raw())
    }
}

impl BindingBody {
    pub(crate) fn raw(self) -> RawBinding {
        RawBinding {
            template: self.template,
            cluster: self.cluster,
            label_selector: self.label_selector,
            reconcile: self.reconcile,
            confirm_no_execute: self.confirm_no_execute,
        }
    }
}

impl TemplateView {
    pub(crate) fn of(stored: &Versioned<RawTemplate>) -> Self {
        let taint = |raw: &RawTaint| TemplateTaintView {
            key: raw.key.clone(),
            value: raw.value.clone(),
            effect: raw.effect.clone().unwrap_or_default(),
        };
        Self {
            name: stored.name.to_string(),
            version: stored.version,
            changed_at: stored.changed_at.to_string(),
            changed_by: stored.changed_by.clone(),
            description: stored.content.description.clone(),
            labels: stored.content.labels.clone(),
            taints: stored.content.taints.iter().map(taint).collect(),
            warnings: Template::parse(&stored.content)
                .map(|template| template.warnings())
                .unwrap_or_default(),
        }
    }
}

impl TemplateListView {
    pub(crate) fn of(stored: &[Versioned<RawTemplate>]) -> Self {
        Self {
            items: stored.iter().map(TemplateView::of).collect(),
            next_cursor: None,
            total: stored.len() as u64,
        }
    }
}

impl VersionListView {
    pub(crate) fn of<T: Serialize>(stored: &[Versioned<Option<T>>]) -> Self {
        let version = |one: &Versioned<Option<T>>| VersionView {
            version: one.version,
            changed_at: one.changed_at.to_string(),
            changed_by: one.changed_by.clone(),
            content: one.content.as_ref().and_then(|content| {
                let content = serde_json::to_value(content).ok()?;
                content.as_object().map(object)
            }),
        };
        Self {
            items: stored.iter().map(version).collect(),
            next_cursor: None,
            total: stored.len() as u64,
        }
    }
}

impl BindingView {
    pub(crate) fn of(stored: &Versioned<RawBinding>) -> Self {
        let content = &stored.content;
        Self {
            name: stored.name.to_string(),
            version: stored.version,
            changed_at: stored.changed_at.to_string(),
            changed_by: stored.changed_by.clone(),
            template: content.template.clone(),
            cluster: content.cluster.clone(),
            label_selector: content.label_selector.clone(),
            reconcile: content.reconcile,
            confirm_no_execute: content.confirm_no_execute,
        }
    }
}

impl BindingListView {
    pub(crate) fn of(stored: &[Versioned<RawBinding>]) -> Self {
        Self {
            items: stored.iter().map(BindingView::of).collect(),
            next_cursor: None,
            total: stored.len() as u64,
        }
    }
}

impl ComparisonView {
    pub(crate) fn of(comparison: &Comparison) -> Self {
        let node = |drifted: &DriftedNode| DriftedNodeView {
            cluster: drifted.cluster.to_string(),
            node: drifted.node.to_string(),
            before: object(&drifted.drift.before),
            after: object(&drifted.drift.after),
            evicts: drifted.drift.evicts,
        };
        let stale = |stale: &StaleCluster| StaleClusterView {
            cluster: stale.cluster.to_string(),
            as_of: stale.as_of.to_string(),
        };
        Self {
            template: comparison.template.to_string(),
            version: comparison.version,
            compared: comparison.compared as u64,
            drifted: comparison.drifted.len() as u64,
            nodes: comparison.drifted.iter().map(node).collect(),
            unknown_clusters: comparison.unknown.iter().map(ToString::to_string).collect(),
            stale_clusters: comparison.stale.iter().map(stale).collect(),
        }
    }
}

fn object(map: &Map<String, Value>) -> AnyObject {
    map.iter()
        .map(|(key, value)| (key.clone(), Any(value.clone())))
        .collect()
}
