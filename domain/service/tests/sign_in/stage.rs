//! Clusters that know people, a store of tokens, and a clock that stands still.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use knm_cluster_memory::{Fleet, FleetOptions};
use knm_domain::{ClusterHandle, Inventory, KubernetesSignIn, OidcSignIn, SignIn, Tokens, Wanted, Ways};
use knm_model::{
    Actor, Caller, ClusterName, ClusterSource, KubernetesIdentity, NewToken, Permission, RawRoleGrant, TokenId,
};
use knm_ports::{AccessReviews, Clock as _, ClusterError, ManualClock, Randomness, Storage};
use tokio_util::sync::CancellationToken;

pub(crate) const VIEW: [Permission; 1] = [Permission::View];
pub(crate) const START: &str = "2030-01-01T00:00:00Z";
/// Half an hour later.
pub(crate) const END: i64 = 1_893_457_800;

/// Bytes that differ each time.
#[derive(Default)]
pub(crate) struct Counted(AtomicUsize);

impl Randomness for Counted {
    fn bytes(&self) -> [u8; 32] {
        [u8::try_from(self.0.fetch_add(1, Ordering::Relaxed) + 1).unwrap(); 32]
    }
}

/// A cluster that knows the token `ann` and lets her do `allowed`; it counts what it is asked.
pub(crate) struct Reviews {
    pub(crate) user: &'static str,
    pub(crate) allowed: Vec<Permission>,
    pub(crate) asked: AtomicUsize,
    pub(crate) is_away: bool,
    /// It gives no answer about permissions.
    pub(crate) hangs: AtomicBool,
}

impl Reviews {
    pub(crate) fn of(user: &'static str, allowed: &[Permission]) -> Arc<Self> {
        Arc::new(Self {
            user,
            allowed: allowed.to_vec(),
            asked: AtomicUsize::new(0),
            is_away: false,
            hangs: AtomicBool::new(false),
        })
    }

    pub(crate) fn away() -> Arc<Self> {
        Arc::new(Self {
            user: "ann",
            allowed: Vec::new(),
            asked: AtomicUsize::new(0),
            is_away: true,
            hangs: AtomicBool::new(false),
        })
    }

    fn answer<T>(&self, answer: T) -> Result<T, ClusterError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match self.is_away {
            true => Err(ClusterError::Unavailable { source: "away".into() }),
            false => Ok(answer),
        }
    }
}

#[async_trait]
impl AccessReviews for Reviews {
    async fn identify(&self, token: &str, _: &[String]) -> Result<Option<KubernetesIdentity>, ClusterError> {
        self.answer((token == "ann").then(|| KubernetesIdentity {
            user: self.user.to_owned(),
            groups: vec!["system:masters".to_owned()],
            ..KubernetesIdentity::default()
        }))
    }

    async fn may(&self, identity: &KubernetesIdentity, permission: Permission) -> Result<bool, ClusterError> {
        if self.hangs.load(Ordering::Relaxed) {
            self.asked.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
        }
        self.answer(identity.user == self.user && self.allowed.contains(&permission))
    }
}

pub(crate) struct Stage {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) storage: Storage,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) inventory: Arc<Inventory>,
}

impl Stage {
    /// Clusters under these names that can be asked about people.
    pub(crate) fn with(clusters: &[(&str, Option<Arc<Reviews>>)]) -> Self {
        let clock = ManualClock::at(START);
        let handles = clusters.iter().map(|(name, reviews)| {
            let fleet = Fleet::new(FleetOptions {
                nodes: 1,
                seed: 1,
                change_every: None,
                started_at: clock.now(),
            });
            ClusterHandle {
                name: ClusterName::from_any(name),
                source: ClusterSource::Demo,
                gateway: fleet.gateway(),
                reviews: reviews.clone().map(|reviews| reviews as Arc<dyn AccessReviews>),
                watch_pods: false,
            }
        });
        let inventory = Inventory::start(clock.clone(), handles.collect(), CancellationToken::new());
        let storage = knm_storage_memory::open();
        let tokens = Tokens::new(Arc::clone(&storage.tokens), clock.clone(), Arc::new(Counted::default()));
        Self {
            clock,
            storage,
            tokens,
            inventory,
        }
    }

    pub(crate) fn sign_in(&self, oidc: Option<OidcSignIn>, kubernetes: Option<KubernetesSignIn>) -> Arc<SignIn> {
        let ways = Ways::Closed {
            tokens: Some(Arc::clone(&self.tokens)),
            oidc: oidc.map(Arc::new),
            kubernetes: kubernetes.map(Arc::new),
        };
        SignIn::new(ways, Arc::clone(&self.inventory), self.clock.clone())
    }

    pub(crate) async fn token(&self, name: &str, role: &str) -> (TokenId, String) {
        let new = self.new_token(name, role);
        let made = self.tokens.make(new, &root()).await.unwrap();
        (made.token.id, made.text.reveal())
    }

    pub(crate) fn new_token(&self, name: &str, role: &str) -> NewToken {
        let grant = RawRoleGrant {
            role: role.to_owned(),
            ..RawRoleGrant::default()
        };
        NewToken::parse(name, &grant, Some(1), self.clock.now()).unwrap()
    }
}

pub(crate) fn root() -> Caller {
    Caller::service(Actor::service())
}

pub(crate) fn address(last: u8) -> Option<IpAddr> {
    Some(IpAddr::from([10, 0, 0, last]))
}

pub(crate) fn anything() -> Wanted<'static> {
    Wanted {
        permissions: &VIEW,
        cluster: None,
    }
}

pub(crate) fn home() -> KubernetesSignIn {
    KubernetesSignIn::new(ClusterName::from_any("home"), Vec::new())
}
