//! How callers sign in.

use std::net::IpAddr;
use std::path::PathBuf;

use knm_model::{ClaimRule, ClaimRules};

use super::resolve::Resolved;
use super::settings::Reader;

/// How callers sign in.
#[derive(Clone, Debug, Default)]
pub struct SignInSettings {
    /// Nobody has to.
    pub is_open: bool,
    /// By API tokens of this service.
    pub tokens: bool,
    /// The file with the first one.
    pub bootstrap_token_file: Option<PathBuf>,
    /// By tokens of a cluster.
    pub kubernetes: Option<KubernetesSignInSettings>,
    /// By tokens of an OpenID provider.
    pub oidc: Option<OidcSettings>,
    /// Whether `/metrics` needs a caller.
    pub metrics_require_auth: bool,
    /// Whether `/docs` and the document do.
    pub docs_require_auth: bool,
}

/// How the tokens of a cluster are looked at.
#[derive(Clone, Debug)]
pub struct KubernetesSignInSettings {
    /// The name of the cluster that is asked; without it the one of this pod, or the only one.
    pub cluster: Option<String>,
    /// Whom the tokens must be for.
    pub audiences: Vec<String>,
}

/// How the tokens of an OpenID provider are looked at.
#[derive(Clone, Debug)]
pub struct OidcSettings {
    pub issuer: String,
    pub audiences: Vec<String>,
    pub algorithms: Vec<String>,
    pub name_claim: String,
    pub ca_file: Option<PathBuf>,
    pub rules: ClaimRules,
}

/// Reads what is configured and adds to `problems` what is wrong with it.
pub fn read(resolved: &Resolved, problems: &mut Vec<String>) -> SignInSettings {
    let read = Reader(resolved);
    let said = read.text("auth.mode");
    let origin = &resolved.get("auth.mode").1;
    let words: Vec<&str> = said.split(',').collect();
    let has = |mode: &str| words.contains(&mode);
    if has("none") && 1 < words.len() {
        problems.push(format!(
            "auth.mode: \"{said}\" ({origin}) is not allowed: none excludes all others, because with it nobody signs in"
        ));
    }
    SignInSettings {
        is_open: words == ["none"],
        tokens: has("tokens"),
        bootstrap_token_file: read.optional("auth.bootstrap_token_file").map(PathBuf::from),
        kubernetes: has("kubernetes").then(|| KubernetesSignInSettings {
            cluster: read.optional("auth.kubernetes_cluster"),
            audiences: read.texts("auth.kubernetes_audiences"),
        }),
        oidc: has("oidc").then(|| oidc(&read, problems)),
        metrics_require_auth: read.flag("metrics.require_auth"),
        docs_require_auth: read.flag("docs.require_auth"),
    }
}

fn oidc(read: &Reader<'_>, problems: &mut Vec<String>) -> OidcSettings {
    let issuer = read.text("auth.oidc_issuer");
    let audiences = read.texts("auth.oidc_audiences");
    if issuer.is_empty() {
        problems.push("auth.oidc_issuer: auth.mode oidc needs the URL of the issuer".to_owned());
    }
    if audiences.is_empty() {
        problems.push(
            "auth.oidc_audiences: auth.mode oidc needs the audiences that tokens are for, or any token of the issuer would do"
                .to_owned(),
        );
    }
    let said = read.texts("auth.oidc_rules");
    if said.is_empty() {
        problems.push(
            "auth.oidc_rules: auth.mode oidc needs rules, or nobody may do anything: groups=sre -> operator, say"
                .to_owned(),
        );
    }
    let mut rules = Vec::new();
    for (place, text) in said.iter().enumerate() {
        match ClaimRule::parse_text(text) {
            Ok(rule) => rules.push(rule),
            Err(errors) => {
                problems.extend(errors.iter().map(|error| format!("auth.oidc_rules[{place}]: {error}")));
            }
        }
    }
    OidcSettings {
        issuer,
        audiences,
        algorithms: read.texts("auth.oidc_algorithms"),
        name_claim: read.text("auth.oidc_name_claim"),
        ca_file: read.optional("auth.oidc_ca_file").map(PathBuf::from),
        rules: ClaimRules { rules },
    }
}

/// Why nobody signing in is not acceptable on this address, if it is not.
#[must_use]
pub fn refuses_open(settings: &SignInSettings, host: &str) -> Option<String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    (settings.is_open && !is_loopback).then(|| {
        format!(
            "auth.mode: none is only allowed on loopback or with --demo, and server.host is \"{host}\": whoever reaches it could empty the \
             clusters. Set server.host to 127.0.0.1, or auth.mode to tokens, kubernetes or oidc"
        )
    })
}
