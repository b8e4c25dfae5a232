//! Traces of the built binary, as a collector gets them.

use std::fs;

use knm_test_support::cluster::{Cluster, node, pod};
use knm_test_support::collector::{Collector, Manner, ToldSpan};
use knm_test_support::patience::wait_for;
use knm_test_support::service::{Service, run};
use knm_test_support::wire::{Reply, Wire};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");
const NODES: &str = "/api/v1/clusters/demo/nodes";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const DEMO: [&str; 5] = ["--demo", "--demo-nodes", "5", "--demo-changes-per-second", "0"];

fn demo(collector: &Collector, variables: &[(&str, &str)]) -> Service {
    let endpoint = collector.endpoint();
    let traced = [("KNM__TRACES__OTLP_ENDPOINT", endpoint.as_str())];
    Service::start(PROGRAM, &DEMO, &[&traced, variables].concat())
}

fn ask(service: &Service, method: &str, path: &str, headers: &[&str], body: &Value) -> Reply {
    let mut wire = Wire::open(service.address());
    if body.is_null() {
        wire.request(method, path, headers).expect("a connection");
        return wire.reply().expect("an answer");
    }
    wire.send_json(method, path, headers, body).expect("an answer")
}

fn from_caller(flags: &str) -> String {
    format!("traceparent: 00-{TRACE}-{CALLER}-{flags}")
}

/// Asks for the nodes, as a caller who is within a trace.
fn list(service: &Service, flags: &str) -> Reply {
    ask(service, "GET", NODES, &[&from_caller(flags)], &Value::Null)
}

fn of_route(span: &ToldSpan, route: &str) -> bool {
    span.attribute("http.route") == route
}

/// The field of the trace in the log lines that have one.
fn traces_in_log(service: &Service) -> Vec<String> {
    let lines = service.lines();
    let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter_map(|line| Some(line["fields"]["trace_id"].as_str()?.to_owned()))
        .collect()
}

#[test]
fn a_request_is_a_span_of_its_callers_trace_and_says_neither_path_nor_query() {
    let collector = Collector::start(Manner::Takes);
    let service = demo(&collector, &[("SERVICE_NAME", "nodes-eu"), ("INSTANCE_ID", "pod-1")]);
    let path = format!("{NODES}?limit=1&q=needle");
    let headers = [from_caller("01"), "x-request-id: r-1".to_owned()];
    let status = ask(
        &service,
        "GET",
        &path,
        &headers.each_ref().map(String::as_str),
        &Value::Null,
    )
    .status;
    let spans = collector.wait_for("the span of the request", 1, |span| span.trace == TRACE);

    let [span] = &spans[..] else {
        panic!("{spans:?}");
    };
    assert_eq!(span.parent, CALLER);
    assert_eq!(span.kind, SpanKind::Server);
    assert_eq!(span.name, "GET /api/v1/clusters/{cluster}/nodes");
    assert!(!span.has_failed);
    assert!(0 < span.nanoseconds);
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/api/v1/clusters/{cluster}/nodes"),
        ("http.response.status_code", status.to_string().as_str()),
        ("url.scheme", "http"),
        ("request_id", "r-1"),
    ] {
        assert_eq!(span.attribute(name), value, "{name}");
    }
    for (name, value) in [
        ("service.name", "nodes-eu"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", "pod-1"),
    ] {
        assert_eq!(span.resource[name], value, "{name}");
    }
    assert!(!collector.text().contains("needle"));
    assert_eq!(
        traces_in_log(&service),
        [TRACE],
        "the line of the request says in which trace it was"
    );
}

#[test]
fn without_a_caller_who_traces_each_request_is_a_trace() {
    let collector = Collector::start(Manner::Takes);
    let service = demo(&collector, &[("LOG_LEVEL", "error,kube_node_manager=info")]);
    assert_eq!(
        ask(&service, "GET", NODES, &["traceparent: 00-soon"], &Value::Null).status,
        200
    );
    assert_eq!(ask(&service, "GET", "/nowhere/hunter2", &[], &Value::Null).status, 404);
    let spans = collector.wait_for("the spans of both requests, though the log is quiet", 2, |_| true);

    assert_eq!(spans.len(), 2, "{spans:?}");
    assert!(
        spans
            .iter()
            .all(|span| span.parent.is_empty() && span.trace.len() == 32)
    );
    assert_ne!(spans[0].trace, spans[1].trace);
    let nowhere = spans
        .iter()
        .find(|span| span.attribute("http.response.status_code") == "404");
    assert_eq!(nowhere.map(|span| span.name.as_str()), Some("GET"));
    assert!(!collector.text().contains("hunter2"));
}

