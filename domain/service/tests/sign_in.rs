//! Who sends requests, by which way, and what they may do, now and later.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use knm_cluster_memory::{Fleet, FleetOptions};
use knm_domain::{
    ClusterHandle, Inventory, KubernetesSignIn, OidcSignIn, SignIn, SignInError, Standing, TokenAdminError, Tokens,
    Wanted, Ways,
};
use knm_model::{
    Access, Actor, ActorKind, ApiToken, Authority, Caller, ClaimRule, ClaimRules, ClusterName, ClusterSource,
    KubernetesIdentity, NewToken, Object, Permission, RawRoleGrant, Timestamp, TokenId, TokenText,
};
use knm_ports::{
    AccessReviews, ApiTokens, Clock, ClusterError, IdentityTokenError, ManualClock, MockIdentityTokens, Randomness,
    Storage, StorageError,
};
use serde_json::{Map, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const VIEW: [Permission; 1] = [Permission::View];
const START: &str = "2030-01-01T00:00:00Z";
/// Half an hour later.
const END: i64 = 1_893_457_800;

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
    /// It gives no answer about permissions.
    hangs: AtomicBool,
}

impl Reviews {
    fn of(user: &'static str, allowed: &[Permission]) -> Arc<Self> {
        Arc::new(Self {
            user,
            allowed: allowed.to_vec(),
            asked: AtomicUsize::new(0),
            is_away: false,
            hangs: AtomicBool::new(false),
        })
    }

