//! A proxy that stands before a server and does what networks do.

use std::io;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// How much is passed on at once.
const CHUNK: usize = 16 * 1024;
/// How long a chunk waits that was lost and is sent again: TCP's own timeout, doubled twice.
const SENT_AGAIN_AFTER: Duration = Duration::from_millis(1_400);
/// One of so many chunks is lost.
const LOST: usize = 10;
/// How often a slow line passes something on.
const SLOW_TICK: Duration = Duration::from_millis(100);

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It passes everything on.
    None,
    /// Everything takes so much longer in each direction.
    Delay(Duration),
    /// One of ten pieces is lost, and comes when it was sent again.
    Loss,
    /// Connections are cut off, and new ones as soon as they are made.
    Reset,
    /// Connections are accepted and those that were stay, and nothing comes through.
    HalfOpen,
    /// So many bytes a second come through in each direction of each connection.
    Slow(usize),
    /// Connections end, and new ones are refused.
    Stopped,
}

/// A proxy at a port of its own on loopback, until it is dropped.
pub struct Proxy {
    port: u16,
    fault: watch::Sender<Fault>,
    open: Arc<AtomicUsize>,
}

/// How the way of a connection goes on.
enum End {
    /// One side closed it.
    Closed,
    /// It is to be cut off.
    Cut,
}

impl Proxy {
    /// Starts a proxy of what listens at `target` on loopback.
    ///
    /// # Panics
    /// If there is no port for it.
    #[must_use]
    pub fn start(target: u16) -> Self {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("it can be set");
        let port = listener.local_addr().expect("its address").port();
        let (fault, seen) = watch::channel(Fault::None);
        let open = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&open);
        // A thread of its own, so that it works for tests that are not asynchronous, too.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .expect("a runtime")
                .block_on(accept(listener, port, target, seen, counted));
        });
        Self { port, fault, open }
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets the network do this from now on.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// How many connections are open through it.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// Accepts until the proxy is dropped.
async fn accept(
    listener: StdListener,
    port: u16,
    target: u16,
    mut fault: watch::Receiver<Fault>,
    open: Arc<AtomicUsize>,
) {
    let mut listener = TcpListener::from_std(listener).ok();
    loop {
        let now = *fault.borrow_and_update();
        if now == Fault::Stopped {
            listener = None;
        } else if listener.is_none() {
            // Somebody else may have the port for a moment.
            listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.ok();
        }
        let arriving = async {
            match &listener {
                Some(listener) => listener.accept().await.ok(),
                None if now == Fault::Stopped => std::future::pending().await,
                None => {
                    sleep(SLOW_TICK).await;
                    None
                }
            }
        };
        tokio::select! {
            changed = fault.changed() => if changed.is_err() {
                return;
            },
            arrived = arriving => if let Some((stream, _)) = arrived {
                let (fault, open) = (fault.clone(), Arc::clone(&open));
                tokio::spawn(async move {
                    open.fetch_add(1, Ordering::Relaxed);
                    // However a connection ends, that is what its sides see of it.
                    let _ = pass(stream, target, fault).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            },
        }
    }
}

/// Passes a connection on as the network lets it.
async fn pass(client: TcpStream, target: u16, mut fault: watch::Receiver<Fault>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let now = *fault.borrow();
    if now == Fault::Reset {
        return client.set_zero_linger();
    }
    // Nothing reaches the server while the line is dead; what the client sends is read when it lives again.
    if fault.wait_for(|fault| *fault != Fault::HalfOpen).await.is_err() {
        return Ok(());
    }
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let end = tokio::select! {
        end = one_way(&mut from_client, &mut to_server, fault.clone()) => end,
        end = one_way(&mut from_server, &mut to_client, fault.clone()) => end,
        () = cut(fault) => End::Cut,
    };
    match end {
        End::Closed => Ok(()),
        // The end that says "reset" to both.
        End::Cut => {
            to_client.as_ref().set_zero_linger()?;
            to_server.as_ref().set_zero_linger()
        }
    }
}

/// Waits until connections are to be cut off.
async fn cut(mut fault: watch::Receiver<Fault>) {
    let cuts = |fault: &Fault| matches!(fault, Fault::Reset | Fault::Stopped);
    // An error says that the proxy is gone: then its connections go, too.
    let _ = fault.wait_for(cuts).await;
}

async fn one_way(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, mut fault: watch::Receiver<Fault>) -> End {
    let mut buffer = vec![0; CHUNK];
    for number in 1.. {
        let now = *fault.borrow();
        let room = match now {
            Fault::Slow(per_second) => (per_second / 10).clamp(1, CHUNK),
            Fault::None | Fault::Delay(_) | Fault::Loss | Fault::Reset | Fault::HalfOpen | Fault::Stopped => CHUNK,
        };
        let read = match from.read(&mut buffer[..room]).await {
            Ok(read) if 0 < read => read,
            Ok(_) | Err(_) => return End::Closed,
        };
        let now = *fault.borrow_and_update();
        match now {
            Fault::Delay(time) => sleep(time).await,
            Fault::Loss if number % LOST == 0 => sleep(SENT_AGAIN_AFTER).await,
            Fault::Slow(_) => sleep(SLOW_TICK).await,
            Fault::HalfOpen => {
                // What was on its way is lost with the connection when the line lives again: nobody sends it any more.
                let _ = fault.wait_for(|fault| *fault != Fault::HalfOpen).await;
                return End::Cut;
            }
            Fault::None | Fault::Loss | Fault::Reset | Fault::Stopped => {}
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return End::Closed;
        }
    }
    End::Closed
}
