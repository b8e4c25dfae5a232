//! Roles: permissions that belong together.

use std::collections::BTreeSet;

use super::{Grant, Permission, Permissions};
use crate::{ClusterName, QueryError, Selector, excerpt};

/// How many clusters a grant may name.
const MOST_CLUSTERS: usize = 1_000;
/// How long a selector of nodes may be, in bytes.
const LONGEST_SELECTOR: usize = 1_024;

/// Permissions that belong together. `force` belongs to none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Sees everything and changes nothing.
    Viewer,
    /// Changes and drains nodes, too.
    Operator,
    /// Says who may do what and which clusters there are, too.
    Admin,
}

/// A role with what it is limited to: how grants are written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleGrant {
    /// The role.
    pub role: Role,
    /// Whether `force` comes with it: [`Permission::Force`] and [`Permission::NoExecute`].
    pub force: bool,
    /// The clusters that it is limited to.
    pub clusters: Option<BTreeSet<ClusterName>>,
    /// The label selector of the nodes that it is limited to, as it was written.
    pub nodes: Option<String>,
}

/// A grant as a caller or a configuration writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawRoleGrant {
    /// The role.
    pub role: String,
    /// Whether `force` comes with it.
    pub force: bool,
    /// Names of clusters; `None`: all.
    pub clusters: Option<Vec<String>>,
    /// A label selector; `None`: all nodes.
    pub nodes: Option<String>,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// `viewer`, `operator` or `admin`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Reads [`Role::as_str`] back, `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// What it allows.
    #[must_use]
    pub fn permissions(self) -> Permissions {
        use Permission::{Administer, Change, Drain, View, ViewPods};
        match self {
            Self::Viewer => Permissions::of(&[View, ViewPods]),
            Self::Operator => Permissions::of(&[View, ViewPods, Change, Drain]),
            Self::Admin => Permissions::of(&[View, ViewPods, Change, Drain, Administer]),
        }
    }
}

impl RoleGrant {
    /// Checks a grant.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(raw: &RawRoleGrant) -> Result<Self, Vec<QueryError>> {
        let mut errors = Vec::new();
        let role = Role::parse(&raw.role);
        if role.is_none() {
            let known = Role::ALL.map(Role::as_str).join(", ");
            let message = format!("\"{}\" is no role: one of {known} is", excerpt(&raw.role));
            errors.push(QueryError::new("role", message));
        }
        let clusters = raw.clusters.as_ref().map(|names| {
            if names.is_empty() {
                let message =
                    "an empty list allows nothing: names of clusters are expected, or nothing at all for all of them";
                errors.push(QueryError::new("clusters", message));
            }
            if MOST_CLUSTERS < names.len() {
                let message = format!(
                    "{} clusters are too many: at most {MOST_CLUSTERS} are allowed",
                    names.len()
                );
                errors.push(QueryError::new("clusters", message));
            }
            let mut parsed = BTreeSet::new();
            for (place, name) in names.iter().take(MOST_CLUSTERS).enumerate() {
                match ClusterName::parse(name) {
                    Ok(name) => drop(parsed.insert(name)),
                    Err(error) => errors.push(QueryError::new(format!("clusters[{place}]"), error.to_string())),
                }
            }
            parsed
        });
        if let Some(nodes) = &raw.nodes {
            errors.extend(check_nodes(nodes).err());
        }
        match role {
            Some(role) if errors.is_empty() => Ok(Self {
                role,
                force: raw.force,
                clusters,
                nodes: raw.nodes.clone(),
            }),
            Some(_) | None => Err(errors),
        }
    }

    /// What it allows.
    #[must_use]
    pub fn grant(&self) -> Grant {
        let force = match self.force {
            true => Permissions::of(&[Permission::Force, Permission::NoExecute]),
            false => Permissions::NONE,
        };
        let nodes = self.nodes.as_deref().map(Selector::parse);
        let is_broken = matches!(nodes, Some(Err(_)));
        Grant {
            // What cannot be read any more must not become a grant without limits.
            permissions: match is_broken {
                true => Permissions::NONE,
                false => self.role.permissions().and(force),
            },
            clusters: self.clusters.clone(),
            nodes: nodes.and_then(Result::ok),
        }
    }
}

fn check_nodes(nodes: &str) -> Result<(), QueryError> {
    if LONGEST_SELECTOR < nodes.len() {
        let message = format!(
            "{} bytes are too many: at most {LONGEST_SELECTOR} are allowed",
            nodes.len()
        );
        return Err(QueryError::new("nodes", message));
    }
    match Selector::parse(nodes) {
        Ok(selector) if selector.requirements().is_empty() => Err(QueryError::new(
            "nodes",
            "an empty selector finds every node: a label selector is expected, or nothing at all for all nodes",
        )),
        Ok(_) => Ok(()),
        Err(error) => Err(QueryError {
            parameter: "nodes".into(),
            position: Some(error.position),
            message: error.message,
        }),
    }
}
