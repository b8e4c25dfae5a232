//! What the pool does when it is used hard, and when the server stops, hangs and comes back.

use std::str::FromStr;
use std::time::Duration;

use futures::future::join_all;
use knm_model::ClusterName;
use knm_ports::{Storage, StorageError};
use knm_storage_postgres::PostgresOptions;
use knm_test_support::postgres::{PostgresServer, USERNAME};
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

/// A server with a migrated database.
struct Fixture {
    server: PostgresServer,
    database: String,
    storage: Storage,
}

async fn fixture(change: impl FnOnce(&mut PostgresOptions)) -> Option<Fixture> {
    let server = PostgresServer::start()?;
    let database = server.create_database();
    let mut options = PostgresOptions::from_url(&server.url(&database)).expect("a connection string");
    // A burst opens all connections at once, and machines are slow at times.
    options.acquire_timeout = Duration::from_secs(30);
    change(&mut options);
    let storage = knm_storage_postgres::open(options).await.expect("a fresh database");
    storage.admin.migrate().await.expect("the migrations run");
    Some(Fixture {
        server,
        database,
        storage,
    })
}

impl Fixture {
    /// How many connections the server has from us.
    fn connections(&self) -> u32 {
        let counted = self.server.run(
            USERNAME,
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kube-node-manager'",
        );
        counted.parse().expect("a number")
    }

    /// As many look-ups at once as there are connections, each on its own one.
    async fn burst(&self) {
        let name = ClusterName::from_any("prod");
        let most = self.storage.admin.pool().max_open;
        for found in join_all((0..4 * most).map(|_| self.storage.clusters.find(&name))).await {
            found.expect("a look-up");
        }
    }
}

/// Waits for what happens by itself; the limit is only there so that a defect ends.
async fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if happened() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(happened(), "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn idle_connections_above_the_limit_are_closed_after_a_burst() {
    let Some(fixture) = fixture(|options| (options.max_open_conns, options.max_idle_conns) = (20, 3)).await else {
        return;
    };
    for _ in 0..3 {
        fixture.burst().await;
        eventually("three idle connections are left", || {
            fixture.storage.admin.pool().open == 3
        })
        .await;
        let pool = fixture.storage.admin.pool();
        assert_eq!((pool.idle, pool.in_use), (3, 0), "{pool:?}");
        eventually("the server sees three connections", || fixture.connections() == 3).await;
    }
}

#[tokio::test]
async fn no_more_connections_are_opened_than_allowed() {
    let Some(fixture) = fixture(|options| (options.max_open_conns, options.max_idle_conns) = (4, 10)).await else {
        return;
    };
    fixture.burst().await;
    let pool = fixture.storage.admin.pool();
    assert_eq!((pool.max_open, pool.max_idle), (4, 4), "{pool:?}");
    assert!(pool.open <= 4, "{pool:?}");
    assert!(fixture.connections() <= 4);
}

#[tokio::test]
async fn a_connection_that_lived_long_enough_is_closed() {
    let lifetime = Duration::from_millis(400);
    let Some(fixture) = fixture(|options| options.max_lifetime = lifetime).await else {
        return;
    };
    fixture.storage.admin.ping().await.expect("a round trip");
    eventually("the idle connection is closed", || fixture.connections() == 0).await;
    fixture.storage.admin.ping().await.expect("a new connection");
}

#[tokio::test]
async fn a_busy_connection_is_replaced_when_it_lived_long_enough() {
    let lifetime = Duration::from_millis(400);
    let Some(fixture) = fixture(|options| (options.max_lifetime, options.max_open_conns) = (lifetime, 1)).await else {
        return;
    };
    let started = "SELECT backend_start FROM pg_stat_activity WHERE application_name = 'kube-node-manager'";
    let (mut seen, mut rounds) = (std::collections::BTreeSet::new(), 0);
    while seen.len() < 3 && rounds < 500 {
        fixture.storage.admin.ping().await.expect("a round trip");
        seen.extend(fixture.server.run(USERNAME, started).lines().map(str::to_owned));
        rounds += 1;
    }
    assert!(3 <= seen.len(), "{seen:?}");
}

