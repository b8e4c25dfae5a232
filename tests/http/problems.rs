//! Whatever goes wrong is told in one form.

use std::net::TcpListener;

use knm_test_support::service::Service;
use knm_test_support::wire::Wire;

use crate::{NODES, PROGRAM, ask, assert_problem, raw, still};

#[test]
fn what_is_not_there_is_a_404() {
    let service = still(&[]);
    for path in [
        "/",
        "/nothing",
        "/api/v1/clusters/nowhere",
        "/api/v1/clusters/nowhere/nodes",
        "/api/v1/clusters/nowhere/nodes?limit=x",
        "/api/v1/clusters/nowhere/summary",
        "/api/v1/clusters/nowhere/watch",
        "/api/v1/clusters/nowhere/nodes/a",
        "/api/v1/clusters/demo/nodes/nobody",
        "/api/v1/clusters/demo/nodes/nobody/pods",
        "/livez/nothing",
    ] {
        assert_problem(&ask(&service, "GET", path, &[]), 404);
    }
}

#[test]
fn other_methods_are_a_405_that_says_which_are_allowed() {
    let service = still(&[]);
    for method in ["POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "BREW", "get"] {
        for path in ["/health", "/metrics", "/docs", NODES, "/api/v1/clusters/demo/watch"] {
            let reply = ask(&service, method, path, &["content-length: 0"]);
            assert_problem(&reply, 405);
            assert_eq!(reply.header("allow"), Some("GET, HEAD, OPTIONS"), "{method} {path}");
        }
    }
    let tunnel = raw(
        &service,
        "CONNECT example.org:443 HTTP/1.1\r\nhost: example.org:443\r\n\r\n",
    );
    assert_problem(&tunnel, 405);
}

#[test]
fn a_wrong_parameter_is_a_422_that_tells_which_and_where() {
    let service = still(&[]);
    for (query, parameter) in [
        ("limit=none", "limit"),
        ("limit=0", "limit"),
        ("status=happy", "status"),
        ("schedulable=perhaps", "schedulable"),
        ("sort=colour", "sort"),
        ("fields=name,nothing", "fields"),
        ("cursor=%00", "cursor"),
        ("taint=a:Never", "taint"),
        ("label_selector=a%20in%20(b", "label_selector"),
    ] {
        for list in [NODES, "/api/v1/nodes"] {
            let reply = ask(&service, "GET", &format!("{list}?{query}"), &[]);
            assert_problem(&reply, 422);
            let errors = reply.json()["errors"].clone();
            assert_eq!(errors[0]["parameter"], parameter, "{query}: {errors}");
        }
    }
    let reply = ask(
        &service,
        "GET",
        &format!("{NODES}?limit=x&sort=y&label_selector=a,,b"),
        &[],
    );
    assert_problem(&reply, 422);
    assert_eq!(reply.json()["errors"].as_array().unwrap().len(), 3, "{}", reply.text());
    let place = &reply.json()["errors"];
    let selector = place
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["parameter"] == "label_selector");
    assert!(selector.unwrap()["position"].is_u64(), "{place}");
}

#[test]
fn a_body_that_is_too_large_is_a_413_however_it_is_announced() {
    let service = still(&[("KNM__SERVER__MAX_BODY_BYTES", "1000")]);
    let announced = raw(
        &service,
        format!("GET {NODES} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1001\r\n\r\n"),
    );
    assert_problem(&announced, 413);
    let chunk = "x".repeat(600);
    let chunked = format!(
        "GET {NODES} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n258\r\n{chunk}\r\n258\r\n{chunk}\r\n0\r\n\r\n"
    );
    assert_problem(&raw(&service, chunked), 413);
    let exact = format!(
        "GET {NODES} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{}",
        "x".repeat(1000)
    );
    assert_eq!(raw(&service, exact).status, 200);
}

#[test]
fn a_413_is_read_also_by_who_sends_everything_first() {
    let service = still(&[("KNM__SERVER__MAX_BODY_BYTES", "1000")]);
    let length = 4 << 20;
    for _ in 0..5 {
        let mut wire = Wire::open(service.address());
        wire.send(format!(
            "POST {NODES} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n"
        ))
        .unwrap();
        wire.send(vec![b'x'; length]).unwrap();
        assert_problem(&wire.reply().unwrap(), 405);
        let mut wire = Wire::open(service.address());
        wire.send(format!(
            "GET {NODES} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n"
        ))
        .unwrap();
        wire.send(vec![b'x'; length]).unwrap();
        assert_problem(&wire.reply().unwrap(), 413);
    }
}

#[test]
fn a_body_that_dribbles_in_is_a_408() {
    let service = still(&[("KNM__SERVER__READ_TIMEOUT", "1")]);
    let mut wire = Wire::open(service.address());
    wire.send(format!(
        "GET {NODES} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nabc"
    ))
    .unwrap();
    assert_problem(&wire.reply().unwrap(), 408);
}

