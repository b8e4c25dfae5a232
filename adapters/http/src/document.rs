//! The OpenAPI document: what the operations declare, completed by what the framework cannot say.

use std::sync::OnceLock;

use knm_model::{AuditAction, AuditOutcome, OperationKind, OperationState, Permission};
use poem::http::Method;
use serde_json::{Map, Value, json};

use crate::access::{Need, Part, need};
use crate::api::nodes::field_names;
use crate::example;
use crate::lines::NDJSON;
use crate::problem::{Kind, NOT_SIGNED_IN, Problem};

/// The version of the interface, not of the program.
pub(crate) const INTERFACE_VERSION: &str = "1.0.0";
/// Keys that are left out instead of null.
const LEFT_OUT: [(&str, &str); 1] = [("Problem", "chain")];

/// What callers write: they leave out what they do not need.
const BODIES: [&str; 21] = [
    "NewCluster",
    "ClusterCredentials",
    "LabelChange",
    "TaintChange",
    "TaintToAdd",
    "TaintToRemove",
    "CordonRequest",
    "UncordonRequest",
    "DrainOptions",
    "DrainTier",
    "OperationRequest",
    "FleetOperationRequest",
    "OperationTargets",
    "ClusterTargets",
    "OperationStrategy",
    "NewTemplate",
    "TemplateContent",
    "TemplatePreviewRequest",
    "NewBinding",
    "BindingContent",
    "NewToken",
];

/// The whole OpenAPI document as YAML. It is the same in every combination of features.
#[must_use]
pub fn openapi_yaml() -> String {
    serde_yaml::to_string(document()).unwrap_or_default()
}

/// The whole OpenAPI document as JSON. It is the same in every combination of features.
#[must_use]
pub fn openapi_json() -> String {
    document().to_string()
}

/// The document, made once.
pub(crate) fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let mut document: Value = serde_json::from_str(&crate::service().spec()).unwrap_or_default();
        complete(&mut document);
        sorted(document)
    })
}

fn complete(document: &mut Value) {
    document["security"] = json!([]);
    document["components"]["securitySchemes"] = json!({"bearer": {
        "type": "http", "scheme": "bearer",
        "description": "An API token of this service (`knm_…`), a token of an OpenID provider, or a token of a cluster: `auth.mode` says which.",
    }});
    document["components"]["responses"] = problem_responses();
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        for (name, schema) in schemas.iter_mut() {
            match BODIES.contains(&name.as_str()) {
                true => tell_optional(schema),
                false => tell_nulls(name, schema),
            }
        }
        let mut partial = schemas.get("Node").cloned().unwrap_or_default();
        if let Some(partial) = partial.as_object_mut() {
            partial.remove("required");
            partial.insert(
                "description".to_owned(),
                "A node of a list; with `fields`, only those keys of it.".into(),
            );
        }
        schemas.insert("ListedNode".to_owned(), partial);
        // A node that is answered alone tells what else the list around it would.
        let mut alone = schemas.get("Node").cloned().unwrap_or_default();
        alone["properties"]["stale"] = json!({"type": "boolean", "description": "Whether the cluster cannot be seen at the moment, so that this may be old."});
        alone["properties"]["as_of"] = json!({
            "type": "string", "nullable": true,
            "description": "While it is stale: when the cluster was last seen, RFC 3339 in UTC; null otherwise.",
        });
        if let Some(required) = alone.get_mut("required").and_then(Value::as_array_mut) {
            required.extend(["stale".into(), "as_of".into()]);
        }
        schemas.insert("Node".to_owned(), alone);
        for list in ["NodeList", "AllNodesList"] {
            schemas[list]["properties"]["items"]["items"] = json!({"$ref": "#/components/schemas/ListedNode"});
        }
    }
    let schemas = document["components"]["schemas"].clone();
    if let Some(paths) = document["paths"].as_object_mut() {
        for (path, operations) in paths.iter_mut() {
            let operations = operations.as_object_mut().into_iter().flatten();
            for (method, operation) in operations {
                complete_operation(operation);
                tell_whether_a_body_is_needed(operation, &schemas);
                tell_access(operation, &need(path, &method_of(method)));
            }
        }
    }
    // The framework writes the stream as an array of events, which no client could read.
    for (path, operation) in [
        ("/api/v1/clusters/{cluster}/watch", "watchNodes"),
        ("/api/v1/operations/{id}/events", "watchOperation"),
    ] {
        let stream = &mut document["paths"][path]["get"]["responses"]["200"];
        stream["description"] = "The stream, until one of both ends leaves.".into();
        stream["content"] = json!({"text/event-stream": {
            "schema": {"type": "string", "description": "Server-sent events: `id`, `event` and `data` lines, the data as JSON."},
            "example": example::of(operation, "200"),
        }});
    }
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        for event in ["WatchEvent", "FollowEvent"] {
            schemas.remove(event);
        }
    }
}

