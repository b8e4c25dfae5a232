//! The audit log of a service on a PostgreSQL server, with records.

use knm_test_support::postgres::PostgresServer;
use knm_test_support::service::{Service, run};
use knm_test_support::wire::Wire;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");

/// A service, and the name of its database.
fn on(server: &PostgresServer) -> (Service, String) {
    let database = server.create_database();
    let url = server.url(&database);
    let service = Service::start(PROGRAM, &[], &[("DATABASE_URL", &url), ("KNM__CLUSTERS", "[]")]);
    service.wait_until_ready();
    (service, database)
}

/// Writes records, one per second from 2030 on, every third of which is a drain.
fn write(server: &PostgresServer, database: &str, numbers: &str, reason: &str) {
    server.run(
        database,
        &format!(
            "INSERT INTO audit_records (id, at_unix_ms, actor_kind, action, cluster, node, reason, options_json, outcome,
                 completed_at_unix_ms, before_json, after_json)
             SELECT (lpad(to_hex(1893456000000 + n * 1000), 12, '0') || '70008000000000000000')::uuid, 1893456000000 + n * 1000,
                 'anonymous', CASE n % 3 WHEN 0 THEN 'node.drain' ELSE 'node.cordon' END, 'demo', 'worker-' || n % 2, {reason}, '{{}}',
                 'succeeded', 1893456000000, '{{\"unschedulable\": false}}', '{{\"unschedulable\": true}}'
             FROM generate_series({numbers}) AS n"
        ),
    );
}

#[test]
fn pages_and_exports_have_every_record_once_while_others_come_in() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let (service, database) = on(&server);
    write(&server, &database, "1, 1500", "'disk ' || n");
    let mut seen: Vec<String> = Vec::new();
    let mut cursor = String::new();
    for page in 2..10 {
        let answer = service
            .get(&format!("/api/v1/audit?action=node.drain&limit=99{cursor}"))
            .json();
        let items = answer["items"].as_array().unwrap();
        seen.extend(items.iter().map(|item| item["reason"].as_str().unwrap().to_owned()));
        write(&server, &database, &format!("{page}000, {page}010"), "'late'");
        match answer["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let expected: Vec<String> = (1..=500).rev().map(|number| format!("disk {}", number * 3)).collect();
    assert_eq!(seen, expected);

    let mut wire = Wire::open(service.address());
    for (query, expected) in [
        ("?reason=DISK&cluster=demo", 1_500),
        ("?node=worker-1&reason=disk&limit=700", 700),
        ("?until=2030-01-01T00:00:02Z", 1),
    ] {
        let lines = wire
            .get(&format!("/api/v1/audit{query}"), &["accept: application/x-ndjson"])
            .unwrap();
        assert_eq!(lines.status, 200);
        let text = lines.text();
        let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records.len(), expected, "{query}");
        let record = records.last().unwrap();
        assert_eq!(record["after"]["unschedulable"], true, "{record}");
        let id = record["id"].as_str().unwrap();
        assert_eq!(service.get(&format!("/api/v1/audit/{id}")).json(), *record);
    }
}

#[test]
fn an_export_whose_database_goes_away_is_not_taken_for_whole() {
    let Some(mut server) = PostgresServer::start() else {
        return;
    };
    let (service, database) = on(&server);
    // More than all buffers on the way can hold.
    write(&server, &database, "1, 40000", "repeat('x', 1500)");
    let mut wire = Wire::open(service.address());
    wire.request("GET", "/api/v1/audit", &["accept: application/x-ndjson"])
        .unwrap();
    assert_eq!(wire.head().unwrap().status, 200);
    assert!(wire.chunk().unwrap().is_some());

    server.stop();

    let end = loop {
        match wire.chunk() {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(end.is_err(), "it ended as if it were whole");
    let line = service.wait_for_line("an answer was cut off");
    assert!(line.contains("request_id"), "{line}");
    assert_eq!(service.get("/api/v1/audit").status, 503);
}

#[test]
fn old_records_are_removed_and_lost_intents_are_given_up() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let database = server.create_database();
    let url = server.url(&database);
    let folder = tempfile::tempdir().unwrap();
    let migrated = run(PROGRAM, folder.path(), &["migrate"], &[("DATABASE_URL", &url)]);
    assert!(migrated.status.success());
    server.run(
        &database,
        "INSERT INTO audit_records (id, at_unix_ms, actor_kind, action, cluster, options_json, outcome, completed_at_unix_ms)
         SELECT (lpad(to_hex(n), 12, '0') || '70008000000000000000')::uuid, n, 'anonymous', 'node.cordon', 'demo', '{}',
             CASE n WHEN 1 THEN 'pending' ELSE 'succeeded' END, CASE n WHEN 1 THEN NULL ELSE 1 END
         FROM generate_series(1, 2500) AS n",
    );
    let variables = [
        ("DATABASE_URL", url.as_str()),
        ("KNM__CLUSTERS", "[]"),
        ("KNM__AUDIT__RETENTION_DAYS", "30"),
    ];
    let service = Service::start(PROGRAM, &[], &variables);
    service.wait_until_ready();
    service.wait_for_line("were given up");
    service.wait_for_line("old audit records were removed");
    assert_eq!(server.run(&database, "SELECT count(*) FROM audit_records"), "0");
}
