//! What there is of traces in a build without them: a sentence that says which feature to build.

use std::sync::Arc;
use std::time::Duration;

use knm_ports::Clock;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::layer::LineLayer;
use crate::{Identity, TelemetryError, TraceSettings};

/// Traces, of which this build has none.
#[derive(Debug)]
pub enum Traces {}

impl Traces {
    /// Refuses, because this build traces nothing.
    ///
    /// # Errors
    /// [`TelemetryError::TracesNotBuilt`].
    pub fn open(_: &TraceSettings, _: &Identity) -> Result<Self, TelemetryError> {
        Err(TelemetryError::TracesNotBuilt)
    }

    /// Nothing is sent.
    pub fn start(&self) {
        match *self {}
    }

    /// Nothing is waited for.
    pub async fn finish(&self, _: Duration) {
        match *self {}
    }

    pub(crate) fn subscribe(
        &self,
        _: LineLayer,
        _: reload::Layer<EnvFilter, Registry>,
        _: Arc<dyn Clock>,
    ) -> Result<(), SetGlobalDefaultError> {
        match *self {}
    }
}

/// No line belongs to a trace.
pub(crate) fn current() -> Option<String> {
    None
}
