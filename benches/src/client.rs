//! A client that costs little: HTTP/1.1 with keep-alive, straight on a socket.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::Failure;

/// How long any single answer may take before a run is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// What to ask for, again and again.
#[derive(Clone)]
pub struct Target {
    /// The port on loopback.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Sent as `If-None-Match`.
    pub etag: Option<String>,
    /// Sent as a bearer token.
    pub token: Option<String>,
    /// The status that every answer must have; another one is a failure of the run.
    pub status: u16,
}

/// What a run measured.
#[derive(Default)]
pub struct Run {
    /// Answers per second.
    pub per_second: f64,
    /// How long each answer took, in milliseconds.
    pub latencies: Vec<f64>,
}

/// One answer.
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its entity tag.
    pub etag: Option<String>,
    /// Its body, empty where the body was not kept.
    pub body: Vec<u8>,
}

/// The head of an answer as far as it matters here.
#[derive(Debug, PartialEq)]
struct Head {
    status: u16,
    length: usize,
    etag: Option<String>,
    /// How many bytes the head itself has.
    size: usize,
}

/// A connection that is kept.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Target {
    /// The path of a server that must answer 200.
    pub fn get(port: u16, path: &str) -> Self {
        Self {
            port,
            path: path.to_owned(),
            etag: None,
            token: None,
            status: 200,
        }
    }

    pub(crate) fn request(&self) -> Vec<u8> {
        let condition = match &self.etag {
            Some(etag) => format!("if-none-match: {etag}\r\n"),
            None => String::new(),
        };
        let token = match &self.token {
            Some(token) => format!("authorization: Bearer {token}\r\n"),
            None => String::new(),
        };
        format!(
            "GET {} HTTP/1.1\r\nhost: localhost\r\n{condition}{token}\r\n",
            self.path
        )
        .into_bytes()
    }
}

/// Asks once and keeps the body.
pub async fn fetch(target: &Target) -> Result<Answer, Failure> {
    let mut connection = Connection::open(target.port).await?;
    timed(connection.exchange(&target.request(), true)).await
}

/// Sends a JSON `body` once, as what is to be done once for this `key`, and keeps the body of the answer.
pub async fn post(port: u16, path: &str, key: &str, body: &Value) -> Result<Answer, Failure> {
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nidempotency-key: {key}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = Connection::open(port).await?;
    timed(connection.exchange(request.as_bytes(), true)).await
}

/// Asks over `connections` connections at once for as long as `time`.
pub async fn load(target: &Target, connections: usize, time: Duration) -> Result<Run, Failure> {
    let mut opened = Vec::with_capacity(connections);
    for _ in 0..connections {
        opened.push(Connection::open(target.port).await?);
    }
    let start = Instant::now();
    let workers: Vec<_> = opened
        .into_iter()
        .map(|connection| tokio::spawn(keep_asking(connection, target.clone(), start + time)))
        .collect();
    let mut run = Run::default();
    let mut failure = None;
    for worker in workers {
        match worker.await? {
            Ok(latencies) => run.latencies.extend(latencies),
            Err(error) => failure = Some(error),
        }
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    run.per_second = run.latencies.len() as f64 / start.elapsed().as_secs_f64();
    Ok(run)
}

async fn keep_asking(mut connection: Connection, target: Target, end: Instant) -> Result<Vec<f64>, Failure> {
    let request = target.request();
    let mut latencies = Vec::new();
    loop {
        let start = Instant::now();
        if end <= start {
            return Ok(latencies);
        }
        let answer = timed(connection.exchange(&request, false)).await?;
        if answer.status != target.status {
            return Err(format!(
                "{} answered {} where {} was expected",
                target.path, answer.status, target.status
            )
            .into());
        }
        latencies.push(start.elapsed().as_secs_f64() * 1_000.0);
    }
}

async fn timed(exchange: impl Future<Output = Result<Answer, Failure>>) -> Result<Answer, Failure> {
    tokio::time::timeout(PATIENCE, exchange).await?
}

impl Connection {
    async fn open(port: u16) -> Result<Self, Failure> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self::of(stream))
    }

    pub(crate) fn of(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: vec![0; 256 * 1_024],
        }
    }

    pub(crate) async fn exchange(&mut self, request: &[u8], keep: bool) -> Result<Answer, Failure> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let head = loop {
            filled += self.read(filled).await?;
            if let Some(head) = read_head(&self.buffer[..filled])? {
                break head;
            }
        };
        let mut body = Vec::new();
        let mut missing = head.length.saturating_sub(filled - head.size);
        if keep {
            body.extend_from_slice(&self.buffer[head.size..filled]);
        }
        while 0 < missing {
            let read = self.read(0).await?;
            if keep {
                body.extend_from_slice(&self.buffer[..read]);
            }
            missing = missing.saturating_sub(read);
        }
        Ok(Answer {
            status: head.status,
            etag: head.etag,
            body,
        })
    }

    async fn read(&mut self, from: usize) -> Result<usize, Failure> {
        match self.stream.read(&mut self.buffer[from..]).await? {
            0 => Err("the server closed a connection in the middle of an answer".into()),
            read => Ok(read),
        }
    }
}

/// Reads the head at the front of `bytes`, `None` while it is not complete.
fn read_head(bytes: &[u8]) -> Result<Option<Head>, Failure> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..end])?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let status = status
        .parse()
        .map_err(|_| format!("\"{status}\" is not a status: a number is expected"))?;
    let mut head = Head {
        status,
        length: 0,
        etag: None,
        size: end + 4,
    };
    let mut sized = matches!(status, 204 | 304);
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") && status != 304 {
            head.length = value.parse()?;
            sized = true;
        } else if name.eq_ignore_ascii_case("etag") {
            head.etag = Some(value.to_owned());
        }
    }
    if !sized {
        return Err("an answer came without content-length, which this client needs".into());
    }
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_complete() {
        let head = b"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 3\r\n\r\nabc";
        for cut in 0..head.len() - 3 {
            assert_eq!(read_head(&head[..cut]).unwrap(), None);
        }
        let expected = Head {
            status: 200,
            length: 3,
            etag: Some("\"x\"".into()),
            size: head.len() - 3,
        };
        assert_eq!(read_head(head).unwrap(), Some(expected));
    }

    #[test]
    fn an_answer_that_was_not_modified_has_no_body_whatever_its_length_says() {
        let head = read_head(b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!((head.status, head.length), (304, 0));
    }

    #[test]
    fn an_answer_without_a_length_is_refused() {
        assert!(read_head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(read_head(b"nonsense\r\n\r\n").is_err());
    }
}
