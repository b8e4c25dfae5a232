//! Tokens of identity providers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use knm_domain::{OidcSignIn, SignInError, Standing};
use knm_model::{ActorKind, Authority, ClaimRule, ClaimRules, Object, Permission};
use knm_ports::{IdentityTokenError, MockIdentityTokens};
use serde_json::json;

use crate::stage::{END, Reviews, Stage, VIEW, address, anything, home};

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
