//! Operations on a real API server: what is accepted is done, whatever happens to those who do it and to what they need.

use std::collections::BTreeMap;
use std::time::Duration;

use knm_test_support::cluster::{Cluster, node, pod};
use knm_test_support::patience::wait_for;
use knm_test_support::postgres::{PASSWORD, PostgresServer, USERNAME};
use knm_test_support::service::Service;
use knm_test_support::wire::Wire;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");
const CLUSTER: &str = "/api/v1/clusters/test";
const BUDGET: &str = "/apis/policy/v1beta1/namespaces/default/poddisruptionbudgets";

/// How many nodes there are, and how many pods on each.
const NODES: usize = 6;
const PODS: usize = 4;

/// A cluster with nodes and pods, half of which a budget without room protects.
fn cluster() -> Option<Cluster> {
    let cluster = Cluster::start()?;
    cluster.create_nodes((0..NODES).map(|number| node(&format!("node-{number}"), &json!({"pool": "web"}))));
    for number in 0..NODES {
        for place in 0..PODS {
            let app = if place % 2 == 0 { "free" } else { "guarded" };
            let name = format!("{app}-{number}-{place}");
            let object = pod(&name, &format!("node-{number}"), app);
            cluster.create("/api/v1/namespaces/default/pods", &object);
        }
    }
    cluster.create(
        BUDGET,
        &json!({"metadata": {"name": "guarded"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}}}),
    );
    let_go(&cluster, 0);
    Some(cluster)
}

/// Gives the budget room, as the disruption controller would.
fn let_go(cluster: &Cluster, pods: usize) {
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": pods, "currentHealthy": pods + 1,
        "desiredHealthy": 1, "expectedPods": 99}});
    cluster.change(&format!("{BUDGET}/guarded/status"), &status);
}

fn post(service: &Service, path: &str, body: &Value) -> Value {
    let mut wire = Wire::open(service.address());
    let reply = wire.send_json("POST", path, &[], body).expect("an answer");
    assert!([200, 202].contains(&reply.status), "{}", reply.text());
    reply.json()
}

/// Begins to drain all nodes, three at once.
fn drain_all(service: &Service) -> String {
    let wanted = json!({
        "kind": "drain", "targets": {"label_selector": "pool=web"}, "reason": "kernel update",
        "options": {"force": true}, "strategy": {"max_concurrent": 3, "max_failures": "100%"},
    });
    let accepted = post(service, &format!("{CLUSTER}/operations"), &wanted);
    accepted["id"].as_str().expect("an id").to_owned()
}

fn shown(service: &Service, id: &str) -> Option<Value> {
    let answer = service.try_get(&format!("/api/v1/operations/{id}")).ok()?;
    (answer.status == 200).then(|| answer.json())
}

fn pods_in(operation: &Value, state: &str) -> usize {
    let targets = operation["targets"].as_array().into_iter().flatten();
    let pods = targets.flat_map(|target| target["drain"]["pods"].as_array().into_iter().flatten());
    pods.filter(|pod| pod["state"] == state).count()
}

fn wait_for_end(service: &Service, id: &str) -> Value {
    wait_for("the end of the operation", || {
        let operation = shown(service, id)?;
        let state = operation["state"].as_str()?;
        ["succeeded", "failed", "partly_failed", "cancelled"]
            .contains(&state)
            .then_some(operation)
    })
}

/// All events, read as a reader does who came too late.
fn events(service: &Service, id: &str) -> Vec<(u64, Value)> {
    let mut wire = Wire::open(service.address());
    let reply = wire
        .get(&format!("/api/v1/operations/{id}/events"), &["connection: close"])
        .expect("a stream that ends");
    let text = reply.text();
    let blocks = text.split("\n\n").filter_map(|block| {
        let line = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        let number = line("id: ")?.parse().ok()?;
        Some((number, serde_json::from_str(line("data: ")?).ok()?))
    });
    blocks.collect()
}

