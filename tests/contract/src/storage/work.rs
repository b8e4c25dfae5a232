//! Operations, as those see them who do the work.

use std::collections::BTreeMap;
use std::time::Duration;

use knm_model::{
    Actor, AuditAction, AuditCompletion, AuditFilter, AuditOutcome, AuditRecord, ClusterName, Hold, HoldChange,
    HoldState, NodeName, Operation, OperationLease, OperationProgress, OperationState, OperationStep, OperationTarget,
    StepOutcome, TargetState,
};
use knm_ports::Storage;
use serde_json::Map;
use uuid::Uuid;

use super::StorageFixture;
use super::operations::{event, open, operation, request, target, texts, time};

pub(super) const LONG: Duration = Duration::from_secs(60);
pub(super) const SHORT: Duration = Duration::from_millis(60);
/// A [`SHORT`] lease is over for certain after this.
pub(super) const AFTER_SHORT: Duration = Duration::from_millis(150);

/// `renew` extends the leases of an owner that did not run out, and tells the states of their operations.
pub async fn the_leases_of_operations_are_extended(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    for number in [1, 2] {
        open(store, &operation(number), &[]).await;
    }
    let first = store.work.claim("one", Duration::from_millis(400), 1).await;
    let taken: Vec<_> = first.expect("a claim").into_iter().map(|claim| claim.lease).collect();
    claim(store, "two", LONG).await;
    assert!(
        request(
            store,
            taken[0].operation,
            OperationState::Queued,
            OperationState::Paused
        )
        .await
    );

    let kept = store.work.renew("one", LONG).await.expect("a renewal");

    assert_eq!(kept, [(taken[0].clone(), OperationState::Paused)]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        step(store, &taken[0], |_| {}).await,
        StepOutcome::Written(OperationState::Paused)
    );
}

/// `renew` MUST leave leases alone that ran out.
pub async fn a_lease_of_an_operation_that_ran_out_is_not_extended(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    open(store, &operation(1), &[]).await;
    let taken = claim(store, "one", SHORT).await;
    tokio::time::sleep(AFTER_SHORT).await;
    assert_eq!(store.work.renew("one", LONG).await.expect("a renewal"), []);
    assert_eq!(step(store, &taken[0], |_| {}).await, StepOutcome::LeaseLost);
}

/// `release` gives leases back; it MUST do nothing for a lease that ran out and was taken by somebody else.
pub async fn released_operations_are_free_and_those_of_others_stay(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    open(store, &operation(1), &[]).await;
    let first = claim(store, "one", LONG).await;
    store.work.release(&first).await.expect("a release");
    let second = claim(store, "two", LONG).await;
    assert_eq!(second.len(), 1);
    store.work.release(&first).await.expect("a release of what is not ours");
    still_has(store, &second[0]).await;
}

/// `hand_over` gives leases back; it MUST do nothing for a lease that ran out and was taken by somebody else.
pub async fn operations_that_were_handed_over_are_free_and_those_of_others_stay(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    open(store, &operation(1), &[]).await;
    let first = claim(store, "one", LONG).await;
    store.work.hand_over(&first).await.expect("a hand-over");
    let second = claim(store, "two", LONG).await;
    assert_eq!(second.len(), 1);
    store
        .work
        .hand_over(&first)
        .await
        .expect("a hand-over of what is not ours");
    still_has(store, &second[0]).await;
}

/// Its owner may write, and nobody else gets the operation.
async fn still_has(store: &Storage, lease: &OperationLease) {
    assert_eq!(claim(store, "three", LONG).await, []);
    assert_eq!(
        step(store, lease, |_| {}).await,
        StepOutcome::Written(OperationState::Queued)
    );
}