/// One answer per kind of problem, with an example.
fn problem_responses() -> Value {
    let mut responses = Map::new();
    // Only methods that no operation has are answered with 405, so no operation could name it.
    for kind in Kind::ALL.iter().copied().filter(|kind| *kind != Kind::MethodNotAllowed) {
        let problem = Problem::new(kind, example_detail(kind));
        let view = serde_json::to_value(problem.view("0192f0c1a2b3c4d5e6f70123", false)).unwrap_or_default();
        let mut response = json!({
            "description": kind.title(),
            "content": {"application/problem+json": {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "example": view,
            }},
        });
        if matches!(kind, Kind::Unavailable | Kind::TooMany) {
            response["headers"] = json!({"Retry-After": {
                "description": "Seconds after which it may be tried again.",
                "schema": {"type": "integer", "minimum": 1},
            }});
        }
        let status = kind.status().as_u16().to_string();
        // Of two kinds with one status, both are named.
        if let Some(other) = responses.get(&status) {
            let both = [&other["description"], &response["description"]].map(|text| text.as_str().unwrap_or_default());
            response["description"] = both.join("; or ").into();
        }
        responses.insert(status, response);
    }
    Value::Object(responses)
}

fn example_detail(kind: Kind) -> &'static str {
    match kind {
        Kind::NotSignedIn => NOT_SIGNED_IN,
        Kind::Forbidden => "ci does not have the permission drain in cluster prod for what is named",
        Kind::NotFound => "cluster \"prod\" is not known: GET /api/v1/clusters lists those that are",
        Kind::Invalid => "limit: \"0\" is not a whole number from 1 to 10000",
        Kind::ClusterRefused => {
            "the service may not create pods/eviction in cluster prod, so it cannot drain nodes there: \
             bind the ClusterRole kube-node-manager-evict-pods to its account"
        }
        Kind::Unavailable => "the nodes of cluster prod are not known yet: the cluster cannot be reached",
        Kind::TooMany => "these are more than 500 requests a second",
        Kind::UriTooLong => "the URL has more than the 8192 bytes that are allowed",
        Kind::HeadersTooLarge => "the headers have 40000 bytes, at most 16384 are allowed",
        Kind::Conflict => {
            "node worker-a-1 is held by ann (disk errors): \"hold\" with an id releases one hold, \"force\": true all of them"
        }
        Kind::Stale => "node worker-a-1 is in another state, 0b4a-1722, than the caller expects: read it again",
        Kind::MediaType => "the body is \"text/plain\": application/json is expected",
        Kind::TooLarge => "the body has more than the 1048576 bytes that are allowed",
        Kind::NotConfigured => {
            "clusters cannot be registered: secrets.key_file is not set, so their credentials could not be stored safely; \
             `secrets generate-key` prints a key for that file"
        }
        Kind::Malformed
        | Kind::MethodNotAllowed
        | Kind::RequestTimeout
        | Kind::Internal
        | Kind::NotBuilt
        | Kind::TimedOut => kind.title(),
    }
}

/// Says which keys a caller may leave out: all that have a default.
fn tell_optional(schema: &mut Value) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    let mut optional = Vec::new();
    for (key, property) in properties.iter_mut() {
        let Some(default) = property.get("default") else {
            continue;
        };
        optional.push(key.clone());
        // That there is none is no default.
        if let (true, Some(property)) = (default.is_null(), property.as_object_mut()) {
            property.remove("default");
            // To say that there is none is to leave it out.
            if property.contains_key("type") {
                property.insert("nullable".to_owned(), true.into());
            }
        }
    }
    let Some(schema) = schema.as_object_mut() else {
        return;
    };
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|key| !optional.iter().any(|optional| key == optional));
        if required.is_empty() {
            schema.remove("required");
        }
    }
}

