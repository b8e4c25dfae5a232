//! How a cluster is reached that was registered while the service runs: what a caller gave, checked, and nothing else of it.

mod address;
mod kubeconfig;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use address::ServerUrl;

use crate::{QueryError, Timestamp};

/// The longest name of a user or server.
const LONGEST_NAME: usize = 253;
/// The longest token.
const LONGEST_TOKEN: usize = 64 * 1024;
/// The most bytes of certificates.
const LONGEST_PEM: usize = 256 * 1024;
/// The name of a user of whom nothing is known but a token.
const NAMELESS: &str = "token";

/// What a registration may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessRules {
    /// Whether a server may be on this machine.
    pub allow_loopback: bool,
    /// Whether the certificate of a server may go unchecked.
    pub allow_insecure_tls: bool,
}

/// What a caller gave: a kubeconfig, or a server with a token.
#[derive(Clone, Debug, Default)]
pub struct RawClusterAccess {
    /// A kubeconfig, as YAML or JSON.
    pub kubeconfig: Option<SecretString>,
    /// Its context; `None`: the current one.
    pub context: Option<String>,
    /// The URL of the API server.
    pub server: Option<String>,
    /// The certificates that are trusted, in PEM; `None`: those that the system trusts.
    pub certificate_authority: Option<String>,
    /// A bearer token.
    pub token: Option<SecretString>,
    /// The name that the server's certificate has, if that is not the one in the URL.
    pub tls_server_name: Option<String>,
    /// Whether the server's certificate goes unchecked.
    pub insecure_skip_tls_verify: Option<bool>,
}

/// How a cluster is reached. It is what is sealed; its secrets are shown by nothing.
#[derive(Clone, Debug)]
pub struct ClusterCredentials {
    /// The API server.
    pub server: ServerUrl,
    /// The certificates that are trusted, in PEM; `None`: those that the system trusts.
    pub certificate_authority: Option<String>,
    /// The name that the server's certificate has, if that is not the one in the URL.
    pub tls_server_name: Option<String>,
    /// Whether the server's certificate goes unchecked.
    pub insecure_skip_tls_verify: bool,
    /// Who we are there, for people.
    pub user: String,
    /// How we prove it.
    pub identity: ClusterIdentity,
}

/// How we prove who we are.
#[derive(Clone, Debug)]
pub enum ClusterIdentity {
    /// A bearer token.
    Token(SecretString),
    /// A certificate, in PEM, and its key.
    Certificate {
        /// The certificate, and those between it and its authority.
        certificate: String,
        /// Its key, in PEM.
        key: SecretString,
    },
}

/// What may be shown of the access to a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterAccess {
    /// The URL of the API server.
    pub server: String,
    /// Who we are there.
    pub user: String,
    /// Until when its credentials are good; `None` if they do not tell.
    pub expires_at: Option<Timestamp>,
}

/// The stored credentials are not what this program seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the credentials are not what this program seals")]
pub struct UnreadableCredentials;

/// Credentials as they are sealed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed<'a> {
    server: Cow<'a, str>,
    certificate_authority: Option<Cow<'a, str>>,
    tls_server_name: Option<Cow<'a, str>>,
    insecure_skip_tls_verify: bool,
    user: Cow<'a, str>,
    token: Option<Cow<'a, str>>,
    certificate: Option<Cow<'a, str>>,
    key: Option<Cow<'a, str>>,
}

impl ClusterCredentials {
    /// Checks what a caller gave.
    ///
    /// # Errors
    /// All that is wrong; the texts hold nothing of what was given.
    pub fn parse(raw: &RawClusterAccess, rules: &AccessRules) -> Result<Self, Vec<QueryError>> {
        let wrong = |parameter: &'static str, message: &str| Err(vec![QueryError::new(parameter, message)]);
        let beside = [
            ("server", raw.server.is_some()),
            ("certificate_authority", raw.certificate_authority.is_some()),
            ("token", raw.token.is_some()),
            ("tls_server_name", raw.tls_server_name.is_some()),
            ("insecure_skip_tls_verify", raw.insecure_skip_tls_verify.is_some()),
        ];
        let given = match (&raw.kubeconfig, beside.iter().find(|(_, is_given)| *is_given)) {
            (Some(_), Some((parameter, _))) => {
                return wrong(parameter, "it is not allowed beside kubeconfig, which says it");
            }
            (Some(text), None) => kubeconfig::read(text.expose_secret(), raw.context.as_deref())?,
            (None, _) if raw.context.is_some() => {
                return wrong("context", "it is one of kubeconfig, which is not there");
            }
            (None, None) => return wrong("kubeconfig", "either kubeconfig, or server and token are expected"),
            (None, Some(_)) => Given::of_token(raw)?,
        };
        given.check(rules)
    }

