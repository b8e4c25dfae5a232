//! The queue between those who record spans and the one who sends them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Identity;
use crate::traces::collector::{Collector, DeliveryError};
use crate::traces::record::attribute;

/// How many spans may wait: a few megabytes.
const WAITING: usize = 4_096;
/// How many are sent together.
const TOGETHER: usize = 512;
/// How long the first span of a batch waits for others.
const GATHERING: Duration = Duration::from_secs(1);

const DROPPED: &str = "kube_node_manager_trace_spans_dropped_total";
const SENT: &str = "kube_node_manager_trace_spans_sent_total";

pub(crate) fn describe() {
    metrics::describe_counter!(
        DROPPED,
        "Spans of traces that were dropped because the collector did not take them in time."
    );
    metrics::describe_counter!(SENT, "Spans of traces that the collector took.");
    metrics::counter!(DROPPED).increment(0);
    metrics::counter!(SENT).increment(0);
}

/// Takes spans without ever waiting for the collector.
#[derive(Clone)]
pub(crate) struct SpanQueue {
    sender: mpsc::Sender<Span>,
    /// Those that were taken and are neither sent nor dropped.
    waiting: Arc<AtomicUsize>,
}

/// Sends what is queued, batch by batch.
pub(crate) struct Post {
    pub(super) receiver: mpsc::Receiver<Span>,
    waiting: Arc<AtomicUsize>,
    collector: Collector,
    resource: Resource,
    scope: InstrumentationScope,
    ending: CancellationToken,
}

pub(crate) fn of(collector: Collector, identity: &Identity, ending: CancellationToken) -> (SpanQueue, Post) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let waiting = Arc::new(AtomicUsize::new(0));
    let text = |key, text: &str| attribute(key, Value::StringValue(text.to_owned()));
    let queue = SpanQueue {
        sender,
        waiting: Arc::clone(&waiting),
    };
    let post = Post {
        receiver,
        waiting,
        collector,
        resource: Resource {
            attributes: vec![
                text("service.name", &identity.service),
                text("service.version", &identity.version),
                text("service.instance.id", &identity.hostname),
            ],
            ..Resource::default()
        },
        scope: InstrumentationScope {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: identity.version.clone(),
            ..InstrumentationScope::default()
        },
        ending,
    };
    (queue, post)
}

impl SpanQueue {
    pub(crate) fn push(&self, span: Span) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if self.sender.try_send(span).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            Self::dropped(1);
        }
    }

    /// Counts spans that nobody will see.
    pub(crate) fn dropped(spans: usize) {
        metrics::counter!(DROPPED).increment(spans as u64);
    }

    /// Drops what still waits, and says how much that was.
    pub(crate) fn give_up(&self) -> usize {
        let spans = self.waiting.swap(0, Ordering::Relaxed);
        Self::dropped(spans);
        spans
    }
}

impl Post {
    /// Sends until the end is asked for and the queue is empty.
    pub(crate) async fn run(mut self) {
        let mut is_away = false;
        loop {
            let batch = self.gathered().await;
            if batch.is_empty() {
                return;
            }
            let spans = batch.len();
            let outcome = self.collector.deliver(self.written(batch).encode_to_vec().into()).await;
            self.waiting.fetch_sub(spans, Ordering::Relaxed);
            let refused = *outcome.as_ref().unwrap_or(&spans);
            SpanQueue::dropped(refused);
            metrics::counter!(SENT).increment(spans.saturating_sub(refused) as u64);
            is_away = tell(outcome, is_away);
        }
    }

    /// The next batch; an empty one after the last.
    async fn gathered(&mut self) -> Vec<Span> {
        let mut batch = Vec::with_capacity(TOGETHER);
        tokio::select! {
            _ = self.receiver.recv_many(&mut batch, TOGETHER) => {}
            () = self.ending.cancelled() => self.receiver.close(),
        }
        let until = Instant::now() + GATHERING;
        while batch.len() < TOGETHER && !self.receiver.is_closed() {
            let room = TOGETHER - batch.len();
            tokio::select! {
                _ = self.receiver.recv_many(&mut batch, room) => {}
                () = self.ending.cancelled() => self.receiver.close(),
                () = tokio::time::sleep_until(until) => return batch,
            }
        }
        // Closed: what is there is the rest.
        while batch.len() < TOGETHER
            && let Ok(span) = self.receiver.try_recv()
        {
            batch.push(span);
        }
        batch
    }

    fn written(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(self.scope.clone()),
                    spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        }
    }
}

/// Tells that the collector went away or came back, and nothing while it is as it was. Returns whether it is away.
fn tell(outcome: Result<usize, DeliveryError>, was_away: bool) -> bool {
    match (&outcome, was_away) {
        (Err(error), false) => tracing::warn!(
            error = error as &dyn std::error::Error,
            "the collector takes no traces: spans are dropped until it does"
        ),
        (Ok(_), true) => tracing::info!("the collector takes traces again"),
        (Err(_), true) | (Ok(_), false) => {}
    }
    outcome.is_err()
}
