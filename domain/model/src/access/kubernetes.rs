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
            Self::View => {
                const {
                    &[
                        KubernetesAction::core("get", "nodes"),
                        KubernetesAction::core("list", "nodes"),
                    ]
                }
            }
            Self::ViewPods => const { &[KubernetesAction::core("list", "pods")] },
            // kubectl needs no more for a taint that evicts pods.
            Self::Change | Self::NoExecute => const { &[KubernetesAction::core("patch", "nodes")] },
            Self::Drain => const { &[KubernetesAction::core("create", "pods").part("eviction")] },
            Self::Force => const { &[KubernetesAction::core("delete", "pods")] },
            Self::Administer => const { &[KubernetesAction::of("administer", "kube-node-manager.io", "service")] },
        }
    }
}

impl KubernetesAction {
    /// Something with a whole resource of the core group.
    pub(crate) const fn core(verb: &'static str, resource: &'static str) -> Self {
        Self::of(verb, "", resource)
    }

    /// Something with a whole resource.
    pub(crate) const fn of(verb: &'static str, group: &'static str, resource: &'static str) -> Self {
        Self {
            verb,
            group,
            resource,
            subresource: "",
        }
    }

    /// The same with a part of the resource.
    pub(crate) const fn part(self, subresource: &'static str) -> Self {
        Self { subresource, ..self }
    }

    /// The resource, with the part after a slash, as rules name it: `pods/eviction`.
    #[must_use]
    pub fn path(&self) -> String {
        match self.subresource {
            "" => self.resource.to_owned(),
            subresource => format!("{}/{subresource}", self.resource),
        }
    }
}

impl fmt::Display for KubernetesAction {
    /// As rules are read aloud: `create pods/eviction`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.verb, self.path())?;
        match self.group {
            "" => Ok(()),
            group => write!(formatter, ".{group}"),
        }
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
