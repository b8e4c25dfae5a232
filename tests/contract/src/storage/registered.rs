//! Clusters that were registered while the service ran.

use knm_model::{ClusterName, RegisteredCluster, SealedSecret, Timestamp};
use knm_ports::StorageError;
use uuid::Uuid;

use super::StorageFixture;

/// More than any case stores.
const MANY: u32 = 100;

/// `list` MUST sort by name, byte by byte.
pub async fn registered_clusters_are_sorted_by_name(fixture: &StorageFixture) {
    let clusters = &fixture.migrated().await.registered;
    assert_eq!(clusters.list().await.expect("an empty list"), []);
    for name in ["b", "ab", "a-c", "1", "a", "a-b", "a0"] {
        clusters.insert(&cluster(name), MANY).await.expect("the name is free");
    }

    let listed = clusters.list().await.expect("the list");

    let names: Vec<&str> = listed.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["1", "a", "a-b", "a-c", "a0", "ab", "b"]);
}

/// `list` MUST return what was stored, its times to the millisecond; so does `find`, on every replica.
pub async fn a_registered_cluster_is_returned_as_it_was_stored(fixture: &StorageFixture) {
    let clusters = &fixture.migrated().await.registered;
    let every_byte: Vec<u8> = (0..=255).collect();
    let stored = RegisteredCluster {
        expires_at: Some(time("2030-02-28T23:59:59.9999999Z")),
        user: "system:serviceaccount:a:ö \"quoted\"".to_owned(),
        sealed: SealedSecret {
            key_id: "key-1".to_owned(),
            nonce: vec![0, 255, 1],
            ciphertext: every_byte,
        },
        ..cluster("prod")
    };
    clusters.insert(&stored, MANY).await.expect("the name is free");
    let plain = cluster("staging");
    clusters.insert(&plain, MANY).await.expect("the name is free");

    let expected = RegisteredCluster {
        expires_at: Some(time("2030-02-28T23:59:59.999Z")),
        ..stored
    };
    let listed = fixture.replica.registered.list().await.expect("the list");
    assert_eq!(listed, [expected.clone(), plain]);
    let found = fixture
        .replica
        .registered
        .find(&expected.name)
        .await
        .expect("a look-up");
    assert_eq!(found, Some(expected));
}

/// `find` MUST return `None` if there is none.
pub async fn a_cluster_that_nobody_registered_is_not_found(fixture: &StorageFixture) {
    let clusters = &fixture.migrated().await.registered;
    clusters.insert(&cluster("prod"), MANY).await.expect("the name is free");
    for absent in ["pro", "prod-eu"] {
        let found = clusters.find(&ClusterName::from_any(absent)).await;
        assert_eq!(found.expect("a look-up"), None, "{absent}");
    }
}

/// `insert` MUST return `Conflict` if the name is taken, and leave the old one as it was.
pub async fn a_taken_name_of_a_registered_cluster_is_a_conflict_and_keeps_the_old_one(fixture: &StorageFixture) {
    let clusters = &fixture.migrated().await.registered;
    let old = cluster("prod");
    clusters.insert(&old, MANY).await.expect("the name is free");

    for most in [MANY, 1] {
        let refused = clusters.insert(&changed(&old), most).await;
        assert!(matches!(refused, Err(StorageError::Conflict { .. })), "{refused:?}");
    }

    assert_eq!(clusters.list().await.expect("the list"), [old]);
}

/// `insert` MUST let exactly one of several writers have a name that they want at once.
pub async fn of_several_writers_one_registers_the_name(fixture: &StorageFixture) {
    let one = &fixture.migrated().await.registered;
    let other = &fixture.replica.registered;
    let wanted = cluster("prod");

    let results = futures::future::join_all((0..8).map(|turn| {
        let clusters = if turn % 2 == 0 { one } else { other };
        clusters.insert(&wanted, MANY)
    }))
    .await;

    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    let refused = |result: &&Result<bool, StorageError>| matches!(result, Err(StorageError::Conflict { .. }));
    assert_eq!(results.iter().filter(refused).count(), 7, "{results:?}");
}

/// `insert` MUST return `false` and add nothing if there are `most` already.
pub async fn no_more_clusters_are_registered_than_may_be(fixture: &StorageFixture) {
    let clusters = &fixture.migrated().await.registered;
    for name in ["a", "b"] {
        assert!(
            clusters.insert(&cluster(name), 2).await.expect("there is room"),
            "{name}"
        );
    }

    let refused = clusters.insert(&cluster("c"), 2).await;

    assert!(matches!(refused, Ok(false)), "{refused:?}");
    assert_eq!(clusters.list().await.expect("the list"), [cluster("a"), cluster("b")]);
}

/// `replace` replaces the one under the same name, which keeps the time of its registration.
pub async fn replacing_a_registered_cluster_keeps_the_time_of_its_registration(fixture: &StorageFixture) {
    let clusters = &fixture.migrated().await.registered;
    let (old, beside) = (cluster("prod"), cluster("staging"));
    clusters.insert(&old, MANY).await.expect("the name is free");
    clusters.insert(&beside, MANY).await.expect("the name is free");

    let wanted = RegisteredCluster {
        registered_at: time("2040-01-01T00:00:00Z"),
        ..changed(&old)
    };
    clusters.replace(&wanted, old.revision).await.expect("it is there");

    assert_eq!(clusters.list().await.expect("the list"), [changed(&old), beside]);
}

