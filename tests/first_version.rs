//! A file of the first version with this program: health, metrics and log lines have the shapes that were promised to its users, to the letter.

use std::collections::BTreeMap;

use knm_test_support::service::Service;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");

/// Every key that the first version's description shows, and its sections that mean nothing today. The port and the address come from the
/// environment, which wins over the file, as it always did.
const FILE: &str = r#"server:
  port: 8080
  mode: "release"
  read_timeout: 30
  write_timeout: 30
  idle_timeout: 120
database:
  type: "sqlite"
  dsn: "./data/first.db"
  max_open_conns: 25
  max_idle_conns: 10
  max_lifetime: 3600
logging:
  format: "text"
  level: "info"
  structured: true
jwt:
  secret: "hunter2"
ldap:
  host: "ldap.example"
progress:
  enabled: true
monitoring:
  enabled: true
"#;

fn first_version() -> (tempfile::TempDir, Service) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, FILE).expect("a file");
    let path = path.display().to_string();
    // An empty variable is as good as none: the format is that of the file.
    let variables = [
        ("LOG_FORMAT", ""),
        ("SERVICE_NAME", "kube-node-manager"),
        ("INSTANCE_ID", "pod-abc123"),
        ("HOME", "/nowhere"),
    ];
    let service = Service::start(PROGRAM, &["--config", &path], &variables);
    service.wait_until_ready();
    (folder, service)
}

/// The keys at each level with the type of what they hold; a list of alternatives where several are right.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => json!("null"),
        Value::Bool(_) => json!("boolean"),
        Value::Number(number) if number.is_f64() => json!("fraction"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("text"),
        Value::Array(_) => json!("list"),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), shape(value))).collect(),
    }
}

/// Asserts that `found` has at least what was `promised`: more fields may have been added, none may be gone or of another type.
fn has_at_least(found: &Value, promised: &Value, place: &str) {
    match (found, promised) {
        (Value::Object(found), Value::Object(promised)) => {
            for (key, promised) in promised {
                assert!(found.contains_key(key), "{place}.{key} is gone");
                has_at_least(&found[key], promised, &format!("{place}.{key}"));
            }
        }
        (found, promised) => assert_eq!(found, promised, "{place}"),
    }
}

fn is_time_in_whole_seconds(text: &str) -> bool {
    let form: String = text
        .chars()
        .map(|letter| if letter.is_ascii_digit() { '0' } else { letter })
        .collect();
    form == "0000-00-00T00:00:00Z"
}

/// As Go prints a duration of whole seconds.
fn is_duration_of_go(text: &str) -> bool {
    let form: String = text
        .chars()
        .map(|letter| if letter.is_ascii_digit() { '0' } else { letter })
        .collect();
    let form = form.replace("00", "0");
    ["0s", "0m0s", "0h0m0s"].contains(&form.as_str())
}

#[test]
fn every_health_answer_has_the_shape_that_was_promised() {
    let (_folder, service) = first_version();

    for path in ["/health/", "/health"] {
        let answer = service.get(path);
        let promised =
            json!({"status": "text", "service": "text", "version": "text", "timestamp": "text", "uptime": "text"});
        assert_eq!((answer.status, shape(&answer.json())), (200, promised), "{path}");
        let body = answer.json();
        assert_eq!(
            (&body["status"], &body["service"]),
            (&json!("healthy"), &json!("kube-node-manager"))
        );
        assert!(
            is_time_in_whole_seconds(body["timestamp"].as_str().expect("a text")),
            "{body}"
        );
        assert!(is_duration_of_go(body["uptime"].as_str().expect("a text")), "{body}");
        assert!(
            answer.head.to_lowercase().contains("cache-control: no-store"),
            "{}",
            answer.head
        );
    }

    let live = service.get("/health/live");
    assert_eq!(
        (live.status, shape(&live.json())),
        (200, json!({"status": "text", "timestamp": "text"}))
    );
    assert_eq!(live.json()["status"], "alive");

    let ready = service.get("/health/ready");
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("ready")));
    let promised = json!({"status": "text", "timestamp": "text", "details": {"database": {}}});
    has_at_least(&shape(&ready.json()), &promised, "ready");

    let detailed = service.get("/health/detailed");
    let promised = json!({
        "status": "text", "service": "text", "version": "text", "timestamp": "text", "uptime": "text",
        "details": {
            "database": {"status": "text",
                "data": {"max_open_connections": "number", "open_connections": "number", "in_use": "number", "idle": "number"}},
            "system": {"status": "text", "data": {"memory": {"alloc_mb": "number", "sys_mb": "number"}, "goroutines": "number"}},
            "runtime": {"go_version": "null", "hostname": "text"},
        },
    });
    assert_eq!(detailed.status, 200);
    let body = detailed.json();
    has_at_least(&shape(&body), &promised, "detailed");
    assert_eq!(body["status"], "healthy");
    let details = &body["details"];
    assert_eq!(
        (&details["database"]["status"], &details["system"]["status"]),
        (&json!("healthy"), &json!("healthy"))
    );
    assert_eq!(
        details["database"]["data"]["max_open_connections"], 1,
        "sqlite has one, whatever the file says"
    );
}

