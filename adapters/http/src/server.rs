//! Accepts connections, within limits, and ends them in order.
//!
//! poem's own server never times out a header that dribbles in and knows no limit of connections, so the same endpoints are served by
//! hyper from an accept loop of our own.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use poem::http::uri::Scheme;
use poem::http::{HeaderMap, HeaderValue, header};
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Addr, Endpoint, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{Phases, Watched};
use crate::gather::{Gathered, Joined};
use crate::metric::CONNECTIONS;
use crate::room::Room;
use crate::route::Paths;
use crate::stream::Stream;
use crate::tls::Tls;
use crate::{App, ServeReport, ServerLimits, refusal, router};

/// How long to wait before accepting again when the operating system refuses, for want of file descriptors say.
const AFTER_REFUSAL: Duration = Duration::from_millis(50);
/// How long to wait for a place before looking again for those who could make room.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// What hyper buffers of a request's head beyond the limits, so that our own answer can say what was wrong.
const HEAD_SLACK: usize = 64 * 1024;
/// How long open connections are still read once the server stops: a request that is on its way when the signal comes was sent in good
/// faith, and hyper closes a connection at once that looks idle.
const GRACE: Duration = Duration::from_millis(100);
/// How long a peer may go on sending after its last answer. To close at once would reset the connection, and a peer that is still busy
/// sending would lose the answer.
const LINGER: Duration = Duration::from_secs(2);

/// Where callers come in.
pub struct Entrance {
    /// Where they connect.
    pub listener: TcpListener,
    /// The certificate that is served; without it connections are plain.
    pub tls: Option<Arc<Tls>>,
    /// Which of the paths they find.
    pub paths: Paths,
}

/// Serves until `shutdown` is cancelled. Then nothing new is accepted, event streams end with a last event, and requests in flight
/// may finish, for at most `patience`.
pub async fn serve(
    entrance: Entrance,
    app: App,
    limits: ServerLimits,
    shutdown: CancellationToken,
    patience: Duration,
) -> ServeReport {
    let server = Arc::new(Server {
        endpoint: router(app, &limits, entrance.paths, shutdown.clone()),
        tls: entrance.tls,
        places: Arc::new(Semaphore::new(limits.max_connections)),
        room: Room::new(),
        limits,
        stopping: shutdown.clone(),
        cut_off: CancellationToken::new(),
        in_flight: AtomicUsize::new(0),
    });
    let connections = TaskTracker::new();
    accept(&entrance.listener, &server, &connections).await;
    accept_queue(entrance.listener, &server, &connections);

    let began = Instant::now();
    connections.close();
    let mut cut_off = 0;
    if timeout(patience, connections.wait()).await.is_err() {
        cut_off = server.in_flight.load(Ordering::Relaxed);
        server.cut_off.cancel();
        connections.wait().await;
    }
    ServeReport {
        cut_off,
        took: began.elapsed(),
    }
}

struct Server<E> {
    endpoint: E,
    tls: Option<Arc<Tls>>,
    /// One for each connection.
    places: Arc<Semaphore>,
    room: Room,
    limits: ServerLimits,
    /// Cancelled when no new request is to be taken.
    stopping: CancellationToken,
    /// Cancelled when those in flight have had their time.
    cut_off: CancellationToken,
    /// Requests whose answer is not sent to its end yet.
    in_flight: AtomicUsize,
}

async fn accept<E: Endpoint<Output = Response> + 'static>(
    listener: &TcpListener,
    server: &Arc<Server<E>>,
    connections: &TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            () = server.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                // Beyond the limit one waits here, and others in the queue of the operating system.
                let Some(place) = server.stopping.run_until_cancelled(server.place()).await else {
                    connections.spawn(Arc::clone(server).converse_in_turn(stream, remote));
                    return;
                };
                let server = Arc::clone(server);
                connections.spawn(async move {
                    server.converse(stream, remote).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a connection could not be accepted"
                );
                // Most probably there are too many open files or too little memory, of which each silent one holds a part.
                server.room.make();
                tokio::time::sleep(AFTER_REFUSAL).await;
            }
        }
    }
}

