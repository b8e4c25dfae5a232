//! A client that sends exactly the bytes it is told to, for tests of what comes over the wire.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection};

/// How long an answer may take before a test fails: generous, because machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(60);
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// One connection to a service.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    /// What its bytes go through, with TLS.
    tls: Option<Box<ClientConnection>>,
    /// What arrived and was not asked for yet.
    arrived: Vec<u8>,
}

/// An answer, byte by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its version, such as `HTTP/1.1`.
    pub version: String,
    /// Its headers in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body, without the framing of its transfer.
    pub body: Vec<u8>,
}

/// One server-sent event; what it does not have is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentEvent {
    /// Its kind.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Its data.
    pub data: String,
}

impl Reply {
    /// The header of this name, in lower case; the first if there are several.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(known, _)| known == name);
        named.next().map(|(_, value)| value.as_str())
    }

    /// All values of the header of this name, in lower case.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(known, _)| known == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

impl Wire {
    /// Connects.
    ///
    /// # Panics
    /// If that is refused.
    #[must_use]
    pub fn open(address: SocketAddr) -> Self {
        Self::try_open(address).expect("the service accepts")
    }

    /// Connects.
    ///
    /// # Errors
    /// Why that is refused.
    pub fn try_open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            tls: None,
            arrived: Vec::new(),
        })
    }

    /// Connects by TLS as `settings` say, to what must call itself `localhost`, and greets it.
    ///
    /// # Errors
    /// Why there is no TLS.
    ///
    /// # Panics
    /// If the connection is refused.
    pub fn open_tls(address: SocketAddr, settings: Arc<ClientConfig>) -> io::Result<Self> {
        let mut wire = Self::open(address);
        let name = ServerName::try_from("localhost").expect("a name");
        let mut tls = ClientConnection::new(settings, name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut wire.stream)?;
        }
        wire.tls = Some(Box::new(tls));
        Ok(wire)
    }

    /// What is known of TLS on this connection.
    #[must_use]
    pub fn tls(&self) -> Option<&ClientConnection> {
        self.tls.as_deref()
    }

    /// Sends these bytes.
    ///
    /// # Errors
    /// What the connection said.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.tls {
            None => self.stream.write_all(bytes.as_ref()),
            Some(tls) => {
                let mut stream = tokio_rustls::rustls::Stream::new(&mut **tls, &mut self.stream);
                stream.write_all(bytes.as_ref())?;
                stream.flush()
            }
        }
    }

    /// Sends a request without a body; `headers` are whole lines without their ends.
    ///
    /// # Errors
    /// What the connection said.
    pub fn request(&mut self, method: &str, target: &str, headers: &[&str]) -> io::Result<()> {
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        self.send(format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n"))
    }

    /// Sends GET and reads the answer.
    ///
    /// # Errors
    /// What the connection said.
    pub fn get(&mut self, target: &str, headers: &[&str]) -> io::Result<Reply> {
        self.request("GET", target, headers)?;
        self.reply()
    }

    /// Sends a request with a JSON body and reads the answer; `headers` are whole lines without their ends.
    ///
    /// # Errors
    /// What the connection said.
    pub fn send_json(&mut self, method: &str, target: &str, headers: &[&str], body: &Value) -> io::Result<Reply> {
        let body = body.to_string();
        let length = format!("content-length: {}", body.len());
        let lines = [&["content-type: application/json", &length], headers].concat();
        self.request(method, target, &lines)?;
        self.send(body)?;
        self.reply()
    }

    /// Reads an answer with its body.
    ///
    /// # Errors
    /// What the connection said, or that this is no HTTP answer.
    pub fn reply(&mut self) -> io::Result<Reply> {
        let mut reply = self.head()?;
        reply.body = self.body_of(&reply)?;
        Ok(reply)
    }

    /// Reads the body of an answer whose head was read.
    ///
    /// # Errors
    /// What the connection said, or that this is no body.
    pub fn body_of(&mut self, head: &Reply) -> io::Result<Vec<u8>> {
        let is_chunked = head.header("transfer-encoding") == Some("chunked");
        let length = head.header("content-length").map(str::parse::<usize>);
        match (is_chunked, length) {
            (true, _) => self.chunks(),
            (false, Some(Ok(length))) => self.take(length),
            (false, Some(Err(_))) => Err(broken("the content-length is no number")),
            (false, None) if matches!(head.status, 204 | 304) => Ok(Vec::new()),
            (false, None) => self.rest(),
        }
    }

    /// Reads the head of an answer.
    ///
    /// # Errors
    /// What the connection said, or that this is no HTTP answer.
    pub fn head(&mut self) -> io::Result<Reply> {
        let end = loop {
            match find(&self.arrived, END_OF_HEAD) {
                Some(end) => break end + END_OF_HEAD.len(),
                None => self.more()?,
            }
        };
        let head = String::from_utf8(self.take(end)?).map_err(|_| broken("the head is no UTF-8"))?;
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ');
        let (version, status) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
        Ok(Reply {
            status: status.parse().map_err(|_| broken("there is no status"))?,
            version: version.to_owned(),
            headers: lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect(),
            body: Vec::new(),
        })
    }

    /// The next piece of a chunked body, `None` after the last.
    ///
    /// # Errors
    /// What the connection said, or that this is no chunk.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = loop {
            match find(&self.arrived, b"\r\n") {
                Some(end) => break self.take(end + 2)?,
                None => self.more()?,
            }
        };
        let size = String::from_utf8_lossy(&line);
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| broken("there is no size of a chunk"))?;
        let chunk = self.take(size)?;
        if self.take(2)? != b"\r\n" {
            return Err(broken("a chunk does not end where it says"));
        }
        Ok((size != 0).then_some(chunk))
    }

    /// Whatever arrives until the peer ends the connection in order.
    ///
    /// # Errors
    /// What the connection said, also that nothing more came and it did not end.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.arrived);
        match &mut self.tls {
            None => self.stream.read_to_end(&mut rest)?,
            Some(tls) => tokio_rustls::rustls::Stream::new(&mut **tls, &mut self.stream).read_to_end(&mut rest)?,
        };
        Ok(rest)
    }

    /// Waits until the peer has ended the connection, in order or not, whatever comes before.
    ///
    /// # Panics
    /// If it does not end.
    pub fn wait_until_closed(&mut self) {
        let ended = self.rest();
        let still_open =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        assert!(
            !ended.as_ref().is_err_and(still_open),
            "the connection does not end: {ended:?}"
        );
    }

    /// Whether the connection is still open and nothing came for this long.
    ///
    /// # Panics
    /// If the connection cannot be asked.
    #[must_use]
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a timeout can be set");
        let outcome = self.stream.peek(&mut [0]);
        self.stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        outcome.is_err_and(|error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk()? {
            body.extend(chunk);
        }
        Ok(body)
    }

    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.arrived.len() < count {
            self.more()?;
        }
        let rest = self.arrived.split_off(count);
        Ok(std::mem::replace(&mut self.arrived, rest))
    }

    fn more(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        let count = match &mut self.tls {
            None => self.stream.read(&mut bytes)?,
            Some(tls) => tokio_rustls::rustls::Stream::new(&mut **tls, &mut self.stream).read(&mut bytes)?,
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.arrived.extend_from_slice(&bytes[..count]);
        Ok(())
    }
}

