//! Signing in: who sent a request, and what they may do, now and later.

mod failures;
mod kubernetes;
mod oidc;
mod tokens;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use knm_model::{Access, Authority, Caller, ClusterName, Permission, looks_like_a_token};
use knm_ports::{Clock, ClusterError, IdentityTokenError, StorageError};
use metrics::counter;
use tokio::time::{Instant, sleep_until};

pub use kubernetes::KubernetesSignIn;
pub use oidc::OidcSignIn;
pub use tokens::{MadeToken, TokenAdminError, Tokens, random_token};

use crate::inventory::Inventory;
use crate::metric;
use failures::Failures;
use kubernetes::of_cluster;

/// How long it takes to refuse somebody, whatever was wrong: a quicker answer would tell how far a guess got.
const REFUSING_TAKES: Duration = Duration::from_millis(100);
/// How long a bearer token may be, in bytes.
const LONGEST_TOKEN: usize = 16 * 1024;

/// Tells who sends requests and what they may do.
pub struct SignIn {
    ways: Ways,
    inventory: Arc<Inventory>,
    clock: Arc<dyn Clock>,
    failures: Failures,
}

/// How one may sign in.
pub enum Ways {
    /// Nobody has to: everybody may do everything.
    Open,
    /// By what is set here, in this order.
    Closed {
        /// By API tokens of this service.
        tokens: Option<Arc<Tokens>>,
        /// By tokens of an OpenID provider.
        oidc: Option<Arc<OidcSignIn>>,
        /// By tokens of a cluster.
        kubernetes: Option<Arc<KubernetesSignIn>>,
    },
}

/// What a request wants to do: as far as somebody else must be asked about it, only that is asked.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// What it may need.
    pub permissions: &'a [Permission],
    /// In which cluster; `None`: in any.
    pub cluster: Option<&'a str>,
}

/// Why somebody is not signed in. Callers get to know only the variant, never the reason.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// What they sent is worth nothing, or they sent nothing.
    #[error("not signed in: {why}")]
    Refused {
        /// Why, for the log.
        why: String,
    },
    /// Too much that was worth nothing came from their address.
    #[error("too many attempts from this address")]
    Slowed {
        /// After how many seconds it may be tried again.
        retry_after_seconds: u32,
    },
    /// What knows them cannot be asked.
    #[error(transparent)]
    Unavailable(#[from] UnknowableError),
}

/// Why it cannot be told who somebody is, or what they may do.
#[derive(Debug, thiserror::Error)]
pub enum UnknowableError {
    /// The store of API tokens.
    #[error("the API tokens cannot be read")]
    Store(#[from] StorageError),
    /// The cluster that knows them.
    #[error("cluster {cluster} cannot be asked what somebody may do")]
    Cluster {
        /// The cluster.
        cluster: String,
        /// Why.
        #[source]
        source: Arc<ClusterError>,
    },
    /// There is no cluster that could be asked.
    #[error("cluster {cluster} is not there to be asked who somebody is")]
    NoCluster {
        /// Its name.
        cluster: String,
    },
    /// The OpenID provider.
    #[error("the OpenID provider cannot be asked")]
    Provider(#[source] IdentityTokenError),
}

/// What an authority allows at another time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// This.
    Access(Arc<Access>),
    /// Nothing any more, and why.
    Withdrawn(String),
}

/// What came of looking at a token.
enum Found {
    Caller(Caller),
    Nobody(String),
}

impl fmt::Debug for SignIn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SignIn").finish_non_exhaustive()
    }
}

impl SignIn {
    /// A service that callers sign in to by `ways`.
    pub fn new(ways: Ways, inventory: Arc<Inventory>, clock: Arc<dyn Clock>) -> Arc<Self> {
        metric::begin_sign_in();
        Arc::new(Self {
            ways,
            inventory,
            clock,
            failures: Failures::default(),
        })
    }

