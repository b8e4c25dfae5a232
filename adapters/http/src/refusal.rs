//! Answers to requests whose head cannot be read.
//!
//! hyper refuses them by itself, with a bare status, before anything of ours is called. Callers get a problem all the same.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use poem::http::{HeaderMap, StatusCode};

use crate::answer::json;
use crate::edge::log;
use crate::headers::secure;
use crate::metric::REQUESTS;
use crate::problem::{self, Kind, Problem};
use crate::route::UNMATCHED;

/// What hyper sends by itself: only a head, without the id of a request, which every answer of ours has.
const BARE: [(&[u8], StatusCode); 3] = [
    (b"HTTP/1.1 400 ", StatusCode::BAD_REQUEST),
    (b"HTTP/1.1 414 ", StatusCode::URI_TOO_LONG),
    (b"HTTP/1.1 431 ", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
];
const OF_HTTP_2: &str = "this is no HTTP/1.1: HTTP/2 is not spoken here";
const OF_PLAIN_HTTP: &str = "TLS is spoken here: https:// instead of http:// reaches it";

/// The answer to send instead of `bytes`, if they are a refusal that hyper wrote by itself.
pub(crate) fn instead_of(bytes: &[u8]) -> Option<Bytes> {
    let (_, status) = BARE.iter().find(|(start, _)| bytes.starts_with(start))?;
    let head = std::str::from_utf8(bytes).ok()?.strip_suffix("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    if lines.clone().any(|line| line.starts_with("x-request-id:")) {
        return None;
    }
    let first = lines.next()?;
    let kept = lines.filter(|line| !line.starts_with("content-length:"));
    let detail = match *status {
        StatusCode::URI_TOO_LONG => "the URL is longer than any that can be read",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "the headers are larger, or more, than can be read",
        _ => "the request's first line or its headers are not HTTP",
    };
    Some(refusal(first, kept, *status, detail))
}

/// The answer to those who speak without TLS where TLS is spoken.
pub(crate) fn of_plain_http() -> Bytes {
    let kept = std::iter::once("connection: close");
    refusal("HTTP/1.1 400 Bad Request", kept, StatusCode::BAD_REQUEST, OF_PLAIN_HTTP)
}

/// The answer to those who start to speak HTTP/2, which hyper leaves without any.
pub(crate) fn of_http_2() -> Bytes {
    let kept = std::iter::once("connection: close");
    refusal("HTTP/1.1 400 Bad Request", kept, StatusCode::BAD_REQUEST, OF_HTTP_2)
}

/// Writes the answer and what the log and the metrics have of each request.
fn refusal<'a>(first: &str, kept: impl Iterator<Item = &'a str>, status: StatusCode, detail: &str) -> Bytes {
    let id = uuid::Uuid::new_v4().simple().to_string();
    let body = json(&Problem::new(Kind::of(status), detail).view(&id, false));
    let mut headers = HeaderMap::new();
    secure(&mut headers, UNMATCHED);
    let mut answer = format!("{first}\r\n");
    let ours = [
        format!("content-type: {}", problem::CONTENT_TYPE),
        format!("content-length: {}", body.len()),
        format!("x-request-id: {id}"),
    ];
    let shared = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
    for line in kept.map(str::to_owned).chain(ours).chain(shared) {
        // Writing to a text does not fail.
        let _ = write!(answer, "{line}\r\n");
    }
    answer.push_str("\r\n");

    let code = status.as_u16().to_string();
    metrics::counter!(REQUESTS, "method" => "other", "route" => UNMATCHED, "status" => code).increment(1);
    tracing::info_span!("request", request_id = %id)
        .in_scope(|| log(false, "other", UNMATCHED, status, Duration::ZERO));
    [answer.as_bytes(), &body].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_refusal_becomes_a_problem() {
        let bare = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        let answer = String::from_utf8(instead_of(bare).unwrap().to_vec()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\nconnection: close\r\ndate: now\r\n"));
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())));
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(head.contains(&format!("x-request-id: {}", problem["request_id"].as_str().unwrap())));
    }

    #[test]
    fn our_own_answers_stay_as_they_are() {
        for ours in [
            "HTTP/1.1 400 Bad Request\r\nx-request-id: a\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 1\r\n\r\n{",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "",
        ] {
            assert_eq!(instead_of(ours.as_bytes()), None, "{ours}");
        }
    }
}
