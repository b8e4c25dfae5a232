//! What a permission stands for in the rules of a cluster.

use std::fmt;

use super::Permission;

/// Something that the rules of a cluster allow or not, in all of its namespaces: the attributes of a SubjectAccessReview.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KubernetesAction {
    /// `get`, `list`, `patch` and so on.
    pub verb: &'static str,
    /// The API group, empty for the core.
    pub group: &'static str,
    /// The resource, as rules name it.
    pub resource: &'static str,
    /// A part of it, empty for the whole.
    pub subresource: &'static str,
}

impl Permission {
    /// What somebody must be allowed to do with kubectl to have this permission here: each of these.
    ///
    /// kubectl can do nothing that [`Permission::Administer`] is about, so that has a resource of its own, which only rules know.
    #[must_use]
    pub fn kubernetes(self) -> &'static [KubernetesAction] {
        match self {
            Self::View => const { &[core("get", "nodes", ""), core("list", "nodes", "")] },
            Self::ViewPods => const { &[core("list", "pods", "")] },
            // kubectl needs no more for a taint that evicts pods.
            Self::Change | Self::NoExecute => const { &[core("patch", "nodes", "")] },
            Self::Drain => const { &[core("create", "pods", "eviction")] },
            Self::Force => const { &[core("delete", "pods", "")] },
            Self::Administer => const { &[ADMINISTER] },
        }
    }
}

impl fmt::Display for KubernetesAction {
    /// As rules are read aloud: `create pods/eviction`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.verb, self.resource)?;
        if !self.subresource.is_empty() {
            write!(formatter, "/{}", self.subresource)?;
        }
        match self.group {
            "" => Ok(()),
            group => write!(formatter, ".{group}"),
        }
    }
}

const ADMINISTER: KubernetesAction = KubernetesAction {
    verb: "administer",
    group: "kube-node-manager.io",
    resource: "service",
    subresource: "",
};

const fn core(verb: &'static str, resource: &'static str, subresource: &'static str) -> KubernetesAction {
    KubernetesAction {
        verb,
        group: "",
        resource,
        subresource,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(permission: Permission) -> Vec<String> {
        permission.kubernetes().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_permission_is_what_kubectl_needs_for_the_same() {
        assert_eq!(words(Permission::View), ["get nodes", "list nodes"]);
        assert_eq!(words(Permission::ViewPods), ["list pods"]);
        assert_eq!(words(Permission::Change), ["patch nodes"]);
        assert_eq!(words(Permission::Drain), ["create pods/eviction"]);
        assert_eq!(words(Permission::Force), ["delete pods"]);
        assert_eq!(
            words(Permission::Administer),
            ["administer service.kube-node-manager.io"]
        );
    }

    /// A permission without actions would be everybody's, and two with the same actions are one: as kubectl has it of taints.
    #[test]
    fn no_permission_stands_for_nothing_or_for_what_another_one_stands_for() {
        let mut seen = std::collections::HashSet::new();
        for permission in Permission::ALL {
            assert!(!permission.kubernetes().is_empty(), "{permission:?}");
            if permission == Permission::NoExecute {
                assert_eq!(permission.kubernetes(), Permission::Change.kubernetes());
                continue;
            }
            for action in permission.kubernetes() {
                assert!(seen.insert(action), "{action:?}");
            }
        }
    }
}
