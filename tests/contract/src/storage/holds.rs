//! Holds on nodes.

use futures::future::join_all;
use knm_model::{AuditFilter, ClusterName, Hold, HoldChange, HoldState, NodeName, Timestamp};
use knm_ports::{CordonHolds, StorageError};
use uuid::Uuid;

use super::StorageFixture;
use super::audit::intent;

/// `of_node` MUST return what was stored, sorted by id.
pub async fn the_holds_of_a_node_are_returned_as_they_were_stored(fixture: &StorageFixture) {
    let holds = &fixture.migrated().await.holds;
    let plain = hold(2, "a");
    let full = Hold {
        holder: "ann \"the\" admin".to_owned(),
        reason: "Festplatte – 100% voll_".to_owned(),
        ticket: Some("OPS-1".to_owned()),
        until: Some(time("2031-01-01T00:00:00.001Z")),
        over_foreign: true,
        state: HoldState::Active,
        ..hold(1, "a")
    };
    let elsewhere = Hold {
        cluster: ClusterName::from_any("other"),
        ..hold(3, "a")
    };
    for one in [&plain, &full, &elsewhere, &hold(4, "b")] {
        holds.add(one).await.expect("the id is free");
    }

    assert_eq!(of_node(holds.as_ref(), "a").await, [full, plain]);
    assert_eq!(of_node(holds.as_ref(), "c").await, []);
}

/// `add` MUST return `Conflict` if the id is taken, and leave the old one as it was.
pub async fn a_taken_id_of_a_hold_is_a_conflict_and_keeps_the_old_one(fixture: &StorageFixture) {
    let holds = &fixture.migrated().await.holds;
    holds.add(&hold(1, "a")).await.expect("the id is free");

    let again = holds.add(&hold(1, "b")).await;

    assert!(matches!(again, Err(StorageError::Conflict { .. })), "{again:?}");
    assert_eq!(holds.unended().await.expect("the holds"), [hold(1, "a")]);
}

/// `of_node` and `unended` MUST leave ended holds out.
pub async fn ended_holds_are_left_out(fixture: &StorageFixture) {
    let holds = &fixture.migrated().await.holds;
    for number in [3, 1, 2] {
        holds.add(&hold(number, "a")).await.expect("the id is free");
    }

    assert!(advance(holds.as_ref(), 2, HoldState::Ended).await);

    assert_eq!(of_node(holds.as_ref(), "a").await, [hold(1, "a"), hold(3, "a")]);
    assert_eq!(holds.unended().await.expect("the holds"), [hold(1, "a"), hold(3, "a")]);
}

/// `is_known` MUST know each that was added.
pub async fn each_hold_is_known_also_when_it_is_over(fixture: &StorageFixture) {
    let holds = &fixture.migrated().await.holds;
    holds.add(&hold(1, "a")).await.expect("the id is free");
    holds.add(&hold(2, "a")).await.expect("the id is free");
    advance(holds.as_ref(), 2, HoldState::Ended).await;

    for (number, expected) in [(1, true), (2, true), (3, false)] {
        let known = holds.is_known(Uuid::from_u128(number)).await.expect("an answer");
        assert_eq!(known, expected, "{number}");
    }
}

/// `advance` MUST only move a hold forward, and return `false` otherwise or if there is no such hold.
pub async fn a_hold_only_moves_forward(fixture: &StorageFixture) {
    let holds = &fixture.migrated().await.holds;
    holds.add(&hold(1, "a")).await.expect("the id is free");
    for (state, moves) in [
        (HoldState::Pending, false),
        (HoldState::Active, true),
        (HoldState::Active, false),
        (HoldState::Pending, false),
        (HoldState::Ended, true),
        (HoldState::Pending, false),
        (HoldState::Ended, false),
    ] {
        assert_eq!(advance(holds.as_ref(), 1, state).await, moves, "{state:?}");
        assert!(!advance(holds.as_ref(), 2, state).await, "there is no such hold");
    }
    assert_eq!(of_node(holds.as_ref(), "a").await, []);
}

/// `advance` MUST let exactly one of several callers move a hold to the same state.
pub async fn of_several_callers_one_moves_a_hold(fixture: &StorageFixture) {
    fixture
        .migrated()
        .await
        .holds
        .add(&hold(1, "a"))
        .await
        .expect("the id is free");
    let callers = (0..8).map(|caller| {
        let store = if caller % 2 == 0 {
            &fixture.storage
        } else {
            &fixture.replica
        };
        advance(store.holds.as_ref(), 1, HoldState::Active)
    });

    let moved = join_all(callers).await;

    assert_eq!(moved.iter().filter(|moved| **moved).count(), 1, "{moved:?}");
}

