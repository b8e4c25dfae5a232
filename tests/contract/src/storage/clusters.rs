//! Registrations of clusters.

use knm_model::{ClusterName, ClusterRegistration, ClusterSource, Timestamp};
use knm_ports::StorageError;

use super::StorageFixture;

/// `list` MUST sort by name, byte by byte.
pub async fn registrations_are_sorted_by_name(fixture: &StorageFixture) {
    let clusters = &fixture.migrated().await.clusters;
    assert_eq!(clusters.list().await.expect("an empty list"), []);
    // A locale would put "ab" between "a-b" and "a-c".
    for name in ["b", "ab", "a-c", "1", "a", "a-b", "a0"] {
        clusters.insert(&registration(name)).await.expect("the name is free");
    }

    let listed = clusters.list().await.expect("the list");

    let names: Vec<&str> = listed.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["1", "a", "a-b", "a-c", "a0", "ab", "b"]);
}

/// `find` MUST return `None` if there is none.
pub async fn an_unknown_cluster_is_not_found(fixture: &StorageFixture) {
    let clusters = &fixture.migrated().await.clusters;
    clusters.insert(&registration("prod")).await.expect("the name is free");
    for absent in ["pro", "prod-eu"] {
        let found = clusters.find(&ClusterName::from_any(absent)).await.expect("a look-up");
        assert_eq!(found, None, "{absent}");
    }
}

/// `find` MUST return what was stored, its times to the millisecond.
pub async fn a_registration_is_returned_as_it_was_stored(fixture: &StorageFixture) {
    let clusters = &fixture.migrated().await.clusters;
    let times = [
        ("2030-02-28T23:59:59.9999999Z", "2030-02-28T23:59:59.999Z"),
        ("1969-12-31T23:59:58.5005Z", "1969-12-31T23:59:58.501Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
    ];
    let longest = "c".repeat(63);
    let cases = [
        ("a", ClusterSource::InCluster, times[0]),
        (longest.as_str(), ClusterSource::Kubeconfig, times[1]),
        ("arn-aws-eks-1", ClusterSource::Demo, times[2]),
    ];
    for (name, source, (given, kept)) in cases {
        let stored = ClusterRegistration {
            name: ClusterName::from_any(name),
            source,
            registered_at: time(given),
            changed_at: time("2031-01-01T00:00:00.001Z"),
        };
        clusters.insert(&stored).await.expect("the name is free");

        let found = clusters.find(&stored.name).await.expect("a look-up");

        let expected = ClusterRegistration {
            registered_at: time(kept),
            ..stored
        };
        assert_eq!(found, Some(expected));
    }
}

/// `insert` MUST return `Conflict` if the name is taken, and leave the old one as it was.
pub async fn a_taken_name_is_a_conflict_and_keeps_the_old_registration(fixture: &StorageFixture) {
    let clusters = &fixture.migrated().await.clusters;
    let old = registration("prod");
    clusters.insert(&old).await.expect("the name is free");

    let refused = clusters.insert(&changed(&old)).await;

    assert!(matches!(refused, Err(StorageError::Conflict { .. })), "{refused:?}");
    assert_eq!(clusters.list().await.expect("the list"), [old]);
}

/// `insert` MUST let exactly one of several writers have a name that they want at once.
pub async fn of_several_writers_one_gets_the_name(fixture: &StorageFixture) {
    let one = &fixture.migrated().await.clusters;
    let other = &fixture.replica.clusters;
    let wanted = registration("prod");

    let results = futures::future::join_all((0..8).map(|turn| {
        let clusters = if turn % 2 == 0 { one } else { other };
        clusters.insert(&wanted)
    }))
    .await;

    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    let refused = |result: &&Result<(), StorageError>| matches!(result, Err(StorageError::Conflict { .. }));
    assert_eq!(results.iter().filter(refused).count(), 7, "{results:?}");
    assert_eq!(one.list().await.expect("the list"), [wanted]);
}

/// `replace` replaces the one under the same name.
pub async fn replacing_changes_the_registration(fixture: &StorageFixture) {
    let clusters = &fixture.migrated().await.clusters;
    let (old, beside) = (registration("prod"), registration("staging"));
    clusters.insert(&old).await.expect("the name is free");
    clusters.insert(&beside).await.expect("the name is free");

    clusters.replace(&changed(&old)).await.expect("it is there");

    assert_eq!(clusters.list().await.expect("the list"), [changed(&old), beside]);
}

/// `replace` MUST return `NotFound` if there is none, and add nothing.
pub async fn replacing_what_is_not_there_is_an_error_and_adds_nothing(fixture: &StorageFixture) {
    let clusters = &fixture.migrated().await.clusters;
    let stored = registration("staging");
    clusters.insert(&stored).await.expect("the name is free");

    let refused = clusters.replace(&registration("prod")).await;

    assert!(matches!(refused, Err(StorageError::NotFound { .. })), "{refused:?}");
    assert_eq!(clusters.list().await.expect("the list"), [stored]);
}

/// `remove` removes the one under this name.
pub async fn removing_takes_only_the_one_away(fixture: &StorageFixture) {
    let clusters = &fixture.migrated().await.clusters;
    let (gone, kept) = (registration("prod"), registration("prod-eu"));
    clusters.insert(&gone).await.expect("the name is free");
    clusters.insert(&kept).await.expect("the name is free");

    clusters.remove(&gone.name).await.expect("it is there");

    assert_eq!(clusters.list().await.expect("the list"), [kept]);
    clusters.insert(&gone).await.expect("the name is free again");
}

/// `remove` MUST return `NotFound` if there is none, and remove nothing else.
pub async fn removing_what_is_not_there_is_an_error_and_removes_nothing(fixture: &StorageFixture) {
    let clusters = &fixture.migrated().await.clusters;
    let stored = registration("prod-eu");
    clusters.insert(&stored).await.expect("the name is free");

    let refused = clusters.remove(&ClusterName::from_any("prod")).await;

    assert!(matches!(refused, Err(StorageError::NotFound { .. })), "{refused:?}");
    assert_eq!(clusters.list().await.expect("the list"), [stored]);
}

/// All state is in the store: what one replica stored, every other one reads.
pub async fn another_replica_sees_what_was_stored(fixture: &StorageFixture) {
    let stored = registration("prod");
    fixture
        .migrated()
        .await
        .clusters
        .insert(&stored)
        .await
        .expect("the name is free");

    let found = fixture.replica.clusters.find(&stored.name).await.expect("a look-up");

    assert_eq!(found, Some(stored));
}

pub(super) fn registration(name: &str) -> ClusterRegistration {
    ClusterRegistration {
        name: ClusterName::from_any(name),
        source: ClusterSource::Kubeconfig,
        registered_at: time("2030-01-01T00:00:00.25Z"),
        changed_at: time("2030-01-02T00:00:00Z"),
    }
}

fn changed(registration: &ClusterRegistration) -> ClusterRegistration {
    ClusterRegistration {
        source: ClusterSource::InCluster,
        changed_at: time("2030-06-01T12:00:00Z"),
        ..registration.clone()
    }
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("an RFC 3339 time")
}
