//! A connection whose silence ends it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::stream::Stream;
use crate::{ServerLimits, refusal};

/// Nothing of the next request has arrived.
const IDLE: u8 = 0;
/// A part of the next request's head has arrived.
const HEAD: u8 = 1;
/// A request is being answered.
const BUSY: u8 = 2;
/// It ends, because others need the place, unless a whole request has arrived already.
const LEAVING: u8 = 3;
/// An answer that has an end is there, and the peer has not taken all of it.
const SENDING: u8 = 4;

/// What a connection is waiting for and since when, shared between its bytes and its requests.
pub(crate) struct Phases {
    phase: AtomicU8,
    /// When the phase began, in milliseconds after `opened`.
    since: AtomicU64,
    opened: Instant,
    /// Whether the peer said that it sends nothing more.
    ended: AtomicBool,
    /// Whether anything was answered, be it that the request cannot be read.
    answered: AtomicBool,
    /// How long a peer may take for an answer before it counts as silent, however it takes it.
    patience: Duration,
    /// Who waits for the peer.
    waiting: AtomicWaker,
}

impl Phases {
    /// A new connection has as long for its first head as for any other, not as long as an idle one.
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            patience,
            phase: AtomicU8::new(HEAD),
            since: AtomicU64::new(0),
            opened: Instant::now(),
            ended: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            waiting: AtomicWaker::new(),
        }
    }

    /// How long the peer has sent no whole request, or has been taking an answer beyond the time for that; `None` while an answer is made,
    /// and of a connection that leaves.
    pub(crate) fn silence(&self) -> Option<Duration> {
        let allowed = match self.phase.load(Ordering::Acquire) {
            IDLE | HEAD => Duration::ZERO,
            SENDING => self.patience,
            _ => return None,
        };
        let since = Duration::from_millis(self.since.load(Ordering::Acquire));
        Some(self.opened.elapsed().saturating_sub(since).saturating_sub(allowed))
    }

    /// Ends the connection, unless an answer is being made: that nobody interrupts.
    pub(crate) fn ask_to_leave(&self) {
        for phase in [IDLE, HEAD, SENDING] {
            let asked = self
                .phase
                .compare_exchange(phase, LEAVING, Ordering::AcqRel, Ordering::Acquire);
            if asked.is_ok() {
                self.waiting.wake();
                return;
            }
        }
    }

    pub(crate) fn is_to_leave(&self) -> bool {
        self.phase.load(Ordering::Acquire) == LEAVING
    }

    /// Ready when the connection is to end.
    pub(crate) fn poll_leaving(&self, cx: &Context<'_>) -> Poll<()> {
        self.waiting.register(cx.waker());
        match self.is_to_leave() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// The greeting is over: from here on the first head has its time.
    pub(crate) fn greeted(&self) {
        self.enter(HEAD);
    }

    /// Whether the peer may still be sending.
    pub(crate) fn may_send(&self) -> bool {
        !self.ended.load(Ordering::Acquire)
    }

    /// Whether anything was answered.
    pub(crate) fn was_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }

    /// A request's head is complete.
    pub(crate) fn busy(&self) {
        self.answered.store(true, Ordering::Relaxed);
        self.phase.store(BUSY, Ordering::Release);
    }

    /// An answer that has an end is there for the peer to take.
    pub(crate) fn sending(&self) {
        self.enter(SENDING);
    }

    /// The answer was sent.
    pub(crate) fn idle(&self) {
        self.enter(IDLE);
    }

    fn enter(&self, phase: u8) {
        let passed = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since.store(passed, Ordering::Release);
        self.phase.store(phase, Ordering::Release);
    }

    fn is_idle(&self) -> bool {
        self.phase.load(Ordering::Acquire) == IDLE
    }

    /// When the peer has been silent for too long; never while a request is being answered, which has deadlines of its own.
    fn due(&self, idle_timeout: Duration, header_read_timeout: Duration) -> Option<Instant> {
        let patience = match self.phase.load(Ordering::Acquire) {
            IDLE => idle_timeout,
            HEAD => header_read_timeout,
            _ => return None,
        };
        Some(self.opened + Duration::from_millis(self.since.load(Ordering::Acquire)) + patience)
    }
}

