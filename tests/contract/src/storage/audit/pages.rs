//! Pages of the audit log.

use knm_model::{Actor, AuditAction, AuditCompletion, AuditFilter, AuditOutcome, AuditRecord, ClusterName};
use uuid::Uuid;

use super::{all, completion, intent, node, number_of, numbers, some, time, unknown};
use crate::storage::StorageFixture;

/// `page` returns at most `limit` records, the latest id first, only ids below `before`.
pub async fn a_page_has_the_latest_records_first_and_no_more_than_its_limit(fixture: &StorageFixture) {
    let audit = &fixture.migrated().await.audit;
    assert_eq!(all(&**audit).await, []);
    for number in [3, 1, 5, 2, 4] {
        audit.open(&intent(number)).await.expect("the id is free");
    }
    let everything = AuditFilter::default();
    let page = async |before: Option<u64>, limit| {
        let before = before.map(|number| intent(number).id);
        numbers(&audit.page(&everything, before, limit).await.expect("a page"))
    };
    assert_eq!(page(None, 9).await, [5, 4, 3, 2, 1]);
    assert_eq!(page(None, 2).await, [5, 4]);
    assert_eq!(page(Some(4), 2).await, [3, 2]);
    assert_eq!(page(Some(1), 2).await, [0; 0]);
    assert_eq!(page(Some(9), 1).await, [5]);
}

/// `page` MUST return exactly the records that the filter lets through.
pub async fn a_page_has_what_the_filter_lets_through(fixture: &StorageFixture) {
    let audit = &fixture.migrated().await.audit;
    let mut records = Vec::new();
    for number in 0..24 {
        let pick = |every: u64| number % every == 0;
        let record = AuditRecord {
            actor: Actor {
                name: (!pick(3)).then(|| if pick(2) { "ada" } else { "service" }.to_owned()),
                ..if pick(4) {
                    Actor::service()
                } else {
                    Actor::anonymous(None)
                }
            },
            action: AuditAction::ALL[usize::try_from(number).expect("a small number") % AuditAction::ALL.len()],
            cluster: ClusterName::from_any(if pick(2) { "prod" } else { "edge" }),
            node: (!pick(5)).then(|| node(if pick(3) { "worker-1" } else { "worker-2" })),
            operation: pick(6).then(|| Uuid::from_u128(u128::from(number % 4))),
            reason: (!pick(4)).then(|| format!("Disk {number}")),
            ..intent(number)
        };
        audit.open(&record).await.expect("the id is free");
        let came_of_it = match number % 4 {
            0 => None,
            1 => Some(completion()),
            2 => Some(AuditCompletion {
                outcome: AuditOutcome::Failed,
                ..completion()
            }),
            _ => Some(unknown()),
        };
        if let Some(came_of_it) = &came_of_it {
            audit.complete(record.id, came_of_it).await.expect("it is there");
        }
        records.push(AuditRecord {
            completion: came_of_it,
            ..record
        });
    }
    for filter in filters() {
        let expected: Vec<u64> = records
            .iter()
            .rev()
            .filter(|record| filter.matches(record))
            .map(number_of)
            .collect();

        let found = audit.page(&filter, None, 100).await.expect("a page");

        assert_eq!(numbers(&found), expected, "{filter:?}");
        assert!(!expected.is_empty() && expected.len() < records.len(), "{filter:?}");
        let next = audit
            .page(&filter, found.first().map(|record| record.id), 100)
            .await
            .expect("a page");
        assert_eq!(numbers(&next), expected[1..], "{filter:?}");
    }
}

/// Each filter alone, and some together.
fn filters() -> Vec<AuditFilter> {
    let none = AuditFilter::default;
    let mut filters = vec![
        AuditFilter {
            cluster: Some(ClusterName::from_any("prod")),
            ..none()
        },
        AuditFilter {
            node: Some(node("worker-1")),
            ..none()
        },
        AuditFilter {
            from: Some(time("2030-01-01T00:00:07.5Z")),
            ..none()
        },
        AuditFilter {
            from: Some(time("2030-01-01T00:00:07Z")),
            until: Some(time("2030-01-01T00:00:12.0000001Z")),
            ..none()
        },
        AuditFilter {
            until: Some(time("2030-01-01T00:00:12Z")),
            ..none()
        },
        AuditFilter {
            reason: some("dISK 1"),
            ..none()
        },
        AuditFilter {
            operation: Some(Uuid::from_u128(2)),
            ..none()
        },
        AuditFilter {
            outcome: Some(None),
            ..none()
        },
        AuditFilter {
            cluster: Some(ClusterName::from_any("edge")),
            node: Some(node("worker-1")),
            actor: some("anonymous"),
            until: Some(time("2031-01-01T00:00:00Z")),
            ..none()
        },
    ];
    filters.extend(["ada", "service", "anonymous"].map(|actor| AuditFilter {
        actor: some(actor),
        ..none()
    }));
    filters.extend(AuditAction::ALL.map(|action| AuditFilter {
        action: Some(action),
        ..none()
    }));
    filters.extend(AuditOutcome::ALL.map(|outcome| AuditFilter {
        outcome: Some(Some(outcome)),
        ..none()
    }));
    filters
}

/// `page` MUST match texts in reasons without a meaning of `%`, `_` or `\`.
pub async fn texts_in_reasons_have_no_wildcards(fixture: &StorageFixture) {
    let audit = &fixture.migrated().await.audit;
    let reasons = [
        "100% full",
        "1000 full",
        "a_b",
        "aXb",
        "C:\\temp",
        "C:temp",
        "Ärger im Rack",
        "ÄRGER",
        "it's",
    ];
    for (number, reason) in (0..).zip(reasons) {
        let record = AuditRecord {
            reason: some(reason),
            ..intent(number)
        };
        audit.open(&record).await.expect("the id is free");
    }
    let cases: [(&str, &[u64]); 11] = [
        ("100%", &[0]),
        ("0% F", &[0]),
        ("%", &[0]),
        ("_", &[2]),
        ("A_B", &[2]),
        ("\\", &[4]),
        ("c:\\T", &[4]),
        ("Ärger", &[7, 6]),
        ("RGER", &[7, 6]),
        ("ärger", &[]),
        ("'", &[8]),
    ];
    for (text, expected) in cases {
        let filter = AuditFilter {
            reason: some(text),
            ..AuditFilter::default()
        };
        let found = audit.page(&filter, None, 100).await.expect("a page");
        assert_eq!(numbers(&found), expected, "{text}");
    }
}

/// `page` MUST return every record that was there all the time exactly once to a reader who asks for the next page with the last id of
/// the page before, however many records come in meanwhile.
pub async fn pages_tell_each_record_once_while_others_come_in(fixture: &StorageFixture) {
    let audit = &fixture.migrated().await.audit;
    for number in 100..120 {
        audit.open(&intent(number)).await.expect("the id is free");
    }
    let everything = AuditFilter::default();
    let mut seen = Vec::new();
    let mut before = None;
    for turn in 0.. {
        let page = audit.page(&everything, before, 3).await.expect("a page");
        let Some(last) = page.last() else {
            break;
        };
        before = Some(last.id);
        seen.extend(numbers(&page));
        // A later one, and one of a replica whose clock is behind.
        audit.open(&intent(200 + turn)).await.expect("the id is free");
        if turn < 3 {
            audit.open(&intent(turn)).await.expect("the id is free");
        }
    }
    let there_all_the_time: Vec<u64> = seen.into_iter().filter(|number| (100..120).contains(number)).collect();
    assert_eq!(there_all_the_time, (100..120).rev().collect::<Vec<u64>>());
}
