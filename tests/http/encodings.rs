//! Compressed answers, and answers that the caller has already.

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use knm_test_support::service::Service;
use knm_test_support::wire::Reply;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::{NODES, ask, demo, still};

const SELECTED: &str = "/api/v1/clusters/demo/nodes?schedulable=true";
const FLEET: &str = "/api/v1/nodes";
const SUMMARY: &str = "/api/v1/clusters/demo/summary";

/// The body as it was before it was encoded.
fn decoded(reply: &Reply) -> Vec<u8> {
    let body = reply.body.as_slice();
    let mut decoder: Box<dyn AsyncRead + Unpin + '_> = match reply.header("content-encoding") {
        None => Box::new(body),
        Some("gzip") => Box::new(GzipDecoder::new(body)),
        Some("br") => Box::new(BrotliDecoder::new(body)),
        Some("zstd") => Box::new(ZstdDecoder::new(body)),
        Some(other) => panic!("nobody asked for {other}"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut bytes = Vec::new();
    runtime.block_on(decoder.read_to_end(&mut bytes)).unwrap();
    bytes
}

fn encoded(service: &Service, path: &str, accept: &str) -> Reply {
    let reply = ask(service, "GET", path, &[&format!("accept-encoding: {accept}")]);
    assert_eq!(reply.status, 200, "{path}");
    assert!(reply.all("vary").contains(&"accept-encoding"), "{path}");
    reply
}

#[test]
fn every_encoding_holds_the_same_bytes() {
    let service = still(&[]);
    for path in [NODES, SELECTED, FLEET, "/openapi.json", "/openapi.yaml", "/docs"] {
        let plain = ask(&service, "GET", path, &[]);
        assert_eq!(plain.header("content-encoding"), None);
        assert!(plain.all("vary").contains(&"accept-encoding"), "{path}");
        for encoding in ["gzip", "br", "zstd"] {
            // The second may come from memory.
            for _ in 0..2 {
                let reply = encoded(&service, path, encoding);
                assert_eq!(reply.header("content-encoding"), Some(encoding), "{path}");
                assert!(reply.body.len() < plain.body.len(), "{path} {encoding}");
                assert_eq!(reply.header("content-type"), plain.header("content-type"));
                assert!(decoded(&reply) == plain.body, "{path} in {encoding} is something else");
            }
        }
    }
}

#[test]
fn the_caller_decides_which_encoding() {
    let service = still(&[]);
    for (accept, expected) in [
        ("identity", None),
        ("", None),
        ("deflate", None),
        ("gzip;q=0", None),
        ("*;q=0", None),
        ("gzip;q=0, br;q=0.0, zstd;q=0.000", None),
        ("identity;q=1, *;q=0", None),
        ("*", Some("zstd")),
        ("gzip, deflate, br, zstd", Some("zstd")),
        ("gzip, deflate, br", Some("br")),
        ("gzip;q=1.0, br;q=0.5", Some("gzip")),
        ("GZip", Some("gzip")),
        ("gzip ; q=1", Some("gzip")),
        ("gzip;Q=0", None),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip", Some("gzip")),
    ] {
        for path in [NODES, SELECTED] {
            let reply = encoded(&service, path, accept);
            assert_eq!(reply.header("content-encoding"), expected, "{path} {accept:?}");
        }
    }
}

#[test]
fn small_answers_are_not_compressed() {
    let service = still(&[]);
    for path in ["/health", "/health/live", "/api/v1/clusters"] {
        let reply = encoded(&service, path, "gzip, br, zstd");
        assert_eq!(reply.header("content-encoding"), None, "{path}");
        assert!(reply.header("content-length").is_some(), "{path}");
    }
}

#[test]
fn streams_are_not_compressed() {
    let service = still(&[]);
    let headers = ["accept-encoding: gzip, br, zstd"];
    let mut stream = knm_test_support::wire::Events::open(service.address(), "/api/v1/clusters/demo/watch", &headers);
    assert_eq!(stream.next_event().unwrap().unwrap().kind, "snapshot");
}

#[test]
fn what_the_caller_has_already_is_not_sent_again() {
    let service = still(&[]);
    let node = ask(&service, "GET", NODES, &[]).json()["items"][0]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let node = format!("{NODES}/{node}");
    for path in [
        NODES,
        SELECTED,
        SUMMARY,
        FLEET,
        &node,
        "/api/v1/nodes?limit=3",
        "/openapi.json",
    ] {
        for encoding in ["identity", "gzip", "br", "zstd"] {
            let accept = format!("accept-encoding: {encoding}");
            let first = ask(&service, "GET", path, &[&accept]);
            assert_eq!(first.status, 200, "{path}");
            let tag = first.header("etag").unwrap_or_else(|| panic!("{path} has no tag"));
            if encoding != "identity" && first.header("content-encoding").is_some() {
                assert!(tag.starts_with("W/\""), "{path} {encoding}: {tag}");
            }
            for known in [
                tag.to_owned(),
                format!("\"other\", {tag}"),
                tag.replace("W/", ""),
                "*".to_owned(),
            ] {
                let again = ask(&service, "GET", path, &[&accept, &format!("if-none-match: {known}")]);
                assert_eq!(again.status, 304, "{path} {known}");
                assert!(again.body.is_empty() && again.header("content-encoding").is_none());
                assert!(again.header("content-type").is_none() && again.header("transfer-encoding").is_none());
                let opaque = |tag: &str| tag.replace("W/", "");
                assert_eq!(again.header("etag").map(opaque), Some(opaque(tag)));
                assert!(again.header("x-request-id").is_some() && !again.all("vary").is_empty());
            }
            let other = ask(
                &service,
                "GET",
                path,
                &[&accept, "if-none-match: \"other\", W/\"another\""],
            );
            assert_eq!((other.status, other.header("etag")), (200, Some(tag)), "{path}");
        }
    }
}

#[test]
fn an_unchanged_list_is_told_alike_with_and_without_the_operation() {
    let service = still(&[]);
    let tag = ask(&service, "GET", NODES, &[]).header("etag").unwrap().to_owned();
    let known = format!("if-none-match: {tag}");
    // A question mark alone asks for the same list, but by way of the operation.
    let through = ["", "?"].map(|query| ask(&service, "GET", &format!("{NODES}{query}"), &[&known]));
    let told = through.each_ref().map(|reply| {
        let mut headers = reply.headers.clone();
        headers.retain(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()));
        (reply.status, headers)
    });
    assert_eq!(told[0].0, 304);
    assert_eq!(told[0], told[1]);
    for (path, status) in [
        ("/api/v1/clusters/absent/nodes", 404),
        ("/api/v1/clusters/demo/nodes?stauts=ready", 422),
        ("/api/v1/clusters//nodes", 404),
        ("/api/v1/clusters/demo/other/nodes", 404),
    ] {
        let refused = ask(&service, "GET", path, &["if-none-match: *"]);
        assert_eq!(refused.status, status, "{path}");
    }
}

#[test]
fn different_questions_have_different_tags() {
    let service = still(&[]);
    let mut tags: Vec<String> = [NODES, SELECTED, "/api/v1/clusters/demo/nodes?limit=3", FLEET]
        .iter()
        .map(|path| ask(&service, "GET", path, &[]).header("etag").unwrap().to_owned())
        .collect();
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4, "{tags:?}");
}

#[test]
fn a_tag_changes_with_what_it_names() {
    let service = demo(&["--demo-changes-per-second", "20"], &[]);
    for path in [NODES, FLEET, SUMMARY, "/api/v1/clusters/demo/nodes?sort=-age"] {
        let first = ask(&service, "GET", path, &[]);
        let known = format!("if-none-match: {}", first.header("etag").unwrap());
        let changed = (0..3_000).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            Some(ask(&service, "GET", path, &[&known])).filter(|reply| reply.status == 200)
        });
        let changed = changed.unwrap_or_else(|| panic!("{path} never changes"));
        assert_ne!(changed.header("etag"), first.header("etag"), "{path}");
    }
}
