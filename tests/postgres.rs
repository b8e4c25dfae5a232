//! The service on a real PostgreSQL server that fails while it runs.

use knm_test_support::postgres::PostgresServer;
use knm_test_support::service::Service;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");

fn on(server: &PostgresServer) -> Service {
    let url = server.url(&server.create_database());
    let service = Service::start(PROGRAM, &[], &[("DATABASE_URL", &url), ("KNM__CLUSTERS", "[]")]);
    service.wait_until_ready();
    service
}

#[test]
fn a_database_that_hangs_makes_the_service_not_ready_but_alive_until_it_goes_on() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let service = on(&server);
    server.freeze();
    service.wait_for_status("/health/ready", 503);
    assert_eq!(service.get("/health/live").status, 200);
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
    server.start_again();
    service.wait_until_ready();
}

#[test]
fn no_log_line_shows_the_password() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let url = server.url(&server.create_database());
    let variables = [
        ("DATABASE_URL", url.as_str()),
        ("KNM__CLUSTERS", "[]"),
        ("LOG_LEVEL", "trace"),
    ];
    let mut service = Service::start(PROGRAM, &[], &variables);
    service.wait_until_ready();
    service.signal("-TERM");
    assert_eq!(service.wait().code(), Some(0));
    let lines = service.lines().join("\n");
    assert!(lines.contains("storage opened"), "{lines}");
    for secret in ["hunter2", "hunter2%2F%23%25"] {
        assert!(!lines.contains(secret), "a line shows {secret}");
    }
}
