//! A caller that keeps one connection, sends any request and reads any answer, streams too.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HOST, HeaderMap};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::time::{Instant, timeout, timeout_at};

use crate::Failure;

/// Somebody who asks a server on loopback.
pub struct Caller {
    port: u16,
    /// The address that the server sees.
    source: Ipv4Addr,
    token: Option<String>,
    patience: Duration,
    open: Option<SendRequest<Full<Bytes>>>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Question {
    method: Method,
    path: String,
    /// Names and values of headers.
    headers: Vec<(&'static str, String)>,
    body: Option<Value>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// What was read of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Streamed {
    /// The status of the answer.
    pub status: u16,
    /// How many bytes came.
    pub bytes: usize,
    /// Whether the server ended it.
    pub ended: bool,
}

impl Question {
    /// GET `path`.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self::of(Method::GET, path, None)
    }

    /// `method` at `path`, with a JSON body or without.
    #[must_use]
    pub fn of(method: Method, path: impl Into<String>, body: Option<Value>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body,
        }
    }

    /// The same, with one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same, if the answer is another one than that with `etag`.
    #[must_use]
    pub fn unless(self, etag: Option<String>) -> Self {
        match etag {
            Some(etag) => self.with("if-none-match", etag),
            None => self,
        }
    }

    /// What is asked for, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn request(&self, token: Option<&str>) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(&self.path)
            .header(HOST, "localhost");
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match &self.body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        Ok(request.body(Full::new(body))?)
    }
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let text = String::from_utf8_lossy(&self.body);
            format!("an answer with {} is no JSON: {error}: {text}", self.status).into()
        })
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Its entity tag.
    #[must_use]
    pub fn etag(&self) -> Option<String> {
        Some(self.headers.get(ETAG)?.to_str().ok()?.to_owned())
    }
}

impl Caller {
    /// Somebody from the address of this machine, who waits as long as `patience` for each answer.
    #[must_use]
    pub fn new(port: u16, token: Option<String>, patience: Duration) -> Self {
        Self::from_address(Ipv4Addr::LOCALHOST, port, token, patience)
    }

    /// The same from another address of loopback.
    #[must_use]
    pub fn from_address(source: Ipv4Addr, port: u16, token: Option<String>, patience: Duration) -> Self {
        Self {
            port,
            source,
            token,
            patience,
            open: None,
        }
    }

    /// Asks, and reads the whole answer.
    pub async fn ask(&mut self, question: &Question) -> Result<Reply, Failure> {
        let patience = self.patience;
        let asking = async {
            let (parts, body) = self.begin(question).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, Failure>(Reply {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body,
            })
        };
        let asked = timeout(patience, asking).await;
        if !matches!(asked, Ok(Ok(_))) {
            self.open = None;
        }
        match asked {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", patience.as_secs()).into()),
        }
    }

    /// Asks for a stream and reads it until it ends, or for as long as `time`; then the connection is closed.
    pub async fn follow(&mut self, question: &Question, time: Duration) -> Result<Streamed, Failure> {
        let end = Instant::now() + time;
        let answer = timeout(self.patience, self.begin(question)).await;
        self.open = None;
        let (parts, mut body) = answer
            .map_err(|_| format!("no stream within {} s", self.patience.as_secs()))??
            .into_parts();
        let mut streamed = Streamed {
            status: parts.status.as_u16(),
            bytes: 0,
            ended: false,
        };
        while let Ok(frame) = timeout_at(end, body.frame()).await {
            let Some(frame) = frame else {
                streamed.ended = true;
                break;
            };
            streamed.bytes += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(streamed)
    }

    /// Closes the connection.
    pub fn hang_up(&mut self) {
        self.open = None;
    }

    async fn begin(&mut self, question: &Question) -> Result<http::Response<Incoming>, Failure> {
        let request = question.request(self.token.as_deref())?;
        if let Some(kept) = &mut self.open {
            // Any server may close a connection that it thinks idle; that is seen here unless it happens this moment.
            if kept.ready().await.is_ok() {
                return Ok(kept.send_request(request).await?);
            }
        }
        let mut fresh = self.connect().await?;
        let answer = fresh.send_request(request).await;
        self.open = Some(fresh);
        Ok(answer?)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.source, 0).into())?;
        let stream = socket.connect((Ipv4Addr::LOCALHOST, self.port).into()).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends with the sender; what went wrong is told to whoever waits for an answer.
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// The value of a metric without labels, or with exactly these, as in `name{label="value"}`.
#[must_use]
pub fn metric(text: &str, name: &str) -> Option<f64> {
    let mut values = text
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    values.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let text = "# TYPE up gauge\nupper 7\nup{cluster=\"a\"} 3\nup 1\n";
        assert_eq!(metric(text, "up"), Some(1.0));
        assert_eq!(metric(text, "up{cluster=\"a\"}"), Some(3.0));
        assert_eq!(metric(text, "down"), None);
    }
}
