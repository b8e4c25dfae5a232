//! How a use case is tested: mocks for what it calls, a clock that is set by hand.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

use std::sync::Arc;
use std::time::Duration;

use knm_domain::Registrations;
use knm_model::{ClusterName, ClusterRegistration, ClusterSource};
use knm_ports::{Clock, ManualClock, MockClusterRegistrations, StorageError};

fn prod() -> ClusterName {
    ClusterName::parse("prod").unwrap()
}

#[tokio::test]
async fn a_changed_source_is_stored_and_the_first_registration_keeps_its_time() {
    let clock = ManualClock::at("2030-01-01T00:00:00Z");
    let known = ClusterRegistration {
        name: prod(),
        source: ClusterSource::Kubeconfig,
        registered_at: clock.now(),
        changed_at: clock.now(),
    };
    clock.advance(Duration::from_secs(3600));
    let wanted = ClusterRegistration {
        source: ClusterSource::InCluster,
        changed_at: clock.now(),
        ..known.clone()
    };

    let mut store = MockClusterRegistrations::new();
    store.expect_find().once().returning(move |_| Ok(Some(known.clone())));
    let stored = wanted.clone();
    store
        .expect_replace()
        .once()
        .withf(move |registration| *registration == stored)
        .returning(|_| Ok(()));

    let registrations = Registrations::new(Arc::new(store), clock);
    let recorded = registrations
        .record(&[(prod(), ClusterSource::InCluster)])
        .await
        .unwrap();

    assert_eq!(recorded, [wanted]);
}

#[tokio::test]
async fn a_cluster_that_is_stored_as_it_is_configured_is_left_alone() {
    let clock = ManualClock::at("2030-01-01T00:00:00Z");
    let known = ClusterRegistration {
        name: prod(),
        source: ClusterSource::Demo,
        registered_at: clock.now(),
        changed_at: clock.now(),
    };
    // Nothing but this is expected: any other call panics.
    let mut store = MockClusterRegistrations::new();
    let found = known.clone();
    store.expect_find().once().returning(move |_| Ok(Some(found.clone())));

    let registrations = Registrations::new(Arc::new(store), clock);
    let recorded = registrations.record(&[(prod(), ClusterSource::Demo)]).await.unwrap();

    assert_eq!(recorded, [known]);
}

#[tokio::test]
async fn a_replica_that_was_faster_is_no_failure() {
    let clock = ManualClock::at("2030-01-01T00:00:00Z");
    let theirs = ClusterRegistration {
        name: prod(),
        source: ClusterSource::Demo,
        registered_at: clock.now(),
        changed_at: clock.now(),
    };
    let mut store = MockClusterRegistrations::new();
    let mut answers = vec![Some(theirs.clone()), None];
    store
        .expect_find()
        .times(2)
        .returning(move |_| Ok(answers.pop().flatten()));
    let conflict = || StorageError::Conflict { what: "cluster" };
    store.expect_insert().once().returning(move |_| Err(conflict()));

    let registrations = Registrations::new(Arc::new(store), clock);
    let recorded = registrations.record(&[(prod(), ClusterSource::Demo)]).await.unwrap();

    assert_eq!(recorded, [theirs]);
}
