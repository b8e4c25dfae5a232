//! Who sends requests, by which way, and what they may do, now and later.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use knm_cluster_memory::{Fleet, FleetOptions};
use knm_domain::{
    ClusterHandle, Inventory, KubernetesSignIn, OidcSignIn, SignIn, SignInError, Standing, TokenAdminError, Tokens,
    Wanted, Ways,
};
use knm_model::{
    Access, Actor, ActorKind, Authority, Caller, ClaimRule, ClaimRules, ClusterName, ClusterSource, KubernetesIdentity,
    NewToken, Object, Permission, RawRoleGrant, TokenId, TokenText,
};
use knm_ports::{
    AccessReviews, Clock, ClusterError, IdentityTokenError, ManualClock, MockIdentityTokens, Randomness, Storage,
    StorageError,
};
use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;

const VIEW: [Permission; 1] = [Permission::View];
const START: &str = "2030-01-01T00:00:00Z";

/// Bytes that differ each time.
#[derive(Default)]
struct Counted(AtomicUsize);

impl Randomness for Counted {
    fn bytes(&self) -> [u8; 32] {
        [u8::try_from(self.0.fetch_add(1, Ordering::Relaxed) + 1).unwrap(); 32]
    }
}

/// A cluster that knows the token `ann` and lets her do `allowed`; it counts what it is asked.
struct Reviews {
    user: &'static str,
    allowed: Vec<Permission>,
    asked: AtomicUsize,
    is_away: bool,
}

impl Reviews {
    fn of(user: &'static str, allowed: &[Permission]) -> Arc<Self> {
        Arc::new(Self {
            user,
            allowed: allowed.to_vec(),
            asked: AtomicUsize::new(0),
            is_away: false,
        })
    }

