//! Spans of `tracing`, and what is sent of them.

use knm_ports::Clock;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::mpsc::Receiver;
use tracing::subscriber::with_default;

use super::*;

const OPERATION: &str = "0190d3a0-7c1f-7e21-9c4d-1b2a3c4d5e6f";

struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> knm_model::Timestamp {
        knm_model::Timestamp::from_unix_millis(1_900_000_000_000).unwrap()
    }
}

/// What is sent of the spans of `work`, where so many of a hundred are kept.
fn sent(percent: u8, work: impl FnOnce()) -> Vec<Span> {
    let settings = TraceSettings {
        endpoint: "http://127.0.0.1:9".to_owned(),
        sample_percent: percent,
        headers_file: None,
        ca_file: None,
    };
    let identity = Identity {
        service: "s".to_owned(),
        version: "1".to_owned(),
        hostname: "h".to_owned(),
    };
    let collector = Collector::new(&settings).unwrap();
    let (queue, mut post) = queue::of(collector, &identity, CancellationToken::new());
    let spans = SpanLayer::new(queue, Sampling::new(percent).unwrap(), Arc::new(StoppedClock));
    with_default(Registry::default().with(spans.with_filter(layer::filter())), work);
    drain(&mut post.receiver)
}

fn drain(receiver: &mut Receiver<Span>) -> Vec<Span> {
    std::iter::from_fn(|| receiver.try_recv().ok()).collect()
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

fn server() -> tracing::Span {
    tracing::info_span!(target: "otel", "server", otel.kind = "server", otel.ended = tracing::field::Empty)
}

fn step() -> tracing::Span {
    tracing::info_span!(
        target: "otel", "step", otel.operation = OPERATION, otel.tentative = true, otel.forgotten = tracing::field::Empty
    )
}

#[test]
fn a_span_is_within_the_one_around_it_also_through_spans_of_the_log() {
    let spans = sent(100, || {
        let server = server();
        let logged = server.in_scope(|| tracing::info_span!(target: "knm_http", "request", request_id = "r"));
        logged.in_scope(|| {
            tracing::info!("a line");
            drop(tracing::info_span!(target: "otel", "call", otel.kind = "client", k8s.verb = "get"));
        });
    });
    let [call, server] = &spans[..] else {
        panic!("{spans:?}");
    };
    assert_eq!(
        (&call.trace_id, &call.parent_span_id),
        (&server.trace_id, &server.span_id)
    );
    assert_eq!(server.attributes, []);
    assert_eq!(call.attributes.len(), 1, "what begins with otel. is no attribute");
}

#[test]
fn what_nobody_asked_for_and_what_is_not_sampled_is_in_no_trace() {
    let call = || drop(tracing::info_span!(target: "otel", "call", otel.kind = "client"));
    assert_eq!(sent(100, call), []);
    let all = || {
        server().in_scope(call);
        step().in_scope(call);
        drop(tracing::info_span!(target: "otel", "operation", otel.whole_operation = OPERATION));
    };
    assert_eq!(sent(0, all), []);
    assert_eq!(names(&sent(100, all)), ["call", "server", "call", "step", "operation"]);
}

#[test]
fn a_step_that_found_nothing_is_forgotten_with_all_that_is_within() {
    let call = || drop(tracing::info_span!(target: "otel", "call", otel.kind = "client"));
    let spans = sent(100, || {
        let quiet = step();
        quiet.in_scope(call);
        quiet.record("otel.forgotten", true);
        drop(quiet);
        step().in_scope(call);
    });
    assert_eq!(names(&spans), ["call", "step"]);
    assert_eq!(spans[0].parent_span_id, spans[1].span_id);
}

#[test]
fn an_ended_request_waits_for_nobody_who_still_holds_it() {
    let spans = sent(100, || {
        let server = server();
        let held = server.in_scope(|| tracing::info_span!(target: "otel", "late"));
        server.record("otel.ended", true);
        drop(server);
        drop(held);
    });
    assert_eq!(names(&spans), ["server", "late"]);
}

#[test]
fn lines_know_the_trace_that_they_are_in() {
    let spans = sent(100, || {
        assert_eq!(current(), None);
        server().in_scope(|| {
            let trace = current().unwrap();
            assert_eq!(trace.len(), 32);
            tracing::info_span!(target: "knm_http", "request").in_scope(|| assert_eq!(current(), Some(trace)));
        });
        assert_eq!(current(), None);
    });
    assert_eq!(spans.len(), 1);
    sent(0, || server().in_scope(|| assert_eq!(current(), None)));
}

#[test]
fn what_does_not_fit_into_the_queue_is_dropped_and_holds_up_nobody() {
    let spans = sent(100, || {
        for _ in 0..10_000 {
            drop(server());
        }
    });
    assert_eq!(spans.len(), 4_096);
}