#[test]
fn health_and_metrics_are_in_no_trace() {
    let collector = Collector::start(Manner::Takes);
    let service = demo(&collector, &[]);
    for path in [
        "/health",
        "/health/ready",
        "/health/live",
        "/livez",
        "/readyz",
        "/metrics",
    ] {
        assert_eq!(
            ask(&service, "GET", path, &[&from_caller("01")], &Value::Null).status,
            200,
            "{path}"
        );
    }
    assert_eq!(list(&service, "01").status, 200);
    let spans = collector.wait_for("the request that came last", 1, |_| true);
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert!(of_route(&spans[0], "/api/v1/clusters/{cluster}/nodes"));
    let sent = "kube_node_manager_trace_spans_sent_total 1\n";
    service.wait_until("it is counted", || service.get("/metrics").body.contains(sent));
}

#[test]
fn whoever_does_not_want_to_be_traced_is_not() {
    let collector = Collector::start(Manner::Takes);
    let mut service = demo(&collector, &[]);
    assert_eq!(list(&service, "00").status, 200);
    service.signal("-TERM");
    assert!(service.wait().success());
    assert_eq!(collector.spans(), []);

    // A caller who wants to cannot have more kept than is configured.
    let mut service = demo(&collector, &[("KNM__TRACES__SAMPLE_PERCENT", "0")]);
    assert_eq!(list(&service, "01").status, 200);
    service.signal("-TERM");
    assert!(service.wait().success());
    assert_eq!(collector.requests(), 0);
}

#[test]
fn the_request_leads_to_the_trace_of_its_operation_with_all_steps() {
    let collector = Collector::start(Manner::Takes);
    let mut service = demo(&collector, &[]);
    // Budgets hold evictions up for long.
    let names = ["worker-00001", "worker-00002"];
    let options =
        json!({"force": true, "ignore_daemonsets": true, "delete_emptydir_data": true, "disable_eviction": true});
    let wanted = json!({"kind": "drain", "targets": {"nodes": names}, "reason": "r", "options": options});
    let path = "/api/v1/clusters/demo/operations";
    let reply = ask(&service, "POST", path, &[&from_caller("01")], &wanted);
    assert_eq!(reply.status, 202, "{}", reply.text());
    let id = reply.json()["id"].as_str().expect("an id").to_owned();
    let trace = id.replace('-', "");
    let whole = collector.wait_for("the end of the operation", 1, |span| span.name == "operation");
    service.signal("-TERM");
    assert!(service.wait().success());
    let spans = collector.spans();

    let [whole] = &whole[..] else {
        panic!("{whole:?}");
    };
    assert_eq!((whole.trace.as_str(), whole.parent.as_str()), (trace.as_str(), ""));
    assert_eq!(whole.attribute("operation.kind"), "drain");
    let in_request: Vec<_> = spans.iter().filter(|span| span.trace == TRACE).collect();
    let request = in_request
        .iter()
        .find(|span| span.kind == SpanKind::Server)
        .expect("the request");
    let accepted = in_request
        .iter()
        .find(|span| span.name == "operation accepted")
        .expect("what it accepted");
    assert_eq!(
        (&accepted.parent, accepted.links.as_slice()),
        (&request.id, [trace.clone()].as_slice())
    );
    assert_eq!(accepted.attribute("operation.id"), id);

    let steps: Vec<_> = spans.iter().filter(|span| span.name == "operation step").collect();
    for name in &names {
        let of_node = |span: &&&ToldSpan| span.attribute("k8s.node.name") == *name;
        let last = steps
            .iter()
            .rfind(of_node)
            .unwrap_or_else(|| panic!("no step of {name}: {spans:?}"));
        assert_eq!(last.attribute("k8s.cluster.name"), "demo");
        let outcomes: Vec<_> = steps
            .iter()
            .filter(of_node)
            .map(|span| span.attribute("operation.step.outcome"))
            .collect();
        assert!(
            outcomes.iter().any(|outcome| *outcome != "running"),
            "{name}: {outcomes:?}"
        );
    }
    assert!(
        steps.iter().all(|span| span.trace == trace && span.parent == whole.id),
        "{steps:?}"
    );
    let removals: Vec<_> = spans.iter().filter(|span| span.name == "pod removal").collect();
    let ids: Vec<_> = steps.iter().map(|span| &span.id).collect();
    assert!(!removals.is_empty());
    assert!(
        removals
            .iter()
            .all(|span| ids.contains(&&span.parent) && span.trace == trace)
    );
    assert!(
        traces_in_log(&service).contains(&trace),
        "lines about the operation say its trace"
    );
}