/// What must hold after all that happened.
fn check(service: &Service, id: &str, operation: &Value) {
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert_eq!(operation["progress"]["done"], json!(NODES));
    let log = events(service, id);
    let numbers: Vec<u64> = log.iter().map(|(number, _)| *number).collect();
    assert_eq!(
        numbers,
        (1..=numbers.len() as u64).collect::<Vec<_>>(),
        "no event is lost"
    );
    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    for (_, event) in &log {
        if event["message"] == "it is on its way out" {
            *asked.entry(event["uid"].to_string()).or_default() += 1;
        }
    }
    assert!(
        asked.values().all(|times| *times == 1),
        "each pod is evicted once: {asked:?}"
    );

    // All records: nobody else changed anything, so none may tell of something else.
    let audit = service.get("/api/v1/audit?limit=1000").json();
    let records = audit["items"].as_array().expect("records");
    assert_eq!(records.len(), NODES, "each change has one record: {records:#?}");
    assert!(
        records
            .iter()
            .all(|record| record["action"] == "node.drain" && record["outcome"] == "succeeded"),
        "{records:#?}"
    );

    for target in operation["targets"].as_array().expect("nodes") {
        let name = target["node"].as_str().expect("a name");
        let node = service.get(&format!("{CLUSTER}/nodes/{name}")).json();
        let holds = node["cordon"]["holds"].as_array().expect("holds");
        let ids: Vec<&Value> = holds.iter().map(|hold| &hold["id"]).collect();
        assert_eq!(ids, [&target["hold_id"]], "no hold is left that nobody owns");
    }
}

#[test]
fn a_drain_on_sqlite_survives_a_kill_of_its_only_replica() {
    let Some(cluster) = cluster() else {
        return;
    };
    let _kubelets = cluster.kubelets(Duration::from_millis(250));
    let folder = std::env::temp_dir().join(format!("knm-operations-{}", std::process::id()));
    let dsn = folder.join("knm.db").display().to_string();
    let kubeconfig = cluster.kubeconfig().display().to_string();
    let start = || {
        let variables = [
            ("DATABASE_URL", dsn.as_str()),
            ("KUBECONFIG", kubeconfig.as_str()),
            ("KNM__OPERATIONS__LEASE", "3"),
        ];
        let service = Service::start(PROGRAM, &[], &variables);
        service.wait_until_ready();
        service.wait_for_status(&format!("{CLUSTER}/nodes/node-5"), 200);
        service
    };
    let first = start();
    let id = drain_all(&first);
    wait_for("blocked pods", || {
        (pods_in(&shown(&first, &id)?, "blocked") == 6).then_some(())
    });
    first.signal("-KILL");
    drop(first);
    let_go(&cluster, 99);

    let second = start();
    let operation = wait_for_end(&second, &id);

    check(&second, &id, &operation);
    assert_eq!(cluster.evictions(), NODES * PODS, "each pod is evicted once");
    std::fs::remove_dir_all(folder).expect("it can be removed");
}

/// What two replicas share; it ends with the test.
struct Shared {
    database: PostgresServer,
    name: String,
    cluster: Cluster,
}

impl Shared {
    fn start() -> Option<Self> {
        let database = PostgresServer::start()?;
        let cluster = cluster()?;
        Some(Self {
            name: database.create_database(),
            database,
            cluster,
        })
    }

    fn replica(&self) -> Service {
        self.replica_at(&self.database.url(&self.name), "3")
    }

    /// One that the database knows by a name of its own.
    fn replica_called(&self, name: &str) -> Service {
        let create = format!("CREATE ROLE {name} LOGIN SUPERUSER PASSWORD '{PASSWORD}'");
        self.database.run(&self.name, &create);
        let url = self.database.url(&self.name);
        let url = url.replacen(&format!("//{USERNAME}:"), &format!("//{name}:"), 1);
        self.replica_at(&url, "3")
    }

    /// One with leases of so many seconds.
    fn replica_at(&self, url: &str, lease: &str) -> Service {
        let kubeconfig = self.cluster.kubeconfig().display().to_string();
        let variables = [
            ("DATABASE_URL", url),
            ("KUBECONFIG", kubeconfig.as_str()),
            ("KNM__OPERATIONS__LEASE", lease),
        ];
        let service = Service::start(PROGRAM, &[], &variables);
        service.wait_until_ready();
        service.wait_for_status(&format!("{CLUSTER}/nodes/node-5"), 200);
        service
    }

