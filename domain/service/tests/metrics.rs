//! What the use cases show as metrics.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use knm_domain::{Health, HealthSettings, describe_metrics};
use knm_ports::{MockStorageAdmin, MockSystemStats, PoolStatus, ProcessStats, SchemaStatus, StorageKind};
use metrics_exporter_prometheus::PrometheusBuilder;
use support::{Stage, lost, replaced};

/// A service whose database works, with one cluster.
fn health(stage: &Stage) -> Arc<Health> {
    let mut storage = MockStorageAdmin::new();
    storage.expect_kind().return_const(StorageKind::Sqlite);
    storage.expect_ping().returning(|| Ok(()));
    storage.expect_schema().returning(|| Ok(SchemaStatus::default()));
    storage.expect_pool().return_const(PoolStatus {
        max_open: 25,
        open: 3,
        in_use: 1,
        idle: 2,
        ..PoolStatus::default()
    });
    let mut stats = MockSystemStats::new();
    stats.expect_live_tasks().return_const(7_u64);
    stats.expect_process().return_const(ProcessStats {
        resident_bytes: 1024,
        virtual_bytes: 4096,
        cpu_seconds: 2.5,
        open_fds: 9,
        max_fds: 99,
        threads: 3,
    });
    let settings = HealthSettings {
        service: "kube-node-manager".to_owned(),
        version: "2.0.0".to_owned(),
        rust_version: "1.95.0".to_owned(),
    };
    Health::start(
        settings,
        Arc::new(storage),
        stage.clock.clone(),
        Arc::new(stats),
        stage.inventory.clone(),
        stage.shutdown.clone(),
    )
}

fn exposition(stage: &Stage, health: &Health) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        describe_metrics();
        stage.inventory.observe();
        health.observe();
    });
    recorder.handle().render()
}

#[tokio::test(start_paused = true)]
async fn every_promised_figure_is_shown_and_has_help() {
    let stage = Stage::new();
    let health = health(&stage);
    stage.tell([replaced(&[("a", "1"), ("b", "1")])]).await;
    stage.clock.advance(Duration::from_secs(5));

    let text = exposition(&stage, &health);

    let wanted = [
        "kube_node_manager_up 1",
        "kube_node_manager_start_time_seconds 1893456000",
        "kube_node_manager_database_up 1",
        "kube_node_manager_memory_usage_bytes 1024",
        "kube_node_manager_goroutines_total 7",
        "kube_node_manager_database_connections{state=\"open\"} 3",
        "kube_node_manager_database_connections{state=\"in_use\"} 1",
        "kube_node_manager_database_connections{state=\"idle\"} 2",
        "kube_node_manager_database_connections_max 25",
        "kube_node_manager_cluster_up{cluster=\"test\"} 1",
        "kube_node_manager_cluster_last_event_age_seconds{cluster=\"test\"} 5",
        "process_cpu_seconds_total 2",
        "process_resident_memory_bytes 1024",
        "process_virtual_memory_bytes 4096",
        "process_open_fds 9",
        "process_max_fds 99",
        "process_threads 3",
        "process_start_time_seconds 1893456000",
    ];
    for line in wanted {
        assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
    }
    for series in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let name = series.split(['{', ' ']).next().unwrap();
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_cluster_and_a_shutdown_show() {
    let stage = Stage::new();
    let health = health(&stage);
    stage.tell([replaced(&[("a", "1")]), lost()]).await;
    health.begin_shutdown();

    let text = exposition(&stage, &health);

    assert!(text.contains("kube_node_manager_up 0\n"));
    assert!(text.contains("kube_node_manager_database_up 1\n"));
    assert!(text.contains("kube_node_manager_cluster_up{cluster=\"test\"} 0\n"));
}