/// `advance` MUST return `LeaseLost` and change nothing if the lease ran out or has another owner or epoch.
pub async fn a_late_owner_changes_nothing(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    open(store, &operation(1), &[target(0, "a")]).await;
    let late = claim(store, "one", SHORT).await.remove(0);
    tokio::time::sleep(AFTER_SHORT).await;
    let everything = |step: &mut OperationStep| {
        step.transition = Some((OperationState::Queued, OperationState::Running, None));
        step.progress.done = 1;
        step.targets = vec![done(0, "a")];
        step.events = vec![event("late")];
        step.intents = vec![intent(1)];
        step.holds = vec![hold(1)];
    };
    assert_eq!(
        step(store, &late, everything).await,
        StepOutcome::LeaseLost,
        "nobody else has it"
    );
    let owner = claim(store, "two", LONG).await.remove(0);
    assert_eq!(step(store, &late, everything).await, StepOutcome::LeaseLost);
    for foreign in [
        OperationLease {
            owner: "three".to_owned(),
            ..owner.clone()
        },
        OperationLease {
            epoch: owner.epoch + 1,
            ..owner.clone()
        },
        OperationLease {
            operation: Uuid::from_u128(9),
            ..owner
        },
    ] {
        assert_eq!(step(store, &foreign, everything).await, StepOutcome::LeaseLost);
    }
    untouched(store).await;
}

/// `advance` MUST return `OtherState` and change nothing if the transition does not begin at the operation's state.
pub async fn a_step_from_another_state_changes_nothing(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    open(store, &operation(1), &[target(0, "a")]).await;
    let lease = claim(store, "one", LONG).await.remove(0);
    let outcome = step(store, &lease, |step| {
        step.transition = Some((OperationState::Running, OperationState::Succeeded, None));
        step.progress.done = 1;
        step.targets = vec![done(0, "a")];
        step.events = vec![event("late")];
        step.intents = vec![intent(1)];
        step.holds = vec![hold(1)];
    });
    assert_eq!(outcome.await, StepOutcome::OtherState(OperationState::Queued));
    untouched(store).await;
}

/// `advance` writes a whole step; the operation's times are set by its transitions.
pub async fn a_step_is_written_as_a_whole(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    open(store, &operation(1), &[target(0, "a"), target(1, "b")]).await;
    let lease = claim(store, "one", LONG).await.remove(0);
    let begun = step(store, &lease, |step| {
        step.transition = Some((OperationState::Queued, OperationState::Running, None));
        step.events = vec![event("begun"), event("held")];
        step.intents = vec![intent(1)];
        step.holds = vec![hold(1)];
        step.targets = vec![running(0, "a")];
    });
    assert_eq!(begun.await, StepOutcome::Written(OperationState::Running));
    let progress = OperationProgress {
        total: 2,
        done: 1,
        failed: 1,
        skipped: 0,
    };
    let ended = step(store, &lease, |step| {
        step.at = time("2030-01-01T01:00:00Z");
        let why = Some("half of it".to_owned());
        step.transition = Some((OperationState::Running, OperationState::PartlyFailed, why));
        step.progress = progress;
        step.events = vec![event("over")];
        step.completions = vec![(intent(1).id, completion(AuditOutcome::Succeeded))];
        step.hold_states = vec![(hold(1).id, HoldState::Active)];
        step.targets = vec![done(0, "a"), done(1, "b")];
    });
    assert_eq!(ended.await, StepOutcome::Written(OperationState::PartlyFailed));

    let id = lease.operation;
    let expected = Operation {
        state: OperationState::PartlyFailed,
        message: Some("half of it".to_owned()),
        started_at: Some(time("2030-01-01T00:30:00Z")),
        ended_at: Some(time("2030-01-01T01:00:00Z")),
        progress,
        ..operation(1)
    };
    let found = fixture.replica.operations.find(id).await;
    assert_eq!(found.expect("a look-up"), Some(expected));
    let targets = store.operations.targets(id).await.expect("the nodes");
    assert_eq!(targets, [done(0, "a"), done(1, "b")]);
    assert_eq!(texts(store, id, 0).await, ["accepted", "begun", "held", "over"]);
    let record = store
        .audit
        .find(intent(1).id)
        .await
        .expect("a look-up")
        .expect("the record");
    assert_eq!(record.outcome(), Some(AuditOutcome::Succeeded));
    let holds = store.holds.unended().await.expect("the holds");
    assert_eq!((holds.len(), holds[0].state), (1, HoldState::Active));
}

