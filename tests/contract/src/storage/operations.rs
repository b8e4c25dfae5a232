//! Operations, as callers see them.

use futures::future::join_all;
use knm_model::{
    Actor, ActorKind, Authority, ClusterName, EventKind, KubernetesIdentity, NewEvent, NodeName, Operation,
    OperationFilter, OperationKind, OperationProgress, OperationState, OperationTarget, Share, Strategy, TargetDetail,
    TargetState, Timestamp, TokenId,
};
use knm_ports::{Storage, StorageError};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::StorageFixture;

/// `open` MUST store all of it; `find` and `targets` MUST return what was stored, their times to the millisecond.
pub async fn an_operation_is_returned_as_it_was_stored(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    let full = Operation {
        kind: OperationKind::Taint,
        actor: Actor {
            name: Some("ada \"the\" admin".to_owned()),
            kind: ActorKind::Anonymous,
            address: Some("2001:db8::1".to_owned()),
        },
        request_id: Some("r-1".to_owned()),
        reason: Some("100% \u{1f525}".to_owned()),
        ticket: Some("OPS-1".to_owned()),
        options: object(json!({"add": [{"key": "a", "effect": "NoSchedule"}], "deep": {"x": [1, null, -2.5]}})),
        strategy: Strategy {
            max_unavailable: Some(Share::Percent(25)),
            max_failures: None,
            ..Strategy::of(OperationKind::Drain)
        },
        dry_run: true,
        retry_of: Some(Uuid::from_u128(77)),
        idempotency: Some([0xff; 32]),
        message: Some("why".to_owned()),
        started_at: Some(time("2030-01-01T00:00:01.0019Z")),
        ended_at: Some(time("2030-01-01T00:00:02Z")),
        state: OperationState::PartlyFailed,
        excused: 3,
        progress: OperationProgress {
            total: 9,
            done: 4,
            failed: 3,
            skipped: 2,
        },
        ..operation(1)
    };
    let targets = [
        OperationTarget {
            state: TargetState::Failed,
            message: Some("no".to_owned()),
            started_at: Some(time("2030-01-01T00:00:01.0019Z")),
            ended_at: Some(time("2030-01-01T00:00:02Z")),
            audit: Some(Uuid::from_u128(5)),
            hold: Some(Uuid::from_u128(6)),
            zone: Some("zone-\u{1f525}".to_owned()),
            detail: TargetDetail::of(&json!({"pods": [{"name": "web-1"}]})).expect("an object"),
            ..target(0, "b")
        },
        target(1, "a"),
    ];
    open(store, &full, &targets).await;

    let kept = Operation {
        started_at: Some(time("2030-01-01T00:00:01.001Z")),
        ..full
    };
    let found = fixture.replica.operations.find(kept.id).await;
    assert_eq!(found.expect("a look-up"), Some(kept.clone()));
    let mut expected = targets.to_vec();
    expected[0].started_at = Some(time("2030-01-01T00:00:01.001Z"));
    assert_eq!(store.operations.targets(kept.id).await.expect("the nodes"), expected);
}

/// `find` and `page` MUST return by what an operation may be done as it was stored.
pub async fn by_what_an_operation_may_be_done_is_returned_as_it_was_stored(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let somebody = KubernetesIdentity {
        user: "oidc:ada \"the\" admin".to_owned(),
        uid: "5b1d2c0e-3f60-4a2b-8f1d-7c9e0a6b4d21".to_owned(),
        groups: texts(&["ops \u{1f525}", "system:authenticated"]),
        extra: [("example.org/scopes".to_owned(), texts(&["a", "", "b\\c"]))].into(),
    };
    let claims =
        json!({"groups": ["ops", "it's"], "admin": true, "level": -2.5, "org": {"unit": null, "\u{e4}": [[]]}});
    let authorities = [
        Authority::Open,
        Authority::Service,
        Authority::Token(TokenId::new([0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, 0])),
        Authority::Kubernetes(somebody),
        Authority::Kubernetes(KubernetesIdentity::default()),
        Authority::Oidc {
            subject: "248289761001 100% 'x'".to_owned(),
            claims: object(claims),
            exp: Some(1_900_000_000),
        },
    ];
    let asked: Vec<Operation> = (1..)
        .zip(authorities)
        .map(|(number, authority)| Operation {
            authority,
            ..operation(number)
        })
        .collect();
    for operation in &asked {
        open(store, operation, &[]).await;
    }

    let mut paged = store
        .operations
        .page(&OperationFilter::default(), None, 100)
        .await
        .expect("a page");

    paged.reverse();
    assert_eq!(paged, asked);
    for operation in asked {
        let found = fixture.replica.operations.find(operation.id).await;
        assert_eq!(found.expect("a look-up"), Some(operation));
    }
}

