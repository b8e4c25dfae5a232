//! A real Prometheus looks at the running service: every query of the dashboard, the rules and the runbooks runs, and finds what it shows.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use knm_test_support::prometheus::Prometheus;
use knm_test_support::service::{Service, run};
use knm_test_support::tls::Authority;
use knm_test_support::wire::{Reply, Wire};
use serde_json::{Value, json};
use tokio_rustls::rustls::ClientConfig;

use crate::dashboard::{dashboard, expressions};
use crate::figures::listed;
use crate::rules::{RULES, recorded, rules};
use crate::runbooks::queries;
use crate::{list, root, text};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");
const DEMO: &str = "/api/v1/clusters/demo";
/// How often is done what callers do before it counts as in vain. A round takes about a second.
const ROUNDS: usize = 90;

/// A service with everything that it has metrics for, and what its callers need.
struct Watched {
    service: Service,
    client: Arc<ClientConfig>,
    token: String,
    metrics: SocketAddr,
    /// Files of the service.
    _folder: tempfile::TempDir,
    /// The address of an API server that hangs up on everybody.
    _silent: TcpListener,
}

impl Watched {
    /// With TLS, sign-in, a port for metrics, the simulated fleet, and a cluster that cannot be reached, whose credentials have an end.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let authority = Authority::new();
        let certified = authority.certify(2099);
        let token = generated_token(folder.path());
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        hang_up(silent.try_clone().unwrap());
        let kubeconfig = write("kubeconfig", &kubeconfig(silent.local_addr().unwrap()).to_string());
        let clusters = json!([
            {"name": "demo", "source": {"demo": {"nodes": 30, "changes_per_second": 1}}},
            {"name": "lost", "source": {"kubeconfig": {"path": kubeconfig}}},
        ]);
        let service = Service::start(
            PROGRAM,
            &[],
            &[
                ("KNM__SERVER__MANAGEMENT_PORT", "0"),
                ("KNM__SERVER__TLS__CERT_FILE", &write("tls.crt", &certified.certificate)),
                ("KNM__SERVER__TLS__KEY_FILE", &write("tls.key", &certified.key)),
                ("KNM__AUTH__MODE", "tokens"),
                // On a slow machine nothing is to fail for want of the one connection.
                ("KNM__DATABASE__ACQUIRE_TIMEOUT", "60"),
                ("KNM__AUTH__BOOTSTRAP_TOKEN_FILE", &write("token", &token)),
                ("KNM__CLUSTERS", &clusters.to_string()),
                // Nobody is there, which is told like everything else.
                ("KNM__TRACES__OTLP_ENDPOINT", "http://127.0.0.1:9"),
            ],
        );
        let line: Value = serde_json::from_str(&service.wait_for_line("health and metrics on port")).unwrap();
        let watched = Self {
            metrics: line["fields"]["address"].as_str().unwrap().parse().unwrap(),
            service,
            client: authority.client(),
            token,
            _folder: folder,
            _silent: silent,
        };
        watched.service.wait_until("there are nodes", || {
            watched.ask("GET", &format!("{DEMO}/nodes"), None).status == 200
        });
        watched
    }

    fn wire(&self) -> Wire {
        Wire::open_tls(self.service.address(), Arc::clone(&self.client)).unwrap()
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        let token = format!("authorization: Bearer {}", self.token);
        let mut wire = self.wire();
        match body {
            Some(body) => wire.send_json(method, path, &[&token], body).unwrap(),
            None => {
                wire.request(method, path, &[&token]).unwrap();
                wire.reply().unwrap()
            }
        }
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        let reply = self.ask("POST", path, Some(body));
        assert!(reply.status < 300, "{path}: {}", reply.text());
        reply.json()
    }

    /// Binds a template, which some nodes lack, and begins a drain that a budget blocks.
    fn begin(&self) {
        self.post(
            "/api/v1/templates",
            &json!({"name": "watched", "labels": {"watched": "yes"}}),
        );
        let binding = json!({"name": "watched", "template": "watched", "cluster": "demo", "label_selector": "kubernetes.io/hostname"});
        self.post("/api/v1/bindings", &binding);
        let options = json!({"ignore_daemonsets": true, "delete_emptydir_data": true, "force": true});
        self.post(&format!("{DEMO}/nodes/worker-00008/drain"), &options);
    }

    /// What callers do: they read, change, follow an operation, and get things wrong.
    fn round(&self, number: usize) {
        for path in [&format!("{DEMO}/nodes"), "/api/v1/nodes", "/api/v1/audit", DEMO] {
            assert_eq!(self.ask("GET", path, None).status, 200, "{path}");
        }
        assert_eq!(self.ask("GET", "/api/v1/clusters/lost/nodes", None).status, 503);
        assert_eq!(self.ask("GET", "/api/v1/clusters/nowhere/nodes", None).status, 404);
        assert_eq!(self.ask("GET", "/nothing", None).status, 404);
        let stranger = ["authorization: Bearer wrong"];
        for _ in 0..5 {
            let refused = self.wire().get("/api/v1/nodes", &stranger).unwrap();
            assert!([401, 429].contains(&refused.status), "{}", refused.text());
        }
        let set = json!({"set": {"round": number.to_string()}});
        let changed = self.ask("PATCH", &format!("{DEMO}/nodes/control-plane-00002/labels"), Some(&set));
        assert_eq!(changed.status, 200, "{}", changed.text());
        // Slow enough that somebody who follows it hears of it while it goes on.
        let operation = json!({
            "kind": "label", "options": set, "targets": {"nodes": ["control-plane-00000", "control-plane-00001"]},
            "strategy": {"max_concurrent": 1, "pause_between_seconds": 1},
        });
        let id = text(&self.post(&format!("{DEMO}/operations"), &operation), "id").to_owned();
        let events = self.ask("GET", &format!("/api/v1/operations/{id}/events"), None);
        assert!(events.text().contains("succeeded"), "{}", events.text());
    }
}