/// Says which keys may be null; all keys are always there, but for a few.
fn tell_nulls(name: &str, schema: &mut Value) {
    let required: Vec<String> = schema["required"]
        .as_array()
        .map(|keys| keys.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default();
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    let mut always = Vec::new();
    for (key, property) in properties.iter_mut() {
        if LEFT_OUT.contains(&(name, key.as_str())) {
            continue;
        }
        always.push(Value::from(key.as_str()));
        // The framework tells the description beside the reference, and again among what all must hold.
        if let Some(parts) = property.get_mut("allOf").and_then(Value::as_array_mut) {
            parts.truncate(1);
        }
        if required.contains(key) {
            continue;
        }
        let referenced = property.as_object_mut().and_then(|property| {
            let alone = property.remove("$ref").map(|reference| json!({"$ref": reference}));
            alone.or_else(|| property.remove("allOf").map(|parts| parts[0].clone()))
        });
        match referenced {
            // `nullable` beside a reference does not make what it names nullable.
            Some(reference) => {
                property["anyOf"] = json!([reference, {"type": "object", "nullable": true, "enum": [null]}]);
            }
            None => property["nullable"] = true.into(),
        }
    }
    schema["required"] = Value::Array(always);
}

/// A body in which no key is needed may be left out: none at all is an empty object.
fn tell_whether_a_body_is_needed(operation: &mut Value, schemas: &Value) {
    let Some(body) = operation.get_mut("requestBody") else {
        return;
    };
    let reference = body["content"]["application/json"]["schema"]["$ref"]
        .as_str()
        .unwrap_or_default();
    let name = reference.rsplit('/').next().unwrap_or_default();
    let is_needed = schemas[name].get("required").is_some();
    body["required"] = is_needed.into();
}

/// Says who may call an operation.
fn tell_access(operation: &mut Value, need: &Need) {
    if matches!(need.part, Part::Public | Part::Metrics | Part::Docs) {
        return;
    }
    operation["security"] = json!([{"bearer": []}]);
    let words = |permissions: &[Permission]| {
        let words: Vec<String> = permissions.iter().map(|one| format!("`{}`", one.as_str())).collect();
        words.join(", ")
    };
    let place = match need.part {
        Part::Everything => ", without a limit to clusters or nodes",
        Part::Public | Part::Metrics | Part::Docs | Part::Anything | Part::SomeOfCluster | Part::Node => "",
    };
    let perhaps = match need.perhaps {
        [] => String::new(),
        perhaps => format!("; what is asked for may need {}, too", words(perhaps)),
    };
    let told = operation["description"].as_str().unwrap_or_default();
    let told = format!("{told}\n\nPermissions: {}{place}{perhaps}.", words(need.permissions));
    operation["description"] = told.into();
    for status in ["401", "403"] {
        operation["responses"][status] = json!({"$ref": format!("#/components/responses/{status}")});
    }
}

fn method_of(method: &str) -> Method {
    Method::from_bytes(method.to_ascii_uppercase().as_bytes()).unwrap_or_default()
}

fn complete_operation(operation: &mut Value) {
    let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
    if let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut) {
        for parameter in parameters.iter_mut() {
            complete_parameter(&id, parameter);
        }
    }
    let body = operation
        .get_mut("requestBody")
        .and_then(|body| body.get_mut("content"));
    if let Some(media) = body.and_then(Value::as_object_mut) {
        for media in media.values_mut() {
            media["example"] = example::of_body(&id).unwrap_or_default();
        }
    }
    let takes_body = operation.get("requestBody").is_some();
    // What changes nothing ignores the key, and the secret of a token is not kept.
    if (takes_body || is_wish(&id)) && !matches!(id.as_str(), "planDrain" | "previewTemplate" | "createToken") {
        let header = json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
            "description": "Any text of 1 to 255 printable ASCII characters: the same request with the same key is done once and answered alike for 24 hours. Another request with it is a 422, one that \
                comes while the first is being worked on a 409. With `dry_run` of anything but a drain it is ignored.",
            "example": example::of_parameter(&id, "Idempotency-Key"),
        });
        if let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut) {
            parameters.push(header);
        }
    }
    if operation["responses"].get("412").is_some() {
        let header = json!({
            "name": "If-Match", "in": "header", "required": false, "schema": {"type": "string"},
            "description": "The `ETag` of what is changed: 412 if it is in another state.",
            "example": example::of_parameter(&id, "If-Match"),
        });
        if let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut) {
            parameters.push(header);
        }
    }
    let has_tag = operation["responses"].get("304").is_some();
    let is_stream = matches!(id.as_str(), "watchNodes" | "watchOperation");
    if has_tag || is_stream {
        let (name, description) = match is_stream {
            true => (
                "Last-Event-ID",
                "The id of the last event that was read: the stream goes on after it.",
            ),
            false => (
                "If-None-Match",
                "The `ETag` of an earlier answer: 304 if nothing changed since.",
            ),
        };
        let header = json!({
            "name": name, "in": "header", "description": description, "required": false,
            "schema": {"type": "string"}, "example": example::of_parameter(&id, name),
        });
        match operation.get_mut("parameters").and_then(Value::as_array_mut) {
            Some(parameters) => parameters.push(header),
            None => operation["parameters"] = json!([header]),
        }
    }
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else {
        return;
    };
    if let Some(links) = links(&id) {
        let status = if responses.contains_key("202") { "202" } else { "200" };
        responses[status]["links"] = links;
    }
    for (status, response) in responses.iter_mut() {
        let is_problem = response["content"].get("application/problem+json").is_some();
        if is_problem {
            *response = json!({"$ref": format!("#/components/responses/{status}")});
            continue;
        }
        let headers = json!({
            "description": "Identifies the request; the log has it too.",
            "schema": {"type": "string"},
        });
        response["headers"]["X-Request-Id"] = headers;
        if let Some(content) = response.get_mut("content").and_then(Value::as_object_mut) {
            for (kind, media) in content.iter_mut() {
                let example = match kind.as_str() {
                    NDJSON => example::of_line(&id),
                    _ => example::of(&id, status),
                };
                media["example"] = example.unwrap_or_default();
            }
        }
    }
}

