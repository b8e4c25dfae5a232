//! Operations for callers who may not see everything.

use std::sync::Arc;
use std::time::Duration;

use knm_domain::{Asker, OperationError};
use knm_model::{
    Access, ClusterName, Grant, OperationFilter, OperationKind, Permission, Permissions, Selector, TargetState, Wish,
};
use serde_json::json;

use crate::nodes::node;
use crate::stage::{Stage, asker, budget, pod, request};

fn access(permissions: &[Permission], cluster: &str) -> Access {
    Access::new(vec![Grant {
        permissions: Permissions::of(permissions),
        clusters: Some([ClusterName::from_any(cluster)].into()),
        nodes: None,
    }])
}

fn somebody(access: Access) -> Asker {
    let mut asker = asker();
    asker.caller.access = Arc::new(access);
    asker
}

#[tokio::test(start_paused = true)]
async fn a_page_looks_at_a_hundred_operations_whatever_its_limit() {
    let stage = Stage::with_two(&["a"], &["x"]).await;
    let label = || request(OperationKind::Label, &["a"], json!({"set": {"k": "v"}}));
    let mut elsewhere = request(OperationKind::Label, &["x"], json!({"set": {"k": "v"}}));
    elsewhere.targets[0].cluster = "other".to_owned();
    let first = stage.accept(elsewhere).await.unwrap().operation.id;
    for _ in 0..150 {
        stage.accept(label()).await.unwrap();
    }
    let sees_other = access(&[Permission::View], "other");
    let page = async |before, limit| {
        let filter = OperationFilter::default();
        let page = stage.operations.page(&filter, before, Some(limit), &sees_other).await;
        let page = page.unwrap();
        let ids: Vec<_> = page.operations.iter().map(|(operation, _)| operation.id).collect();
        (ids, page.next)
    };
    for limit in [1, 1_000] {
        let (found, next) = page(None, limit).await;
        assert!(found.is_empty(), "{found:?}");
        assert_eq!(page(next, limit).await, (vec![first], None));
    }
    // It stops as soon as it has enough.
    let last = stage.accept(label()).await.unwrap().operation.id;
    let sees_test = access(&[Permission::View], "test");
    let filter = OperationFilter::default();
    let page = stage.operations.page(&filter, None, Some(1), &sees_test).await.unwrap();
    assert_eq!((page.operations.len(), page.next), (1, Some(last)));
}

#[tokio::test(start_paused = true)]
async fn pods_of_drains_are_for_those_who_may_see_pods() {
    let stage = Stage::with(&["a", "b"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_budget(budget(0));
    let _replica = stage.replica("one");
    let id = stage.drain(json!({})).await;
    let told = |text: String| text.contains("web-1");
    stage.until(id, |shown| told(format!("{shown:?}"))).await;
    let blind = access(&[Permission::View, Permission::Change], "test");
    let sighted = access(&[Permission::View, Permission::ViewPods, Permission::Change], "test");

    let shown = stage.operations.find_visible(id, &sighted).await.unwrap();
    assert!(told(format!("{shown:?}")));
    let shown = stage.operations.find_visible(id, &blind).await.unwrap();
    assert!(!told(format!("{shown:?}")), "{shown:?}");
    assert_eq!(shown.targets[0].state, TargetState::Running);
    assert!(shown.targets[0].hold.is_some() && shown.targets[0].detail.as_str().contains("phase"));

    assert!(stage.operations.check_follow(id, 0, &sighted).await.is_ok());
    let refused = stage.operations.check_follow(id, 0, &blind).await;
    assert!(
        matches!(
            &refused,
            Err(OperationError::NotPermitted {
                permission: Permission::ViewPods,
                ..
            })
        ),
        "{refused:?}"
    );
    for wish in [Wish::Pause, Wish::Cancel] {
        let shown = stage.operations.wish(id, wish, &somebody(blind.clone())).await.unwrap();
        assert!(!told(format!("{shown:?}")), "{shown:?}");
    }
    // What is no drain tells of no pods.
    let label = request(OperationKind::Label, &["a"], json!({"set": {"k": "v"}}));
    let label = stage.accept(label).await.unwrap().operation.id;
    assert!(stage.operations.check_follow(label, 0, &blind).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_again_shows_nothing_that_may_not_be_seen_any_more() {
    let stage = Stage::with(&["a"]).await;
    let label = || request(OperationKind::Label, &["a"], json!({"set": {"k": "v"}}));
    let once = Some([7; 32]);
    let first = stage.operations.accept_once(label(), asker(), once).await.unwrap();
    let again = stage.operations.accept_once(label(), asker(), once).await.unwrap();
    assert_eq!(again.operation.id, first.operation.id);
    let blind = || somebody(access(&[Permission::Change], "test"));
    let refused = stage.operations.accept_once(label(), blind(), once).await;
    assert!(matches!(refused, Err(OperationError::Unknown { .. })), "{refused:?}");
    let refused = stage.operations.retry(first.operation.id, blind(), once).await;
    assert!(matches!(refused, Err(OperationError::Unknown { .. })), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_has_a_label_changed_that_decides_what_they_may_do() {
    let stage = Stage::with(&[]).await;
    let mut gpu = node("a", "1");
    gpu.labels.insert("pool".to_owned(), "gpu".to_owned());
    stage.fleet.put_node(gpu);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let limited = || {
        somebody(Access::new(vec![Grant {
            permissions: Permissions::of(&Permission::ALL),
            clusters: None,
            nodes: Selector::parse("pool=gpu").ok(),
        }]))
    };
    let template = |key: &str| json!({"template": "t", "version": 1, "content": {"labels": {key: "x"}}, "confirm_no_execute": false});
    for (kind, options) in [
        (OperationKind::Label, json!({"set": {"pool": "x"}})),
        (OperationKind::Label, json!({"remove": ["pool"]})),
        (OperationKind::ApplyTemplate, template("pool")),
    ] {
        let refused = stage.operations.accept(request(kind, &["a"], options), limited()).await;
        assert!(
            matches!(&refused, Err(OperationError::GuardedLabel { key }) if key == "pool"),
            "{refused:?}"
        );
    }
    for (kind, options) in [
        (OperationKind::Label, json!({"set": {"team": "x"}})),
        (OperationKind::ApplyTemplate, template("team")),
    ] {
        let accepted = stage.operations.accept(request(kind, &["a"], options), limited()).await;
        assert!(accepted.is_ok(), "{accepted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_not_seen_holds_nobody_back_who_may_do_everything() {
    let mut stage = Stage::with_two(&["a"], &["x"]).await;
    let mut both = request(OperationKind::Label, &["a"], json!({"set": {"k": "v"}}));
    both.targets.insert(0, both.targets[0].clone());
    both.targets[0].cluster = "other".to_owned();
    both.targets[0].nodes = vec!["x".to_owned()];
    both.strategy.max_concurrent = Some(2);
    let id = stage.accept(both).await.unwrap().operation.id;
    stage.restart_while_other_is_away().await;
    let _replica = stage.replica("one");
    stage
        .until(id, |shown| shown.targets[1].state == TargetState::Succeeded)
        .await;
}
