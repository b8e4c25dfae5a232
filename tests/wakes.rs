//! Two replicas on one PostgreSQL tell each other of operations: here each of them would look by itself in twelve minutes at the
//! earliest.

use knm_test_support::patience::wait_for;
use knm_test_support::postgres::PostgresServer;
use knm_test_support::service::Service;
use knm_test_support::wire::{Events, Wire};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");
const OPERATIONS: &str = "/api/v1/operations";
/// The same simulated nodes for both.
const CLUSTERS: &str = "[{name: demo, source: {demo: {nodes: 5, seed: 1, changes_per_second: 0}}}]";

/// What the replicas share; it ends with the test.
struct Shared {
    database: PostgresServer,
    name: String,
}

impl Shared {
    fn start() -> Option<Self> {
        let database = PostgresServer::start()?;
        Some(Self {
            name: database.create_database(),
            database,
        })
    }

    fn replica(&self) -> Service {
        let url = self.database.url(&self.name);
        let variables = [
            ("DATABASE_URL", url.as_str()),
            ("KNM__CLUSTERS", CLUSTERS),
            // Work is looked for five times in this time.
            ("KNM__OPERATIONS__LEASE", "3600"),
            ("KNM__OPERATIONS__POLL_INTERVAL", "3600"),
        ];
        let service = Service::start(PROGRAM, &[], &variables);
        service.wait_until_ready();
        service.wait_for_status("/api/v1/clusters/demo/nodes", 200);
        service
    }

    /// Which of the replicas works on the operation.
    fn owner(&self, replicas: &[Service; 2]) -> Option<usize> {
        let owner = self
            .database
            .run(&self.name, "SELECT coalesce(lease_owner, '') FROM operations");
        let is_it = |replica: &Service| owner.contains(&format!("/{}/", replica.id()));
        replicas.iter().position(is_it)
    }
}

fn post(service: &Service, path: &str, body: &Value) -> Value {
    let mut wire = Wire::open(service.address());
    let reply = wire.send_json("POST", path, &[], body).expect("an answer");
    assert!([200, 202].contains(&reply.status), "{}", reply.text());
    reply.json()
}

/// Begins to cordon two nodes, the second one an hour after the first.
fn cordon_slowly(service: &Service) -> String {
    let list = service.get("/api/v1/clusters/demo/nodes?limit=2").json();
    let names: Vec<&Value> = list["items"]
        .as_array()
        .expect("nodes")
        .iter()
        .map(|node| &node["name"])
        .collect();
    let wanted = json!({
        "kind": "cordon", "targets": {"nodes": names}, "reason": "disk",
        "strategy": {"max_concurrent": 1, "pause_between_seconds": 3600},
    });
    let accepted = post(service, "/api/v1/clusters/demo/operations", &wanted);
    accepted["id"].as_str().expect("an id").to_owned()
}

/// Reads on until the state is told of the operation or of a node, and returns the id of that event.
fn read_until(events: &mut Events, kind: &str, state: &str) -> String {
    let mut heartbeats = 0;
    loop {
        let event = events.next_event().expect("a stream").expect("it goes on");
        if event.kind == "heartbeat" {
            // One comes after 15 seconds without news.
            heartbeats += 1;
            assert!(heartbeats < 5, "{kind} {state} is never told");
        }
        let data: Value = serde_json::from_str(&event.data).expect("JSON");
        if event.kind == kind && data["state"] == state {
            return event.id;
        }
    }
}

#[test]
fn a_reader_and_a_wish_on_another_replica_wait_for_nobody_to_look() {
    let Some(shared) = Shared::start() else {
        return;
    };
    let replicas = [shared.replica(), shared.replica()];
    let id = cordon_slowly(&replicas[0]);
    let mut readers = replicas
        .each_ref()
        .map(|replica| Events::open(replica.address(), &format!("{OPERATIONS}/{id}/events"), &[]));
    for reader in &mut readers {
        read_until(reader, "node", "succeeded");
    }
    let owner = wait_for("an owner", || shared.owner(&replicas));

    post(&replicas[1 - owner], &format!("{OPERATIONS}/{id}/cancel"), &json!({}));

    for reader in &mut readers {
        read_until(reader, "operation", "cancelling");
        read_until(reader, "operation", "cancelled");
    }
}

