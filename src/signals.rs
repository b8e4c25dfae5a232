//! The signals that the operating system sends.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Failure;

/// A signal to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Interrupt,
    Terminate,
}

impl Ending {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// What a shell reports of a process that this signal ended.
    #[must_use]
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// The signals to end, from the moment this is made.
pub struct Endings {
    interrupt: Signal,
    terminate: Signal,
}

impl Endings {
    /// Listens from here on.
    ///
    /// # Errors
    /// [`Failure::System`] if the operating system refuses.
    pub fn listen() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: listen_to(SignalKind::interrupt())?,
            terminate: listen_to(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Ending {
        tokio::select! {
            _ = self.interrupt.recv() => Ending::Interrupt,
            _ = self.terminate.recv() => Ending::Terminate,
        }
    }
}

/// SIGHUP, from the moment this is called.
///
/// # Errors
/// [`Failure::System`] if the operating system refuses.
pub fn hangups() -> Result<Signal, Failure> {
    listen_to(SignalKind::hangup())
}

fn listen_to(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|source| Failure::System {
        what: "signals cannot be received",
        source,
    })
}
