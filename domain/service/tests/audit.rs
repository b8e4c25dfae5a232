//! The audit log is read in pages and kept in order by one replica.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use knm_domain::{Audit, AuditKeeper, Inventory};
use knm_model::{
    Access, Actor, AuditAction, AuditCompletion, AuditFilter, AuditOutcome, AuditQuery, AuditRecord, ClusterName,
    Grant, Permission, Permissions,
};
use knm_ports::{AuditLog, Clock, CountedIds, IdSource, ManualClock, MockAuditLog, MockLeases, Storage, StorageError};
use tokio_util::sync::CancellationToken;

const DAY: Duration = Duration::from_secs(86_400);

fn record(clock: &ManualClock, ids: &CountedIds) -> AuditRecord {
    AuditRecord {
        id: ids.next(clock.now()),
        at: clock.now(),
        actor: Actor::anonymous(None),
        action: AuditAction::NodeCordon,
        cluster: ClusterName::parse("prod").unwrap(),
        node: None,
        operation: None,
        request_id: None,
        reason: None,
        ticket: None,
        options: serde_json::Map::new(),
        completion: None,
    }
}

fn done(clock: &ManualClock) -> AuditCompletion {
    AuditCompletion {
        outcome: AuditOutcome::Succeeded,
        at: clock.now(),
        error: None,
        before: serde_json::Map::new(),
        after: serde_json::Map::new(),
    }
}

async fn filled(count: usize) -> Storage {
    let storage = knm_storage_memory::open();
    let (clock, ids) = (ManualClock::at("2030-01-01T00:00:00Z"), CountedIds::default());
    for _ in 0..count {
        storage.audit.open(&record(&clock, &ids)).await.unwrap();
    }
    storage
}

async fn count(storage: &Storage) -> usize {
    let all = storage.audit.page(&AuditFilter::default(), None, u32::MAX).await;
    all.unwrap().len()
}

fn reader(log: Arc<dyn AuditLog>) -> Audit {
    let clock = ManualClock::at("2030-01-01T00:00:00Z");
    Audit::new(log, Inventory::start(clock, Vec::new(), CancellationToken::new()))
}

fn everything() -> Arc<Access> {
    Arc::new(Access::unlimited())
}

fn query(limit: Option<u32>) -> AuditQuery {
    AuditQuery {
        limit,
        ..AuditQuery::default()
    }
}

#[tokio::test]
async fn a_page_names_the_next_one_only_if_there_is_one() {
    let audit = reader(filled(5).await.audit);
    let first = audit.page(&query(Some(3)), &everything()).await.unwrap();
    assert_eq!(first.records.len(), 3);
    assert_eq!(first.next, first.records.last().map(|record| record.id));
    let rest = AuditQuery {
        before: first.next,
        ..query(Some(2))
    };
    let rest = audit.page(&rest, &everything()).await.unwrap();
    assert_eq!((rest.records.len(), rest.next), (2, None));
    assert_eq!(audit.page(&query(None), &everything()).await.unwrap().records.len(), 5);
}

fn elsewhere() -> Access {
    Access::new(vec![Grant {
        permissions: Permissions::of(&[Permission::View]),
        clusters: Some([ClusterName::from_any("elsewhere")].into()),
        nodes: None,
    }])
}

#[tokio::test]
async fn whoever_sees_some_records_gets_each_of_them_once() {
    let storage = knm_storage_memory::open();
    let (clock, ids) = (ManualClock::at("2030-01-01T00:00:00Z"), CountedIds::default());
    let mut expected = Vec::new();
    for number in 0..1_000 {
        let mut record = record(&clock, &ids);
        if number % 7 == 0 {
            record.cluster = ClusterName::from_any("elsewhere");
            expected.insert(0, record.id);
        }
        storage.audit.open(&record).await.unwrap();
    }
    let audit = reader(storage.audit);
    for limit in [1, 3, 100, 500] {
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let query = AuditQuery {
                before,
                ..query(Some(limit))
            };
            let page = audit.page(&query, &elsewhere()).await.unwrap();
            assert!(page.records.len() <= limit as usize);
            found.extend(page.records.iter().map(|record| record.id));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "{limit}");
    }
}

#[tokio::test]
async fn a_short_page_of_somebody_who_sees_nothing_takes_few_reads() {
    let mut log = MockAuditLog::new();
    let (clock, ids) = (ManualClock::at("2030-01-01T00:00:00Z"), CountedIds::default());
    log.expect_page()
        .times(10)
        .returning(move |_, _, limit| Ok((0..limit).map(|_| record(&clock, &ids)).collect()));
    let page = reader(Arc::new(log)).page(&query(Some(1)), &elsewhere()).await.unwrap();
    assert!(page.records.is_empty() && page.next.is_some());
}

