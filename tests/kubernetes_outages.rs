//! Clusters that go away and come back while the service watches them.

use knm_test_support::cluster::{Cluster, node};
use knm_test_support::patience::wait_for;
use knm_test_support::service::Service;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");

fn wait_for_state(service: &Service, cluster: &str, state: &str) -> Value {
    wait_for(&format!("{cluster} to be {state}"), || {
        let seen = service.get(&format!("/api/v1/clusters/{cluster}")).json();
        (seen["state"] == state).then_some(seen)
    })
}

fn node_names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("a list");
    items
        .iter()
        .map(|item| item["name"].as_str().expect("a name"))
        .collect()
}

fn assert_stale_but_served(service: &Service) {
    let seen = wait_for_state(service, "test", "degraded");
    assert_eq!((&seen["stale"], &seen["nodes"]), (&true.into(), &2.into()), "{seen}");
    let list = service.get("/api/v1/clusters/test/nodes");
    assert_eq!(list.status, 200);
    let list = list.json();
    assert_eq!(node_names(&list), ["one", "two"]);
    assert_eq!(list["stale"], true, "{list}");
    assert_eq!(
        service.get("/health/ready").status,
        200,
        "no cluster makes it not ready"
    );
    let detailed = service.get("/health/detailed");
    assert_eq!(
        (detailed.status, &detailed.json()["status"]),
        (200, &"degraded".into()),
        "{}",
        detailed.body
    );
    assert_eq!(
        detailed.json()["details"]["clusters"]["test"]["status"],
        "degraded",
        "{}",
        detailed.body
    );
    let metrics = service.get("/metrics").body;
    assert!(
        metrics.contains("\nkube_node_manager_cluster_up{cluster=\"test\"} 0\n"),
        "{metrics}"
    );
}

#[test]
fn a_cluster_that_was_away_is_served_stale_and_seen_again_without_a_restart() {
    let Some(mut cluster) = Cluster::start() else {
        return;
    };
    cluster.create_nodes([node("one", &json!({})), node("two", &json!({}))]);
    let kubeconfig = cluster.kubeconfig().display().to_string();
    let service = Service::start(PROGRAM, &[], &[("KUBECONFIG", &kubeconfig)]);
    service.wait_until_ready();
    wait_for_state(&service, "test", "healthy");

    cluster.stop();
    assert_stale_but_served(&service);
    assert_eq!(service.get("/api/v1/clusters/test/nodes/one/pods").status, 503);

    cluster.start_again();
    cluster.create_nodes([node("three", &json!({}))]);
    let list = wait_for("the new node", || {
        let list = service.get("/api/v1/clusters/test/nodes").json();
        (node_names(&list) == ["one", "three", "two"] && list["stale"] == false).then_some(list)
    });
    assert_eq!(list["stale"], false);
    assert_eq!(wait_for_state(&service, "test", "healthy")["stale"], false);
    assert_eq!(service.get("/health/detailed").json()["status"], "healthy");
    // Attempts that found nobody do not count.
    let restarts = wait_for("each watch that was opened to be counted", || {
        let metrics = service.get("/metrics").body;
        let value = |series: &str| -> Option<u64> {
            let mut lines = metrics.lines();
            lines.find_map(|line| line.strip_prefix(series))?.trim().parse().ok()
        };
        let opened = "kube_node_manager_kubernetes_requests_total{cluster=\"test\",verb=\"watch\",resource=\"nodes\",code=\"200\"}";
        let restarts = value("kube_node_manager_cluster_watch_restarts_total{cluster=\"test\",resource=\"nodes\"}")?;
        (value(opened)? == restarts + 1).then_some(restarts)
    });
    assert_ne!(restarts, 0);
    let lines = service.lines();
    for said in ["cluster lost", "cluster seen again"] {
        let times = lines.iter().filter(|line| line.contains(said)).count();
        assert_eq!(times, 1, "{said}: {}", lines.join("\n"));
    }
}

#[test]
fn a_cluster_that_hangs_is_served_stale_until_it_goes_on() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    cluster.create_nodes([node("one", &json!({})), node("two", &json!({}))]);
    let kubeconfig = cluster.kubeconfig().display().to_string();
    let variables = [
        ("KUBECONFIG", kubeconfig.as_str()),
        ("KNM__KUBERNETES__REQUEST_TIMEOUT", "2"),
    ];
    let service = Service::start(PROGRAM, &[], &variables);
    service.wait_until_ready();
    wait_for_state(&service, "test", "healthy");

    cluster.freeze();
    assert_stale_but_served(&service);
    assert_eq!(service.get("/api/v1/clusters/test/nodes/one/pods").status, 504);
    cluster.thaw();
    wait_for_state(&service, "test", "healthy");
}

#[test]
fn a_cluster_that_cannot_be_reached_is_named_and_the_others_are_served() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    cluster.create_nodes([node("one", &json!({})), node("two", &json!({}))]);
    // Nobody listens at port 1.
    let (here, away) = (cluster.kubeconfig(), cluster.kubeconfig_through(1));
    let clusters = format!(
        "[{{name: away, source: {{kubeconfig: {{path: {}}}}}}}, {{name: here, source: {{kubeconfig: {{path: {}}}}}}}]",
        away.display(),
        here.display()
    );
    let service = Service::start(PROGRAM, &[], &[("KNM__CLUSTERS", &clusters)]);
    service.wait_until_ready();
    wait_for_state(&service, "here", "healthy");
    wait_for("the log to name it", || {
        let named = |line: &String| line.contains("cluster lost") && line.contains("\"cluster\":\"away\"");
        service.lines().iter().any(named).then_some(())
    });
    let answer = service.get("/api/v1/nodes");
    assert_eq!(answer.status, 200);
    let list = answer.json();
    assert_eq!(node_names(&list), ["one", "two"]);
    let away = &list["clusters"][0];
    assert_eq!(
        (&away["name"], &away["state"], &list["clusters"][1]["name"]),
        (&"away".into(), &"degraded".into(), &"here".into()),
        "{}",
        list["clusters"]
    );
    let problem = service.get("/api/v1/clusters/away/nodes");
    assert_eq!(problem.status, 503, "it was never seen: an empty list would be a lie");
    assert!(problem.head.contains("application/problem+json"), "{}", problem.head);
    assert_eq!(service.get("/health/ready").status, 200);
}
