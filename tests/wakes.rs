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

/// Reads on until the state is told of the operation or of a node.
fn read_until(events: &mut Events, kind: &str, state: &str) {
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
            return;
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
