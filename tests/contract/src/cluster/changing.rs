//! Changes of one node.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use knm_model::{CordonSource, HOLDS_ANNOTATION, Node, NodePatch, Taint, TaintEffect};
use knm_ports::{ClusterError, NodeEvent};

use super::ClusterFixture;
use super::samples::{node, node_name};

/// `node` MUST return the node as it is, and `None` if there is none.
pub async fn a_node_is_asked_for_by_its_name(fixture: &ClusterFixture) {
    fixture.driver.put_node(node("a")).await;

    let found = fixture.gateway.node(&node_name("a")).await.expect("a look-up");
    let absent = fixture.gateway.node(&node_name("b")).await.expect("a look-up");

    assert_eq!(found.map(|node| node.name), Some(node_name("a")));
    assert_eq!(absent, None);
}

/// `patch_node` MUST change nothing that the patch does not name.
pub async fn a_patch_changes_what_it_names_and_nothing_else(fixture: &ClusterFixture) {
    let mut given = node("a");
    given.labels.insert("keep".to_owned(), "1".to_owned());
    given.labels.insert("drop".to_owned(), "1".to_owned());
    given.taints = vec![taint("keep", "1", TaintEffect::NoSchedule)];
    fixture.driver.put_node(given).await;
    let before = current(fixture).await;

    let labels = [("drop", None), ("absent", None), ("new", Some(""))];
    let patch = NodePatch {
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.map(str::to_owned)))
            .into(),
        ..NodePatch::default()
    };
    let after = fixture
        .gateway
        .patch_node(&node_name("a"), &patch, false)
        .await
        .expect("a patch");

    let mut expected = before.labels.clone();
    expected.remove("drop");
    expected.insert("new".to_owned(), String::new());
    assert_eq!(after.labels, expected);
    assert_eq!((&after.taints, after.schedulable), (&before.taints, before.schedulable));
    assert_ne!(after.resource_version, before.resource_version);
    assert_eq!(current(fixture).await, after);

    let patch = NodePatch {
        resource_version: Some(after.resource_version.clone()),
        taints: Some(vec![
            taint("keep", "2", TaintEffect::NoSchedule),
            taint("keep", "", TaintEffect::NoExecute),
        ]),
        ..NodePatch::default()
    };
    let tainted = fixture
        .gateway
        .patch_node(&node_name("a"), &patch, false)
        .await
        .expect("a patch");
    let plain: Vec<_> = tainted
        .taints
        .iter()
        .map(|taint| (taint.value.as_str(), taint.effect))
        .collect();
    assert_eq!(plain, [("2", TaintEffect::NoSchedule), ("", TaintEffect::NoExecute)]);
    assert_eq!(tainted.labels, after.labels);
}

/// A cordon with a record is shown with it, and is gone with it.
pub async fn a_cordon_is_shown_with_the_holds_that_are_noted(fixture: &ClusterFixture) {
    fixture.driver.put_node(node("a")).await;
    let holds = r#"[{"by":"ann","reason":"disk","since":"2030-01-01T00:00:00Z"}]"#;
    let patch = NodePatch {
        annotations: BTreeMap::from([(HOLDS_ANNOTATION.to_owned(), Some(holds.to_owned()))]),
        schedulable: Some(false),
        ..NodePatch::default()
    };

    let held = fixture
        .gateway
        .patch_node(&node_name("a"), &patch, false)
        .await
        .expect("a patch");

    assert!(!held.schedulable);
    let cordon = held.cordon.expect("it is cordoned");
    assert_eq!(
        (cordon.source, cordon.by.as_deref()),
        (CordonSource::KubeNodeManager, Some("ann"))
    );
    assert_eq!(cordon.holds.len(), 1);

    let patch = NodePatch {
        annotations: BTreeMap::from([(HOLDS_ANNOTATION.to_owned(), None)]),
        schedulable: Some(true),
        ..NodePatch::default()
    };
    let free = fixture
        .gateway
        .patch_node(&node_name("a"), &patch, false)
        .await
        .expect("a patch");
    assert_eq!((free.schedulable, free.cordon), (true, None));
}

/// `patch_node` MUST return `NotFound` if there is no such node.
pub async fn a_patch_of_an_absent_node_is_not_found(fixture: &ClusterFixture) {
    for dry_run in [true, false] {
        let outcome = fixture.gateway.patch_node(&node_name("b"), &label("x"), dry_run).await;
        assert!(matches!(outcome, Err(ClusterError::NotFound { .. })), "{outcome:?}");
    }
}

/// `patch_node` MUST return `Conflict` and change nothing if the patch carries another resource version than the node.
pub async fn a_patch_of_another_version_is_a_conflict_and_changes_nothing(fixture: &ClusterFixture) {
    fixture.driver.put_node(node("a")).await;
    let version = current(fixture).await.resource_version;
    let changed = fixture
        .gateway
        .patch_node(&node_name("a"), &label("1"), false)
        .await
        .expect("a patch");

    for dry_run in [true, false] {
        let late = NodePatch {
            resource_version: Some(version.clone()),
            ..label("2")
        };
        let outcome = fixture.gateway.patch_node(&node_name("a"), &late, dry_run).await;
        assert!(matches!(outcome, Err(ClusterError::Conflict { .. })), "{outcome:?}");
    }
    assert_eq!(current(fixture).await, changed);
}

/// `patch_node` MUST change nothing with `dry_run`.
pub async fn a_dry_run_tells_what_would_come_and_changes_nothing(fixture: &ClusterFixture) {
    fixture.driver.put_node(node("a")).await;
    let before = current(fixture).await;

    let told = fixture
        .gateway
        .patch_node(&node_name("a"), &label("1"), true)
        .await
        .expect("a dry run");

    assert_eq!(told.labels.get("changed").map(String::as_str), Some("1"));
    assert_eq!(current(fixture).await, before);
}

/// `patch_node` MUST tell watchers of the change.
pub async fn a_patched_node_is_told_to_watchers(fixture: &ClusterFixture) {
    fixture.driver.put_node(node("a")).await;
    let mut events = fixture.gateway.watch_nodes();
    let first = events.next().await;
    assert!(matches!(first, Some(NodeEvent::Replaced(_))), "{first:?}");

    let changed = fixture
        .gateway
        .patch_node(&node_name("a"), &label("1"), false)
        .await
        .expect("a patch");

    let told = async {
        loop {
            match events.next().await {
                Some(NodeEvent::Applied(node)) if node.resource_version == changed.resource_version => break *node,
                Some(_) => {}
                None => unreachable!("a watch never ends"),
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(30), told)
        .await
        .expect("the change is told");
    assert_eq!(told.labels, changed.labels);
}

async fn current(fixture: &ClusterFixture) -> Node {
    let found = fixture.gateway.node(&node_name("a")).await.expect("a look-up");
    found.expect("the node is there")
}

fn label(value: &str) -> NodePatch {
    NodePatch {
        labels: BTreeMap::from([("changed".to_owned(), Some(value.to_owned()))]),
        ..NodePatch::default()
    }
}

fn taint(key: &str, value: &str, effect: TaintEffect) -> Taint {
    Taint {
        key: key.to_owned(),
        value: value.to_owned(),
        effect,
        added_at: None,
    }
}
