use std::path::PathBuf;

use super::resolve::find;
use super::schema::{KEYS, Kind};
use super::*;

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Resolved, ConfigurationError> {
    let (_folder, path) = file(text);
    Resolved::load(Some(&path), &environment(variables))
}

fn problems(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    load(text, variables).unwrap_err().problems
}

/// A value that the key allows, as somebody writes it.
fn allowed(kind: Kind, which: usize) -> String {
    match kind {
        Kind::Number { least, .. } => (least.max(1) + i64::try_from(which).unwrap()).to_string(),
        Kind::Flag => ["true", "false"][which % 2].to_owned(),
        Kind::Word(words) | Kind::Words(words) => words[which % words.len()].to_owned(),
        Kind::Level => ["warn", "error"][which % 2].to_owned(),
        Kind::Dsn => format!("/data/{which}.db"),
        Kind::Text | Kind::Secret => format!("text-{which}"),
        Kind::Texts => format!("[\"https://{which}.example\"]"),
        Kind::Networks => format!("[10.0.{which}.0/24]"),
    }
}

#[test]
fn every_variable_of_the_contract_wins_over_the_file_and_the_file_over_the_default() {
    let table = [
        ("PORT", "server.port"),
        ("SERVER_MODE", "server.mode"),
        ("DATABASE_TYPE", "database.type"),
        ("DB_TYPE", "database.type"),
        ("DB_HOST", "database.host"),
        ("DATABASE_HOST", "database.host"),
        ("DB_PORT", "database.port"),
        ("DATABASE_PORT", "database.port"),
        ("DB_NAME", "database.database"),
        ("DB_DATABASE", "database.database"),
        ("DATABASE_NAME", "database.database"),
        ("DATABASE_DATABASE", "database.database"),
        ("DB_USER", "database.username"),
        ("DB_USERNAME", "database.username"),
        ("DATABASE_USER", "database.username"),
        ("DATABASE_USERNAME", "database.username"),
        ("DB_PASSWORD", "database.password"),
        ("DATABASE_PASSWORD", "database.password"),
        ("DB_SSL_MODE", "database.ssl_mode"),
        ("DATABASE_SSL_MODE", "database.ssl_mode"),
        ("DB_SSLMODE", "database.ssl_mode"),
        ("DATABASE_SSLMODE", "database.ssl_mode"),
        ("LOG_FORMAT", "logging.format"),
        ("LOG_LEVEL", "logging.level"),
        ("SERVICE_NAME", "service.name"),
        ("INSTANCE_ID", "service.instance_id"),
    ];
    for (variable, path) in table {
        let key = find(path).unwrap();
        let (of_file, of_variable) = (allowed(key.kind, 0), allowed(key.kind, 1));
        let text = format!("{}:\n  {}: {of_file}\n", key.section(), key.name());

        let from_file = load(&text, &[]).unwrap();
        assert!(matches!(from_file.get(path).1, Origin::File(_)), "{path}");
        let both = load(&text, &[(variable, &of_variable)]).unwrap();
        assert_eq!(both.get(path).1, &Origin::Variable(variable.to_owned()), "{path}");
        assert_ne!(from_file.get(path).0, both.get(path).0, "{variable}");
    }
}

#[test]
fn every_key_has_a_long_variable() {
    for key in KEYS.iter().filter(|key| !key.path.starts_with("database.max_")) {
        let value = match (key.path, key.kind) {
            ("traces.otlp_endpoint", _) => "http://127.0.0.1:4318".to_owned(),
            (_, Kind::Texts) => "https://a.example".to_owned(),
            (_, Kind::Networks) => "10.0.0.0/8, ::1".to_owned(),
            (_, kind) => allowed(kind, 0),
        };
        let mut variables = environment(&[(&key.long_variable(), &value)]);
        if key.group() == Some("tls") {
            // Neither comes without the other.
            for other in ["KNM__SERVER__TLS__CERT_FILE", "KNM__SERVER__TLS__KEY_FILE"] {
                variables.entry(other.to_owned()).or_insert_with(|| "other".to_owned());
            }
        }
        let resolved = Resolved::load(None, &variables).unwrap();
        assert_eq!(
            resolved.get(key.path).1,
            &Origin::Variable(key.long_variable()),
            "{}",
            key.path
        );
    }
}

