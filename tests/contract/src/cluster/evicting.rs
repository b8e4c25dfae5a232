//! Evictions, and what is asked before them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use knm_model::{
    Controller, DisruptionBudget, NodeTerm, ObjectName, Operator, Pod, PodPhase, Requirement, Selector, TaintEffect,
    Toleration, TolerationOperator,
};
use knm_ports::{EvictOptions, Eviction, PodRef};

use super::ClusterFixture;
use super::samples::{budget, node, node_name, pod};

/// `pods_on_node` tells of each pod what decides about its removal and its next place.
pub async fn a_pod_is_told_with_what_a_drain_decides_by(fixture: &ClusterFixture) {
    fixture.driver.put_node(node("a")).await;
    let requirement = |key: &str, operator| Requirement {
        key: key.to_owned(),
        operator,
    };
    let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<BTreeSet<_>>();
    let given = Pod {
        controller: Some(Controller {
            api_version: "apps/v1".to_owned(),
            kind: "DaemonSet".to_owned(),
            name: "agent".to_owned(),
        }),
        is_mirror: true,
        has_empty_dir: true,
        priority: 2_000_000_000,
        priority_class: Some("system-cluster-critical".to_owned()),
        node_selector: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
        node_terms: Some(vec![
            NodeTerm {
                labels: vec![
                    requirement("zone", Operator::In(values(&["a", "b"]))),
                    requirement("pool", Operator::NotIn(values(&["c"]))),
                    requirement("gpu", Operator::Exists),
                    requirement("old", Operator::DoesNotExist),
                    requirement("cores", Operator::GreaterThan(4)),
                    requirement("age", Operator::LessThan(9)),
                ],
                fields: Vec::new(),
            },
            NodeTerm {
                labels: Vec::new(),
                fields: vec![requirement("metadata.name", Operator::In(values(&["a"])))],
            },
        ]),
        tolerations: vec![
            Toleration {
                key: "dedicated".to_owned(),
                operator: TolerationOperator::Equal("gpu".to_owned()),
                effect: Some(TaintEffect::NoSchedule),
            },
            Toleration {
                key: "disk".to_owned(),
                operator: TolerationOperator::Exists,
                effect: None,
            },
        ],
        ..pod("team-a", "agent-1", "a")
    };
    fixture.driver.put_pod(given.clone()).await;
    fixture.driver.put_pod(pod("team-a", "plain", "a")).await;

    let pods = fixture.gateway.pods_on_node(&node_name("a")).await.expect("the pods");

    let [told, plain] = pods.as_slice() else {
        unreachable!("{pods:?} instead of two pods");
    };
    assert_eq!(told.controller, given.controller);
    assert_eq!((told.is_mirror, told.has_empty_dir), (true, true));
    assert_eq!(
        (told.priority, &told.priority_class),
        (given.priority, &given.priority_class)
    );
    assert_eq!(told.node_selector, given.node_selector);
    assert_eq!(told.node_terms, given.node_terms);
    // The cluster adds some of its own.
    for toleration in &given.tolerations {
        assert!(told.tolerations.contains(toleration), "{:?}", told.tolerations);
    }
    assert_eq!((plain.is_mirror, plain.has_empty_dir), (false, false));
    assert_eq!((&plain.controller, &plain.node_terms), (&None, &None));
    assert_eq!((plain.priority, &plain.priority_class), (0, &None));
}

/// `daemon_sets` tells all of them.
pub async fn all_daemon_sets_are_told(fixture: &ClusterFixture) {
    let names = [("team-b", "agent"), ("team-a", "agent"), ("team-a", "logs")];
    let names = names.map(|(namespace, name)| ObjectName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    });
    for name in &names {
        fixture.driver.put_daemon_set(name.clone()).await;
    }

    let told = fixture.gateway.daemon_sets().await.expect("the daemon sets");

    assert_eq!(told, BTreeSet::from(names));
}

/// `evict` MUST leave a pod with another UID alone and return `Replaced`.
pub async fn an_eviction_of_another_uid_evicts_nobody(fixture: &ClusterFixture) {
    let told = running(fixture, "web-1").await;
    let another = PodRef {
        uid: "99999999-2222-3333-4444-555555555555".to_owned(),
        ..of(&told)
    };

    let answer = evict(fixture, &another, &EvictOptions::default()).await;

    assert_eq!(answer, Eviction::Replaced);
    assert_eq!(current(fixture, "web-1").await, Some(told));
}

/// `evict` MUST return `Gone` if there is no pod under this name.
pub async fn an_eviction_of_an_absent_pod_finds_it_gone(fixture: &ClusterFixture) {
    let told = running(fixture, "web-1").await;
    let absent = PodRef {
        name: "web-2".to_owned(),
        ..of(&told)
    };
    for dry_run in [true, false] {
        let options = EvictOptions {
            dry_run,
            ..EvictOptions::default()
        };
        assert_eq!(evict(fixture, &absent, &options).await, Eviction::Gone);
    }
}

