//! Logs, metrics and traces of the process.

mod endpoint;
mod exposition;
mod filter;
mod format;
mod layer;
mod panic;
mod queue;
mod recorder;
// The one switch of the feature: what it leaves out has the same face and refuses.
#[cfg(feature = "otel")]
mod traces;
#[cfg(not(feature = "otel"))]
#[path = "absent.rs"]
mod traces;

use std::sync::Arc;

use knm_ports::Clock;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

pub use crate::endpoint::{TraceSettings, check_endpoint};
pub use crate::exposition::{PrometheusExposition, install_metrics};
pub use crate::filter::check_level;
pub use crate::format::LogFormat;
use crate::layer::LineLayer;
use crate::queue::LineQueue;
pub use crate::traces::Traces;

/// How to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// What a line looks like.
    pub format: LogFormat,
    /// `debug`, `info`, `warn`, `error`, or a full filter of `tracing`.
    pub level: String,
}

/// Who logs: these stand in every line that a machine reads.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The name of the service.
    pub service: String,
    /// Its version.
    pub version: String,
    /// The name of the machine, pod or instance.
    pub hostname: String,
}

/// Why logging or metrics do not start or change.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is neither a level nor a filter.
    #[error("{0}")]
    Level(String),
    /// Something else in this process logs already.
    #[error("this process logs already")]
    Taken,
    /// Something else in this process collects metrics already.
    #[error("the metrics of this process cannot be collected: {0}")]
    Metrics(String),
    /// This build cannot trace.
    #[error("traces.otlp_endpoint: this build sends no traces: build with --features otel, or leave it out")]
    TracesNotBuilt,
    /// Traces are configured such that they cannot be sent.
    #[error("{0}")]
    Traces(String),
}

/// The running log. Lines are written by a thread of their own, so that a slow reader of stderr holds up nobody; when the queue to
/// it is full, lines are dropped and counted.
#[derive(Clone)]
pub struct Logs {
    queue: LineQueue,
    layer: LineLayer,
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Starts to log to stderr; panics are logged, too. What `traces` are told is decided apart from what is logged.
///
/// # Errors
/// [`TelemetryError::Level`] if the level cannot be understood, [`TelemetryError::Taken`] if something else logs already.
pub fn start_logs(
    settings: &LogSettings,
    identity: Identity,
    clock: Arc<dyn Clock>,
    traces: Option<&Traces>,
) -> Result<Logs, TelemetryError> {
    let queue = LineQueue::start(std::io::stderr());
    let layer = LineLayer::new(settings.format, identity, Arc::clone(&clock), queue.clone());
    let (filter, handle) = reload::Layer::new(filter::parse(&settings.level).map_err(TelemetryError::Level)?);
    let taken = match traces {
        Some(traces) => traces.subscribe(layer.clone(), filter, clock),
        // As cheap as without the feature: spans that are only traced are switched off where they are made.
        None => tracing::subscriber::set_global_default(Registry::default().with(filter).with(layer.clone())),
    };
    taken.map_err(|_| TelemetryError::Taken)?;
    panic::log_panics(queue.clone());
    Ok(Logs {
        queue,
        layer,
        filter: handle,
    })
}

impl Logs {
    /// Logs as `settings` say from here on.
    ///
    /// # Errors
    /// [`TelemetryError::Level`] if the level cannot be understood; then nothing changes.
    pub fn change(&self, settings: &LogSettings) -> Result<(), TelemetryError> {
        let filter = filter::parse(&settings.level).map_err(TelemetryError::Level)?;
        self.filter.reload(filter).map_err(|_| TelemetryError::Taken)?;
        self.layer.change_format(settings.format);
        Ok(())
    }

    /// Waits until everything that was logged before is written, for at most a second.
    pub fn flush(&self) {
        self.queue.flush();
    }

    /// How many lines were dropped because nobody took them in time.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }
}

/// Describes the metrics of this crate.
pub fn describe_metrics() {
    queue::describe();
}
