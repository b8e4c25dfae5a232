//! What the cluster lets the service do.

use std::collections::BTreeSet;
use std::time::Duration;

use knm_model::{ClusterFeature, KubernetesAction, NodePatch};
use knm_ports::{ClusterError, EvictOptions, PodRef};

use super::ClusterFixture;
use super::samples::{node, node_name};

const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// What is asked of a cluster about people, by another port.
const OF_PEOPLE: [ClusterFeature; 2] = [ClusterFeature::ReviewTokens, ClusterFeature::ReviewAccess];

/// `may` tells what the cluster allows.
pub async fn what_the_cluster_allows_may_be_done(fixture: &ClusterFixture) {
    for feature in features() {
        for action in feature.needs() {
            assert!(may(fixture, action).await, "{action}");
        }
    }
}

/// `may` MUST return `false` for what the cluster does not allow. A cluster MUST name in `Forbidden` what its rules do not allow.
pub async fn what_the_cluster_withholds_is_told_and_named_when_it_is_tried(fixture: &ClusterFixture) {
    fixture.driver.put_node(node("a")).await;
    let mut withheld = BTreeSet::new();
    for feature in features() {
        fixture.driver.withhold(feature).await;
        withheld.insert(feature);
        let learning = async {
            while may(fixture, &feature.needs()[0]).await {
                tokio::time::sleep(BETWEEN_LOOKS).await;
            }
        };
        tokio::time::timeout(PATIENCE, learning)
            .await
            .expect("the cluster learns of it");
        for other in features().filter(|other| !withheld.contains(other)) {
            for action in other.needs() {
                assert!(may(fixture, action).await, "{action}");
            }
        }
        if let Some(refused) = tried(fixture, feature).await {
            let mut named = None;
            if let ClusterError::Forbidden { action, .. } = &refused {
                named = action.and_then(ClusterFeature::that_needs);
            }
            assert_eq!(named, Some(feature), "{refused:?}");
        }
    }
}

fn features() -> impl Iterator<Item = ClusterFeature> {
    let all = ClusterFeature::ALL.into_iter();
    all.filter(|feature| !OF_PEOPLE.contains(feature))
}

async fn may(fixture: &ClusterFixture, action: &KubernetesAction) -> bool {
    fixture.gateway.may(action).await.expect("an answer")
}

/// What comes of one of the requests of a feature; `None`: it is a watch, which tells that in its own way.
async fn tried(fixture: &ClusterFixture, feature: ClusterFeature) -> Option<ClusterError> {
    let (gateway, name) = (&fixture.gateway, node_name("a"));
    let pod = PodRef {
        namespace: "default".to_owned(),
        name: "web-1".to_owned(),
        uid: "11111111-2222-3333-4444-555555555555".to_owned(),
    };
    let options = EvictOptions::default();
    let outcome = match feature {
        ClusterFeature::ViewNodes => gateway.node(&name).await.map(|_| ()),
        ClusterFeature::ViewPods => gateway.pods_on_node(&name).await.map(|_| ()),
        ClusterFeature::ViewBudgets => gateway.disruption_budgets().await.map(|_| ()),
        ClusterFeature::ViewDaemonSets => gateway.daemon_sets().await.map(|_| ()),
        ClusterFeature::ChangeNodes => {
            let patch = NodePatch {
                schedulable: Some(false),
                ..NodePatch::default()
            };
            gateway.patch_node(&name, &patch, false).await.map(|_| ())
        }
        ClusterFeature::EvictPods => gateway.evict(&pod, &options).await.map(|_| ()),
        ClusterFeature::DeletePods => gateway.delete_pod(&pod, &options).await.map(|_| ()),
        ClusterFeature::WatchPods | ClusterFeature::ReviewTokens | ClusterFeature::ReviewAccess => return None,
    };
    Some(outcome.expect_err("it is forbidden"))
}
