//! The service on a real Kubernetes API server.

use std::path::Path;
use std::sync::OnceLock;

use knm_test_support::cluster::{Cluster, node, pod};
use knm_test_support::patience::wait_for;
use knm_test_support::service::Service;
use knm_test_support::wire::Wire;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");

/// One server for all tests that only look at it, or only at nodes of their own. It ends with this process.
fn shared() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start).as_ref()
}

fn on(kubeconfig: &Path) -> Service {
    let service = Service::start(PROGRAM, &[], &[("KUBECONFIG", &kubeconfig.display().to_string())]);
    service.wait_until_ready();
    wait_until_seen(&service, "test");
    service
}

fn wait_until_seen(service: &Service, cluster: &str) -> Value {
    wait_for("the cluster to be healthy", || {
        let seen = service.get(&format!("/api/v1/clusters/{cluster}")).json();
        (seen["state"] == "healthy").then_some(seen)
    })
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("a list");
    let name = |item: &Value| item["name"].as_str().expect("a name").to_owned();
    items.iter().map(name).collect()
}

#[test]
fn a_cluster_of_the_file_is_watched_under_its_name_there() {
    let Some(cluster) = shared() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("knm.yaml");
    let kubeconfig = cluster.kubeconfig().display().to_string();
    let text =
        format!("clusters:\n  - name: east\n    source:\n      kubeconfig: {{path: {kubeconfig}, context: test}}\n");
    std::fs::write(&file, text).unwrap();
    let service = Service::start(PROGRAM, &["--config", file.to_str().unwrap()], &[]);
    service.wait_until_ready();
    let seen = wait_until_seen(&service, "east");
    assert_eq!(
        (&seen["source"], &seen["stale"]),
        (&"kubeconfig".into(), &Value::Bool(false)),
        "{seen}"
    );
    // It is asked for beside the nodes, so it may come a little later.
    wait_for("the version of the API server", || {
        let seen = service.get("/api/v1/clusters/east").json();
        seen["server_version"].as_str()?.starts_with("v1.").then_some(())
    });
    assert_eq!(service.get("/api/v1/clusters/test").status, 404);
}

#[test]
fn without_a_configuration_the_current_context_of_the_kubeconfig_is_taken() {
    let Some(cluster) = shared() else {
        return;
    };
    let service = on(&cluster.kubeconfig());
    let line = service.wait_for_line("cluster found");
    assert!(line.contains("\"cluster\":\"test\""), "{line}");
    assert_eq!(
        names(&service.get("/api/v1/clusters").json()),
        ["test"],
        "and no other one"
    );
}

#[test]
fn the_kubeconfig_in_the_home_folder_is_the_last_that_is_looked_for() {
    let Some(cluster) = shared() else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".kube")).unwrap();
    std::fs::copy(cluster.kubeconfig(), home.path().join(".kube/config")).unwrap();
    let service = Service::start(PROGRAM, &[], &[("HOME", home.path().to_str().unwrap())]);
    service.wait_until_ready();
    wait_until_seen(&service, "test");
    let line = service.wait_for_line("cluster found");
    assert!(line.contains(".kube/config"), "{line}");
}

