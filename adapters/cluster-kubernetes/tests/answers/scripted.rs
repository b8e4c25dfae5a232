//! A server whose answers are written down before.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What is done with a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A status, further header lines and a body.
    Is(u16, &'static str, String),
    /// The beginning of an answer that goes on, and then nothing more until the client leaves.
    Begins(String),
    /// An answer that ends after its lines.
    Lines(String),
    /// An answer that says to be longer than it is.
    CutOff(String),
    /// No answer.
    Hangs,
}

pub struct Scripted {
    folder: TempDir,
    state: Arc<Mutex<State>>,
    _serving: JoinSet<()>,
    port: u16,
}

#[derive(Default)]
struct State {
    /// Each request takes the first answer whose text stands in its first line.
    script: VecDeque<(&'static str, Answer)>,
    seen: Vec<String>,
}

impl Scripted {
    pub async fn start(script: impl IntoIterator<Item = (&'static str, Answer)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let state = Arc::new(Mutex::new(State {
            script: script.into_iter().collect(),
            seen: Vec::new(),
        }));
        let mut serving = JoinSet::new();
        let shared = Arc::clone(&state);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        let server = Self {
            folder: TempDir::new().expect("a folder"),
            state,
            _serving: serving,
            port,
        };
        server.write_kubeconfig("first-token");
        server
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    pub fn write_kubeconfig(&self, token: &str) {
        self.write_user(&json!({"token": token}));
    }

    /// A kubeconfig whose token comes from a plugin, which prints the content of a file.
    pub fn write_plugin_kubeconfig(&self) {
        let credential = concat!(
            r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s","#,
            r#""expirationTimestamp":"2100-01-01T00:00:00Z"}}"#
        );
        let script = format!("printf '{credential}' \"$(cat \"$1\")\"");
        self.write_user(&json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "sh",
            "args": ["-c", script, "plugin", self.plugin_token()],
            "interactiveMode": "Never",
        }}));
    }

    /// What the plugin reads.
    pub fn plugin_token(&self) -> PathBuf {
        self.folder.path().join("plugin-token")
    }

    fn write_user(&self, user: &serde_json::Value) {
        let content = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "scripted",
            "contexts": [{"name": "scripted", "context": {"cluster": "scripted", "user": "tester"}}],
            "clusters": [{"name": "scripted", "cluster": {"server": format!("http://127.0.0.1:{}", self.port)}}],
            "users": [{"name": "tester", "user": user}],
        });
        std::fs::write(self.kubeconfig(), content.to_string()).expect("a kubeconfig");
    }

    /// The requests until now, whole heads and bodies.
    pub fn seen(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).seen.clone()
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    while let Some(request) = read_request(&mut stream).await {
        let answer = take(&state, &request);
        match answer {
            Answer::Is(status, headers, body) => {
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
                send(&mut stream, &(head + &body)).await;
            }
            Answer::Begins(body) => {
                send(&mut stream, &format!("HTTP/1.1 200 OK\r\n\r\n{body}")).await;
                std::future::pending::<()>().await;
            }
            Answer::Lines(body) => return send(&mut stream, &format!("HTTP/1.1 200 OK\r\n\r\n{body}")).await,
            Answer::CutOff(body) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len() + 1000);
                return send(&mut stream, &(head + &body)).await;
            }
            Answer::Hangs => std::future::pending().await,
        }
    }
}

fn take(state: &Mutex<State>, head: &str) -> Answer {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.seen.push(head.to_owned());
    let line = head.lines().next().unwrap_or_default();
    let found = state.script.iter().position(|(text, _)| line.contains(text));
    match found.and_then(|place| state.script.remove(place)) {
        Some((_, answer)) => answer,
        None => Answer::Is(500, "", "the script is over".to_owned()),
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.ok()?);
    }
    let length = length(std::str::from_utf8(&request).ok()?);
    let start = request.len();
    request.resize(start + length, 0);
    stream.read_exact(&mut request[start..]).await.ok()?;
    String::from_utf8(request).ok()
}

/// How long the body after this head is.
fn length(head: &str) -> usize {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let value = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    value.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

async fn send(stream: &mut TcpStream, text: &str) {
    // A client that left does not mind.
    drop(stream.write_all(text.as_bytes()).await);
}
