//! What a caller asks of a list of nodes: filters, order, page, fields.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::{Node, NodeStatus, Selector, TaintFilter};

mod cursor;
mod parse;
#[cfg(test)]
mod tests;

pub use cursor::Cursor;
use cursor::SortPoint;

/// The parameters of a list of nodes as they came, unparsed; a parameter that was not given is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawNodeQuery {
    /// `label_selector`, in Kubernetes' grammar.
    pub label_selector: Option<String>,
    /// `status`: one or several of `ready`, `not_ready`, `unknown`, separated by commas.
    pub status: Option<String>,
    /// `schedulable`: `true` or `false`.
    pub schedulable: Option<String>,
    /// `role`.
    pub role: Option<String>,
    /// `zone`.
    pub zone: Option<String>,
    /// `taint`: `key[=value][:effect]`.
    pub taint: Option<String>,
    /// `search`: part of a name or address, case ignored.
    pub search: Option<String>,
    /// `sort`: `name`, `age`, `cpu`, `memory`, `zone` or `status`; `-` in front reverses.
    pub sort: Option<String>,
    /// `limit`: 1 to 10,000 nodes a page; absent: all.
    pub limit: Option<String>,
    /// `cursor`: the `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// `fields`: keys of the node view, separated by commas.
    pub fields: Option<String>,
}

/// A parsed query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeQuery {
    /// Which nodes.
    pub filter: NodeFilter,
    /// In which order; ties are broken by cluster and name, so the order is total.
    pub sort: NodeSort,
    /// At most so many; `None`: all.
    pub limit: Option<usize>,
    /// Where the page starts.
    pub cursor: Option<Cursor>,
    /// Only these keys of the view, in the view's order; `None`: all.
    pub fields: Option<Vec<NodeField>>,
}

/// Which nodes a caller wants; without anything set, all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeFilter {
    /// By labels.
    pub labels: Option<Selector>,
    /// By status: any of these; empty: any.
    pub status: Vec<NodeStatus>,
    /// By schedulability.
    pub schedulable: Option<bool>,
    /// By a role that they have.
    pub role: Option<String>,
    /// By zone.
    pub zone: Option<String>,
    /// By a taint that they have.
    pub taint: Option<TaintFilter>,
    /// By a part of their name or of one of their addresses, in lower case.
    pub search: Option<String>,
}

/// An order of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeSort {
    /// By what.
    pub key: SortKey,
    /// Whether the largest comes first.
    pub descending: bool,
}

impl NodeSort {
    /// Which comes first. Names are sorted within their cluster; ties of anything else are broken by cluster and name, upwards.
    fn compare(self, left: &SortPoint<'_>, right: &SortPoint<'_>) -> Ordering {
        let by_place = (left.cluster, left.name).cmp(&(right.cluster, right.name));
        let directed = |ordering: Ordering| if self.descending { ordering.reverse() } else { ordering };
        match self.key {
            SortKey::Name => directed(by_place),
            SortKey::Age | SortKey::Cpu | SortKey::Memory | SortKey::Zone | SortKey::Status => {
                directed(left.value.cmp(&right.value)).then(by_place)
            }
        }
    }
}

impl SortKey {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Name, Self::Age, Self::Cpu, Self::Memory, Self::Zone, Self::Status];

    /// The word for it in the parameter `sort`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Age => "age",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Zone => "zone",
            Self::Status => "status",
        }
    }
}

/// What nodes are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SortKey {
    /// By name.
    #[default]
    Name,
    /// By the time since their creation: the youngest first.
    Age,
    /// By allocatable CPU.
    Cpu,
    /// By allocatable memory.
    Memory,
    /// By zone; nodes without one first.
    Zone,
    /// By status, in the order of [`NodeStatus::ALL`].
    Status,
}

macro_rules! node_fields {
    ($($variant:ident $key:literal),+ $(,)?) => {
        /// A key of the node view.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum NodeField {
            $(#[doc = concat!("`", $key, "`")] $variant,)+
        }

        impl NodeField {
            /// All keys, in the order of the view.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The key as JSON has it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $key,)+
                }
            }
        }
    };
}