/// `find` MUST return `None` if there is none.
pub async fn an_unknown_operation_is_not_found(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    open(store, &operation(1), &[]).await;
    let unknown = Uuid::from_u128(2);
    assert_eq!(store.operations.find(unknown).await.expect("a look-up"), None);
    assert_eq!(store.operations.targets(unknown).await.expect("no nodes"), []);
    assert_eq!(
        store.operations.events_after(unknown, 0, 9).await.expect("no events"),
        []
    );
}

/// `open` MUST return `Conflict` if the id is taken, and leave the old one as it was; MUST store all of it or nothing.
pub async fn a_taken_id_of_an_operation_is_a_conflict_and_nothing_is_stored(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    open(store, &operation(1), &[target(0, "a")]).await;
    let other = Operation {
        kind: OperationKind::Label,
        ..operation(1)
    };

    let again = store
        .operations
        .open(&other, &[target(0, "b"), target(1, "c")], &event("again"))
        .await;

    assert!(matches!(again, Err(StorageError::Conflict { .. })), "{again:?}");
    assert_eq!(
        store.operations.find(other.id).await.expect("a look-up"),
        Some(operation(1))
    );
    assert_eq!(
        store.operations.targets(other.id).await.expect("the nodes"),
        [target(0, "a")]
    );
    assert_eq!(texts(store, other.id, 0).await, ["accepted"]);
}

/// An operation may have thousands of nodes.
pub async fn an_operation_with_thousands_of_nodes_is_stored(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    let targets: Vec<_> = (0..5_000)
        .map(|place| target(place, &format!("node-{place}")))
        .collect();
    open(store, &operation(1), &targets).await;
    assert_eq!(
        store.operations.targets(operation(1).id).await.expect("the nodes"),
        targets
    );
}

/// `page` MUST return exactly those that have everything that the filter names, each once, the latest id first.
pub async fn a_page_of_operations_has_what_the_filter_lets_through(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    let elsewhere = |place, node| OperationTarget {
        cluster: ClusterName::from_any("other"),
        ..target(place, node)
    };
    let drain = operation(1);
    let label = Operation {
        kind: OperationKind::Label,
        state: OperationState::Running,
        created_at: time("2030-01-01T00:01:00Z"),
        ..operation(2)
    };
    let named = Operation {
        actor: Actor {
            name: Some("ada".to_owned()),
            ..Actor::anonymous(None)
        },
        state: OperationState::Failed,
        created_at: time("2030-01-01T00:02:00Z"),
        ..operation(3)
    };
    open(store, &drain, &[target(0, "a"), elsewhere(1, "b")]).await;
    open(store, &label, &[target(0, "a"), target(1, "b"), target(2, "c")]).await;
    open(store, &named, &[elsewhere(0, "a")]).await;
    let all = OperationFilter::default();
    let node = |name: &str| Some(NodeName::parse(name).expect("a name"));
    let cluster = |name: &str| Some(ClusterName::from_any(name));
    for (filter, expected) in [
        (all.clone(), vec![3, 2, 1]),
        (
            OperationFilter {
                node: node("a"),
                ..all.clone()
            },
            vec![3, 2, 1],
        ),
        (
            OperationFilter {
                node: node("b"),
                ..all.clone()
            },
            vec![2, 1],
        ),
        (
            OperationFilter {
                cluster: cluster("demo"),
                ..all.clone()
            },
            vec![2, 1],
        ),
        // Both of the same node.
        (
            OperationFilter {
                cluster: cluster("demo"),
                node: node("b"),
                ..all.clone()
            },
            vec![2],
        ),
        (
            OperationFilter {
                kind: Some(OperationKind::Label),
                ..all.clone()
            },
            vec![2],
        ),
        (
            OperationFilter {
                states: vec![OperationState::Queued, OperationState::Failed],
                ..all.clone()
            },
            vec![3, 1],
        ),
        (
            OperationFilter {
                actor: Some("ada".to_owned()),
                ..all.clone()
            },
            vec![3],
        ),
        (
            OperationFilter {
                actor: Some("anonymous".to_owned()),
                ..all.clone()
            },
            vec![2, 1],
        ),
        (
            OperationFilter {
                from: Some(time("2030-01-01T00:01:00Z")),
                ..all.clone()
            },
            vec![3, 2],
        ),
        (
            OperationFilter {
                until: Some(time("2030-01-01T00:01:00Z")),
                ..all.clone()
            },
            vec![1],
        ),
    ] {
        assert_eq!(page(store, &filter, None, 10).await, expected, "{filter:?}");
    }
    assert_eq!(page(store, &all, None, 2).await, [3, 2]);
    assert_eq!(page(store, &all, Some(2), 2).await, [1]);
}