#[test]
fn a_reader_who_was_cut_off_goes_on_at_another_replica() {
    let Some(shared) = Shared::start() else {
        return;
    };
    let replicas = [shared.replica(), shared.replica()];
    let id = cordon_slowly(&replicas[0]);
    let path = format!("{OPERATIONS}/{id}/events");
    let mut reader = Events::open(replicas[0].address(), &path, &[]);
    let first = reader.next_event().expect("a stream").expect("an event");
    let missed = reader.next_event().expect("a stream").expect("an event");
    let last = read_until(&mut reader, "node", "succeeded");
    drop(reader);

    let header = format!("last-event-id: {}", first.id);
    let mut again = Events::open(replicas[1].address(), &path, &[&header]);
    assert_eq!(again.next_event().expect("a stream"), Some(missed));
    assert_eq!(read_until(&mut again, "node", "succeeded"), last);

    let next = last.parse::<u64>().expect("a number") + 1;
    let header = format!("last-event-id: {next}");
    let mut wire = Wire::open(replicas[1].address());
    let refused = wire.get(&path, &[&header]).expect("an answer");
    assert_eq!(refused.status, 422);
    let text = refused.text();
    assert!(
        text.contains(&next.to_string()) && text.contains(&format!("the last one is {last}")),
        "{text}"
    );
}

#[test]
fn a_request_asks_for_the_same_operation_though_nothing_is_known_of_its_key() {
    let Some(shared) = Shared::start() else {
        return;
    };
    let replicas = [shared.replica(), shared.replica()];
    let list = replicas[0].get("/api/v1/clusters/demo/nodes?limit=1").json();
    let body = json!({"kind": "cordon", "targets": {"nodes": [list["items"][0]["name"]]}, "reason": "disk"});
    let path = "/api/v1/clusters/demo/operations";
    let send = |replica: &Service, key: &str, path: &str, body: &Value| {
        let key = format!("idempotency-key: {key}");
        let mut wire = Wire::open(replica.address());
        let reply = wire.send_json("POST", path, &[&key], body).expect("an answer");
        assert_eq!(reply.status, 202, "{}", reply.text());
        assert_eq!(reply.header("idempotency-replayed"), None);
        reply.json()["id"].as_str().expect("an id").to_owned()
    };
    // As after an error, of which nobody knows whether the operation was stored before.
    let forget = || shared.database.run(&shared.name, "DELETE FROM idempotency_keys");
    let first = send(&replicas[0], "k", path, &body);
    forget();
    assert_eq!(send(&replicas[1], "k", path, &body), first);
    let other = send(&replicas[1], "l", path, &body);
    assert_ne!(other, first);

    post(
        &replicas[0],
        &format!("{OPERATIONS}/{}/cancel", cordon_slowly(&replicas[0])),
        &json!({}),
    );
    let ids = replicas[0].get(&format!("{OPERATIONS}?limit=1")).json();
    let cancelled = ids["items"][0]["id"].as_str().expect("an id").to_owned();
    replicas[0].wait_until("it is cancelled", || {
        replicas[0].get(&format!("{OPERATIONS}/{cancelled}")).json()["state"] == "cancelled"
    });
    let retry = format!("{OPERATIONS}/{cancelled}/retry");
    let again = send(&replicas[0], "m", &retry, &json!({}));
    forget();
    assert_eq!(send(&replicas[1], "m", &retry, &json!({})), again);
    let all = replicas[1].get(OPERATIONS).json();
    assert_eq!(all["items"].as_array().map(Vec::len), Some(4), "{all}");
}

#[test]
fn what_a_replica_hands_over_is_taken_at_once() {
    let Some(shared) = Shared::start() else {
        return;
    };
    let replicas = [shared.replica(), shared.replica()];
    let id = cordon_slowly(&replicas[0]);
    let mut reader = Events::open(replicas[0].address(), &format!("{OPERATIONS}/{id}/events"), &[]);
    read_until(&mut reader, "node", "succeeded");
    let owner = wait_for("an owner", || shared.owner(&replicas));

    replicas[owner].signal("-TERM");

    wait_for("the other replica to go on", || {
        (shared.owner(&replicas) == Some(1 - owner)).then_some(())
    });
}

#[test]
fn operations_are_accepted_done_and_told_after_a_restart_of_the_database() {
    let Some(mut shared) = Shared::start() else {
        return;
    };
    let replicas = [shared.replica(), shared.replica()];
    shared.database.stop();
    for replica in &replicas {
        replica.wait_for_status("/health/ready", 503);
    }
    shared.database.start_again();
    for replica in &replicas {
        replica.wait_until_ready();
    }
    let id = cordon_slowly(&replicas[0]);
    for replica in &replicas {
        let mut reader = Events::open(replica.address(), &format!("{OPERATIONS}/{id}/events"), &[]);
        read_until(&mut reader, "node", "succeeded");
    }
}
