//! Tokens of an issuer that is played here, and what becomes of them.

mod cache;
mod confusion;
mod encrypted;
mod scripted;
mod signing;

use std::sync::Arc;
use std::time::Duration;

use knm_identity_oidc::{OidcOptions, OpenError, USUAL_ALGORITHMS, USUAL_LEEWAY};
use knm_model::Timestamp;
use knm_ports::{IdentityTokenError, IdentityTokens};
use serde_json::{Map, Value, json};

use scripted::{DISCOVERY, KEYS, Reply, ScriptedIssuer};
use signing::TestKey;

const NOW: i64 = 1_900_000_000;
const EVERY_ALGORITHM: [&str; 9] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
];

fn options(issuer: &ScriptedIssuer) -> OidcOptions {
    OidcOptions {
        issuer: issuer.url().to_owned(),
        audiences: vec!["ours".to_owned()],
        algorithms: USUAL_ALGORITHMS.map(str::to_owned).to_vec(),
        leeway: USUAL_LEEWAY,
        ca_file: None,
        request_timeout: Duration::from_secs(5),
    }
}

async fn open(issuer: &ScriptedIssuer) -> Arc<dyn IdentityTokens> {
    knm_identity_oidc::open(options(issuer))
        .await
        .expect("options that can be used")
}

async fn open_for_every_algorithm(issuer: &ScriptedIssuer) -> Arc<dyn IdentityTokens> {
    let options = OidcOptions {
        algorithms: EVERY_ALGORITHM.map(str::to_owned).to_vec(),
        ..options(issuer)
    };
    knm_identity_oidc::open(options)
        .await
        .expect("options that can be used")
}

fn claims(issuer: &ScriptedIssuer) -> Value {
    json!({"iss": issuer.url(), "aud": "ours", "sub": "alice", "iat": NOW - 10, "exp": NOW + 60, "groups": ["sre"]})
}

async fn verify(tokens: &Arc<dyn IdentityTokens>, token: &str) -> Result<Map<String, Value>, IdentityTokenError> {
    let now = Timestamp::from_unix_millis(NOW * 1000).expect("a time");
    tokens.verify(token, now).await
}

/// Why a token is refused; empty if it is accepted.
async fn why(tokens: &Arc<dyn IdentityTokens>, token: &str) -> String {
    match verify(tokens, token).await {
        Ok(_) => String::new(),
        Err(IdentityTokenError::Refused { why }) => why,
        Err(IdentityTokenError::Unavailable { source }) => chain(source.as_ref()),
    }
}