    fn column(&self, column: &str) -> String {
        let statement = format!("SELECT {column} FROM operations");
        self.database.run(&self.name, &statement).trim().to_owned()
    }

    /// From now on the database notes who writes rows of what operations are about.
    fn note_writers(&self) {
        let run = |statement: &str| self.database.run(&self.name, statement);
        run("CREATE TABLE writes (who TEXT, what TEXT)");
        run("CREATE FUNCTION note_write() RETURNS trigger LANGUAGE plpgsql AS \
            'BEGIN INSERT INTO writes VALUES (session_user, TG_TABLE_NAME); RETURN NULL; END'");
        for table in [
            "operations",
            "operation_targets",
            "operation_events",
            "cordon_holds",
            "audit_records",
        ] {
            run(&format!(
                "CREATE TRIGGER note_write AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION note_write()"
            ));
        }
    }

    /// How many rows of what operations are about somebody wrote since then.
    fn written_by(&self, name: &str) -> u64 {
        let statement = format!("SELECT count(*) FROM writes WHERE who = '{name}'");
        self.database.run(&self.name, &statement).parse().expect("a number")
    }

    /// Which of the replicas works on the operation.
    fn owner(&self, replicas: &[&Service]) -> Option<usize> {
        let owner = self.column("lease_owner");
        let is_it = |replica: &&Service| owner.contains(&format!("/{}/", replica.id()));
        replicas.iter().position(is_it)
    }
}

#[test]
fn a_batch_survives_a_frozen_owner_a_killed_owner_and_restarts_of_the_database_and_the_api_server() {
    let Some(mut shared) = Shared::start() else {
        return;
    };
    let _kubelets = shared.cluster.kubelets(Duration::from_millis(250));
    let names = ["first", "second"];
    let [one, other] = names.map(|name| shared.replica_called(name));
    let id = drain_all(&one);
    wait_for("blocked pods", || {
        (pods_in(&shown(&one, &id)?, "blocked") == 6).then_some(())
    });

    // The owner freezes for longer than its lease, and wakes up again.
    let frozen = wait_for("an owner", || shared.owner(&[&one, &other]));
    let replicas = [&one, &other];
    replicas[frozen].signal("-STOP");
    let second = wait_for("another owner", || {
        shared.owner(&replicas).filter(|owner| *owner != frozen)
    });
    let (owner, epoch) = (shared.column("lease_owner"), shared.column("lease_epoch"));
    shared.note_writers();
    replicas[frozen].signal("-CONT");
    wait_for("the late owner to notice", || {
        let metrics = replicas[frozen].get("/metrics").body;
        let lost = metrics
            .lines()
            .find(|line| line.starts_with("kube_node_manager_operation_leases_lost_total"))?;
        lost.ends_with(" 1").then_some(())
    });
    assert_eq!(
        (shared.column("lease_owner"), shared.column("lease_epoch")),
        (owner, epoch)
    );
    wait_for("the owner to write", || {
        (0 < shared.written_by(names[second])).then_some(())
    });
    assert_eq!(shared.written_by(names[frozen]), 0, "a late owner writes nothing");

    // The one that took over is killed, and the first one goes on.
    replicas[second].signal("-KILL");
    let rest = replicas[frozen];
    wait_for("the first owner again", || {
        (shared.owner(&replicas) == Some(frozen)).then_some(())
    });

    let before = shared.cluster.evictions();
    shared.database.stop();
    shared.database.start_again();
    let_go(&shared.cluster, 3);
    wait_for("some more pods to go", || {
        (9 <= pods_in(&shown(rest, &id)?, "gone")).then_some(())
    });
    let before = before.max(shared.cluster.evictions());
    shared.cluster.stop();
    std::thread::sleep(Duration::from_secs(3));
    shared.cluster.start_again();
    let_go(&shared.cluster, 99);

    let operation = wait_for_end(rest, &id);

    check(rest, &id, &operation);
    // The API server counts from its start.
    assert!(
        before + shared.cluster.evictions() <= NODES * PODS,
        "each pod is evicted once"
    );
}