    fn away() -> Arc<Self> {
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

#[tokio::test]
async fn the_file_of_the_first_token_says_which_one_is_right() {
    let stage = Stage::with(&[]);
    let text = |id: u8| TokenText::new(TokenId::new([id; 8]), [id; 32]);
    let first = || stage.new_token("bootstrap", "admin");
    let valid = async || {
        let now = stage.clock.now();
        let all = stage.tokens.list().await.unwrap();
        let valid = all.into_iter().filter(|token| token.is_valid(now));
        valid.map(|token| token.id).collect::<Vec<_>>()
    };
    stage.tokens.bootstrap(&text(1).reveal(), first()).await.unwrap();
    // One that has run out does not keep its name.
    stage.clock.advance(Duration::from_secs(2 * 86_400));
    assert_eq!(valid().await, []);
    stage.tokens.bootstrap(&text(2).reveal(), first()).await.unwrap();
    assert_eq!(valid().await, [text(2).id()]);
    // Nor does one that is valid; a replica that still has the old file does not bring it back.
    for id in [3, 2] {
        stage.tokens.bootstrap(&text(id).reveal(), first()).await.unwrap();
        assert_eq!(valid().await, [text(3).id()]);
    }
}

#[tokio::test]
async fn tokens_that_ran_out_leave_room_for_others() {
    let stage = Stage::with(&[]);
    let mut old = stage
        .tokens
        .make(stage.new_token("old", "viewer"), &root())
        .await
        .unwrap()
        .token;
    for number in 1_u64..1_000 {
        old.id = TokenId::new(number.to_be_bytes());
        old.name = format!("t{number}");
        stage.storage.tokens.insert(&old).await.unwrap();
    }
    let full = stage.tokens.make(stage.new_token("new", "viewer"), &root()).await;
    assert!(matches!(full, Err(TokenAdminError::TooMany)));
    stage.clock.advance(Duration::from_secs(2 * 86_400));
    assert!(
        stage
            .tokens
            .make(stage.new_token("new", "viewer"), &root())
            .await
            .is_ok()
    );
}

/// A store whose first answer about a token takes long on its way.
struct Slow {
    store: Arc<dyn ApiTokens>,
    read: Notify,
    go_on: Notify,
    is_slow: AtomicBool,
}

#[async_trait]
impl ApiTokens for Slow {
    async fn list(&self) -> Result<Vec<ApiToken>, StorageError> {
        self.store.list().await
    }

    async fn find(&self, id: TokenId) -> Result<Option<ApiToken>, StorageError> {
        let found = self.store.find(id).await;
        if self.is_slow.swap(false, Ordering::SeqCst) {
            self.read.notify_one();
            self.go_on.notified().await;
        }
        found
    }

    async fn insert(&self, token: &ApiToken) -> Result<(), StorageError> {
        self.store.insert(token).await
    }

    async fn revoke(&self, id: TokenId, at: Timestamp, by: &str) -> Result<(), StorageError> {
        self.store.revoke(id, at, by).await
    }

    async fn used(&self, id: TokenId, at: Timestamp) -> Result<(), StorageError> {
        self.store.used(id, at).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_read_before_a_token_was_revoked_is_not_remembered() {
    let stage = Stage::with(&[]);
    let slow = Arc::new(Slow {
        store: Arc::clone(&stage.storage.tokens),
        read: Notify::new(),
        go_on: Notify::new(),
        is_slow: AtomicBool::new(false),
    });
    let tokens = Tokens::new(slow.clone(), stage.clock.clone(), Arc::new(Counted::default()));
    let made = tokens.make(stage.new_token("ci", "viewer"), &root()).await.unwrap();
    let ways = Ways::Closed {
        tokens: Some(Arc::clone(&tokens)),
        oidc: None,
        kubernetes: None,
    };
    let sign_in = SignIn::new(ways, Arc::clone(&stage.inventory), stage.clock.clone());
    slow.is_slow.store(true, Ordering::SeqCst);
    let text = made.text.reveal();
    let early = tokio::spawn({
        let (sign_in, text) = (Arc::clone(&sign_in), text.clone());
        async move { sign_in.caller(Some(&text), address(1), &anything()).await.is_ok() }
    });
    slow.read.notified().await;
    tokens.revoke(&made.token.id.to_string(), "ann").await.unwrap();
    slow.go_on.notify_one();
    early.await.unwrap();
    let late = sign_in.caller(Some(&text), address(1), &anything()).await;
    assert!(matches!(late, Err(SignInError::Refused { .. })), "{late:?}");
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
async fn whoever_follows_with_a_token_of_a_cluster_shows_it_again_after_an_hour() {
    let stage = Stage::with(&[("home", Some(Reviews::of("ann", &VIEW)))]);
    let sign_in = stage.sign_in(None, Some(home()));
    let caller = sign_in.caller(Some("ann"), address(1), &anything()).await.unwrap();
    let clusters = [ClusterName::from_any("home")];
    let following = async |seconds: u64| {
        let time = Duration::from_secs(seconds);
        let standing = sign_in.following(&caller.authority, time, &VIEW, &clusters).await;
        matches!(standing.unwrap(), Standing::Access(access) if access.allows(Permission::View, Object::SomeOf("home")))
    };
    assert!(following(3_599).await);
    assert!(!following(3_600).await);
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
    let alone = sign_in.caller(Some("ann"), address(1), &wanted).await.unwrap();
    assert!(
        !alone.access.allows(Permission::View, Object::SomeOf("east")),
        "it looks as if it were not there"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_cannot_be_asked_is_told_to_whom_it_showed_itself() {
    let there = Reviews::of("ann", &VIEW);
    let stage = Stage::with(&[("home", Some(Reviews::of("ann", &VIEW))), ("east", Some(there.clone()))]);
    let sign_in = stage.sign_in(None, Some(home().forgetful()));
    let wanted = Wanted {
        permissions: &VIEW,
        cluster: Some("east"),
    };
    let caller = sign_in.caller(Some("ann"), address(1), &wanted).await.unwrap();
    assert!(caller.access.allows(Permission::View, Object::SomeOf("east")));
    there.hangs.store(true, Ordering::Relaxed);
    let silent = sign_in.caller(Some("ann"), address(1), &wanted).await;
    assert!(matches!(silent, Err(SignInError::Unavailable(_))), "{silent:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_called_what_cannot_be_written() {
    let long: &'static str = "a".repeat(254).leak();
    for user in ["", "ann\n", "ann\u{202e}", long] {
        let stage = Stage::with(&[("home", Some(Reviews::of(user, &VIEW)))]);
        let sign_in = stage.sign_in(None, Some(home()));
        let refused = sign_in.caller(Some("ann"), address(1), &anything()).await;
        assert!(
            matches!(refused, Err(SignInError::Refused { .. })),
            "{user:?}: {refused:?}"
        );
    }
    let stage = Stage::with(&[("home", Some(Reviews::of(&long[1..], &VIEW)))]);
    let sign_in = stage.sign_in(None, Some(home()));
    assert!(sign_in.caller(Some("ann"), address(1), &anything()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_away_is_told_and_its_tokens_are_shown_to_no_cluster() {
    let here = Reviews::of("ann", &VIEW);
    let stage = Stage::with(&[("home", Some(here.clone()))]);
    let mut provider = MockIdentityTokens::new();
    provider.expect_verify().returning(|token, _| match token {
        "forged" => Err(IdentityTokenError::Refused {
            why: "the signature is wrong".to_owned(),
        }),
        _ => Err(IdentityTokenError::Unavailable { source: "away".into() }),
    });
    provider
        .expect_names_issuer()
        .returning(|token| matches!(token, "meant" | "forged"));
    let oidc = OidcSignIn {
        tokens: Arc::new(provider),
        name_claim: "email".to_owned(),
        rules: ClaimRules::default(),
    };
    let sign_in = stage.sign_in(Some(oidc), Some(home()));
    for _ in 0..30 {
        let away = sign_in.caller(Some("meant"), address(1), &anything()).await;
        assert!(matches!(away, Err(SignInError::Unavailable(_))), "{away:?}");
    }
    let forged = sign_in.caller(Some("forged"), address(1), &anything()).await;
    assert!(
        matches!(forged, Err(SignInError::Refused { .. })),
        "the others were no guesses: {forged:?}"
    );
    assert_eq!(here.asked.load(Ordering::Relaxed), 0);
    // What only the cluster knows is known; what it does not know either may be known by the provider.
    assert!(sign_in.caller(Some("ann"), address(1), &anything()).await.is_ok());
    let away = sign_in.caller(Some("bob"), address(1), &anything()).await;
    assert!(matches!(away, Err(SignInError::Unavailable(_))), "{away:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_cluster_makes_one_request_wait_and_not_each() {
    let there = Reviews::of("ann", &VIEW);
    there.hangs.store(true, Ordering::Relaxed);
    let stage = Stage::with(&[("home", Some(Reviews::of("ann", &VIEW))), ("east", Some(there.clone()))]);
    let sign_in = stage.sign_in(None, Some(home()));
    let sees_east = async || {
        let began = tokio::time::Instant::now();
        let caller = sign_in.caller(Some("ann"), address(1), &anything()).await.unwrap();
        assert!(caller.access.allows(Permission::View, Object::Cluster("home")));
        let sees = caller.access.allows(Permission::View, Object::SomeOf("east"));
        (sees, began.elapsed().as_secs())
    };
    assert_eq!(sees_east().await, (false, 5));
    for _ in 0..10 {
        assert_eq!(sees_east().await, (false, 0));
    }
    assert_eq!(there.asked.load(Ordering::Relaxed), 1);
    there.hangs.store(false, Ordering::Relaxed);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(sees_east().await, (true, 0), "it is asked again");
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
async fn whoever_was_let_in_before_is_let_in_from_an_address_that_others_guess_at() {
    let here = Reviews::of("ann", &VIEW);
    let stage = Stage::with(&[("home", Some(here.clone()))]);
    let sign_in = stage.sign_in(None, Some(home().forgetful()));
    assert!(sign_in.caller(Some("ann"), address(1), &anything()).await.is_ok());
    for guess in 0..30 {
        let guess = format!("guess-{guess}");
        sign_in.caller(Some(&guess), address(1), &anything()).await.unwrap_err();
    }
    let asked = here.asked.load(Ordering::Relaxed);
    assert!(sign_in.caller(Some("ann"), address(1), &anything()).await.is_ok());
    assert_eq!(
        here.asked.load(Ordering::Relaxed),
        asked + 2,
        "her token is asked about"
    );
    let slowed = sign_in.caller(Some("guess-0"), address(1), &anything()).await;
    assert!(matches!(slowed, Err(SignInError::Slowed { .. })), "{slowed:?}");
    assert_eq!(here.asked.load(Ordering::Relaxed), asked + 2);
}

#[tokio::test(start_paused = true)]
async fn claims_of_an_identity_token_become_permissions() {
    let mut provider = MockIdentityTokens::new();
    provider.expect_verify().returning(|token, _| match token {
        "good" => Ok(
            json!({"sub": "s-1", "email": "ann@example.com", "groups": ["sre"], "other": 1, "exp": END})
                .as_object()
                .unwrap()
                .clone(),
        ),
        "nameless" => Ok(json!({"sub": "s-1", "groups": ["sre"]}).as_object().unwrap().clone()),
        "odd" => Ok(json!({"sub": "s-1", "email": "a\u{202e}b", "groups": ["sre"]})
            .as_object()
            .unwrap()
            .clone()),
        "away" => Err(IdentityTokenError::Unavailable { source: "away".into() }),
        _ => Err(IdentityTokenError::Refused {
            why: "the signature is wrong".to_owned(),
        }),
    });
    provider.expect_names_issuer().returning(|_| true);
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
    let following = async |minutes: u64| {
        let time = Duration::from_secs(minutes * 60);
        sign_in.following(&caller.authority, time, &VIEW, &[]).await.unwrap()
    };
    assert_eq!(following(29).await, standing);
    stage.clock.advance(Duration::from_secs(1_800));
    assert!(
        matches!(following(30).await, Standing::Withdrawn(_)),
        "the token has ended"
    );
    let later = async || sign_in.standing(&caller.authority, &VIEW, &[]).await.unwrap();
    stage.clock.advance(Duration::from_secs(86_399));
    assert_eq!(later().await, standing, "what was asked for may be begun for a day");
    stage.clock.advance(Duration::from_secs(1));
    assert_eq!(later().await, Standing::Withdrawn("signed in too long ago".to_owned()));
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
            exp: None,
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