/// Why nobody can tell what a token is worth.
async fn unavailable(tokens: &Arc<dyn IdentityTokens>, token: &str) -> String {
    match verify(tokens, token).await {
        Err(IdentityTokenError::Unavailable { source }) => chain(source.as_ref()),
        other => unreachable!("{other:?}"),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

#[tokio::test]
async fn a_token_of_each_algorithm_is_accepted_and_gives_its_claims() {
    let keys = [
        TestKey::rsa("rsa", 0),
        TestKey::p256("p256"),
        TestKey::p384("p384"),
        TestKey::ed25519("ed"),
    ];
    let issuer = ScriptedIssuer::start(&keys.iter().collect::<Vec<_>>()).await;
    let tokens = open_for_every_algorithm(&issuer).await;
    let [rsa, p256, p384, ed] = &keys;
    for (key, algorithm) in EVERY_ALGORITHM.map(|algorithm| match algorithm {
        "ES256" => (p256, algorithm),
        "ES384" => (p384, algorithm),
        "EdDSA" => (ed, algorithm),
        _ => (rsa, algorithm),
    }) {
        let told = verify(&tokens, &key.token(algorithm, &claims(&issuer))).await;
        assert_eq!(Value::from(told.expect(algorithm)), claims(&issuer), "{algorithm}");
    }
    assert_eq!((issuer.asked(DISCOVERY), issuer.asked(KEYS)), (1, 1));
}

#[tokio::test]
async fn a_token_that_names_the_issuer_is_known_whatever_else_is_wrong_with_it() {
    let key = TestKey::p256("k");
    let issuer = ScriptedIssuer::start(&[&key]).await;
    let tokens = open(&issuer).await;
    let mut expired = claims(&issuer);
    expired["exp"] = json!(1);
    let good = key.token("ES256", &claims(&issuer));
    let unsigned = signing::unsigned(&json!({"alg": "none"}), &claims(&issuer));
    for token in [&good, &key.token("ES256", &expired), &unsigned, &format!("{unsigned}.")] {
        assert!(tokens.names_issuer(token), "{token}");
    }
    let mut other = claims(&issuer);
    other["iss"] = json!("https://kubernetes.default.svc");
    let long = format!("{good}{}", "x".repeat(20_000));
    for token in ["", ".", "a.b.c", &key.token("ES256", &other), &long] {
        assert!(!tokens.names_issuer(token), "{token}");
    }
}

#[tokio::test]
async fn a_token_without_the_name_of_its_key_tries_the_first_ten() {
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"].map(TestKey::p256);
    // One of another kind is not tried.
    let rsa = TestKey::rsa("r", 0);
    let published: Vec<&TestKey> = std::iter::once(&rsa).chain(&keys).collect();
    let issuer = ScriptedIssuer::start(&published).await;
    let tokens = open(&issuer).await;
    let nameless = |key: &TestKey| key.token_with(&json!({"alg": "ES256"}), &claims(&issuer));
    assert_eq!(why(&tokens, &nameless(&keys[9])).await, "");
    let eleventh = why(&tokens, &nameless(&keys[10])).await;
    assert_eq!(eleventh, "no key of the issuer made its signature");
    assert_eq!(why(&tokens, &keys[10].token("ES256", &claims(&issuer))).await, "");
}

#[tokio::test]
async fn each_wrong_claim_is_refused() {
    let key = TestKey::p256("k");
    let issuer = ScriptedIssuer::start(&[&key]).await;
    let tokens = open(&issuer).await;
    for (name, value, expected) in [
        ("iss", json!(format!("{}/", issuer.url())), "it is from another issuer"),
        ("aud", json!(["theirs"]), "it is for somebody else"),
        ("exp", json!(NOW - 31), "it has run out"),
        ("exp", json!(null), "one of its times is no number"),
        ("nbf", json!(NOW + 31), "it is not valid yet"),
        ("iat", json!(NOW + 86_400), "it was made in the future"),
        ("sub", json!(""), "it names nobody"),
    ] {
        let mut changed = claims(&issuer);
        changed[name] = value;
        assert_eq!(why(&tokens, &key.token("ES256", &changed)).await, expected);
    }
    let mut endless = claims(&issuer);
    endless.as_object_mut().expect("claims").remove("exp");
    assert_eq!(
        why(&tokens, &key.token("ES256", &endless)).await,
        "it does not say when it runs out"
    );
}

#[tokio::test]
async fn a_token_runs_out_by_the_time_that_is_given() {
    let key = TestKey::p256("k");
    let issuer = ScriptedIssuer::start(&[&key]).await;
    let tokens = open(&issuer).await;
    let token = key.token("ES256", &claims(&issuer));
    for (after, is_valid) in [
        (0, true),
        (89, true),
        (90, false),
        (-10 - 330, true),
        (-10 - 331, false),
    ] {
        let now = Timestamp::from_unix_millis((NOW + after) * 1000).expect("a time");
        assert_eq!(tokens.verify(&token, now).await.is_ok(), is_valid, "{after} s");
    }
}

#[tokio::test]
async fn options_that_would_let_somebody_in_are_refused_with_the_reason() {
    let issuer = ScriptedIssuer::start(&[]).await;
    let refused = async |change: fn(&mut OidcOptions)| {
        let mut options = options(&issuer);
        change(&mut options);
        match knm_identity_oidc::open(options).await {
            Ok(_) => panic!("it is accepted"),
            Err(error) => chain(&error),
        }
    };
    for (change, expected) in [
        (
            (|options| options.issuer = "http://id.example.com".to_owned()) as fn(&mut OidcOptions),
            "https is needed",
        ),
        (|options| options.issuer = "id.example.com".to_owned(), "not a url"),
        (|options| options.audiences.clear(), "an audience is needed"),
        (|options| options.audiences.push(String::new()), "an audience is needed"),
        (|options| options.algorithms.clear(), "an algorithm is needed"),
        (|options| options.algorithms.push("none".to_owned()), "made by anybody"),
        (
            |options| options.algorithms.push("HS256".to_owned()),
            "HS256 is not allowed",
        ),
        (
            |options| options.algorithms.push("RS1".to_owned()),
            "allowed are RS256, RS384",
        ),
        (|options| options.leeway = Duration::from_secs(601), "at most 600s"),
        (
            |options| options.ca_file = Some("/nowhere/ca.crt".into()),
            "/nowhere/ca.crt cannot be read: ",
        ),
    ] {
        let told = refused(change).await;
        assert!(told.contains(expected), "{told}");
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    for content in [
        "",
        "no certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(file.path(), content).expect("a file");
        let mut options = options(&issuer);
        options.ca_file = Some(file.path().to_owned());
        let Err(error) = knm_identity_oidc::open(options).await else {
            panic!("{content}");
        };
        assert!(matches!(error, OpenError::NotAuthorities { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn an_issuer_that_answers_oddly_is_not_believed() {
    let key = TestKey::p256("k");
    let document = |body: &Value| Reply::Is(200, String::new(), body.to_string());
    let (about, keys) = ("what it says about itself", "its keys");
    let at = |place: &str| json!({"issuer": "ISSUER", "jwks_uri": place});
    let long = json!({"keys": [], "pad": "x".repeat(512 * 1024)});
    for (discovery, published, expected) in [
        (
            Some(document(
                &json!({"issuer": "https://other.example.com", "jwks_uri": "x"}),
            )),
            None,
            "calls itself",
        ),
        (
            Some(document(&json!({"issuer": "ISSUER/", "jwks_uri": "ISSUER/keys"}))),
            None,
            "calls itself",
        ),
        (Some(document(&json!({"jwks_uri": "ISSUER/keys"}))), None, about),
        (Some(document(&json!({"issuer": "ISSUER"}))), None, about),
        (Some(document(&at("http://keys.example.com"))), None, "https is needed"),
        (Some(document(&at("file:///etc/passwd"))), None, "https is needed"),
        (Some(document(&at("keys"))), None, "not a url"),
        (
            Some(Reply::Is(302, "location: /keys\r\n".to_owned(), String::new())),
            None,
            "status 302",
        ),
        (Some(Reply::Is(404, String::new(), String::new())), None, "status 404"),
        (Some(Reply::Is(200, String::new(), "<html>".to_owned())), None, about),
        (Some(Reply::Closes), None, about),
        (None, Some(Reply::Is(500, String::new(), String::new())), "status 500"),
        (None, Some(document(&json!({}))), keys),
        (None, Some(document(&json!([]))), keys),
        (None, Some(document(&long)), "more than 524288 bytes"),
        (
            None,
            Some(document(&json!({"keys": vec![json!({}); 101]}))),
            "too many keys",
        ),
    ] {
        let issuer = ScriptedIssuer::start(&[&key]).await;
        if let Some(Reply::Is(status, headers, body)) = discovery {
            issuer.answer_discovery(Reply::Is(status, headers, body.replace("ISSUER", issuer.url())));
        } else if let Some(reply) = discovery {
            issuer.answer_discovery(reply);
        }
        if let Some(reply) = published {
            issuer.answer_keys(reply);
        }
        let tokens = open(&issuer).await;
        let told = unavailable(&tokens, &key.token("ES256", &claims(&issuer))).await;
        assert!(told.contains(expected), "{expected}: {told}");
        assert_eq!(issuer.asked(DISCOVERY), 1, "{expected}");
    }
}

#[tokio::test]
async fn an_issuer_that_hangs_is_a_timeout() {
    let key = TestKey::p256("k");
    for hangs_at_keys in [false, true] {
        let issuer = ScriptedIssuer::start(&[&key]).await;
        match hangs_at_keys {
            true => issuer.answer_keys(Reply::Hangs),
            false => issuer.answer_discovery(Reply::Hangs),
        }
        let mut options = options(&issuer);
        options.request_timeout = Duration::from_millis(200);
        let tokens = knm_identity_oidc::open(options)
            .await
            .expect("options that can be used");
        let told = unavailable(&tokens, &key.token("ES256", &claims(&issuer))).await;
        assert!(told.contains("did not answer within 200ms"), "{told}");
    }
}