#[test]
fn unknown_keys_are_named_with_the_file_and_the_nearest_key() {
    let found = problems(
        "server:\n  prot: 1\nserve:\n  port: 1\n",
        &[("KNM__SERVER__IDLE_TIMEOT", "3")],
    );
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found[0].contains("\"serve\"") && found[0].contains("\"server\""),
        "{found:?}"
    );
    assert!(
        found[1].contains("\"server.prot\"") && found[1].contains("\"server.port\""),
        "{found:?}"
    );
    assert!(found[1].contains("config.yaml"), "{found:?}");
    assert!(found[2].contains("KNM__SERVER__IDLE_TIMEOUT"), "{found:?}");
}

#[test]
fn all_problems_come_at_once_with_value_origin_and_what_is_allowed() {
    let text = "server:\n  port: 70000\n  mode: fast\ndatabase:\n  type: mysql\n  auto_migrate: maybe\nlogging:\n  level: loud\n";
    let found = problems(text, &[("DB_PORT", "zero")]).join("\n");
    for part in [
        "\"70000\"",
        "0 to 65535",
        "\"fast\"",
        "debug, release",
        "\"mysql\"",
        "\"maybe\"",
        "\"loud\"",
        "variable DB_PORT",
        "\"zero\"",
    ] {
        assert!(found.contains(part), "{part} is missing in {found}");
    }
}

#[test]
fn no_problem_shows_a_password() {
    let found = problems(
        "database:\n  password: {a: hunter2}\n  dsn: 'mysql://me:hunter2@host/db'\n",
        &[("DATABASE_URL", "postgres://me:hunter2@host:99999/db")],
    );
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(!found.join("\n").contains("hunter2"), "{found:?}");
}

#[test]
fn a_duplicate_key_is_a_problem() {
    let found = problems("server:\n  port: 1\n  port: 2\n", &[]);
    assert!(found[0].contains("duplicated"), "{found:?}");
}

#[test]
fn sections_of_the_first_version_are_one_warning() {
    let resolved = load(
        "jwt:\n  secret: hunter2\nldap:\n  host: x\nprogress: {}\nmonitoring:\n  enabled: true\n",
        &[],
    )
    .unwrap();
    assert_eq!(resolved.warnings.len(), 1);
    for section in ["jwt", "ldap", "progress", "monitoring"] {
        assert!(resolved.warnings[0].contains(section), "{:?}", resolved.warnings);
    }
}

#[test]
fn sqlite_has_one_connection_and_says_so_once() {
    let resolved = load("database:\n  max_open_conns: 25\n  max_idle_conns: 10\n", &[]).unwrap();
    let settings = Settings::from(&resolved);
    assert_eq!(
        (settings.database.max_open_conns, settings.database.max_idle_conns),
        (1, 1)
    );
    assert_eq!(resolved.warnings.len(), 1, "{:?}", resolved.warnings);
    assert!(load("{}", &[]).unwrap().warnings.is_empty());
}

#[test]
fn a_database_url_says_everything_about_the_connection() {
    let text = "database:\n  type: memory\n  host: elsewhere\n  password: old\n  max_open_conns: 7\n";
    for variable in ["DATABASE_URL", "DATABASE_DSN"] {
        let settings = Settings::from(&load(text, &[(variable, "sqlite://data/x.db"), ("DB_HOST", "there")]).unwrap());
        assert_eq!(settings.database.kind.as_str(), "sqlite");
        assert_eq!(settings.database.path, PathBuf::from("data/x.db"));
        let settings = Settings::from(&load(text, &[(variable, "postgres://me:hunter2@host:5433/db")]).unwrap());
        assert_eq!(settings.database.kind.as_str(), "postgres");
        assert_eq!(settings.database.place, "postgres://me:***@host:5433/db");
        assert_eq!(settings.database.max_open_conns, 7);
    }
}

#[test]
fn structured_text_is_json() {
    let settings = |text: &str| Settings::from(&load(text, &[]).unwrap()).logging.format.as_str();
    assert_eq!(settings("logging:\n  structured: true\n"), "json");
    assert_eq!(settings("logging:\n  structured: true\n  format: bunyan\n"), "bunyan");
    assert_eq!(settings("logging:\n  structured: false\n"), "text");
}

