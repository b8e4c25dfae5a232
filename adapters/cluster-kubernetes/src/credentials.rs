//! Where the access to a cluster comes from, and clients made of it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::error::Failure;
use crate::registered::SentCredentials;

pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long making a client may take; a credential plugin runs meanwhile.
const SETUP_LIMIT: Duration = Duration::from_secs(20);
const USER_AGENT: &str = concat!("kube-node-manager/", env!("CARGO_PKG_VERSION"));

/// Where the access to a cluster comes from.
#[derive(Clone, Debug)]
pub enum KubernetesSource {
    /// The service account of the pod that this program runs in.
    InCluster,
    /// A context of a kubeconfig file.
    Kubeconfig {
        /// The file; or several, separated as in the variable `KUBECONFIG`, which are taken together as kubectl does.
        path: PathBuf,
        /// The context's name, `None`: the current one.
        context: Option<String>,
    },
    /// What somebody sent.
    Sent(Box<SentCredentials>),
}

/// Why the access to a cluster cannot be set up. It never holds what the file holds.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// This program does not run in a pod.
    #[error(
        "the service account of the pod is not there: neither its files nor KUBERNETES_SERVICE_HOST; an in-cluster source works in a pod only"
    )]
    NotInCluster,
    /// The file cannot be read.
    #[error("the kubeconfig {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What lies below.
        #[source]
        source: std::io::Error,
    },
    /// The file is no kubeconfig.
    #[error("{} is not a kubeconfig: yaml with clusters, users and contexts is expected", path.display())]
    NotAKubeconfig {
        /// The file.
        path: PathBuf,
    },
    /// The file has no such context.
    #[error("the kubeconfig {} has no context {context}: allowed are {known:?}", path.display())]
    UnknownContext {
        /// The file.
        path: PathBuf,
        /// The context that was asked for.
        context: String,
        /// Those in the file.
        known: Vec<String>,
    },
    /// No context was asked for, and the file names none.
    #[error("the kubeconfig {} names no current context, and none was asked for", path.display())]
    NoCurrentContext {
        /// The file.
        path: PathBuf,
    },
    /// What somebody sent cannot be used.
    #[error("what was sent cannot be used: {message}")]
    UnusableSent {
        /// What of it, and why.
        message: String,
    },
    /// The context names a cluster, user, certificate or key that cannot be used.
    #[error("the context {context} of {} cannot be used: its cluster, user, certificates or key are missing or malformed", path.display())]
    UnusableContext {
        /// The file.
        path: PathBuf,
        /// The context.
        context: String,
    },
}

/// A client and what it was made of.
pub(crate) struct Made {
    pub(crate) config: Config,
    pub(crate) fingerprint: u64,
}

/// The current context of a kubeconfig, which may be several files as [`KubernetesSource::Kubeconfig`] says.
///
/// # Errors
/// [`OpenError`] if the file is no kubeconfig.
pub fn current_context(path: &Path) -> Result<Option<String>, OpenError> {
    read(path).map(|file| file.current_context.filter(|name| !name.is_empty()))
}

/// Whether this program runs in a pod with a service account.
#[must_use]
pub fn in_cluster_available() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() && Config::incluster().is_ok()
}

impl KubernetesSource {
    /// Reads the credentials.
    pub(crate) async fn load(&self) -> Result<Made, OpenError> {
        let fingerprint = self.fingerprint().await.unwrap_or_default();
        let mut config = match self {
            Self::InCluster => Config::incluster().map_err(|_| OpenError::NotInCluster)?,
            Self::Kubeconfig { path, context } => from_file(path, context.as_deref()).await?,
            Self::Sent(sent) => {
                // Rules and names that lead elsewhere are looked at with each connection; an address is looked at here.
                let rules = sent.credentials.check(&sent.rules);
                rules.map_err(|message| OpenError::UnusableSent { message })?;
                let config = sent.config();
                let config = config.map_err(|(field, message)| OpenError::UnusableSent {
                    message: format!("{field}: {message}"),
                })?;
                return Ok(Made { config, fingerprint });
            }
        };
        prepared(&mut config);
        Ok(Made { config, fingerprint })
    }