    fn away() -> Arc<Self> {
        Arc::new(Self {
            user: "ann",
            allowed: Vec::new(),
            asked: AtomicUsize::new(0),
            is_away: true,
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
        self.answer(identity.user == self.user && self.allowed.contains(&permission))
    }
}

struct Stage {
    clock: Arc<ManualClock>,
    storage: Storage,
    tokens: Arc<Tokens>,
    inventory: Arc<Inventory>,
}

impl Stage {
    /// Clusters under these names that can be asked about people.
    fn with(clusters: &[(&str, Option<Arc<Reviews>>)]) -> Self {
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

    fn sign_in(&self, oidc: Option<OidcSignIn>, kubernetes: Option<KubernetesSignIn>) -> Arc<SignIn> {
        let ways = Ways::Closed {
            tokens: Some(Arc::clone(&self.tokens)),
            oidc: oidc.map(Arc::new),
            kubernetes: kubernetes.map(Arc::new),
        };
        SignIn::new(ways, Arc::clone(&self.inventory), self.clock.clone())
    }

    async fn token(&self, name: &str, role: &str) -> (TokenId, String) {
        let new = self.new_token(name, role);
        let made = self.tokens.make(new, &root()).await.unwrap();
        (made.token.id, made.text.reveal())
    }

    fn new_token(&self, name: &str, role: &str) -> NewToken {
        let grant = RawRoleGrant {
            role: role.to_owned(),
            ..RawRoleGrant::default()
        };
        NewToken::parse(name, &grant, Some(1), self.clock.now()).unwrap()
    }
}

fn root() -> Caller {
    Caller::service(Actor::service())
}

fn address(last: u8) -> Option<IpAddr> {
    Some(IpAddr::from([10, 0, 0, last]))
}

fn anything() -> Wanted<'static> {
    Wanted {
        permissions: &VIEW,
        cluster: None,
    }
}

fn home() -> KubernetesSignIn {
    KubernetesSignIn::new(ClusterName::from_any("home"), Vec::new())
}

#[tokio::test(start_paused = true)]
async fn a_token_lets_its_holder_in_until_it_runs_out_or_is_revoked() {
    let stage = Stage::with(&[]);
    let sign_in = stage.sign_in(None, None);
    let (id, text) = stage.token("ci", "operator").await;
    let caller = sign_in.caller(Some(&text), address(1), &anything()).await.unwrap();
    assert_eq!(
        caller.actor,
        Actor::signed_in(ActorKind::Token, "ci".to_owned(), Some("10.0.0.1".to_owned()))
    );
    assert_eq!(caller.authority, Authority::Token(id));
    assert!(caller.access.allows(Permission::Drain, Object::Everything));
    assert!(!caller.access.allows(Permission::Administer, Object::Everything));

    let (other, other_text) = stage.token("other", "viewer").await;
    stage.tokens.revoke(&other.to_string(), "ann").await.unwrap();
    let refused = sign_in.caller(Some(&other_text), address(1), &anything()).await;
    assert!(
        matches!(&refused, Err(SignInError::Refused { why }) if why.contains("revoked")),
        "{refused:?}"
    );

    stage.clock.advance(Duration::from_secs(86_400));
    let refused = sign_in.caller(Some(&text), address(1), &anything()).await;
    assert!(
        matches!(&refused, Err(SignInError::Refused { why }) if why.contains("run out")),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_is_let_in_with_half_a_token_or_none() {
    let stage = Stage::with(&[]);
    let sign_in = stage.sign_in(None, None);
    let (id, text) = stage.token("ci", "viewer").await;
    let guessed = TokenText::new(id, [0; 32]).reveal();
    let unknown = TokenText::new(TokenId::new([9; 8]), [9; 32]).reveal();
    let long = "a".repeat(20_000);
    for token in [
        None,
        Some(""),
        Some("abc"),
        Some(&text[..50]),
        Some(&guessed),
        Some(&unknown),
        Some(&long),
    ] {
        let began = tokio::time::Instant::now();
        let refused = sign_in.caller(token, address(1), &anything()).await;
        assert!(
            matches!(&refused, Err(SignInError::Refused { .. })),
            "{token:?}: {refused:?}"
        );
        assert_eq!(
            began.elapsed(),
            Duration::from_millis(100),
            "each refusal takes the same time"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_guesses_is_slowed_down_and_nobody_else_is() {
    let stage = Stage::with(&[]);
    let sign_in = stage.sign_in(None, None);
    let (_, text) = stage.token("ci", "viewer").await;
    for _ in 0..20 {
        let refused = sign_in.caller(Some("guess"), address(1), &anything()).await;
        assert!(matches!(refused, Err(SignInError::Refused { .. })));
    }
    let slowed = sign_in.caller(Some("guess"), address(1), &anything()).await;
    assert!(
        matches!(
            slowed,
            Err(SignInError::Slowed {
                retry_after_seconds: 60
            })
        ),
        "{slowed:?}"
    );
    let elsewhere = sign_in.caller(Some("guess"), address(2), &anything()).await;
    assert!(matches!(elsewhere, Err(SignInError::Refused { .. })));
    // Whoever holds a token is let in, also from there.
    assert!(sign_in.caller(Some(&text), address(1), &anything()).await.is_ok());
    // To send no token at all is no guess.
    let none = sign_in.caller(None, address(1), &anything()).await;
    assert!(matches!(none, Err(SignInError::Refused { .. })));
}

#[tokio::test(start_paused = true)]
async fn the_last_use_of_a_token_is_noted_to_the_minute() {
    let stage = Stage::with(&[]);
    let sign_in = stage.sign_in(None, None);
    let (id, text) = stage.token("ci", "viewer").await;
    let last_used = || async { stage.storage.tokens.find(id).await.unwrap().unwrap().last_used_at };
    sign_in.caller(Some("guess"), None, &anything()).await.unwrap_err();
    assert_eq!(last_used().await, None);
    sign_in.caller(Some(&text), None, &anything()).await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(last_used().await, Some(stage.clock.now()));
}

#[tokio::test]
async fn nobody_makes_a_token_that_allows_more_than_they_may_do() {
    let stage = Stage::with(&[]);
    let by = Caller {
        access: Arc::new(Access::new(vec![stage.new_token("x", "operator").grant.grant()])),
        ..root()
    };
    let more = stage.tokens.make(stage.new_token("more", "admin"), &by).await;
    assert!(matches!(more, Err(TokenAdminError::TooMuch)));
    let mut forced = stage.new_token("forced", "viewer");
    forced.grant.force = true;
    assert!(matches!(
        stage.tokens.make(forced, &by).await,
        Err(TokenAdminError::TooMuch)
    ));
    assert!(stage.tokens.make(stage.new_token("less", "viewer"), &by).await.is_ok());
    let again = stage.tokens.make(stage.new_token("less", "viewer"), &by).await;
    assert!(matches!(again, Err(TokenAdminError::Taken { .. })));
}

#[tokio::test]
async fn the_first_token_comes_from_a_file_once() {
    let stage = Stage::with(&[]);
    let text = TokenText::new(TokenId::new([3; 8]), [4; 32]);
    let first = || stage.new_token("bootstrap", "admin");
    assert!(matches!(
        stage.tokens.bootstrap("admin123", first()).await,
        Err(TokenAdminError::Text(_))
    ));
    for _ in 0..2 {
        stage
            .tokens
            .bootstrap(&format!("{}\n", text.reveal()), first())
            .await
            .unwrap();
    }
    assert_eq!(stage.tokens.list().await.unwrap().len(), 1);
    stage.tokens.revoke(&text.id().to_string(), "ann").await.unwrap();
    stage.tokens.bootstrap(&text.reveal(), first()).await.unwrap();
    assert!(!stage.tokens.has_any().await.unwrap(), "revoked is revoked");
}

#[tokio::test(start_paused = true)]
async fn clusters_say_who_somebody_is_and_each_what_they_may_do_there() {
    let here = Reviews::of("ann", &[Permission::View, Permission::Change, Permission::Administer]);
    let there = Reviews::of("ann", &[Permission::View, Permission::Administer]);
    let stage = Stage::with(&[
        ("home", Some(here.clone())),
        ("east", Some(there.clone())),
        ("demo", None),
    ]);
    let sign_in = stage.sign_in(None, Some(home()));
    let wanted = Wanted {
        permissions: &Permission::ALL,
        cluster: None,
    };
    let caller = sign_in.caller(Some("ann"), address(1), &wanted).await.unwrap();
    assert_eq!(caller.actor.label(), "ann");
    let may = |permission, cluster| caller.access.allows(permission, Object::Cluster(cluster));
    assert!(may(Permission::View, "home") && may(Permission::View, "east") && !may(Permission::View, "demo"));
    assert!(may(Permission::Change, "home") && !may(Permission::Change, "east"));
    // Of the service as a whole its own cluster decides.
    assert!(caller.access.allows(Permission::Administer, Object::Everything));
    assert!(
        !caller.access.sees_everything(),
        "there is a cluster that does not know her"
    );

    let asked = here.asked.load(Ordering::Relaxed);
    sign_in.caller(Some("ann"), address(1), &wanted).await.unwrap();
    assert_eq!(
        here.asked.load(Ordering::Relaxed),
        asked,
        "what a cluster said is believed for a moment"
    );
    let stranger = sign_in.caller(Some("bob"), address(1), &wanted).await;
    assert!(matches!(stranger, Err(SignInError::Refused { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_permission_in_every_cluster_is_one_everywhere() {
    let allowed = [Permission::View, Permission::Change];
    let clusters = [
        ("home", Some(Reviews::of("ann", &allowed))),
        ("east", Some(Reviews::of("ann", &allowed))),
    ];
    let stage = Stage::with(&clusters);
    let sign_in = stage.sign_in(None, Some(home()));
    let wanted = Wanted {
        permissions: &[Permission::View, Permission::Change, Permission::Administer],
        cluster: None,
    };
    let caller = sign_in.caller(Some("ann"), address(1), &wanted).await.unwrap();
    assert!(caller.access.allows(Permission::Change, Object::Everything));
    assert!(!caller.access.allows(Permission::Administer, Object::Everything));
}

#[tokio::test(start_paused = true)]
async fn a_service_account_is_nobody_in_another_cluster() {
    let user = "system:serviceaccount:ops:robot";
    let (here, there) = (Reviews::of(user, &VIEW), Reviews::of(user, &VIEW));
    let stage = Stage::with(&[("home", Some(here)), ("east", Some(there.clone()))]);
    let sign_in = stage.sign_in(None, Some(home()));
    let caller = sign_in.caller(Some("ann"), address(1), &anything()).await.unwrap();
    assert!(caller.access.allows(Permission::View, Object::Cluster("home")));
    assert!(!caller.access.allows(Permission::View, Object::SomeOf("east")));
    assert_eq!(there.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_cannot_be_asked_lets_nobody_do_anything() {
    let stage = Stage::with(&[
        ("home", Some(Reviews::of("ann", &VIEW))),
        ("east", Some(Reviews::away())),
    ]);
    let sign_in = stage.sign_in(None, Some(home()));
    let caller = sign_in.caller(Some("ann"), address(1), &anything()).await.unwrap();
    assert!(!caller.access.allows(Permission::View, Object::SomeOf("east")));
    let wanted = Wanted {
        permissions: &VIEW,
        cluster: Some("east"),
    };
    let alone = sign_in.caller(Some("ann"), address(1), &wanted).await;
    assert!(matches!(alone, Err(SignInError::Unavailable(_))), "{alone:?}");
}

#[tokio::test(start_paused = true)]
async fn a_guesser_does_not_make_the_service_ask_the_cluster() {
    let here = Reviews::of("ann", &VIEW);
    let stage = Stage::with(&[("home", Some(here.clone()))]);
    let sign_in = stage.sign_in(None, Some(home()));
    for guess in 0..30 {
        sign_in
            .caller(Some(&format!("guess-{guess}")), address(1), &anything())
            .await
            .unwrap_err();
    }
    assert_eq!(here.asked.load(Ordering::Relaxed), 20);
    assert!(sign_in.caller(Some("ann"), address(2), &anything()).await.is_ok());
    assert!(
        sign_in.caller(Some("ann"), address(1), &anything()).await.is_ok(),
        "she is known by now"
    );
}

#[tokio::test(start_paused = true)]
async fn claims_of_an_identity_token_become_permissions() {
    let mut provider = MockIdentityTokens::new();
    provider.expect_verify().returning(|token, _| match token {
        "good" => Ok(
            json!({"sub": "s-1", "email": "ann@example.com", "groups": ["sre"], "other": 1})
                .as_object()
                .unwrap()
                .clone(),
        ),
        "nameless" => Ok(json!({"sub": "s-1", "groups": ["sre"]}).as_object().unwrap().clone()),
        "odd" => Ok(json!({"sub": "s-1", "email": "a\nb", "groups": ["sre"]})
            .as_object()
            .unwrap()
            .clone()),
        "away" => Err(IdentityTokenError::Unavailable { source: "away".into() }),
        _ => Err(IdentityTokenError::Refused {
            why: "the signature is wrong".to_owned(),
        }),
    });
    let oidc = OidcSignIn {
        tokens: Arc::new(provider),
        name_claim: "email".to_owned(),
        rules: ClaimRules {
            rules: vec![ClaimRule::parse_text("groups=sre -> operator in a").unwrap()],
        },
    };
    let stage = Stage::with(&[]);
    let sign_in = stage.sign_in(Some(oidc), None);
    let caller = sign_in.caller(Some("good"), address(1), &anything()).await.unwrap();
    assert_eq!(
        (caller.actor.kind, caller.actor.label()),
        (ActorKind::Oidc, "ann@example.com")
    );
    assert!(caller.access.allows(Permission::Drain, Object::Cluster("a")));
    assert!(!caller.access.allows(Permission::View, Object::SomeOf("b")));
    let Authority::Oidc { claims, .. } = &caller.authority else {
        panic!("{caller:?}");
    };
    assert_eq!(
        claims.keys().collect::<Vec<_>>(),
        ["groups"],
        "no more is kept than decides"
    );
    let standing = sign_in.standing(&caller.authority, &VIEW, &[]).await.unwrap();
    assert_eq!(standing, Standing::Access(Arc::clone(&caller.access)));
    for token in ["nameless", "odd", "bad"] {
        let refused = sign_in.caller(Some(token), address(1), &anything()).await;
        assert!(
            matches!(refused, Err(SignInError::Refused { .. })),
            "{token}: {refused:?}"
        );
    }
    let away = sign_in.caller(Some("away"), address(1), &anything()).await;
    assert!(matches!(away, Err(SignInError::Unavailable(_))));
}

#[tokio::test(start_paused = true)]
async fn what_was_withdrawn_allows_nothing_later() {
    let stage = Stage::with(&[("home", Some(Reviews::of("ann", &VIEW)))]);
    let sign_in = stage.sign_in(None, None);
    let (id, _) = stage.token("ci", "operator").await;
    let standing = async |authority| sign_in.standing(&authority, &VIEW, &[]).await.unwrap();
    assert!(matches!(standing(Authority::Token(id)).await, Standing::Access(_)));
    stage.tokens.revoke(&id.to_string(), "ann").await.unwrap();
    let Standing::Withdrawn(why) = standing(Authority::Token(id)).await else {
        panic!("a revoked token stands for nothing");
    };
    assert!(why.contains("\"ci\" was revoked"), "{why}");
    for authority in [
        Authority::Open,
        Authority::Token(TokenId::new([9; 8])),
        Authority::Kubernetes(KubernetesIdentity::default()),
        Authority::Oidc {
            subject: "s".to_owned(),
            claims: Map::new(),
        },
    ] {
        assert!(matches!(standing(authority).await, Standing::Withdrawn(_)));
    }
    assert!(matches!(standing(Authority::Service).await, Standing::Access(_)));
    let open = SignIn::new(Ways::Open, Arc::clone(&stage.inventory), stage.clock.clone());
    let allowed = open.standing(&Authority::Token(id), &VIEW, &[]).await.unwrap();
    assert_eq!(allowed, Standing::Access(Arc::new(Access::unlimited())));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_lets_nobody_in_and_says_so() {
    let stage = Stage::with(&[]);
    let sign_in = stage.sign_in(None, None);
    let (_, text) = stage.token("ci", "viewer").await;
    stage.storage.admin.close().await;
    let away = sign_in.caller(Some(&text), address(1), &anything()).await;
    let Err(SignInError::Unavailable(error)) = away else {
        panic!("{away:?}");
    };
    assert!(matches!(
        error,
        knm_domain::UnknowableError::Store(StorageError::Unavailable { .. })
    ));
}
