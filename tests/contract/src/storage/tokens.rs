//! API tokens.

use std::collections::BTreeSet;

use futures::future::join_all;
use knm_model::{ApiToken, ClusterName, Role, RoleGrant, Timestamp, TokenId};
use knm_ports::{ApiTokens, StorageError};

use super::StorageFixture;

/// `list` MUST sort by the time at which they were made, the latest first, and those of the same time by id; revoked ones and those that
/// have run out are among them.
pub async fn tokens_are_sorted_by_their_time_the_latest_first_and_then_by_id(fixture: &StorageFixture) {
    let tokens = &fixture.migrated().await.tokens;
    assert_eq!(tokens.list().await.expect("an empty list"), []);
    let made = |number, at| ApiToken {
        created_at: time(at),
        ..token(number)
    };
    let has_run_out = ApiToken {
        expires_at: time("2029-01-01T00:00:00.001Z"),
        ..made(1, "2029-01-01T00:00:00Z")
    };
    // The times of 2, 3 and 0x10 are one in the store.
    for token in [
        made(3, "2030-01-01T00:00:00.0011Z"),
        has_run_out,
        made(4, "2030-01-01T00:00:00.002Z"),
        made(0x10, "2030-01-01T00:00:00.0012Z"),
        made(2, "2030-01-01T00:00:00.0013Z"),
        made(5, "2030-01-01T00:00:00Z"),
    ] {
        insert(tokens, &token).await;
    }
    revoke(tokens, id(4)).await;

    let listed = fixture.replica.tokens.list().await.expect("the list");

    let ids: Vec<TokenId> = listed.iter().map(|token| token.id).collect();
    assert_eq!(ids, [4, 2, 3, 0x10, 5, 1].map(id));
    assert!(listed[0].revoked.is_some(), "{listed:?}");
}

/// `find` MUST return `None` if there is none.
pub async fn an_unknown_token_is_not_found(fixture: &StorageFixture) {
    let tokens = &fixture.migrated().await.tokens;
    insert(tokens, &token(1)).await;
    for absent in [0, 2, 0x0100_0000_0000_0000, u64::MAX] {
        assert_eq!(tokens.find(id(absent)).await.expect("a look-up"), None, "{absent}");
    }
}

/// `find` MUST return what was stored, its times to the millisecond.
pub async fn a_token_is_returned_as_it_was_stored(fixture: &StorageFixture) {
    let tokens = &fixture.migrated().await.tokens;
    let clusters = |names: &[&str]| Some(names.iter().map(|name| ClusterName::from_any(name)).collect());
    let grants = [
        grant(Role::Viewer, false, None, None),
        grant(Role::Operator, true, clusters(&["prod-eu", "demo"]), None),
        grant(Role::Admin, false, None, Some("pool in (gpu, cpu),!spot")),
        // It allows nothing, and must not come back as one without limits.
        grant(Role::Operator, false, clusters(&[]), Some("pool=gpu")),
    ];
    for (number, grant) in (0..).zip(grants) {
        let full = ApiToken {
            id: id(u64::MAX - number),
            name: format!("{}{number}", "n".repeat(62)),
            hash: [0xff - number as u8; 32],
            grant,
            created_at: time("1969-12-31T23:59:58.5005Z"),
            created_by: "ada \"the\" admin \u{1f525} 100%".to_owned(),
            expires_at: time("2030-02-28T23:59:59.9999999Z"),
            revoked: Some((time("2030-01-01T00:00:01.0019Z"), "bob's \u{2603}".to_owned())),
            last_used_at: Some(time("2030-01-01T00:00:00.0009Z")),
        };
        let plain = ApiToken {
            revoked: None,
            last_used_at: None,
            ..ApiToken {
                grant: full.grant.clone(),
                ..token(number)
            }
        };
        insert(tokens, &full).await;
        insert(tokens, &plain).await;

        let expected = ApiToken {
            created_at: time("1969-12-31T23:59:58.501Z"),
            expires_at: time("2030-02-28T23:59:59.999Z"),
            revoked: Some((time("2030-01-01T00:00:01.001Z"), "bob's \u{2603}".to_owned())),
            last_used_at: Some(time("2030-01-01T00:00:00Z")),
            ..full
        };
        for expected in [expected, plain] {
            let found = fixture.replica.tokens.find(expected.id).await;
            assert_eq!(found.expect("a look-up"), Some(expected));
        }
    }
}

