//! Reads the section `logging` and the certificate again while the service runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use knm_http::Tls;
use knm_telemetry::Logs;
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use crate::configuration::{self, Resolved, Settings};

/// How often is looked whether the files of the certificate have changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Takes over another certificate soon after its files changed, and at each SIGHUP.
pub async fn certificate(tls: Arc<Tls>, mut hangups: Signal, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    let looking = async {
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = hangups.recv() => {}
            }
            tls.look().await;
        }
    };
    shutdown.run_until_cancelled(looking).await;
}

/// Changes the log at each SIGHUP. With a configuration that is wrong it stays as it is.
pub async fn at_each_hangup(mut hangups: Signal, logs: Logs, file: Option<PathBuf>, shutdown: CancellationToken) {
    while let Some(Some(())) = shutdown.run_until_cancelled(hangups.recv()).await {
        let resolved = match Resolved::load(file.as_deref(), &configuration::environment()) {
            Ok(resolved) => resolved,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the log stays as it is");
                continue;
            }
        };
        let settings = Settings::from(&resolved).logging;
        match logs.change(&settings) {
            Ok(()) => tracing::info!(
                level = settings.level,
                format = settings.format.as_str(),
                "logging read again"
            ),
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "the log stays as it is"),
        }
    }
}
