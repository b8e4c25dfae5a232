//! Identity tokens of OpenID providers: JSON web tokens (RFC 7519) that are checked with the keys that their issuer publishes.
//!
//! Signatures are checked by `ring`. What is around them is a few rules of our own, because each of them is one of these that has gone wrong
//! elsewhere: which algorithm with which key, which claims must be there, by which clock.

mod address;
mod algorithm;
mod claims;
mod fetch;
mod keys;
mod known;
mod token;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use knm_model::Timestamp;
use knm_ports::{IdentityTokenError, IdentityTokens};
use serde_json::{Map, Value};

pub use algorithm::AlgorithmError;

use algorithm::Algorithm;
use claims::Expected;
use fetch::Issuer;
use keys::Verdict;
use known::KnownKeys;
use token::Token;

/// How tokens are signed where nobody says.
pub const USUAL_ALGORITHMS: [&str; 2] = ["RS256", "ES256"];
/// How far clocks may be apart where nobody says.
pub const USUAL_LEEWAY: Duration = Duration::from_secs(30);
/// Clocks that are further apart are wrong.
const MOST_LEEWAY: Duration = Duration::from_secs(600);

/// Whose tokens are accepted.
#[derive(Clone, Debug)]
pub struct OidcOptions {
    /// The URL of the issuer, as its tokens name it letter by letter: https, or http on this machine.
    pub issuer: String,
    /// Tokens for one of these are accepted: the names under which the issuer knows this service.
    pub audiences: Vec<String>,
    /// How tokens may be signed: some of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA.
    pub algorithms: Vec<String>,
    /// How far the clocks of the issuer and of this process may be apart.
    pub leeway: Duration,
    /// Certificates, in PEM, of the authorities that say who the issuer is; without it, those of this machine.
    pub ca_file: Option<PathBuf>,
    /// How long one answer of the issuer may take.
    pub request_timeout: Duration,
}

/// Why tokens of an issuer cannot be accepted as configured.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be used.
    #[error("the issuer \"{issuer}\" cannot be used: {why}")]
    Issuer {
        /// As it was written, shortened.
        issuer: String,
        /// Why.
        why: &'static str,
    },
    /// No audience is named: tokens that were given out for any other service would be accepted.
    #[error(
        "an audience is needed: the name under which the issuer knows this service, so that tokens for others are not accepted"
    )]
    NoAudience,
    /// No algorithm is named.
    #[error("an algorithm is needed: RS256 and ES256 are usual")]
    NoAlgorithm,
    /// An algorithm cannot be used.
    #[error(transparent)]
    Algorithm(#[from] AlgorithmError),
    /// The leeway is too large.
    #[error("a leeway of {leeway:?} is too much: at most {MOST_LEEWAY:?} are allowed")]
    Leeway {
        /// What was asked for.
        leeway: Duration,
    },
    /// The file of authorities cannot be read.
    #[error("the certificates of authorities in {} cannot be read", path.display())]
    UnreadableAuthorities {
        /// The file.
        path: PathBuf,
        /// What lies below.
        #[source]
        source: std::io::Error,
    },
    /// The file has something else in it.
    #[error("{} has no certificates in pem, or some that cannot be used", path.display())]
    NotAuthorities {
        /// The file.
        path: PathBuf,
    },
    /// Nobody says who the issuer is.
    #[error(
        "this machine has no certificates of authorities, so nobody can tell who answers for the issuer: install them (ca-certificates), or name a file of them"
    )]
    NoAuthorities,
    /// TLS cannot be set up.
    #[error("tls cannot be set up")]
    Tls {
        /// What lies below.
        #[source]
        source: rustls::Error,
    },
}

/// Checks the options and begins to ask the issuer for its keys. It need not be reachable: until it is, tokens are answered with
/// [`IdentityTokenError::Unavailable`].
///
/// # Errors
/// [`OpenError`] if the options cannot be used.
pub async fn open(options: OidcOptions) -> Result<Arc<dyn IdentityTokens>, OpenError> {
    let discovery = address::discovery(&options.issuer).map_err(|why| OpenError::Issuer {
        issuer: knm_model::excerpt(&options.issuer),
        why,
    })?;
    if options.audiences.is_empty() || options.audiences.iter().any(String::is_empty) {
        return Err(OpenError::NoAudience);
    }
    let algorithms: Result<Vec<_>, _> = options
        .algorithms
        .iter()
        .map(|name| Algorithm::configured(name))
        .collect();
    let algorithms = algorithms?;
    if algorithms.is_empty() {
        return Err(OpenError::NoAlgorithm);
    }
    if MOST_LEEWAY < options.leeway {
        return Err(OpenError::Leeway { leeway: options.leeway });
    }
    let roots = fetch::roots(options.ca_file.as_deref()).await?;
    let issuer = Issuer::new(options.issuer.clone(), discovery, roots, options.request_timeout)?;
    Ok(Arc::new(OidcIdentityTokens {
        algorithms,
        expected: Expected {
            issuer: options.issuer,
            audiences: options.audiences,
            leeway: options.leeway,
        },
        keys: KnownKeys::of(issuer),
    }))
}

struct OidcIdentityTokens {
    algorithms: Vec<Algorithm>,
    expected: Expected,
    keys: KnownKeys,
}

#[async_trait]
impl IdentityTokens for OidcIdentityTokens {
    async fn verify(&self, token: &str, now: Timestamp) -> Result<Map<String, Value>, IdentityTokenError> {
        let token = Token::parse(token, &self.algorithms).map_err(refused)?;
        // Before the signature, so that what would be refused anyway has no key asked for.
        self.expected.check(&token.claims, now).map_err(refused)?;
        let keys = self.keys.now().await.map_err(unavailable)?;
        let mut verdict = keys.verify(&token);
        if verdict == Verdict::UnknownKey {
            verdict = self.keys.later().await.map_err(unavailable)?.verify(&token);
        }
        match verdict {
            Verdict::Signed => Ok(token.claims),
            Verdict::Forged => Err(refused("its signature is wrong")),
            Verdict::UnknownKey => Err(refused("no key of the issuer made its signature")),
        }
    }

    fn names_issuer(&self, token: &str) -> bool {
        token::named_issuer(token).as_ref() == Some(&self.expected.issuer)
    }
}

fn refused(why: &'static str) -> IdentityTokenError {
    IdentityTokenError::Refused { why: why.to_owned() }
}

fn unavailable(source: Box<dyn std::error::Error + Send + Sync>) -> IdentityTokenError {
    IdentityTokenError::Unavailable { source }
}
