//! From spans of `tracing` to those that are sent.

use std::cell::RefCell;
use std::sync::Arc;

use knm_ports::Clock;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, SpanFlags, Status};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use crate::filter::TRACED;
use crate::traces::queue::SpanQueue;
use crate::traces::record::{Place, Sampling, Told};

thread_local! {
    /// The traces of the spans that were entered on this thread, the innermost last.
    static ENTERED: RefCell<Vec<Option<[u8; 16]>>> = const { RefCell::new(Vec::new()) };
}

/// The id of the trace that this thread works in, for the lines of the log.
pub(crate) fn current() -> Option<String> {
    let trace = ENTERED.try_with(|entered| entered.borrow().last().copied().flatten());
    trace
        .ok()
        .flatten()
        .map(|trace| format!("{:032x}", u128::from_be_bytes(trace)))
}

/// Which spans are looked at: those that are traced, and ours that are only there for the log, because others may be inside of them.
pub(crate) fn filter() -> FilterFn {
    let is_ours = |metadata: &Metadata<'_>| {
        metadata.is_span()
            && *metadata.level() <= Level::INFO
            && (metadata.target() == TRACED || metadata.target().starts_with("knm_"))
    };
    filter_fn(is_ours as fn(&Metadata<'_>) -> bool).with_max_level_hint(LevelFilter::INFO)
}

/// How many spans wait for the one that they are in to end.
const MOST_HELD: usize = 256;

/// Turns spans under the target `otel` into those that are sent.
pub(crate) struct SpanLayer {
    queue: SpanQueue,
    sampling: Sampling,
    clock: Arc<dyn Clock>,
}

/// A span that has not ended.
struct Open(Span);

/// The spans within one of which is not known before its end whether it is worth telling.
#[derive(Default)]
struct Held {
    spans: Vec<Span>,
    is_forgotten: bool,
}

impl SpanLayer {
    pub(crate) fn new(queue: SpanQueue, sampling: Sampling, clock: Arc<dyn Clock>) -> Self {
        Self { queue, sampling, clock }
    }

    /// Where a span is that says `told` and is inside of `around`, and who is its parent; `None` if it is not kept.
    fn place(&self, told: &Told, around: Option<Place>) -> Option<(Place, Option<Place>)> {
        let within = |parent: Place| {
            let place = Place {
                trace: parent.trace,
                span: self.sampling.new_span(),
            };
            (place, Some(parent))
        };
        let kept = |place: &Place| self.sampling.keeps(place.trace);
        if let Some(whole) = told.whole_operation {
            return Some((whole, None)).filter(|(place, _)| kept(place));
        }
        // What is inside of a span that is kept is kept, too.
        if let Some(parent) = around.or(told.operation.filter(kept)) {
            return Some(within(parent));
        }
        // What nobody asked for begins no trace: calls of a watch, say.
        if told.kind != SpanKind::Server {
            return None;
        }
        match told.parent {
            // The caller can leave us out, and cannot make us keep more than is configured.
            Some(remote) => Some(within(remote.place)).filter(|(place, _)| remote.is_sampled && kept(place)),
            None => {
                let place = Place {
                    trace: self.sampling.new_trace(),
                    span: self.sampling.new_span(),
                };
                Some((place, None)).filter(|(place, _)| kept(place))
            }
        }
    }

    fn begin(&self, name: &'static str, told: Told, place: Place, parent: Option<Place>) -> Span {
        let mut flags = SpanFlags::ContextHasIsRemoteMask as u32 | 1;
        if told.parent.is_some_and(|remote| parent == Some(remote.place)) {
            flags |= SpanFlags::ContextIsRemoteMask as u32;
        }
        let link = told.link.filter(|link| self.sampling.keeps(link.trace));
        let mut span = Span {
            trace_id: place.trace.to_vec(),
            span_id: place.span.to_vec(),
            parent_span_id: parent.map(|parent| parent.span.to_vec()).unwrap_or_default(),
            flags,
            name: told.name.clone().unwrap_or_else(|| name.to_owned()),
            kind: match told.kind {
                SpanKind::Unspecified => SpanKind::Internal,
                kind => kind,
            } as i32,
            start_time_unix_nano: told.started.unwrap_or_else(|| self.clock.now().unix_nanos()),
            links: link.map(link_to).into_iter().collect(),
            ..Span::default()
        };
        add(&mut span, told);
        span
    }

    /// Ends `open`, which is what `span` is about.
    fn end<S: for<'a> LookupSpan<'a>>(&self, span: &SpanRef<'_, S>, mut open: Span) {
        open.end_time_unix_nano = self.clock.now().unix_nanos().max(open.start_time_unix_nano);
        let held = span.extensions_mut().remove::<Held>().unwrap_or_default();
        if held.is_forgotten {
            return;
        }
        let mut ended = held.spans;
        ended.push(open);
        for outer in span.scope().skip(1) {
            if let Some(held) = outer.extensions_mut().get_mut::<Held>() {
                let room = MOST_HELD.saturating_sub(held.spans.len());
                held.spans.extend(ended.drain(..room.min(ended.len())));
                SpanQueue::dropped(ended.len());
                return;
            }
        }
        for one in ended {
            self.queue.push(one);
        }
    }
}

impl<S> Layer<S> for SpanLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let metadata = attributes.metadata();
        let Some(span) = context.span(id).filter(|_| metadata.target() == TRACED) else {
            return;
        };
        let mut told = Told::default();
        attributes.record(&mut told);
        let around = span
            .scope()
            .skip(1)
            .find_map(|outer| outer.extensions().get::<Place>().copied());
        if let Some((place, parent)) = self.place(&told, around) {
            let is_tentative = told.is_tentative;
            let begun = self.begin(metadata.name(), told, place, parent);
            let mut extensions = span.extensions_mut();
            if is_tentative {
                extensions.insert(Held::default());
            }
            extensions.insert(place);
            extensions.insert(Open(begun));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else {
            return;
        };
        let mut told = Told::default();
        values.record(&mut told);
        let (is_ended, is_forgotten) = (told.is_ended, told.is_forgotten);
        let ended = {
            let mut extensions = span.extensions_mut();
            if let Some(held) = extensions.get_mut::<Held>() {
                held.is_forgotten |= is_forgotten;
            }
            let Some(Open(open)) = extensions.get_mut::<Open>() else {
                return;
            };
            add(open, told);
            match is_ended {
                true => extensions.remove::<Open>(),
                false => None,
            }
        };
        if let Some(Open(open)) = ended {
            self.end(&span, open);
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        let place = context.span(id).and_then(|span| {
            let mut scope = span.scope();
            scope.find_map(|span| span.extensions().get::<Place>().copied())
        });
        // Only a thread that ends has none any more, and it logs nothing.
        let _ = ENTERED.try_with(|entered| entered.borrow_mut().push(place.map(|place| place.trace)));
    }

    fn on_exit(&self, _: &Id, _: Context<'_, S>) {
        let _ = ENTERED.try_with(|entered| entered.borrow_mut().pop());
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else {
            return;
        };
        let open = span.extensions_mut().remove::<Open>();
        if let Some(Open(open)) = open {
            self.end(&span, open);
        }
    }
}

fn add(span: &mut Span, told: Told) {
    if let Some(name) = told.name {
        span.name = name;
    }
    span.attributes.extend(told.attributes);
    if told.has_failed {
        // Without a message: those that there are may hold anything, and the log has them.
        span.status = Some(Status {
            message: String::new(),
            code: StatusCode::Error as i32,
        });
    }
}

fn link_to(place: Place) -> Link {
    Link {
        trace_id: place.trace.to_vec(),
        span_id: place.span.to_vec(),
        flags: 1,
        ..Link::default()
    }
}
