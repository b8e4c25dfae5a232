//! Signing in: who sent a request, and what they may do, now and later.

mod failures;
mod kubernetes;
mod oidc;
mod silence;
mod tokens;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use knm_model::{Access, Authority, Caller, ClusterName, Permission, looks_like_a_token, unprintable};
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
/// How long a name may be, in bytes: it goes into the audit log and onto nodes.
const LONGEST_NAME: usize = 253;
/// How long a bearer token may be, in bytes.
const LONGEST_TOKEN: usize = 16 * 1024;

/// What somebody asked for with an identity token may be begun for so long after its end: long enough for work that waits for a night, and no
/// longer, because nothing tells whether they would still get another one.
const WORK_OUTLIVES_TOKENS: Duration = Duration::from_secs(24 * 3_600);
/// Whoever signed in with a token of a cluster follows something for so long: nothing tells when such a token ends, so they must show it again.
const FOLLOWS_WITHOUT_TOKEN: Duration = Duration::from_secs(3_600);

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

    /// The cluster that is asked whose a token is, if people sign in with tokens of clusters.
    #[must_use]
    pub fn home(&self) -> Option<&ClusterName> {
        match &self.ways {
            Ways::Open => None,
            Ways::Closed { kubernetes, .. } => kubernetes.as_ref().map(|kubernetes| kubernetes.home()),
        }
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

    /// What an authority allows now, of `permissions` in `clusters`, to work that it was accepted for earlier. An identity token stands for that
    /// until 24 hours after its end.
    ///
    /// # Errors
    /// [`UnknowableError`]: then nothing is to be done by it until that is known.
    pub async fn standing(
        &self,
        authority: &Authority,
        permissions: &[Permission],
        clusters: &[ClusterName],
    ) -> Result<Standing, UnknowableError> {
        self.standing_after(authority, WORK_OUTLIVES_TOKENS, permissions, clusters)
            .await
    }

    /// What an authority allows now, of `permissions` in `clusters`, to somebody who has followed something for `time` since they signed in. An
    /// identity token stands for that until its end, and one of a cluster for an hour.
    ///
    /// # Errors
    /// [`UnknowableError`] if that cannot be told now.
    pub async fn following(
        &self,
        authority: &Authority,
        time: Duration,
        permissions: &[Permission],
        clusters: &[ClusterName],
    ) -> Result<Standing, UnknowableError> {
        if !self.is_open() && matches!(authority, Authority::Kubernetes(_)) && FOLLOWS_WITHOUT_TOKEN <= time {
            return Ok(Standing::Withdrawn("signed in an hour ago".to_owned()));
        }
        self.standing_after(authority, Duration::ZERO, permissions, clusters)
            .await
    }

    /// The same, with identity tokens that stand for it until `grace` after their end.
    async fn standing_after(
        &self,
        authority: &Authority,
        grace: Duration,
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
            Authority::Oidc { claims, exp, .. } => match oidc {
                Some(_) if self.is_over(*exp, grace) => Ok(Standing::Withdrawn("signed in too long ago".to_owned())),
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

    /// Whether a token ended longer than `grace` ago. One whose end is not known counts as ended.
    fn is_over(&self, exp: Option<i64>, grace: Duration) -> bool {
        exp.is_none_or(|exp| exp as f64 + grace.as_secs_f64() <= self.clock.now().unix_seconds())
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
        let mut so_far = Ok(Found::Nobody("it is no token of this service".to_owned()));
        if let Some(oidc) = oidc {
            so_far = oidc.look(token, address.clone(), self.clock.now()).await;
            // What says to be of the provider is shown to nobody else.
            if matches!(so_far, Ok(Found::Caller(_))) || oidc.is_meant(token) {
                return so_far;
            }
        }
        let Some(kubernetes) = kubernetes else {
            return so_far;
        };
        let found = kubernetes
            .look(&self.inventory, token, address, wanted, may_ask)
            .await?;
        match (found, so_far) {
            // That the cluster does not know it says nothing while the provider may.
            (Found::Nobody(_), Err(error)) => Err(error),
            (found, _) => Ok(found),
        }
    }
}

/// Whether somebody may be called that: names go into annotations, logs and events.
fn is_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len()) && unprintable(text).is_none()
}
