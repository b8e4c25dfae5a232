//! Every operation of the document, filled in.

use std::collections::BTreeMap;

use knm_test_support::service::Service;
use knm_test_support::wire::{Reply, Wire};
use serde_json::{Value, json};

use crate::canaries::Canaries;

/// A service with whom asks it, and all that they get to see.
pub struct Visit<'a> {
    pub service: &'a Service,
    pub canaries: Canaries,
    /// What is put into `Authorization`.
    pub token: String,
}

/// One operation of the document.
pub struct Operation {
    pub method: String,
    pub path: String,
    /// The body of the document's example.
    pub body: Option<Value>,
}

/// All operations of a document, those that remove things last.
pub fn operations(document: &Value) -> Vec<Operation> {
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let example = &operation["requestBody"]["content"]["application/json"]["example"];
            all.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                body: Some(example.clone()).filter(|example| !example.is_null()),
            });
        }
    }
    assert!(50 < all.len(), "the document has its operations");
    all.sort_by_key(|operation| operation.method == "DELETE");
    all
}

impl Visit<'_> {
    /// Asks as the admin.
    pub fn ask(&mut self, method: &str, path: &str, headers: &[&str], body: Option<&Value>) -> Reply {
        let signed_in = format!("authorization: Bearer {}", self.token);
        self.ask_as(method, path, &[&[signed_in.as_str()], headers].concat(), body)
    }

    /// Asks with exactly these headers.
    pub fn ask_as(&mut self, method: &str, path: &str, headers: &[&str], body: Option<&Value>) -> Reply {
        let mut wire = Wire::open(self.service.address());
        let text = body.map(Value::to_string);
        let length = format!("content-length: {}", text.as_ref().map_or(0, String::len));
        let of_body = ["content-type: application/json", &length];
        let headers = if body.is_some() {
            [&of_body, headers].concat()
        } else {
            headers.to_vec()
        };
        wire.request(method, path, &headers).expect("it is sent");
        wire.send(text.unwrap_or_default()).expect("it is sent");
        let mut reply = wire.head().expect("a head");
        if reply.header("content-type") == Some("text/event-stream") {
            // It has no end: what is there when it begins, and a little of what follows.
            for _ in 0..64 {
                let chunk = wire.chunk().expect("an event").unwrap_or_default();
                let is_last = chunk.is_empty() || String::from_utf8_lossy(&chunk).contains("event: synced");
                reply.body.extend(chunk);
                if is_last {
                    break;
                }
            }
        } else {
            reply.body = wire.body_of(&reply).expect("a body");
        }
        let mut told = format!("{:?} {}", reply.headers, reply.text());
        if method == "POST" && path == "/api/v1/tokens" && reply.status == 201 {
            // The one answer with a secret: it has it once, and nobody may keep it.
            let secret = reply.json()["secret"].as_str().expect("the secret").to_owned();
            assert_eq!(told.matches(&secret[21..]).count(), 1, "{path}");
            assert_eq!(reply.header("cache-control"), Some("no-store"));
            told = told.replace(&secret, "");
            self.canaries.hide("a token made by HTTP", &secret[21..]);
        }
        self.canaries
            .see(&format!("the answer {} of {method} {path}", reply.status), told);
        reply
    }

    /// Asks for something that must work.
    pub fn done(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let reply = self.ask(method, path, &[], Some(body));
        assert!((200..300).contains(&reply.status), "{method} {path}: {}", reply.text());
        reply.json()
    }

    /// Does everything there is once, on a fleet called `demo` and with a registered cluster `east`.
    pub fn walk(&mut self) {
        let document = self.ask("GET", "/openapi.json", &[], None).json();
        let things = self.things();
        for operation in operations(&document) {
            let mut path = operation.path.clone();
            for (name, value) in &things {
                path = path.replace(name, value);
            }
            let kind = operation.path.split('/').nth(3).unwrap_or_default();
            let id = things.get(kind).map_or("none", String::as_str);
            path = path.replace("{id}", id);
            if kind == "clusters" && (operation.method == "PUT" || operation.method == "DELETE") {
                path = path.replace("demo", "east");
            }
            let reply = self.ask(&operation.method, &path, &[], operation.body.as_ref());
            assert!(reply.status < 500, "{} {path}: {}", operation.method, reply.text());
            assert_ne!(reply.status, 401, "{} {path}", operation.method);
            // Without a body, and with one that is wrong.
            self.ask(
                &operation.method,
                &path,
                &["idempotency-key: walk"],
                Some(&json!({"odd": [1]})),
            );
        }
    }

    /// What exists, by what stands for it in the paths of the document.
    fn things(&mut self) -> BTreeMap<String, String> {
        let list = self.ask("GET", "/api/v1/clusters/demo/nodes?limit=1", &[], None).json();
        let node = list["items"][0]["name"].as_str().expect("a node").to_owned();
        let body = json!({"kind": "label", "targets": {"nodes": [node]}, "options": {"set": {"a": "b"}}});
        let operation = self.done("POST", "/api/v1/clusters/demo/operations", &body)["id"].clone();
        self.done(
            "POST",
            "/api/v1/templates",
            &json!({"name": "t", "labels": {"pool": "gpu"}}),
        );
        let binding = json!({"name": "b", "template": "t", "cluster": "demo", "label_selector": "pool"});
        self.done("POST", "/api/v1/bindings", &binding);
        let token =
            self.done("POST", "/api/v1/tokens", &json!({"name": "walk", "role": "viewer"}))["token"]["id"].clone();
        let records = self.ask("GET", "/api/v1/audit", &[], None).json();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        [
            ("{cluster}", "demo".to_owned()),
            ("{node}", node),
            ("{template}", "t".to_owned()),
            ("{binding}", "b".to_owned()),
            ("{check}", "ping".to_owned()),
            ("operations", text(&operation)),
            ("tokens", text(&token)),
            ("audit", text(&records["items"][0]["id"])),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}
