//! Attempts to have something taken for what it is not.

use proptest::prelude::*;
use ring::hmac;
use serde_json::{Value, json};

use crate::scripted::ScriptedIssuer;
use crate::signing::{TestKey, text, unsigned};
use crate::{NOW, claims, open, open_for_every_algorithm, verify, why};

#[tokio::test]
async fn a_token_without_a_signature_is_refused() {
    let key = TestKey::rsa("k", 0);
    let issuer = ScriptedIssuer::start(&[&key]).await;
    let tokens = open_for_every_algorithm(&issuer).await;
    let good = key.token("RS256", &claims(&issuer));
    assert_eq!(why(&tokens, &good).await, "");
    let (_, signature) = good.rsplit_once('.').expect("a signature");
    for algorithm in ["none", "None", "NONE", "nOnE", ""] {
        let signed = unsigned(&json!({"alg": algorithm, "kid": "k"}), &claims(&issuer));
        for end in ["", ".", &format!(".{signature}")] {
            assert_ne!(why(&tokens, &format!("{signed}{end}")).await, "", "{algorithm} {end}");
        }
    }
    let (signed, _) = good.rsplit_once('.').expect("a signature");
    assert_eq!(why(&tokens, &format!("{signed}.")).await, "it is not signed");
}

#[tokio::test]
async fn a_public_key_is_no_shared_secret() {
    let key = TestKey::rsa("k", 0);
    let issuer = ScriptedIssuer::start(&[&key]).await;
    let tokens = open_for_every_algorithm(&issuer).await;
    let published = key.published();
    let modulus = published["n"].as_str().expect("a modulus");
    for secret in [published.to_string().as_str(), modulus, ""] {
        for algorithm in ["HS256", "hs256", "RS256"] {
            let signed = unsigned(&json!({"alg": algorithm, "kid": "k"}), &claims(&issuer));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
            assert_ne!(why(&tokens, &format!("{signed}.{}", text(tag.as_ref()))).await, "");
        }
    }
}

#[tokio::test]
async fn keys_in_a_token_are_not_believed() {
    let (own, theirs) = (TestKey::p256("k"), TestKey::p256("k"));
    let issuer = ScriptedIssuer::start(&[&own]).await;
    let tokens = open(&issuer).await;
    let header =
        json!({"alg": "ES256", "kid": "k", "jwk": theirs.published(), "jku": format!("{}/keys", issuer.url())});
    assert_eq!(
        why(&tokens, &theirs.token_with(&header, &claims(&issuer))).await,
        "its signature is wrong"
    );
    // With its own key the same header does no harm.
    assert_eq!(why(&tokens, &own.token_with(&header, &claims(&issuer))).await, "");
}

#[tokio::test]
async fn a_key_is_for_the_algorithms_of_its_kind_and_for_the_one_that_it_names() {
    let (rsa, p256) = (TestKey::rsa("rsa", 0), TestKey::p256("p256"));
    let issuer = ScriptedIssuer::start(&[]).await;
    let mut for_pss = rsa.published();
    for_pss["alg"] = json!("PS256");
    issuer.publish_as(&json!({"keys": [for_pss, p256.published()]}));
    let tokens = open_for_every_algorithm(&issuer).await;
    assert_eq!(why(&tokens, &rsa.token("PS256", &claims(&issuer))).await, "");
    for algorithm in ["RS256", "RS384", "PS384", "PS512"] {
        let told = why(&tokens, &rsa.token(algorithm, &claims(&issuer))).await;
        assert_eq!(told, "no key of the issuer made its signature", "{algorithm}");
    }
    // What one kind of key signed, said to be of another.
    let signed_by_p256 = p256.token("ES256", &claims(&issuer));
    let (_, signature) = signed_by_p256.rsplit_once('.').expect("a signature");
    for (algorithm, id) in [
        ("PS256", "p256"),
        ("ES256", "rsa"),
        ("ES384", "p256"),
        ("EdDSA", "p256"),
    ] {
        let signed = unsigned(&json!({"alg": algorithm, "kid": id}), &claims(&issuer));
        let told = why(&tokens, &format!("{signed}.{signature}")).await;
        assert_eq!(told, "no key of the issuer made its signature", "{algorithm} {id}");
    }
}

#[tokio::test]
async fn an_algorithm_that_is_not_allowed_is_refused_though_a_key_made_the_signature() {
    let (rsa, ed) = (TestKey::rsa("rsa", 0), TestKey::ed25519("ed"));
    let issuer = ScriptedIssuer::start(&[&rsa, &ed]).await;
    let tokens = open(&issuer).await;
    for token in [
        rsa.token("PS256", &claims(&issuer)),
        ed.token("EdDSA", &claims(&issuer)),
    ] {
        assert_eq!(
            why(&tokens, &token).await,
            "its algorithm is not among those that are allowed"
        );
    }
}

