//! Leases.

use std::time::Duration;

use futures::future::join_all;

use super::StorageFixture;

const LONG: Duration = Duration::from_secs(3_600);
const SHORT: Duration = Duration::from_millis(300);
/// How often it is looked whether a lease ran out, and how long in between.
const LOOKS: usize = 3_000;
const GLANCE: Duration = Duration::from_millis(10);

/// `hold` MUST let exactly one of several owners have a lease that they want at once.
pub async fn of_several_owners_one_gets_the_lease(fixture: &StorageFixture) {
    let one = &fixture.migrated().await.leases;
    let other = &fixture.replica.leases;
    let owners: Vec<String> = (0..8).map(|number| format!("replica-{number}")).collect();

    let results = join_all(owners.iter().enumerate().map(|(turn, owner)| {
        let leases = if turn % 2 == 0 { one } else { other };
        leases.hold("keeper", owner, LONG)
    }))
    .await;

    let held = results.iter().filter(|result| matches!(result, Ok(true))).count();
    assert_eq!(held, 1, "{results:?}");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert!(one.hold("another", "replica-9", LONG).await.expect("it is free"));
}

/// `hold` MUST extend a lease that `owner` holds already.
pub async fn a_lease_is_extended_by_its_owner(fixture: &StorageFixture) {
    let leases = &fixture.migrated().await.leases;
    assert!(leases.hold("keeper", "a", SHORT).await.expect("it is free"));
    // This one runs out at the same time: when it did, the other one would have, too.
    assert!(leases.hold("witness", "a", SHORT).await.expect("it is free"));

    assert!(leases.hold("keeper", "a", LONG).await.expect("it is ours"));

    wait_until_taken(fixture, "witness").await;
    assert!(!leases.hold("keeper", "b", LONG).await.expect("an answer"));
}

/// `hold` MUST take a lease over that ran out.
pub async fn a_lease_that_ran_out_is_taken_over(fixture: &StorageFixture) {
    let leases = &fixture.migrated().await.leases;
    assert!(leases.hold("keeper", "a", SHORT).await.expect("it is free"));

    wait_until_taken(fixture, "keeper").await;

    assert!(!leases.hold("keeper", "a", LONG).await.expect("an answer"));
}

/// `hold` MUST leave a lease that another owner holds as it was.
pub async fn a_lease_of_another_owner_is_left_as_it_was(fixture: &StorageFixture) {
    let leases = &fixture.migrated().await.leases;
    assert!(leases.hold("keeper", "a", SHORT).await.expect("it is free"));

    assert!(!leases.hold("keeper", "b", LONG).await.expect("an answer"));

    assert!(leases.hold("keeper", "a", SHORT).await.expect("it is still ours"));
    wait_until_taken(fixture, "keeper").await;
}

/// `release` gives the lease back.
pub async fn releasing_gives_a_lease_to_others(fixture: &StorageFixture) {
    let leases = &fixture.migrated().await.leases;
    assert!(leases.hold("keeper", "a", LONG).await.expect("it is free"));

    leases.release("keeper", "a").await.expect("it is ours");

    assert!(
        fixture
            .replica
            .leases
            .hold("keeper", "b", LONG)
            .await
            .expect("it is free")
    );
}

/// `release` MUST do nothing if `owner` does not hold it.
pub async fn releasing_what_another_owner_holds_does_nothing(fixture: &StorageFixture) {
    let leases = &fixture.migrated().await.leases;
    leases.release("keeper", "b").await.expect("nobody holds it");
    assert!(leases.hold("keeper", "a", LONG).await.expect("it is free"));

    leases.release("keeper", "b").await.expect("nothing to do");

    assert!(!leases.hold("keeper", "b", LONG).await.expect("an answer"));
    assert!(leases.hold("keeper", "a", LONG).await.expect("it is ours"));
}

/// Waits until the owner `z` gets this lease.
async fn wait_until_taken(fixture: &StorageFixture, name: &str) {
    let mut looks = 0;
    while !fixture.replica.leases.hold(name, "z", LONG).await.expect("an answer") {
        looks += 1;
        assert!(looks < LOOKS, "{name} does not run out");
        tokio::time::sleep(GLANCE).await;
    }
}
