//! Traces: spans that the other crates begin under the target `otel`, sent to a collector by OTLP over HTTP.
//!
//! A span is an ordinary span of `tracing`. Fields whose names begin with `otel.` say what it is and never reach the collector; all
//! others are its attributes. They are listed in [`record`].

mod collector;
mod layer;
mod queue;
mod record;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use knm_ports::Clock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::layer::LineLayer;
use crate::traces::collector::Collector;
use crate::traces::layer::SpanLayer;
use crate::traces::queue::{Post, SpanQueue};
use crate::traces::record::Sampling;
use crate::{Identity, TelemetryError, TraceSettings};

pub(crate) use crate::traces::layer::current;

/// The traces of this process. Spans wait in a queue of limited length and are sent by a task of their own: whatever the collector does,
/// nobody else waits for it.
pub struct Traces {
    queue: SpanQueue,
    sampling: Sampling,
    /// Taken when sending begins.
    post: Mutex<Option<Post>>,
    sending: Mutex<Option<JoinHandle<()>>>,
    /// What is queued is sent, and then no more.
    ending: CancellationToken,
}

impl Traces {
    /// Prepares to send spans to the collector, which need not be there.
    ///
    /// # Errors
    /// [`TelemetryError::Traces`] if the settings cannot be used.
    pub fn open(settings: &TraceSettings, identity: &Identity) -> Result<Self, TelemetryError> {
        let collector = Collector::new(settings).map_err(TelemetryError::Traces)?;
        let sampling = Sampling::new(settings.sample_percent).map_err(TelemetryError::Traces)?;
        let ending = CancellationToken::new();
        let (queue, post) = queue::of(collector, identity, ending.clone());
        Ok(Self {
            queue,
            sampling,
            post: Mutex::new(Some(post)),
            sending: Mutex::new(None),
            ending,
        })
    }

    /// Begins to send. Must be called within the runtime, once.
    pub fn start(&self) {
        let post = lock(&self.post).take();
        if let Some(post) = post {
            queue::describe();
            *lock(&self.sending) = Some(tokio::spawn(post.run()));
        }
    }

    /// Sends what waits, for at most `limit`. What is recorded from here on is dropped.
    pub async fn finish(&self, limit: Duration) {
        self.ending.cancel();
        let sending = lock(&self.sending).take();
        let Some(mut sending) = sending else {
            return;
        };
        if tokio::time::timeout(limit, &mut sending).await.is_err() {
            sending.abort();
            let spans = self.queue.give_up();
            if 0 < spans {
                tracing::warn!(
                    spans,
                    "the last spans of traces could not be sent in time and were dropped"
                );
            }
        }
    }

    pub(crate) fn subscribe(
        &self,
        lines: LineLayer,
        filter: reload::Layer<EnvFilter, Registry>,
        clock: Arc<dyn Clock>,
    ) -> Result<(), SetGlobalDefaultError> {
        let spans = SpanLayer::new(self.queue.clone(), self.sampling.clone(), clock);
        // What is logged and what is traced is decided apart: a quiet log does not empty the traces.
        let subscriber = Registry::default()
            .with(lines.with_filter(filter))
            .with(spans.with_filter(layer::filter()));
        tracing::subscriber::set_global_default(subscriber)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
