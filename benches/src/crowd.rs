//! A crowd of connections, few of which mean well.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{Either, join_all, select};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::Failure;
use crate::client::{Connection, Target};

/// How long a valid caller thinks between two pairs of requests.
const THINKING: Duration = Duration::from_millis(50);
/// After so many pairs it comes by a new connection: who has a place already proves little.
const PAIRS_PER_CONNECTION: usize = 20;
/// How long an answer may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a bad caller that was cut off waits until it comes back.
const COMING_BACK: Duration = Duration::from_secs(5);
/// How often a slow one sends a byte.
const DRIP: Duration = Duration::from_secs(1);
/// How many connections are opened at once in the beginning.
const OPENING: usize = 64;
/// How many of the bad ones ask as fast as they can, all from one address.
const FLOODING: usize = 16;

/// What valid callers saw.
#[derive(Default)]
pub struct Seen {
    /// How long each answer took, with the connection where one was made, in milliseconds.
    pub latencies: Vec<f64>,
    /// Why requests were not answered, or not as they must be.
    pub failures: Vec<String>,
}

/// What a valid caller asks for.
#[derive(Clone)]
pub struct Wanted {
    /// The port on loopback.
    pub port: u16,
    /// The path of a list.
    pub list: String,
    /// Its entity tag.
    pub etag: String,
    /// The API tokens of the callers, one for each.
    pub tokens: Vec<String>,
    /// The path of a node.
    pub node: String,
}

/// Callers that mean ill, until this is dropped.
pub struct Mob {
    tasks: JoinSet<()>,
    opened: Arc<AtomicU64>,
}

/// What a bad caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Connects and says nothing.
    Silent,
    /// Sends the head of a request byte by byte.
    Slow,
    /// Asks once and stays.
    Idle,
    /// Sends what is no HTTP.
    Garbage,
    /// Asks as fast as it can.
    Flooding,
}

impl Manner {
    fn of(number: usize) -> Self {
        if number < FLOODING {
            return Self::Flooding;
        }
        match number % 4 {
            0 => Self::Silent,
            1 => Self::Slow,
            2 => Self::Idle,
            _ => Self::Garbage,
        }
    }
}

impl Mob {
    /// So many bad callers, each of which has been connected once.
    pub async fn gather(port: u16, size: usize) -> Self {
        let mut mob = Self {
            tasks: JoinSet::new(),
            opened: Arc::default(),
        };
        for first in (0..size).step_by(OPENING) {
            let connecting = (first..size.min(first + OPENING)).map(|number| async move {
                let source = bad_address(number);
                (number, connect(source, port).await.ok())
            });
            for (number, stream) in join_all(connecting).await {
                let opened = Arc::clone(&mob.opened);
                mob.tasks.spawn(misbehave(number, port, stream, opened));
            }
        }
        mob
    }

    /// How many connections were opened so far.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }
}

/// Asks as `callers` valid callers do, each from an address of its own, for as long as `time`.
pub async fn ask(wanted: &Wanted, callers: usize, time: Duration) -> Seen {
    let end = Instant::now() + time;
    let asking = (0..callers).map(|number| tokio::spawn(keep_asking(wanted.clone(), number, end)));
    let mut all = Seen::default();
    for seen in join_all(asking).await {
        match seen {
            Ok(seen) => {
                all.latencies.extend(seen.latencies);
                all.failures.extend(seen.failures);
            }
            Err(error) => all.failures.push(error.to_string()),
        }
    }
    all
}

async fn keep_asking(wanted: Wanted, number: usize, end: Instant) -> Seen {
    let source = Ipv4Addr::new(127, 1, 0, u8::try_from(number % 250).unwrap_or_default() + 1);
    let target = |path: &str, etag: Option<&str>| Target {
        etag: etag.map(str::to_owned),
        token: wanted.tokens.get(number).cloned(),
        ..Target::get(wanted.port, path)
    };
    let list = target(&wanted.list, Some(&wanted.etag)).request();
    let node = target(&wanted.node, None).request();
    let mut seen = Seen::default();
    let mut connection = None;
    for pair in 0.. {
        if end <= Instant::now() {
            break;
        }
        if pair % PAIRS_PER_CONNECTION == 0 {
            connection = None;
        }
        for (request, status) in [(&list, 304), (&node, 200)] {
            let start = Instant::now();
            match exchange(&mut connection, source, wanted.port, request, status).await {
                Ok(()) => seen.latencies.push(start.elapsed().as_secs_f64() * 1_000.0),
                Err(failure) => seen.failures.push(failure.to_string()),
            }
        }
        sleep(THINKING).await;
    }
    seen
}

