//! The HTTP interface, on the built binary, over real sockets.

#![cfg(test)]

mod audit;
mod callers;
mod changes;
mod connections;
mod drains;
mod encodings;
mod events;
mod identity;
mod limits;
mod management;
mod methods;
mod operations;
mod paths;
mod pods;
mod problems;
mod readme;
mod shutdown;
mod templates;
mod tls;

use knm_test_support::patience::wait_for;
use knm_test_support::service::Service;
use knm_test_support::wire::{Reply, Wire};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");
const NODES: &str = "/api/v1/clusters/demo/nodes";

/// A demo whose nodes are there and stand still.
fn still(variables: &[(&str, &str)]) -> Service {
    demo(&["--demo-changes-per-second", "0"], variables)
}

/// A demo whose nodes are there, perhaps without their pods: where many nodes come and go there are always some whose pods are to come.
fn busy(arguments: &[&str], variables: &[(&str, &str)]) -> Service {
    let arguments: Vec<&str> = ["--demo"].iter().chain(arguments).copied().collect();
    let service = Service::start(PROGRAM, &arguments, variables);
    service.wait_until_ready();
    service.wait_for_status(NODES, 200);
    service
}

/// A demo whose nodes are there.
fn demo(arguments: &[&str], variables: &[(&str, &str)]) -> Service {
    let service = busy(arguments, variables);
    // Their pods come a little later, which is a new state of the list.
    wait_for("the pods", || {
        let list = service.get(NODES).json();
        let nodes = list["items"].as_array()?;
        nodes.iter().all(|node| !node["requested"].is_null()).then_some(())
    });
    service
}

/// The answer to these bytes.
#[track_caller]
fn raw(service: &Service, bytes: impl AsRef<[u8]>) -> Reply {
    let mut wire = Wire::open(service.address());
    wire.send(bytes).unwrap();
    wire.reply().unwrap()
}

/// The answer to a request without a body.
#[track_caller]
fn ask(service: &Service, method: &str, target: &str, headers: &[&str]) -> Reply {
    let mut wire = Wire::open(service.address());
    wire.request(method, target, headers).unwrap();
    match method {
        "HEAD" => wire.head().unwrap(),
        _ => wire.reply().unwrap(),
    }
}

/// That this is a problem as RFC 9457 wants it, with the id of its request, and nothing but that.
#[track_caller]
fn assert_problem(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json"),
        "{reply:?}"
    );
    let problem = reply.json();
    assert_eq!(problem["status"], status);
    for key in ["type", "title", "detail", "request_id"] {
        assert!(
            problem[key].as_str().is_some_and(|text| !text.is_empty()),
            "{key}: {problem}"
        );
    }
    assert!(
        problem["type"]
            .as_str()
            .unwrap()
            .starts_with("urn:kube-node-manager:problem:")
    );
    assert_eq!(problem["request_id"].as_str(), reply.header("x-request-id"));
    assert_eq!(reply.all("x-request-id").len(), 1);
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
}