/// `request` MUST return `false` and change nothing if it is in another state, or if there is none; MUST take the message away.
pub async fn a_wish_moves_an_operation_from_the_state_that_it_names(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    let paused = Operation {
        state: OperationState::Paused,
        message: Some("too many failed".to_owned()),
        ..operation(1)
    };
    open(store, &paused, &[]).await;

    let id = paused.id;
    assert!(!request(store, id, OperationState::Running, OperationState::Paused).await);
    assert!(
        !request(
            store,
            Uuid::from_u128(9),
            OperationState::Paused,
            OperationState::Running
        )
        .await
    );
    assert_eq!(
        store.operations.find(id).await.expect("a look-up"),
        Some(paused.clone())
    );
    assert!(request(store, id, OperationState::Paused, OperationState::Cancelling).await);

    let expected = Operation {
        state: OperationState::Cancelling,
        message: None,
        ..paused
    };
    assert_eq!(store.operations.find(id).await.expect("a look-up"), Some(expected));
    assert_eq!(texts(store, id, 0).await, ["accepted", "cancelling"]);
}

/// `request` MUST let exactly one of several callers move it.
pub async fn of_several_wishes_one_moves_an_operation(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    open(store, &operation(1), &[]).await;
    let wishes = (0..8).map(|caller| {
        let store = if caller % 2 == 0 {
            &fixture.storage
        } else {
            &fixture.replica
        };
        request(store, operation(1).id, OperationState::Queued, OperationState::Paused)
    });
    let moved = join_all(wishes).await;
    assert_eq!(moved.iter().filter(|moved| **moved).count(), 1, "{moved:?}");
    assert_eq!(texts(store, operation(1).id, 0).await.len(), 2);
}

/// `request` MUST excuse the nodes that failed until now when it moves the operation to `Running`.
pub async fn resuming_excuses_what_failed_until_then(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    let paused = Operation {
        state: OperationState::Paused,
        progress: OperationProgress {
            total: 9,
            failed: 4,
            ..OperationProgress::default()
        },
        excused: 1,
        ..operation(1)
    };
    open(store, &paused, &[]).await;
    assert!(request(store, paused.id, OperationState::Paused, OperationState::Running).await);
    let found = store
        .operations
        .find(paused.id)
        .await
        .expect("a look-up")
        .expect("it is there");
    assert_eq!(found.excused, 4);
    assert!(request(store, paused.id, OperationState::Running, OperationState::Paused).await);
    let found = store
        .operations
        .find(paused.id)
        .await
        .expect("a look-up")
        .expect("it is there");
    assert_eq!(found.excused, 4);
}