    /// Whether they may still be used: rules change, what is stored does not.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, rules: &AccessRules) -> Result<(), String> {
        self.server.check(rules)?;
        match self.insecure_skip_tls_verify && !rules.allow_insecure_tls {
            true => Err(INSECURE.to_owned()),
            false => Ok(()),
        }
    }

    /// The bytes that are sealed.
    #[must_use]
    pub fn to_bytes(&self) -> SecretString {
        let (token, certificate, key) = match &self.identity {
            ClusterIdentity::Token(token) => (Some(token.expose_secret()), None, None),
            ClusterIdentity::Certificate { certificate, key } => {
                (None, Some(certificate.as_str()), Some(key.expose_secret()))
            }
        };
        let sealed = Sealed {
            server: self.server.as_str().into(),
            certificate_authority: self.certificate_authority.as_deref().map(Into::into),
            tls_server_name: self.tls_server_name.as_deref().map(Into::into),
            insecure_skip_tls_verify: self.insecure_skip_tls_verify,
            user: self.user.as_str().into(),
            token: token.map(Into::into),
            certificate: certificate.map(Into::into),
            key: key.map(Into::into),
        };
        // Texts and switches can always be written.
        serde_json::to_string(&sealed).unwrap_or_default().into()
    }

    /// Reads [`ClusterCredentials::to_bytes`] back. Whether they may be used is another question, see [`ClusterCredentials::check`].
    ///
    /// # Errors
    /// [`UnreadableCredentials`] if that is something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, UnreadableCredentials> {
        let everything = AccessRules {
            allow_loopback: true,
            allow_insecure_tls: true,
        };
        let sealed: Sealed<'_> = serde_json::from_slice(bytes).map_err(|_| UnreadableCredentials)?;
        let identity = match (sealed.token, sealed.certificate, sealed.key) {
            (Some(token), None, None) => ClusterIdentity::Token(token.into_owned().into()),
            (None, Some(certificate), Some(key)) => ClusterIdentity::Certificate {
                certificate: certificate.into_owned(),
                key: key.into_owned().into(),
            },
            _ => return Err(UnreadableCredentials),
        };
        Ok(Self {
            server: ServerUrl::parse(&sealed.server, &everything).map_err(|_| UnreadableCredentials)?,
            certificate_authority: sealed.certificate_authority.map(Cow::into_owned),
            tls_server_name: sealed.tls_server_name.map(Cow::into_owned),
            insecure_skip_tls_verify: sealed.insecure_skip_tls_verify,
            user: sealed.user.into_owned(),
            identity,
        })
    }
}

const INSECURE: &str =
    "it is not allowed unless registration.allow_insecure_tls is true: give the certificate of the authority instead";

/// What was given, whichever way; where it stood is told when it is wrong.
struct Given {
    server: String,
    certificate_authority: Option<String>,
    tls_server_name: Option<String>,
    insecure_skip_tls_verify: bool,
    user: String,
    identity: ClusterIdentity,
    places: Places,
}

/// What the fields are called where they stood.
struct Places {
    server: &'static str,
    certificate_authority: &'static str,
    tls_server_name: &'static str,
    insecure_skip_tls_verify: &'static str,
    user: &'static str,
    token: &'static str,
    certificate: &'static str,
    key: &'static str,
}

impl Given {
    fn of_token(raw: &RawClusterAccess) -> Result<Self, Vec<QueryError>> {
        let mut errors = Vec::new();
        if raw.server.is_none() {
            errors.push(QueryError::new("server", "it is expected: https://host:port"));
        }
        if raw.token.is_none() {
            errors.push(QueryError::new(
                "token",
                "it is expected; for a client certificate send a kubeconfig",
            ));
        }
        let (Some(server), Some(token)) = (&raw.server, &raw.token) else {
            return Err(errors);
        };
        Ok(Self {
            server: server.clone(),
            certificate_authority: raw.certificate_authority.clone(),
            tls_server_name: raw.tls_server_name.clone(),
            insecure_skip_tls_verify: raw.insecure_skip_tls_verify.unwrap_or_default(),
            user: claims(token.expose_secret())
                .and_then(|claims| claims["sub"].as_str().map(str::to_owned))
                .filter(|subject| check_text(subject).is_ok())
                .unwrap_or_else(|| NAMELESS.to_owned()),
            identity: ClusterIdentity::Token(token.clone()),
            places: Places {
                server: "server",
                certificate_authority: "certificate_authority",
                tls_server_name: "tls_server_name",
                insecure_skip_tls_verify: "insecure_skip_tls_verify",
                user: "token",
                token: "token",
                certificate: "token",
                key: "token",
            },
        })
    }

