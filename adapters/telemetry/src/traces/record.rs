//! What spans are made of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tracing::field::{Field, Visit};

/// No text of a span is longer, in bytes.
const LONGEST_TEXT: usize = 256;

/// Where a span is: spans within it begin from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) trace: [u8; 16],
    pub(crate) span: [u8; 8],
}

/// Where the caller of this service is, as the header `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) place: Place,
    /// Whether the caller records its spans.
    pub(crate) is_sampled: bool,
}

/// What the fields of a span say.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// `otel.name`, where it is not that of the span.
    pub(crate) name: Option<String>,
    /// `otel.kind`: `server` or `client`.
    pub(crate) kind: SpanKind,
    /// `otel.parent`: the header `traceparent`.
    pub(crate) parent: Option<Remote>,
    /// `otel.operation`: the operation in whose trace the span is, where it is in no other one.
    pub(crate) operation: Option<Place>,
    /// `otel.whole_operation`: the operation that the span is about from its beginning to its end.
    pub(crate) whole_operation: Option<Place>,
    /// `otel.link`: an operation to whose trace the span leads.
    pub(crate) link: Option<Place>,
    /// `otel.started_ns`: when the span began, if that was before it was told of.
    pub(crate) started: Option<u64>,
    /// `otel.failed`: whether what the span is about went wrong.
    pub(crate) has_failed: bool,
    /// `otel.ended`: nothing more comes, whoever still holds the span.
    pub(crate) is_ended: bool,
    /// `otel.tentative`: what is within the span waits for its end, because it may be forgotten.
    pub(crate) is_tentative: bool,
    /// `otel.forgotten`: neither the span nor what is within it is worth telling.
    pub(crate) is_forgotten: bool,
    /// Everything else.
    pub(crate) attributes: Vec<KeyValue>,
}

impl Place {
    /// The span that is a whole operation. Each replica that works on an operation knows it without being told: the trace has the id of
    /// the operation.
    pub(crate) fn of_operation(id: &str) -> Option<Self> {
        let trace: [u8; 16] = bytes(&id.replace('-', ""))?;
        let (_, last) = trace.split_last_chunk()?;
        (*last != [0; 8]).then_some(Self { trace, span: *last })
    }
}

impl Remote {
    /// Reads the header `traceparent` of the W3C; what is anything else is not there.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let [version]: [u8; 1] = bytes(version)?;
        let [flags]: [u8; 1] = bytes(flags)?;
        // Later versions may add parts; the first one has none, and 255 is none at all.
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let place = Place {
            trace: bytes(trace)?,
            span: bytes(span)?,
        };
        let is_nowhere = place.trace == [0; 16] || place.span == [0; 8];
        (!is_nowhere).then_some(Self {
            place,
            is_sampled: flags & 1 == 1,
        })
    }
}

/// Makes ids, and decides which traces are kept.
#[derive(Clone, Debug)]
pub(crate) struct Sampling {
    percent: u8,
    counts: Arc<[AtomicU64; 2]>,
}

impl Sampling {
    pub(crate) fn new(percent: u8) -> Result<Self, String> {
        let random = || getrandom::u64().map_err(|error| format!("this machine has no randomness: {error}"));
        Ok(Self {
            percent,
            counts: Arc::new([AtomicU64::new(random()?), AtomicU64::new(random()?)]),
        })
    }

    /// The same for every replica and for every span of a trace.
    pub(crate) fn keeps(&self, trace: [u8; 16]) -> bool {
        // Ids of operations are not random in all of their bits.
        let mixed = mix(u128::from_be_bytes(trace) as u64);
        (u128::from(mixed) * 100) >> 64 < u128::from(self.percent)
    }

    pub(crate) fn new_trace(&self) -> [u8; 16] {
        let (high, low) = (self.next(0), self.next(1));
        (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
    }

    pub(crate) fn new_span(&self) -> [u8; 8] {
        self.next(1).to_be_bytes()
    }

    /// A number that looks like chance, never 0: each one comes from a count that began somewhere at random.
    fn next(&self, count: usize) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        mix(self.counts[count].fetch_add(STEP, Ordering::Relaxed)).max(1)
    }
}

/// Mixes bits such that each of them depends on all (the end of SplitMix64).
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Digits of 16 in lower case as bytes: exactly so many.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let is_digit = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 2 * N || !digits.iter().all(is_digit) {
        return None;
    }
    let mut read = [0; N];
    for (place, byte) in read.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(read)
}

