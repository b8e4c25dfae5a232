//! Opens the clusters that the configuration names, or those that can be found.

#[cfg(feature = "kubernetes")]
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use knm_domain::{ClusterHandle, ConfiguredAccess};
use knm_model::{AccessRules, ClusterAccess, ClusterName, ClusterSource};
use knm_ports::{Clock, ClusterOpener, OpenedCluster};

use crate::configuration::{ClusterSetting, DemoSetting, Environment, KubernetesSettings, SourceSetting};

/// Why a cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// This build leaves the adapter out.
    #[error(
        "the source {source_kind} of cluster {name} is not part of this build: build with the feature \"{feature}\""
    )]
    #[cfg(not(all(feature = "kubernetes", feature = "memory")))]
    NotBuilt {
        name: ClusterName,
        source_kind: &'static str,
        feature: &'static str,
    },
    /// Its credentials cannot be read.
    #[cfg(feature = "kubernetes")]
    #[error("cluster {name} cannot be used")]
    Kubernetes {
        name: ClusterName,
        #[source]
        source: knm_cluster_kubernetes::OpenError,
    },
    /// What lies at the usual place is broken. Going on without it would look like a fleet without nodes.
    #[cfg(feature = "kubernetes")]
    #[error(
        "no clusters are configured, and the kubeconfig that was found cannot be used (`clusters: []` does without one)"
    )]
    Found(#[source] knm_cluster_kubernetes::OpenError),
}

/// Opens one cluster. It need not be reachable.
///
/// # Errors
/// [`OpenError`] if its credentials cannot be read or this build does not know its kind.
pub async fn open(
    cluster: &ClusterSetting,
    settings: &KubernetesSettings,
    clock: &Arc<dyn Clock>,
) -> Result<ClusterHandle, OpenError> {
    let (source, opened) = match &cluster.source {
        SourceSetting::InCluster => (ClusterSource::InCluster, real(cluster, settings).await?),
        SourceSetting::Kubeconfig { .. } => (ClusterSource::Kubeconfig, real(cluster, settings).await?),
        SourceSetting::Demo(demo) => (ClusterSource::Demo, simulated(&cluster.name, demo, clock)?),
    };
    Ok(ClusterHandle {
        name: cluster.name.clone(),
        source,
        gateway: opened.gateway,
        reviews: opened.reviews,
        watch_pods: settings.watch_pods,
    })
}

#[cfg(feature = "kubernetes")]
async fn real(cluster: &ClusterSetting, settings: &KubernetesSettings) -> Result<OpenedCluster, OpenError> {
    let options = knm_cluster_kubernetes::KubernetesOptions {
        cluster: cluster.name.clone(),
        source: kubernetes_source(&cluster.source),
        page_size: settings.page_size,
        request_timeout: settings.request_timeout,
        max_requests_per_second: settings.max_requests_per_second,
    };
    let opened = knm_cluster_kubernetes::open(options).await;
    let opened = opened.map_err(|source| OpenError::Kubernetes {
        name: cluster.name.clone(),
        source,
    })?;
    Ok(OpenedCluster {
        gateway: opened.gateway,
        reviews: Some(opened.reviews),
    })
}

#[cfg(not(feature = "kubernetes"))]
async fn real(cluster: &ClusterSetting, settings: &KubernetesSettings) -> Result<OpenedCluster, OpenError> {
    // They are checked and shown in every build.
    let _ = (
        settings.page_size,
        settings.request_timeout,
        settings.max_requests_per_second,
    );
    Err(OpenError::NotBuilt {
        name: cluster.name.clone(),
        source_kind: match &cluster.source {
            SourceSetting::InCluster => ClusterSource::InCluster.as_str(),
            SourceSetting::Kubeconfig { .. } => ClusterSource::Kubeconfig.as_str(),
            SourceSetting::Demo(_) => ClusterSource::Demo.as_str(),
        },
        feature: "kubernetes",
    })
}

#[cfg(feature = "memory")]
#[expect(
    clippy::unnecessary_wraps,
    reason = "a build without the simulated fleet has an error here"
)]
fn simulated(_: &ClusterName, demo: &DemoSetting, clock: &Arc<dyn Clock>) -> Result<OpenedCluster, OpenError> {
    let change_every = (0.0 < demo.changes_per_second).then(|| {
        std::time::Duration::try_from_secs_f64(1.0 / demo.changes_per_second).unwrap_or(std::time::Duration::MAX)
    });
    let options = knm_cluster_memory::FleetOptions {
        nodes: demo.nodes,
        seed: demo.seed,
        change_every,
        started_at: clock.now(),
    };
    let fleet = knm_cluster_memory::Fleet::with_pods_per_node(options, demo.pods_per_node);
    Ok(OpenedCluster {
        gateway: fleet.gateway(),
        reviews: None,
    })
}

#[cfg(not(feature = "memory"))]
fn simulated(name: &ClusterName, _: &DemoSetting, _: &Arc<dyn Clock>) -> Result<OpenedCluster, OpenError> {
    Err(OpenError::NotBuilt {
        name: name.clone(),
        source_kind: ClusterSource::Demo.as_str(),
        feature: "memory",
    })
}

/// What was found where nothing is configured.
pub struct Found {
    /// The cluster, if there is one.
    pub cluster: Option<ClusterSetting>,
    /// Where it was found, or why there is none.
    pub how: String,
}