#[tokio::test]
async fn keys_that_share_a_name_are_all_tried() {
    let keys = [
        TestKey::rsa("same", 0),
        TestKey::rsa("same", 1),
        TestKey::p256("same"),
        TestKey::p256("same"),
    ];
    let issuer = ScriptedIssuer::start(&keys.iter().collect::<Vec<_>>()).await;
    let tokens = open(&issuer).await;
    for (key, algorithm) in keys.iter().zip(["RS256", "RS256", "ES256", "ES256"]) {
        assert_eq!(why(&tokens, &key.token(algorithm, &claims(&issuer))).await, "");
    }
    let stranger = TestKey::p256("same");
    assert_eq!(
        why(&tokens, &stranger.token("ES256", &claims(&issuer))).await,
        "its signature is wrong"
    );
}

#[tokio::test]
async fn a_token_that_names_no_key_may_be_of_any() {
    let keys = [TestKey::rsa("a", 0), TestKey::rsa("b", 1), TestKey::p256("c")];
    let issuer = ScriptedIssuer::start(&keys.iter().collect::<Vec<_>>()).await;
    let tokens = open(&issuer).await;
    for (key, algorithm) in keys.iter().zip(["RS256", "RS256", "ES256"]) {
        let token = key.token_with(&json!({"alg": algorithm}), &claims(&issuer));
        assert_eq!(why(&tokens, &token).await, "");
    }
    let stranger = TestKey::p256("c").token_with(&json!({"alg": "ES256"}), &claims(&issuer));
    assert_eq!(why(&tokens, &stranger).await, "no key of the issuer made its signature");
}

#[tokio::test]
async fn other_things_that_the_issuer_signs_are_no_tokens_of_ours() {
    let key = TestKey::p256("k");
    let issuer = ScriptedIssuer::start(&[&key]).await;
    let tokens = open(&issuer).await;
    for (header, expected) in [
        (
            json!({"alg": "ES256", "kid": "k", "typ": "logout+jwt"}),
            "it is of another type",
        ),
        (json!({"alg": "ES256", "kid": "k", "typ": "at+jwt"}), ""),
        (
            json!({"alg": "ES256", "kid": "k", "crit": ["exp"]}),
            "its header has extensions that must be understood",
        ),
    ] {
        assert_eq!(
            why(&tokens, &key.token_with(&header, &claims(&issuer))).await,
            expected,
            "{header}"
        );
    }
}

#[tokio::test]
async fn a_token_that_is_too_long_is_refused() {
    let key = TestKey::p256("k");
    let issuer = ScriptedIssuer::start(&[&key]).await;
    let tokens = open(&issuer).await;
    let mut long = claims(&issuer);
    long["pad"] = json!("x".repeat(11_000));
    assert_eq!(why(&tokens, &key.token("ES256", &long)).await, "");
    long["pad"] = json!("x".repeat(16_384));
    assert_eq!(why(&tokens, &key.token("ES256", &long)).await, "it is too long");
}

fn garbage() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just(text(br#"{"alg":"ES256","kid":"k"}"#)),
        "[A-Za-z0-9_-]{0,40}",
        "\\PC{0,40}",
        any::<Vec<u8>>().prop_map(|bytes| text(&bytes)),
    ];
    prop_oneof![
        "\\PC*",
        proptest::collection::vec(part, 0..5).prop_map(|parts| parts.join("."))
    ]
}

/// Neither garbage nor a token with one other character is ever accepted, and no error repeats any of it.
#[test]
fn nothing_but_the_token_itself_is_accepted() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let key = TestKey::p256("k");
    let (issuer, tokens) = runtime.block_on(async {
        let issuer = ScriptedIssuer::start(&[&key]).await;
        let tokens = open(&issuer).await;
        (issuer, tokens)
    });
    let mut claims: Value = claims(&issuer);
    claims["canary"] = json!("canary-of-somebody");
    claims["exp"] = json!(NOW + 60);
    let good = key.token("ES256", &claims);
    assert_eq!(runtime.block_on(why(&tokens, &good)), "");
    let refused = |token: &str| {
        let error = runtime.block_on(verify(&tokens, token)).err();
        let error = error.unwrap_or_else(|| panic!("{token} is accepted"));
        let told = format!("{error} {error:?}");
        assert!(!told.contains("canary"), "{told}");
    };
    for place in 0..good.len() {
        let mut changed = good.clone().into_bytes();
        changed[place] = match changed[place] {
            b'A' => b'B',
            _ => b'A',
        };
        refused(&String::from_utf8(changed).expect("a text"));
    }
    let mut runner = proptest::test_runner::TestRunner::default();
    runner
        .run(&garbage(), |token| {
            refused(&token);
            Ok(())
        })
        .expect("all garbage is refused");
}