#[test]
fn proxies_are_addresses_and_networks() {
    let of = |text: &str| Settings::from(&load(text, &[]).unwrap()).server.trusted_proxies;
    assert_eq!(of("{}"), []);
    let expected: Vec<knm_http::Network> = ["10.0.0.0/8", "::1"].map(|text| text.parse().unwrap()).to_vec();
    assert_eq!(of("server:\n  trusted_proxies: [10.0.0.0/8, \"::1\"]\n"), expected);
    let found = problems(
        "server:\n  trusted_proxies: [10.0.0.0/8, 10.0.0.0/99]\n",
        &[("KNM__SERVER__TRUSTED_PROXIES", "10.0.0.0/8,proxy.example")],
    );
    assert_eq!(found.len(), 2, "{found:?}");
    for (problem, value) in found.iter().zip(["\"10.0.0.0/99\"", "\"proxy.example\""]) {
        assert!(
            problem.contains("server.trusted_proxies") && problem.contains(value),
            "{problem}"
        );
        assert!(problem.contains("networks such as 10.0.0.0/8"), "{problem}");
    }
}

#[test]
fn health_and_metrics_may_have_another_port_and_not_the_same() {
    let of = |text: &str| {
        let server = Settings::from(&load(text, &[]).unwrap()).server;
        (server.management_port, server.management_host)
    };
    assert_eq!(of("{}").0, None);
    assert_eq!(
        of("server: {host: '::1', management_port: 9090}"),
        (Some(9090), "::1".to_owned())
    );
    let other = "server: {port: 0, management_port: 0, management_host: 127.0.0.1}";
    assert_eq!(of(other), (Some(0), "127.0.0.1".to_owned()));
    let found = problems("server: {management_port: 9090}", &[("PORT", "9090")]);
    assert_eq!(found.len(), 1, "{found:?}");
    for part in [
        "server.management_port: \"9090\"",
        "config.yaml",
        "another port than server.port (variable PORT)",
    ] {
        assert!(found[0].contains(part), "{found:?}");
    }
}

#[test]
fn tls_has_a_certificate_and_its_key_or_neither() {
    let of = |text: &str| Settings::from(&load(text, &[]).unwrap()).server.tls;
    for none in [
        "{}",
        "server:\n  tls:\n",
        "server:\n  tls: {}\n",
        "server:\n  tls:\n    cert_file: null\n",
    ] {
        assert_eq!(of(none), None, "{none}");
    }
    let files = knm_http::TlsFiles {
        cert_file: "/tls/tls.crt".into(),
        key_file: "/tls/tls.key".into(),
    };
    let both = "server:\n  tls:\n    cert_file: /tls/tls.crt\n    key_file: /tls/tls.key\n";
    assert_eq!(of(both), Some(files));
    for (text, parts) in [
        (
            "server: {tls: {cert_file: a}}",
            ["server.tls.key_file is missing", "server.tls.cert_file"],
        ),
        (
            "server: {tls: {key_file: a}}",
            ["server.tls.cert_file is missing", "server.tls.key_file"],
        ),
        (
            "server: {tls: {cert_fil: a}}",
            ["server.tls.cert_fil\"", "nearest is \"server.tls.cert_file\""],
        ),
        ("server: {tls: on}", ["server.tls (", "is not a section with keys"]),
        (
            "server: {tls: {cert_file: {a: b}, key_file: c}}",
            ["server.tls.cert_file: \"a section\"", "missing"],
        ),
    ] {
        let found = problems(text, &[]).join("\n");
        assert!(parts.iter().all(|part| found.contains(part)), "{found}");
    }
}

#[test]
fn audit_records_are_kept_for_ever_unless_days_are_given() {
    let retention = |text: &str| Settings::from(&load(text, &[]).unwrap()).audit_retention;
    assert_eq!(retention("audit:\n  retention_days: 0\n"), None);
    assert_eq!(retention("{}"), None);
    let month = std::time::Duration::from_secs(30 * 86_400);
    assert_eq!(retention("audit:\n  retention_days: 30\n"), Some(month));
}

#[test]
fn ended_operations_are_kept_for_ninety_days_unless_others_or_none_are_given() {
    let retention = |text: &str| Settings::from(&load(text, &[]).unwrap()).operations.retention;
    let days = |days: u64| Some(std::time::Duration::from_secs(days * 86_400));
    assert_eq!(retention("{}"), days(90));
    assert_eq!(retention("operations:\n  retention_days: 7\n"), days(7));
    assert_eq!(retention("operations:\n  retention_days: 0\n"), None);
}

