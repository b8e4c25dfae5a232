//! Wakes of whoever listens to this store.

use futures::StreamExt as _;
use futures::stream::unfold;
use knm_ports::{Wake, WakeStream, Wakes};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::Memory;

/// How many wakes wait for whoever listens too slowly.
const WAITING: usize = 1024;

/// Wakes everybody who listens.
pub(crate) struct Bell {
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
    /// Tells `wake` to everybody who listens.
    pub(crate) fn ring(&self, wake: Wake) {
        // That nobody listens is no error.
        let _ = self.wakes.send(wake);
    }
}

impl Wakes for Memory {
    fn listen(&self) -> WakeStream {
        let heard = unfold(self.bell.wakes.subscribe(), |mut wakes| async move {
            match wakes.recv().await {
                Ok(wake) => Some((wake, wakes)),
                Err(RecvError::Lagged(_)) => Some((Wake::Missed, wakes)),
                Err(RecvError::Closed) => None,
            }
        });
        heard.boxed()
    }
}