#[test]
fn calls_to_an_api_server_are_in_the_trace_of_what_they_are_for() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    cluster.create_nodes([node("worker-1", &json!({"pool": "web"}))]);
    cluster.create("/api/v1/namespaces/default/pods", &pod("web-1", "worker-1", "free"));
    let collector = Collector::start(Manner::Takes);
    let (endpoint, kubeconfig) = (collector.endpoint(), cluster.kubeconfig().display().to_string());
    let service = Service::start(
        PROGRAM,
        &[],
        &[
            ("KNM__TRACES__OTLP_ENDPOINT", endpoint.as_str()),
            ("DATABASE_TYPE", "memory"),
            ("KUBECONFIG", kubeconfig.as_str()),
        ],
    );
    service.wait_until_ready();
    service.wait_for_status("/api/v1/clusters/test/nodes/worker-1", 200);
    let reply = ask(
        &service,
        "POST",
        "/api/v1/clusters/test/nodes/worker-1/cordon",
        &[&from_caller("01")],
        &json!({"reason": "disk"}),
    );
    assert_eq!(reply.status, 200, "{}", reply.text());
    let calls = collector.wait_for("the call of the cordon", 1, |span| {
        span.trace == TRACE && span.kind == SpanKind::Client
    });
    let requests = collector.wait_for("the request", 1, |span| {
        span.trace == TRACE && span.kind == SpanKind::Server
    });
    let patch = calls
        .iter()
        .find(|span| span.attribute("http.request.method") == "PATCH")
        .expect("a patch");
    assert_eq!(patch.parent, requests[0].id);
    assert_eq!(patch.name, "patch nodes");
    assert_eq!(patch.attribute("k8s.cluster.name"), "test");
    assert_eq!(patch.attribute("http.response.status_code"), "200");

    let wanted =
        json!({"kind": "drain", "targets": {"nodes": ["worker-1"]}, "reason": "r", "options": {"force": true}});
    let reply = ask(&service, "POST", "/api/v1/clusters/test/operations", &[], &wanted);
    assert_eq!(reply.status, 202, "{}", reply.text());
    let trace = reply.json()["id"].as_str().expect("an id").replace('-', "");
    let removals = collector.wait_for("the eviction", 1, |span| span.name == "pod removal");
    assert_eq!(removals[0].attribute("k8s.pod.name"), "web-1");
    assert_eq!(removals[0].attribute("pod.removal.result"), "accepted");
    let evictions = collector.wait_for("its call", 1, |span| {
        span.kind == SpanKind::Client && span.parent == removals[0].id
    });
    assert_eq!(
        (evictions[0].trace.as_str(), evictions[0].attribute("k8s.resource")),
        (trace.as_str(), "pods/eviction")
    );
    let aimless = |span: &ToldSpan| span.kind == SpanKind::Client && span.parent.is_empty();
    assert!(!collector.spans().iter().any(aimless), "watches are in no trace");
}

#[test]
fn a_collector_that_hangs_holds_up_nobody_and_its_loss_is_counted() {
    let collector = Collector::start(Manner::Hangs);
    let mut service = demo(&collector, &[("KNM__SERVER__SHUTDOWN_TIMEOUT", "1")]);
    for _ in 0..200 {
        assert_eq!(list(&service, "01").status, 200);
    }
    let told = wait_for("a batch that hangs", || {
        (0 < collector.requests()).then(|| service.get("/health/ready").status)
    });
    assert_eq!(told, 200);
    service.signal("-TERM");
    assert!(service.wait().success());
    let lines = service.lines().join("\n");
    assert!(
        lines.contains("the last spans of traces could not be sent in time"),
        "{lines}"
    );
    assert!(lines.contains("shutdown 5/5"), "{lines}");
}