node_fields!(
    Name "name",
    Uid "uid",
    Cluster "cluster",
    Roles "roles",
    Status "status",
    Schedulable "schedulable",
    Cordon "cordon",
    Labels "labels",
    Taints "taints",
    Conditions "conditions",
    Addresses "addresses",
    Capacity "capacity",
    Allocatable "allocatable",
    Requested "requested",
    System "system",
    Zone "zone",
    Region "region",
    InstanceType "instance_type",
    ProviderId "provider_id",
    PodCidrs "pod_cidrs",
    CreatedAt "created_at",
    ResourceVersion "resource_version",
);

/// Why a parameter of a query was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{parameter}: {message}")]
pub struct QueryError {
    /// The parameter.
    pub parameter: Cow<'static, str>,
    /// Where in its value, counted in characters from 1, if that can be told.
    pub position: Option<usize>,
    /// The value, what was wrong with it and what is allowed.
    pub message: String,
}

impl QueryError {
    /// What is wrong with a parameter as a whole.
    #[must_use]
    pub fn new(parameter: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            parameter: parameter.into(),
            position: None,
            message: message.into(),
        }
    }
}

/// As much of a caller's text as an error about a query repeats, without control characters.
#[must_use]
pub fn excerpt(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

impl NodeQuery {
    /// Parses the parameters of a list.
    ///
    /// # Errors
    /// All that is wrong, in the order of the parameters, never empty.
    pub fn parse(raw: &RawNodeQuery) -> Result<Self, Vec<QueryError>> {
        parse::parse(raw)
    }

    /// Picks the page that this query asks for out of `nodes`, which are sorted by cluster and name.
    /// Returns the page, the number of nodes that matched on all pages together, and where the next page starts.
    #[must_use]
    pub fn select<'a, T>(
        &self,
        nodes: impl Iterator<Item = T>,
        view: impl Fn(&T) -> (&'a str, &'a Node),
    ) -> (Vec<T>, usize, Option<Cursor>) {
        let mut page: Vec<T> = nodes.filter(|item| self.filter.matches(view(item).1)).collect();
        let total = page.len();
        let key = |item: &T| {
            let (cluster, node) = view(item);
            SortPoint::of(self.sort.key, cluster, node)
        };
        if self.sort != NodeSort::default() {
            page.sort_unstable_by(|left, right| self.sort.compare(&key(left), &key(right)));
        }
        if let Some(cursor) = &self.cursor {
            let start = cursor.point();
            let passed = page.partition_point(|item| self.sort.compare(&key(item), &start).is_le());
            page.drain(..passed);
        }
        let next = match self.limit {
            Some(limit) if limit < page.len() => {
                page.truncate(limit);
                page.last().map(|item| key(item).cursor(self.sort))
            }
            _ => None,
        };
        (page, total, next)
    }

    /// Whether it asks for everything in the usual order: no filter, page or choice of fields.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

impl NodeFilter {
    /// Whether it lets `node` through.
    #[must_use]
    pub fn matches(&self, node: &Node) -> bool {
        (self.status.is_empty() || self.status.contains(&node.status))
            && self
                .schedulable
                .is_none_or(|schedulable| schedulable == node.schedulable)
            && self.zone.as_ref().is_none_or(|zone| node.zone.as_ref() == Some(zone))
            && self.labels.as_ref().is_none_or(|labels| labels.matches(&node.labels))
            && self
                .role
                .as_ref()
                .is_none_or(|role| node.roles().contains(&role.as_str()))
            && self
                .taint
                .as_ref()
                .is_none_or(|taint| node.taints.iter().any(|found| taint.matches(found)))
            && self.search.as_ref().is_none_or(|search| {
                contains(node.name.as_str(), search)
                    || node.addresses.iter().any(|address| contains(&address.address, search))
            })
    }
}

/// Whether `part` is in `text`, the case of ASCII letters ignored.
pub(crate) fn contains(text: &str, part: &str) -> bool {
    text.as_bytes()
        .windows(part.len().max(1))
        .any(|window| window.eq_ignore_ascii_case(part.as_bytes()))
}
