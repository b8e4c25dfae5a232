//! A service with two clusters, whose callers say in their tokens what they may do where: `east:view+change,west:view`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use knm_cluster_memory::{Fleet, FleetOptions};
use knm_domain::{
    Audit, ClusterHandle, ClusterRegistry, Health, HealthSettings, Idempotency, Inventory, KubernetesSignIn,
    NodeChanges, Operations, RegistryParts, RegistrySettings, SignIn, Templates, Tokens, Ways,
};
use knm_model::{AccessRules, ClusterName, ClusterSource, KubernetesIdentity, Permission};
use knm_ports::{
    AccessReviews, Clock, ClusterError, CountedIds, IdSource, ManualClock, MockClusterOpener, MockMetricsExposition,
    MockSystemStats, ProcessStats, Randomness,
};
use poem::http::{Method, StatusCode};
use poem::{Endpoint, Request, Response};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::route::Paths;
use crate::{App, AppSettings, ServerLimits, router};

/// The clusters; the first one is asked whose tokens are.
pub(super) const CLUSTERS: [&str; 2] = ["east", "west"];

/// Knows everybody, and lets them do what their token says.
struct Reviews {
    cluster: &'static str,
}

struct Random;

impl Randomness for Random {
    fn bytes(&self) -> [u8; 32] {
        uuid::Uuid::new_v4()
            .into_bytes()
            .repeat(2)
            .try_into()
            .unwrap_or_default()
    }
}

#[async_trait]
impl AccessReviews for Reviews {
    async fn identify(&self, token: &str, _: &[String]) -> Result<Option<KubernetesIdentity>, ClusterError> {
        Ok(token.contains(':').then(|| KubernetesIdentity {
            user: token.to_owned(),
            ..KubernetesIdentity::default()
        }))
    }

    async fn may(&self, identity: &KubernetesIdentity, permission: Permission) -> Result<bool, ClusterError> {
        let of_cluster = |part: &str| {
            let (cluster, words) = part.split_once(':')?;
            (cluster == self.cluster).then(|| words.split('+').any(|word| word == permission.as_str()))
        };
        Ok(identity.user.split(',').find_map(of_cluster).unwrap_or(false))
    }
}

/// An answer that was read to its end.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Value,
    pub(super) text: String,
    pub(super) challenge: Option<String>,
}

pub(super) struct Stage {
    endpoint: Box<dyn poem::endpoint::DynEndpoint<Output = Response>>,
    pub(super) inventory: Arc<Inventory>,
}

impl Stage {
    pub(super) async fn new() -> Self {
        Self::with_limits(ServerLimits::of_tests()).await
    }