#[test]
fn the_own_pod_is_known_when_both_of_its_names_are() {
    let own = |variables: &[(&str, &str)]| Settings::from(&load("{}", variables).unwrap()).operations.own_pod;
    assert_eq!(own(&[]), None);
    assert_eq!(own(&[("POD_NAME", "knm-0")]), None);
    let known = own(&[("POD_NAME", "knm-0"), ("POD_NAMESPACE", "ops")]).unwrap();
    assert_eq!((known.namespace.as_str(), known.name.as_str()), ("ops", "knm-0"));
    let settings = Settings::from(&load("operations:\n  max_concurrent_evictions: 7\n  lease: 5\n", &[]).unwrap());
    assert_eq!(settings.operations.max_concurrent_evictions, Some(7));
    assert_eq!(settings.operations.lease, std::time::Duration::from_secs(5));
}

#[test]
fn clusters_of_every_source_are_read() {
    let text = "clusters:
  - {name: here, source: in-cluster}
  - name: east
    source:
      kubeconfig: {path: /etc/east, context: admin@east}
  - name: play
    source:
      demo: {nodes: 5, pods_per_node: 40, seed: 9, changes_per_second: 0.5}
";
    let clusters = Settings::from(&load(text, &[]).unwrap()).clusters.unwrap();
    let sources: Vec<_> = clusters.into_iter().map(|cluster| cluster.source).collect();
    let kubeconfig = SourceSetting::Kubeconfig {
        path: "/etc/east".into(),
        context: Some("admin@east".to_owned()),
    };
    let demo = SourceSetting::Demo(DemoSetting {
        nodes: 5,
        pods_per_node: 40,
        seed: 9,
        changes_per_second: 0.5,
    });
    assert_eq!(sources, [SourceSetting::InCluster, kubeconfig, demo]);
}

#[test]
fn each_wrong_cluster_is_named() {
    let text = "clusters:
  - {name: Big, source: in-cluster}
  - {name: twice, source: demo}
  - {name: twice, source: demo}
  - {name: a, source: cloud}
  - {name: b, source: {kubeconfig: {contxt: x}}}
  - {name: c, source: {demo: {nodes: 0}}}
  - {source: demo}
";
    let found = problems(text, &[]).join("\n");
    for part in [
        "clusters[0].name",
        "clusters[2]",
        "\"cloud\"",
        "\"contxt\"",
        "path is missing",
        "1 to 10000",
        "clusters[6]",
        "name is missing",
    ] {
        assert!(found.contains(part), "{part} is missing in {found}");
    }
}

#[test]
fn the_example_file_holds_every_key_with_its_default_and_meaning() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/config.example.yaml")).unwrap();
    assert_eq!(text, show::example());
    let resolved = load(&text, &[]).unwrap();
    assert!(resolved.warnings.is_empty(), "{:?}", resolved.warnings);
    for key in KEYS {
        assert!(text.contains(&format!(" {}:", key.name())), "{}", key.path);
    }
}

#[test]
fn what_signing_in_needs_is_told_at_once() {
    let found = problems("auth:\n  mode: oidc, none\n  oidc_rules: ['groups=sre -> root']\n", &[]).join("\n");
    for part in [
        "none excludes all others",
        "auth.oidc_issuer",
        "auth.oidc_audiences",
        "auth.oidc_rules[0]: role: \"root\"",
    ] {
        assert!(found.contains(part), "{part} is missing in {found}");
    }
    let found = problems("", &[("KNM__AUTH__MODE", "tokens,ldap")]).join("\n");
    assert!(
        found.contains("\"tokens,ldap\"") && found.contains("kubernetes, oidc, none"),
        "{found}"
    );
    let rules = "auth:\n  mode: tokens,oidc\n  oidc_issuer: https://a\n  oidc_audiences: [b]\n  oidc_rules: ['groups=* -> viewer']\n";
    assert!(load(rules, &[]).is_ok());
}

#[test]
fn nobody_need_not_sign_in_only_on_loopback() {
    let refused = |host: &str| {
        let resolved = load("auth:\n  mode: none\n", &[("KNM__SERVER__HOST", host)]).unwrap();
        let settings = Settings::from(&resolved);
        refuses_open(&settings.sign_in, &settings.server.host)
    };
    for host in ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"] {
        assert_eq!(refused(host), None, "{host}");
    }
    for host in ["0.0.0.0", "::", "10.0.0.1", "example.com", "127.0.0.1.example.com"] {
        assert!(refused(host).is_some_and(|why| why.contains(host)), "{host}");
    }
}
