//! Requests under keys.

use futures::future::join_all;
use knm_model::{KeptAnswer, KeyClaim, KnownRequest, Timestamp};
use knm_ports::IdempotencyKeys;

use super::StorageFixture;

/// Nothing is expired or abandoned at this time.
const LONG_AGO: &str = "2000-01-01T00:00:00Z";

/// `claim` MUST let exactly one of several requests claim a key that they want at once.
pub async fn of_several_requests_one_claims_the_key(fixture: &StorageFixture) {
    fixture.migrated().await;
    let requests = (0..8).map(|turn| {
        let store = if turn % 2 == 0 {
            &fixture.storage
        } else {
            &fixture.replica
        };
        claim(store.keys.as_ref(), request("ann", "k", 1))
    });

    let known = join_all(requests).await;

    assert_eq!(known.iter().filter(|known| known.is_none()).count(), 1, "{known:?}");
}

/// `claim` MUST tell the fingerprint and the answer of the request that claimed the key before, and `answer` keeps it.
pub async fn a_claimed_key_tells_the_request_and_its_answer(fixture: &StorageFixture) {
    let keys = fixture.migrated().await.keys.as_ref();
    assert_eq!(claim(keys, request("ann", "k", 1)).await, None);
    let running = known(1, None);
    assert_eq!(claim(keys, request("ann", "k", 2)).await, running);

    keys.answer(&request("ann", "k", 1), &answer())
        .await
        .expect("an answer is kept");

    assert_eq!(claim(keys, request("ann", "k", 1)).await, known(1, Some(answer())));
}

/// `claim` MUST keep keys of different callers apart.
pub async fn keys_of_different_callers_have_nothing_to_do_with_each_other(fixture: &StorageFixture) {
    let keys = fixture.migrated().await.keys.as_ref();
    for (caller, key) in [("ann", "k"), ("bob", "k"), ("ann", "K"), ("ann", "l")] {
        assert_eq!(claim(keys, request(caller, key, 1)).await, None, "{caller} {key}");
    }
}

/// `claim` MUST give a key away anew if it was claimed before `expired_before`, with all that was known forgotten.
pub async fn an_expired_key_is_given_away_anew(fixture: &StorageFixture) {
    let keys = fixture.migrated().await.keys.as_ref();
    let old = request("ann", "k", 1);
    assert_eq!(claim(keys, old.clone()).await, None);
    keys.answer(&old, &answer()).await.expect("an answer is kept");
    let new = KeyClaim {
        at: time("2030-01-02T00:00:00.001Z"),
        ..request("ann", "k", 2)
    };

    let expired = keys.claim(&new, time("2030-01-01T00:00:00.001Z"), time(LONG_AGO)).await;

    assert_eq!(expired.expect("a claim"), None);
    assert_eq!(claim(keys, new).await, known(2, None));
}

/// `claim` MUST give a key without an answer to a request with the same fingerprint anew if it was claimed before `abandoned_before`.
pub async fn an_abandoned_key_is_given_to_the_same_request_only(fixture: &StorageFixture) {
    let keys = fixture.migrated().await.keys.as_ref();
    assert_eq!(claim(keys, request("ann", "k", 1)).await, None);
    let later = |fingerprint| KeyClaim {
        at: time("2030-01-01T01:00:00Z"),
        ..request("ann", "k", fingerprint)
    };
    let abandoned_before = time("2030-01-01T00:00:01Z");

    let other = keys
        .claim(&later(2), time(LONG_AGO), abandoned_before)
        .await
        .expect("a claim");
    let same = keys
        .claim(&later(1), time(LONG_AGO), abandoned_before)
        .await
        .expect("a claim");
    let again = keys
        .claim(&later(1), time(LONG_AGO), abandoned_before)
        .await
        .expect("a claim");

    assert_eq!((other, same, again), (known(1, None), None, known(1, None)));
    keys.answer(&later(1), &answer()).await.expect("an answer is kept");
    let much_later = time("2040-01-01T00:00:00Z");
    let answered = keys
        .claim(&later(1), time(LONG_AGO), much_later)
        .await
        .expect("a claim");
    assert_eq!(answered, known(1, Some(answer())), "what was answered is not abandoned");
}

/// `answer` and `forget` MUST do nothing if the key was given away anew meanwhile.
pub async fn who_comes_late_changes_nothing_under_a_key(fixture: &StorageFixture) {
    let keys = fixture.migrated().await.keys.as_ref();
    let late = request("ann", "k", 1);
    assert_eq!(claim(keys, late.clone()).await, None);
    let now = KeyClaim {
        at: time("2030-01-02T00:00:00Z"),
        ..late.clone()
    };
    let given = keys.claim(&now, now.at, now.at).await.expect("a claim");
    assert_eq!(given, None);

    keys.answer(&late, &answer()).await.expect("nothing to do");
    keys.forget(&late).await.expect("nothing to do");

    assert_eq!(claim(keys, late).await, known(1, None));
}

/// `forget` lets the request be sent again, and MUST do nothing to a key that has an answer.
pub async fn a_forgotten_key_is_free_and_an_answered_one_is_not_forgotten(fixture: &StorageFixture) {
    let keys = fixture.migrated().await.keys.as_ref();
    let first = request("ann", "k", 1);
    assert_eq!(claim(keys, first.clone()).await, None);
    keys.forget(&first).await.expect("it is forgotten");
    assert_eq!(claim(keys, first.clone()).await, None);
    keys.answer(&first, &answer()).await.expect("an answer is kept");
    keys.forget(&first).await.expect("nothing to do");
    assert_eq!(claim(keys, first).await, known(1, Some(answer())));
}

/// `remove_before` MUST keep the keys that were claimed later.
pub async fn only_old_keys_are_removed(fixture: &StorageFixture) {
    let keys = fixture.migrated().await.keys.as_ref();
    for (key, at) in [("old", "2030-01-01T00:00:00Z"), ("new", "2030-01-01T00:00:01Z")] {
        let one = KeyClaim {
            at: time(at),
            ..request("ann", key, 1)
        };
        assert_eq!(claim(keys, one).await, None);
    }

    assert_eq!(
        keys.remove_before(time("2030-01-01T00:00:01Z"))
            .await
            .expect("a number"),
        1
    );

    assert_eq!(claim(keys, request("ann", "new", 1)).await, known(1, None));
    assert_eq!(claim(keys, request("ann", "old", 1)).await, None);
}

async fn claim(keys: &dyn IdempotencyKeys, claim: KeyClaim) -> Option<KnownRequest> {
    let never = time(LONG_AGO);
    keys.claim(&claim, never, never).await.expect("a claim")
}

fn request(caller: &str, key: &str, fingerprint: u8) -> KeyClaim {
    KeyClaim {
        caller: caller.to_owned(),
        key: key.to_owned(),
        fingerprint: [fingerprint; 32],
        at: time("2030-01-01T00:00:00Z"),
    }
}

fn known(fingerprint: u8, answer: Option<KeptAnswer>) -> Option<KnownRequest> {
    Some(KnownRequest {
        fingerprint: [fingerprint; 32],
        answer,
    })
}

fn answer() -> KeptAnswer {
    KeptAnswer {
        status: 200,
        content_type: Some("application/json".to_owned()),
        etag: None,
        body: b"{\"a\":1}".to_vec(),
    }
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("an RFC 3339 time")
}