    /// Changes when the files that the credentials come from do; `None` if there are none. A service account's files are read again by
    /// the client itself.
    pub(crate) async fn fingerprint(&self) -> Option<u64> {
        let Self::Kubeconfig { path, .. } = self else {
            return None;
        };
        let mut hasher = DefaultHasher::new();
        for file in files(path) {
            tokio::fs::read(file).await.ok().hash(&mut hasher);
        }
        Some(hasher.finish())
    }
}

/// Sets what is the same for every client.
pub(crate) fn prepared(config: &mut Config) {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // The deadlines are this crate's own: a watch has none.
    config.read_timeout = None;
    config.write_timeout = None;
    config.default_retry = false;
    config
        .headers
        .push((http::header::USER_AGENT, HeaderValue::from_static(USER_AGENT)));
}

/// Makes a client of what its source says. It may run a credential plugin, so it happens beside the runtime and has a limit.
pub(crate) async fn client(source: KubernetesSource, config: Config) -> Result<Client, Failure> {
    let runtime = tokio::runtime::Handle::current();
    let making = tokio::task::spawn_blocking(move || {
        let _runtime = runtime.enter();
        match source {
            KubernetesSource::InCluster | KubernetesSource::Kubeconfig { .. } => Client::try_from(config),
            KubernetesSource::Sent(sent) => sent.client(config),
        }
    });
    match tokio::time::timeout(SETUP_LIMIT, making).await {
        Ok(Ok(made)) => made.map_err(Failure::from),
        Ok(Err(_)) => Err(Failure::unavailable("the client could not be made")),
        Err(_) => Err(Failure::timed_out(SETUP_LIMIT)),
    }
}

async fn from_file(path: &Path, context: Option<&str>) -> Result<Config, OpenError> {
    let file = read(path)?;
    let context = match context {
        Some(context) => context.to_owned(),
        None => file
            .current_context
            .clone()
            .filter(|name| !name.is_empty())
            .ok_or_else(|| OpenError::NoCurrentContext { path: path.to_owned() })?,
    };
    if !file.contexts.iter().any(|one| one.name == context) {
        return Err(OpenError::UnknownContext {
            path: path.to_owned(),
            context,
            known: file.contexts.into_iter().map(|one| one.name).collect(),
        });
    }
    let options = KubeConfigOptions {
        context: Some(context.clone()),
        ..KubeConfigOptions::default()
    };
    Config::from_custom_kubeconfig(file, &options)
        .await
        .map_err(|_| OpenError::UnusableContext {
            path: path.to_owned(),
            context,
        })
}

/// All files of `path` together: of what two of them name, the first one's counts. Files that are not there are passed over if there is
/// another.
pub(crate) fn read(path: &Path) -> Result<Kubeconfig, OpenError> {
    let mut merged: Option<Kubeconfig> = None;
    let mut missing = None;
    for file in files(path) {
        let next = match read_file(&file) {
            Ok(next) => next,
            Err(OpenError::Unreadable { path, source }) if source.kind() == ErrorKind::NotFound => {
                missing = Some(OpenError::Unreadable { path, source });
                continue;
            }
            Err(error) => return Err(error),
        };
        merged = Some(match merged {
            None => next,
            Some(merged) => merged
                .merge(next)
                .map_err(|_| OpenError::NotAKubeconfig { path: file })?,
        });
    }
    let nothing = || OpenError::Unreadable {
        path: path.to_owned(),
        source: ErrorKind::NotFound.into(),
    };
    merged.ok_or_else(|| missing.unwrap_or_else(nothing))
}

fn files(path: &Path) -> Vec<PathBuf> {
    let files = std::env::split_paths(path);
    files.filter(|file| !file.as_os_str().is_empty()).collect()
}

fn read_file(path: &Path) -> Result<Kubeconfig, OpenError> {
    // Read once by ourselves, because kube's own error would quote the file.
    std::fs::read(path).map_err(|source| OpenError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let mut config = Kubeconfig::read_from(path).map_err(|_| OpenError::NotAKubeconfig { path: path.to_owned() })?;
    // An empty one would hide that of the next file.
    config.current_context = config.current_context.filter(|name| !name.is_empty());
    Ok(config)
}
