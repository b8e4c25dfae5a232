//! Wakes within this process.

use futures::StreamExt as _;
use futures::stream::unfold;
use knm_ports::{Wake, WakeStream, Wakes};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// How many wakes wait for whoever listens too slowly.
const WAITING: usize = 1024;

/// Wakes everybody who listens in this process.
#[derive(Clone, Debug)]
pub struct Bell {
    wakes: broadcast::Sender<Wake>,
}

impl Default for Bell {
    fn default() -> Self {
        Self {
            wakes: broadcast::Sender::new(WAITING),
        }
    }
}

impl Bell {
    /// Tells `wakes` to everybody who listens.
    pub fn ring(&self, wakes: &[Wake]) {
        for wake in wakes {
            // That nobody listens is no error.
            let _ = self.wakes.send(*wake);
        }
    }
}

impl Wakes for Bell {
    fn listen(&self) -> WakeStream {
        let heard = unfold(self.wakes.subscribe(), |mut wakes| async move {
            match wakes.recv().await {
                Ok(wake) => Some((wake, wakes)),
                Err(RecvError::Lagged(_)) => Some((Wake::Missed, wakes)),
                Err(RecvError::Closed) => None,
            }
        });
        heard.boxed()
    }
}
