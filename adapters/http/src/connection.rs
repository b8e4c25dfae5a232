//! A connection whose silence ends it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use crate::ServerLimits;

/// Nothing of the next request has arrived.
const IDLE: u8 = 0;
/// A part of the next request's head has arrived.
const HEAD: u8 = 1;
/// A request is being answered.
const BUSY: u8 = 2;

/// What a connection is waiting for, shared between its bytes and its requests.
#[derive(Default)]
pub(crate) struct Phases(AtomicU8);

impl Phases {
    /// A request's head is complete.
    pub(crate) fn busy(&self) {
        self.0.store(BUSY, Ordering::Release);
    }

    /// The answer was sent.
    pub(crate) fn idle(&self) {
        self.0.store(IDLE, Ordering::Release);
    }
}

/// A connection that fails when its peer is silent for too long: between requests, within a head, or while an answer is sent to it.
pub(crate) struct Watched {
    stream: TcpStream,
    phases: Arc<Phases>,
    idle_timeout: Duration,
    header_read_timeout: Duration,
    write_timeout: Duration,
    /// The phase that `patience` was set for.
    known: u8,
    patience: Pin<Box<Sleep>>,
    /// Set while the peer takes nothing.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    pub(crate) fn new(stream: TcpStream, phases: Arc<Phases>, limits: &ServerLimits) -> Self {
        Self {
            stream,
            phases,
            idle_timeout: limits.idle_timeout,
            header_read_timeout: limits.header_read_timeout,
            write_timeout: limits.write_timeout,
            // A new connection has as long for its first head as for any other, not as long as an idle one.
            known: HEAD,
            patience: Box::pin(sleep(limits.header_read_timeout)),
            stuck: None,
        }
        .expecting_a_head()
    }

    fn expecting_a_head(self) -> Self {
        self.phases.0.store(HEAD, Ordering::Release);
        self
    }

    fn enter(&mut self, phase: u8) {
        if self.known == phase {
            return;
        }
        self.known = phase;
        let patience = match phase {
            IDLE => self.idle_timeout,
            HEAD => self.header_read_timeout,
            // Whoever answers has deadlines of its own.
            _ => return,
        };
        self.patience.as_mut().reset(Instant::now() + patience);
    }

    /// Passes the outcome of a write on, or fails if the peer has taken nothing for too long.
    fn moved<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stuck = None;
            return outcome;
        }
        let limit = self.write_timeout;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(limit)));
        match stuck.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(silent("the peer takes nothing"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn silent(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let phase = self.phases.0.load(Ordering::Acquire);
        self.enter(phase);
        if outcome.is_ready() {
            if phase == IDLE && before < buffer.filled().len() {
                self.phases.0.store(HEAD, Ordering::Release);
                self.enter(HEAD);
            }
            return outcome;
        }
        if phase != BUSY && self.patience.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(silent("no request came in time")));
        }
        Poll::Pending
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.moved(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.moved(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
