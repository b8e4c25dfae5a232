//! What the use cases write to the log, and how often.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

mod support;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{StreamExt, stream};
use knm_cluster_memory::{Fleet, FleetOptions};
use knm_domain::{ClusterHandle, ClusterState, Inventory, SelfCheck};
use knm_model::{ClusterFeature, ClusterName, ClusterSource, Timestamp};
use knm_ports::{ClusterError, ManualClock, MockClusterGateway, NodeEvent, PodEvent};
use support::{Stage, lost, replaced, settle};
use tokio_util::sync::CancellationToken;
use tracing::subscriber::DefaultGuard;

/// Keeps what is written to it.
#[derive(Clone, Default)]
struct Pages(Arc<Mutex<Vec<u8>>>);

impl io::Write for Pages {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets this thread log to pages, until the guard is dropped.
fn logging() -> (Pages, DefaultGuard) {
    let pages = Pages::default();
    let writer = pages.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    (pages, tracing::subscriber::set_default(subscriber))
}

impl Pages {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn pods_are_logged_when_they_are_lost_and_seen_and_not_at_each_retry() {
    let (pages, _logging) = logging();
    let forbidden = || {
        PodEvent::Lost(ClusterError::Forbidden {
            action: None,
            message: "pods is forbidden".to_owned(),
        })
    };
    let events = [
        forbidden(),
        forbidden(),
        forbidden(),
        PodEvent::Listing,
        PodEvent::Complete,
        forbidden(),
        PodEvent::Alive,
    ];
    let mut gateway = MockClusterGateway::new();
    gateway.expect_watch_nodes().returning(|| stream::pending().boxed());
    gateway
        .expect_watch_pods()
        .return_once(|| stream::iter(events).chain(stream::pending()).boxed());
    let handle = ClusterHandle {
        name: ClusterName::from_any("test"),
        source: ClusterSource::Demo,
        gateway: Arc::new(gateway),
        reviews: None,
        watch_pods: true,
    };
    let clock = ManualClock::at("2030-01-01T00:00:00Z");
    let _inventory = Inventory::start(clock, vec![handle], CancellationToken::new());
    settle().await;

    let text = pages.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(
        lines[0].contains("pods lost error=") && lines[0].contains("pods is forbidden"),
        "{text}"
    );
    assert!(lines[1].contains("pods seen cluster=test pods=0"), "{text}");
    assert!(
        lines[2].contains("pods lost") && lines[3].contains("pods seen again"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_missing_permission_is_logged_when_it_is_found_and_when_it_is_there_again_and_not_at_each_check() {
    let (pages, _logging) = logging();
    let fleet = Fleet::new(FleetOptions {
        nodes: 0,
        seed: 1,
        change_every: None,
        started_at: Timestamp::parse("2030-01-01T00:00:00Z").unwrap(),
    });
    fleet.withhold(ClusterFeature::EvictPods);
    let handle = ClusterHandle {
        name: ClusterName::from_any("test"),
        source: ClusterSource::Demo,
        gateway: fleet.gateway(),
        reviews: None,
        watch_pods: false,
    };
    let clock = ManualClock::at("2030-01-01T00:00:00Z");
    let inventory = Inventory::start(clock, vec![handle], CancellationToken::new());
    let check = SelfCheck { inventory, home: None };
    tokio::spawn(check.keep(CancellationToken::new()));
    tokio::time::sleep(Duration::from_secs(600)).await;
    fleet.lose();
    tokio::time::sleep(Duration::from_secs(600)).await;
    fleet.recover();
    fleet.grant(ClusterFeature::EvictPods);
    tokio::time::sleep(Duration::from_secs(600)).await;

    let text = pages.text();
    let lines: Vec<_> = text
        .lines()
        .filter(|line| line.contains("permission") || line.contains("may not"))
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    for part in [
        "WARN",
        "the service may not create pods/eviction in cluster test, so it cannot drain nodes there",
        "cluster=test",
        "feature=\"evict_pods\"",
        "role=\"kube-node-manager-evict-pods\"",
    ] {
        assert!(lines[0].contains(part), "{text}");
    }
    assert!(
        lines[1].contains("INFO") && lines[1].contains("there again") && lines[1].contains("evict_pods"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_logged_when_it_is_seen_lost_and_seen_again_and_not_at_each_retry() {
    let (pages, _logging) = logging();
    let stage = Stage::new();

    stage.tell([replaced(&[("a", "1"), ("b", "1")])]).await;
    for _ in 0..2 {
        stage.clock.advance(Duration::from_secs(5));
        stage.tell([lost(), lost()]).await;
        stage.tell([lost()]).await;
        stage.tell([NodeEvent::Alive, NodeEvent::Alive]).await;
    }

    assert_eq!(stage.inventory.cluster("test").unwrap().state, ClusterState::Healthy);
    // The end of the service is no loss of a cluster.
    stage.shutdown.cancel();
    settle().await;

    let text = pages.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert!(lines[0].contains("cluster seen cluster=test nodes=2 took="), "{text}");
    for round in [1, 3] {
        assert!(lines[round].contains("cluster lost"), "{text}");
        // The whole chain of the error.
        assert!(lines[round].contains("connection refused"), "{text}");
        assert!(lines[round + 1].contains("cluster seen again"), "{text}");
    }
}