    pub(super) async fn with_limits(limits: ServerLimits) -> Self {
        let clock: Arc<dyn Clock> = ManualClock::at("2030-01-01T00:00:00Z");
        let ids: Arc<dyn IdSource> = Arc::new(CountedIds::default());
        let storage = knm_storage_memory::open();
        let handles = (1..).zip(CLUSTERS).map(|(seed, cluster)| ClusterHandle {
            name: ClusterName::from_any(cluster),
            source: ClusterSource::Demo,
            gateway: Fleet::new(FleetOptions {
                nodes: 6,
                seed,
                change_every: None,
                started_at: clock.now(),
            })
            .gateway(),
            reviews: Some(Arc::new(Reviews { cluster })),
            watch_pods: false,
        });
        let inventory = Inventory::start(Arc::clone(&clock), handles.collect(), CancellationToken::new());
        inventory.settled(Duration::from_secs(10)).await;
        let tokens = Tokens::new(Arc::clone(&storage.tokens), Arc::clone(&clock), Arc::new(Random));
        let ways = Ways::Closed {
            tokens: Some(Arc::clone(&tokens)),
            oidc: None,
            kubernetes: Some(Arc::new(KubernetesSignIn::new(
                ClusterName::from_any(CLUSTERS[0]),
                Vec::new(),
            ))),
        };
        let mut stats = MockSystemStats::new();
        stats.expect_process().returning(ProcessStats::default);
        stats.expect_live_tasks().returning(|| 1);
        stats.expect_hostname().returning(|| "host".to_owned());
        let mut exposition = MockMetricsExposition::new();
        exposition.expect_render().returning(|_| String::new());
        let operations = Operations::new(
            Arc::clone(&inventory),
            Arc::clone(&storage.operations),
            &*storage.wakes,
            Arc::clone(&clock),
            Arc::clone(&ids),
            Duration::from_secs(1),
        );
        let registry = ClusterRegistry::new(RegistryParts {
            inventory: Arc::clone(&inventory),
            store: Arc::clone(&storage.registered),
            vault: None,
            opener: Arc::new(MockClusterOpener::new()),
            audit: Arc::clone(&storage.audit),
            operations: Arc::clone(&operations),
            clock: Arc::clone(&clock),
            ids: Arc::clone(&ids),
            settings: RegistrySettings {
                rules: AccessRules::default(),
                max_clusters: 1,
                watch_pods: false,
            },
        });
        let app = App {
            registry,
            changes: NodeChanges::new(
                Arc::clone(&inventory),
                Arc::clone(&storage.audit),
                Arc::clone(&storage.holds),
                Arc::clone(&clock),
                Arc::clone(&ids),
            ),
            operations,
            templates: Templates::new(
                Arc::clone(&inventory),
                Arc::clone(&storage.definitions),
                Arc::clone(&clock),
            ),
            audit: Arc::new(Audit::new(Arc::clone(&storage.audit), Arc::clone(&inventory))),
            sign_in: SignIn::new(ways, Arc::clone(&inventory), Arc::clone(&clock)),
            tokens,
            idempotency: Arc::new(Idempotency::new(Arc::clone(&storage.keys), Arc::clone(&clock))),
            health: Health::start(
                HealthSettings {
                    service: "knm".to_owned(),
                    version: "0".to_owned(),
                    rust_version: "0".to_owned(),
                },
                Arc::clone(&storage.admin),
                Arc::clone(&clock),
                Arc::new(stats),
                Arc::clone(&inventory),
                CancellationToken::new(),
            ),
            exposition: Arc::new(exposition),
            inventory: Arc::clone(&inventory),
            settings: AppSettings {
                debug_errors: false,
                metrics_require_auth: true,
                docs_require_auth: true,
                cors_origins: Vec::new(),
                trusted_proxies: Vec::new(),
                write_timeout: Duration::from_secs(10),
                read_timeout: Duration::from_secs(10),
                max_body_bytes: 100_000,
            },
        };
        let limits = ServerLimits {
            max_url_bytes: 8_192,
            max_header_bytes: 32_768,
            ..limits
        };
        let endpoint = router(app, &limits, Paths::All, CancellationToken::new());
        Self {
            endpoint: Box::new(poem::endpoint::ToDynEndpoint(endpoint)),
            inventory,
        }
    }

    /// The name of the first node of a cluster.
    pub(super) fn node(&self, cluster: &str) -> String {
        let snapshot = self.inventory.snapshot(cluster).unwrap();
        snapshot.entries().next().unwrap().node().name.to_string()
    }

    pub(super) async fn ask(&self, method: &Method, path: &str, token: Option<&str>, body: Option<&Value>) -> Answer {
        self.ask_with(method, path, token, body, &[]).await
    }

    pub(super) async fn ask_with(
        &self,
        method: &Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = Request::builder()
            .method(method.clone())
            .uri_str(path)
            .header("host", "knm");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = match body {
            None => request.finish(),
            Some(body) => {
                let text = body.to_string();
                request
                    .header("content-type", "application/json")
                    .header("content-length", text.len().to_string())
                    .body(text)
            }
        };
        let response = self.endpoint.call(request).await.unwrap();
        let status = response.status();
        let challenge = response
            .headers()
            .get("www-authenticate")
            .map(|value| value.to_str().unwrap().to_owned());
        let is_stream = response.content_type() == Some("text/event-stream");
        let text = match is_stream {
            true => String::new(),
            false => response.into_body().into_string().await.unwrap(),
        };
        Answer {
            status,
            body: serde_json::from_str(&text).unwrap_or_default(),
            text,
            challenge,
        }
    }

    pub(super) async fn done(&self, method: Method, path: &str, token: &str, body: Value) -> Value {
        let answer = self.ask(&method, path, Some(token), Some(&body)).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text);
        answer.body
    }
}
