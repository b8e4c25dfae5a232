//! What is accepted, and what is refused with the reason.

use std::time::Duration;

use knm_domain::{OperationError, OperationRequest, TargetRequest};
use knm_model::{Access, OperationFilter, OperationKind, OperationState, Wish};
use serde_json::json;
use uuid::Uuid;

use crate::nodes::{node, settle};
use crate::stage::{Stage, asker, pod, request};

async fn refusal(stage: &Stage, wanted: OperationRequest) -> String {
    match stage.accept(wanted).await {
        Err(OperationError::Invalid { errors }) => format!("{errors:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn everything_that_is_wrong_is_told_at_once_and_nothing_is_stored() {
    let stage = Stage::with(&["a", "b"]).await;
    let drain = |nodes: &[&str]| request(OperationKind::Drain, nodes, json!({}));
    let told = refusal(&stage, drain(&["a", "ghost", "spirit"])).await;
    assert!(told.contains("ghost") && told.contains("spirit"), "{told}");
    let told = refusal(&stage, drain(&["a", "b", "a"])).await;
    assert!(told.contains("twice"), "{told}");
    let told = refusal(&stage, drain(&[])).await;
    assert!(told.contains("label_selector"), "{told}");
    let mut both = drain(&["a"]);
    both.targets[0].label_selector = Some("x".to_owned());
    assert!(refusal(&stage, both).await.contains("either"));
    let mut wrong = request(OperationKind::Drain, &["ghost"], json!({"grace_period_seconds": -5}));
    wrong.strategy.max_unavailable = Some("all".to_owned());
    let told = refusal(&stage, wrong).await;
    assert!(
        told.contains("-5") && told.contains("\\\"all\\\"") && told.contains("ghost"),
        "{told}"
    );
    let mut none = drain(&[]);
    none.targets[0].label_selector = Some("team=none".to_owned());
    assert!(refusal(&stage, none).await.contains("no node"));
    let mut elsewhere = drain(&["a"]);
    elsewhere.targets[0].cluster = "moon".to_owned();
    assert!(matches!(
        stage.accept(elsewhere).await,
        Err(OperationError::Inventory(_))
    ));
    let all = stage
        .operations
        .page(&OperationFilter::default(), None, None, &Access::unlimited())
        .await
        .unwrap();
    assert_eq!(all.operations, []);
}

#[tokio::test(start_paused = true)]
async fn the_nodes_are_fixed_in_the_order_that_was_asked_for() {
    let stage = Stage::with(&["a", "b", "c"]).await;
    for (name, zone) in [("a", "z2"), ("b", "z1"), ("c", "z2")] {
        let mut zoned = node(name, "2");
        zoned.zone = Some(zone.to_owned());
        zoned.labels.insert("pool".to_owned(), "web".to_owned());
        stage.fleet.put_node(zoned);
    }
    settle().await;
    let mut wanted = request(OperationKind::Drain, &[], json!({}));
    wanted.targets[0].label_selector = Some("pool=web".to_owned());
    wanted.strategy.order = Some("by_zone".to_owned());
    let shown = stage.accept(wanted).await.unwrap();
    let names: Vec<_> = shown.targets.iter().map(|target| target.node.as_str()).collect();
    assert_eq!(
        (names.as_slice(), shown.operation.state),
        (&["b", "a", "c"][..], OperationState::Queued)
    );
    let shown = stage
        .accept(request(OperationKind::Drain, &["c", "a"], json!({})))
        .await
        .unwrap();
    let names: Vec<_> = shown.targets.iter().map(|target| target.node.as_str()).collect();
    assert_eq!(names, ["c", "a"]);
}

#[tokio::test(start_paused = true)]
async fn nodes_with_few_pods_come_first_and_nobody_guesses_how_many_they_have() {
    for watch_pods in [true, false] {
        let stage = Stage::seen_through(&["a", "b", "c"], watch_pods, |gateway| gateway).await;
        for (name, node) in [("web-1", "a"), ("web-2", "a"), ("web-3", "c")] {
            stage.fleet.put_pod(pod(name, node));
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mut wanted = request(OperationKind::Drain, &["a", "b", "c"], json!({}));
        wanted.strategy.order = Some("least_pods_first".to_owned());
        if watch_pods {
            let shown = stage.accept(wanted).await.unwrap();
            let names: Vec<_> = shown.targets.iter().map(|target| target.node.as_str()).collect();
            assert_eq!(names, ["b", "c", "a"]);
        } else {
            let told = refusal(&stage, wanted).await;
            assert!(
                told.contains("strategy.order") && told.contains("kubernetes.watch_pods"),
                "{told}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_follows_goes_on_behind_an_event_that_is_there() {
    let stage = Stage::with(&["a"]).await;
    let id = stage.drain(json!({})).await;
    let _replica = stage.replica("one");
    stage.end(id).await;
    let last = stage.events(id).await.len() as u64;
    assert!(3 < last);
    for number in [0, 1, last] {
        stage
            .operations
            .check_follow(id, number, &Access::unlimited())
            .await
            .unwrap();
    }
    for number in [last + 1, last + 2, 1_000, u64::MAX] {
        let refused = stage.operations.check_follow(id, number, &Access::unlimited()).await;
        let Err(OperationError::Invalid { errors }) = refused else {
            panic!("{refused:?}");
        };
        let expected =
            format!("last_event_id: \"{number}\" is not the id of an event of this operation: the last one is {last}");
        assert_eq!(errors[0].to_string(), expected);
    }
    let unknown = stage
        .operations
        .check_follow(Uuid::nil(), 1, &Access::unlimited())
        .await;
    assert!(matches!(unknown, Err(OperationError::Unknown { .. })), "{unknown:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_unknown_and_what_is_under_way_is_not_tried_again() {
    let stage = Stage::with(&["a"]).await;
    let ghost = Uuid::from_u128(1);
    assert!(matches!(
        stage.operations.find(ghost).await,
        Err(OperationError::Unknown { .. })
    ));
    let wish = stage.operations.wish(ghost, Wish::Cancel, &asker()).await;
    assert!(matches!(wish, Err(OperationError::Unknown { .. })));
    let id = stage.drain(json!({})).await;
    let error = stage.operations.retry(id, asker(), None).await.unwrap_err();
    assert!(matches!(error, OperationError::NotEnded { .. }), "{error}");
    let _replica = stage.replica("one");
    stage.end(id).await;
    let error = stage.operations.retry(id, asker(), None).await.unwrap_err();
    assert!(matches!(error, OperationError::NothingFailed { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn pages_tell_where_to_go_on() {
    let stage = Stage::with(&["a"]).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(stage.drain(json!({})).await);
    }
    ids.reverse();
    let filter = OperationFilter::default();
    let first = stage
        .operations
        .page(&filter, None, Some(2), &Access::unlimited())
        .await
        .unwrap();
    let told: Vec<_> = first.operations.iter().map(|(operation, _)| operation.id).collect();
    assert_eq!((told.as_slice(), first.next), (&ids[..2], Some(ids[1])));
    let rest = stage
        .operations
        .page(&filter, first.next, None, &Access::unlimited())
        .await
        .unwrap();
    assert_eq!((rest.operations.len(), rest.next), (3, None));
    let targets = vec![TargetRequest {
        cluster: "test".to_owned(),
        nodes: vec!["a".to_owned()],
        label_selector: None,
    }];
    let wanted = OperationRequest {
        targets,
        ..request(OperationKind::Label, &[], json!({"set": {"x": "y"}}))
    };
    let id = stage.accept(wanted).await.unwrap().operation.id;
    let only = OperationFilter {
        kind: Some(OperationKind::Label),
        ..OperationFilter::default()
    };
    let labels = stage
        .operations
        .page(&only, None, None, &Access::unlimited())
        .await
        .unwrap();
    assert_eq!(
        labels.operations.iter().map(|(one, _)| one.id).collect::<Vec<_>>(),
        [id]
    );
}
