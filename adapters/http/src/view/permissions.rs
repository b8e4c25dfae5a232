//! What a cluster lets this service do.

use knm_domain::PermissionsStatus;
use knm_model::{FeatureState, FeatureStatus, KubernetesAction};
use poem_openapi::{Enum, Object};
use serde::Serialize;

/// What a cluster lets this service do, as far as the service is configured to do it.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "ClusterPermissions")]
pub(crate) struct PermissionsView {
    /// When the cluster last answered all questions about that, RFC 3339 in UTC; null if it never did. It is asked at start, every five minutes,
    /// and soon after it forbade something; besides, every minute about what is missing, for ten minutes.
    checked_at: Option<String>,
    /// Why it did not answer them the last time, a sentence; null if it did. What is told here is as old as `checked_at` then.
    reason: Option<String>,
    /// What the service does with a cluster.
    features: Vec<FeatureView>,
}

/// Something that the service does with a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "ClusterFeature")]
struct FeatureView {
    /// Its name, in snake case.
    feature: String,
    /// Whether it can be used.
    state: FeatureStateView,
    /// What the rules of the cluster must allow for it, in all namespaces: verb, resource and API group.
    needs: Vec<String>,
    /// Those of them that the cluster does not allow.
    missing: Vec<String>,
    /// The ClusterRole of the manifests that come with this service that allows them.
    role: String,
    /// What does not work without them, as the end of a sentence about the service.
    without: String,
}

/// Whether something can be done with a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[oai(rename = "ClusterFeatureState", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum FeatureStateView {
    /// The cluster allows all that it needs.
    Available,
    /// The cluster does not allow something that it needs.
    Missing,
    /// The cluster has not said so yet.
    NotKnown,
    /// The configuration does without it, so the cluster is not asked.
    NotUsed,
}

impl PermissionsView {
    pub(crate) fn of(permissions: &PermissionsStatus) -> Self {
        Self {
            checked_at: permissions.checked_at.map(|time| time.to_string()),
            reason: permissions.reason.map(|reason| reason.sentence().to_owned()),
            features: permissions.features.iter().map(FeatureView::of).collect(),
        }
    }
}

impl FeatureView {
    fn of(status: &FeatureStatus) -> Self {
        let words = |actions: &[KubernetesAction]| actions.iter().map(ToString::to_string).collect();
        let feature = status.feature;
        Self {
            feature: feature.as_str().to_owned(),
            state: match status.state {
                FeatureState::Available => FeatureStateView::Available,
                FeatureState::Missing => FeatureStateView::Missing,
                FeatureState::NotKnown => FeatureStateView::NotKnown,
                FeatureState::NotUsed => FeatureStateView::NotUsed,
            },
            needs: words(feature.needs()),
            missing: words(&status.missing),
            role: feature.role().to_owned(),
            without: feature.without().to_owned(),
        }
    }
}
