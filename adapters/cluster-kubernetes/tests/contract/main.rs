//! The cluster contract, and what only a real API server shows.

mod driver;
mod proxy;
mod reviews;
mod server;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use knm_cluster_kubernetes::{KubernetesOptions, KubernetesSource};
use knm_contract::cluster::ClusterFixture;
use knm_model::ClusterName;
use knm_test_support::api_server::ApiServer;
use serde_json::{Value, json};

use driver::{ApiDriver, SERVICE, rules};
use proxy::Proxy;

knm_contract::cluster_contract!(fresh_api_server);

async fn fresh_api_server() -> Option<ClusterFixture> {
    let server = ApiServer::start().await?;
    let proxy = Proxy::start(server.port()).await;
    // With what features need and no more, so that nothing of the contract takes more.
    let token = server.service_account(SERVICE, &rules(&[])).await;
    let path = with_token(&server.kubeconfig_through(proxy.port()), &token);
    let cluster = knm_cluster_kubernetes::open(options(path)).await.expect("a cluster");
    Some(ClusterFixture {
        gateway: cluster.gateway,
        driver: Arc::new(ApiDriver::new(server, proxy)),
        keep: Box::new(()),
    })
}

/// A kubeconfig of somebody with this token, beside the one at `path`.
fn with_token(path: &Path, token: &str) -> PathBuf {
    let text = std::fs::read_to_string(path).expect("a kubeconfig");
    let mut content: Value = serde_json::from_str(&text).expect("json");
    content["users"][0]["user"] = json!({"token": token});
    let path = path.with_file_name("kubeconfig-of-the-service");
    std::fs::write(&path, content.to_string()).expect("a kubeconfig");
    path
}

/// Pages so small that the contract's lists have several.
fn options(path: std::path::PathBuf) -> KubernetesOptions {
    KubernetesOptions {
        cluster: ClusterName::from_any("tested"),
        source: KubernetesSource::Kubeconfig { path, context: None },
        page_size: 2,
        request_timeout: Duration::from_secs(20),
        max_requests_per_second: 0,
    }
}