/// `advance` sets the time of the beginning with the first transition to `Running` only.
pub async fn an_operation_begins_once(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    open(store, &operation(1), &[]).await;
    let lease = claim(store, "one", LONG).await.remove(0);
    let moves = |from, to| move |step: &mut OperationStep| step.transition = Some((from, to, None));
    step(store, &lease, moves(OperationState::Queued, OperationState::Running)).await;
    step(store, &lease, moves(OperationState::Running, OperationState::Paused)).await;
    assert!(request(store, lease.operation, OperationState::Paused, OperationState::Running).await);
    let lease = claim(store, "one", LONG).await.remove(0);
    let outcome = step(store, &lease, |step| {
        step.at = time("2030-01-01T02:00:00Z");
        step.transition = Some((OperationState::Running, OperationState::Running, None));
    });
    assert_eq!(outcome.await, StepOutcome::Written(OperationState::Running));
    let found = store
        .operations
        .find(lease.operation)
        .await
        .expect("a look-up")
        .expect("it is there");
    assert_eq!(found.started_at, Some(time("2030-01-01T00:30:00Z")));
}

/// `advance` changes the message of an operation with a transition to the state that it is in, which keeps the lease.
pub async fn a_step_may_change_the_message_alone(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    let begun = Operation {
        state: OperationState::Running,
        started_at: Some(time("2030-01-01T00:00:01Z")),
        ..operation(1)
    };
    open(store, &begun, &[]).await;
    let lease = claim(store, "one", LONG).await.remove(0);
    for message in [Some("it waits".to_owned()), None] {
        let outcome = step(store, &lease, |step| {
            step.transition = Some((OperationState::Running, OperationState::Running, message.clone()));
        });
        assert_eq!(outcome.await, StepOutcome::Written(OperationState::Running));
        let found = store.operations.find(lease.operation).await.expect("a look-up");
        let expected = Operation {
            message,
            ..begun.clone()
        };
        assert_eq!(found, Some(expected));
    }
}

/// `advance` writes all of a step, however much that is.
pub async fn a_step_on_thousands_of_nodes_is_written(fixture: &StorageFixture) {
    const MANY: u128 = 1_200;
    let store = fixture.migrated().await;
    open(store, &operation(1), &[]).await;
    let lease = claim(store, "one", LONG).await.remove(0);
    let begun = step(store, &lease, |step| step.intents = (0..MANY).map(intent).collect());
    assert_eq!(begun.await, StepOutcome::Written(OperationState::Queued));
    let ended = step(store, &lease, |step| {
        let outcome = |number| match number % 2 {
            0 => AuditOutcome::Succeeded,
            _ => AuditOutcome::Failed,
        };
        let completed = (0..MANY).map(|number| (intent(number).id, completion(outcome(number))));
        step.completions = completed.collect();
    });
    assert_eq!(ended.await, StepOutcome::Written(OperationState::Queued));
    for (outcome, numbers) in [(AuditOutcome::Succeeded, 0), (AuditOutcome::Failed, 1)] {
        let filter = AuditFilter {
            outcome: Some(Some(outcome)),
            ..AuditFilter::default()
        };
        let found = store.audit.page(&filter, None, 2_000).await.expect("a page");
        assert_eq!(found.len(), 600);
        assert_eq!(found[599].id, intent(numbers).id);
        assert_eq!(found[0].completion, Some(completion(outcome)));
    }
}

