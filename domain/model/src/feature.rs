//! What the service does with a cluster, and what the cluster's rules must let it do for that.

use crate::ClusterName;
use crate::access::KubernetesAction;

#[cfg(test)]
mod tests;

/// Something that the service does with a cluster. No two need the same of its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClusterFeature {
    /// Nodes are shown, and volumes that are attached to them.
    ViewNodes,
    /// The pods of a node are asked for.
    ViewPods,
    /// Pods are known without being asked for.
    WatchPods,
    /// It is told which disruption budgets protect pods.
    ViewBudgets,
    /// It is told which DaemonSets there are: pods of one that is gone are drained otherwise.
    ViewDaemonSets,
    /// Labels, taints and cordons are changed.
    ChangeNodes,
    /// Pods are evicted as their disruption budgets allow.
    EvictPods,
    /// Pods are deleted, whatever disruption budgets say.
    DeletePods,
    /// Callers sign in with tokens of the cluster.
    ReviewTokens,
    /// Callers may do what the cluster lets them do.
    ReviewAccess,
}

/// How the service is configured to use a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterUse {
    /// Whether its pods are watched, and not only asked for.
    pub watches_pods: bool,
    /// Whether it is the one that is asked whose a token is.
    pub reviews_tokens: bool,
    /// Whether it is asked what people may do.
    pub reviews_access: bool,
}

/// Whether a feature can be used with a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureStatus {
    /// The feature.
    pub feature: ClusterFeature,
    /// Whether it can be used.
    pub state: FeatureState,
    /// What of its needs the cluster does not allow.
    pub missing: Vec<KubernetesAction>,
}

/// Whether a feature can be used with a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FeatureState {
    /// The cluster allows all that it needs.
    Available,
    /// The cluster does not allow something that it needs.
    Missing,
    /// The cluster has not said so yet.
    NotKnown,
    /// The configuration does without it, so the cluster is not asked.
    NotUsed,
}

impl ClusterFeature {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::ViewNodes,
        Self::ViewPods,
        Self::WatchPods,
        Self::ViewBudgets,
        Self::ViewDaemonSets,
        Self::ChangeNodes,
        Self::EvictPods,
        Self::DeletePods,
        Self::ReviewTokens,
        Self::ReviewAccess,
    ];

    /// Its name, in snake case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ViewNodes => "view_nodes",
            Self::ViewPods => "view_pods",
            Self::WatchPods => "watch_pods",
            Self::ViewBudgets => "view_disruption_budgets",
            Self::ViewDaemonSets => "view_daemon_sets",
            Self::ChangeNodes => "change_nodes",
            Self::EvictPods => "evict_pods",
            Self::DeletePods => "delete_pods",
            Self::ReviewTokens => "review_tokens",
            Self::ReviewAccess => "review_access",
        }
    }

    /// What the rules of the cluster must allow for it, in all namespaces: each of these.
    #[must_use]
    pub fn needs(self) -> &'static [KubernetesAction] {
        use KubernetesAction as Action;

        match self {
            Self::ViewNodes => {
                const {
                    &[
                        Action::core("get", "nodes"),
                        Action::core("list", "nodes"),
                        Action::core("watch", "nodes"),
                    ]
                }
            }
            Self::ViewPods => const { &[Action::core("list", "pods")] },
            Self::WatchPods => const { &[Action::core("watch", "pods")] },
            Self::ViewBudgets => const { &[Action::of("list", "policy", "poddisruptionbudgets")] },
            Self::ViewDaemonSets => const { &[Action::of("list", "apps", "daemonsets")] },
            Self::ChangeNodes => const { &[Action::core("patch", "nodes")] },
            Self::EvictPods => const { &[Action::core("create", "pods").part("eviction")] },
            Self::DeletePods => const { &[Action::core("delete", "pods")] },
            Self::ReviewTokens => const { &[Action::of("create", "authentication.k8s.io", "tokenreviews")] },
            Self::ReviewAccess => const { &[Action::of("create", "authorization.k8s.io", "subjectaccessreviews")] },
        }
    }

    /// The ClusterRole of the manifests that come with the service that allows what it needs.
    #[must_use]
    pub fn role(self) -> &'static str {
        match self {
            Self::ViewNodes | Self::ViewPods | Self::WatchPods | Self::ViewBudgets | Self::ViewDaemonSets => {
                "kube-node-manager-read"
            }
            Self::ChangeNodes => "kube-node-manager-change-nodes",
            Self::EvictPods => "kube-node-manager-evict-pods",
            Self::DeletePods => "kube-node-manager-delete-pods",
            Self::ReviewTokens | Self::ReviewAccess => "kube-node-manager-review-access",
        }
    }

    /// What does not work without it, as the end of a sentence about the service and a cluster.
    #[must_use]
    pub fn without(self) -> &'static str {
        match self {
            Self::ViewNodes => "it sees no nodes there",
            Self::ViewPods => "it can neither show pods nor drain nodes there",
            Self::WatchPods => "it does not know there what pods ask for and asks for the pods of each node by itself",
            Self::ViewBudgets => "it can neither tell there which disruption budgets protect pods nor drain nodes",
            Self::ViewDaemonSets => "it can neither tell there which DaemonSets exist nor drain nodes",
            Self::ChangeNodes => "it cannot label, taint, cordon, uncordon or drain nodes there",
            Self::EvictPods => "it cannot drain nodes there",
            Self::DeletePods => "it cannot drain nodes there with disable_eviction or after_deadline: force",
            Self::ReviewTokens => "nobody can sign in with a token of that cluster",
            Self::ReviewAccess => "nobody who signs in with a token of a cluster may do anything there",
        }
    }

    /// Says that `missing` of its needs is not allowed in a cluster, what does not work for that reason, and what would help.
    #[must_use]
    pub fn refusal(self, cluster: &ClusterName, missing: &[KubernetesAction]) -> String {
        let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
        format!(
            "the service may not {} in cluster {cluster}, so {}: bind the ClusterRole {} to its account",
            missing.join(", "),
            self.without(),
            self.role()
        )
    }

    /// Whether the configuration asks for it.
    #[must_use]
    pub fn is_used(self, used: ClusterUse) -> bool {
        match self {
            Self::WatchPods => used.watches_pods,
            Self::ReviewTokens => used.reviews_tokens,
            Self::ReviewAccess => used.reviews_access,
            Self::ViewNodes
            | Self::ViewPods
            | Self::ViewBudgets
            | Self::ViewDaemonSets
            | Self::ChangeNodes
            | Self::EvictPods
            | Self::DeletePods => true,
        }
    }

    /// The feature that needs this of the cluster's rules.
    #[must_use]
    pub fn that_needs(action: KubernetesAction) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.needs().contains(&action))
    }
}

impl KubernetesAction {
    /// What a request of this service needs of the cluster's rules, by its verb and its resource, as [`KubernetesAction::path`] writes it.
    /// `None` for what everybody may do.
    #[must_use]
    pub fn of_request(verb: &str, resource: &str) -> Option<Self> {
        let mut needs = ClusterFeature::ALL.into_iter().flat_map(ClusterFeature::needs);
        needs.find(|need| need.verb == verb && need.path() == resource).copied()
    }
}

impl FeatureStatus {
    /// What is missing in a cluster, see [`ClusterFeature::refusal`].
    #[must_use]
    pub fn refusal(&self, cluster: &ClusterName) -> String {
        self.feature.refusal(cluster, &self.missing)
    }
}

impl FeatureState {
    /// Its name, in snake case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Missing => "missing",
            Self::NotKnown => "not_known",
            Self::NotUsed => "not_used",
        }
    }
}