/// The events of a stream.
#[derive(Debug)]
pub struct Events {
    wire: Wire,
    text: Vec<u8>,
}

impl Events {
    /// Asks for a stream of events.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn open(address: SocketAddr, target: &str, headers: &[&str]) -> Self {
        Self::try_open(address, target, headers).expect("a stream of events")
    }

    /// Asks for a stream of events.
    ///
    /// # Errors
    /// What came instead.
    pub fn try_open(address: SocketAddr, target: &str, headers: &[&str]) -> io::Result<Self> {
        let mut wire = Wire::try_open(address)?;
        wire.request("GET", target, headers)?;
        let head = wire.head()?;
        if head.status != 200 || head.header("content-type") != Some("text/event-stream") {
            let body = wire.body_of(&head)?;
            let text = String::from_utf8_lossy(&body).into_owned();
            return Err(io::Error::other(format!("{}: {text}", head.status)));
        }
        Ok(Self { wire, text: Vec::new() })
    }

    /// The next event, `None` if the stream ended in order.
    ///
    /// # Errors
    /// What the connection said.
    pub fn next_event(&mut self) -> io::Result<Option<SentEvent>> {
        loop {
            if let Some(end) = find(&self.text, b"\n\n") {
                let rest = self.text.split_off(end + 2);
                let block = std::mem::replace(&mut self.text, rest);
                return Ok(Some(read_event(&String::from_utf8_lossy(&block))));
            }
            match self.wire.chunk()? {
                Some(chunk) => self.text.extend(chunk),
                None => return Ok(None),
            }
        }
    }
}

fn read_event(block: &str) -> SentEvent {
    let mut event = SentEvent::default();
    for line in block.lines() {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => event.kind = value.to_owned(),
            "id" => event.id = value.to_owned(),
            "data" => event.data.push_str(value),
            _ => (),
        }
    }
    event
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
