//! Clusters that are registered while the service runs: a real API server, two replicas on one PostgreSQL, keys that change.

use std::path::{Path, PathBuf};

use knm_test_support::cluster::{Cluster, node};
use knm_test_support::patience::wait_for;
use knm_test_support::postgres::PostgresServer;
use knm_test_support::service::{Service, run};
use knm_test_support::wire::{Events, Reply, Wire};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");
const CLUSTERS: &str = "/api/v1/clusters";
const EAST: &str = "/api/v1/clusters/east";

/// What must be seen nowhere, and everything that was seen.
#[derive(Default)]
struct Watchdog {
    secrets: Vec<String>,
    seen: Vec<String>,
}

impl Watchdog {
    /// Of these texts no part of 24 characters or more may be seen: a line of a key is enough.
    fn hide(&mut self, text: &str) {
        let parts = text.split(|character: char| !(character.is_ascii_alphanumeric() || "+/=._-".contains(character)));
        self.secrets
            .extend(parts.filter(|part| 24 <= part.len()).map(str::to_owned));
        assert!(!self.secrets.is_empty(), "there is nothing to hide");
    }

    fn hide_kubeconfig(&mut self, kubeconfig: &Value) {
        let key = kubeconfig["users"][0]["user"]["client-key-data"]
            .as_str()
            .expect("a key");
        self.hide(key);
    }

    fn send(&mut self, service: &Service, method: &str, path: &str, headers: &[&str], body: &Value) -> Reply {
        let mut wire = Wire::open(service.address());
        let reply = wire.send_json(method, path, headers, body).expect("an answer");
        self.seen.push(reply.text());
        reply
    }

    fn get(&mut self, service: &Service, path: &str) -> Value {
        let answer = service.get(path);
        self.seen.push(answer.body.clone());
        answer.json()
    }

    fn check(mut self, services: &[&Service], files: &[PathBuf]) {
        for service in services {
            self.seen.extend(service.lines());
            self.seen.push(service.get("/metrics").body);
            self.seen.push(service.get("/api/v1/audit?limit=1000").body);
            self.seen.push(service.get(CLUSTERS).body);
        }
        let leaked = |text: &str| {
            self.secrets
                .iter()
                .find(|secret| text.contains(secret.as_str()))
                .cloned()
        };
        for text in &self.seen {
            assert_eq!(leaked(text), None, "{text}");
        }
        for file in files {
            let bytes = std::fs::read(file).unwrap_or_default();
            assert_eq!(leaked(&String::from_utf8_lossy(&bytes)), None, "{}", file.display());
        }
    }
}

/// Writes a file of these keys; the newest comes first.
fn key_file(folder: &Path, lines: &[String]) -> String {
    let path = folder.join("keys");
    std::fs::write(&path, lines.join("")).expect("a file of keys");
    path.display().to_string()
}

fn new_key(folder: &Path, id: &str) -> String {
    let output = run(PROGRAM, folder, &["secrets", "generate-key", "--id", id], &[]);
    assert!(output.status.success(), "{output:?}");
    let line = String::from_utf8(output.stdout).expect("text");
    assert!(line.starts_with(&format!("{id}:")), "it is a line of a file of keys");
    line
}

fn start(database: &str, keys: Option<&str>) -> Service {
    let mut variables = vec![
        ("DATABASE_URL", database),
        ("KNM__CLUSTERS", "[]"),
        ("KNM__REGISTRATION__ALLOW_LOOPBACK", "true"),
        ("LOG_LEVEL", "debug"),
    ];
    variables.extend(keys.map(|keys| ("KNM__SECRETS__KEY_FILE", keys)));
    let service = Service::start(PROGRAM, &[], &variables);
    service.wait_until_ready();
    service
}

fn nodes(service: &Service, cluster: &str) -> usize {
    let answer = service.get(&format!("{CLUSTERS}/{cluster}/nodes"));
    match answer.status {
        200 => answer.json()["items"].as_array().map_or(0, Vec::len),
        _ => 0,
    }
}