/// `advance` MUST complete audit records that are not completed yet and pass over others; MUST pass over holds and intents whose ids are
/// taken; MUST only move holds forward.
pub async fn what_the_owner_before_wrote_is_passed_over(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    open(store, &operation(1), &[]).await;
    let lease = claim(store, "one", LONG).await.remove(0);
    store.audit.open(&intent(1)).await.expect("the id is free");
    let first = completion(AuditOutcome::Unknown);
    store.audit.complete(intent(1).id, &first).await.expect("it is open");
    store.holds.add(&hold(1)).await.expect("the id is free");
    store
        .holds
        .advance(hold(1).id, HoldState::Active, time("2030-01-01T00:00:00Z"))
        .await
        .expect("it moves");

    let outcome = step(store, &lease, |step| {
        step.intents = vec![intent(1), intent(2)];
        let again = completion(AuditOutcome::Succeeded);
        step.completions = [1, 2, 3].map(|number| (intent(number).id, again.clone())).to_vec();
        step.holds = vec![hold(1), hold(2)];
        step.hold_states = vec![(hold(1).id, HoldState::Pending), (hold(2).id, HoldState::Active)];
    });
    assert_eq!(outcome.await, StepOutcome::Written(OperationState::Queued));

    for (number, expected) in [(1, AuditOutcome::Unknown), (2, AuditOutcome::Succeeded)] {
        let record = store
            .audit
            .find(intent(number).id)
            .await
            .expect("a look-up")
            .expect("the record");
        assert_eq!(record.outcome(), Some(expected), "{number}");
    }
    let holds = store.holds.unended().await.expect("the holds");
    let states: Vec<_> = holds.iter().map(|hold| hold.state).collect();
    assert_eq!(states, [HoldState::Active, HoldState::Active]);
}

/// `advance` MUST change holds as `CordonHolds::change` does, and pass over those that are ended.
pub async fn a_step_changes_holds_that_are_not_ended(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    open(store, &operation(1), &[]).await;
    let lease = claim(store, "one", LONG).await.remove(0);
    let until = Some(time("2030-06-01T00:00:00Z"));
    let ended_outside = |number| HoldChange::EndedOutside(Box::new(intent(number)));

    let first = step(store, &lease, |step| {
        step.holds = vec![hold(1), hold(2)];
        step.hold_changes = vec![
            (hold(1).id, HoldChange::Until(until)),
            (hold(1).id, HoldChange::OverForeign(true)),
            (hold(2).id, ended_outside(2)),
            (hold(3).id, ended_outside(3)),
        ];
    });
    assert_eq!(first.await, StepOutcome::Written(OperationState::Queued));
    let again = step(store, &lease, |step| {
        step.hold_changes = vec![(hold(2).id, ended_outside(4)), (hold(2).id, HoldChange::Until(until))];
    });
    assert_eq!(again.await, StepOutcome::Written(OperationState::Queued));

    let changed = Hold {
        until,
        over_foreign: true,
        ..hold(1)
    };
    assert_eq!(store.holds.unended().await.expect("the holds"), [changed]);
    for (number, is_told) in [(2, true), (3, false), (4, false)] {
        let record = store.audit.find(intent(number).id).await.expect("a look-up");
        assert_eq!(record.is_some(), is_told, "{number}");
    }
}

/// `advance` MUST give the lease back with a transition to a state that does not want work.
pub async fn a_step_to_a_rest_gives_the_lease_back(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    let begun = Operation {
        state: OperationState::Running,
        ..operation(1)
    };
    open(store, &begun, &[]).await;
    let lease = claim(store, "one", LONG).await.remove(0);
    let outcome = step(store, &lease, |step| {
        step.transition = Some((OperationState::Running, OperationState::Paused, None));
    });
    assert_eq!(outcome.await, StepOutcome::Written(OperationState::Paused));
    assert_eq!(store.work.renew("one", LONG).await.expect("a renewal"), []);
    assert_eq!(step(store, &lease, |_| {}).await, StepOutcome::LeaseLost);
    assert!(request(store, lease.operation, OperationState::Paused, OperationState::Running).await);
    let taken = claim(store, "two", LONG).await;
    assert_eq!((taken.len(), taken[0].epoch), (1, lease.epoch + 1));
}