    fn check(self, rules: &AccessRules) -> Result<ClusterCredentials, Vec<QueryError>> {
        let mut errors = Vec::new();
        let places = &self.places;
        let mut note = |place: &'static str, checked: Result<(), String>| {
            errors.extend(checked.err().map(|message| QueryError::new(place, message)));
        };
        let server = ServerUrl::parse(&self.server, rules);
        note(places.server, server.as_ref().map(drop).map_err(Clone::clone));
        if let Some(pem) = &self.certificate_authority {
            note(places.certificate_authority, check_pem(pem, "CERTIFICATE"));
            let both = || "it is not allowed beside the certificate of an authority, which it would ignore".to_owned();
            note(
                places.insecure_skip_tls_verify,
                (!self.insecure_skip_tls_verify).then_some(()).ok_or_else(both),
            );
        }
        if let Some(name) = &self.tls_server_name {
            note(places.tls_server_name, check_text(name));
        }
        let is_refused = self.insecure_skip_tls_verify && !rules.allow_insecure_tls;
        note(
            places.insecure_skip_tls_verify,
            (!is_refused).then_some(()).ok_or_else(|| INSECURE.to_owned()),
        );
        note(places.user, check_text(&self.user));
        match &self.identity {
            ClusterIdentity::Token(token) => note(places.token, check_token(token.expose_secret())),
            ClusterIdentity::Certificate { certificate, key } => {
                note(places.certificate, check_pem(certificate, "CERTIFICATE"));
                note(places.key, check_pem(key.expose_secret(), "PRIVATE KEY"));
            }
        }
        match server {
            Ok(server) if errors.is_empty() => Ok(ClusterCredentials {
                server,
                certificate_authority: self.certificate_authority,
                tls_server_name: self.tls_server_name,
                insecure_skip_tls_verify: self.insecure_skip_tls_verify,
                user: self.user,
                identity: self.identity,
            }),
            Ok(_) | Err(_) => Err(errors),
        }
    }
}

fn check_text(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("an empty text is not allowed".to_owned());
    }
    if LONGEST_NAME < text.len() {
        return Err(format!(
            "it has {} bytes, at most {LONGEST_NAME} are allowed",
            text.len()
        ));
    }
    match text.chars().any(char::is_control) {
        true => Err("control characters are not allowed".to_owned()),
        false => Ok(()),
    }
}

/// A token goes into a header: visible ASCII, and nothing that would end it.
fn check_token(token: &str) -> Result<(), String> {
    if token.is_empty() {
        return Err("an empty token is not allowed".to_owned());
    }
    if LONGEST_TOKEN < token.len() {
        return Err(format!(
            "it has {} bytes, at most {LONGEST_TOKEN} are allowed",
            token.len()
        ));
    }
    match token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(
            "it holds characters that are none of a token: letters, digits and signs of ASCII are expected".to_owned(),
        ),
    }
}

fn check_pem(text: &str, what: &str) -> Result<(), String> {
    if LONGEST_PEM < text.len() {
        return Err(format!(
            "it has {} bytes, at most {LONGEST_PEM} are allowed",
            text.len()
        ));
    }
    let begins = |line: &str| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{what}-----"));
    match text.lines().any(begins) {
        true => Ok(()),
        false => Err(format!(
            "it is not pem: a block that begins with -----BEGIN … {what}----- is expected"
        )),
    }
}

/// What a token says of itself, if it is a JWT. Nobody checked that it is true.
fn claims(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// Until when a token is good, if it is a JWT that tells.
#[must_use]
pub fn token_expiry(token: &str) -> Option<Timestamp> {
    let seconds = claims(token)?["exp"].as_f64()?;
    let is_sane = (0.0..=253_402_300_799.0).contains(&seconds);
    // Whole seconds, well within the range.
    is_sane
        .then(|| Timestamp::from_unix_millis(seconds as i64 * 1_000))
        .flatten()
}