#[test]
fn another_replica_goes_on_within_fifteen_seconds_after_a_kill_with_the_usual_lease() {
    let Some(shared) = Shared::start() else {
        return;
    };
    let _kubelets = shared.cluster.kubelets(Duration::from_millis(250));
    let url = shared.database.url(&shared.name);
    let replicas = [shared.replica_at(&url, "10"), shared.replica_at(&url, "10")];
    let replicas = replicas.each_ref();
    let id = drain_all(replicas[0]);
    wait_for("blocked pods", || {
        (pods_in(&shown(replicas[0], &id)?, "blocked") == 6).then_some(())
    });
    let first = wait_for("an owner", || shared.owner(&replicas));
    // By the clock of the database: a lease that was taken or extended a moment ago ends a lease later.
    let column = |column: &str| shared.column(column).parse::<i64>().expect("milliseconds");
    let killed = column("(extract(epoch FROM clock_timestamp()) * 1000)::bigint");

    replicas[first].signal("-KILL");

    wait_for("another owner", || {
        (shared.owner(&replicas) == Some(1 - first)).then_some(())
    });
    let taken = column("lease_expires_at_unix_ms - 10000");
    assert!(taken - killed <= 15_000, "it took {} ms", taken - killed);
}

#[test]
fn a_replica_that_is_asked_to_end_hands_over_at_once() {
    let Some(shared) = Shared::start() else {
        return;
    };
    let _kubelets = shared.cluster.kubelets(Duration::from_millis(250));
    let (one, other) = (shared.replica(), shared.replica());
    let id = drain_all(&one);
    wait_for("blocked pods", || {
        (pods_in(&shown(&one, &id)?, "blocked") == 6).then_some(())
    });
    let replicas = [&one, &other];
    let first = wait_for("an owner", || shared.owner(&replicas));

    replicas[first].signal("-TERM");
    replicas[first].wait_for_line("operations handed over");

    let rest = replicas[1 - first];
    wait_for("another owner", || {
        (shared.owner(&replicas) == Some(1 - first)).then_some(())
    });
    let_go(&shared.cluster, 99);
    let operation = wait_for_end(rest, &id);
    check(rest, &id, &operation);
}

#[test]
fn a_binding_repairs_nodes_once_whichever_replica_it_was_written_on() {
    let Some(shared) = Shared::start() else {
        return;
    };
    let (one, other) = (shared.replica(), shared.replica());
    let create = |service: &Service, path: &str, body: &Value| {
        let mut wire = Wire::open(service.address());
        let reply = wire.send_json("POST", path, &[], body).expect("an answer");
        assert_eq!(reply.status, 201, "{}", reply.text());
    };
    let template = json!({"name": "web", "labels": {"team": "shop"},
        "taints": [{"key": "example.com/web", "value": "yes", "effect": "NoSchedule"}]});
    create(&one, "/api/v1/templates", &template);
    let binding = json!({"name": "web-nodes", "template": "web", "label_selector": "pool=web", "reconcile": true});
    create(&other, "/api/v1/bindings", &binding);

    let drift = |service: &Service| service.get("/api/v1/bindings/web-nodes/drift").json();
    assert_eq!(drift(&one)["compared"], json!(NODES));
    wait_for("the repair, as both replicas see it", || {
        (drift(&one)["drifted"] == 0 && drift(&other)["drifted"] == 0).then_some(())
    });

    let node = one.get(&format!("{CLUSTER}/nodes/node-3")).json();
    assert_eq!(node["labels"]["team"], "shop");
    let taints = node["taints"].as_array().expect("taints");
    assert!(taints.iter().any(|taint| taint["key"] == "example.com/web"), "{node}");
    let audit = one.get("/api/v1/audit?actor=binding/web-nodes").json();
    let records = audit["items"].as_array().expect("records");
    assert_eq!(records.len(), NODES, "{audit}");
    assert!(records.iter().all(|record| record["outcome"] == "succeeded"), "{audit}");
    let operations = other.get("/api/v1/operations").json();
    assert_eq!(operations["items"].as_array().map(Vec::len), Some(1), "{operations}");
}
