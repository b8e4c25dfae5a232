//! Clusters that are registered while the service runs: what callers send, which is never shown again, and what came of a test.

use knm_domain::{AccessCheck, AccessTest};
use knm_model::RawClusterAccess;
use poem_openapi::Object;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// A cluster to be registered: a kubeconfig, or a server with a token.
#[derive(Deserialize, Object)]
#[oai(rename = "NewCluster")]
#[serde(deny_unknown_fields)]
pub(crate) struct NewClusterBody {
    /// Its name in this service: 1 to 63 lower case letters, digits and '-', starting and ending with a letter or digit.
    pub(crate) name: String,
    /// A kubeconfig, as YAML or JSON, with its certificates, key or token inside: no files are read and no plugins are run.
    #[oai(default, write_only)]
    #[serde(default)]
    kubeconfig: Option<String>,
    /// A context of the kubeconfig; absent: its current one.
    #[oai(default)]
    #[serde(default)]
    context: Option<String>,
    /// Instead of a kubeconfig: the URL of the API server, `https`.
    #[oai(default)]
    #[serde(default)]
    server: Option<String>,
    /// The certificates that are trusted, in PEM; absent: those that the system trusts.
    #[oai(default)]
    #[serde(default)]
    certificate_authority: Option<String>,
    /// A bearer token.
    #[oai(default, write_only)]
    #[serde(default)]
    token: Option<String>,
    /// The name that the server's certificate has, if that is not the one in the URL.
    #[oai(default)]
    #[serde(default)]
    tls_server_name: Option<String>,
    /// Whether the server's certificate goes unchecked, which the configuration has to allow.
    #[oai(default)]
    #[serde(default)]
    insecure_skip_tls_verify: Option<bool>,
}

/// Other credentials for a registered cluster: a kubeconfig, or a server with a token.
#[derive(Default, Deserialize, Object)]
#[oai(rename = "ClusterCredentials", default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ClusterCredentialsBody {
    /// A kubeconfig, as YAML or JSON, with its certificates, key or token inside: no files are read and no plugins are run.
    #[oai(write_only)]
    kubeconfig: Option<String>,
    /// A context of the kubeconfig; absent: its current one.
    context: Option<String>,
    /// Instead of a kubeconfig: the URL of the API server, `https`.
    server: Option<String>,
    /// The certificates that are trusted, in PEM; absent: those that the system trusts.
    certificate_authority: Option<String>,
    /// A bearer token.
    #[oai(write_only)]
    token: Option<String>,
    /// The name that the server's certificate has, if that is not the one in the URL.
    tls_server_name: Option<String>,
    /// Whether the server's certificate goes unchecked, which the configuration has to allow.
    insecure_skip_tls_verify: Option<bool>,
}

/// What came of asking a cluster whether the access to it works.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "ClusterTest")]
pub(crate) struct ClusterTestView {
    /// Whether everything worked.
    pub(crate) ok: bool,
    /// What was asked, and what came of it.
    pub(crate) checks: Vec<ClusterCheckView>,
}

/// One question to a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Object)]
#[oai(rename = "ClusterCheck")]
pub(crate) struct ClusterCheckView {
    /// What was asked: `version`, the version of the API server, or `list_nodes`, all nodes.
    pub(crate) name: String,
    /// Whether it was told.
    pub(crate) ok: bool,
    /// What was told, such as the version or the number of nodes; null if nothing was.
    pub(crate) answer: Option<String>,
    /// Why nothing was told, a sentence; null if something was.
    pub(crate) reason: Option<String>,
    /// How long that took, in seconds.
    pub(crate) took_seconds: f64,
}

impl NewClusterBody {
    /// The name and the rest.
    pub(crate) fn split(self) -> (String, RawClusterAccess) {
        let access = RawClusterAccess {
            kubeconfig: self.kubeconfig.map(SecretString::from),
            context: self.context,
            server: self.server,
            certificate_authority: self.certificate_authority,
            token: self.token.map(SecretString::from),
            tls_server_name: self.tls_server_name,
            insecure_skip_tls_verify: self.insecure_skip_tls_verify,
        };
        (self.name, access)
    }
}

impl ClusterCredentialsBody {
    pub(crate) fn raw(self) -> RawClusterAccess {
        RawClusterAccess {
            kubeconfig: self.kubeconfig.map(SecretString::from),
            context: self.context,
            server: self.server,
            certificate_authority: self.certificate_authority,
            token: self.token.map(SecretString::from),
            tls_server_name: self.tls_server_name,
            insecure_skip_tls_verify: self.insecure_skip_tls_verify,
        }
    }
}

impl ClusterTestView {
    pub(crate) fn of(test: &AccessTest) -> Self {
        Self {
            ok: test.is_good(),
            checks: vec![
                ClusterCheckView::of("version", &test.version),
                ClusterCheckView::of("list_nodes", &test.nodes),
            ],
        }
    }
}

impl ClusterCheckView {
    fn of(name: &str, check: &AccessCheck) -> Self {
        Self {
            name: name.to_owned(),
            ok: check.answer.is_ok(),
            answer: check.answer.clone().ok(),
            reason: check.answer.as_ref().err().map(|reason| (*reason).to_owned()),
            // Milliseconds are exact enough, and read better.
            took_seconds: (check.took.as_secs_f64() * 1_000.0).round() / 1_000.0,
        }
    }
}