#[test]
fn the_promised_metrics_have_their_names_and_types() {
    let (_folder, service) = first_version();
    let answer = service.get("/metrics");
    assert!(answer.head.contains("text/plain; version=0.0.4"), "{}", answer.head);
    let mut types = BTreeMap::new();
    for line in answer.body.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        types.insert(name, kind);
    }
    for name in [
        "up",
        "start_time_seconds",
        "database_up",
        "memory_usage_bytes",
        "goroutines_total",
    ] {
        let name = format!("kube_node_manager_{name}");
        assert_eq!(types.get(name.as_str()), Some(&"gauge"), "{name}");
        assert!(answer.body.contains(&format!("# HELP {name} ")), "{name} has no help");
        let sample = answer
            .body
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        let value: f64 = sample.expect("a sample without labels").parse().expect("a number");
        assert!(0.0 < value, "{name} is {value}");
    }
}

#[test]
fn each_log_line_has_exactly_the_promised_frame() {
    let (_folder, mut service) = first_version();
    assert_eq!(service.get("/api/v1/clusters").status, 200);
    service.signal("-TERM");
    assert!(service.wait().success());
    service.wait_for_line("shutdown 5/5");

    let frame = [
        "caller",
        "fields",
        "hostname",
        "level",
        "message",
        "service",
        "timestamp",
        "version",
    ];
    let mut starting = 0;
    for line in service.lines() {
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let fields = line.as_object().expect("an object");
        let keys: Vec<&str> = fields
            .keys()
            .map(String::as_str)
            .filter(|key| !["request_id", "error"].contains(key))
            .collect();
        assert_eq!(keys, frame, "{line}");
        assert!(line["fields"].is_object(), "{line}");
        let text = |key: &str| line[key].as_str().unwrap_or_else(|| panic!("{key} is no text: {line}"));
        assert_eq!((text("service"), text("hostname")), ("kube-node-manager", "pod-abc123"));
        assert!(["DEBUG", "INFO", "WARN", "ERROR"].contains(&text("level")), "{line}");
        let (time, fraction) = text("timestamp").split_once('.').expect("nanoseconds");
        assert!(
            is_time_in_whole_seconds(&format!("{time}Z")) && fraction.len() == "123456789Z".len(),
            "{line}"
        );
        let (file, number) = text("caller").rsplit_once(':').expect("a line");
        assert!(file.ends_with(".rs") && number.parse::<u32>().is_ok(), "{line}");
        if text("message").starts_with("server starting on port ") {
            starting += 1;
            assert_eq!(
                shape(&line["fields"]),
                json!({"address": "text", "mode": "text", "port": "text"})
            );
            assert_eq!(line["fields"]["mode"], "release");
        }
    }
    assert_eq!(starting, 1);
}

#[test]
fn what_means_nothing_any_more_is_one_warning_that_tells_no_secret() {
    let (_folder, service) = first_version();
    let warnings: Vec<String> = service
        .lines()
        .into_iter()
        .filter(|line| line.contains("no longer mean anything"))
        .collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for section in ["jwt", "ldap", "progress", "monitoring"] {
        assert!(warnings[0].contains(section), "{warnings:?}");
    }
    assert!(!service.lines().join("\n").contains("hunter2"));
}