/// `replace` MUST return `NotFound` if there is none and add nothing, and `Conflict` and change nothing if its revision is another one.
pub async fn a_revision_that_is_not_there_is_not_replaced(fixture: &StorageFixture) {
    let clusters = &fixture.migrated().await.registered;
    let stored = cluster("staging");
    clusters.insert(&stored, MANY).await.expect("the name is free");

    let absent = clusters.replace(&cluster("prod"), cluster("prod").revision).await;
    let other = clusters.replace(&changed(&stored), changed(&stored).revision).await;

    assert!(matches!(absent, Err(StorageError::NotFound { .. })), "{absent:?}");
    assert!(matches!(other, Err(StorageError::Conflict { .. })), "{other:?}");
    assert_eq!(clusters.list().await.expect("the list"), [stored]);
}

/// `replace` MUST let exactly one of several writers replace a revision.
pub async fn of_several_writers_one_replaces_a_revision(fixture: &StorageFixture) {
    let one = &fixture.migrated().await.registered;
    let other = &fixture.replica.registered;
    let old = cluster("prod");
    one.insert(&old, MANY).await.expect("the name is free");

    let wanted: Vec<RegisteredCluster> = (100..108)
        .map(|number| RegisteredCluster {
            revision: Uuid::from_u128(number),
            ..changed(&old)
        })
        .collect();
    let results = futures::future::join_all(wanted.iter().enumerate().map(|(turn, wanted)| {
        let clusters = if turn % 2 == 0 { one } else { other };
        clusters.replace(wanted, old.revision)
    }))
    .await;

    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
}

/// `reseal` MUST change nothing else.
pub async fn sealing_anew_changes_the_sealed_secret_and_nothing_else(fixture: &StorageFixture) {
    let clusters = &fixture.migrated().await.registered;
    let (stored, beside) = (cluster("prod"), cluster("staging"));
    clusters.insert(&stored, MANY).await.expect("the name is free");
    clusters.insert(&beside, MANY).await.expect("the name is free");

    assert!(clusters.reseal(&stored, &sealed(9)).await.expect("it is tried"));

    let expected = RegisteredCluster {
        sealed: sealed(9),
        ..stored
    };
    assert_eq!(clusters.list().await.expect("the list"), [expected, beside]);
}

/// `reseal` MUST return `false` and change nothing if the revision or the nonce is another one, or if there is none.
pub async fn what_was_changed_meanwhile_is_not_sealed_anew(fixture: &StorageFixture) {
    let clusters = &fixture.migrated().await.registered;
    let stored = cluster("prod");
    clusters.insert(&stored, MANY).await.expect("the name is free");
    let resealed = RegisteredCluster {
        sealed: sealed(8),
        ..stored.clone()
    };
    let replaced = RegisteredCluster {
        revision: Uuid::from_u128(77),
        ..stored.clone()
    };
    for from in [resealed, replaced, cluster("staging")] {
        assert!(!clusters.reseal(&from, &sealed(9)).await.expect("it is tried"));
    }
    assert_eq!(clusters.list().await.expect("the list"), [stored]);
}

/// `remove` MUST return `NotFound` if there is none, `Conflict` if its revision is another one, and remove nothing else.
pub async fn removing_takes_the_known_revision_away_and_nothing_else(fixture: &StorageFixture) {
    let clusters = &fixture.migrated().await.registered;
    let (gone, kept) = (cluster("prod"), cluster("prod-eu"));
    clusters.insert(&gone, MANY).await.expect("the name is free");
    clusters.insert(&kept, MANY).await.expect("the name is free");

    let other = clusters.remove(&gone.name, Uuid::from_u128(77)).await;
    assert!(matches!(other, Err(StorageError::Conflict { .. })), "{other:?}");
    clusters.remove(&gone.name, gone.revision).await.expect("it is there");
    let absent = clusters.remove(&gone.name, gone.revision).await;
    assert!(matches!(absent, Err(StorageError::NotFound { .. })), "{absent:?}");

    assert_eq!(clusters.list().await.expect("the list"), [kept]);
    clusters.insert(&gone, MANY).await.expect("the name is free again");
}

fn cluster(name: &str) -> RegisteredCluster {
    let number = name.bytes().fold(1_u128, |sum, byte| sum * 256 + u128::from(byte));
    RegisteredCluster {
        name: ClusterName::from_any(name),
        revision: Uuid::from_u128(number),
        sealed: sealed(1),
        server: "https://10.0.0.1:6443/".to_owned(),
        user: "ann".to_owned(),
        expires_at: None,
        registered_at: time("2030-01-01T00:00:00.25Z"),
        changed_at: time("2030-01-02T00:00:00Z"),
    }
}

fn changed(cluster: &RegisteredCluster) -> RegisteredCluster {
    RegisteredCluster {
        revision: Uuid::from_u128(cluster.revision.as_u128() + 1),
        sealed: sealed(2),
        server: "https://10.0.0.2:6443/".to_owned(),
        user: "bob".to_owned(),
        expires_at: Some(time("2031-01-01T00:00:00Z")),
        changed_at: time("2030-06-01T12:00:00Z"),
        ..cluster.clone()
    }
}

fn sealed(number: u8) -> SealedSecret {
    SealedSecret {
        key_id: format!("key-{number}"),
        nonce: vec![number; 12],
        ciphertext: vec![number, 0, 255],
    }
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("an RFC 3339 time")
}
