//! Replicas and what a small PostgreSQL server allows them together.

use knm_test_support::patience::wait_for;
use knm_test_support::postgres::{PASSWORD, PostgresServer, USERNAME};
use knm_test_support::service::Service;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");

fn replica(url: &str, pool: &str) -> Service {
    let variables = [
        ("DATABASE_URL", url),
        ("KNM__DATABASE__MAX_OPEN_CONNS", pool),
        ("KNM__CLUSTERS", "[]"),
    ];
    let service = Service::start(PROGRAM, &[], &variables);
    service.wait_until_ready();
    service
}

#[test]
fn replicas_that_may_open_more_connections_than_the_server_allows_say_so_with_numbers_and_what_to_change() {
    let Some(server) = PostgresServer::start_with(&["max_connections=20"]) else {
        return;
    };
    let database = server.create_database();
    let url = server.url(&database);

    // 9 of 17: of 20, three are for superusers only.
    let first = replica(&url, "8");
    let second = replica(&url, "8");
    let line = second.wait_for_line("may open 18 database connections");
    for part in [
        "\"WARN\"",
        "2 replicas may open 18",
        "max_connections leaves",
        "lower database.max_open_conns to ",
        "raise max_connections by at least ",
        "\"allowed\":17",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(
        !first.lines().iter().any(|line| line.contains("may open")),
        "{:?}",
        first.lines()
    );

    let names = server.run(
        &database,
        "SELECT DISTINCT application_name FROM pg_stat_activity WHERE application_name LIKE 'kube-node-manager%'",
    );
    for service in [&first, &second] {
        let own = format!("/{}", service.id());
        assert!(
            names.lines().any(|name| name.ends_with(&own)),
            "{own} is not in {names}"
        );
    }
}

#[test]
fn the_limits_of_the_role_and_of_the_database_count_where_they_are_lower() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let database = server.create_database();
    server.run(
        &database,
        &format!("CREATE ROLE nodes LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 12"),
    );
    server.run(&database, &format!("ALTER DATABASE {database} OWNER TO nodes"));
    let url = server.url(&database).replacen(&format!("//{USERNAME}:"), "//nodes:", 1);

    let of_the_role = replica(&url, "12");
    let line = of_the_role.wait_for_line("may open 13 database connections");
    assert!(line.contains("the CONNECTION LIMIT of the role leaves 12"), "{line}");
    drop(of_the_role);
    // Until then it counts as a replica.
    let connected = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'");
    wait_for("its connections to be gone", || {
        (server.run(USERNAME, &connected) == "0").then_some(())
    });

    server.run(&database, &format!("ALTER DATABASE {database} CONNECTION LIMIT 10"));
    let of_the_database = replica(&url, "10");
    let line = of_the_database.wait_for_line("may open 11 database connections");
    assert!(line.contains("the CONNECTION LIMIT of the database leaves "), "{line}");
}

#[test]
fn connections_of_others_count_though_their_role_is_another_one() {
    let Some(server) = PostgresServer::start_with(&["max_connections=20"]) else {
        return;
    };
    let [theirs, ours] = [server.create_database(), server.create_database()];
    server.run(&ours, &format!("CREATE ROLE nodes LOGIN PASSWORD '{PASSWORD}'"));
    server.run(&ours, &format!("ALTER DATABASE {ours} OWNER TO nodes"));
    let other = replica(&server.url(&theirs), "4");
    let url = server.url(&ours).replacen(&format!("//{USERNAME}:"), "//nodes:", 1);

    // Alone it would fit: 17 of 17.
    let own = replica(&url, "16");

    let line = own.wait_for_line("one replica may open 17 database connections");
    assert!(line.contains("max_connections leaves "), "{line}");
    drop(other);
}