/// `request` MUST set the operation's `started_at` to the time of the event when it moves it to `Running` for the first time.
pub async fn an_operation_that_was_paused_before_it_began_begins_when_it_is_resumed(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    open(store, &operation(1), &[]).await;
    let id = operation(1).id;
    let moved = async |from, to, at: &str| {
        let event = NewEvent {
            at: time(at),
            ..event("asked")
        };
        assert!(store.operations.request(id, from, to, &event).await.expect("a wish"));
        let found = store.operations.find(id).await.expect("a look-up");
        found.expect("it is there").started_at
    };
    let (queued, running, paused) = (OperationState::Queued, OperationState::Running, OperationState::Paused);
    assert_eq!(moved(queued, paused, "2030-01-01T00:00:01Z").await, None);
    let started = Some(time("2030-01-01T00:00:02.003Z"));
    assert_eq!(moved(paused, running, "2030-01-01T00:00:02.0039Z").await, started);
    assert_eq!(moved(running, paused, "2030-01-01T00:00:03Z").await, started);
    assert_eq!(moved(paused, running, "2030-01-01T00:00:04Z").await, started);
}

/// `events_after` MUST number the events of an operation from 1 without a gap, in the order in which they were noted.
pub async fn events_are_numbered_from_one_without_a_gap(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    for number in [1, 2] {
        open(store, &operation(number), &[]).await;
    }
    let id = operation(1).id;
    for (from, to) in [
        (OperationState::Queued, OperationState::Paused),
        (OperationState::Paused, OperationState::Running),
        (OperationState::Running, OperationState::Cancelling),
    ] {
        assert!(request(store, id, from, to).await);
    }
    let events = store.operations.events_after(id, 0, 10).await.expect("the events");
    let numbers: Vec<_> = events.iter().map(|event| event.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert_eq!(events[0].event, event("accepted"));
    assert_eq!(texts(store, id, 2).await, ["running", "cancelling"]);
    let first = store.operations.events_after(id, 1, 1).await.expect("the events");
    assert_eq!((first.len(), first[0].number), (1, 2));
    assert_eq!(texts(store, operation(2).id, 0).await, ["accepted"]);
}

/// `remove_ended_before` MUST keep operations that are not ended, however old they are, and those that ended at the time or later.
pub async fn only_operations_that_ended_before_are_removed(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    let limit = time("2030-02-01T00:00:00Z");
    let mut kept = Vec::new();
    for (number, state) in (1..).zip(OperationState::ALL) {
        let ended_at = state.is_ended().then(|| time("2030-01-31T23:59:59.999Z"));
        let one = Operation {
            state,
            ended_at,
            ..operation(number)
        };
        open(store, &one, &[]).await;
        if !state.is_ended() {
            kept.push(number);
        }
    }
    for (number, ended_at) in [(101, "2030-02-01T00:00:00Z"), (102, "2030-02-01T00:00:00.001Z")] {
        let one = Operation {
            state: OperationState::Succeeded,
            ended_at: Some(time(ended_at)),
            ..operation(number)
        };
        open(store, &one, &[]).await;
        kept.push(number);
    }

    let removed = store
        .operations
        .remove_ended_before(limit, 100)
        .await
        .expect("a removal");

    kept.reverse();
    assert_eq!(page(store, &OperationFilter::default(), None, 100).await, kept);
    assert_eq!(removed, 4);
}

/// `remove_ended_before` MUST leave nothing of the removed ones, and the others as they were.
pub async fn removed_operations_leave_nothing_and_others_as_they_were(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    for operation in [ended(1), operation(2)] {
        open(store, &operation, &[target(0, "a"), target(1, "b")]).await;
    }
    let removed = store.operations.remove_ended_before(time(AFTER), 100).await;
    assert_eq!(removed.expect("a removal"), 1);

    let (gone, other) = (ended(1).id, operation(2));
    assert_eq!(store.operations.find(gone).await.expect("a look-up"), None);
    assert_eq!(store.operations.targets(gone).await.expect("no nodes"), []);
    assert_eq!(texts(store, gone, 0).await, Vec::<String>::new());
    let found = fixture.replica.operations.find(other.id).await;
    assert_eq!(found.expect("a look-up"), Some(other.clone()));
    let targets = [target(0, "a"), target(1, "b")];
    assert_eq!(store.operations.targets(other.id).await.expect("the nodes"), targets);
    assert_eq!(texts(store, other.id, 0).await, ["accepted"]);
    // What is left of one would be part of another one under the same id.
    open(store, &ended(1), &[]).await;
    assert_eq!(store.operations.targets(gone).await.expect("no nodes"), []);
    assert_eq!(texts(store, gone, 0).await, ["accepted"]);
}

/// `remove_ended_before` removes at most as many as were asked for, those with the lowest ids first.
pub async fn no_more_operations_are_removed_than_the_limit(fixture: &StorageFixture) {
    let store = fixture.migrated().await;
    for number in [3, 1, 5, 2, 4] {
        open(store, &ended(number), &[]).await;
    }
    for (expected, left) in [(2, vec![5, 4, 3]), (2, vec![5]), (1, vec![]), (0, vec![])] {
        let removed = store.operations.remove_ended_before(time(AFTER), 2).await;
        assert_eq!(removed.expect("a removal"), expected);
        assert_eq!(page(store, &OperationFilter::default(), None, 100).await, left);
    }
}

/// A time after the end of [`ended`].
const AFTER: &str = "2030-01-02T00:00:00Z";

fn ended(number: u128) -> Operation {
    Operation {
        state: OperationState::Failed,
        ended_at: Some(time("2030-01-01T23:00:00Z")),
        ..operation(number)
    }
}

pub(super) async fn open(store: &Storage, operation: &Operation, targets: &[OperationTarget]) {
    let opened = store.operations.open(operation, targets, &event("accepted")).await;
    opened.expect("the id is free");
}

pub(super) async fn request(store: &Storage, id: Uuid, from: OperationState, to: OperationState) -> bool {
    let moved = store.operations.request(id, from, to, &event(to.as_str())).await;
    moved.expect("a wish")
}

/// The texts of the events after `after`.
pub(super) async fn texts(store: &Storage, id: Uuid, after: u64) -> Vec<String> {
    let events = store
        .operations
        .events_after(id, after, 1_000)
        .await
        .expect("the events");
    let text = |data: &Map<String, Value>| data["text"].as_str().unwrap_or_default().to_owned();
    events.iter().map(|event| text(&event.event.data)).collect()
}

pub(super) async fn page(store: &Storage, filter: &OperationFilter, before: Option<u128>, limit: u32) -> Vec<u128> {
    let found = store.operations.page(filter, before.map(Uuid::from_u128), limit).await;
    found
        .expect("a page")
        .iter()
        .map(|operation| operation.id.as_u128())
        .collect()
}

pub(super) fn operation(number: u128) -> Operation {
    Operation {
        id: Uuid::from_u128(number),
        kind: OperationKind::Drain,
        actor: Actor::anonymous(None),
        authority: Authority::Open,
        request_id: None,
        reason: None,
        ticket: None,
        options: Map::new(),
        strategy: Strategy::of(OperationKind::Drain),
        dry_run: false,
        retry_of: None,
        idempotency: None,
        created_at: time("2030-01-01T00:00:00Z"),
        started_at: None,
        ended_at: None,
        state: OperationState::Queued,
        message: None,
        progress: OperationProgress::default(),
        excused: 0,
    }
}

pub(super) fn target(place: u32, node: &str) -> OperationTarget {
    OperationTarget {
        place,
        cluster: ClusterName::from_any("demo"),
        node: NodeName::parse(node).expect("a name"),
        zone: None,
        state: TargetState::Waiting,
        message: None,
        started_at: None,
        ended_at: None,
        audit: None,
        hold: None,
        detail: TargetDetail::default(),
    }
}

pub(super) fn event(text: &str) -> NewEvent {
    NewEvent::new(
        time("2030-01-01T00:00:03.004Z"),
        EventKind::Operation,
        [("text", json!(text))],
    )
}

pub(super) fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("an RFC 3339 time")
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