/// One answer, over the connection that there is or over a new one.
async fn exchange(
    connection: &mut Option<Connection>,
    source: Ipv4Addr,
    port: u16,
    request: &[u8],
    status: u16,
) -> Result<(), Failure> {
    let asking = async {
        let is_kept = connection.is_some();
        let mut open = match connection.take() {
            Some(open) => open,
            None => Connection::of(connect(source, port).await?),
        };
        let answer = match open.exchange(request, false).await {
            // Any server may close a connection that it thinks idle at the moment at which the next request is sent; every client asks again.
            Err(_) if is_kept => {
                open = Connection::of(connect(source, port).await?);
                open.exchange(request, false).await?
            }
            answer => answer?,
        };
        *connection = Some(open);
        if answer.status != status {
            return Err(format!("{} where {status} was expected", answer.status).into());
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, asking).await?
}

async fn connect(source: Ipv4Addr, port: u16) -> Result<TcpStream, Failure> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let stream = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Those who flood share an address; the others are spread over many.
fn bad_address(number: usize) -> Ipv4Addr {
    if Manner::of(number) == Manner::Flooding {
        return Ipv4Addr::new(127, 2, 0, 1);
    }
    Ipv4Addr::new(127, 3, 0, u8::try_from(number % 250).unwrap_or_default() + 1)
}

async fn misbehave(number: usize, port: u16, first: Option<TcpStream>, opened: Arc<AtomicU64>) {
    let mut next = first;
    loop {
        let stream = match next.take() {
            Some(stream) => Some(stream),
            None => connect(bad_address(number), port).await.ok(),
        };
        if let Some(mut stream) = stream {
            opened.fetch_add(1, Ordering::Relaxed);
            // However it ends, it begins again.
            let _ = behave(Manner::of(number), &mut stream).await;
        }
        sleep(COMING_BACK).await;
    }
}

/// Does what the manner says until the server ends it.
async fn behave(manner: Manner, stream: &mut TcpStream) -> std::io::Result<()> {
    const HEAD: &[u8] = b"GET /api/v1/nodes HTTP/1.1\r\nhost: localhost\r\nx-slow: ";
    match manner {
        Manner::Silent => wait_for_end(stream).await,
        Manner::Idle => {
            stream
                .write_all(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
                .await?;
            wait_for_end(stream).await
        }
        Manner::Garbage => {
            stream.write_all(&[0x16; 200]).await?;
            wait_for_end(stream).await
        }
        Manner::Slow => {
            let (mut read, mut write) = stream.split();
            let dripping = async {
                for byte in HEAD.iter().chain(std::iter::repeat(&b'a')) {
                    write.write_all(&[*byte]).await?;
                    sleep(DRIP).await;
                }
                Ok(())
            };
            let mut nowhere = tokio::io::sink();
            let ending = async { tokio::io::copy(&mut read, &mut nowhere).await.map(|_| ()) };
            match select(Box::pin(dripping), Box::pin(ending)).await {
                Either::Left((outcome, _)) | Either::Right((outcome, _)) => outcome,
            }
        }
        Manner::Flooding => {
            let mut buffer = vec![0; 64 * 1_024];
            loop {
                stream
                    .write_all(
                        b"GET /api/v1/clusters HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer guess\r\n\r\n",
                    )
                    .await?;
                if stream.read(&mut buffer).await? == 0 {
                    return Ok(());
                }
            }
        }
    }
}

async fn wait_for_end(stream: &mut TcpStream) -> std::io::Result<()> {
    tokio::io::copy(stream, &mut tokio::io::sink()).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn those_who_flood_have_one_address_and_valid_callers_share_none_with_the_bad_ones() {
        let flooding: HashSet<_> = (0..FLOODING).map(bad_address).collect();
        let others: HashSet<_> = (FLOODING..10_000).map(bad_address).collect();
        assert_eq!((flooding.len(), others.len()), (1, 250));
        assert!(flooding.is_disjoint(&others));
        for manner in [Manner::Silent, Manner::Slow, Manner::Idle, Manner::Garbage] {
            let count = (0..10_000).filter(|number| Manner::of(*number) == manner).count();
            assert!((2_490..=2_500).contains(&count), "{manner:?}: {count}");
        }
    }
}