#[tokio::test]
async fn an_export_has_all_records_or_as_many_as_are_wanted() {
    let audit = reader(filled(1_200).await.audit);
    for (limit, expected) in [
        (None, vec![500, 500, 200]),
        (Some(700), vec![500, 200]),
        (Some(500), vec![500]),
        (Some(3_000), vec![500, 500, 200]),
    ] {
        let pages: Vec<usize> = audit
            .export(query(limit), everything())
            .map(|page| page.unwrap().len())
            .collect()
            .await;
        assert_eq!(pages, expected, "{limit:?}");
    }
}

#[tokio::test]
async fn an_export_ends_with_the_first_error() {
    let mut log = MockAuditLog::new();
    let (clock, ids) = (ManualClock::at("2030-01-01T00:00:00Z"), CountedIds::default());
    let mut answers = vec![
        Err(StorageError::Conflict { what: "nothing" }),
        Ok((0..501).map(|_| record(&clock, &ids)).collect::<Vec<_>>()),
    ];
    log.expect_page()
        .times(2)
        .returning(move |_, _, _| answers.pop().unwrap());

    let pages: Vec<_> = reader(Arc::new(log)).export(query(None), everything()).collect().await;

    assert!(matches!(&pages[..], [Ok(_), Err(_)]), "{pages:?}");
}

#[tokio::test(start_paused = true)]
async fn old_records_go_and_lost_intents_are_given_up() {
    let storage = knm_storage_memory::open();
    let (clock, ids) = (ManualClock::at("2030-01-01T00:00:00Z"), CountedIds::default());
    for _ in 0..2_500 {
        let old = AuditRecord {
            completion: Some(done(&clock)),
            ..record(&clock, &ids)
        };
        storage.audit.open(&old).await.unwrap();
    }
    clock.advance(2 * DAY);
    let lost = record(&clock, &ids);
    storage.audit.open(&lost).await.unwrap();
    clock.advance(Duration::from_secs(601));
    let recent = record(&clock, &ids);
    storage.audit.open(&recent).await.unwrap();

    tokio::spawn(keeper(&storage, &clock, "a").keep(CancellationToken::new()));
    tokio::time::sleep(Duration::from_secs(30)).await;

    assert_eq!(count(&storage).await, 2);
    let given_up = storage.audit.find(lost.id).await.unwrap().unwrap().completion.unwrap();
    assert_eq!((given_up.outcome, given_up.at), (AuditOutcome::Unknown, clock.now()));
    assert_eq!(
        given_up.error.as_deref(),
        Some("the process that tried it ended before it could tell")
    );
    assert_eq!(storage.audit.find(recent.id).await.unwrap(), Some(recent));
}

#[tokio::test(start_paused = true)]
async fn without_a_retention_nothing_is_removed() {
    let storage = filled(1).await;
    let clock = ManualClock::at("2040-01-01T00:00:00Z");
    let keeper = AuditKeeper {
        retention: None,
        ..keeper(&storage, &clock, "a")
    };
    tokio::spawn(keeper.keep(CancellationToken::new()));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(count(&storage).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_replica_without_the_lease_touches_nothing() {
    let mut leases = MockLeases::new();
    leases.expect_hold().times(2..).returning(|_, _, _| Ok(false));
    let keeper = AuditKeeper {
        // Any call panics.
        log: Arc::new(MockAuditLog::new()),
        leases: Arc::new(leases),
        clock: ManualClock::at("2030-01-01T00:00:00Z"),
        owner: "b".to_owned(),
        retention: Some(DAY),
    };
    let kept = tokio::time::timeout(Duration::from_secs(90), keeper.keep(CancellationToken::new())).await;
    assert!(kept.is_err(), "it goes on");
}

#[tokio::test(start_paused = true)]
async fn another_replica_goes_on_when_the_first_one_is_gone() {
    let storage = filled(1).await;
    let clock = ManualClock::at("2030-01-01T01:00:00Z");
    let first = tokio::spawn(keeper(&storage, &clock, "a").keep(CancellationToken::new()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.abort();
    tokio::spawn(keeper(&storage, &clock, "b").keep(CancellationToken::new()));
    let later = record(&clock, &CountedIds::default());
    storage.audit.open(&later).await.unwrap();
    clock.advance(Duration::from_secs(700));
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(storage.audit.find(later.id).await.unwrap(), Some(later.clone()));

    tokio::time::sleep(Duration::from_secs(300)).await;

    let found = storage.audit.find(later.id).await.unwrap().unwrap();
    assert_eq!(found.outcome(), Some(AuditOutcome::Unknown));
}

fn keeper(storage: &Storage, clock: &Arc<ManualClock>, owner: &str) -> AuditKeeper {
    AuditKeeper {
        log: Arc::clone(&storage.audit),
        leases: Arc::clone(&storage.leases),
        clock: clock.clone(),
        owner: owner.to_owned(),
        retention: Some(DAY),
    }
}