    /// Whether everybody may do everything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.ways, Ways::Open)
    }

    /// Who sent a request with the bearer token `token` from `address`, and what they may do of what is wanted.
    ///
    /// # Errors
    /// [`SignInError`]. What was refused takes the same time whatever was wrong with it.
    pub async fn caller(
        &self,
        token: Option<&str>,
        address: Option<IpAddr>,
        wanted: &Wanted<'_>,
    ) -> Result<Caller, SignInError> {
        if self.is_open() {
            return Ok(Caller::open(address.map(|address| address.to_string())));
        }
        let refused_at = Instant::now() + REFUSING_TAKES;
        let slowed = self.failures.slowed(address, self.clock.now());
        let found = match token {
            None => Ok(Found::Nobody("there is no bearer token".to_owned())),
            Some(token) if LONGEST_TOKEN < token.len() => Ok(Found::Nobody(format!(
                "a bearer token of {} bytes is too long",
                token.len()
            ))),
            // Whoever holds something that is known to be good is let in, whatever others at the same address do.
            Some(token) => self.look(token, address, wanted, slowed.is_none()).await,
        };
        match found {
            Ok(Found::Caller(caller)) => {
                counter!(metric::SIGN_INS, "outcome" => "accepted").increment(1);
                Ok(caller)
            }
            Ok(Found::Nobody(why)) => {
                // A request without any token is no guess.
                if token.is_some() {
                    self.failures.note(address, self.clock.now());
                }
                sleep_until(refused_at).await;
                counter!(metric::SIGN_INS, "outcome" => "refused").increment(1);
                Err(match slowed.filter(|_| token.is_some()) {
                    Some(retry_after_seconds) => SignInError::Slowed { retry_after_seconds },
                    None => SignInError::Refused { why },
                })
            }
            Err(error) => {
                counter!(metric::SIGN_INS, "outcome" => "unavailable").increment(1);
                Err(error.into())
            }
        }
    }

    /// What an authority allows now, of `permissions` in `clusters`.
    ///
    /// # Errors
    /// [`UnknowableError`]: then nothing is to be done by it until that is known.
    pub async fn standing(
        &self,
        authority: &Authority,
        permissions: &[Permission],
        clusters: &[ClusterName],
    ) -> Result<Standing, UnknowableError> {
        let Ways::Closed {
            tokens,
            oidc,
            kubernetes,
        } = &self.ways
        else {
            return Ok(Standing::Access(Arc::new(Access::unlimited())));
        };
        let not_configured = |way: &str| Ok(Standing::Withdrawn(format!("auth.mode does not name {way} any more")));
        match authority {
            Authority::Service => Ok(Standing::Access(Arc::new(Access::unlimited()))),
            Authority::Open => Ok(Standing::Withdrawn("nobody had signed in for it".to_owned())),
            Authority::Token(id) => match tokens {
                Some(tokens) => tokens.standing(*id).await,
                None => not_configured("tokens"),
            },
            Authority::Oidc { claims, .. } => match oidc {
                Some(oidc) => Ok(Standing::Access(Arc::new(oidc.access(claims)))),
                None => not_configured("oidc"),
            },
            Authority::Kubernetes(identity) => match kubernetes {
                Some(kubernetes) => {
                    let mut grants = Vec::new();
                    for cluster in clusters {
                        let allowed = kubernetes
                            .allowed(&self.inventory, identity, cluster, permissions)
                            .await?;
                        grants.push(of_cluster(cluster, allowed));
                    }
                    Ok(Standing::Access(Arc::new(Access::new(grants))))
                }
                None => not_configured("kubernetes"),
            },
        }
    }

    /// Looks who holds a token; with `may_ask` false, only where that costs nobody else anything.
    async fn look(
        &self,
        token: &str,
        address: Option<IpAddr>,
        wanted: &Wanted<'_>,
        may_ask: bool,
    ) -> Result<Found, UnknowableError> {
        let Ways::Closed {
            tokens,
            oidc,
            kubernetes,
        } = &self.ways
        else {
            return Ok(Found::Nobody("nobody signs in here".to_owned()));
        };
        let address = address.map(|address| address.to_string());
        if looks_like_a_token(token) {
            return match tokens {
                Some(tokens) => Ok(tokens.look(token, address).await?),
                None => Ok(Found::Nobody("auth.mode does not name tokens".to_owned())),
            };
        }
        let mut nobody = Found::Nobody("it is no token of this service".to_owned());
        if let Some(oidc) = oidc {
            match oidc.look(token, address.clone(), self.clock.now()).await {
                // Another way may know it.
                Err(error) if kubernetes.is_none() => return Err(error),
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "a token could not be looked at"
                    );
                }
                Ok(found @ Found::Caller(_)) => return Ok(found),
                Ok(found @ Found::Nobody(_)) => nobody = found,
            }
        }
        if let Some(kubernetes) = kubernetes {
            nobody = kubernetes
                .look(&self.inventory, token, address, wanted, may_ask)
                .await?;
        }
        Ok(nobody)
    }
}