/// An attribute, or a name of the resource.
pub(crate) fn attribute(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::StringValue(mut text) => {
            text.truncate(text.floor_char_boundary(LONGEST_TEXT));
            Value::StringValue(text)
        }
        other => other,
    };
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

impl Told {
    fn text(&mut self, field: &Field, text: &str) {
        match field.name() {
            "otel.name" => self.name = Some(text.to_owned()),
            "otel.kind" => {
                self.kind = match text {
                    "server" => SpanKind::Server,
                    "client" => SpanKind::Client,
                    _ => SpanKind::Internal,
                };
            }
            "otel.parent" => self.parent = Remote::parse(text),
            "otel.operation" => self.operation = Place::of_operation(text),
            "otel.whole_operation" => self.whole_operation = Place::of_operation(text),
            "otel.link" => self.link = Place::of_operation(text),
            name => self.put(name, Value::StringValue(text.to_owned())),
        }
    }

    fn put(&mut self, name: &'static str, value: Value) {
        self.attributes.push(attribute(name, value));
    }
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        match field.name() {
            "otel.failed" => self.has_failed = value,
            "otel.ended" => self.is_ended = value,
            "otel.tentative" => self.is_tentative = value,
            "otel.forgotten" => self.is_forgotten = value,
            name => self.put(name, Value::BoolValue(value)),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), Value::IntValue(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "otel.started_ns" => self.started = Some(value),
            name => self.put(name, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn the_header_of_the_caller_is_read_as_the_w3c_writes_it() {
        let remote = Remote::parse(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        assert_eq!(remote.place.trace[..2], [0x0a, 0xf7]);
        assert_eq!(remote.place.span[7], 0x31);
        assert!(remote.is_sampled);
        assert!(!Remote::parse(&format!("00-{TRACE}-{SPAN}-02")).unwrap().is_sampled);
        assert!(Remote::parse(&format!("01-{TRACE}-{SPAN}-03-more")).unwrap().is_sampled);
    }

    #[test]
    fn a_header_that_is_anything_else_is_not_there() {
        for text in [
            String::new(),
            "00".to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}0-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-+1"),
            format!("00-{}-{SPAN}-01", "é".repeat(16)),
        ] {
            assert_eq!(Remote::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn every_replica_finds_the_same_trace_of_an_operation() {
        let place = Place::of_operation("0190d3a0-7c1f-7e21-9c4d-1b2a3c4d5e6f").unwrap();
        assert_eq!(place.trace[..4], [0x01, 0x90, 0xd3, 0xa0]);
        assert_eq!(place.span, [0x9c, 0x4d, 0x1b, 0x2a, 0x3c, 0x4d, 0x5e, 0x6f]);
        assert_eq!(Place::of_operation("soon"), None);
    }

    #[test]
    fn as_many_traces_are_kept_as_configured_also_of_ids_that_carry_their_time() {
        for percent in [0, 10, 50, 100] {
            let sampling = Sampling::new(percent).unwrap();
            let random = (0..10_000).filter(|_| sampling.keeps(sampling.new_trace())).count();
            // As version 7 of UUIDs has them: a time, fixed bits, and a count here.
            let timed = |count: u64| (0x0190_d3a0_7c1f_7000_u128 << 64 | u128::from(1 << 63 | count)).to_be_bytes();
            let of_operations = (0..10_000).filter(|count| sampling.keeps(timed(*count))).count();
            for kept in [random, of_operations] {
                let wanted = usize::from(percent) * 100;
                assert!(kept.abs_diff(wanted) <= wanted / 5, "{kept} of {wanted}");
            }
        }
    }

    #[test]
    fn no_id_comes_twice() {
        let sampling = Sampling::new(100).unwrap();
        let ids: std::collections::HashSet<_> = (0..10_000).map(|_| sampling.new_span()).collect();
        assert_eq!(ids.len(), 10_000);
    }

    #[test]
    fn no_text_is_longer_than_allowed() {
        let long = attribute("a", Value::StringValue("é".repeat(1_000)));
        let Some(Value::StringValue(text)) = long.value.unwrap().value else {
            panic!("it is no text");
        };
        assert_eq!(text.len(), LONGEST_TEXT);
    }
}