/// Looks for the service account of this pod, then for the current context of a kubeconfig.
///
/// # Errors
/// [`OpenError::Found`] if there is a kubeconfig that is none, or that cannot be read.
#[cfg(feature = "kubernetes")]
pub fn find(environment: &Environment) -> Result<Found, OpenError> {
    use std::io::ErrorKind;

    use knm_cluster_kubernetes::OpenError as Trouble;

    if knm_cluster_kubernetes::in_cluster_available() {
        return Ok(Found {
            cluster: Some(ClusterSetting {
                name: ClusterName::from_any("in-cluster"),
                source: SourceSetting::InCluster,
            }),
            how: "the service account of this pod".to_owned(),
        });
    }
    let none = |how: String| Ok(Found { cluster: None, how });
    let Some(path) = kubeconfig(environment) else {
        return none("no service account, no kubeconfig".to_owned());
    };
    match knm_cluster_kubernetes::current_context(&path) {
        Ok(Some(context)) => Ok(Found {
            cluster: Some(ClusterSetting {
                name: ClusterName::from_any(&context),
                source: SourceSetting::Kubeconfig {
                    path: path.clone(),
                    context: Some(context),
                },
            }),
            how: format!("the current context of {}", path.display()),
        }),
        Ok(None) => none(format!(
            "{} has no current context: `kubectl config use-context` sets one",
            path.display()
        )),
        Err(Trouble::Unreadable { source, .. }) if source.kind() == ErrorKind::NotFound => {
            none(format!("KUBECONFIG names {}, which is not there", path.display()))
        }
        Err(error) => Err(OpenError::Found(error)),
    }
}

/// A build without Kubernetes finds nothing.
#[cfg(not(feature = "kubernetes"))]
#[expect(clippy::unnecessary_wraps, reason = "a build with Kubernetes has an error here")]
pub fn find(_: &Environment) -> Result<Found, OpenError> {
    Ok(Found {
        cluster: None,
        how: "none is configured, and this build lacks the feature \"kubernetes\"".to_owned(),
    })
}

/// The files of `KUBECONFIG`, else the usual one in the home folder.
#[cfg(feature = "kubernetes")]
fn kubeconfig(environment: &Environment) -> Option<PathBuf> {
    let set = |name: &str| environment.get(name).filter(|text| !text.is_empty());
    if let Some(list) = set("KUBECONFIG") {
        return Some(PathBuf::from(list));
    }
    let usual = PathBuf::from(set("HOME")?).join(".kube/config");
    usual.is_file().then_some(usual)
}

/// Tells what the metrics of the clusters mean.
pub fn describe_metrics() {
    #[cfg(feature = "kubernetes")]
    knm_cluster_kubernetes::describe_metrics();
}

/// Opens clusters whose credentials somebody sent.
#[cfg(feature = "kubernetes")]
pub fn opener(settings: &KubernetesSettings, rules: AccessRules) -> Arc<dyn ClusterOpener> {
    Arc::new(knm_cluster_kubernetes::KubernetesOpener {
        page_size: settings.page_size,
        request_timeout: settings.request_timeout,
        max_requests_per_second: settings.max_requests_per_second,
        rules,
    })
}

/// A build without Kubernetes opens none.
#[cfg(not(feature = "kubernetes"))]
pub fn opener(_: &KubernetesSettings, _: AccessRules) -> Arc<dyn ClusterOpener> {
    Arc::new(NotBuiltOpener)
}

#[cfg(not(feature = "kubernetes"))]
struct NotBuiltOpener;

#[cfg(not(feature = "kubernetes"))]
#[async_trait]
impl ClusterOpener for NotBuiltOpener {
    async fn check(
        &self,
        _: &knm_model::ClusterCredentials,
    ) -> Result<Option<knm_model::Timestamp>, knm_ports::OpenRefused> {
        Err(knm_ports::OpenRefused::NotBuilt)
    }

    fn open(
        &self,
        _: &ClusterName,
        _: &knm_model::ClusterCredentials,
    ) -> Result<OpenedCluster, knm_ports::OpenRefused> {
        Err(knm_ports::OpenRefused::NotBuilt)
    }
}

/// What the files of configured clusters tell of the access to them.
pub struct FileAccess(Arc<Vec<ClusterSetting>>);

impl FileAccess {
    /// Of these clusters.
    pub fn of(clusters: Vec<ClusterSetting>) -> Self {
        Self(Arc::new(clusters))
    }
}

#[async_trait]
impl ConfiguredAccess for FileAccess {
    async fn look(&self) -> Vec<(ClusterName, Option<ClusterAccess>)> {
        let clusters = Arc::clone(&self.0);
        let looking = tokio::task::spawn_blocking(move || {
            let look = |cluster: &ClusterSetting| (cluster.name.clone(), access(&cluster.source));
            clusters.iter().map(look).collect()
        });
        looking.await.unwrap_or_default()
    }
}

#[cfg(feature = "kubernetes")]
fn access(source: &SourceSetting) -> Option<ClusterAccess> {
    match source {
        SourceSetting::InCluster | SourceSetting::Kubeconfig { .. } => {
            knm_cluster_kubernetes::access(&kubernetes_source(source))
        }
        SourceSetting::Demo(_) => None,
    }
}

#[cfg(not(feature = "kubernetes"))]
fn access(_: &SourceSetting) -> Option<ClusterAccess> {
    None
}

#[cfg(feature = "kubernetes")]
fn kubernetes_source(source: &SourceSetting) -> knm_cluster_kubernetes::KubernetesSource {
    use knm_cluster_kubernetes::KubernetesSource;

    match source {
        SourceSetting::Kubeconfig { path, context } => KubernetesSource::Kubeconfig {
            path: path.clone(),
            context: context.clone(),
        },
        SourceSetting::InCluster | SourceSetting::Demo(_) => KubernetesSource::InCluster,
    }
}
