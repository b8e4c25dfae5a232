//! Rows of every table, in the order of their keys: what is odd and allowed.

use knm_ports::{Cell, Row, Table};
use uuid::Uuid;

/// Some rows of `table`.
///
/// # Panics
/// For a table that has none here: a new one needs some.
#[must_use]
pub fn rows(table: &Table) -> Vec<Row> {
    let rows = match table.name {
        "cluster_registrations" => vec![
            vec![text("A"), text("demo"), int(i64::MIN), int(i64::MAX)],
            // Where locales sort otherwise than bytes do.
            vec![text("Z-1"), text("kubeconfig"), int(0), int(-1)],
            vec![text("a"), text("in-cluster"), int(1), int(2)],
            vec![text("ä"), text(ODD), int(1), int(2)],
        ],
        "registered_clusters" => vec![vec![
            text("east"),
            text("r-1"),
            text("key-2"),
            bytes(&[0, 1, 255]),
            bytes(&(0..=255).collect::<Vec<u8>>()),
            text("https://east.example.com"),
            text(""),
            Cell::Nothing,
            int(1),
            int(2),
        ]],
        "api_tokens" => vec![token("0000000000000001", false), token("fffffffffffffff0", true)],
        "definition_versions" => vec![
            vec![
                text("template"),
                text("gpu"),
                int(1),
                text("{\"a\":\"\\u0000\"}"),
                int(5),
                text("me"),
            ],
            vec![text("template"), text("gpu"), int(2), Cell::Nothing, int(6), text(ODD)],
            vec![text("template"), text("gpu"), int(10), text(""), int(7), text("me")],
        ],
        "cordon_holds" => vec![hold(1, 0, false), hold(2, 1, true), hold(3, 2, true)],
        "operations" => vec![operation(1, Cell::Nothing), operation(2, bytes(&[7; 32]))],
        "operation_targets" => vec![target(1, 0), target(1, 1), target(1, i64::MAX), target(2, 0)],
        "operation_events" => [events(3), vec![event(2, 1)]].concat(),
        "audit_records" => vec![record(1, true), record(2, false), record(u128::MAX, false)],
        "idempotency_keys" => vec![
            vec![
                text("caller"),
                text("a"),
                bytes(&[0; 32]),
                int(1),
                Cell::Nothing,
                Cell::Nothing,
                Cell::Nothing,
                Cell::Nothing,
            ],
            vec![
                text("caller"),
                text("b \\ \t \n \r"),
                bytes(&[255; 32]),
                int(1),
                int(i64::from(i16::MAX)),
                text("application/json"),
                text("\"etag\""),
                bytes(&[]),
            ],
        ],
        "leases" => leases(2),
        _ => Vec::new(),
    };
    assert!(!rows.is_empty(), "there are no samples of {}", table.name);
    rows
}

/// So many leases.
#[must_use]
pub fn leases(count: usize) -> Vec<Row> {
    let lease = |number| vec![text(&format!("lease-{number:06}")), text("replica"), int(9)];
    (0..count).map(lease).collect()
}

/// So many events of one operation.
#[must_use]
pub fn events(count: usize) -> Vec<Row> {
    (1..=count)
        .filter_map(|number| i64::try_from(number).ok())
        .map(|number| event(1, number))
        .collect()
}

/// What has a meaning in some format or other, characters of each length, and forms that must not become each other.
const ODD: &str = "\\N \\. tab\there \"quoted\" 'single' line\nbreak\r\n back\\slash {\"json\": null} NULL ü e\u{301} é 漢字 🦀 \u{feff} \u{1} \u{7f}";

fn event(operation: u128, number: i64) -> Row {
    vec![id(operation), int(number), int(-number), text("node"), text(ODD)]
}

fn token(id: &str, is_revoked: bool) -> Row {
    let revoked = |cell| if is_revoked { cell } else { Cell::Nothing };
    vec![
        text(id),
        text("ci"),
        bytes(&[9; 32]),
        text("operator"),
        Cell::Flag(is_revoked),
        revoked(text("[\"east\"]")),
        revoked(text("")),
        int(1),
        text(ODD),
        int(i64::MAX),
        revoked(int(5)),
        revoked(text("")),
        Cell::Nothing,
    ]
}

fn hold(number: u128, state: i64, is_over_foreign: bool) -> Row {
    vec![
        bytes(Uuid::from_u128(number).as_bytes()),
        text("east"),
        text("worker-1"),
        text("me"),
        text(ODD),
        Cell::Nothing,
        int(1),
        Cell::Nothing,
        Cell::Flag(is_over_foreign),
        int(state),
        int(2),
    ]
}

fn operation(number: u128, idempotency: Cell) -> Row {
    let mut row = vec![
        id(number),
        text("drain"),
        Cell::Nothing,
        text("anonymous"),
        text("::1"),
        text(""),
        text(ODD),
        Cell::Nothing,
    ];
    row.extend([
        text("{}"),
        text("{\"max\":1}"),
        Cell::Flag(false),
        id(u128::MAX),
        int(1),
        int(2),
        Cell::Nothing,
    ]);
    row.extend([
        text("running"),
        Cell::Nothing,
        int(i64::MAX),
        int(0),
        int(0),
        int(0),
        int(0),
        int(3),
    ]);
    row.extend([
        text("replica"),
        int(4),
        int(5),
        idempotency,
        Cell::Flag(true),
        text("{\"open\":true}"),
    ]);
    row
}

fn target(operation: u128, place: i64) -> Row {
    vec![
        id(operation),
        int(place),
        text("east"),
        text("worker-1"),
        text("queued"),
        Cell::Nothing,
        Cell::Nothing,
        int(0),
        id(3),
        Cell::Nothing,
        text(&format!("{{\"pods\":\"{}\"}}", "x".repeat(100_000))),
        text(""),
    ]
}

fn record(number: u128, is_pending: bool) -> Row {
    let mut row = vec![
        id(number),
        int(1),
        text("me"),
        text("user"),
        Cell::Nothing,
        text("cordon"),
        text("east"),
        text("worker-1"),
    ];
    row.extend([id(1), text("r"), text(ODD), text(""), text("{}")]);
    row.extend(match is_pending {
        true => [text("pending"), Cell::Nothing],
        false => [text("succeeded"), int(2)],
    });
    row.extend([Cell::Nothing, text("null"), text("{\"labels\":{}}")]);
    row
}

fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

fn int(number: i64) -> Cell {
    Cell::Integer(number)
}

fn bytes(bytes: &[u8]) -> Cell {
    Cell::Bytes(bytes.to_vec())
}

fn id(number: u128) -> Cell {
    Cell::Id(Uuid::from_u128(number))
}