/// `insert` MUST return `Conflict` if the id is taken, and leave that one as it was.
pub async fn a_taken_id_of_a_token_is_a_conflict_and_keeps_the_old_one(fixture: &StorageFixture) {
    let tokens = &fixture.migrated().await.tokens;
    insert(tokens, &token(1)).await;
    let other = ApiToken {
        name: "another-name".to_owned(),
        hash: [9; 32],
        ..token(1)
    };

    refused(tokens.insert(&other).await);
    assert_eq!(tokens.list().await.expect("the list"), [token(1)]);

    // An id is never given away again.
    revoke(tokens, id(1)).await;
    let before = tokens.list().await.expect("the list");
    refused(tokens.insert(&other).await);
    assert_eq!(tokens.list().await.expect("the list"), before);
}

/// `insert` MUST return `Conflict` if the name is taken by one that is not revoked, and leave that one as it was.
pub async fn a_taken_name_of_a_token_is_a_conflict_and_keeps_the_old_one(fixture: &StorageFixture) {
    let tokens = &fixture.migrated().await.tokens;
    // That it has run out changes nothing: it is not revoked.
    let old = ApiToken {
        expires_at: time("2000-01-01T00:00:00Z"),
        ..token(1)
    };
    insert(tokens, &old).await;
    let same_name = |number| ApiToken {
        name: old.name.clone(),
        created_at: time("2031-01-01T00:00:00Z"),
        ..token(number)
    };

    refused(tokens.insert(&same_name(2)).await);
    refused(fixture.replica.tokens.insert(&same_name(3)).await);

    let other_case = ApiToken {
        name: old.name.to_uppercase(),
        ..token(4)
    };
    insert(tokens, &other_case).await;
    assert_eq!(tokens.list().await.expect("the list"), [old, other_case]);
}

/// `insert` MUST let exactly one of several writers have a name that they want at once.
pub async fn of_several_tokens_one_gets_the_name(fixture: &StorageFixture) {
    let one = &fixture.migrated().await.tokens;
    let other = &fixture.replica.tokens;
    let wanted: Vec<ApiToken> = (0..8)
        .map(|number| ApiToken {
            name: "ci".to_owned(),
            ..token(number)
        })
        .collect();

    let results = join_all(wanted.iter().enumerate().map(|(turn, token)| {
        let tokens = if turn % 2 == 0 { one } else { other };
        tokens.insert(token)
    }))
    .await;

    let winner = results.iter().position(Result::is_ok).expect("one of them");
    for (turn, result) in results.into_iter().enumerate() {
        if turn != winner {
            refused(result);
        }
    }
    assert_eq!(one.list().await.expect("the list"), [wanted[winner].clone()]);
}

/// `insert` MUST accept the name of one that is revoked.
pub async fn the_name_of_a_revoked_token_is_free_again(fixture: &StorageFixture) {
    let tokens = &fixture.migrated().await.tokens;
    let named = |number| ApiToken {
        name: "ci".to_owned(),
        ..token(number)
    };
    for number in [1, 2] {
        insert(tokens, &named(number)).await;
        revoke(tokens, id(number)).await;
    }

    insert(&fixture.replica.tokens, &named(3)).await;

    refused(tokens.insert(&named(4)).await);
    let listed = tokens.list().await.expect("the list");
    let shown: Vec<_> = listed.iter().map(|token| (token.id, token.revoked.is_some())).collect();
    assert_eq!(shown, [(id(1), true), (id(2), true), (id(3), false)]);
}

/// `revoke` revokes one, and leaves the others as they were.
pub async fn revoking_a_token_says_when_and_by_whom(fixture: &StorageFixture) {
    let tokens = &fixture.migrated().await.tokens;
    for number in [1, 2] {
        insert(tokens, &token(number)).await;
    }

    let at = time("2030-03-01T00:00:00.0019Z");
    let revoked = fixture.replica.tokens.revoke(id(1), at, "ada \"the\" admin").await;

    revoked.expect("it is there");
    let expected = ApiToken {
        revoked: Some((time("2030-03-01T00:00:00.001Z"), "ada \"the\" admin".to_owned())),
        ..token(1)
    };
    assert_eq!(tokens.list().await.expect("the list"), [expected, token(2)]);
}

