use proptest::prelude::*;

use super::*;

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn record() -> AuditRecord {
    AuditRecord {
        id: Uuid::from_u128(7),
        at: Timestamp::parse("2030-01-01T12:00:00Z").unwrap(),
        actor: Actor {
            name: some("ada"),
            ..Actor::anonymous(None)
        },
        action: AuditAction::NodeCordon,
        cluster: ClusterName::parse("prod").unwrap(),
        node: Some(NodeName::parse("worker-1").unwrap()),
        operation: Some(Uuid::from_u128(9)),
        request_id: None,
        reason: some("Disk is 100% full"),
        ticket: None,
        options: Map::new(),
        completion: None,
    }
}

#[test]
fn each_filter_keeps_what_it_names() {
    let kept = |set: &dyn Fn(&mut RawAuditQuery)| {
        let mut raw = RawAuditQuery::default();
        set(&mut raw);
        AuditQuery::parse(&raw).unwrap().filter.matches(&record())
    };
    assert!(kept(&|_| {}));
    assert!(kept(&|raw| raw.cluster = some("prod")));
    assert!(!kept(&|raw| raw.cluster = some("pro")));
    assert!(kept(&|raw| raw.node = some("worker-1")));
    assert!(!kept(&|raw| raw.node = some("worker-2")));
    assert!(kept(&|raw| raw.actor = some("ada")));
    assert!(!kept(&|raw| raw.actor = some("anonymous")));
    assert!(kept(&|raw| raw.action = some("node.cordon")));
    assert!(!kept(&|raw| raw.action = some("node.drain")));
    assert!(kept(&|raw| raw.outcome = some("pending")));
    assert!(!kept(&|raw| raw.outcome = some("unknown")));
    assert!(kept(&|raw| raw.from = some("2030-01-01T12:00:00Z")));
    assert!(!kept(&|raw| raw.from = some("2030-01-01T12:00:00.0001Z")));
    assert!(kept(&|raw| raw.until = some("2030-01-01T12:00:00.0001Z")));
    assert!(!kept(&|raw| raw.until = some("2030-01-01T12:00:00Z")));
    assert!(kept(&|raw| raw.reason = some("disk IS 100%")));
    assert!(!kept(&|raw| raw.reason = some("disk%full")));
    assert!(kept(&|raw| raw.operation = some("00000000-0000-0000-0000-000000000009")));
    assert!(!kept(
        &|raw| raw.operation = some("00000000-0000-0000-0000-000000000007")
    ));
}

#[test]
fn who_has_no_name_is_called_by_the_kind() {
    let anonymous = AuditRecord {
        actor: Actor::anonymous(None),
        ..record()
    };
    let filter = AuditFilter {
        actor: some("anonymous"),
        ..AuditFilter::default()
    };
    assert!(filter.matches(&anonymous));
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let raw = RawAuditQuery {
        cluster: some("Prod"),
        node: some("a_b"),
        actor: some(""),
        action: some("node.explode"),
        outcome: some("happy"),
        from: some("yesterday"),
        until: some("now"),
        reason: some("a\nb"),
        operation: some("{00000000-0000-0000-0000-000000000007}"),
        limit: some("1001"),
        cursor: some("%%%"),
    };
    let errors = AuditQuery::parse(&raw).unwrap_err();
    let names: Vec<&str> = errors.iter().map(|error| error.parameter.as_ref()).collect();
    assert_eq!(
        names,
        [
            "cluster",
            "node",
            "actor",
            "action",
            "outcome",
            "from",
            "until",
            "reason",
            "operation",
            "limit",
            "cursor"
        ]
    );
    let told = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for part in [
        "\"Prod\"",
        "node.label, node.taint",
        "pending, succeeded",
        "\"yesterday\"",
        "from 1 to 1000",
        "\"%%%\"",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn a_span_that_ends_before_it_begins_is_refused() {
    let time = "2030-01-01T00:00:00Z";
    let raw = RawAuditQuery {
        from: some(time),
        until: some(time),
        ..RawAuditQuery::default()
    };
    let errors = AuditQuery::parse(&raw).unwrap_err();
    assert_eq!((errors.len(), errors[0].parameter.as_ref()), (1, "until"));
}

proptest! {
    #[test]
    fn no_parameter_makes_it_panic(texts in proptest::collection::vec(proptest::option::of("\\PC{0,40}|[0-9a-fA-F-]{30,40}|[0-9TZ:+.-]{0,30}"), 11)) {
        let mut texts = texts.into_iter();
        let mut next = || texts.next().flatten();
        let _ = AuditQuery::parse(&RawAuditQuery {
            cluster: next(),
            node: next(),
            actor: next(),
            action: next(),
            outcome: next(),
            from: next(),
            until: next(),
            reason: next(),
            operation: next(),
            limit: next(),
            cursor: next(),
        });
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written(id in any::<u128>()) {
        let id = Uuid::from_u128(id);
        let raw = RawAuditQuery { cursor: Some(id.to_string()), ..RawAuditQuery::default() };
        prop_assert_eq!(AuditQuery::parse(&raw).unwrap().before, Some(id));
    }
}
