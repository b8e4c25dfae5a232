//! Who may do what: permissions, what they are limited to, and the one rule that decides.

use std::collections::{BTreeMap, BTreeSet};

use crate::{ClusterName, Selector};

mod authority;
mod caller;
mod claims;
mod kubernetes;
mod role;
mod token;

pub use authority::{Authority, KubernetesIdentity};
pub use caller::Caller;
pub use claims::{ClaimRule, ClaimRules, RawClaimRule};
pub use kubernetes::KubernetesAction;
pub use role::{RawRoleGrant, Role, RoleGrant};
pub use token::{ApiToken, NewToken, TokenError, TokenId, TokenText, check_token_name, looks_like_a_token};

/// Something that one may be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Permission {
    /// To see nodes, and what was done to them.
    View,
    /// To see the pods on them.
    ViewPods,
    /// To change labels, taints and cordons.
    Change,
    /// To have pods evicted, as far as disruption budgets allow.
    Drain,
    /// To have pods deleted whatever disruption budgets and controllers say.
    Force,
    /// To taint nodes so that pods are evicted at once, whatever disruption budgets say (`confirm_no_execute`).
    NoExecute,
    /// To say who may do what, and which clusters there are.
    Administer,
}

/// A set of permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Permissions(u8);

/// Permissions, and what they hold for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What is allowed.
    pub permissions: Permissions,
    /// In which clusters; `None`: in all of them, also in those that come later.
    pub clusters: Option<BTreeSet<ClusterName>>,
    /// To which nodes of them; `None`: to all, and to the cluster as a whole.
    pub nodes: Option<Selector>,
}

/// Everything that somebody may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    grants: Vec<Grant>,
}

/// How far a permission goes in one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach<'a> {
    /// Nowhere.
    Nothing,
    /// To the nodes that one of these finds.
    Nodes(Vec<&'a Selector>),
    /// To all of its nodes.
    Everything,
}

/// What somebody wants to do something with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object<'a> {
    /// What belongs to no cluster and tells nothing of any: whoever has the permission somewhere may.
    Anything,
    /// The service as a whole, and so every cluster and node.
    Everything,
    /// Some nodes of a cluster, which are not known yet: which ones is decided once they are.
    SomeOf(&'a str),
    /// A cluster with all of its nodes.
    Cluster(&'a str),
    /// A node.
    Node {
        /// Its cluster.
        cluster: &'a str,
        /// Its labels.
        labels: &'a BTreeMap<String, String>,
    },
}

/// What comes of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It may be done.
    Allowed,
    /// It may not even be seen: as if it were not there.
    Hidden,
    /// It may not be done, for want of this permission.
    Refused(Permission),
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::View,
        Self::ViewPods,
        Self::Change,
        Self::Drain,
        Self::Force,
        Self::NoExecute,
        Self::Administer,
    ];

    /// `view`, `view-pods`, `change`, `drain`, `force`, `no-execute` or `administer`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::ViewPods => "view-pods",
            Self::Change => "change",
            Self::Drain => "drain",
            Self::Force => "force",
            Self::NoExecute => "no-execute",
            Self::Administer => "administer",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::View => 1,
            Self::ViewPods => 1 << 1,
            Self::Change => 1 << 2,
            Self::Drain => 1 << 3,
            Self::Force => 1 << 4,
            Self::NoExecute => 1 << 5,
            Self::Administer => 1 << 6,
        }
    }
}

impl Permissions {
    /// None.
    pub const NONE: Self = Self(0);

    /// These.
    #[must_use]
    pub fn of(permissions: &[Permission]) -> Self {
        Self(permissions.iter().fold(0, |bits, permission| bits | permission.bit()))
    }

    /// These and those of `other`.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn contains(self, permission: Permission) -> bool {
        self.0 & permission.bit() != 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL
            .into_iter()
            .filter(move |permission| self.contains(*permission))
    }
}

impl Access {
    /// What these grants allow together.
    #[must_use]
    pub fn new(grants: Vec<Grant>) -> Self {
        Self { grants }
    }

    /// All permissions, everywhere: those of the service itself, and of everybody where nobody signs in.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(vec![Grant {
            permissions: Permissions::of(&Permission::ALL),
            clusters: None,
            nodes: None,
        }])
    }

    /// The one rule: what comes of the wish to do something with `object` that needs all of `needed`.
    ///
    /// What one may not see is hidden, whatever else one may do with it. What belongs to no cluster is never hidden. Each permission may
    /// come from another grant.
    #[must_use]
    pub fn decide(&self, needed: &[Permission], object: Object<'_>) -> Ruling {
        let is_visible = match object {
            Object::Anything | Object::Everything => true,
            Object::SomeOf(cluster) | Object::Cluster(cluster) => {
                self.allows(Permission::View, Object::SomeOf(cluster))
            }
            Object::Node { .. } => self.allows(Permission::View, object),
        };
        if !is_visible {
            return Ruling::Hidden;
        }
        match needed.iter().find(|permission| !self.allows(**permission, object)) {
            Some(missing) => Ruling::Refused(*missing),
            None => Ruling::Allowed,
        }
    }

    /// Whether one permission holds for `object`.
    #[must_use]
    pub fn allows(&self, permission: Permission, object: Object<'_>) -> bool {
        match object {
            Object::Anything => self.grants.iter().any(|grant| grant.permissions.contains(permission)),
            Object::Everything => self.grants.iter().any(|grant| {
                grant.permissions.contains(permission) && grant.clusters.is_none() && grant.nodes.is_none()
            }),
            Object::SomeOf(cluster) => self.reach(permission, cluster) != Reach::Nothing,
            Object::Cluster(cluster) => self.reach(permission, cluster) == Reach::Everything,
            Object::Node { cluster, labels } => self.reach(permission, cluster).includes(labels),
        }
    }

    /// How far a permission goes in a cluster.
    #[must_use]
    pub fn reach(&self, permission: Permission, cluster: &str) -> Reach<'_> {
        let mut selectors = Vec::new();
        for grant in &self.grants {
            if !grant.permissions.contains(permission) || !grant.covers(cluster) {
                continue;
            }
            match &grant.nodes {
                None => return Reach::Everything,
                Some(selector) => selectors.push(selector),
            }
        }
        match selectors.is_empty() {
            true => Reach::Nothing,
            false => Reach::Nodes(selectors),
        }
    }

    /// Whether it sees all nodes of all clusters, also of those that come later.
    #[must_use]
    pub fn sees_everything(&self) -> bool {
        self.allows(Permission::View, Object::Everything)
    }

    /// Whether everything that `other` allows is allowed by this one, too, by a single grant that goes as far: what somebody may hand on.
    #[must_use]
    pub fn includes(&self, other: &Grant) -> bool {
        other.permissions.iter().all(|permission| {
            self.grants.iter().any(|grant| {
                let clusters = match (&grant.clusters, &other.clusters) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(own), Some(others)) => others.is_subset(own),
                };
                grant.permissions.contains(permission)
                    && clusters
                    && (grant.nodes.is_none() || grant.nodes == other.nodes)
            })
        })
    }
}

impl Grant {
    fn covers(&self, cluster: &str) -> bool {
        self.clusters.as_ref().is_none_or(|clusters| clusters.contains(cluster))
    }
}

impl Reach<'_> {
    /// Whether it goes as far as a node with these labels.
    #[must_use]
    pub fn includes(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Nothing => false,
            Self::Nodes(selectors) => selectors.iter().any(|selector| selector.matches(labels)),
            Self::Everything => true,
        }
    }
}

#[cfg(test)]
mod tests;
