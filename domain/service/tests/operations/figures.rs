//! What operations count, as whoever is to be alarmed sees it.

use std::time::Duration;

use futures::StreamExt;
use knm_domain::describe_metrics;
use knm_model::{OperationKind, OperationState, Wish};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::json;

use crate::stage::{Stage, budget, pod, request};

/// What this thread counts, until what is returned is dropped. The tests run on one thread each.
fn counting() -> (PrometheusHandle, metrics::LocalRecorderGuard<'static>) {
    // It lives as long as the process of the test.
    let recorder = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
    let guard = metrics::set_default_local_recorder(recorder);
    describe_metrics();
    (recorder.handle(), guard)
}

/// The value of a series, without `kube_node_manager_` before its name.
#[track_caller]
fn value(handle: &PrometheusHandle, series: &str) -> f64 {
    let text = handle.render();
    let found = text.lines().find_map(|line| {
        let rest = line.strip_prefix("kube_node_manager_")?.strip_prefix(series)?;
        rest.strip_prefix(' ')?.parse().ok()
    });
    found.unwrap_or_else(|| panic!("{series} is not in\n{text}"))
}

/// Lets time pass until the next figures are shown.
async fn a_while() {
    tokio::time::sleep(Duration::from_secs(20)).await;
}

#[tokio::test(start_paused = true)]
async fn what_may_be_counted_is_there_before_it_is() {
    let (figures, _counting) = counting();
    let stage = Stage::with(&[]).await;
    let _replica = stage.replica("one");
    for series in [
        "operations_ended_total{kind=\"drain\",result=\"partly_failed\"}",
        "operations_ended_total{kind=\"apply_template\",result=\"cancelled\"}",
        "operation_nodes_total{kind=\"label\",result=\"skipped\"}",
        "operation_takeovers_total",
        "operation_leases_lost_total",
        "evictions_total{result=\"accepted\"}",
        "evictions_total{result=\"gone\"}",
        "evictions_total{result=\"blocked\"}",
        "evictions_total{result=\"later\"}",
        "evictions_total{result=\"refused\"}",
        "node_changes_total{action=\"node.cordon\",outcome=\"failed\"}",
        "audit_failures_total",
    ] {
        assert_eq!(value(&figures, series), 0.0, "{series}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_blocked_drain_is_seen_while_it_is_blocked_and_no_longer() {
    let (figures, _counting) = counting();
    let stage = Stage::with(&["a", "b"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_pod(pod("other-1", "a"));
    stage.fleet.put_budget(budget(0));
    let _replica = stage.replica("one");
    for is_cancelled in [true, false] {
        let id = stage.drain(json!({"on_cancel": "restore"})).await;
        tokio::time::sleep(Duration::from_secs(120)).await;

        assert_eq!(value(&figures, "drain_pods_blocked"), 1.0);
        let age = value(&figures, "drain_oldest_block_age_seconds");
        assert!((100.0..=120.0).contains(&age), "{age}");
        assert_eq!(value(&figures, "operations{state=\"running\"}"), 1.0);

        match is_cancelled {
            true => stage.wish(id, Wish::Cancel).await,
            false => stage.fleet.put_budget(budget(1)),
        }
        stage.end(id).await;
        a_while().await;
        for series in [
            "drain_pods_blocked",
            "drain_oldest_block_age_seconds",
            "operations{state=\"running\"}",
        ] {
            assert_eq!(value(&figures, series), 0.0, "{series}, cancelled: {is_cancelled}");
        }
    }
    // `other-1` went with the first drain, `web-1` with the second.
    assert_eq!(value(&figures, "evictions_total{result=\"accepted\"}"), 2.0);
    assert_eq!(value(&figures, "evictions_total{result=\"refused\"}"), 0.0);
    for result in ["cancelled", "succeeded"] {
        let labels = format!("{{kind=\"drain\",result=\"{result}\"}}");
        assert_eq!(value(&figures, &format!("operations_ended_total{labels}")), 1.0);
        assert_eq!(value(&figures, &format!("operation_nodes_total{labels}")), 1.0);
    }
    assert_eq!(value(&figures, "operation_duration_seconds_count{kind=\"drain\"}"), 2.0);
    assert!(240.0 <= value(&figures, "operation_duration_seconds_sum{kind=\"drain\"}"));
}

#[tokio::test(start_paused = true)]
async fn what_a_budget_refuses_is_counted_as_blocked() {
    let (figures, _counting) = counting();
    let stage = Stage::with(&["a", "b", "c"]).await;
    stage.fleet.put_pod(pod("web-1", "a"));
    stage.fleet.put_pod(pod("web-2", "b"));
    // Both drains see that there is room for one, and ask for it.
    stage.fleet.put_budget(budget(1));
    let mut drain = request(OperationKind::Drain, &["a", "b"], json!({}));
    drain.strategy.max_concurrent = Some(2);
    let _replica = stage.replica("one");
    let id = stage.accept(drain).await.unwrap().operation.id;
    assert_eq!(stage.end(id).await.operation.state, OperationState::Succeeded);
    assert_eq!(value(&figures, "evictions_total{result=\"accepted\"}"), 2.0);
    assert!(1.0 <= value(&figures, "evictions_total{result=\"blocked\"}"));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_replica_grows_old() {
    let (figures, _counting) = counting();
    let stage = Stage::with(&["a"]).await;
    let label = || request(OperationKind::Label, &["a"], json!({"set": {"a": "b"}}));
    let id = stage.accept(label()).await.unwrap().operation.id;
    tokio::time::sleep(Duration::from_secs(600)).await;
    // Its first look comes before it takes anything.
    let _replica = stage.replica("one");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(600.0 <= value(&figures, "operation_queue_age_seconds"));
    assert_eq!(value(&figures, "operations{state=\"queued\"}"), 1.0);
    assert_eq!(stage.end(id).await.operation.state, OperationState::Succeeded);
    a_while().await;
    assert_eq!(value(&figures, "operation_queue_age_seconds"), 0.0);
    assert_eq!(value(&figures, "operations{state=\"queued\"}"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn how_late_readers_hear_of_events_is_counted() {
    let (figures, _counting) = counting();
    let stage = Stage::with(&["a"]).await;
    let label = request(OperationKind::Label, &["a"], json!({"set": {"a": "b"}}));
    let id = stage.accept(label).await.unwrap().operation.id;
    let events = tokio::spawn(stage.operations.follow(id, 0).collect::<Vec<_>>());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _replica = stage.replica("one");
    let all: usize = events
        .await
        .unwrap()
        .iter()
        .map(|events| events.as_ref().unwrap().len())
        .sum();
    // What was there before the reader came is not late, whenever it was.
    let live = value(&figures, "operation_event_lag_duration_seconds_count");
    assert_eq!(live, (all - 1) as f64);
    assert!(value(&figures, "operation_event_lag_duration_seconds_sum") < 5.0);
}