/// `revoke` MUST return `NotFound` if there is none.
pub async fn revoking_an_unknown_token_is_an_error(fixture: &StorageFixture) {
    let tokens = &fixture.migrated().await.tokens;
    insert(tokens, &token(1)).await;

    let unknown = tokens.revoke(id(2), time("2030-03-01T00:00:00Z"), "ann").await;

    assert!(matches!(unknown, Err(StorageError::NotFound { .. })), "{unknown:?}");
    assert_eq!(tokens.list().await.expect("the list"), [token(1)]);
}

/// `revoke` MUST leave one that is revoked already as it is, and succeed.
pub async fn revoking_a_token_again_changes_nothing(fixture: &StorageFixture) {
    let tokens = &fixture.migrated().await.tokens;
    insert(tokens, &token(1)).await;
    revoke(tokens, id(1)).await;
    let before = tokens.find(id(1)).await.expect("a look-up");

    for at in ["2029-01-01T00:00:00Z", "2031-01-01T00:00:00Z"] {
        let again = fixture.replica.tokens.revoke(id(1), time(at), "bob").await;
        again.expect("it is there");
    }

    assert_eq!(tokens.find(id(1)).await.expect("a look-up"), before);
}

/// `used` MUST NOT set the time back.
pub async fn the_last_use_of_a_token_only_moves_forward(fixture: &StorageFixture) {
    let tokens = &fixture.migrated().await.tokens;
    for number in [1, 2] {
        insert(tokens, &token(number)).await;
    }
    let uses = [
        ("2030-01-02T00:00:00.0019Z", "2030-01-02T00:00:00.001Z"),
        ("2030-01-01T00:00:00Z", "2030-01-02T00:00:00.001Z"),
        ("2030-01-02T00:00:00.001Z", "2030-01-02T00:00:00.001Z"),
        ("2030-01-02T00:01:00Z", "2030-01-02T00:01:00Z"),
    ];
    for (at, expected) in uses {
        fixture.replica.tokens.used(id(1), time(at)).await.expect("a note");
        let expected = ApiToken {
            last_used_at: Some(time(expected)),
            ..token(1)
        };
        assert_eq!(tokens.list().await.expect("the list"), [expected, token(2)], "{at}");
    }
}

/// `used` MUST do nothing if there is none.
pub async fn the_use_of_an_unknown_token_changes_nothing(fixture: &StorageFixture) {
    let tokens = &fixture.migrated().await.tokens;
    insert(tokens, &token(1)).await;
    let noted = tokens.used(id(2), time("2030-01-02T00:00:00Z")).await;
    noted.expect("nothing to do");
    assert_eq!(tokens.list().await.expect("the list"), [token(1)]);
}

async fn insert(tokens: &std::sync::Arc<dyn ApiTokens>, token: &ApiToken) {
    tokens.insert(token).await.expect("its id and its name are free");
}

async fn revoke(tokens: &std::sync::Arc<dyn ApiTokens>, id: TokenId) {
    let revoked = tokens.revoke(id, time("2030-02-01T00:00:00Z"), "ann").await;
    revoked.expect("it is there");
}

fn refused(result: Result<(), StorageError>) {
    assert!(matches!(result, Err(StorageError::Conflict { .. })), "{result:?}");
}

pub(super) fn token(number: u64) -> ApiToken {
    ApiToken {
        id: id(number),
        name: format!("token-{number}"),
        hash: [7; 32],
        grant: grant(Role::Viewer, false, None, None),
        created_at: time("2030-01-01T00:00:00.25Z"),
        created_by: "ann".to_owned(),
        expires_at: time("2030-04-01T00:00:00Z"),
        revoked: None,
        last_used_at: None,
    }
}

fn id(number: u64) -> TokenId {
    TokenId::new(number.to_be_bytes())
}

fn grant(role: Role, force: bool, clusters: Option<BTreeSet<ClusterName>>, nodes: Option<&str>) -> RoleGrant {
    RoleGrant {
        role,
        force,
        clusters,
        nodes: nodes.map(str::to_owned),
    }
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("an RFC 3339 time")
}
