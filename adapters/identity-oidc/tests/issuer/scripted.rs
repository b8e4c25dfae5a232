//! An issuer whose answers are set by hand.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::signing::TestKey;

pub const DISCOVERY: &str = "/.well-known/openid-configuration";
pub const KEYS: &str = "/keys";

/// What is done with a question.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A status, further header lines and a body.
    Is(u16, String, String),
    /// No answer.
    Hangs,
    /// The connection is closed.
    Closes,
}

pub struct ScriptedIssuer {
    state: Arc<Mutex<State>>,
    url: String,
    _serving: JoinSet<()>,
}

struct State {
    discovery: Reply,
    keys: Reply,
    asked: Vec<String>,
}

impl ScriptedIssuer {
    /// At a free port, with these keys.
    pub async fn start(keys: &[&TestKey]) -> Self {
        Self::start_with(keys, "http", None).await
    }

    /// The same with TLS.
    pub async fn start_with_tls(keys: &[&TestKey], tls: TlsAcceptor) -> Self {
        Self::start_with(keys, "https", Some(tls)).await
    }

    async fn start_with(keys: &[&TestKey], scheme: &str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let state = Arc::new(Mutex::new(State {
            discovery: Reply::Closes,
            keys: Reply::Closes,
            asked: Vec::new(),
        }));
        let mut serving = JoinSet::new();
        let shared = Arc::clone(&state);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, shared).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, shared).await;
                            }
                        }
                    }
                });
            }
        });
        let issuer = Self {
            state,
            url: format!("{scheme}://127.0.0.1:{port}"),
            _serving: serving,
        };
        issuer.say_about_itself(&json!({"issuer": issuer.url, "jwks_uri": format!("{}{KEYS}", issuer.url)}));
        issuer.publish(keys);
        issuer
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn publish(&self, keys: &[&TestKey]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.published()).collect();
        self.publish_as(&json!({"keys": keys}));
    }

    pub fn publish_as(&self, document: &Value) {
        self.state().keys = Reply::Is(200, String::new(), document.to_string());
    }

    pub fn say_about_itself(&self, document: &Value) {
        self.state().discovery = Reply::Is(200, String::new(), document.to_string());
    }

    pub fn answer_discovery(&self, reply: Reply) {
        self.state().discovery = reply;
    }

    pub fn answer_keys(&self, reply: Reply) {
        self.state().keys = reply;
    }

    /// How often it was asked for what is at `path`.
    pub fn asked(&self, path: &str) -> usize {
        self.state().asked.iter().filter(|one| *one == path).count()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<Mutex<State>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let request = String::from_utf8(request).expect("a head");
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let reply = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked.push(path.clone());
        match path.as_str() {
            DISCOVERY => state.discovery.clone(),
            KEYS => state.keys.clone(),
            _ => Reply::Is(404, String::new(), String::new()),
        }
    };
    match reply {
        Reply::Is(status, headers, body) => {
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
            // A client that left does not mind.
            drop(stream.write_all((head + &body).as_bytes()).await);
            drop(stream.shutdown().await);
        }
        Reply::Hangs => std::future::pending().await,
        Reply::Closes => {}
    }
}
