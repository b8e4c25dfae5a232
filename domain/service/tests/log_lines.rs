//! What the use cases write to the log, and how often.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

mod support;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use knm_domain::ClusterState;
use knm_ports::NodeEvent;
use support::{Stage, lost, replaced, settle};

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

#[tokio::test(start_paused = true)]
async fn a_cluster_is_logged_when_it_is_seen_lost_and_seen_again_and_not_at_each_retry() {
    let pages = Pages::default();
    let writer = pages.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
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

    let text = String::from_utf8(pages.0.lock().unwrap().clone()).unwrap();
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
