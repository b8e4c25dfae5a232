//! What becomes of leases when something goes wrong with them, and what is told of that.

use std::sync::Arc;
use std::time::Duration;

use knm_model::{OperationKind, OperationState, Wish};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::json;
use uuid::Uuid;

use crate::around::{Mishap, Unlucky};
use crate::stage::{Stage, budget, pod, pods_of, request};

/// Records what is counted from now on, as long as the guard lives.
fn counting() -> (PrometheusHandle, metrics::LocalRecorderGuard<'static>) {
    let recorder = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
    (recorder.handle(), metrics::set_default_local_recorder(recorder))
}

fn counted(metrics: &PrometheusHandle, name: &str) -> u64 {
    let text = metrics.render();
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

const LOST: &str = "kube_node_manager_operation_leases_lost_total";
const TAKEN: &str = "kube_node_manager_operation_takeovers_total";
const ENDED: &str = "kube_node_manager_operations_ended_total";

/// A drain that waits for a budget, so that leases are extended.
async fn waiting_drain(stage: &Stage) -> Uuid {
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_budget(budget(0));
    let id = stage.drain(json!({})).await;
    stage.until(id, |shown| pods_of(&shown.targets[0]).len() == 1).await;
    id
}

async fn label(stage: &Stage, node: &str) -> Uuid {
    let wanted = request(OperationKind::Label, &[node], json!({"set": {"team": "web"}}));
    stage.accept(wanted).await.unwrap().operation.id
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_worked_on_though_nobody_heard_that_its_lease_was_taken() {
    for has_other_work in [false, true] {
        let stage = Stage::with(&["a", "b"]).await;
        let store = Unlucky::new(&stage.storage.work);
        let _replica = stage.replica_over(store.clone(), "one", |_| {});
        if has_other_work {
            waiting_drain(&stage).await;
        }
        store.expect(Mishap::ClaimUnheard);
        let id = label(&stage, "b").await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(store.has_happened());
        assert_eq!(stage.state(id).await, OperationState::Succeeded, "{has_other_work}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_worked_on_after_its_lease_could_not_be_given_back() {
    let stage = Stage::with(&["a", "b"]).await;
    let store = Unlucky::new(&stage.storage.work);
    let _replica = stage.replica_over(store.clone(), "one", |_| {});
    waiting_drain(&stage).await;
    let mut wanted = request(OperationKind::Label, &["a", "b"], json!({"set": {"team": "web"}}));
    wanted.strategy.pause_between_seconds = Some(60);
    let id = stage.accept(wanted).await.unwrap().operation.id;
    stage.until(id, |shown| shown.operation.progress.done == 1).await;
    store.expect(Mishap::NoRelease);
    stage.wish(id, Wish::Pause).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(store.has_happened());
    stage.wish(id, Wish::Resume).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!(stage.state(id).await, OperationState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_ends_while_leases_are_extended_is_not_lost_and_its_end_is_counted() {
    let (metrics, _counting) = counting();
    let stage = Stage::with(&["a", "b"]).await;
    let store = Unlucky::new(&stage.storage.work);
    let _replica = stage.replica_over(store.clone(), "one", |_| {});
    waiting_drain(&stage).await;
    // Leases are extended every two seconds.
    store.expect(Mishap::EndToldLate(Duration::from_millis(2_500)));
    let id = label(&stage, "b").await;
    stage.end(id).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(store.has_happened());
    assert_eq!((counted(&metrics, LOST), counted(&metrics, ENDED)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_was_paused_and_resumed_is_not_taken_over_and_what_was_left_behind_is() {
    let (metrics, _counting) = counting();
    let stage = Stage::with(&["a"]).await;
    let first = stage.replica("one");
    let id = waiting_drain(&stage).await;
    for wish in [Wish::Pause, Wish::Resume] {
        stage.wish(id, wish).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    assert_eq!(counted(&metrics, TAKEN), 0);

    let second = stage.replica("two");
    first.stop().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(counted(&metrics, TAKEN), 1, "it was handed over");

    second.kill();
    let _third = stage.replica("three");
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!((counted(&metrics, TAKEN), counted(&metrics, LOST)), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_else_took_is_lost() {
    let (metrics, _counting) = counting();
    let stage = Stage::with(&["a"]).await;
    let _replica = stage.replica("one");
    let id = waiting_drain(&stage).await;
    let taken = Arc::clone(&stage.storage.work);
    let ours = taken.renew("one", crate::stage::LEASE).await.unwrap().remove(0).0;
    taken.hand_over(&[ours]).await.unwrap();
    let claimed = taken.claim("two", Duration::from_secs(600), 1).await.unwrap();
    assert_eq!(claimed[0].lease.operation, id);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(counted(&metrics, LOST), 1);
}
