//! A collector of traces in this process, which keeps what it is sent.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;

use crate::patience::wait_for;

/// What the collector does with spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It takes them.
    Takes,
    /// It answers with status 503.
    Refuses,
    /// It never answers.
    Hangs,
}

/// A span, with its ids in digits of 16.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldSpan {
    /// Its trace.
    pub trace: String,
    /// Its id.
    pub id: String,
    /// The id of the span that it is in; empty if it is in none.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: SpanKind,
    /// Whether what it is about went wrong.
    pub has_failed: bool,
    /// How long it took, in nanoseconds.
    pub nanoseconds: u64,
    /// Its attributes, as texts.
    pub attributes: BTreeMap<String, String>,
    /// The traces that it leads to.
    pub links: Vec<String>,
    /// What is said of the process that sent it.
    pub resource: BTreeMap<String, String>,
}

impl ToldSpan {
    /// An attribute; empty if there is none.
    #[must_use]
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// A running collector. It ends with the process.
pub struct Collector {
    address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    spans: Vec<ToldSpan>,
    /// Everything that came, head and body.
    bytes: Vec<u8>,
    requests: usize,
    manner: Option<Manner>,
}

impl Collector {
    /// Starts one on a free port of loopback.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let kept = Arc::new(Mutex::new(Kept {
            manner: Some(manner),
            ..Kept::default()
        }));
        let ours = Arc::clone(&kept);
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let ours = Arc::clone(&ours);
                // A connection that breaks is the business of whoever made it.
                std::thread::spawn(move || drop(serve(connection, &ours)));
            }
        });
        Self { address, kept }
    }

    /// Where it is, for the configuration.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Does otherwise from here on.
    pub fn change(&self, manner: Manner) {
        lock(&self.kept).manner = Some(manner);
    }

    /// All spans so far.
    #[must_use]
    pub fn spans(&self) -> Vec<ToldSpan> {
        lock(&self.kept).spans.clone()
    }

    /// How many requests arrived.
    #[must_use]
    pub fn requests(&self) -> usize {
        lock(&self.kept).requests
    }

    /// All that arrived, as far as it is text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.kept).bytes).into_owned()
    }

    /// Waits for the spans that `wanted` is about: as many at least.
    ///
    /// # Panics
    /// If they do not come.
    #[must_use]
    pub fn wait_for(&self, what: &str, least: usize, wanted: impl Fn(&ToldSpan) -> bool) -> Vec<ToldSpan> {
        wait_for(what, || {
            let spans: Vec<_> = self.spans().into_iter().filter(|span| wanted(span)).collect();
            (least <= spans.len()).then_some(spans)
        })
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads requests until the other side has no more.
fn serve(connection: TcpStream, kept: &Mutex<Kept>) -> io::Result<()> {
    let mut reader = BufReader::new(connection);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        let manner = {
            let mut kept = lock(kept);
            kept.requests += 1;
            kept.bytes.extend_from_slice(head.as_bytes());
            kept.bytes.extend_from_slice(&body);
            let manner = kept.manner.unwrap_or(Manner::Takes);
            if manner == Manner::Takes {
                assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
                let told = ExportTraceServiceRequest::decode(body.as_slice()).map_err(io::Error::other)?;
                kept.spans.extend(read(told));
            }
            manner
        };
        let status = match manner {
            Manner::Takes => "200 OK",
            Manner::Refuses => "503 Service Unavailable",
            Manner::Hangs => {
                // Until the other side has had enough.
                let _ = reader.read(&mut [0]);
                return Ok(());
            }
        };
        write!(reader.get_mut(), "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")?;
    }
}

fn read(told: ExportTraceServiceRequest) -> Vec<ToldSpan> {
    let mut spans = Vec::new();
    for group in told.resource_spans {
        let resource = group
            .resource
            .map(|resource| texts(resource.attributes))
            .unwrap_or_default();
        for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(ToldSpan {
                trace: digits(&span.trace_id),
                id: digits(&span.span_id),
                parent: digits(&span.parent_span_id),
                kind: span.kind(),
                name: span.name,
                has_failed: span.status.is_some_and(|status| status.code == 2),
                nanoseconds: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
                attributes: texts(span.attributes),
                links: span.links.iter().map(|link| digits(&link.trace_id)).collect(),
                resource: resource.clone(),
            });
        }
    }
    spans
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
        other => format!("{other:?}"),
    };
    let attributes = attributes.into_iter();
    attributes
        .filter_map(|one| Some((one.key, text(one.value?.value?))))
        .collect()
}