#[test]
fn a_thousand_nodes_are_listed_filtered_and_paged() {
    let Some(cluster) = shared() else {
        return;
    };
    cluster.create_nodes((0..1000).map(|number| {
        let zone = format!("zone-{}", number % 4);
        node(
            &format!("fleet-{number:04}"),
            &json!({"fleet": "yes", "topology.kubernetes.io/zone": zone}),
        )
    }));
    let service = on(&cluster.kubeconfig());
    let list = |query: &str| {
        service
            .get(&format!("/api/v1/clusters/test/nodes?label_selector=fleet{query}"))
            .json()
    };
    let all = list("");
    assert_eq!(all["items"].as_array().unwrap().len(), 1000);
    let expected: Vec<_> = (0..1000).map(|number| format!("fleet-{number:04}")).collect();
    assert_eq!(names(&all), expected, "all of them, by name");
    let first = &all["items"][0];
    assert_eq!(
        (
            &first["status"],
            &first["allocatable"]["cpu_millicores"],
            &first["capacity"]["memory_bytes"]
        ),
        (&"ready".into(), &3900.into(), &(16_u64 << 30).into())
    );
    assert_eq!(list("&zone=zone-1")["items"].as_array().unwrap().len(), 250);
    assert_eq!(names(&list("&search=fleet-0042")), ["fleet-0042"]);
    assert_eq!(list("&status=not_ready")["items"], json!([]));
    assert_eq!(names(&list("&sort=-name&limit=1")), ["fleet-0999"]);

    let (mut paged, mut query, mut pages) = (Vec::new(), "&limit=300".to_owned(), 0);
    loop {
        let page = list(&query);
        paged.extend(names(&page));
        pages += 1;
        match page["next_cursor"].as_str() {
            Some(cursor) => query = format!("&limit=300&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!((paged, pages), (expected, 4));
}

#[test]
fn what_happens_to_a_node_shows_up_without_anybody_asking_the_cluster() {
    let Some(cluster) = shared() else {
        return;
    };
    let service = on(&cluster.kubeconfig());
    let path = "/api/v1/nodes/changing";
    let wait_for_node = |what: &str, fits: &dyn Fn(&Value) -> bool| {
        wait_for(what, || {
            let answer = service.get("/api/v1/clusters/test/nodes/changing");
            (answer.status == 200 && fits(&answer.json())).then_some(())
        });
    };
    cluster.create("/api/v1/nodes", &node("changing", &json!({"app": "a"})));
    wait_for_node("the new node", &|node| {
        node["schedulable"] == true && node["labels"]["app"] == "a"
    });
    cluster.change(
        path,
        &json!({"metadata": {"labels": {"app": "b", "node-role.kubernetes.io/gpu": ""}}}),
    );
    wait_for_node("its labels", &|node| {
        node["labels"]["app"] == "b" && node["roles"] == json!(["gpu"])
    });
    cluster.change(path, &json!({"spec": {"unschedulable": true}}));
    wait_for_node("its cordon", &|node| {
        node["schedulable"] == false && node["cordon"]["source"] == "foreign"
    });
    let ready = json!([{
        "type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "disk on fire",
        "lastHeartbeatTime": "2030-01-01T00:01:00Z", "lastTransitionTime": "2030-01-01T00:01:00Z"}]);
    cluster.change(&format!("{path}/status"), &json!({"status": {"conditions": ready}}));
    wait_for_node("its status", &|node| node["status"] == "not_ready");
    cluster.delete(path);
    wait_for("its end", || {
        (service.get("/api/v1/clusters/test/nodes/changing").status == 404).then_some(())
    });
}

#[test]
fn a_pod_is_shown_with_the_budget_that_covers_it() {
    let Some(cluster) = shared() else {
        return;
    };
    cluster.create_nodes([node("busy", &json!({})), node("idle", &json!({}))]);
    let pod = json!({
        "metadata": {"name": "web-1", "labels": {"app": "web"}},
        "spec": {"nodeName": "busy", "containers": [{
            "name": "web", "image": "web", "resources": {"requests": {"cpu": "250m", "memory": "64Mi"}}}]},
    });
    cluster.create("/api/v1/namespaces/default/pods", &pod);
    // Older servers know only the beta version, newer ones only the other.
    let version = match cluster.has("/apis/policy/v1") {
        true => "v1",
        false => "v1beta1",
    };
    let budget = json!({
        "metadata": {"name": "web"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    });
    cluster.create(
        &format!("/apis/policy/{version}/namespaces/default/poddisruptionbudgets"),
        &budget,
    );
    let service = on(&cluster.kubeconfig());
    let pods = wait_for("the node", || {
        let answer = service.get("/api/v1/clusters/test/nodes/busy/pods");
        (answer.status == 200).then(|| answer.json())
    });
    let [pod] = pods["items"].as_array().unwrap().as_slice() else {
        unreachable!("one pod is expected: {pods}");
    };
    assert_eq!(
        (&pod["namespace"], &pod["name"], &pod["phase"]),
        (&"default".into(), &"web-1".into(), &"pending".into()),
        "{pod}"
    );
    assert_eq!(
        (&pod["requests"]["cpu_millicores"], &pod["requests"]["memory_bytes"]),
        (&250.into(), &(64 << 20).into())
    );
    assert_eq!(pod["disruption_budgets"], json!(["web"]), "{pod}");
    assert_eq!(
        service.get("/api/v1/clusters/test/nodes/idle/pods").json()["items"],
        json!([])
    );
    assert_eq!(service.get("/api/v1/clusters/test/nodes/nobody/pods").status, 404);
}

#[test]
fn each_cluster_has_its_metrics_from_the_start() {
    let Some(cluster) = shared() else {
        return;
    };
    cluster.create_nodes([node("measured", &json!({}))]);
    let service = on(&cluster.kubeconfig());
    for start in [
        "kube_node_manager_cluster_up{cluster=\"test\"} 1",
        "kube_node_manager_cluster_nodes{cluster=\"test\",status=\"ready\"} ",
        "kube_node_manager_cluster_nodes{cluster=\"test\",status=\"not_ready\"} ",
        "kube_node_manager_cluster_nodes{cluster=\"test\",status=\"unknown\"} ",
        "kube_node_manager_cluster_nodes_unschedulable{cluster=\"test\"} ",
        "kube_node_manager_cluster_watch_restarts_total{cluster=\"test\",resource=\"nodes\"} 0",
        "kube_node_manager_cluster_watch_restarts_total{cluster=\"test\",resource=\"pods\"} 0",
        "kube_node_manager_cluster_pods{cluster=\"test\"} ",
        "kube_node_manager_cluster_last_event_age_seconds{cluster=\"test\"} ",
        "kube_node_manager_kubernetes_requests_total{cluster=\"test\",verb=\"list\",resource=\"nodes\",code=\"200\"} ",
        "kube_node_manager_kubernetes_requests_total{cluster=\"test\",verb=\"watch\",resource=\"nodes\",code=\"200\"} 1",
        "kube_node_manager_kubernetes_request_duration_seconds_count{cluster=\"test\",verb=\"list\",resource=\"nodes\"} ",
    ] {
        // The watch begins after the first list.
        wait_for(start, || {
            let text = service.get("/metrics").body;
            text.lines().any(|line| line.starts_with(start)).then_some(())
        });
    }
}

/// Sends a change and returns the status and the answer.
fn change(service: &Service, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let mut wire = Wire::open(service.address());
    let reply = wire.send_json(method, path, &[], body).expect("an answer");
    (reply.status, reply.json())
}

#[test]
fn a_node_is_labelled_tainted_cordoned_and_uncordoned() {
    let Some(cluster) = shared() else {
        return;
    };
    cluster.create_nodes([node("changing-1", &json!({"drop": "1"}))]);
    let service = on(&cluster.kubeconfig());
    let path = "/api/v1/clusters/test/nodes/changing-1";
    service.wait_for_status(path, 200);

    let (status, labelled) = change(
        &service,
        "PATCH",
        &format!("{path}/labels"),
        &json!({"set": {"team": "a"}, "remove": ["drop"]}),
    );
    assert_eq!(
        (status, &labelled["labels"]["team"], labelled["labels"].get("drop")),
        (200, &json!("a"), None),
        "{labelled}"
    );
    let (status, refused) = change(
        &service,
        "PATCH",
        &format!("{path}/labels"),
        &json!({"set": {"kubernetes.io/arch/x": "a"}}),
    );
    assert_eq!(status, 422, "{refused}");

    // The cluster has taints of its own.
    let dedicated = |node: &Value| {
        let taints = node["taints"].as_array().expect("taints").iter();
        taints.filter(|taint| taint["key"] == "dedicated").count()
    };
    let taint = json!({"add": [{"key": "dedicated", "value": "a", "effect": "NoSchedule"}]});
    let (status, tainted) = change(&service, "PATCH", &format!("{path}/taints"), &taint);
    assert_eq!((status, dedicated(&tainted)), (200, 1), "{tainted}");

    let (status, held) = change(
        &service,
        "POST",
        &format!("{path}/cordon"),
        &json!({"reason": "disk", "ticket": "OPS-1"}),
    );
    assert_eq!((status, &held["schedulable"]), (200, &json!(false)), "{held}");
    assert_eq!(held["cordon"]["holds"][0]["ticket"], json!("OPS-1"));
    assert_eq!(dedicated(&held), 1, "what is not named stays");
    let (status, free) = change(&service, "POST", &format!("{path}/uncordon"), &json!({}));
    assert_eq!(
        (status, &free["schedulable"], &free["cordon"]),
        (200, &json!(true), &Value::Null),
        "{free}"
    );

    wait_for("the watch to tell the last state", || {
        let seen = service.get(path).json();
        (seen["resource_version"] == free["resource_version"]).then_some(())
    });
}

#[test]
fn a_plan_of_a_drain_is_made_from_what_the_cluster_has_and_touches_nothing() {
    let Some(cluster) = shared() else {
        return;
    };
    cluster.create_nodes([node("planned", &json!({})), node("spare", &json!({}))]);
    for (name, app) in [("planned-free", "planned-free"), ("planned-full", "planned-full")] {
        cluster.create("/api/v1/namespaces/default/pods", &pod(name, "planned", app));
        // Pods that do not run are outside of budgets.
        let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        cluster.change(&format!("/api/v1/namespaces/default/pods/{name}/status"), &running);
    }
    let version = match cluster.has("/apis/policy/v1") {
        true => "v1",
        false => "v1beta1",
    };
    let budgets = format!("/apis/policy/{version}/namespaces/default/poddisruptionbudgets");
    cluster.create(
        &budgets,
        &json!({"metadata": {"name": "planned-full"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "planned-full"}}}}),
    );
    cluster.change(
        &format!("{budgets}/planned-full/status"),
        &json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1,
            "expectedPods": 1}}),
    );
    let service = on(&cluster.kubeconfig());
    let path = "/api/v1/clusters/test/nodes/planned";
    service.wait_for_status(path, 200);
    wait_for("its pods", || {
        (service.get(path).json()["requested"]["pods"] == 2).then_some(())
    });

    let (status, plan) = change(&service, "POST", &format!("{path}/drain/plan"), &json!({}));
    assert_eq!((status, &plan["refused"]), (200, &json!(false)), "{plan}");
    let pods = plan["pods"].as_array().expect("pods").iter();
    let mut told: Vec<_> = pods
        .map(|pod| {
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (word(&pod["name"]), word(&pod["decision"]), word(&pod["turn"]["state"]))
        })
        .collect();
    told.sort();
    let expected = [("planned-free", "evict", "now"), ("planned-full", "evict", "never")];
    let expected = expected.map(|(name, decision, turn)| (name.to_owned(), decision.to_owned(), turn.to_owned()));
    assert_eq!(told, expected, "{plan}");
    assert_eq!(plan["disruption_budgets"][0]["name"], "planned-full", "{plan}");
    assert_eq!(plan["fit"]["estimated"], json!(true), "{plan}");

    assert_eq!(service.get(path).json()["schedulable"], json!(true));
    let pods = service.get(&format!("{path}/pods")).json();
    let pods = pods["items"].as_array().expect("pods");
    assert!(pods.iter().all(|pod| pod["phase"] == "running"), "{pods:?}");

    // A pod that nobody would make again is refused, and with it all of them.
    let mut alone = pod("planned-alone", "planned", "planned-alone");
    alone["metadata"]["ownerReferences"] = json!([]);
    cluster.create("/api/v1/namespaces/default/pods", &alone);
    let (status, plan) = change(&service, "POST", &format!("{path}/drain/plan"), &json!({}));
    assert_eq!((status, &plan["refused"]), (200, &json!(true)), "{plan}");
    let (status, plan) = change(&service, "POST", &format!("{path}/drain/plan"), &json!({"force": true}));
    assert_eq!((status, &plan["refused"]), (200, &json!(false)), "{plan}");
}
