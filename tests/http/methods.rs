//! Methods, and headers that browsers heed.

use knm_test_support::wire::{Reply, Wire};

use crate::{NODES, ask, assert_problem, still};

const WATCH: &str = "/api/v1/clusters/demo/watch";
const EVERYTHING: [&str; 12] = [
    "/health",
    "/health/live",
    "/health/ready",
    "/livez",
    "/api/v1/clusters",
    "/api/v1/clusters/demo",
    "/api/v1/clusters/demo/summary",
    NODES,
    "/api/v1/nodes",
    "/openapi.json",
    "/docs",
    "/nothing",
];

/// All headers but those that differ from one answer to the next.
fn lasting(reply: &Reply) -> Vec<(String, String)> {
    let passing = ["x-request-id", "date"];
    let headers = reply
        .headers
        .iter()
        .filter(|(name, _)| !passing.contains(&name.as_str()));
    let mut headers: Vec<_> = headers.cloned().collect();
    headers.sort();
    headers
}

#[test]
fn head_is_get_without_the_body() {
    let service = still(&[]);
    for path in EVERYTHING {
        for encoding in ["identity", "gzip"] {
            let accept = format!("accept-encoding: {encoding}");
            let get = ask(&service, "GET", path, &[&accept]);
            let mut wire = Wire::open(service.address());
            wire.request("HEAD", path, &[&accept]).unwrap();
            let head = wire.head().unwrap();
            assert_eq!(head.status, get.status, "{path}");
            if encoding == "identity" {
                let length = head.header("content-length").map(str::parse);
                assert!(length.is_some(), "{path}: {head:?}");
                // Times and ages within bodies differ from second to second, by a digit at most.
                assert!(
                    length
                        .unwrap()
                        .is_ok_and(|length: usize| length.abs_diff(get.body.len()) <= 2),
                    "{path}"
                );
            }
            let mut differences = lasting(&get);
            differences.retain(|header| !lasting(&head).contains(header));
            differences.retain(|(name, _)| !matches!(name.as_str(), "content-length" | "transfer-encoding"));
            assert_eq!(differences, [], "{path} {encoding}");
            // Nothing follows the head but the next answer.
            wire.request("HEAD", path, &[]).unwrap();
            assert_eq!(wire.head().unwrap().status, get.status);
        }
    }
}

#[test]
fn head_of_a_stream_ends_at_once() {
    let service = still(&[]);
    let mut wire = Wire::open(service.address());
    wire.request("HEAD", WATCH, &[]).unwrap();
    let head = wire.head().unwrap();
    assert_eq!(
        (head.status, head.header("content-type")),
        (200, Some("text/event-stream"))
    );
    assert_eq!(wire.get("/health", &[]).unwrap().status, 200);
}

#[test]
fn options_says_what_is_allowed() {
    let service = still(&[]);
    for path in EVERYTHING
        .into_iter()
        .filter(|path| *path != "/nothing")
        .chain([WATCH, "/metrics"])
    {
        let reply = ask(&service, "OPTIONS", path, &[]);
        let allowed = match path {
            "/api/v1/clusters" => "GET, HEAD, OPTIONS, POST",
            "/api/v1/clusters/demo" => "DELETE, GET, HEAD, OPTIONS, PUT",
            _ => "GET, HEAD, OPTIONS",
        };
        assert_eq!((reply.status, reply.header("allow")), (204, Some(allowed)), "{path}");
        assert_eq!(reply.header("content-length"), None);
    }
    assert_eq!(ask(&service, "OPTIONS", "*", &[]).status, 204);
    assert_problem(&ask(&service, "OPTIONS", "/nothing", &[]), 404);
}

#[test]
fn every_answer_tells_browsers_to_be_careful() {
    let service = still(&[]);
    for path in EVERYTHING {
        let reply = ask(&service, "GET", path, &[]);
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(reply.all(name), [value], "{path}");
        }
        // These are about pages.
        let expected = (path == "/docs").then_some("no-referrer");
        assert_eq!(reply.header("referrer-policy"), expected, "{path}");
        let expected = (path == "/docs").then_some("same-origin");
        assert_eq!(reply.header("cross-origin-opener-policy"), expected, "{path}");
        let policy = reply.header("content-security-policy").unwrap();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{path}"
        );
        let caching = if path.starts_with("/health") || path == "/livez" {
            "no-store"
        } else {
            "no-cache"
        };
        assert!(
            reply.header("cache-control").unwrap().contains(caching),
            "{path}: {reply:?}"
        );
        assert_eq!(reply.header("server"), None);
    }
}

#[test]
fn pages_of_other_origins_may_not_read_anything_by_default() {
    let service = still(&[]);
    let origin = "origin: https://example.org";
    for (method, headers) in [
        ("GET", &[origin][..]),
        ("OPTIONS", &[origin, "access-control-request-method: GET"]),
    ] {
        let reply = ask(&service, method, NODES, headers);
        let shared = reply
            .headers
            .iter()
            .find(|(name, _)| name.starts_with("access-control-"));
        assert_eq!(shared, None);
        assert!(!reply.all("vary").contains(&"origin"));
    }
}

#[test]
fn pages_of_configured_origins_may_read_everything() {
    let service = still(&[("KNM__SERVER__CORS_ORIGINS", "https://example.org,http://localhost:3000")]);
    for origin in ["https://example.org", "http://localhost:3000"] {
        let line = format!("origin: {origin}");
        for path in [NODES, "/nothing", WATCH] {
            let mut wire = Wire::open(service.address());
            wire.request("GET", path, &[&line]).unwrap();
            let reply = wire.head().unwrap();
            assert_eq!(reply.header("access-control-allow-origin"), Some(origin), "{path}");
            assert!(
                reply
                    .header("access-control-expose-headers")
                    .unwrap()
                    .contains("x-request-id")
            );
            assert_eq!(reply.header("cross-origin-resource-policy"), Some("cross-origin"));
            assert!(reply.all("vary").contains(&"origin"));
            assert_eq!(reply.header("access-control-allow-credentials"), None);
        }
        let wish = [
            "access-control-request-method: GET",
            "access-control-request-headers: if-none-match",
        ];
        let reply = ask(&service, "OPTIONS", NODES, &[&line, wish[0], wish[1]]);
        assert_eq!(
            (reply.status, reply.header("access-control-allow-origin")),
            (204, Some(origin))
        );
        assert_eq!(reply.header("access-control-allow-methods"), Some("GET, HEAD, OPTIONS"));
        let sent = reply.header("access-control-allow-headers").unwrap();
        assert!(
            sent.contains("if-none-match") && sent.contains("authorization"),
            "{sent}"
        );
        assert_eq!(reply.header("access-control-max-age"), Some("600"));
    }
    for origin in [
        "https://example.com",
        "http://example.org",
        "https://example.org.evil",
        "null",
    ] {
        let reply = ask(&service, "GET", NODES, &[&format!("origin: {origin}")]);
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, None));
        assert!(reply.all("vary").contains(&"origin"), "caches must not mix answers up");
    }
    assert!(ask(&service, "GET", NODES, &[]).all("vary").contains(&"origin"));
}
