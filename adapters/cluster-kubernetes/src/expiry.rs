//! What certificates and kubeconfigs tell of the access to a cluster.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use knm_model::{AccessRules, ClusterAccess, ServerUrl, Timestamp, token_expiry};
use kube::config::AuthInfo;
use secrecy::ExposeSecret;
use x509_parser::pem::Pem;

use crate::credentials::{KubernetesSource, read};

/// All certificates in a text of PEM; `None` if there is something wrong with it.
pub(crate) fn certificates(pem: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for block in Pem::iter_from_buffer(pem) {
        let block = block.ok()?;
        if block.label == "CERTIFICATE" {
            block.parse_x509().ok()?;
            found.push(block.contents);
        }
    }
    Some(found)
}

/// Until when the first certificate in a text of PEM is good: it is that of whoever shows it, those behind it are of its authorities.
pub(crate) fn of_certificate(pem: &[u8]) -> Option<Timestamp> {
    let blocks = Pem::iter_from_buffer(pem).filter_map(Result::ok);
    let first = blocks.into_iter().find(|block| block.label == "CERTIFICATE")?;
    let until = first.parse_x509().ok()?.validity().not_after.timestamp();
    Timestamp::from_unix_millis(until.checked_mul(1_000)?)
}

/// What may be shown of the access to a cluster, as its files say now; `None` if they do not tell, as for service accounts, which are
/// renewed by themselves.
#[must_use]
pub fn access(source: &KubernetesSource) -> Option<ClusterAccess> {
    match source {
        KubernetesSource::InCluster | KubernetesSource::Sent(_) => None,
        KubernetesSource::Kubeconfig { path, context } => of_kubeconfig(path, context.as_deref()),
    }
}

fn of_kubeconfig(path: &Path, context: Option<&str>) -> Option<ClusterAccess> {
    let file = read(path).ok()?;
    let context = context.or(file.current_context.as_deref())?;
    let context = file.contexts.iter().find(|one| one.name == context)?.context.as_ref()?;
    let cluster = file.clusters.iter().find(|one| one.name == context.cluster)?;
    let user = context.user.clone().unwrap_or_default();
    let identity = file.auth_infos.iter().find(|one| one.name == user);
    // A kubeconfig of the configuration may lead anywhere; a password in its url is not shown all the same.
    let anywhere = AccessRules {
        allow_loopback: true,
        allow_insecure_tls: true,
    };
    let server = cluster.cluster.as_ref()?.server.as_deref()?;
    Some(ClusterAccess {
        server: ServerUrl::parse(server, &anywhere).ok()?.as_str().to_owned(),
        expires_at: identity.and_then(|one| one.auth_info.as_ref()).and_then(of_identity),
        user,
    })
}

/// Plugins and files of tokens renew what they give by themselves.
fn of_identity(identity: &AuthInfo) -> Option<Timestamp> {
    if let Some(token) = &identity.token {
        return token_expiry(token.expose_secret());
    }
    let pem = match (&identity.client_certificate_data, &identity.client_certificate) {
        (Some(data), _) => STANDARD.decode(data).ok()?,
        (None, Some(file)) => std::fs::read(file).ok()?,
        (None, None) => return None,
    };
    of_certificate(&pem)
}
