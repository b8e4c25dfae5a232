//! Accepts connections, within limits, and ends them in order.
//!
//! poem's own server never times out a header that dribbles in and knows no limit of connections, so the same endpoints are served by
//! hyper from an accept loop of our own.

use std::convert::Infallible;
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
use poem::http::{HeaderValue, header};
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Addr, Endpoint, Request, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{Phases, Watched};
use crate::gather::{Gathered, Joined};
use crate::metric::CONNECTIONS;
use crate::{App, ServeReport, ServerLimits, refusal, router};

/// How long to wait before accepting again when the operating system refuses, for want of file descriptors say.
const AFTER_REFUSAL: Duration = Duration::from_millis(50);
/// What hyper buffers of a request's head beyond the limits, so that our own answer can say what was wrong.
const HEAD_SLACK: usize = 64 * 1024;
/// How long open connections are still read once the server stops: a request that is on its way when the signal comes was sent in good
/// faith, and hyper closes a connection at once that looks idle.
const GRACE: Duration = Duration::from_millis(100);
/// How long a peer may go on sending after its last answer. To close at once would reset the connection, and a peer that is still busy
/// sending would lose the answer.
const LINGER: Duration = Duration::from_secs(2);

/// Serves until `shutdown` is cancelled. Then nothing new is accepted, event streams end with a last event, and requests in flight
/// may finish, for at most `patience`.
pub async fn serve(
    listener: TcpListener,
    app: App,
    limits: ServerLimits,
    shutdown: CancellationToken,
    patience: Duration,
) -> ServeReport {
    let server = Arc::new(Server {
        endpoint: router(app, &limits, shutdown.clone()),
        limits,
        stopping: shutdown.clone(),
        cut_off: CancellationToken::new(),
        in_flight: AtomicUsize::new(0),
    });
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(server.limits.max_connections));
    accept(&listener, &server, &connections, &places).await;
    accept_queue(listener, &server, &connections, &places);

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
    places: &Arc<Semaphore>,
) {
    loop {
        // Beyond the limit, callers wait in the queue of the operating system.
        let place = tokio::select! {
            () = server.stopping.cancelled() => return,
            place = Arc::clone(places).acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = server.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
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
    places: &Arc<Semaphore>,
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
        let (server, places) = (Arc::clone(server), Arc::clone(places));
        connections.spawn(async move {
            let cut_off = server.cut_off.clone();
            if let Some(place) = cut_off.run_until_cancelled(places.acquire_owned()).await {
                server.converse(stream, remote).await;
                drop(place);
            }
        });
    }
}

impl<E: Endpoint<Output = Response> + 'static> Server<E> {
    async fn converse(self: Arc<Self>, mut stream: TcpStream, remote: SocketAddr) {
        let open = metrics::gauge!(CONNECTIONS);
        open.increment(1.0);
        let phases = Arc::new(Phases::new());
        let cut_off = self.cut_off.clone();
        let ended = cut_off
            .run_until_cancelled(self.answer_all(&mut stream, remote, &phases))
            .await;
        if let Some(ended) = ended {
            let is_refused = ended.as_ref().is_err_and(hyper::Error::is_parse);
            if is_refused && !phases.was_answered() {
                // A peer that leaves now knows why.
                let _ = timeout(self.limits.write_timeout, stream.write_all(&refusal::of_http_2())).await;
            }
            if (ended.is_ok() || is_refused) && phases.may_send() {
                self.stopping.run_until_cancelled(linger(&mut stream)).await;
            }
            if let Err(error) = ended {
                tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended early");
            }
        }
        open.decrement(1.0);
    }

    /// Answers the requests of a connection, one after the other.
    async fn answer_all(
        self: &Arc<Self>,
        stream: &mut TcpStream,
        remote: SocketAddr,
        phases: &Arc<Phases>,
    ) -> hyper::Result<()> {
        // Without it small answers wait for the caller's acknowledgement. A connection that refuses it works all the same.
        let _ = stream.set_nodelay(true);
        let local = stream.local_addr().unwrap_or(remote);
        let io = Watched::new(stream, Arc::clone(phases), &self.limits);
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let server = Arc::clone(self);
            let answering = Answering::new(Arc::clone(self), Arc::clone(phases));
            async move {
                let request: Request = (
                    request,
                    LocalAddr(Addr::SocketAddr(local)),
                    RemoteAddr(Addr::SocketAddr(remote)),
                    Scheme::HTTP,
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
                Ok::<_, Infallible>(response.map(|body| Sent {
                    body: Gathered::new(body),
                    _answering: answering,
                }))
            }
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

    async fn grace_is_over(&self) {
        self.stopping.cancelled().await;
        tokio::time::sleep(GRACE).await;
    }
}

/// Reads what the peer still sends, so that it gets to read what it was answered.
async fn linger(stream: &mut TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut nowhere = tokio::io::sink();
    // Whatever ends it, the connection is closed next.
    let _ = timeout(LINGER, tokio::io::copy(stream, &mut nowhere)).await;
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
