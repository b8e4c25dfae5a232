//! How often an issuer is asked, and what holds while it cannot be.

use std::time::Duration;

use serde_json::json;

use crate::scripted::{DISCOVERY, KEYS, Reply, ScriptedIssuer};
use crate::signing::TestKey;
use crate::{claims, open, unavailable, why};

const UNKNOWN: &str = "no key of the issuer made its signature";

/// Lets time pass for everybody here, without waiting for it.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
    // Whoever waited for an earlier moment is woken before, and gets to what it waits for next. Timers count milliseconds and keep no order
    // within one, so one more is not enough.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until the issuer was asked so often.
async fn until_asked(issuer: &ScriptedIssuer, times: usize) {
    while issuer.asked(DISCOVERY) < times {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_new_key_is_found_and_an_old_one_forgotten() {
    let (old, new) = (TestKey::p256("old"), TestKey::rsa("new", 0));
    let issuer = ScriptedIssuer::start(&[&old]).await;
    let tokens = open(&issuer).await;
    let (by_old, by_new) = (
        old.token("ES256", &claims(&issuer)),
        new.token("RS256", &claims(&issuer)),
    );
    assert_eq!(why(&tokens, &by_old).await, "");
    issuer.publish(&[&new]);
    // It was asked a moment ago.
    assert_eq!(why(&tokens, &by_new).await, UNKNOWN);
    assert_eq!(issuer.asked(KEYS), 1);
    pass(10).await;
    assert_eq!(why(&tokens, &by_new).await, "");
    assert_eq!(issuer.asked(KEYS), 2);
    assert_eq!(why(&tokens, &by_old).await, UNKNOWN);
    assert_eq!(issuer.asked(KEYS), 2);
}

#[tokio::test]
async fn a_storm_of_unknown_keys_is_one_question_in_ten_seconds() {
    let key = TestKey::p256("k");
    let issuer = ScriptedIssuer::start(&[&key]).await;
    let tokens = open(&issuer).await;
    assert_eq!(why(&tokens, &key.token("ES256", &claims(&issuer))).await, "");
    let storm = async || {
        let garbage: Vec<String> = (0..200)
            .map(|number| key.token_with(&json!({"alg": "ES256", "kid": format!("k{number}")}), &claims(&issuer)))
            .collect();
        let mut asking = tokio::task::JoinSet::new();
        for token in garbage {
            let tokens = std::sync::Arc::clone(&tokens);
            asking.spawn(async move { why(&tokens, &token).await });
        }
        asking.join_all().await
    };
    for round in 1..4 {
        for told in storm().await {
            assert_eq!(told, UNKNOWN);
        }
        assert_eq!((issuer.asked(DISCOVERY), issuer.asked(KEYS)), (round, round));
        pass(10).await;
    }
}

#[tokio::test]
async fn tokens_that_are_worth_nothing_anyway_ask_nobody() {
    let key = TestKey::p256("k");
    let issuer = ScriptedIssuer::start(&[&key]).await;
    let tokens = open(&issuer).await;
    until_asked(&issuer, 1).await;
    assert_eq!(why(&tokens, &key.token("ES256", &claims(&issuer))).await, "");
    pass(10).await;
    let stranger = TestKey::p256("stranger");
    let mut expired = claims(&issuer);
    expired["exp"] = json!(1);
    assert_eq!(why(&tokens, &stranger.token("ES256", &expired)).await, "it has run out");
    // A signature that is wrong is no key that is not known.
    let forged = TestKey::p256("k").token("ES256", &claims(&issuer));
    assert_eq!(why(&tokens, &forged).await, "its signature is wrong");
    pass(1).await;
    assert_eq!(issuer.asked(DISCOVERY), 1);
}

#[tokio::test]
async fn callers_who_leave_neither_stop_a_question_nor_cause_more() {
    let (old, new) = (TestKey::p256("old"), TestKey::p256("new"));
    let issuer = ScriptedIssuer::start(&[&old]).await;
    let tokens = open(&issuer).await;
    assert_eq!(why(&tokens, &old.token("ES256", &claims(&issuer))).await, "");
    issuer.publish(&[&old, &new]);
    pass(10).await;
    let by_new = new.token("ES256", &claims(&issuer));
    for _ in 0..50 {
        tokio::select! {
            biased;
            _ = why(&tokens, &by_new) => {}
            () = tokio::task::yield_now() => {}
        }
    }
    until_asked(&issuer, 2).await;
    while !why(&tokens, &by_new).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(issuer.asked(DISCOVERY), 2);
}

#[tokio::test]
async fn an_issuer_that_is_away_from_the_beginning_is_tried_again() {
    let key = TestKey::p256("k");
    let issuer = ScriptedIssuer::start(&[&key]).await;
    issuer.answer_keys(Reply::Closes);
    let tokens = open(&issuer).await;
    let token = key.token("ES256", &claims(&issuer));
    let told = unavailable(&tokens, &token).await;
    assert!(told.contains("cannot be reached for its keys"), "{told}");
    // Nobody waits, and nobody asks, while it is left alone.
    for _ in 0..10 {
        unavailable(&tokens, &token).await;
    }
    assert_eq!(issuer.asked(DISCOVERY), 1);
    // What is refused without keys still is.
    assert_eq!(why(&tokens, "garbage").await, "it has no parts");
    issuer.publish(&[&key]);
    pass(10).await;
    assert_eq!(why(&tokens, &token).await, "");
    assert_eq!(issuer.asked(DISCOVERY), 2);
}

#[tokio::test]
async fn an_issuer_that_comes_back_is_noticed_though_nobody_asks() {
    let key = TestKey::p256("k");
    let issuer = ScriptedIssuer::start(&[&key]).await;
    issuer.answer_discovery(Reply::Closes);
    let tokens = open(&issuer).await;
    for round in 1..5 {
        until_asked(&issuer, round).await;
        // This one waits for the end of that question and asks none of its own.
        unavailable(&tokens, &key.token("ES256", &claims(&issuer))).await;
        pass(10).await;
        assert_eq!(issuer.asked(DISCOVERY), round);
        pass(20).await;
    }
}

#[tokio::test]
async fn keys_stay_while_the_issuer_is_away() {
    let key = TestKey::p256("k");
    let issuer = ScriptedIssuer::start(&[&key]).await;
    let tokens = open(&issuer).await;
    let token = key.token("ES256", &claims(&issuer));
    assert_eq!(why(&tokens, &token).await, "");
    issuer.answer_discovery(Reply::Hangs);
    pass(10).await;
    pass(590).await;
    until_asked(&issuer, 2).await;
    // While it is being asked, too.
    assert_eq!(why(&tokens, &token).await, "");
    pass(5).await;
    let stranger = TestKey::p256("x").token("ES256", &claims(&issuer));
    for (round, reply) in [
        Reply::Closes,
        Reply::Is(200, String::new(), "{}".to_owned()),
        Reply::Is(503, String::new(), String::new()),
    ]
    .into_iter()
    .enumerate()
    {
        issuer.answer_discovery(reply);
        // This one waits for the end of the question. It is refused then, and no failure of ours: anybody can name a key.
        assert_eq!(why(&tokens, &stranger).await, UNKNOWN);
        assert_eq!(why(&tokens, &token).await, "");
        pass(10).await;
        pass(20).await;
        until_asked(&issuer, 3 + round).await;
    }
}

#[tokio::test]
async fn keys_count_for_a_day_without_a_word_of_the_issuer() {
    let key = TestKey::p256("k");
    let issuer = ScriptedIssuer::start(&[&key]).await;
    let tokens = open(&issuer).await;
    let token = key.token("ES256", &claims(&issuer));
    assert_eq!(why(&tokens, &token).await, "");
    issuer.answer_keys(Reply::Closes);
    pass(10).await;
    pass(590).await;
    until_asked(&issuer, 2).await;
    assert_eq!(why(&tokens, &token).await, "");
    pass(86_400 - 610).await;
    assert_eq!(why(&tokens, &token).await, "");
    pass(610).await;
    let told = unavailable(&tokens, &token).await;
    assert!(told.contains("cannot be reached for its keys"), "{told}");
    issuer.publish(&[&key]);
    pass(10).await;
    assert_eq!(why(&tokens, &token).await, "");
}

#[tokio::test]
async fn keys_are_read_again_though_all_are_known_and_an_empty_list_withdraws_them() {
    let key = TestKey::p256("k");
    let issuer = ScriptedIssuer::start(&[&key]).await;
    let tokens = open(&issuer).await;
    let token = key.token("ES256", &claims(&issuer));
    assert_eq!(why(&tokens, &token).await, "");
    issuer.publish(&[]);
    pass(10).await;
    assert_eq!(why(&tokens, &token).await, "");
    pass(590).await;
    while why(&tokens, &token).await != UNKNOWN {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(issuer.asked(KEYS), 2);
}

#[tokio::test]
async fn nobody_asks_any_more_when_the_last_user_is_gone() {
    let key = TestKey::p256("k");
    let issuer = ScriptedIssuer::start(&[&key]).await;
    let token = key.token("ES256", &claims(&issuer));
    let tokens = open(&issuer).await;
    assert_eq!(why(&tokens, &token).await, "");
    drop(tokens);
    pass(10).await;
    pass(3_600).await;
    // Whoever still asked would have begun before this one.
    assert_eq!(why(&open(&issuer).await, &token).await, "");
    assert_eq!(issuer.asked(DISCOVERY), 2);
}
