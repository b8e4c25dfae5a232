//! A network that can break.

use std::sync::{Mutex, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Passes on what arrives at its port, unless it is cut.
pub struct Proxy {
    port: u16,
    target: u16,
    running: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let running = Mutex::new(Some(tokio::spawn(pass(listener, target))));
        Self { port, target, running }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts all connections and takes no more.
    pub async fn cut(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            running.abort();
            drop(running.await);
        }
    }

    pub async fn mend(&self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.expect("our own port");
        let running = tokio::spawn(pass(listener, self.target));
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
    }
}

async fn pass(listener: TcpListener, target: u16) {
    // They end with this set.
    let mut connections = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        connections.spawn(async move {
            if let Ok(mut far) = TcpStream::connect(("127.0.0.1", target)).await {
                // A connection that ends early is what this is about.
                drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
            }
        });
    }
}