/// `evict` MUST give the pod the grace period that was asked for, or its own if none was.
pub async fn an_evicted_pod_gets_the_grace_period_that_was_asked_for(fixture: &ClusterFixture) {
    for (name, asked, expected) in [("web-1", Some(7), 7), ("web-2", None, 30)] {
        let told = running(fixture, name).await;
        let options = EvictOptions {
            grace_period_seconds: asked,
            dry_run: false,
        };

        assert_eq!(evict(fixture, &of(&told), &options).await, Eviction::Accepted);

        let left = current(fixture, name).await.expect("nobody ended it yet");
        assert!(left.is_terminating());
        assert_eq!(left.deletion_grace, Some(Duration::from_secs(expected)));
    }
}

/// `evict` MUST return `Blocked` with the name of the budget that has no room, and leave the pod alone.
pub async fn a_budget_without_room_blocks_and_is_named(fixture: &ClusterFixture) {
    let told = running(fixture, "web-1").await;
    fixture.driver.put_budget(with_room("web", 0)).await;

    let answer = evict(fixture, &of(&told), &EvictOptions::default()).await;

    assert!(
        matches!(&answer, Eviction::Blocked { budget: Some(name), .. } if name == "web"),
        "{answer:?}"
    );
    assert_eq!(current(fixture, "web-1").await, Some(told));
}

/// `evict` MUST return `SeveralBudgets` if several budgets match the pod, and leave the pod alone.
pub async fn a_pod_that_several_budgets_match_is_never_evicted(fixture: &ClusterFixture) {
    let told = running(fixture, "web-1").await;
    for name in ["web", "all"] {
        fixture.driver.put_budget(with_room(name, 5)).await;
    }

    let answer = evict(fixture, &of(&told), &EvictOptions::default()).await;

    assert!(matches!(answer, Eviction::SeveralBudgets { .. }), "{answer:?}");
    assert_eq!(current(fixture, "web-1").await, Some(told));
}

/// `evict` MUST use room of a budget up with each pod that it protects, and none with pods outside of budgets.
pub async fn each_eviction_uses_up_room_of_its_budget(fixture: &ClusterFixture) {
    let first = running(fixture, "web-1").await;
    let second = running(fixture, "web-2").await;
    fixture.driver.put_pod(protected("web-3")).await;
    let pending = current(fixture, "web-3").await.expect("it is there");
    fixture.driver.put_budget(with_room("web", 1)).await;
    let options = EvictOptions::default();

    assert_eq!(evict(fixture, &of(&pending), &options).await, Eviction::Accepted);
    assert_eq!(evict(fixture, &of(&first), &options).await, Eviction::Accepted);
    let answer = evict(fixture, &of(&second), &options).await;

    assert!(matches!(answer, Eviction::Blocked { .. }), "{answer:?}");
    let budgets = fixture.gateway.disruption_budgets().await.expect("the budgets");
    assert_eq!(budgets[0].disruptions_allowed, 0);
}

/// `evict` MUST change nothing with `dry_run`.
pub async fn a_dry_run_of_an_eviction_changes_nothing(fixture: &ClusterFixture) {
    let told = running(fixture, "web-1").await;
    fixture.driver.put_budget(with_room("web", 1)).await;
    let dry = EvictOptions {
        dry_run: true,
        ..EvictOptions::default()
    };
    for _ in 0..3 {
        assert_eq!(evict(fixture, &of(&told), &dry).await, Eviction::Accepted);
    }

    assert_eq!(current(fixture, "web-1").await, Some(told.clone()));
    let answer = evict(fixture, &of(&told), &EvictOptions::default()).await;
    assert_eq!(answer, Eviction::Accepted);
}

/// A pod on node `a` that runs and is ready, as the gateway tells it.
pub(super) async fn running(fixture: &ClusterFixture, name: &str) -> Pod {
    fixture.driver.put_node(node("a")).await;
    let given = Pod {
        phase: PodPhase::Running,
        ready: true,
        ..protected(name)
    };
    fixture.driver.put_pod(given).await;
    current(fixture, name).await.expect("it is there")
}

/// A pod on node `a` that [`with_room`] matches.
fn protected(name: &str) -> Pod {
    Pod {
        labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        ..pod("team-a", name, "a")
    }
}

pub(super) async fn current(fixture: &ClusterFixture, name: &str) -> Option<Pod> {
    let pods = fixture.gateway.pods_on_node(&node_name("a")).await.expect("the pods");
    pods.into_iter().find(|pod| pod.name == name)
}

async fn evict(fixture: &ClusterFixture, pod: &PodRef, options: &EvictOptions) -> Eviction {
    fixture.gateway.evict(pod, options).await.expect("an answer")
}

pub(super) fn of(pod: &Pod) -> PodRef {
    PodRef {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
    }
}

/// A budget that allows so many disruptions.
pub(super) fn with_room(name: &str, disruptions_allowed: u32) -> DisruptionBudget {
    let web = Selector::new(vec![Requirement {
        key: "app".to_owned(),
        operator: Operator::In(BTreeSet::from(["web".to_owned()])),
    }]);
    DisruptionBudget {
        disruptions_allowed,
        ..budget("team-a", name, Some(web))
    }
}
