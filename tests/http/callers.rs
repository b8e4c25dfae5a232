//! Who asks: by which address callers are told apart.

use knm_test_support::wire::Wire;
use serde_json::json;

use crate::{NODES, ask, assert_problem, raw, still};

/// The addresses that the audit log tells, the latest first.
fn addresses(variables: &[(&str, &str)], forwarded: &[&str]) -> Vec<String> {
    let service = still(variables);
    let list = ask(&service, "GET", &format!("{NODES}?limit=1"), &[]).json();
    let node = list["items"][0]["name"].as_str().unwrap();
    let path = format!("{NODES}/{node}/labels");
    let mut wire = Wire::open(service.address());
    let body = json!({"set": {"seen": "yes"}});
    let reply = wire.send_json("PATCH", &path, forwarded, &body).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let records = ask(&service, "GET", "/api/v1/audit", &[]).json();
    let items = records["items"].as_array().unwrap().iter();
    items
        .map(|record| record["actor"]["address"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_audit_log_has_the_address_of_the_peer_or_whom_a_trusted_proxy_asks_for() {
    let forwarded = ["x-forwarded-for: 192.0.2.1, 198.51.100.7", "x-forwarded-for: 10.9.9.9"];
    assert_eq!(addresses(&[], &forwarded), ["127.0.0.1"]);
    let trusted = [("KNM__SERVER__TRUSTED_PROXIES", "127.0.0.0/8,10.0.0.0/8")];
    assert_eq!(addresses(&trusted, &forwarded), ["198.51.100.7"]);
    assert_eq!(addresses(&trusted, &[]), ["127.0.0.1"]);
}

#[test]
fn where_nobody_signs_in_pages_of_other_origins_change_nothing_and_other_names_lead_nowhere() {
    let service = still(&[("KNM__SERVER__CORS_ORIGINS", "https://known.example")]);
    let list = ask(&service, "GET", &format!("{NODES}?limit=1"), &[]).json();
    let path = format!("{NODES}/{}/labels", list["items"][0]["name"].as_str().unwrap());
    let patch = |headers: &[&str]| {
        let mut wire = Wire::open(service.address());
        let reply = wire
            .send_json("PATCH", &path, headers, &json!({"set": {"a": "b"}}))
            .unwrap();
        if reply.status != 200 {
            assert_problem(&reply, 403);
        }
        reply.status
    };
    assert_eq!(
        patch(&["origin: https://evil.example", "sec-fetch-site: cross-site"]),
        403
    );
    assert_eq!(patch(&["sec-fetch-site: same-site"]), 403);
    assert_eq!(patch(&["origin: http://localhost", "sec-fetch-site: same-origin"]), 200);
    assert_eq!(
        patch(&["origin: https://known.example", "sec-fetch-site: cross-site"]),
        200
    );
    let rebound = |path: &str| raw(&service, format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\n\r\n"));
    assert_problem(&rebound(NODES), 403);
    assert_eq!(rebound("/health").status, 200, "probes may call it what they like");
}
