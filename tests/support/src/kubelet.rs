//! Hollow kubelets: they run nothing, but pods start, and end when they are told to.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::{Method, Request};
use kube::Client;
use kube::core::WatchEvent;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::api_server::request;

/// How long a server is left alone that went away.
const AFTER_TROUBLE: Duration = Duration::from_millis(100);
/// How many requests they send at once.
const AT_ONCE: usize = 16;

/// The kubelets of all nodes of a cluster, until they are dropped. What a server that is away does not do is tried again.
pub struct Kubelets(JoinHandle<()>);

impl Drop for Kubelets {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Kubelets {
    pub(crate) fn start(client: Client, runtime: &Handle, ends_after: Duration) -> Self {
        Self(runtime.spawn(async move {
            loop {
                // Whatever ended it, all pods are looked at anew.
                let _ = look_after_pods(&client, ends_after).await;
                tokio::time::sleep(AFTER_TROUBLE).await;
            }
        }))
    }
}

/// Looks after the pods that there are and those that come, until the server does not answer.
async fn look_after_pods(client: &Client, ends_after: Duration) -> Option<()> {
    let (_, list) = ask(client, Method::GET, "/api/v1/pods", None).await?;
    let since = list["metadata"]["resourceVersion"].as_str()?;
    let watch = format!("/api/v1/pods?watch=true&resourceVersion={since}");
    let watch = Request::get(watch).body(Vec::new()).ok()?;
    let mut news = pin!(client.request_events::<Value>(watch).await.ok()?);

    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut known = HashSet::new();
    let mut works = JoinSet::new();
    let mut begin = |works: &mut JoinSet<Option<()>>, pod: &Value| {
        if let Some(work) = Work::of(pod)
            && known.insert((pod["metadata"]["uid"].to_string(), work))
        {
            works.spawn(work.done(client.clone(), pod.clone(), ends_after, Arc::clone(&turns)));
        }
    };
    for pod in list["items"].as_array().into_iter().flatten() {
        begin(&mut works, pod);
    }
    loop {
        tokio::select! {
            event = news.next() => match event?.ok()? {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => begin(&mut works, &pod),
                WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(_) => return None,
            },
            Some(done) = works.join_next() => done.ok()??,
        }
    }
}

/// What a kubelet does with a pod.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Work {
    Start,
    End,
}

impl Work {
    fn of(pod: &Value) -> Option<Self> {
        if pod["metadata"]["deletionTimestamp"].is_string() {
            return Some(Self::End);
        }
        (pod["status"]["phase"] == "Pending").then_some(Self::Start)
    }

    /// Does it; `None` if the server does not answer, or is in trouble.
    async fn done(self, client: Client, pod: Value, ends_after: Duration, turns: Arc<Semaphore>) -> Option<()> {
        let meta = &pod["metadata"];
        let (namespace, name) = (meta["namespace"].as_str()?, meta["name"].as_str()?);
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let (method, path, body) = match self {
            Self::Start => (
                Method::PATCH,
                format!("{path}/status"),
                json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}),
            ),
            Self::End => {
                tokio::time::sleep(ends_after).await;
                let gone = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}});
                (Method::DELETE, path, gone)
            }
        };
        let _turn = turns.acquire_owned().await.ok()?;
        let (status, _) = ask(&client, method, &path, Some(&body)).await?;
        // One that is gone, or another one by now, needs nothing more.
        let is_settled = (200..300).contains(&status) || [404, 409].contains(&status);
        is_settled.then_some(())
    }
}

/// What the server answers; `None` if it does not.
async fn ask(client: &Client, method: Method, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
    let answer = client.send(request(method, path, body)).await.ok()?;
    let status = answer.status().as_u16();
    let bytes = answer.into_body().collect_bytes().await.ok()?;
    Some((status, serde_json::from_slice(&bytes).unwrap_or_default()))
}
