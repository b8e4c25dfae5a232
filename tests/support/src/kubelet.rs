//! Hollow kubelets: they run nothing, but pods start, and end when they are told to.

use std::collections::HashMap;
use std::time::Duration;

use http::Method;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::api_server::request;

/// How often they look.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The kubelets of all nodes of a cluster, until they are dropped. What a server that is away does not do is tried again.
pub struct Kubelets(JoinHandle<()>);

impl Drop for Kubelets {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Kubelets {
    pub(crate) fn start(client: Client, runtime: &Runtime, ends_after: Duration) -> Self {
        Self(runtime.spawn(async move {
            let mut told: HashMap<String, Instant> = HashMap::new();
            loop {
                if let Some(pods) = ask(&client, Method::GET, "/api/v1/pods", None).await {
                    for pod in pods["items"].as_array().into_iter().flatten() {
                        look_after(&client, pod, &mut told, ends_after).await;
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }))
    }
}

async fn look_after(client: &Client, pod: &Value, told: &mut HashMap<String, Instant>, ends_after: Duration) {
    let meta = &pod["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let path = format!(
        "/api/v1/namespaces/{}/pods/{}",
        text(&meta["namespace"]),
        text(&meta["name"])
    );
    if meta["deletionTimestamp"].is_string() {
        let since = told.entry(text(&meta["uid"])).or_insert_with(Instant::now);
        if ends_after <= since.elapsed() {
            let gone = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}});
            ask(client, Method::DELETE, &path, Some(&gone)).await;
        }
    } else if pod["status"]["phase"] == "Pending" {
        let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        ask(client, Method::PATCH, &format!("{path}/status"), Some(&running)).await;
    }
}

/// What the server answers; `None` if it does not, or refuses.
async fn ask(client: &Client, method: Method, path: &str, body: Option<&Value>) -> Option<Value> {
    let answer = client.send(request(method, path, body)).await.ok()?;
    let is_done = answer.status().is_success();
    let bytes = Body::collect_bytes(answer.into_body()).await.ok()?;
    serde_json::from_slice(&bytes).ok().filter(|_| is_done)
}
