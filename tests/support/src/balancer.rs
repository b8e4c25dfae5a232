//! What a Service of Kubernetes does: it leads each new connection to one of those that are ready, and leaves open connections alone.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// A balancer on a port of loopback; its connections end with it.
pub struct Balancer {
    address: SocketAddr,
    endpoints: Arc<Endpoints>,
    _runtime: Runtime,
}

#[derive(Default)]
struct Endpoints {
    ready: Mutex<Vec<SocketAddr>>,
    turn: AtomicUsize,
}

impl Balancer {
    /// Starts one that leads nowhere yet.
    ///
    /// # Panics
    /// If the operating system refuses.
    #[must_use]
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .expect("a free port");
        let address = listener.local_addr().expect("its address");
        let endpoints = Arc::new(Endpoints::default());
        runtime.spawn(accept(listener, Arc::clone(&endpoints)));
        Self {
            address,
            endpoints,
            _runtime: runtime,
        }
    }

    /// Where callers connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections may be led there, too.
    pub fn add(&self, endpoint: SocketAddr) {
        self.endpoints.change(|ready| ready.push(endpoint));
    }

    /// No new connection is led there any more.
    pub fn remove(&self, endpoint: SocketAddr) {
        self.endpoints.change(|ready| ready.retain(|one| *one != endpoint));
    }
}

impl Endpoints {
    fn change(&self, change: impl FnOnce(&mut Vec<SocketAddr>)) {
        change(&mut self.ready.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The next one, in turns.
    fn next(&self) -> Option<SocketAddr> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        ready.get(turn.checked_rem(ready.len())?).copied()
    }
}

async fn accept(listener: TcpListener, endpoints: Arc<Endpoints>) {
    loop {
        let Ok((caller, _)) = listener.accept().await else {
            continue;
        };
        // Nobody to lead to closes the connection, as a refusal would.
        if let Some(endpoint) = endpoints.next() {
            tokio::spawn(lead(caller, endpoint));
        }
    }
}

/// Both sides see what the other one does, also that it ends.
async fn lead(mut caller: TcpStream, endpoint: SocketAddr) -> io::Result<()> {
    let mut service = TcpStream::connect(endpoint).await?;
    caller.set_nodelay(true)?;
    service.set_nodelay(true)?;
    copy_bidirectional(&mut caller, &mut service).await?;
    Ok(())
}