/// A connection that fails when its peer is silent for too long: between requests, within a head, or while an answer is sent to it.
pub(crate) struct Watched<'a> {
    stream: &'a mut Stream,
    phases: Arc<Phases>,
    idle_timeout: Duration,
    header_read_timeout: Duration,
    write_timeout: Duration,
    /// Rings when it is time to look whether the peer is silent for too long. It also runs while a request is answered: nobody else
    /// would wake a connection that becomes idle while its bytes are waited for.
    alarm: Pin<Box<Sleep>>,
    /// Whether the alarm of a head rings after the one of an idle connection.
    has_late_alarms: bool,
    /// Set while the peer takes nothing.
    stuck: Option<Pin<Box<Sleep>>>,
    /// What is sent instead of the bytes at hand, as far as it was not sent yet.
    instead: Option<Bytes>,
}

impl<'a> Watched<'a> {
    pub(crate) fn new(stream: &'a mut Stream, phases: Arc<Phases>, limits: &ServerLimits) -> Self {
        Self {
            stream,
            phases,
            idle_timeout: limits.idle_timeout,
            header_read_timeout: limits.header_read_timeout,
            write_timeout: limits.write_timeout,
            alarm: Box::pin(sleep(limits.header_read_timeout)),
            has_late_alarms: limits.idle_timeout < limits.header_read_timeout,
            stuck: None,
            instead: None,
        }
    }

    /// Ready when the peer has been silent for too long. The alarm is moved only when it would ring too late: most requests leave it alone.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let due = self.phases.due(self.idle_timeout, self.header_read_timeout);
            // Without a due time the connection may become idle at any moment.
            let latest = due.or_else(|| self.has_late_alarms.then(|| Instant::now() + self.idle_timeout));
            if let Some(latest) = latest.filter(|latest| *latest < self.alarm.deadline()) {
                self.alarm.as_mut().reset(latest);
            }
            ready!(self.alarm.as_mut().poll(cx));
            let now = Instant::now();
            match due {
                Some(due) if due <= now => return Poll::Ready(()),
                Some(due) => self.alarm.as_mut().reset(due),
                // Whatever becomes idle after this is due after that.
                None => self.alarm.as_mut().reset(now + self.idle_timeout),
            }
        }
    }

    /// Passes the outcome of a write on, or fails if the peer has taken nothing for too long.
    fn moved<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stuck = None;
            return outcome;
        }
        if self.phases.poll_leaving(cx).is_ready() {
            return Poll::Ready(Err(silent("another connection needs the place")));
        }
        let limit = self.write_timeout;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(limit)));
        match stuck.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(silent("the peer takes nothing"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Watched<'_> {
    /// Sends something else instead of `bytes` if they are a refusal that hyper wrote by itself; `None`: they are to be sent.
    fn poll_refusal(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.instead.is_none() {
            self.instead = Some(refusal::instead_of(bytes)?);
            self.phases.answered.store(true, Ordering::Release);
        }
        while let Some(rest) = self.instead.as_mut().filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut *self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(count)) => rest.advance(count),
                other => return Some(self.moved(cx, other)),
            }
        }
        self.instead = None;
        Some(self.moved(cx, Poll::Ready(Ok(bytes.len()))))
    }
}

fn silent(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl AsyncRead for Watched<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut *self.stream).poll_read(cx, buffer);
        if outcome.is_ready() {
            if before == buffer.filled().len() {
                self.phases.ended.store(true, Ordering::Release);
            } else if self.phases.is_idle() {
                self.phases.enter(HEAD);
            }
            return outcome;
        }
        if self.phases.poll_leaving(cx).is_ready() {
            return Poll::Ready(Err(silent("another connection needs the place")));
        }
        ready!(self.poll_silence(cx));
        Poll::Ready(Err(silent("no request came in time")))
    }
}

impl AsyncWrite for Watched<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(outcome) = self.poll_refusal(cx, bytes) {
            return outcome;
        }
        let outcome = Pin::new(&mut *self.stream).poll_write(cx, bytes);
        self.moved(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = pieces
            && let Some(outcome) = self.poll_refusal(cx, only)
        {
            return outcome;
        }
        let outcome = Pin::new(&mut *self.stream).poll_write_vectored(cx, pieces);
        self.moved(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // With TLS there may be bytes left that the peer does not take.
        let outcome = Pin::new(&mut *self.stream).poll_flush(cx);
        self.moved(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut *self.stream).poll_shutdown(cx);
        self.moved(cx, outcome)
    }
}
