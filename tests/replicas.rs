//! Two replicas on one PostgreSQL and one Kubernetes API server.

use std::thread;
use std::time::Duration;

use knm_model::Timestamp;
use knm_test_support::cluster::{Cluster, node};
use knm_test_support::patience::wait_for;
use knm_test_support::postgres::PostgresServer;
use knm_test_support::service::Service;
use knm_test_support::wire::Wire;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");
const NODE: &str = "/api/v1/clusters/test/nodes/shared-1";

/// What the replicas share; it ends with the test.
struct Shared {
    _database: PostgresServer,
    cluster: Cluster,
    url: String,
}

impl Shared {
    fn start() -> Option<Self> {
        let database = PostgresServer::start()?;
        let cluster = Cluster::start()?;
        cluster.create_nodes([node("shared-1", &json!({}))]);
        Some(Self {
            url: database.url(&database.create_database()),
            _database: database,
            cluster,
        })
    }

    fn replica(&self) -> Service {
        let kubeconfig = self.cluster.kubeconfig().display().to_string();
        let service = Service::start(
            PROGRAM,
            &[],
            &[("DATABASE_URL", &self.url), ("KUBECONFIG", &kubeconfig)],
        );
        service.wait_until_ready();
        service.wait_for_status(NODE, 200);
        service
    }
}

fn change(service: &Service, method: &str, path: &str, body: &Value) -> Value {
    let mut wire = Wire::open(service.address());
    let reply = wire
        .send_json(method, &format!("{NODE}/{path}"), &[], body)
        .expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn holds(node: &Value) -> Vec<&str> {
    let holds = node["cordon"]["holds"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    holds.iter().filter_map(|hold| hold["reason"].as_str()).collect()
}

fn records(service: &Service, query: &str) -> Vec<Value> {
    let list = service.get(&format!("/api/v1/audit?limit=1000&{query}")).json();
    list["items"].as_array().expect("a list").clone()
}

#[test]
fn cordons_at_once_through_two_replicas_are_all_held_and_all_released() {
    let Some(shared) = Shared::start() else {
        return;
    };
    let replicas = [shared.replica(), shared.replica()];
    thread::scope(|scope| {
        for number in 0..12 {
            let replica = &replicas[number % 2];
            scope.spawn(move || {
                change(
                    replica,
                    "POST",
                    "cordon",
                    &json!({"reason": format!("reason {number:02}")}),
                )
            });
        }
    });
    let expected: Vec<String> = (0..12).map(|number| format!("reason {number:02}")).collect();
    // The label shows the node as the cluster has it, whichever patch came last.
    let after = change(&replicas[0], "PATCH", "labels", &json!({"set": {"seen": "yes"}}));
    let mut held = holds(&after);
    held.sort_unstable();
    assert_eq!(held, expected);
    assert_eq!(after["schedulable"], json!(false));

    let ids: Vec<Value> = after["cordon"]["holds"]
        .as_array()
        .expect("holds")
        .iter()
        .map(|hold| hold["id"].clone())
        .collect();
    thread::scope(|scope| {
        for (number, id) in ids.iter().enumerate() {
            let replica = &replicas[number % 2];
            scope.spawn(move || change(replica, "POST", "uncordon", &json!({"hold": id})));
        }
    });
    let free = change(&replicas[1], "PATCH", "labels", &json!({"remove": ["seen"]}));
    assert_eq!(
        (&free["schedulable"], &free["cordon"]),
        (&json!(true), &Value::Null),
        "{free}"
    );
    assert_eq!(records(&replicas[0], "outcome=succeeded").len(), 12 + 12 + 2);
    assert_eq!(records(&replicas[0], "outcome=pending"), Vec::<Value>::new());
}

#[test]
fn a_hold_that_ran_out_is_released_once_though_the_replica_that_looks_after_it_is_killed() {
    let Some(shared) = Shared::start() else {
        return;
    };
    let first = shared.replica();
    wait_for("the first replica to look after the holds", || {
        first
            .get("/metrics")
            .body
            .contains("kube_node_manager_cordon_holds")
            .then_some(())
    });
    let second = shared.replica();
    let until = service_time(&first);
    change(&first, "POST", "cordon", &json!({"reason": "for ever"}));
    change(&first, "POST", "cordon", &json!({"reason": "short", "until": until}));
    first.signal("-KILL");

    wait_for("the second replica to release it", || {
        let node = second.get(NODE).json();
        (holds(&node) == ["for ever"]).then_some(())
    });

    let released = records(&second, "action=node.uncordon");
    assert_eq!(released.len(), 1, "{released:?}");
    assert_eq!(
        (&released[0]["actor"]["kind"], &released[0]["outcome"]),
        (&json!("service"), &json!("succeeded"))
    );
    assert_eq!(
        second.get(NODE).json()["schedulable"],
        json!(false),
        "the other hold goes on"
    );
    let free = change(&second, "POST", "uncordon", &json!({}));
    assert_eq!(free["schedulable"], json!(true));
}

/// A few seconds from now, by the clock of the service.
fn service_time(service: &Service) -> String {
    let live = service.get("/health/live").json();
    let now = live["timestamp"].as_str().and_then(|text| Timestamp::parse(text).ok());
    now.expect("a time").plus(Duration::from_secs(3)).to_string()
}

#[test]
fn a_request_with_a_key_is_done_once_whatever_replica_gets_it_and_across_a_restart() {
    let Some(shared) = Shared::start() else {
        return;
    };
    let replicas = [shared.replica(), shared.replica()];
    let send = |service: &Service| {
        let mut wire = Wire::open(service.address());
        let body = json!({"reason": "disk"});
        let path = format!("{NODE}/cordon");
        wire.send_json("POST", &path, &["idempotency-key: k"], &body)
            .expect("an answer")
    };
    let answers: Vec<u16> = thread::scope(|scope| {
        let asked: Vec<_> = (0..8)
            .map(|number| &replicas[number % 2])
            .map(|replica| scope.spawn(move || send(replica).status))
            .collect();
        asked.into_iter().map(|one| one.join().expect("it ends")).collect()
    });
    assert!(
        answers.contains(&200) && answers.iter().all(|status| [200, 409].contains(status)),
        "{answers:?}"
    );
    let first = send(&replicas[0]);
    drop(replicas);

    let later = shared.replica();
    let again = send(&later);

    assert_eq!(
        (again.status, again.header("idempotency-replayed")),
        (200, Some("true"))
    );
    assert_eq!(again.body, first.body);
    assert_eq!(records(&later, "action=node.cordon").len(), 1);
}
