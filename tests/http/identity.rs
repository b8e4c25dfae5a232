//! Each request has an id, and one line in the log.

use knm_test_support::service::Service;
use knm_test_support::wire::Wire;
use serde_json::Value;

use crate::{NODES, ask, raw, still};

/// The lines of the log about the request with this id.
fn lines_of(service: &Service, id: &str) -> Vec<Value> {
    service.wait_for_line(&format!("\"request_id\":\"{id}\""));
    let lines = service.lines();
    let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["request_id"] == id).collect()
}

#[test]
fn a_sane_id_is_taken_and_returned() {
    let service = still(&[]);
    for id in ["a", "4bf92f35-77b3_4da6.A", &"x".repeat(128)] {
        for path in [NODES, "/health", "/nothing"] {
            let reply = ask(&service, "GET", path, &[&format!("X-Request-ID: {id}")]);
            assert_eq!(reply.all("x-request-id"), [id], "{path}");
        }
    }
}

#[test]
fn an_id_that_is_not_sane_is_replaced() {
    let service = still(&[]);
    let too_long = "x".repeat(129);
    for id in [
        "", " ", "a b", "a\tb", "a\"b", "a\\b", "a;b", "a{b}", "ü", "日本", "a%0a", "<b>", &too_long,
    ] {
        let reply = ask(&service, "GET", NODES, &[&format!("x-request-id: {id}")]);
        assert_eq!(reply.status, 200);
        let given = reply.header("x-request-id").unwrap();
        assert_ne!(given, id);
        assert!(
            16 <= given.len() && given.bytes().all(|byte| byte.is_ascii_alphanumeric()),
            "{given}"
        );
    }
}

#[test]
fn no_two_requests_get_the_same_id() {
    let service = still(&[]);
    let mut wire = Wire::open(service.address());
    let mut ids: Vec<String> = (0..50)
        .map(|_| {
            wire.get("/health", &[])
                .unwrap()
                .header("x-request-id")
                .unwrap()
                .to_owned()
        })
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 50);
}

#[test]
fn a_request_has_one_line_that_tells_its_route_status_and_duration() {
    let service = still(&[]);
    let node = ask(&service, "GET", NODES, &[]).json()["items"][0]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    for (id, method, path, route, status, level) in [
        (
            "one",
            "GET",
            NODES.to_owned(),
            "/api/v1/clusters/{cluster}/nodes",
            200,
            "INFO",
        ),
        (
            "two",
            "HEAD",
            format!("{NODES}/{node}"),
            "/api/v1/clusters/{cluster}/nodes/{node}",
            200,
            "INFO",
        ),
        (
            "three",
            "GET",
            format!("{NODES}?limit=x"),
            "/api/v1/clusters/{cluster}/nodes",
            422,
            "WARN",
        ),
        (
            "four",
            "GET",
            format!("{NODES}/nobody"),
            "/api/v1/clusters/{cluster}/nodes/{node}",
            404,
            "WARN",
        ),
        (
            "five",
            "DELETE",
            NODES.to_owned(),
            "/api/v1/clusters/{cluster}/nodes",
            405,
            "WARN",
        ),
        ("six", "GET", "/nothing/secret".to_owned(), "unmatched", 404, "WARN"),
        ("seven", "OPTIONS", "/docs".to_owned(), "/docs", 204, "INFO"),
        ("eight", "BREW", "/docs".to_owned(), "/docs", 405, "WARN"),
        (
            "nine",
            "GET",
            "/api/v1/clusters/demo/watch?last_event_id=x".to_owned(),
            "/api/v1/clusters/{cluster}/watch",
            422,
            "WARN",
        ),
    ] {
        assert_eq!(
            ask(&service, method, &path, &[&format!("x-request-id: {id}")]).status,
            status
        );
        let lines = lines_of(&service, id);
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line = &lines[0];
        assert_eq!(
            (&line["message"], &line["level"]),
            (&"request".into(), &level.into()),
            "{line}"
        );
        let fields = &line["fields"];
        assert_eq!(
            (&fields["route"], &fields["status"]),
            (&route.into(), &status.into()),
            "{line}"
        );
        let method = if method == "BREW" { "other" } else { method };
        assert_eq!(fields["method"], method, "{line}");
        assert!(
            fields["duration_ms"].as_f64().is_some_and(|duration| 0.0 <= duration),
            "{line}"
        );
    }
}

#[test]
fn a_request_that_cannot_be_read_has_its_line_and_is_counted() {
    let service = still(&[]);
    let reply = raw(&service, "nonsense\r\n\r\n");
    let lines = lines_of(&service, reply.header("x-request-id").unwrap());
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(
        (&lines[0]["level"], &lines[0]["fields"]["status"]),
        (&"WARN".into(), &400.into())
    );
    let metrics = service.get("/metrics").body;
    let series = r#"http_requests_total{method="other",route="unmatched",status="400"} 1"#;
    assert!(metrics.contains(series), "{metrics}");
}

#[test]
fn probes_and_scrapes_are_logged_at_debug_only() {
    let routine = [
        "/health",
        "/health/",
        "/health/live",
        "/health/ready",
        "/health/detailed",
        "/livez",
        "/readyz",
        "/metrics",
    ];
    for (level, logged) in [("info", false), ("debug", true)] {
        let service = still(&[("LOG_LEVEL", level)]);
        for (number, path) in routine.into_iter().enumerate() {
            assert_eq!(
                ask(&service, "GET", path, &[&format!("x-request-id: routine-{number}")]).status,
                200
            );
        }
        assert_eq!(ask(&service, "GET", NODES, &["x-request-id: last"]).status, 200);
        assert_eq!(lines_of(&service, "last").len(), 1);
        for number in 0..routine.len() {
            let text = format!("\"request_id\":\"routine-{number}\"");
            match logged {
                true => assert_eq!(lines_of(&service, &format!("routine-{number}"))[0]["level"], "DEBUG"),
                false => assert!(!service.lines().iter().any(|line| line.contains(&text))),
            }
        }
    }
}