/// Accepts those who connected before the end and were not accepted yet: their requests may be on the way.
fn accept_queue<E: Endpoint<Output = Response> + 'static>(
    listener: TcpListener,
    server: &Arc<Server<E>>,
    connections: &TaskTracker,
) {
    // Asked directly: the runtime may not have heard of the last ones yet.
    let Ok(listener) = listener.into_std() else {
        return;
    };
    loop {
        let accepted = listener.accept().and_then(|(stream, remote)| {
            stream.set_nonblocking(true)?;
            Ok((TcpStream::from_std(stream)?, remote))
        });
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            // It left while it waited.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(_) => return,
        };
        connections.spawn(Arc::clone(server).converse_in_turn(stream, remote));
    }
}

impl<E: Endpoint<Output = Response> + 'static> Server<E> {
    async fn converse(self: Arc<Self>, stream: TcpStream, remote: SocketAddr) {
        let open = metrics::gauge!(CONNECTIONS);
        open.increment(1.0);
        let phases = Arc::new(Phases::new(self.limits.write_timeout));
        let guest = self.room.enter(Arc::clone(&phases));
        let cut_off = self.cut_off.clone();
        if let Some(Some(stream)) = cut_off.run_until_cancelled(self.greeted(stream, &phases)).await {
            // Boxed: the silent ones need no memory for it.
            Box::pin(self.talk(stream, remote, &phases)).await;
        }
        drop(guest);
        open.decrement(1.0);
    }

    /// As [`Server::converse`], when there is a place and unless everything is cut off before.
    async fn converse_in_turn(self: Arc<Self>, stream: TcpStream, remote: SocketAddr) {
        let cut_off = self.cut_off.clone();
        let waiting = Arc::clone(&self.places).acquire_owned();
        if let Some(place) = cut_off.run_until_cancelled(waiting).await {
            self.converse(stream, remote).await;
            drop(place);
        }
    }

    /// A place for one more connection. Those who are silent make room for it.
    async fn place(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                return place;
            }
            self.room.make();
            // Nobody closes the semaphore.
            if let Ok(Ok(place)) = timeout(BETWEEN_LOOKS, Arc::clone(&self.places).acquire_owned()).await {
                return place;
            }
        }
    }

    /// The connection once its peer has said something, ready for requests: with TLS that takes a greeting, which has as long as the head of
    /// a request. Those who are silent have no buffers yet, and take little memory.
    async fn greeted(&self, mut stream: TcpStream, phases: &Phases) -> Option<Stream> {
        // Without it small answers wait for the caller's acknowledgement. A connection that refuses it works all the same.
        let _ = stream.set_nodelay(true);
        let greeting = async {
            let mut first = [0];
            stream.peek(&mut first).await.map_err(|error| (error, None))?;
            let Some(tls) = &self.tls else {
                return Ok(Stream::Plain(stream));
            };
            // The first byte of TLS is no letter, and that of HTTP is one.
            if first[0].is_ascii_alphabetic() {
                // A peer that leaves now knows why.
                let _ = stream.write_all(&refusal::of_plain_http()).await;
                let plain = io::Error::new(io::ErrorKind::InvalidData, "the peer speaks HTTP without TLS");
                return Err((plain, Some(stream)));
            }
            match Box::pin(tls.greet(stream)).await {
                Ok(stream) => {
                    phases.greeted();
                    Ok(Stream::Tls(Box::new(stream)))
                }
                Err((error, stream)) => Err((error, Some(stream))),
            }
        };
        let outcome = tokio::select! {
            outcome = timeout(self.limits.header_read_timeout, greeting) => outcome,
            () = self.grace_is_over() => return None,
            () = poll_fn(|cx| phases.poll_leaving(cx)) => return None,
        };
        match outcome {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err((error, stream))) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a connection ended before its first request"
                );
                if let Some(mut stream) = stream {
                    self.linger(&mut stream, phases).await;
                }
                None
            }
            Err(_) => None,
        }
    }

    async fn talk(self: &Arc<Self>, mut stream: Stream, remote: SocketAddr, phases: &Arc<Phases>) {
        let cut_off = self.cut_off.clone();
        let ended = cut_off
            .run_until_cancelled(self.answer_all(&mut stream, remote, phases))
            .await;
        let Some(ended) = ended else {
            return;
        };
        let is_refused = ended.as_ref().is_err_and(hyper::Error::is_parse);
        if is_refused && !phases.was_answered() {
            let refusal = refusal::of_http_2();
            let telling = async {
                stream.write_all(&refusal).await?;
                stream.flush().await
            };
            // A peer that leaves now knows why.
            let _ = timeout(self.limits.write_timeout, telling).await;
        }
        if (ended.is_ok() || is_refused) && phases.may_send() {
            self.linger(&mut stream, phases).await;
        }
        if let Err(error) = ended {
            tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended early");
        }
    }

    /// Answers the requests of a connection, one after the other.
    async fn answer_all(
        self: &Arc<Self>,
        stream: &mut Stream,
        remote: SocketAddr,
        phases: &Arc<Phases>,
    ) -> hyper::Result<()> {
        let local = stream.tcp().local_addr().unwrap_or(remote);
        let scheme = match stream {
            Stream::Plain(_) => Scheme::HTTP,
            Stream::Tls(_) => Scheme::HTTPS,
        };
        let io = Watched::new(stream, Arc::clone(phases), &self.limits);
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let server = Arc::clone(self);
            let answering = Answering::new(Arc::clone(self), Arc::clone(phases));
            let scheme = scheme.clone();
            // Boxed: hyper keeps the memory of a request's future for as long as there is a connection.
            Box::pin(async move {
                let request: Request = (
                    request,
                    LocalAddr(Addr::SocketAddr(local)),
                    RemoteAddr(Addr::SocketAddr(remote)),
                    scheme,
                )
                    .into();
                let response = server
                    .endpoint
                    .call(request)
                    .await
                    .unwrap_or_else(|error| error.into_response());
                let mut response: hyper::Response<BoxBody<Bytes, io::Error>> = response.into();
                if server.stopping.is_cancelled() {
                    // Nobody should send the next request here.
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                // Event streams end when their reader leaves; how many there are has a limit of its own.
                if !is_event_stream(response.headers()) {
                    answering.phases.sending();
                }
                Ok::<_, Infallible>(response.map(|body| Sent {
                    body: Gathered::new(body),
                    _answering: answering,
                }))
            })
        });
        let connection = http1::Builder::new()
            .max_buf_size(self.limits.max_header_bytes + self.limits.max_url_bytes + HEAD_SLACK)
            .serve_connection(TokioIo::new(io), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.grace_is_over() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    }

    /// Reads what the peer still sends, so that it gets to read what it was answered, unless somebody needs the place.
    async fn linger<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S, phases: &Phases) {
        phases.idle();
        let reading = async {
            stream.shutdown().await?;
            tokio::io::copy(stream, &mut tokio::io::sink()).await
        };
        // Whatever ends it, the connection is closed next.
        tokio::select! {
            _ = timeout(LINGER, reading) => {}
            () = self.stopping.cancelled() => {}
            () = poll_fn(|cx| phases.poll_leaving(cx)) => {}
        }
    }

    async fn grace_is_over(&self) {
        self.stopping.cancelled().await;
        tokio::time::sleep(GRACE).await;
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// One request that is being answered, until the last byte of its answer is handed over or its connection ends.
struct Answering<E> {
    server: Arc<Server<E>>,
    phases: Arc<Phases>,
}

impl<E> Answering<E> {
    fn new(server: Arc<Server<E>>, phases: Arc<Phases>) -> Self {
        server.in_flight.fetch_add(1, Ordering::Relaxed);
        phases.busy();
        Self { server, phases }
    }
}

impl<E> Drop for Answering<E> {
    fn drop(&mut self) {
        self.server.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.phases.idle();
    }
}

/// A body that knows when it was sent.
struct Sent<E> {
    body: Gathered<BoxBody<Bytes, io::Error>>,
    _answering: Answering<E>,
}

impl<E> HttpBody for Sent<E> {
    type Data = Joined;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Joined>, io::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
