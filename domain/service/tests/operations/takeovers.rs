//! Operations survive those who work on them.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use knm_model::{AuditOutcome, OperationState, Wish};
use serde_json::json;

use crate::stage::{LEASE, Stage, budget, own_pod, pod, pods_of};

#[tokio::test(start_paused = true)]
async fn another_replica_goes_on_after_a_kill_and_nothing_is_done_twice() {
    let stage = Stage::with(&["a", "b"]).await;
    for name in ["web-1", "other-1"] {
        stage.fleet.put_pod(pod(name, "a"));
    }
    stage.fleet.put_budget(budget(0));
    let first = stage.replica("one");
    let id = stage.drain(json!({})).await;
    stage.until(id, |shown| pods_of(&shown.targets[0]).len() == 2).await;
    let _second = stage.replica("two");
    first.kill();
    stage.fleet.put_budget(budget(1));
    let killed_at = stage.clock.now();

    let shown = stage.end(id).await;

    assert_eq!(shown.operation.state, OperationState::Succeeded);
    let took = stage.clock.now().since(killed_at);
    assert!(took < LEASE + Duration::from_secs(15), "{took:?}");
    let audit = stage.audit().await;
    assert_eq!(audit.len(), 1, "{audit:?}");
    assert_eq!(audit[0].outcome(), Some(AuditOutcome::Succeeded));
    assert_eq!(stage.holds().await.len(), 1);
    let evicted: Vec<String> = stage
        .events(id)
        .await
        .into_iter()
        .filter(|event| {
            event.event.data["state"] == "terminating" && event.event.data["message"] == "it is on its way out"
        })
        .map(|event| event.event.data["uid"].to_string())
        .collect();
    let distinct: BTreeSet<_> = evicted.iter().collect();
    assert_eq!((evicted.len(), distinct.len()), (2, 2), "{evicted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_only_replica_goes_on() {
    let stage = Stage::with(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_budget(budget(0));
    let first = stage.replica("one");
    let id = stage.drain(json!({})).await;
    stage.until(id, |shown| pods_of(&shown.targets[0]).len() == 1).await;
    first.kill();
    stage.fleet.put_budget(budget(1));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(stage.state(id).await, OperationState::Running);
    let _again = stage.replica("one-again");
    assert_eq!(stage.end(id).await.operation.state, OperationState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_ends_hands_over_at_once() {
    let stage = Stage::with(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_budget(budget(0));
    let first = stage.replica("one");
    let id = stage.drain(json!({})).await;
    stage.until(id, |shown| pods_of(&shown.targets[0]).len() == 1).await;
    first.stop().await;
    // Nobody waits for a lease to run out.
    let taken = stage.storage.work.claim("two", LEASE, 10).await.unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!((taken[0].lease.operation, taken[0].lease.epoch), (id, 2));
}

#[tokio::test(start_paused = true)]
async fn another_replica_takes_what_is_handed_over_though_it_would_look_much_later() {
    let hour = Duration::from_secs(3600);
    let stage = Stage::with(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_budget(budget(0));
    let first = stage.replica("one");
    let id = stage.drain(json!({})).await;
    stage.until(id, |shown| pods_of(&shown.targets[0]).len() == 1).await;
    let _second = stage.replica_with("two", |settings| settings.lease = hour);
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.fleet.put_budget(budget(1));
    let began = stage.clock.now();

    first.stop().await;
    let shown = stage.end(id).await;

    assert_eq!(shown.operation.state, OperationState::Succeeded);
    let took = stage.clock.now().since(began);
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_on_any_replica_hears_at_once_though_it_would_look_much_later() {
    let stage = Stage::with(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_budget(budget(0));
    let _replica = stage.replica("one");
    let id = stage.drain(json!({})).await;
    let mut batches = std::pin::pin!(stage.operations.follow(id, 0));
    let mut last = None;
    while let Some(events) = batches.next().await {
        for event in events.unwrap() {
            let lag = stage.clock.now().since(event.event.at);
            assert!(lag < Duration::from_secs(1), "{lag:?}: {event:?}");
            if event.event.data["state"] == "blocked" {
                tokio::time::sleep(Duration::from_secs(300)).await;
                stage.wish(id, Wish::Cancel).await;
            }
            last = Some(event);
        }
    }
    assert_eq!(last.unwrap().event.data["state"], "cancelled");
}

#[tokio::test(start_paused = true)]
async fn own_pod_is_evicted_last_after_the_other_work_was_handed_over() {
    let stage = Stage::with(&["a", "b"]).await;
    for name in ["web-1", "knm-1"] {
        stage.fleet.put_pod(pod(name, "a"));
    }
    let mut blocked = pod("web-2", "b");
    blocked.labels.insert("app".to_owned(), "blocked".to_owned());
    stage.fleet.put_pod(blocked);
    let mut closed = budget(0);
    closed.selector = knm_model::Selector::parse("app=blocked").ok();
    stage.fleet.put_budget(closed);
    let replica = stage.replica_with("one", |settings| settings.own_pod = Some(own_pod("test", "knm-1")));
    let other = crate::stage::request(knm_model::OperationKind::Drain, &["b"], json!({}));
    let other = stage.accept(other).await.unwrap().operation.id;
    stage.until(other, |shown| !pods_of(&shown.targets[0]).is_empty()).await;
    let id = stage.drain(json!({})).await;
    let shown = stage
        .until(id, |shown| {
            pods_of(&shown.targets[0])
                .iter()
                .any(|(name, state)| name == "knm-1" && *state == "terminating")
        })
        .await;
    assert!(
        pods_of(&shown.targets[0]).contains(&("web-1".to_owned(), "gone")),
        "{shown:?}"
    );
    // The other operation is free already, before this process ends.
    let taken = stage.storage.work.claim("two", LEASE, 10).await.unwrap();
    assert_eq!(
        taken.iter().map(|claim| claim.lease.operation).collect::<Vec<_>>(),
        [other]
    );
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_late_owner_writes_nothing() {
    let stage = Stage::with(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    let id = stage.drain(json!({})).await;
    let lease = stage
        .storage
        .work
        .claim("frozen", LEASE, 1)
        .await
        .unwrap()
        .remove(0)
        .lease;
    tokio::time::sleep(LEASE).await;
    let shown = stage.shown(id).await;
    let step = knm_model::OperationStep::at(stage.clock.now(), shown.operation.progress);
    let outcome = stage.storage.work.advance(&lease, &step).await.unwrap();
    assert_eq!(outcome, knm_model::StepOutcome::LeaseLost);
}

#[tokio::test(start_paused = true)]
async fn many_drains_wait_side_by_side() {
    let names: Vec<String> = (0..500).map(|number| format!("node-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let stage = Stage::with(&names).await;
    stage.fleet.put_budget(budget(0));
    for name in &names {
        stage.fleet.put_pod(pod(&format!("web-{name}"), name));
    }
    stage.fleet.put_pod(pod("free-1", "node-499"));
    let mut ids = Vec::new();
    for name in &names {
        let request = crate::stage::request(knm_model::OperationKind::Drain, &[name], json!({}));
        ids.push(stage.accept(request).await.unwrap().operation.id);
    }
    let _replica = stage.replica("one");
    tokio::time::sleep(Duration::from_secs(60)).await;
    for id in &ids {
        let shown = stage.shown(*id).await;
        assert!(
            pods_of(&shown.targets[0]).iter().any(|(_, state)| *state == "blocked"),
            "{shown:?}"
        );
    }
    // A stuck one delays no other.
    assert_eq!(stage.pods("node-499").await, ["web-node-499"]);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_was_given_up_before_it_got_onto_its_node_is_made_anew() {
    let stage = Stage::with(&["a"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    let accepted = stage
        .accept(crate::stage::request(
            knm_model::OperationKind::Drain,
            &["a"],
            json!({}),
        ))
        .await
        .unwrap();
    // What a replica left behind whose hold was settled meanwhile.
    let lease = stage
        .storage
        .work
        .claim("gone", LEASE, 1)
        .await
        .unwrap()
        .remove(0)
        .lease;
    let mut target = accepted.targets[0].clone();
    target.state = knm_model::TargetState::Running;
    target.hold = Some(uuid::Uuid::from_u128(77));
    target.detail = knm_model::TargetDetail::of(&json!({"phase": "cordoning"})).unwrap();
    let mut step = knm_model::OperationStep::at(stage.clock.now(), accepted.operation.progress);
    step.targets = vec![target];
    stage.storage.work.advance(&lease, &step).await.unwrap();
    stage.storage.work.release(&[lease]).await.unwrap();

    let _replica = stage.replica("one");
    let shown = stage.end(accepted.operation.id).await;

    assert_eq!(shown.operation.state, OperationState::Succeeded, "{shown:?}");
    let holds = stage.holds().await;
    assert_eq!((holds.len(), Some(holds[0].id)), (1, shown.targets[0].hold));
}
