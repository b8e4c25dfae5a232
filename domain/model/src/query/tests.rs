use proptest::prelude::*;

use super::*;
use crate::fixture::node;
use crate::{NodeAddress, Taint, TaintEffect, Timestamp};

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn page(query: &NodeQuery, nodes: &[(&str, Node)]) -> (Vec<String>, usize, Option<Cursor>) {
    let (page, total, next) = query.select(nodes.iter(), |(cluster, node)| (*cluster, node));
    (
        page.iter()
            .map(|(cluster, node)| format!("{cluster}/{}", node.name))
            .collect(),
        total,
        next,
    )
}

fn fleet() -> Vec<(&'static str, Node)> {
    let mut nodes = Vec::new();
    for (index, (cluster, name)) in [
        ("east", "a"),
        ("east", "b"),
        ("east", "c"),
        ("west", "a"),
        ("west", "d"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut node = node(name);
        let step = u64::try_from(index).unwrap();
        node.allocatable.cpu_millicores = [4_000, 2_000, 4_000, 8_000, 2_000][index];
        node.allocatable.memory_bytes = 10 - step;
        node.created_at = Timestamp::from_unix_millis(1_000 * i64::try_from(step).unwrap()).unwrap();
        node.zone = [None, some("z2"), some("z1"), some("z1"), None][index].clone();
        node.status = [
            NodeStatus::Ready,
            NodeStatus::Unknown,
            NodeStatus::Ready,
            NodeStatus::NotReady,
            NodeStatus::Ready,
        ][index];
        nodes.push((cluster, node));
    }
    nodes
}

#[test]
fn each_filter_keeps_what_it_names() {
    let mut one = node("worker-1");
    one.labels.insert("tier".into(), "web".into());
    one.labels
        .insert("node-role.kubernetes.io/worker".into(), String::new());
    one.zone = some("z1");
    one.schedulable = false;
    one.status = NodeStatus::NotReady;
    one.taints.push(Taint {
        key: "gpu".into(),
        value: "yes".into(),
        effect: TaintEffect::NoSchedule,
        added_at: None,
    });
    one.addresses.push(NodeAddress {
        kind: "Hostname".into(),
        address: "Host-7.Example".into(),
    });
    let kept = |set: &dyn Fn(&mut RawNodeQuery)| {
        let mut raw = RawNodeQuery::default();
        set(&mut raw);
        NodeQuery::parse(&raw).unwrap().filter.matches(&one)
    };

    assert!(kept(&|_| {}));
    assert!(kept(&|raw| raw.label_selector = some("tier in (web)")));
    assert!(!kept(&|raw| raw.label_selector = some("!tier")));
    assert!(kept(&|raw| raw.status = some("ready,not_ready")));
    assert!(!kept(&|raw| raw.status = some("ready,unknown")));
    assert!(kept(&|raw| raw.schedulable = some("false")));
    assert!(!kept(&|raw| raw.schedulable = some("true")));
    assert!(kept(&|raw| raw.role = some("worker")));
    assert!(!kept(&|raw| raw.role = some("gpu")));
    assert!(kept(&|raw| raw.zone = some("z1")));
    assert!(!kept(&|raw| raw.zone = some("z")));
    assert!(kept(&|raw| raw.taint = some("gpu=yes:NoSchedule")));
    assert!(!kept(&|raw| raw.taint = some("gpu:NoExecute")));
    assert!(kept(&|raw| raw.search = some("ORKER-")));
    assert!(kept(&|raw| raw.search = some("7.example")));
    assert!(!kept(&|raw| raw.search = some("worker-2")));
}

#[test]
fn each_order_is_total() {
    let cases = [
        ("name", ["east/a", "east/b", "east/c", "west/a", "west/d"]),
        ("-name", ["west/d", "west/a", "east/c", "east/b", "east/a"]),
        ("age", ["west/d", "west/a", "east/c", "east/b", "east/a"]),
        ("-age", ["east/a", "east/b", "east/c", "west/a", "west/d"]),
        ("cpu", ["east/b", "west/d", "east/a", "east/c", "west/a"]),
        ("-cpu", ["west/a", "east/a", "east/c", "east/b", "west/d"]),
        ("memory", ["west/d", "west/a", "east/c", "east/b", "east/a"]),
        ("zone", ["east/a", "west/d", "east/c", "west/a", "east/b"]),
        ("status", ["east/a", "east/c", "west/d", "west/a", "east/b"]),
    ];
    for (sort, expected) in cases {
        let query = NodeQuery::parse(&RawNodeQuery {
            sort: some(sort),
            ..RawNodeQuery::default()
        })
        .unwrap();
        assert_eq!(page(&query, &fleet()).0, expected, "{sort}");
    }
}

#[test]
fn the_pages_of_each_order_make_the_whole_list_even_when_the_last_node_vanished() {
    for sort in [
        "name", "-name", "age", "-age", "cpu", "-cpu", "memory", "zone", "-zone", "status",
    ] {
        let whole = NodeQuery::parse(&RawNodeQuery {
            sort: some(sort),
            ..RawNodeQuery::default()
        })
        .unwrap();
        let (whole, _, _) = page(&whole, &fleet());
        let mut nodes = fleet();
        let mut cursor = None;
        let mut seen = Vec::new();
        loop {
            let raw = RawNodeQuery {
                sort: some(sort),
                limit: some("2"),
                cursor,
                ..RawNodeQuery::default()
            };
            let (names, _, next) = page(&NodeQuery::parse(&raw).unwrap(), &nodes);
            // The node that the cursor names goes away before the next page is asked for.
            let last = names.last().cloned().unwrap_or_default();
            nodes.retain(|(cluster, node)| format!("{cluster}/{}", node.name) != last);
            seen.extend(names);
            match next {
                Some(next) => cursor = Some(next.encode()),
                None => break,
            }
        }
        assert_eq!(seen, whole, "{sort}");
    }
}

#[test]
fn the_last_page_names_no_next_one() {
    let query = NodeQuery {
        limit: Some(5),
        ..NodeQuery::default()
    };
    let (names, total, next) = page(&query, &fleet());
    assert_eq!((names.len(), total, next), (5, 5, None));
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let raw = RawNodeQuery {
        label_selector: some("a b"),
        status: some("ready,gone"),
        schedulable: some("yes"),
        role: some(""),
        zone: some("a\nb"),
        taint: some("gpu:Never"),
        search: Some("x".repeat(254)),
        sort: some("size"),
        limit: some("0"),
        cursor: some("%%%"),
        fields: some("name,colour"),
    };
    let errors = NodeQuery::parse(&raw).unwrap_err();
    let places: Vec<_> = errors
        .iter()
        .map(|error| (error.parameter.as_ref(), error.position))
        .collect();
    assert_eq!(
        places,
        [
            ("label_selector", Some(3)),
            ("status", Some(7)),
            ("schedulable", None),
            ("role", None),
            ("zone", Some(2)),
            ("taint", Some(5)),
            ("search", None),
            ("sort", None),
            ("limit", None),
            ("cursor", None),
            ("fields", Some(6)),
        ]
    );
    let told = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for part in [
        "\"gone\"",
        "\"yes\"",
        "\"Never\"",
        "\"size\"",
        "from 1 to 10000",
        "\"%%%\"",
        "\"colour\"",
        "provider_id",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn a_cursor_of_another_order_is_refused() {
    let cursor = NodeQuery {
        limit: Some(1),
        ..NodeQuery::default()
    };
    let cursor = page(&cursor, &fleet()).2.unwrap().encode();
    let raw = RawNodeQuery {
        sort: some("-name"),
        cursor: Some(cursor),
        ..RawNodeQuery::default()
    };
    let errors = NodeQuery::parse(&raw).unwrap_err();
    assert_eq!((errors.len(), errors[0].parameter.as_ref()), (1, "cursor"));
}

#[test]
fn limits_are_whole_numbers_within_bounds() {
    for text in ["", "0", "-1", "+1", "1.5", "10001", "99999999999999999999", "ten", " 1"] {
        let raw = RawNodeQuery {
            limit: some(text),
            ..RawNodeQuery::default()
        };
        assert_eq!(NodeQuery::parse(&raw).unwrap_err()[0].parameter, "limit", "{text}");
    }
}

#[test]
fn what_asks_for_nothing_special_is_everything() {
    let everything = |raw: RawNodeQuery| NodeQuery::parse(&raw).unwrap().is_everything();
    assert!(everything(RawNodeQuery::default()));
    assert!(everything(RawNodeQuery {
        label_selector: some(" "),
        sort: some("name"),
        ..RawNodeQuery::default()
    }));
    assert!(!everything(RawNodeQuery {
        limit: some("10000"),
        ..RawNodeQuery::default()
    }));
}

proptest! {
    #[test]
    fn no_cursor_makes_it_panic(text in any::<String>(), inner in any::<String>()) {
        use base64::Engine;
        let _ = Cursor::decode(&text);
        let _ = Cursor::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(inner));
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written(zone in "[a-z\"\\\\\u{e4}]{0,20}", descending in any::<bool>()) {
        let mut node = node("a");
        node.zone = Some(zone);
        let sort = NodeSort { key: SortKey::Zone, descending };
        let cursor = SortPoint::of(SortKey::Zone, "east", &node).cursor(sort);
        let text = cursor.encode();
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
        prop_assert_eq!(Cursor::decode(&text), Ok(cursor));
    }
}
