//! The audit log.

use futures::future::join_all;
use knm_model::{
    Actor, ActorKind, AuditAction, AuditCompletion, AuditFilter, AuditOutcome, AuditRecord, ClusterName, NodeName,
    Timestamp,
};
use knm_ports::{AuditLog, StorageError};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::StorageFixture;

mod pages;

pub use pages::*;

/// Records are written one per second from here on.
const FIRST: &str = "2030-01-01T00:00:00Z";

/// `find` MUST return what was stored, its times to the millisecond.
pub async fn a_record_is_returned_as_it_was_stored(fixture: &StorageFixture) {
    let audit = &fixture.migrated().await.audit;
    let full = AuditRecord {
        at: time("2030-02-28T23:59:59.9999999Z"),
        actor: Actor {
            name: some("ada@example.org"),
            kind: ActorKind::Outside,
            address: some("2001:db8::1"),
        },
        action: AuditAction::NodeDrain,
        operation: Some(Uuid::from_u128(77)),
        request_id: some("0192f0c1"),
        reason: some("it's \"hot\": 100 % \u{1f525}\nsee below"),
        ticket: some("OPS-1"),
        options: object(json!({"force": true, "grace": null, "list": [1, -2.5, "x"], "deep": {"\u{0}": "\u{7f}ü"}})),
        ..intent(1)
    };
    let bare = AuditRecord {
        actor: Actor::service(),
        node: None,
        reason: None,
        ..intent(2)
    };
    let completed = AuditRecord {
        completion: Some(AuditCompletion {
            at: time("2030-01-01T00:00:07.0009Z"),
            ..completion()
        }),
        ..intent(3)
    };
    for record in [&full, &bare, &completed] {
        audit.open(record).await.expect("the id is free");
    }

    let kept = AuditRecord {
        at: time("2030-02-28T23:59:59.999Z"),
        ..full
    };
    assert_eq!(audit.find(kept.id).await.expect("a look-up"), Some(kept));
    assert_eq!(audit.find(bare.id).await.expect("a look-up"), Some(bare));
    let kept = AuditRecord {
        completion: Some(AuditCompletion {
            at: time("2030-01-01T00:00:07Z"),
            ..completion()
        }),
        ..completed
    };
    let found = fixture.replica.audit.find(kept.id).await.expect("a look-up");
    assert_eq!(found, Some(kept), "another replica sees it, too");
}

/// `find` MUST return `None` if there is none.
pub async fn an_unknown_record_is_not_found(fixture: &StorageFixture) {
    let audit = &fixture.migrated().await.audit;
    audit.open(&intent(1)).await.expect("the id is free");
    assert_eq!(audit.find(intent(2).id).await.expect("a look-up"), None);
}

/// `open` MUST return `Conflict` if the id is taken, and leave the old record as it was.
pub async fn a_taken_id_is_a_conflict_and_keeps_the_old_record(fixture: &StorageFixture) {
    let audit = &fixture.migrated().await.audit;
    let old = intent(1);
    audit.open(&old).await.expect("the id is free");

    let refused = audit
        .open(&AuditRecord {
            action: AuditAction::NodeDrain,
            ..old.clone()
        })
        .await;

    assert!(matches!(refused, Err(StorageError::Conflict { .. })), "{refused:?}");
    assert_eq!(all(&**audit).await, [old]);
}

/// `complete` writes what came of an intent.
pub async fn completing_adds_what_came_of_it_and_changes_nothing_else(fixture: &StorageFixture) {
    let audit = &fixture.migrated().await.audit;
    let (done, beside) = (intent(1), intent(2));
    audit.open(&done).await.expect("the id is free");
    audit.open(&beside).await.expect("the id is free");
    let failed = AuditCompletion {
        outcome: AuditOutcome::Failed,
        error: some("the cluster refuses"),
        after: Map::new(),
        ..completion()
    };

    audit.complete(done.id, &failed).await.expect("it is there");

    let expected = AuditRecord {
        completion: Some(failed),
        ..done
    };
    assert_eq!(all(&**audit).await, [beside, expected]);
}

/// `complete` MUST return `NotFound` if there is no such record.
pub async fn completing_what_is_not_there_is_an_error(fixture: &StorageFixture) {
    let audit = &fixture.migrated().await.audit;
    audit.open(&intent(1)).await.expect("the id is free");

    let refused = audit.complete(intent(2).id, &completion()).await;

    assert!(matches!(refused, Err(StorageError::NotFound { .. })), "{refused:?}");
    assert_eq!(all(&**audit).await, [intent(1)]);
}

/// `complete` MUST return `Conflict` if it was completed already, and leave it as it was.
pub async fn completing_again_is_a_conflict_and_keeps_the_first_outcome(fixture: &StorageFixture) {
    let audit = &fixture.migrated().await.audit;
    audit.open(&intent(1)).await.expect("the id is free");
    audit.complete(intent(1).id, &completion()).await.expect("it is there");

    let refused = audit.complete(intent(1).id, &unknown()).await;

    assert!(matches!(refused, Err(StorageError::Conflict { .. })), "{refused:?}");
    assert_eq!(all(&**audit).await, [completed(1)]);
}

