//! Paths and queries that nobody means well with.

use knm_test_support::wire::{Reply, Wire};

use crate::{NODES, ask, assert_problem, still};

/// That this is an answer that the document knows, or a problem of the caller.
#[track_caller]
fn assert_sane(reply: &Reply, target: &str) {
    match reply.status {
        200 | 304 => (),
        400..=499 => assert_problem(reply, reply.status),
        status => panic!("{target}: {status} {}", reply.text()),
    }
}

#[test]
fn tricks_with_paths_find_nothing() {
    let service = still(&[]);
    let long = "a".repeat(4_000);
    for target in [
        "/api/v1/clusters/demo/nodes/",
        "/api/v1/clusters/",
        "/api/v1/nodes/",
        "//health",
        "//",
        "/health//",
        "/health/live/",
        "/./health",
        "/health/../health",
        "/api/v1/clusters/demo/../demo/nodes",
        "/api/v1/clusters/%2e%2e/nodes",
        "/api/v1/clusters/../../health",
        "/api/v1/clusters//nodes",
        "/api/v1//clusters",
        "/api%2fv1%2fclusters",
        "/%2fhealth",
        "/%68ealth",
        "/HEALTH",
        "/health;x=1",
        "/health%00",
        "/api/v1/clusters/demo%00/nodes",
        "/api/v1/clusters/demo%2fnodes",
        "/api/v1/clusters/demo%2F..%2Fdemo/nodes",
        "/api/v1/clusters/%64emo%20/nodes",
        "/api/v1/clusters/demo/nodes/%00",
        "/api/v1/clusters/demo/nodes/%2e%2e",
        "/api/v1/clusters/demo/nodes/a%2fb",
        "/api/v1/clusters/demo/nodes/a/../b",
        "/api/v1/clusters/demo/nodes/%0d%0aset-cookie:%20a=b",
        "/api/v1/clusters/demo/nodes/%22%3cscript%3e",
        "/livez/%00",
        "/readyz/%2e%2e",
        &format!("/{long}"),
        &format!("/api/v1/clusters/{long}/nodes"),
        &format!("/api/v1/clusters/demo/nodes/{long}"),
        &format!("/{}", "a/".repeat(2_000)),
    ] {
        let reply = ask(&service, "GET", target, &[]);
        assert_problem(&reply, 404);
        assert_eq!(reply.header("set-cookie"), None);
    }
}

#[test]
fn escapes_that_are_no_utf_8_are_the_callers_problem() {
    let service = still(&[]);
    for bad in ["%ff", "%c3%28", "%", "%4", "%zz", "%ed%a0%80", "%f8%a1%a1%a1%a1"] {
        for target in [
            format!("/api/v1/clusters/{bad}"),
            format!("/api/v1/clusters/{bad}/nodes"),
            format!("/api/v1/clusters/demo/nodes/{bad}"),
            format!("/api/v1/clusters/demo/nodes/{bad}/pods"),
            format!("/api/v1/clusters/{bad}/watch"),
            format!("/livez/{bad}"),
            format!("/{bad}"),
        ] {
            let reply = ask(&service, "GET", &target, &[]);
            assert!(matches!(reply.status, 400 | 404 | 422), "{target}: {}", reply.status);
            assert_problem(&reply, reply.status);
        }
        for parameter in ["search", "label_selector", "status", "limit", "cursor", "nobody"] {
            let target = format!("{NODES}?{parameter}={bad}");
            assert_sane(&ask(&service, "GET", &target, &[]), &target);
        }
    }
}

#[test]
fn an_escaped_name_is_the_name() {
    let service = still(&[]);
    for target in [
        "/api/v1/clusters/%64emo",
        "/api/v1/clusters/d%65mo/nodes",
        "/livez/%70ing",
    ] {
        assert_eq!(ask(&service, "GET", target, &[]).status, 200, "{target}");
    }
}

#[test]
fn odd_queries_are_answered_or_refused() {
    let service = still(&[]);
    for query in [
        "?",
        "??",
        "?&",
        "?&&&",
        "?=",
        "?=a",
        "?a",
        "?a=b=c",
        "?limit",
        "?limit=",
        "?limit=1&limit=2",
        "?limit=1&limit=x",
        "?status=ready&status=unknown",
        "?nobody=knows",
        "?limit=1;sort=name",
        "?search=%00",
        "?search=+",
        "?search=%20",
        "?search=%F0%9F%A6%80",
        "?label_selector=%3D%3D",
        "?fields=",
        "?sort=",
        "?cursor=",
        "?cursor=AAAA",
        "?cursor=%25",
        "?limit=18446744073709551616",
        "?limit=-1",
        "?limit=1e3",
        "?taint=%3A",
        "?limit[]=1",
        "?last_event_id=1",
    ] {
        for path in [
            NODES,
            "/api/v1/nodes",
            "/api/v1/clusters",
            "/health",
            "/readyz",
            "/livez",
            "/metrics",
            "/openapi.json",
        ] {
            let target = format!("{path}{query}");
            let reply = ask(&service, "GET", &target, &[]);
            assert_sane(&reply, &target);
        }
    }
    for query in ["?", "?&"] {
        let reply = ask(&service, "GET", &format!("{NODES}{query}"), &[]);
        assert_eq!(reply.json()["items"].as_array().unwrap().len(), 30, "{query}");
    }
}

#[test]
fn a_fragment_and_a_whole_url_are_understood() {
    let service = still(&[]);
    let mut wire = Wire::open(service.address());
    wire.send("GET http://knm/health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .unwrap();
    assert_eq!(wire.reply().unwrap().status, 200);
    wire.send("GET /health#part HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .unwrap();
    let reply = wire.reply().unwrap();
    assert_sane(&reply, "/health#part");
}

#[test]
fn bytes_that_no_url_has_are_refused() {
    let service = still(&[]);
    for target in [
        "/health\u{1}",
        "/\0",
        "/\u{7f}",
        "/a\tb",
        "/ü",
        "/日本",
        "/api/v1/clusters/\u{80}",
    ] {
        let reply = ask(&service, "GET", target, &[]);
        assert!(matches!(reply.status, 400 | 404), "{target:?}: {}", reply.status);
        assert_problem(&reply, reply.status);
    }
}

#[test]
fn odd_headers_are_survived() {
    let service = still(&[]);
    let long = format!("if-none-match: {}", "W/\"a\",".repeat(2_000));
    for header in [
        "accept-encoding: \u{ff}",
        "accept-encoding: ;;;,,,=q",
        "accept: image/png",
        "accept: \u{ff}",
        "if-none-match: \u{ff}",
        "if-none-match:",
        "if-none-match: ,,,",
        &long,
        "origin: \u{ff}",
        "range: bytes=0-1",
        "content-type: \u{ff}",
        "content-type: application/json",
        "expect: something",
        "upgrade: websocket\r\nconnection: upgrade",
        "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA",
        "cookie: a=b",
        "x-http-method-override: DELETE",
        "x-forwarded-for: 127.0.0.1, \u{ff}",
        "te: trailers",
    ] {
        let reply = ask(&service, "GET", NODES, &[header]);
        assert_eq!(reply.status, 200, "{header}: {}", reply.text());
    }
}
