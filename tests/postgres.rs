//! The service on a real PostgreSQL server that fails while it runs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use knm_test_support::patience::wait_for;
use knm_test_support::postgres::PostgresServer;
use knm_test_support::service::{Service, run};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");
const NO_CLUSTERS: (&str, &str) = ("KNM__CLUSTERS", "[]");

fn on(server: &PostgresServer) -> Service {
    let url = server.url(&server.create_database());
    let service = start(&url, &[]);
    service.wait_until_ready();
    service
}

fn start(url: &str, variables: &[(&str, &str)]) -> Service {
    let variables: Vec<_> = [("DATABASE_URL", url), NO_CLUSTERS]
        .iter()
        .chain(variables)
        .copied()
        .collect();
    Service::start(PROGRAM, &[], &variables)
}

/// Starts with a database that cannot be used; returns what it says before it ends.
fn refused(url: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let variables = [
        ("DATABASE_URL", url),
        NO_CLUSTERS,
        ("PORT", "0"),
        ("KNM__SERVER__HOST", "127.0.0.1"),
        ("LOG_LEVEL", "warn"),
    ];
    let output = run(PROGRAM, folder.path(), &["serve"], &variables);
    let errors = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.starts_with("error: the database "), "{errors}");
    for secret in ["hunter2", "hunter2%2F%23%25", "s3cret"] {
        assert!(!errors.contains(secret), "it shows {secret}");
    }
    errors
}

#[test]
fn a_database_that_hangs_makes_the_service_not_ready_but_alive_until_it_goes_on() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let service = on(&server);
    server.freeze();
    service.wait_for_status("/health/ready", 503);
    // All of these arrive while it still hangs.
    for path in ["/health/ready", "/readyz", "/readyz/database", "/health/detailed"] {
        assert_eq!(service.get(path).status, 503, "{path}");
    }
    for path in ["/health", "/health/live", "/livez", "/metrics", "/api/v1/clusters"] {
        assert_eq!(service.get(path).status, 200, "{path}");
    }
    let metrics = service.get("/metrics").body;
    for line in ["kube_node_manager_up 0", "kube_node_manager_database_up 0"] {
        assert!(
            metrics.lines().any(|one| one == line),
            "{line} is missing in\n{metrics}"
        );
    }
    server.thaw();
    service.wait_until_ready();
}

#[test]
fn a_database_that_was_away_is_used_again_without_a_restart() {
    let Some(mut server) = PostgresServer::start() else {
        return;
    };
    let service = on(&server);
    server.stop();
    service.wait_for_status("/health/ready", 503);
    assert_eq!(service.get("/health/detailed").status, 503);
    let line = wait_for("the log to say why", || {
        let why = |line: &String| line.contains("the database cannot be used") && line.contains("Connection refused");
        service.lines().into_iter().find(why)
    });
    assert!(line.contains("\"level\":\"ERROR\""), "{line}");
    let body = service.get("/health/ready").body;
    assert!(
        !body.contains("refused") && !body.contains("127.0.0.1"),
        "reasons go to the log only: {body}"
    );
    server.start_again();
    service.wait_until_ready();
    service.wait_for_line("the database can be used again");
}

