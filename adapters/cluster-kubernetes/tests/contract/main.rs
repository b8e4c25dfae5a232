//! The cluster contract, and what only a real API server shows.

mod driver;
mod proxy;
mod reviews;
mod server;

use std::sync::Arc;
use std::time::Duration;

use knm_cluster_kubernetes::{KubernetesOptions, KubernetesSource};
use knm_contract::cluster::ClusterFixture;
use knm_model::ClusterName;
use knm_test_support::api_server::ApiServer;

use driver::ApiDriver;
use proxy::Proxy;

knm_contract::cluster_contract!(fresh_api_server);

async fn fresh_api_server() -> Option<ClusterFixture> {
    let server = ApiServer::start().await?;
    let proxy = Proxy::start(server.port()).await;
    let path = server.kubeconfig_through(proxy.port());
    let cluster = knm_cluster_kubernetes::open(options(path)).await.expect("a cluster");
    Some(ClusterFixture {
        gateway: cluster.gateway,
        driver: Arc::new(ApiDriver::new(server, proxy)),
        keep: Box::new(()),
    })
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
