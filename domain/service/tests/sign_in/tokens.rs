//! Tokens of this service.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use knm_domain::{SignIn, SignInError, TokenAdminError, Tokens, Ways};
use knm_model::{
    Access, Actor, ActorKind, ApiToken, Authority, Caller, Object, Permission, Timestamp, TokenId, TokenText,
};
use knm_ports::{ApiTokens, Clock as _, StorageError};
use tokio::sync::Notify;

use crate::stage::{Counted, Reviews, Stage, VIEW, address, anything, home, root};

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

#[tokio::test(start_paused = true)]
async fn a_token_that_ran_out_gives_its_name_to_the_next_one() {
    let stage = Stage::with(&[]);
    let sign_in = stage.sign_in(None, None);
    let (first, text) = stage.token("me", "viewer").await;
    let taken = stage.tokens.make(stage.new_token("me", "viewer"), &root()).await;
    assert!(matches!(taken, Err(TokenAdminError::Taken { name }) if name == "me"));

    stage.clock.advance(Duration::from_secs(86_400));
    let (second, next) = stage.token("me", "viewer").await;

    assert_ne!(first, second);
    assert!(sign_in.caller(Some(&next), address(1), &anything()).await.is_ok());
    let refused = sign_in.caller(Some(&text), address(2), &anything()).await;
    assert!(matches!(refused, Err(SignInError::Refused { .. })), "{refused:?}");
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