/// `change` MUST change neither ended holds nor any other hold.
pub async fn only_a_hold_that_is_not_ended_is_changed(fixture: &StorageFixture) {
    let holds = fixture.migrated().await.holds.as_ref();
    for number in [1, 2] {
        holds.add(&hold(number, "a")).await.expect("the id is free");
    }
    let until = Some(time("2030-06-01T00:00:00Z"));

    for changes in [HoldChange::Until(until), HoldChange::OverForeign(true)] {
        assert!(change(holds, 1, changes.clone()).await);
        assert!(!change(holds, 3, changes).await, "there is no such hold");
    }
    let changed = Hold {
        until,
        over_foreign: true,
        ..hold(1, "a")
    };
    assert_eq!(of_node(holds, "a").await, [changed, hold(2, "a")]);
    assert!(change(holds, 2, HoldChange::Until(None)).await);
    assert!(change(holds, 1, HoldChange::OverForeign(false)).await);
    let changed = Hold { until, ..hold(1, "a") };
    assert_eq!(of_node(holds, "a").await, [changed, hold(2, "a")]);

    assert!(advance(holds, 1, HoldState::Ended).await);
    for changes in [HoldChange::Until(None), HoldChange::OverForeign(true), ended_outside(1)] {
        assert!(!change(holds, 1, changes).await, "it is over");
    }
    assert_eq!(of_node(holds, "a").await, [hold(2, "a")]);
}

/// `change` MUST add the record of `EndedOutside` if it ends the hold, and only then: both or neither.
pub async fn a_hold_that_is_ended_outside_is_told_with_its_end_or_not_at_all(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    let holds = store.holds.as_ref();
    for number in [1, 2] {
        holds.add(&hold(number, "a")).await.expect("the id is free");
    }
    store.audit.open(&intent(9)).await.expect("the id is free");

    let taken = holds.change(Uuid::from_u128(1), &ended_outside(9)).await;
    assert!(matches!(taken, Err(StorageError::Conflict { .. })), "{taken:?}");
    assert_eq!(
        of_node(holds, "a").await,
        [hold(1, "a"), hold(2, "a")],
        "nothing was told"
    );

    assert!(change(holds, 1, ended_outside(1)).await);
    assert!(!change(holds, 1, ended_outside(2)).await, "it is over");
    assert!(!change(holds, 3, ended_outside(3)).await, "there is no such hold");
    assert_eq!(of_node(holds, "a").await, [hold(2, "a")]);
    let told = |number| store.audit.find(intent(number).id);
    assert_eq!(told(1).await.expect("a look-up"), Some(intent(1)));
    for number in [2, 3] {
        assert_eq!(told(number).await.expect("a look-up"), None, "{number}");
    }
}

/// `change` MUST let exactly one of several callers end a hold.
pub async fn of_several_callers_one_tells_that_a_hold_was_ended_outside(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    store.holds.add(&hold(1, "a")).await.expect("the id is free");
    let callers = (1..=8).map(|caller| {
        let store = if caller % 2 == 0 {
            &fixture.storage
        } else {
            &fixture.replica
        };
        change(store.holds.as_ref(), 1, ended_outside(caller))
    });

    let ended = join_all(callers).await;

    assert_eq!(ended.iter().filter(|ended| **ended).count(), 1, "{ended:?}");
    let told = store.audit.page(&AuditFilter::default(), None, 100).await;
    assert_eq!(told.expect("the records").len(), 1);
}

async fn of_node(holds: &dyn CordonHolds, node: &str) -> Vec<Hold> {
    let node = NodeName::parse(node).expect("a name");
    holds
        .of_node(&ClusterName::from_any("demo"), &node)
        .await
        .expect("the holds of a node")
}

async fn change(holds: &dyn CordonHolds, number: u128, change: HoldChange) -> bool {
    holds.change(Uuid::from_u128(number), &change).await.expect("a change")
}

/// With a record of this number.
fn ended_outside(number: u64) -> HoldChange {
    HoldChange::EndedOutside(Box::new(intent(number)))
}

async fn advance(holds: &dyn CordonHolds, number: u128, state: HoldState) -> bool {
    let at = time("2030-01-02T00:00:00Z");
    holds
        .advance(Uuid::from_u128(number), state, at)
        .await
        .expect("a change")
}

fn hold(number: u128, node: &str) -> Hold {
    Hold {
        id: Uuid::from_u128(number),
        cluster: ClusterName::from_any("demo"),
        node: NodeName::parse(node).expect("a name"),
        holder: "ann".to_owned(),
        reason: "disk errors".to_owned(),
        ticket: None,
        since: time("2030-01-01T00:00:00Z"),
        until: None,
        over_foreign: false,
        state: HoldState::Pending,
    }
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("an RFC 3339 time")
}