/// `backlog` MUST leave out operations that are ended.
pub async fn what_is_not_over_is_counted(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    assert_eq!(store.work.backlog().await.expect("a count"), Default::default());
    for (number, state) in (1..).zip(OperationState::ALL) {
        let one = Operation {
            state,
            ..operation(number)
        };
        open(store, &one, &[]).await;
    }
    let late = Operation {
        created_at: time("2031-01-01T00:00:00Z"),
        ..operation(99)
    };
    open(store, &late, &[]).await;

    let backlog = store.work.backlog().await.expect("a count");

    let expected = BTreeMap::from([
        (OperationState::Queued, 2),
        (OperationState::Running, 1),
        (OperationState::Paused, 1),
        (OperationState::Cancelling, 1),
    ]);
    assert_eq!(backlog.by_state, expected);
    assert_eq!(backlog.oldest_queued, Some(time("2030-01-01T00:00:00Z")));
}

/// Nothing of a step was written.
async fn untouched(store: &Storage) {
    let id = operation(1).id;
    assert_eq!(store.operations.find(id).await.expect("a look-up"), Some(operation(1)));
    assert_eq!(store.operations.targets(id).await.expect("the nodes"), [target(0, "a")]);
    assert_eq!(texts(store, id, 0).await, ["accepted"]);
    assert_eq!(store.audit.find(intent(1).id).await.expect("a look-up"), None);
    assert_eq!(store.holds.unended().await.expect("the holds"), []);
}

pub(super) async fn claim(store: &Storage, owner: &str, ttl: Duration) -> Vec<OperationLease> {
    let claimed = store.work.claim(owner, ttl, 100).await.expect("a claim");
    claimed.into_iter().map(|claim| claim.lease).collect()
}

pub(super) async fn step(
    store: &Storage,
    lease: &OperationLease,
    change: impl FnOnce(&mut OperationStep),
) -> StepOutcome {
    let mut step = OperationStep::at(time("2030-01-01T00:30:00Z"), OperationProgress::default());
    change(&mut step);
    store.work.advance(lease, &step).await.expect("a step")
}

fn running(place: u32, node: &str) -> OperationTarget {
    OperationTarget {
        state: TargetState::Running,
        started_at: Some(time("2030-01-01T00:30:00Z")),
        ..target(place, node)
    }
}

fn done(place: u32, node: &str) -> OperationTarget {
    OperationTarget {
        state: TargetState::Succeeded,
        ended_at: Some(time("2030-01-01T01:00:00Z")),
        audit: Some(intent(1).id),
        message: Some("fine".to_owned()),
        ..running(place, node)
    }
}

fn intent(number: u128) -> AuditRecord {
    AuditRecord {
        id: Uuid::from_u128(1_000 + number),
        at: time("2030-01-01T00:30:00Z"),
        actor: Actor::service(),
        action: AuditAction::NodeDrain,
        cluster: ClusterName::from_any("demo"),
        node: NodeName::parse("a").ok(),
        operation: Some(operation(1).id),
        request_id: None,
        reason: None,
        ticket: None,
        options: Map::new(),
        completion: None,
    }
}

fn completion(outcome: AuditOutcome) -> AuditCompletion {
    AuditCompletion {
        outcome,
        at: time("2030-01-01T01:00:00Z"),
        error: None,
        before: Map::new(),
        after: Map::new(),
    }
}

fn hold(number: u128) -> Hold {
    Hold {
        id: Uuid::from_u128(2_000 + number),
        cluster: ClusterName::from_any("demo"),
        node: NodeName::parse("a").expect("a name"),
        holder: "ann".to_owned(),
        reason: "drain".to_owned(),
        ticket: None,
        since: time("2030-01-01T00:30:00Z"),
        until: None,
        over_foreign: false,
        state: HoldState::Pending,
    }
}
