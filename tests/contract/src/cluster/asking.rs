//! What is asked at one moment: pods, budgets, the version.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use knm_model::{ClusterFeature, Controller, Operator, PodRequests, Requirement, Selector};
use knm_ports::{EvictOptions, PodRef};

use super::ClusterFixture;
use super::samples::{budget, node, node_name, pod};

/// How long a cluster may take to tell everybody the same.
const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// `pods_on_node` is sorted by namespace and name, and tells no pods of other nodes.
pub async fn pods_are_sorted_by_namespace_and_name(fixture: &ClusterFixture) {
    for name in ["a", "b"] {
        fixture.driver.put_node(node(name)).await;
    }
    for (namespace, name, node) in [
        ("team-b", "web-1", "a"),
        ("team-a", "web-2", "a"),
        ("team-a", "web-10", "a"),
        ("team-a", "web-3", "b"),
    ] {
        fixture.driver.put_pod(pod(namespace, name, node)).await;
    }

    let pods = fixture.gateway.pods_on_node(&node_name("a")).await.expect("the pods");

    let names: Vec<(&str, &str)> = pods
        .iter()
        .map(|pod| (pod.namespace.as_str(), pod.name.as_str()))
        .collect();
    assert_eq!(names, [("team-a", "web-10"), ("team-a", "web-2"), ("team-b", "web-1")]);
    assert!(pods.iter().all(|pod| pod.node == node_name("a")));
}

/// `pods_on_node` tells of each pod what an operator needs to know.
pub async fn a_pod_is_told_with_what_it_asks_for_and_who_controls_it(fixture: &ClusterFixture) {
    fixture.driver.put_node(node("a")).await;
    let mut given = pod("team-a", "web-1", "a");
    given.labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    given.controller = Some(Controller {
        api_version: "apps/v1".to_owned(),
        kind: "ReplicaSet".to_owned(),
        name: "web".to_owned(),
    });
    given.requests = PodRequests {
        cpu_millicores: 250,
        memory_bytes: 64 << 20,
        ephemeral_storage_bytes: 1 << 20,
        extended: BTreeMap::new(),
    };
    fixture.driver.put_pod(given.clone()).await;

    let pods = fixture.gateway.pods_on_node(&given.node).await.expect("the pods");

    let [told] = pods.as_slice() else {
        unreachable!("{pods:?} instead of one pod");
    };
    assert_eq!(told.labels, given.labels);
    assert_eq!(told.controller, given.controller);
    assert_eq!(told.requests, given.requests);
    assert_eq!(told.deletion_at, None);
    assert!(!told.uid.is_empty());
}

/// `pods_on_node` MUST return an empty list for a node without pods and for a node that does not exist.
pub async fn a_node_without_pods_and_an_unknown_node_have_none(fixture: &ClusterFixture) {
    for name in ["empty", "full"] {
        fixture.driver.put_node(node(name)).await;
    }
    fixture.driver.put_pod(pod("team-a", "web-1", "full")).await;
    for name in ["empty", "unknown"] {
        let pods = fixture.gateway.pods_on_node(&node_name(name)).await.expect("a list");
        assert_eq!(pods, [], "{name}");
    }
}

/// `recent_pods_on_node` MUST tell what `pods_on_node` tells once that is a moment old.
pub async fn recent_pods_are_those_of_a_moment_ago(fixture: &ClusterFixture) {
    for name in ["a", "b"] {
        fixture.driver.put_node(node(name)).await;
    }
    for (name, node) in [("web-2", "a"), ("web-1", "a"), ("web-3", "b")] {
        fixture.driver.put_pod(pod("team-a", name, node)).await;
    }
    let now = fixture.gateway.pods_on_node(&node_name("a")).await.expect("the pods");
    let catching_up = async {
        while fixture
            .gateway
            .recent_pods_on_node(&node_name("a"))
            .await
            .expect("pods")
            != now
        {
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    };
    tokio::time::timeout(PATIENCE, catching_up)
        .await
        .expect("the same pods");
    assert_eq!(now.len(), 2);
}

/// `disruption_budgets` is sorted by namespace and name, and no selector matches nothing. MUST work on clusters that only know
/// `policy/v1beta1`.
pub async fn budgets_are_sorted_and_match_as_their_selector_says(fixture: &ClusterFixture) {
    let web = Selector::new(vec![Requirement {
        key: "app".to_owned(),
        operator: Operator::In(BTreeSet::from(["web".to_owned(), "shop".to_owned()])),
    }]);
    let no_jobs = Selector::new(vec![
        Requirement {
            key: "job".to_owned(),
            operator: Operator::DoesNotExist,
        },
        Requirement {
            key: "app".to_owned(),
            operator: Operator::Exists,
        },
    ]);
    for given in [
        budget("team-b", "web", Some(web.clone())),
        budget("team-a", "web", Some(web)),
        budget("team-a", "no-jobs", Some(no_jobs)),
        budget("team-a", "none", None),
    ] {
        fixture.driver.put_budget(given).await;
    }

    let budgets = fixture.gateway.disruption_budgets().await.expect("the budgets");

    let names: Vec<(&str, &str)> = budgets
        .iter()
        .map(|one| (one.namespace.as_str(), one.name.as_str()))
        .collect();
    assert_eq!(
        names,
        [
            ("team-a", "no-jobs"),
            ("team-a", "none"),
            ("team-a", "web"),
            ("team-b", "web")
        ]
    );
    let mut pod = pod("team-a", "web-1", "a");
    pod.labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    let matching: Vec<&str> = budgets
        .iter()
        .filter(|one| one.matches(&pod))
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(matching, ["no-jobs", "web"]);
    let web = &budgets[2];
    assert_eq!(
        (
            web.disruptions_allowed,
            web.current_healthy,
            web.desired_healthy,
            web.expected_pods
        ),
        (1, 3, 2, 4)
    );
}

/// `server_version` tells it as `v1.36.0`.
pub async fn the_version_of_the_server_is_told(fixture: &ClusterFixture) {
    let version = fixture.gateway.server_version().await.expect("a version");
    let parts: Vec<&str> = version
        .strip_prefix('v')
        .expect("it starts with v")
        .split('.')
        .collect();
    assert!(
        2 < parts.len() && parts[0] == "1" && parts[1].parse::<u32>().is_ok(),
        "{version}"
    );
}

/// A cluster that cannot be reached is an error that may pass, for each question.
pub async fn asking_a_lost_cluster_is_a_transient_error(fixture: &ClusterFixture) {
    fixture.driver.put_node(node("a")).await;
    fixture.driver.lose().await;

    let pods = fixture.gateway.pods_on_node(&node_name("a")).await.map(|_| ());
    let budgets = fixture.gateway.disruption_budgets().await.map(|_| ());
    let version = fixture.gateway.server_version().await.map(|_| ());
    let daemon_sets = fixture.gateway.daemon_sets().await.map(|_| ());
    let absent = PodRef {
        namespace: "team-a".to_owned(),
        name: "web-1".to_owned(),
        uid: "u".to_owned(),
    };
    let evicted = fixture
        .gateway
        .evict(&absent, &EvictOptions::default())
        .await
        .map(|_| ());
    let may = fixture
        .gateway
        .may(&ClusterFeature::EvictPods.needs()[0])
        .await
        .map(|_| ());
    for answer in [pods, budgets, version, daemon_sets, evicted, may] {
        let error = answer.expect_err("nobody is there to answer");
        assert!(error.is_transient(), "{error:?}");
    }

    fixture.driver.recover().await;
    let pods = fixture.gateway.pods_on_node(&node_name("a")).await.expect("it is back");
    assert_eq!(pods, []);
}