#[test]
fn replicas_follow_what_is_registered_replaced_and_removed() {
    let (Some(database), Some(cluster)) = (PostgresServer::start(), Cluster::start()) else {
        return;
    };
    cluster.create_nodes(["a", "b", "c"].map(|name| node(name, &json!({}))));
    let url = database.url(&database.create_database());
    let folder = tempfile::tempdir().expect("a folder");
    let key = new_key(folder.path(), "first");
    let keys = key_file(folder.path(), std::slice::from_ref(&key));
    let mut watchdog = Watchdog::default();
    watchdog.hide(&key["first:".len()..]);
    let kubeconfig = cluster.inline_kubeconfig();
    watchdog.hide_kubeconfig(&kubeconfig);
    let token = cluster.token("robot");
    watchdog.hide(&token);
    let [one, two] = [start(&url, Some(&keys)), start(&url, Some(&keys))];

    // Tried, and not stored.
    let body = json!({"name": "east", "kubeconfig": kubeconfig.to_string()});
    let tried = watchdog.send(&one, "POST", &format!("{CLUSTERS}?dry_run=true"), &[], &body);
    assert_eq!(
        (tried.status, &tried.json()["ok"]),
        (200, &json!(true)),
        "{}",
        tried.text()
    );
    assert_eq!(tried.json()["checks"][1]["answer"], "3");
    assert_eq!(watchdog.get(&one, CLUSTERS)["total"], 0);

    let made = watchdog.send(&one, "POST", CLUSTERS, &[], &body);
    assert_eq!(made.status, 201, "{}", made.text());
    let shown = made.json();
    assert_eq!(
        (&shown["source"], &shown["user"]),
        (&json!("registered"), &json!("admin"))
    );
    assert_eq!(shown["server"], format!("{}/", cluster.url()));
    assert!(shown["credentials_expire_at"].is_string(), "{shown}");
    let tag = made.header("etag").expect("a tag").to_owned();
    for service in [&one, &two] {
        wait_for("the nodes", || (nodes(service, "east") == 3).then_some(()));
    }
    assert_eq!(watchdog.send(&two, "POST", CLUSTERS, &[], &body).status, 409);
    let mut events = Events::open(two.address(), &format!("{EAST}/watch"), &[]);

    // Other credentials, through the other replica.
    let body = json!({"server": cluster.url(), "certificate_authority": cluster.authority(), "token": token});
    let stale = watchdog.send(
        &two,
        "PUT",
        EAST,
        &["if-match: \"01b8dac5-b400-7000-8000-00000000000b\""],
        &body,
    );
    assert_eq!(stale.status, 412, "{}", stale.text());
    let replaced = watchdog.send(&two, "PUT", EAST, &[&format!("if-match: {tag}")], &body);
    assert_eq!(replaced.status, 200, "{}", replaced.text());
    let shown = replaced.json();
    assert_eq!(shown["user"], "system:serviceaccount:default:robot");
    assert_eq!(shown["credentials_expire_soon"], true, "a token of an hour: {shown}");
    assert_eq!(shown["warnings"].as_array().map(Vec::len), Some(1));
    let mut last = None;
    while let Some(event) = events.next_event().expect("the stream ends in order") {
        last = Some(event);
    }
    assert_eq!(
        last.map(|event| (event.kind, event.data)),
        Some(("end".to_owned(), r#"{"reason":"cluster_gone"}"#.to_owned()))
    );
    wait_for("the other replica to follow", || {
        let user = watchdog.get(&one, EAST)["user"].clone();
        (user == "system:serviceaccount:default:robot" && nodes(&one, "east") == 3).then_some(())
    });
    let tested = watchdog.send(&one, "POST", &format!("{EAST}/test"), &[], &json!({}));
    assert_eq!(
        (tested.status, &tested.json()["ok"]),
        (200, &json!(true)),
        "{}",
        tested.text()
    );
    assert!(
        one.get("/metrics")
            .body
            .contains("kube_node_manager_cluster_credentials_expire_timestamp_seconds{cluster=\"east\"}")
    );
    one.wait_for_line("the credentials of a cluster end soon");

    // Removed while an operation is not over.
    cluster.freeze();
    let change = json!({"kind": "label", "targets": {"nodes": ["a", "b", "c"]}, "options": {"set": {"late": "yes"}}});
    let accepted = watchdog.send(&one, "POST", &format!("{EAST}/operations"), &[], &change);
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let id = accepted.json()["id"].as_str().expect("an id").to_owned();
    let refused = watchdog.send(&two, "DELETE", EAST, &[], &json!({}));
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert!(refused.text().contains(&id), "{}", refused.text());
    cluster.thaw();
    let removed = watchdog.send(
        &two,
        "DELETE",
        &format!("{EAST}?cancel_operations=true"),
        &[],
        &json!({}),
    );
    assert_eq!(removed.status, 204, "{}", removed.text());
    for service in [&one, &two] {
        service.wait_for_status(EAST, 404);
        let metrics = service.get("/metrics").body;
        assert!(!metrics.contains("cluster=\"east\""), "its series are gone");
    }
    let records = watchdog.get(&one, "/api/v1/audit?cluster=east&limit=100");
    let actions: Vec<&str> = records["items"]
        .as_array()
        .expect("records")
        .iter()
        .filter_map(|record| record["action"].as_str())
        .filter(|action| action.starts_with("cluster."))
        .collect();
    assert_eq!(actions, ["cluster.remove", "cluster.replace", "cluster.register"]);
    watchdog.check(&[&one, &two], &[]);
}

#[test]
fn a_registered_cluster_outlives_restarts_and_keys_are_rotated() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    cluster.create_nodes([node("a", &json!({}))]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("knm.db");
    let database = format!("sqlite://{}", file.display());
    let [old, new] = ["old", "new"].map(|id| new_key(folder.path(), id));
    let mut watchdog = Watchdog::default();
    watchdog.hide(&old["old:".len()..]);
    watchdog.hide(&new["new:".len()..]);
    let kubeconfig = cluster.inline_kubeconfig();
    watchdog.hide_kubeconfig(&kubeconfig);
    let token = cluster.token("robot");
    watchdog.hide(&token);

    let keys = key_file(folder.path(), std::slice::from_ref(&old));
    let service = start(&database, Some(&keys));
    let by_token = json!({"server": cluster.url(), "certificate_authority": cluster.authority(), "token": token});
    let bodies = [
        json!({"name": "east", "kubeconfig": kubeconfig.to_string()}),
        json!({"name": "west", "server": by_token["server"], "certificate_authority": by_token["certificate_authority"], "token": token}),
    ];
    for body in &bodies {
        let made = watchdog.send(&service, "POST", CLUSTERS, &["idempotency-key: k"], body);
        // The key is of the first one.
        assert!([201, 422].contains(&made.status), "{}", made.text());
    }
    let made = watchdog.send(&service, "POST", CLUSTERS, &[], &bodies[1]);
    assert_eq!(made.status, 201, "{}", made.text());
    wait_for("the nodes", || {
        (nodes(&service, "east") + nodes(&service, "west") == 2).then_some(())
    });
    watchdog.seen.extend(service.lines());
    drop(service);

    // Without the right key everything but these clusters works, and says why they do not.
    let other = key_file(folder.path(), std::slice::from_ref(&new));
    let service = start(&database, Some(&other));
    wait_for("the reason", || {
        let reason = watchdog.get(&service, EAST)["reason"].clone();
        reason.as_str()?.contains("secrets.key_file").then_some(())
    });
    let tested = watchdog.send(&service, "POST", &format!("{EAST}/test"), &[], &json!({}));
    assert_eq!(
        (tested.status, &tested.json()["ok"]),
        (200, &json!(false)),
        "{}",
        tested.text()
    );
    watchdog.seen.extend(service.lines());
    let rotate = |keys: &str| {
        let variables = [("DATABASE_URL", database.as_str()), ("KNM__SECRETS__KEY_FILE", keys)];
        run(PROGRAM, folder.path(), &["secrets", "rotate"], &variables)
    };
    let refused = rotate(&other);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains("cluster east: the key \"old\" is not there"), "{told}");
    watchdog.seen.push(told);
    drop(service);

    // With both keys, while the service runs.
    let both = key_file(folder.path(), &[new.clone(), old]);
    let service = start(&database, Some(&both));
    wait_for("the nodes", || {
        (nodes(&service, "east") + nodes(&service, "west") == 2).then_some(())
    });
    for expected in [
        "2 secrets sealed anew",
        "0 secrets sealed anew with the newest key, 2 already were",
    ] {
        let rotated = rotate(&both);
        let told = String::from_utf8_lossy(&rotated.stdout).into_owned();
        assert!(
            rotated.status.success() && told.contains(expected),
            "{told} {rotated:?}"
        );
    }
    watchdog.seen.extend(service.lines());
    drop(service);

    // Then the newest is enough.
    let last = key_file(folder.path(), std::slice::from_ref(&new));
    let service = start(&database, Some(&last));
    wait_for("the nodes", || {
        (nodes(&service, "east") + nodes(&service, "west") == 2).then_some(())
    });
    let files = ["knm.db", "knm.db-wal", "knm.db-shm"].map(|name| folder.path().join(name));
    assert!(files[0].is_file());
    watchdog.check(&[&service], &files);
}

#[test]
fn without_a_key_nothing_is_registered_and_it_is_told_what_to_configure() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = format!("sqlite://{}", folder.path().join("knm.db").display());
    let service = start(&database, None);
    let mut watchdog = Watchdog::default();
    let body = json!({"name": "east", "server": "https://10.0.0.1", "token": "hunter2"});
    let refused = watchdog.send(&service, "POST", CLUSTERS, &[], &body);
    assert_eq!(refused.status, 501, "{}", refused.text());
    assert_eq!(refused.json()["type"], "urn:kube-node-manager:problem:not-configured");
    assert!(refused.text().contains("secrets.key_file"), "{}", refused.text());
    let unknown = watchdog.send(&service, "PUT", EAST, &[], &body);
    assert_eq!(
        unknown.status,
        422,
        "a name is no part of credentials: {}",
        unknown.text()
    );
    assert_eq!(watchdog.send(&service, "DELETE", EAST, &[], &json!({})).status, 404);
    assert_eq!(
        watchdog
            .send(&service, "POST", &format!("{EAST}/test"), &[], &json!({}))
            .status,
        404
    );
}

