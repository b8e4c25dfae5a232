//! From events of `tracing` to lines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use knm_ports::{Clock, chain};
use serde::{Serialize, Serializer};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::Identity;
use crate::filter::TRACED;
use crate::format::{Caller, Line, LogFormat};
use crate::queue::LineQueue;
use crate::traces;

/// Writes each event as one line into the queue.
#[derive(Clone)]
pub(crate) struct LineLayer {
    /// A [`LogFormat`] as number: it may change while the process runs.
    format: Arc<AtomicU8>,
    identity: Arc<Identity>,
    clock: Arc<dyn Clock>,
    queue: LineQueue,
}

/// What was recorded in a span or an event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) message: String,
    pub(crate) request_id: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) fields: Fields,
}

/// Fields in the order in which they were recorded, each name once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    pub(crate) fn set(&mut self, name: &'static str, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl LineLayer {
    pub(crate) fn new(format: LogFormat, identity: Identity, clock: Arc<dyn Clock>, queue: LineQueue) -> Self {
        Self {
            format: Arc::new(AtomicU8::new(format as u8)),
            identity: Arc::new(identity),
            clock,
            queue,
        }
    }

    pub(crate) fn change_format(&self, format: LogFormat) {
        self.format.store(format as u8, Ordering::Relaxed);
    }
}

impl<S> Layer<S> for LineLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        // A filter that names spans by their fields lets through also what is there for traces only.
        if let Some(span) = context.span(id).filter(|_| attributes.metadata().target() != TRACED) {
            let mut recorded = Recorded::default();
            attributes.record(&mut recorded);
            span.extensions_mut().insert(recorded);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(recorded) = span.extensions_mut().get_mut::<Recorded>()
        {
            values.record(recorded);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut recorded = Recorded::default();
        for span in context
            .event_scope(event)
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            if let Some(outer) = span.extensions().get::<Recorded>() {
                recorded.absorb(outer);
            }
        }
        if let Some(trace) = traces::current() {
            recorded.fields.set("trace_id", Value::String(trace));
        }
        event.record(&mut recorded);
        let metadata = event.metadata();
        let line = Line {
            identity: &self.identity,
            time: self.clock.now(),
            level: *metadata.level(),
            target: metadata.target(),
            caller: Caller {
                file: metadata.file().unwrap_or(metadata.target()),
                line: metadata.line().unwrap_or(0),
            },
            recorded,
        };
        let format = LogFormat::from_number(self.format.load(Ordering::Relaxed));
        self.queue.push(&line.write(format));
    }
}

impl Recorded {
    fn absorb(&mut self, outer: &Self) {
        if outer.request_id.is_some() {
            self.request_id.clone_from(&outer.request_id);
        }
        if outer.error.is_some() {
            self.error.clone_from(&outer.error);
        }
        for (name, value) in outer.fields.iter() {
            self.fields.set(name, value.clone());
        }
    }

    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", value) => self.message = text(value),
            ("request_id", value) => self.request_id = Some(text(value)),
            ("error", value) => self.error = Some(text(value)),
            (name, value) => self.fields.set(name, value),
        }
    }
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

impl Visit for Recorded {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::String(value.to_owned()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::Bool(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, Value::String(chain(value)));
    }
}
