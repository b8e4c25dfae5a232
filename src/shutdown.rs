//! The order in which the service ends.

use std::path::Path;
use std::time::Duration;

use knm_domain::Health;
use knm_ports::Storage;
use knm_telemetry::{Logs, Traces};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::servers::Servers;
use crate::signals::{Ending, Endings};

/// How long the collector may take for the last spans.
const LAST_SPANS: Duration = Duration::from_secs(5);

/// The parts that end, each exactly once.
pub struct Shutdown<'a> {
    /// Not ready from the first moment on.
    pub health: &'a Health,
    /// Ends the accepting of requests, and the work on operations.
    pub stop: &'a CancellationToken,
    /// Ends what runs beside the requests, after the last of them.
    pub background: &'a CancellationToken,
    /// Closed when nobody needs it any more.
    pub storage: &'a Storage,
    /// How long requests in flight may take.
    pub patience: Duration,
    pub logs: &'a Logs,
    /// The last spans are sent when everything else has ended.
    pub traces: Option<&'a Traces>,
    /// Removed even when a second signal ends the process at once.
    pub demo_folder: Option<&'a Path>,
}

impl Shutdown<'_> {
    /// Ends everything in the promised order. A second signal ends the process.
    pub async fn run(self, first: Ending, mut endings: Endings, servers: Servers, working: Option<JoinHandle<()>>) {
        tokio::select! {
            () = self.in_order(first, servers, working) => {}
            again = endings.next() => self.at_once(again),
        }
    }

    async fn in_order(&self, signal: Ending, mut servers: Servers, working: Option<JoinHandle<()>>) {
        let began = Instant::now();
        self.health.begin_shutdown();
        tracing::info!(signal = signal.as_str(), "shutdown 1/5: not ready from now on");
        self.stop.cancel();
        tracing::info!("shutdown 2/5: no new requests are accepted");
        tracing::info!(
            seconds = self.patience.as_secs(),
            "shutdown 3/5: waiting for requests in flight"
        );
        let cut_off = match (&mut servers.main).await {
            Ok(report) => report.cut_off,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the server ended badly");
                0
            }
        };
        self.background.cancel();
        if let Some(working) = working {
            // It began to hand its operations over when no new requests were accepted any more.
            if let Err(error) = working.await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the work on operations ended badly"
                );
            }
        }
        servers.end_management().await;
        self.storage.admin.close().await;
        tracing::info!("shutdown 4/5: database closed");
        if let Some(traces) = self.traces {
            // What was not needed for requests, but no longer than anybody would wait for a collector.
            traces
                .finish(self.patience.saturating_sub(began.elapsed()).min(LAST_SPANS))
                .await;
        }
        tracing::info!(
            took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            cut_off,
            "shutdown 5/5: done"
        );
    }

    fn at_once(&self, signal: Ending) -> ! {
        tracing::warn!(signal = signal.as_str(), "second signal: ending at once");
        if let Some(folder) = self.demo_folder {
            // The process ends in any case.
            let _ = std::fs::remove_dir_all(folder);
        }
        self.logs.flush();
        std::process::exit(signal.exit_code())
    }
}
