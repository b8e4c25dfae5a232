use std::collections::BTreeMap;

use knm_model::{NodeName, NodeStatus, NodeSystem, Resources, Timestamp};
use proptest::prelude::*;

use super::*;

fn node(number: u16, version: u8) -> Node {
    Node {
        name: NodeName::parse(&format!("node-{number}")).unwrap(),
        uid: number.to_string(),
        resource_version: version.to_string(),
        created_at: Timestamp::from_unix_millis(0).unwrap(),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        schedulable: true,
        cordon: None,
        status: NodeStatus::Ready,
        conditions: Vec::new(),
        addresses: Vec::new(),
        capacity: Resources::default(),
        allocatable: Resources::default(),
        system: NodeSystem::default(),
        zone: None,
        region: None,
        instance_type: None,
        provider_id: None,
        pod_cidrs: Vec::new(),
    }
}

fn index() -> NodeIndex {
    NodeIndex::new(ClusterName::parse("test").unwrap())
}

#[derive(Clone, Debug)]
enum Step {
    Apply(u16, u8),
    Delete(u16),
    Replace(Vec<(u16, u8)>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let apply = (0..400_u16, 0..3_u8).prop_map(|(number, version)| Step::Apply(number, version));
    let delete = (0..400_u16).prop_map(Step::Delete);
    let replace = proptest::collection::vec((0..400_u16, 0..3_u8), 0..300).prop_map(Step::Replace);
    let step = prop_oneof![60 => apply, 30 => delete, 1 => replace];
    proptest::collection::vec(step, 0..400)
}

/// Does to a plain map what `change` says.
fn follow(map: &mut BTreeMap<String, Node>, change: &ChangeKind) {
    match change {
        ChangeKind::Added(entry) => {
            let before = map.insert(entry.node().name.to_string(), entry.node().clone());
            assert_eq!(before, None, "added although it was known");
        }
        ChangeKind::Modified(entry) => {
            let before = map.insert(entry.node().name.to_string(), entry.node().clone());
            assert!(before.is_some_and(|before| before != *entry.node()));
        }
        ChangeKind::Deleted(entry) => {
            assert_eq!(map.remove(entry.node().name.as_str()).as_ref(), Some(entry.node()));
        }
        ChangeKind::Stale { .. } | ChangeKind::Fresh => panic!("an index knows no staleness"),
    }
}

fn content(index: &NodeIndex) -> Vec<Node> {
    let entries = index.blocks().iter().flat_map(|block| block.entries());
    entries.map(|entry| entry.node().clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

    #[test]
    fn folding_events_gives_what_a_plain_map_gives(steps in steps()) {
        let mut index = index();
        let (mut plain, mut followed) = (BTreeMap::new(), BTreeMap::new());
        for step in steps {
            let changes: Vec<_> = match step {
                Step::Apply(number, version) => {
                    plain.insert(node(number, 0).name.to_string(), node(number, version));
                    index.apply(node(number, version)).into_iter().collect()
                }
                Step::Delete(number) => {
                    let name = node(number, 0).name;
                    plain.remove(name.as_str());
                    index.delete(name.as_str()).into_iter().collect()
                }
                Step::Replace(nodes) => {
                    let nodes: Vec<_> = nodes.into_iter().map(|(number, version)| node(number, version)).collect();
                    plain = nodes.iter().map(|node| (node.name.to_string(), node.clone())).collect();
                    index.replace(nodes)
                }
            };
            for change in &changes {
                follow(&mut followed, change);
            }
            let wanted: Vec<_> = plain.values().cloned().collect();
            prop_assert_eq!(content(&index), wanted);
            prop_assert_eq!(&plain, &followed);
            prop_assert!(index.blocks().iter().all(|block| (1..=MOST).contains(&block.entries().len())));
        }
    }

    #[test]
    fn a_change_leaves_all_but_few_blocks_shared(number in 0..1000_u16, kind in 0..3) {
        let mut index = index();
        index.replace((0..500).map(|number| node(number * 2, 0)).collect());
        let before = index.blocks().to_vec();
        match kind {
            0 => drop(index.delete(node(number, 0).name.as_str())),
            1 => drop(index.apply(node(number, 1))),
            _ => drop(index.apply(node(number, 0))),
        }
        let shared = |block: &&Arc<Block>| before.iter().any(|old| Arc::ptr_eq(old, block));
        let replaced = index.blocks().iter().filter(|block| !shared(block)).count();
        // One that changed, or the two halves of one that was cut.
        prop_assert!(replaced <= 2, "{replaced} of {} blocks are new", index.blocks().len());
    }
}

#[test]
fn a_node_that_is_told_as_it_is_known_changes_nothing() {
    let mut index = index();
    index.replace(vec![node(1, 1), node(2, 1)]);
    let before = index.blocks().to_vec();

    assert!(index.apply(node(1, 1)).is_none());
    assert!(index.replace(vec![node(2, 1), node(1, 1)]).is_empty());

    assert!(Arc::ptr_eq(&before[0], &index.blocks()[0]));
}

#[test]
fn blocks_that_shrink_are_joined() {
    let mut index = index();
    index.replace((0..640).map(|number| node(number, 0)).collect());
    for number in 0..630 {
        index.delete(node(number, 0).name.as_str());
    }
    assert_eq!((index.len(), index.blocks().len()), (10, 1));
}