#[test]
fn a_body_that_ends_too_early_harms_nobody() {
    let service = still(&[]);
    let mut wire = Wire::open(service.address());
    wire.send(format!(
        "GET {NODES} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n"
    ))
    .unwrap();
    assert_problem(&wire.reply().unwrap(), 400);
    assert!(wire.rest().unwrap_or_default().is_empty(), "one request has one answer");
    assert_eq!(ask(&service, "GET", NODES, &[]).status, 200);
}

#[test]
fn who_asks_before_sending_a_body_is_told() {
    let service = still(&[("KNM__SERVER__MAX_BODY_BYTES", "1000")]);
    let head = |length: usize| {
        format!("GET {NODES} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n")
    };
    let mut wire = Wire::open(service.address());
    wire.send(head(3)).unwrap();
    assert_eq!(wire.head().unwrap().status, 100);
    wire.send("abc").unwrap();
    assert_eq!(wire.reply().unwrap().status, 200);
    assert_problem(&raw(&service, head(1_001)), 413);
}

#[test]
fn a_url_that_is_too_long_is_a_414() {
    let service = still(&[("KNM__SERVER__MAX_URL_BYTES", "300")]);
    for length in [301, 5_000, 60_000, 70_000] {
        let target = format!("/{}", "a".repeat(length - 1));
        assert_problem(&ask(&service, "GET", &target, &[]), 414);
    }
    let longest = format!("/health?x={}", "a".repeat(300 - "/health?x=".len()));
    assert_eq!(ask(&service, "GET", &longest, &[]).status, 200);
}

#[test]
fn headers_that_are_too_large_are_a_431() {
    let service = still(&[("KNM__SERVER__MAX_HEADER_BYTES", "8192")]);
    for length in [9_000, 60_000, 200_000] {
        let mut wire = Wire::open(service.address());
        wire.request("GET", NODES, &[&format!("x-large: {}", "a".repeat(length))])
            .unwrap();
        assert_problem(&wire.reply().unwrap(), 431);
    }
    let many: Vec<String> = (0..200).map(|number| format!("x-{number}: a")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_problem(&ask(&service, "GET", NODES, &many), 431);
    let large = format!("x-large: {}", "a".repeat(8_000));
    assert_eq!(ask(&service, "GET", NODES, &[&large]).status, 200);
}

#[test]
fn a_head_that_cannot_be_read_is_a_400_in_the_same_form() {
    let service = still(&[]);
    for head in [
        "nonsense\r\n\r\n",
        "GET\r\n\r\n",
        "GET  /health HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /health HTTP/9.9\r\nhost: localhost\r\n\r\n",
        "GET /he alth HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: localhost\r\nno colon\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: localhost\r\nbad name: x\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: localhost\r\nx: a\0b\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: many\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut wire = Wire::open(service.address());
        wire.send(head).unwrap();
        let reply = wire.reply().unwrap_or_else(|error| panic!("{head:?}: {error}"));
        assert_problem(&reply, 400);
        assert_eq!(reply.header("connection"), Some("close"), "{head:?}");
        wire.wait_until_closed();
    }
    assert_eq!(ask(&service, "GET", "/health", &[]).status, 200);
}

#[test]
fn a_request_names_its_host_once_and_a_path() {
    let service = still(&[]);
    for head in [
        "GET health HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /health HTTP/1.1\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    ] {
        assert_problem(&raw(&service, head), 400);
    }
}

#[test]
fn a_cluster_that_was_not_seen_yet_is_a_503_that_says_when_to_ask_again() {
    // It accepts and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let server = silent.local_addr().unwrap();
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: far\nclusters: [{{name: far, cluster: {{server: 'http://{server}'}}}}]\n\
         users: [{{name: far, user: {{}}}}]\ncontexts: [{{name: far, context: {{cluster: far, user: far}}}}]\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let file = folder.path().join("config.yaml");
    let text = format!(
        "database: {{type: memory}}\nclusters: [{{name: far, source: {{kubeconfig: {{path: '{}'}}}}}}]\n",
        kubeconfig.display()
    );
    std::fs::write(&file, text).unwrap();
    let service = Service::start(PROGRAM, &["--config", file.to_str().unwrap()], &[]);
    service.wait_until_ready();
    for path in ["/nodes", "/nodes/a", "/summary", "/watch"] {
        let reply = ask(&service, "GET", &format!("/api/v1/clusters/far{path}"), &[]);
        assert_problem(&reply, 503);
        assert!(reply.header("retry-after").is_some(), "{path}");
    }
    let reply = ask(&service, "GET", "/api/v1/clusters/far/nodes", &["x-request-id: unseen"]);
    assert_problem(&reply, 503);
    let line = service.wait_for_line("\"message\":\"request\",\"request_id\":\"unseen\"");
    assert!(line.contains("\"level\":\"ERROR\""), "{line}");
    // The list over all clusters names what is missing instead.
    let all = ask(&service, "GET", "/api/v1/nodes", &[]);
    assert_eq!(all.status, 200);
    assert_eq!(all.json()["clusters"][0]["name"], "far");
}
