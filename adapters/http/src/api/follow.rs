//! The events of an operation as server-sent events.

use std::pin::Pin;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use knm_model::{OperationEvent, QueryError, excerpt};
use knm_ports::StorageError;
use poem::http::HeaderMap;
use poem_openapi::Object;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::answer::json as written;
use crate::gate::Follower;

/// How often a stream without news says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// One event: its kind is in the line `event`, its number in `id`, its data as JSON in `data`.
#[derive(Object)]
#[oai(rename = "FollowEvent")]
pub(crate) struct FollowEventView {
    #[oai(skip)]
    pub(crate) kind: &'static str,
    #[oai(skip)]
    pub(crate) number: Option<u64>,
    /// The data of the event, as JSON.
    pub(crate) data: String,
}

/// After which event a reader wants to go on: 0 for all of them.
///
/// # Errors
/// What was given is no number of an event.
pub(super) fn resume_after(headers: &HeaderMap, parameter: Option<String>) -> Result<u64, QueryError> {
    let asked = headers
        .get("last-event-id")
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match asked.or(parameter).filter(|text| !text.is_empty()) {
        None => Ok(0),
        // Only digits: a number may have a sign, and an id has none.
        Some(text) => match text.parse() {
            Ok(number) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
            Ok(_) | Err(_) => {
                let text = excerpt(&text);
                let message =
                    format!("\"{text}\" is not the id of an event: the id of an event of this operation is expected");
                Err(QueryError::new("last_event_id", message))
            }
        },
    }
}

type Batches = Pin<Box<dyn Stream<Item = Result<Vec<OperationEvent>, StorageError>> + Send>>;

struct Reader {
    batches: Batches,
    shutdown: CancellationToken,
    shut_out: BoxFuture<'static, ()>,
    ready: std::vec::IntoIter<OperationEvent>,
    is_over: bool,
}

/// The events as they come, until the operation is over, or this process ends.
pub(super) fn events(
    batches: impl Stream<Item = Result<Vec<OperationEvent>, StorageError>> + Send + 'static,
    follower: Follower,
    shutdown: CancellationToken,
) -> impl Stream<Item = FollowEventView> {
    let reader = Reader {
        batches: Box::pin(batches),
        shutdown,
        shut_out: follower.shut_out().boxed(),
        ready: Vec::new().into_iter(),
        is_over: false,
    };
    futures::stream::unfold(reader, |mut reader| async move {
        reader.next().await.map(|event| (event, reader))
    })
}

impl Reader {
    async fn next(&mut self) -> Option<FollowEventView> {
        loop {
            if let Some(event) = self.ready.next() {
                return Some(view(event));
            }
            if self.is_over {
                return None;
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return Some(self.end("shutdown")),
                () = &mut self.shut_out => return Some(self.end("signed-out")),
                batch = self.batches.next() => match batch {
                    Some(Ok(events)) => self.ready = events.into_iter(),
                    Some(Err(error)) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "the events of an operation could not be read");
                        return Some(self.end("database"));
                    }
                    None => return Some(self.end("over")),
                },
                () = tokio::time::sleep(HEARTBEAT) => return Some(told("heartbeat", None, &json!({}))),
            }
        }
    }

    fn end(&mut self, reason: &str) -> FollowEventView {
        self.is_over = true;
        told("end", None, &json!({"reason": reason}))
    }
}

fn view(event: OperationEvent) -> FollowEventView {
    let mut data = event.event.data;
    data.insert("at".to_owned(), json!(event.event.at));
    told(event.event.kind.as_str(), Some(event.number), &Value::Object(data))
}

fn told(kind: &'static str, number: Option<u64>, data: &Value) -> FollowEventView {
    FollowEventView {
        kind,
        number,
        data: String::from_utf8_lossy(&written(data)).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn after(header: Option<&[u8]>, parameter: Option<&str>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        if let Some(bytes) = header {
            headers.insert("last-event-id", HeaderValue::from_bytes(bytes).unwrap());
        }
        resume_after(&headers, parameter.map(str::to_owned)).ok()
    }

    proptest! {
        #[test]
        fn a_reader_goes_on_after_the_event_that_it_names(number in any::<u64>(), other in any::<u64>()) {
            let text = number.to_string();
            prop_assert_eq!(after(Some(text.as_bytes()), Some(&other.to_string())), Some(number));
            prop_assert_eq!(after(None, Some(&text)), Some(number));
            for odd in [format!("+{text}"), format!("-{text}"), format!(" {text}"), format!("{text}.0"), format!("0x{text}"), format!("9{}", u64::MAX)] {
                prop_assert_eq!(after(None, Some(&odd)), None, "{}", odd);
            }
        }

        #[test]
        fn no_header_makes_it_panic(bytes in proptest::collection::vec(0x20_u8..0x7f, 0..40), high in proptest::collection::vec(0x80_u8..=0xff, 0..8)) {
            let all = [bytes, high].concat();
            let is_number = all.iter().all(u8::is_ascii_digit) && all.len() < 20;
            prop_assert_eq!(after(Some(&all), None).is_some(), is_number);
        }
    }
}