#[tokio::test]
async fn a_server_that_went_away_and_came_back_is_used_again() {
    let Some(mut fixture) =
        fixture(|options| (options.max_open_conns, options.acquire_timeout) = (3, Duration::from_secs(1))).await
    else {
        return;
    };
    fixture.burst().await;
    fixture.server.stop();
    let name = ClusterName::from_any("prod");
    for _ in 0..3 {
        let refused = fixture.storage.clusters.find(&name).await;
        assert!(matches!(refused, Err(StorageError::Unavailable { .. })), "{refused:?}");
    }

    fixture.server.start_again();

    // Without a restart and without a retry: the first call after it is back works.
    fixture.storage.admin.ping().await.expect("a new connection");
    fixture.burst().await;
}

#[tokio::test]
async fn callers_who_give_up_on_a_hanging_server_leave_no_connection_in_use() {
    let Some(fixture) = fixture(|options| options.max_open_conns = 3).await else {
        return;
    };
    fixture.burst().await;
    fixture.server.freeze();
    for _ in 0..12 {
        let patience = Duration::from_millis(50);
        let answer = tokio::time::timeout(patience, fixture.storage.admin.ping()).await;
        assert!(answer.is_err(), "a frozen server answered: {answer:?}");
    }
    // While it still hangs: those that the burst was about to give back give up too.
    eventually("no connection is in use", || fixture.storage.admin.pool().in_use == 0).await;

    fixture.server.thaw();

    fixture.storage.admin.ping().await.expect("the server goes on");
    fixture.burst().await;
}

#[tokio::test]
async fn a_hanging_server_is_an_error_for_a_caller_without_patience_of_its_own() {
    let Some(fixture) =
        fixture(|options| (options.max_open_conns, options.acquire_timeout) = (3, Duration::from_secs(1))).await
    else {
        return;
    };
    fixture.burst().await;
    fixture.server.freeze();

    let refused = fixture.storage.admin.ping().await;

    assert!(refused.as_ref().is_err_and(StorageError::is_transient), "{refused:?}");
    fixture.server.thaw();
    fixture.storage.admin.ping().await.expect("the server goes on");
}

#[tokio::test]
async fn a_server_that_hangs_does_not_hold_up_closing() {
    let Some(fixture) = fixture(|_| {}).await else {
        return;
    };
    fixture.burst().await;
    fixture.server.freeze();

    fixture.storage.admin.close().await;

    assert!(matches!(
        fixture.storage.admin.ping().await,
        Err(StorageError::Unavailable { .. })
    ));
}

#[tokio::test]
async fn connections_of_no_known_replica_count_among_the_others() {
    let Some(fixture) = fixture(|options| options.instance = Some("pod-1/1".to_owned())).await else {
        return;
    };
    let url = fixture.server.url(&fixture.database);
    let mut connections = Vec::new();
    for name in [
        "kube-node-manager",
        "kube-node-manager migrate-data",
        "kube-node-manager pod-2/1",
        "kube-node-manager listener",
    ] {
        let options = PgConnectOptions::from_str(&url).unwrap().application_name(name);
        connections.push(options.connect().await.unwrap());
    }
    let mut seen = None;
    for _ in 0..1000 {
        let demand = fixture.storage.admin.demand().await.unwrap().unwrap();
        seen = Some((demand.replicas, demand.others));
        // Whoever made the database is known to the server for a moment more.
        if seen == Some((2, 2)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(seen, Some((2, 2)));
}

/// At other levels a statement fails that waited for a row which somebody else has changed meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_wait_for_each_other_whatever_level_the_database_has_for_transactions() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let database = server.create_database();
    let statement = format!("ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'");
    server.run(&database, &statement);
    let options = PostgresOptions::from_url(&server.url(&database)).expect("a connection string");
    let storage = knm_storage_postgres::open(options).await.expect("a fresh database");
    storage.admin.migrate().await.expect("the migrations run");

    for _ in 0..20 {
        let limit = Duration::from_secs(60);
        let holding = join_all((0..8).map(|_| storage.leases.hold("keeper", "me", limit)));
        for held in holding.await {
            assert!(held.expect("an answer"));
        }
    }
}