#[test]
fn under_load_a_restart_of_the_database_costs_nothing_but_503() {
    let Some(mut server) = PostgresServer::start() else {
        return;
    };
    let service = on(&server);
    let (over, ready, unready) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for path in ["/health/ready", "/health/ready", "/api/v1/clusters", "/health/detailed"] {
            scope.spawn({
                let (service, over, ready, unready) = (&service, &over, &ready, &unready);
                move || {
                    while !over.load(Ordering::Relaxed) {
                        match (path, service.get(path).status) {
                            ("/api/v1/clusters", status) => assert_eq!(status, 200),
                            (_, 200) => drop(ready.fetch_add(1, Ordering::Relaxed)),
                            (_, status) => {
                                assert_eq!(status, 503, "{path}");
                                unready.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                }
            });
        }
        let more = |count: &AtomicUsize, what: &str| {
            let before = count.load(Ordering::Relaxed);
            wait_for(what, || (before + 20 < count.load(Ordering::Relaxed)).then_some(()));
        };
        more(&ready, "answers while it runs");
        server.stop();
        more(&unready, "answers while it is away");
        server.start_again();
        more(&ready, "answers after it came back");
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(service.get("/health/ready").status, 200);
}

#[test]
fn pending_migrations_keep_the_service_not_ready_until_somebody_applies_them() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let url = server.url(&server.create_database());
    let service = start(&url, &[("KNM__DATABASE__AUTO_MIGRATE", "false")]);
    service.wait_for_line("migrations are not applied");
    assert_eq!(service.get("/health/live").status, 200);
    assert_eq!(service.get("/health/ready").status, 503);
    let checks = service.get("/readyz?verbose");
    assert_eq!(checks.status, 503);
    assert!(
        checks.body.contains("[-]migrations") && checks.body.contains("[+]database ok"),
        "{}",
        checks.body
    );
    let variables = [("DATABASE_URL", url.as_str())];
    let output = run(PROGRAM, service.folder(), &["migrate"], &variables);
    let (printed, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{errors}");
    assert!(
        printed.contains("migrations applied") && !printed.contains("hunter2"),
        "{printed}"
    );
    service.wait_until_ready();
}

#[test]
fn replicas_that_start_together_on_an_empty_database_all_become_ready() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let url = server.url(&server.create_database());
    let services = thread::scope(|scope| {
        let starting: Vec<_> = (0..3).map(|_| scope.spawn(|| start(&url, &[]))).collect();
        starting
            .into_iter()
            .map(|one| one.join().unwrap())
            .collect::<Vec<Service>>()
    });
    let mut applied = 0;
    for service in &services {
        service.wait_until_ready();
        let line: Value = serde_json::from_str(&service.wait_for_line("migrations applied")).unwrap();
        applied += line["fields"]["applied"].as_u64().unwrap();
    }
    let stored: u64 = server
        .run(url.rsplit('/').next().unwrap(), "SELECT count(*) FROM _sqlx_migrations")
        .parse()
        .unwrap();
    assert_eq!(applied, stored, "each was applied once");
}

#[test]
fn a_database_that_cannot_be_used_ends_the_start_with_one_line() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let right = server.url("postgres");
    let line = refused(&right.replace("hunter2%2F%23%25", "s3cret"));
    assert!(
        line.contains("refuses") && line.contains("password authentication failed"),
        "{line}"
    );
    let line = refused(&server.url("nowhere"));
    assert!(line.contains("\"nowhere\" does not exist"), "{line}");
    let line = refused(&right.replace("127.0.0.1", "nowhere.invalid"));
    assert!(line.contains("nowhere.invalid"), "{line}");
    // Nobody listens at port 1.
    let line = refused(&right.replace(&server.port().to_string(), "1"));
    assert!(line.contains("Connection refused"), "{line}");
}

#[test]
fn the_words_of_libpq_lead_to_the_same_database() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let words = format!(
        "host=127.0.0.1 port={} user=postgres password='hunter2/#%' dbname={} sslmode=disable",
        server.port(),
        server.create_database()
    );
    let service = start(&words, &[]);
    service.wait_until_ready();
    let lines = service.lines().join("\n");
    assert!(!lines.contains("hunter2"), "{lines}");
}

#[test]
fn no_log_line_shows_the_password() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let url = server.url(&server.create_database());
    let mut service = start(&url, &[("LOG_LEVEL", "trace")]);
    service.wait_until_ready();
    service.signal("-TERM");
    assert_eq!(service.wait().code(), Some(0));
    let lines = service.lines().join("\n");
    assert!(lines.contains("storage opened"), "{lines}");
    for secret in ["hunter2", "hunter2%2F%23%25"] {
        assert!(!lines.contains(secret), "a line shows {secret}");
    }
}