/// `complete` MUST let exactly one of several writers complete a record at once.
pub async fn of_several_who_complete_a_record_one_does(fixture: &StorageFixture) {
    let one = &fixture.migrated().await.audit;
    let other = &fixture.replica.audit;
    one.open(&intent(1)).await.expect("the id is free");

    let (id, came_of_it) = (intent(1).id, completion());
    let results = join_all((0..8).map(|turn| {
        let audit = if turn % 2 == 0 { one } else { other };
        audit.complete(id, &came_of_it)
    }))
    .await;

    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    let refused = |result: &&Result<(), StorageError>| matches!(result, Err(StorageError::Conflict { .. }));
    assert_eq!(results.iter().filter(refused).count(), 7, "{results:?}");
}

/// `give_up` MUST leave completed records and those of operations as they were.
pub async fn giving_up_completes_old_intents_without_an_operation_and_nothing_else(fixture: &StorageFixture) {
    let audit = &fixture.migrated().await.audit;
    let of_operation = AuditRecord {
        operation: Some(Uuid::from_u128(5)),
        ..intent(3)
    };
    for record in [&intent(1), &completed(2), &of_operation, &intent(4), &intent(5)] {
        audit.open(record).await.expect("the id is free");
    }

    let given_up = audit.give_up(intent(5).at, &unknown()).await.expect("the change");

    assert_eq!(given_up, 2);
    let lost = |number| AuditRecord {
        completion: Some(unknown()),
        ..intent(number)
    };
    assert_eq!(
        all(&**audit).await,
        [intent(5), lost(4), of_operation, completed(2), lost(1)]
    );
    assert_eq!(audit.give_up(intent(5).at, &completion()).await.expect("the change"), 0);
}

/// `remove_before` removes records that were written before `at`, the oldest first, at most `limit`.
pub async fn removing_takes_the_oldest_records_away_up_to_its_limit(fixture: &StorageFixture) {
    let audit = &fixture.migrated().await.audit;
    for number in [4, 2, 5, 1, 3] {
        audit.open(&completed(number)).await.expect("the id is free");
    }

    assert_eq!(audit.remove_before(intent(4).at, 2).await.expect("the change"), 2);
    assert_eq!(numbers(&all(&**audit).await), [5, 4, 3]);
    assert_eq!(audit.remove_before(intent(4).at, 2).await.expect("the change"), 1);
    assert_eq!(audit.remove_before(intent(4).at, 2).await.expect("the change"), 0);
    assert_eq!(numbers(&all(&**audit).await), [5, 4]);
}

/// `remove_before` MUST keep records whose outcome is not known yet.
pub async fn records_without_an_outcome_are_never_removed(fixture: &StorageFixture) {
    let audit = &fixture.migrated().await.audit;
    audit.open(&intent(1)).await.expect("the id is free");
    audit.open(&completed(2)).await.expect("the id is free");

    assert_eq!(audit.remove_before(intent(9).at, 10).await.expect("the change"), 1);

    assert_eq!(all(&**audit).await, [intent(1)]);
}

/// An intent, the later the larger `number`.
pub(super) fn intent(number: u64) -> AuditRecord {
    let at = time(FIRST).plus(std::time::Duration::from_secs(number));
    let millis = u64::try_from(at.unix_millis()).expect("a time after 1970");
    AuditRecord {
        id: uuid::Builder::from_unix_timestamp_millis(millis, &[7; 10]).into_uuid(),
        at,
        actor: Actor::anonymous(some("192.0.2.7")),
        action: AuditAction::NodeCordon,
        cluster: ClusterName::from_any("prod"),
        node: Some(node("worker-1")),
        operation: None,
        request_id: None,
        reason: some("disk"),
        ticket: None,
        options: Map::new(),
        completion: None,
    }
}

/// What came of it: it worked.
pub(super) fn completion() -> AuditCompletion {
    AuditCompletion {
        outcome: AuditOutcome::Succeeded,
        at: time("2030-01-02T00:00:00.125Z"),
        error: None,
        before: object(json!({"unschedulable": false})),
        after: object(json!({"unschedulable": true})),
    }
}

fn completed(number: u64) -> AuditRecord {
    AuditRecord {
        completion: Some(completion()),
        ..intent(number)
    }
}

fn unknown() -> AuditCompletion {
    AuditCompletion {
        outcome: AuditOutcome::Unknown,
        error: some("gone"),
        before: Map::new(),
        after: Map::new(),
        ..completion()
    }
}

async fn all(audit: &dyn AuditLog) -> Vec<AuditRecord> {
    audit.page(&AuditFilter::default(), None, 1_000).await.expect("a page")
}

fn numbers(records: &[AuditRecord]) -> Vec<u64> {
    records.iter().map(number_of).collect()
}

fn number_of(record: &AuditRecord) -> u64 {
    record.at.since(time(FIRST)).as_secs()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn node(name: &str) -> NodeName {
    NodeName::parse(name).expect("a node's name")
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("an RFC 3339 time")
}