/// A token for the first start, as the program makes it.
fn generated_token(folder: &std::path::Path) -> String {
    let output = run(PROGRAM, folder, &["token", "generate"], &[]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Hangs up on whoever connects.
fn hang_up(listener: TcpListener) {
    std::thread::spawn(move || listener.incoming().for_each(drop));
}

fn kubeconfig(server: SocketAddr) -> Value {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let until_2099 = part(&json!({"exp": 4_070_908_800_u64}));
    let token = format!(
        "{}.{until_2099}.{}",
        part(&json!({"alg": "RS256"})),
        URL_SAFE_NO_PAD.encode("signature")
    );
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lost",
        "clusters": [{"name": "lost", "cluster": {"server": format!("https://{server}")}}],
        "users": [{"name": "lost", "user": {"token": token}}],
        "contexts": [{"name": "lost", "context": {"cluster": "lost", "user": "lost"}}],
    })
}

/// A query of the dashboard as Grafana sends it, with everything chosen.
fn filled_in(expression: &str) -> String {
    let mut filled = expression.to_owned();
    for (variable, value) in [
        ("$__rate_interval", "30s"),
        ("$job", ".*"),
        ("$instance", ".*"),
        ("$cluster", ".*"),
    ] {
        filled = filled.replace(variable, value);
    }
    filled
}

/// The queries that have no number to show yet.
fn without_data(prometheus: &Prometheus, queries: &[(String, String)]) -> Vec<String> {
    let has_data = |query: &str| {
        let values = prometheus
            .values(query)
            .unwrap_or_else(|error| panic!("{query}: {error}"));
        values.into_iter().any(f64::is_finite)
    };
    let without = queries.iter().filter(|(_, query)| !has_data(query));
    without.map(|(of, query)| format!("{of}: {query}")).collect()
}

#[test]
fn every_query_runs_and_the_dashboard_and_the_recorded_series_have_data() {
    let watched = Watched::start();
    let Some(prometheus) = Prometheus::start(watched.metrics, &root().join(RULES)) else {
        return;
    };
    let dashboard = dashboard();
    let shown = expressions(&dashboard)
        .into_iter()
        .map(|(title, query)| (title, filled_in(&query)));
    let recorded = recorded().into_iter().map(|name| ("recorded".to_owned(), name));
    // Each metric of the README is told, of histograms their count.
    let told = listed()
        .into_iter()
        .map(|name| ("README".to_owned(), format!("{{__name__=~\"{name}(_count)?\"}}")));
    let queries: Vec<_> = shown.chain(recorded).chain(told).collect();

    watched.begin();
    let mut missing = Vec::new();
    for number in 0..ROUNDS {
        watched.round(number);
        missing = without_data(&prometheus, &queries);
        if missing.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(missing.is_empty(), "no data for\n{}", missing.join("\n"));

    for annotation in list(&dashboard["annotations"], "list") {
        let query = filled_in(text(annotation, "expr"));
        prometheus
            .values(&query)
            .unwrap_or_else(|error| panic!("{query}: {error}"));
    }
    for variable in list(&dashboard["templating"], "list")
        .iter()
        .filter(|one| one["type"] == "query")
    {
        let (of, label) = of_variable(variable);
        let values = prometheus
            .ask(&format!("label/{label}/values"), &[("match[]", &of)])
            .unwrap();
        assert!(
            !values.as_array().unwrap().is_empty(),
            "nothing to choose from: {variable}"
        );
    }
    for (section, query) in queries_of_runbooks() {
        prometheus
            .values(&query)
            .unwrap_or_else(|error| panic!("{section}: {query}: {error}"));
    }
    assert_rules_work(&prometheus);
}

/// The series and the label of `label_values(series, label)`.
fn of_variable(variable: &Value) -> (String, String) {
    let query = filled_in(text(&variable["query"], "query"));
    let inside = query
        .strip_prefix("label_values(")
        .and_then(|rest| rest.strip_suffix(')'));
    let (series, label) = inside.and_then(|inside| inside.rsplit_once(", ")).unwrap();
    (series.to_owned(), label.to_owned())
}

fn queries_of_runbooks() -> Vec<(String, String)> {
    let queries = queries();
    assert!(
        5 < queries.len(),
        "only {} queries were found in the runbooks",
        queries.len()
    );
    queries
}

/// That Prometheus evaluates all rules without an error, and that a service that works alarms nobody.
fn assert_rules_work(prometheus: &Prometheus) {
    for rule in rules() {
        let expression = text(&rule, "expr");
        prometheus
            .values(expression)
            .unwrap_or_else(|error| panic!("{expression}: {error}"));
    }
    let data = prometheus.ask("rules", &[]).unwrap();
    let groups = list(&data, "groups").iter();
    let evaluated: Vec<&Value> = groups.flat_map(|group| list(group, "rules")).collect();
    assert_eq!(evaluated.len(), rules().len());
    for rule in evaluated {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_ne!(rule["state"], "firing", "{rule}");
    }
}