#[test]
fn a_collector_that_refuses_is_told_of_once_until_it_takes_spans_again() {
    let collector = Collector::start(Manner::Refuses);
    let service = demo(&collector, &[]);
    for batch in 1..=2 {
        assert_eq!(list(&service, "01").status, 200);
        wait_for("a batch", || (batch <= collector.requests()).then_some(()));
    }
    let dropped = || {
        service
            .get("/metrics")
            .body
            .contains("kube_node_manager_trace_spans_dropped_total 2\n")
    };
    service.wait_until("both spans are counted", dropped);
    collector.change(Manner::Takes);
    assert_eq!(list(&service, "01").status, 200);
    assert_eq!(collector.wait_for("the span that was taken", 1, |_| true).len(), 1);
    service.wait_until("that is told", || {
        service.lines().join("\n").contains("takes traces again")
    });
    let lines = service.lines();
    let warnings = lines
        .iter()
        .filter(|line| line.contains("the collector takes no traces"))
        .count();
    assert_eq!(warnings, 1, "{lines:?}");
}

#[test]
fn what_the_collector_wants_to_see_is_sent_from_a_file_and_seen_nowhere_else() {
    let collector = Collector::start(Manner::Takes);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("headers");
    fs::write(
        &file,
        "# who we are\nauthorization: Bearer hunter2\n\nx-tenant: nodes\n",
    )
    .expect("a file");
    let path = file.to_str().expect("a path");
    let service = demo(
        &collector,
        &[("KNM__TRACES__HEADERS_FILE", path), ("LOG_LEVEL", "trace")],
    );
    assert_eq!(list(&service, "01").status, 200);
    let _ = collector.wait_for("the span", 1, |_| true);
    assert!(collector.text().contains("authorization: Bearer hunter2\r\n"));
    fs::write(&file, "authorization: Bearer hunter3\n").expect("a file");
    assert_eq!(list(&service, "01").status, 200);
    wait_for("what stands there now", || {
        collector.text().contains("Bearer hunter3").then_some(())
    });
    assert!(!service.lines().join("\n").contains("hunter"));
}

#[test]
fn what_cannot_be_sent_ends_the_start_with_a_sentence() {
    let folder = tempfile::tempdir().expect("a folder");
    let headers = folder.path().join("headers");
    fs::write(&headers, "hunter2\n").expect("a file");
    let headers = headers.to_str().expect("a path");
    let plain = ("KNM__TRACES__OTLP_ENDPOINT", "http://127.0.0.1:4318");
    for (variables, expected) in [
        (
            vec![("KNM__TRACES__OTLP_ENDPOINT", "https://me:hunter2@collector")],
            "traces.headers_file",
        ),
        (vec![("KNM__TRACES__OTLP_ENDPOINT", "collector:4317")], "OTLP over HTTP"),
        (
            vec![plain, ("KNM__TRACES__SAMPLE_PERCENT", "101")],
            "a whole number from 0 to 100",
        ),
        (vec![plain, ("KNM__TRACES__HEADERS_FILE", headers)], "line 1"),
        (
            vec![plain, ("KNM__TRACES__HEADERS_FILE", "/nowhere")],
            "/nowhere cannot be read",
        ),
        (
            vec![
                ("KNM__TRACES__OTLP_ENDPOINT", "https://collector"),
                ("KNM__TRACES__CA_FILE", headers),
            ],
            "no certificates in pem",
        ),
    ] {
        let output = run(PROGRAM, folder.path(), &["serve", "--demo"], &variables);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{variables:?}: {told}");
        assert!(told.contains(expected), "{variables:?}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn variables_that_others_read_switch_nothing_on() {
    let collector = Collector::start(Manner::Takes);
    let endpoint = collector.endpoint();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_TRACES_SAMPLER", "always_on"),
    ];
    let mut service = Service::start(PROGRAM, &DEMO, &variables);
    assert_eq!(list(&service, "01").status, 200);
    assert!(!service.get("/metrics").body.contains("trace_spans"));
    service.signal("-TERM");
    assert!(service.wait().success());
    assert_eq!(collector.requests(), 0);
    assert_eq!(traces_in_log(&service), Vec::<String>::new());
}
