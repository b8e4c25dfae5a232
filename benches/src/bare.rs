//! The other side of each ratio: hyper alone, sending bytes that it was given.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::Failure;

/// Serves `body` on `port`, and an empty 304 under `/empty`, until the process is ended.
pub async fn serve(port: u16, body: Bytes) -> Result<(), Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let body = body.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
                let body = body.clone();
                async move { Ok::<_, Infallible>(answer(request.uri().path(), body)) }
            });
            // A client that goes away in the middle is the end of a run, not a failure.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

fn answer(path: &str, body: Bytes) -> Response<Full<Bytes>> {
    if path == "/empty" {
        let mut empty = Response::new(Full::default());
        *empty.status_mut() = StatusCode::NOT_MODIFIED;
        return empty;
    }
    let mut full = Response::new(Full::new(body));
    full.headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    full
}