/// Which operations go on with what a list tells.
fn links(operation: &str) -> Option<Value> {
    let first = "$response.body#/items/0/name";
    let link = |target: &str, description: &str, parameters: Value| json!({"operationId": target, "description": description, "parameters": parameters});
    match operation {
        "listClusters" => {
            let cluster = || json!({"cluster": first});
            Some(json!({
                "cluster": link("getCluster", "A cluster by its name.", cluster()),
                "summary": link("getClusterSummary", "The totals of a cluster by its name.", cluster()),
                "nodes": link("listNodes", "The nodes of a cluster by its name.", cluster()),
            }))
        }
        "listNodes" => {
            let node = || json!({"cluster": "$request.path.cluster", "node": first});
            Some(json!({
                "node": link("getNode", "A node by its name.", node()),
                "pods": link("listPodsOnNode", "The pods on a node by its name.", node()),
            }))
        }
        "drainNode" | "createClusterOperation" | "createOperation" | "retryOperation" => {
            let id = || json!({"id": "$response.body#/id"});
            Some(json!({
                "operation": link("getOperation", "The operation that was accepted.", id()),
                "cancel": link("cancelOperation", "Cancels the operation that was accepted.", id()),
            }))
        }
        _ => None,
    }
}

/// Whether the operation takes a wish about another one that is under way.
fn is_wish(operation: &str) -> bool {
    matches!(
        operation,
        "cancelOperation" | "pauseOperation" | "resumeOperation" | "retryOperation"
    )
}

/// Says what the framework cannot: what is allowed in texts.
fn complete_parameter(operation: &str, parameter: &mut Value) {
    let name = parameter["name"].as_str().unwrap_or_default().to_owned();
    let listed = |words: &[&str]| format!("^({0})(,({0}))*$", words.join("|"));
    let word = json!({"type": "string", "minLength": 1, "maxLength": 253});
    let schema = match name.as_str() {
        "status" => json!({"type": "string", "pattern": listed(&["ready", "not_ready", "unknown"])}),
        "fields" => json!({"type": "string", "pattern": listed(&field_names())}),
        "schedulable" => json!({"type": "string", "enum": ["true", "false"]}),
        "sort" => json!({"type": "string", "pattern": "^-?(name|age|cpu|memory|zone|status)$", "default": "name"}),
        "limit" if example::has_ids_as_cursors(operation) => json!({"type": "integer", "minimum": 1, "maximum": 1_000}),
        "limit" => json!({"type": "integer", "minimum": 1, "maximum": 10_000}),
        "cursor" if example::has_ids_as_cursors(operation) => json!({"type": "string", "format": "uuid"}),
        "id" | "operation" => json!({"type": "string", "format": "uuid"}),
        "kind" => json!({"type": "string", "enum": OperationKind::ALL.map(OperationKind::as_str)}),
        "state" => json!({"type": "string", "pattern": listed(&OperationState::ALL.map(OperationState::as_str))}),
        "last_event_id" if operation == "watchOperation" => json!({"type": "string", "pattern": "^[0-9]{1,18}$"}),
        "action" => json!({"type": "string", "enum": AuditAction::ALL.map(AuditAction::as_str)}),
        "outcome" => json!({"type": "string", "enum": outcomes()}),
        "from" | "until" => json!({"type": "string", "format": "date-time"}),
        "label_selector" => json!({"type": "string", "maxLength": 4_096}),
        "cursor" => json!({"type": "string", "pattern": "^[A-Za-z0-9_-]+$", "maxLength": 2_048}),
        "taint" => json!({"type": "string", "maxLength": 640}),
        "role" | "zone" | "search" | "actor" | "reason" => word,
        "dry_run" | "cancel_operations" => json!({"type": "string", "enum": ["true", "false"], "default": "false"}),
        "version" => json!({"type": "integer", "minimum": 1, "maximum": u32::MAX}),
        "check" => json!({"type": "string", "enum": checks(operation)}),
        "last_event_id" => json!({"type": "string", "pattern": "^[0-9a-f]+-[0-9]+$"}),
        _ => parameter["schema"].clone(),
    };
    parameter["schema"] = schema;
    parameter["example"] = example::of_parameter(operation, &name).unwrap_or_default();
}