#[test]
fn what_is_refused_is_told_by_its_field_and_not_repeated() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = format!("sqlite://{}", folder.path().join("knm.db").display());
    let key = new_key(folder.path(), "a");
    let keys = key_file(folder.path(), &[key]);
    let service = Service::start(
        PROGRAM,
        &[],
        &[
            ("DATABASE_URL", &database),
            ("KNM__CLUSTERS", "[{name: here, source: {demo: {nodes: 2}}}]"),
            ("KNM__SECRETS__KEY_FILE", &keys),
            ("LOG_LEVEL", "debug"),
        ],
    );
    service.wait_until_ready();
    let canary = "hunter2-hunter2-hunter2-hunter2";
    let mut watchdog = Watchdog::default();
    watchdog.hide(canary);
    let exec = format!(
        "current-context: a\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\nclusters: [{{name: a, cluster: {{server: 'https://10.0.0.1'}}}}]\n\
         users: [{{name: a, user: {{exec: {{command: {canary}}}}}}}]\n"
    );
    for (body, status, expected) in [
        (json!({"name": "east", "kubeconfig": exec}), 422, "users[].user.exec"),
        (json!({"name": "east", "kubeconfig": canary}), 422, "not a kubeconfig"),
        (
            json!({"name": "east", "server": "https://127.0.0.1", "token": canary}),
            422,
            "registration.allow_loopback",
        ),
        (
            json!({"name": "east", "server": "https://169.254.169.254", "token": canary}),
            422,
            "metadata",
        ),
        (
            json!({"name": "east", "server": format!("https://a:{canary}@10.0.0.1"), "token": canary}),
            422,
            "user or password",
        ),
        (
            json!({"name": "east", "server": "https://10.0.0.1", "token": canary, "insecure_skip_tls_verify": true}),
            422,
            "registration.allow_insecure_tls",
        ),
        (
            json!({"name": "here", "server": "https://10.0.0.1", "token": canary}),
            409,
            "comes from the configuration",
        ),
        (json!({"name": "east", "token": [canary]}), 422, "not repeated"),
        (json!(canary), 422, "not repeated"),
        (json!({"name": "east", "token": canary, canary: 1}), 422, "not repeated"),
    ] {
        let refused = watchdog.send(&service, "POST", CLUSTERS, &[], &body);
        assert_eq!(refused.status, status, "{}", refused.text());
        assert!(refused.text().contains(expected), "{expected}: {}", refused.text());
    }
    for method in ["PUT", "DELETE"] {
        let refused = watchdog.send(
            &service,
            method,
            "/api/v1/clusters/here",
            &[],
            &json!({"server": "https://10.0.0.1", "token": canary}),
        );
        assert_eq!(refused.status, 409, "{}", refused.text());
    }
    // One that cannot be reached is registered all the same, and a test says that it cannot.
    let body = json!({"name": "east", "server": "https://192.0.2.1:6443", "token": canary});
    assert_eq!(watchdog.send(&service, "POST", CLUSTERS, &[], &body).status, 201);
    let tested = watchdog.send(&service, "POST", &format!("{EAST}/test"), &[], &json!({}));
    assert_eq!(
        (tested.status, &tested.json()["ok"]),
        (200, &json!(false)),
        "{}",
        tested.text()
    );
    let files = ["knm.db", "knm.db-wal"].map(|name| folder.path().join(name));
    watchdog.check(&[&service], &files);
}

#[test]
fn a_file_of_keys_that_is_none_ends_the_start_and_is_not_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = key_file(folder.path(), &["hunter2\n".to_owned()]);
    let variables = [
        ("PORT", "0"),
        ("KNM__SERVER__HOST", "127.0.0.1"),
        ("KNM__CLUSTERS", "[]"),
        ("KNM__SECRETS__KEY_FILE", keys.as_str()),
    ];
    let output = run(PROGRAM, folder.path(), &["serve"], &variables);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("line 1") && told.contains("generate-key"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
    let output = run(PROGRAM, folder.path(), &["secrets", "rotate"], &[]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("secrets.key_file is not set"),
        "{output:?}"
    );
}
