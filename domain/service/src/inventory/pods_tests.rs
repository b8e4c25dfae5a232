use std::collections::BTreeSet;
use std::time::Duration;

use knm_model::{
    Controller, NodeTerm, Operator, PodPhase, PodRequests, Requirement, TaintEffect, Timestamp, Toleration,
    TolerationOperator,
};
use proptest::prelude::*;

use super::*;

const NODES: [&str; 4] = ["a", "b", "c", "d"];

fn name(node: usize) -> NodeName {
    NodeName::parse(NODES[node]).unwrap()
}

/// A pod with nothing.
fn pod(number: u8, node: usize) -> Pod {
    Pod {
        namespace: "team".to_owned(),
        name: format!("web-{number:03}"),
        uid: format!("00000000-0000-4000-8000-{number:012}"),
        node: name(node),
        labels: BTreeMap::new(),
        phase: PodPhase::Running,
        ready: true,
        controller: None,
        requests: PodRequests::default(),
        created_at: None,
        deletion_at: None,
        deletion_grace: None,
        is_mirror: false,
        has_empty_dir: false,
        priority: 0,
        priority_class: None,
        node_selector: BTreeMap::new(),
        node_terms: None,
        tolerations: Vec::new(),
    }
}

fn time(text: &str) -> Option<Timestamp> {
    Some(Timestamp::parse(text).unwrap())
}

fn texts(texts: &[(&str, &str)]) -> BTreeMap<String, String> {
    texts
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// A pod with everything.
fn full(number: u8) -> Pod {
    Pod {
        labels: texts(&[("app", "web"), ("tier", "")]),
        phase: PodPhase::Unknown,
        ready: false,
        controller: Some(Controller {
            api_version: "apps/v1".to_owned(),
            kind: "ReplicaSet".to_owned(),
            name: "web-5c9f".to_owned(),
        }),
        requests: PodRequests {
            cpu_millicores: 250,
            memory_bytes: 1 << 28,
            ephemeral_storage_bytes: 7,
            extended: BTreeMap::from([("nvidia.com/gpu".to_owned(), 2)]),
        },
        created_at: time("2030-01-01T00:00:00.000000001Z"),
        deletion_at: time("2030-01-02T00:00:00Z"),
        deletion_grace: Some(Duration::from_secs(30)),
        is_mirror: true,
        has_empty_dir: true,
        priority: -10,
        priority_class: Some("preemptible".to_owned()),
        node_selector: texts(&[("pool", "gpu")]),
        node_terms: Some(vec![NodeTerm {
            labels: Vec::new(),
            fields: vec![Requirement {
                key: "metadata.name".to_owned(),
                operator: Operator::In(BTreeSet::from(["a".to_owned()])),
            }],
        }]),
        tolerations: vec![Toleration {
            key: "gpu".to_owned(),
            operator: TolerationOperator::Equal("yes".to_owned()),
            effect: Some(TaintEffect::NoExecute),
        }],
        ..pod(number, 0)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Box<Pod>),
    Delete(u8),
    Begin,
    Complete,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let phases = prop_oneof![Just(PodPhase::Running), Just(PodPhase::Pending), Just(PodPhase::Failed)];
    let pods = (0..40_u8, 0..NODES.len(), phases, 0..3_u64).prop_map(|(number, node, phase, cpus)| Pod {
        phase,
        requests: PodRequests {
            cpu_millicores: cpus,
            extended: BTreeMap::from([("gpu".to_owned(), cpus)]),
            ..PodRequests::default()
        },
        ..pod(number, node)
    });
    let step = prop_oneof![
        60 => pods.prop_map(|pod| Step::Apply(Box::new(pod))),
        20 => (0..40_u8).prop_map(Step::Delete),
        1 => Just(Step::Begin),
        1 => Just(Step::Complete),
    ];
    proptest::collection::vec(step, 0..300)
}

/// What a plain map says.
fn plain_sum(pods: &BTreeMap<String, (Pod, u32)>, node: &NodeName) -> Resources {
    let mut sum = Resources::default();
    for (pod, _) in pods.values().filter(|(pod, _)| pod.node == *node && !pod.is_finished()) {
        sum.add(&Resources::of_pod(&pod.requests));
    }
    sum
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn folding_events_gives_what_a_plain_map_gives(steps in steps()) {
        let mut index = PodIndex::default();
        let mut plain: BTreeMap<String, (Pod, u32)> = BTreeMap::new();
        let mut list = 0;
        for step in steps {
            let before = NODES.map(|node| plain_sum(&plain, &NodeName::parse(node).unwrap()));
            let revision = index.revision();
            match step {
                Step::Apply(pod) => {
                    plain.insert(pod.uid.clone(), (pod.as_ref().clone(), list));
                    index.apply(*pod);
                }
                Step::Delete(number) => {
                    let uid = pod(number, 0).uid;
                    plain.remove(&uid);
                    index.delete(&uid);
                }
                Step::Begin => {
                    list += 1;
                    index.begin();
                }
                Step::Complete => {
                    plain.retain(|_, (_, seen)| *seen == list);
                    index.complete();
                }
            }
            let after = NODES.map(|node| plain_sum(&plain, &NodeName::parse(node).unwrap()));
            prop_assert!(before == after || revision != index.revision());
            prop_assert_eq!(index.len(), plain.len());
        }
        let all = index.requested_by_node();
        for node in 0..NODES.len() {
            let node = name(node);
            let mut wanted: Vec<Pod> = plain.values().map(|(pod, _)| pod.clone()).filter(|pod| pod.node == node).collect();
            wanted.sort_by(|one, other| one.name.cmp(&other.name));
            prop_assert_eq!(index.on_node(&node), wanted);
            let sum = plain_sum(&plain, &node);
            prop_assert_eq!(index.requested(&node).cloned().unwrap_or_default(), sum.clone());
            prop_assert_eq!(all.get(&node).cloned().unwrap_or_default(), sum);
        }
    }
}

#[test]
fn a_pod_is_told_as_it_came() {
    let mut index = PodIndex::default();
    let odd = Pod {
        // Not as a UUID is written.
        uid: "00000000-0000-4000-8000-00000000000A".to_owned(),
        name: "odd".to_owned(),
        ..full(0)
    };
    let given = [odd, full(1), full(2), pod(3, 0)];
    for pod in given.clone() {
        index.apply(pod);
    }
    assert_eq!(index.on_node(&name(0)), given);
}

#[test]
fn a_pod_that_changes_nothing_of_the_sums_is_no_revision() {
    let mut index = PodIndex::default();
    index.apply(full(1));
    let before = index.revision();

    index.apply(Pod { ready: true, ..full(1) });
    index.delete("unknown");
    assert_eq!(index.revision(), before);

    index.apply(Pod {
        phase: PodPhase::Succeeded,
        ..full(1)
    });
    assert_ne!(index.revision(), before);
    assert_eq!(index.requested(&name(0)), Some(&Resources::default()));
}

#[test]
fn what_no_pod_uses_any_more_is_let_go() {
    let mut index = PodIndex::default();
    for generation in 0..2_000 {
        let replica_set = format!("web-{generation}");
        let labels = texts(&[("app", "web"), ("pod-template-hash", &generation.to_string())]);
        for number in 0..3 {
            index.apply(Pod {
                labels: labels.clone(),
                controller: Some(Controller {
                    name: replica_set.clone(),
                    ..full(0).controller.unwrap()
                }),
                ..full(number)
            });
        }
    }
    assert_eq!(index.len(), 3);
    assert!(index.pools.len() < 500, "{} values are kept", index.pools.len());
}