/// The outcomes that can be asked for.
fn outcomes() -> Vec<&'static str> {
    let known = AuditOutcome::ALL.into_iter().map(AuditOutcome::as_str);
    std::iter::once(AuditOutcome::PENDING).chain(known).collect()
}

/// The checks that can be asked for.
fn checks(operation: &str) -> &'static [&'static str] {
    match operation {
        "getReadyzCheck" => &["database", "migrations", "shutdown"],
        _ => &["ping"],
    }
}

/// The same value with all keys in alphabetical order, so that the text never depends on how maps are built.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().collect();
            entries.sort_by(|(left, _), (right, _)| left.cmp(right));
            Value::Object(entries.into_iter().map(|(key, value)| (key, sorted(value))).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi/kube-node-manager.yaml");

    #[test]
    fn the_committed_document_is_what_the_code_says() {
        let committed = std::fs::read_to_string(COMMITTED).unwrap_or_default();
        assert!(
            committed == openapi_yaml(),
            "write it anew: cargo run -- openapi --format yaml > openapi/kube-node-manager.yaml"
        );
    }

    #[test]
    fn whoever_filters_by_action_or_outcome_reads_which_there_are() {
        let document = document();
        for path in ["/api/v1/audit", "/api/v1/clusters/{cluster}/nodes/{node}/history"] {
            let parameters = document["paths"][path]["get"]["parameters"].as_array().unwrap();
            for (name, words) in [
                (
                    "action",
                    knm_model::AuditAction::ALL.map(|action| action.as_str()).to_vec(),
                ),
                (
                    "outcome",
                    knm_model::AuditOutcome::ALL.map(|outcome| outcome.as_str()).to_vec(),
                ),
            ] {
                let parameter = parameters.iter().find(|parameter| parameter["name"] == name);
                let text = parameter.unwrap()["description"].as_str().unwrap();
                for word in words {
                    assert!(text.contains(&format!("`{word}`")), "{path} {name}: {word}");
                }
            }
        }
    }

    #[test]
    fn every_field_and_parameter_and_operation_is_described() {
        let document = document();
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            for (key, property) in schema["properties"].as_object().into_iter().flatten() {
                assert!(
                    property["description"].as_str().is_some_and(|text| !text.is_empty()),
                    "{name}.{key}"
                );
            }
        }
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                for key in ["summary", "description", "operationId"] {
                    assert!(
                        operation[key].as_str().is_some_and(|text| !text.is_empty()),
                        "{method} {path}: {key}"
                    );
                }
                assert!(!operation["tags"].as_array().unwrap().is_empty(), "{path}");
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    let name = &parameter["name"];
                    assert!(parameter["description"].as_str().is_some(), "{path}: {name}");
                    assert!(!parameter["example"].is_null(), "{path}: {name} has no example");
                }
                assert!(
                    method != "get" || operation.get("requestBody").is_none(),
                    "{path} reads and has a body"
                );
                for (kind, media) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
                    assert!(!media["example"].is_null(), "{path}: the body has no example of {kind}");
                }
                for (status, response) in operation["responses"].as_object().unwrap() {
                    for (kind, media) in response["content"].as_object().into_iter().flatten() {
                        assert!(!media["example"].is_null(), "{path}: {status} has no example of {kind}");
                    }
                }
            }
        }
    }
}
