//! The PostgreSQL server for tests does what its users rely on.

use std::path::Path;
use std::process::{Command, Stdio};

use knm_test_support::postgres::{PostgresServer, USERNAME};

/// Set for the copy of this test that is killed.
const CHILD: &str = "KNM_TEST_POSTGRES_CHILD";

fn folder(server: &PostgresServer) -> String {
    let data = server.run(USERNAME, "SHOW data_directory");
    data.strip_suffix("/data")
        .expect("the data is in a folder of the server")
        .to_owned()
}

fn gone(folder: &str) -> bool {
    for _ in 0..1000 {
        if !Path::new(folder).exists() {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    false
}

#[test]
fn each_database_is_fresh_and_data_outlives_a_stop() {
    let Some(mut server) = PostgresServer::start() else {
        return;
    };
    let (one, other) = (server.create_database(), server.create_database());
    server.run(&one, "CREATE TABLE marks AS SELECT 1 AS mark");
    server.stop();
    server.start_again();
    assert_eq!(server.run(&one, "SELECT mark FROM marks"), "1");
    assert_eq!(server.run(&other, "SELECT to_regclass('marks') IS NULL"), "t");
}

#[test]
fn a_dropped_server_leaves_nothing_behind_even_when_it_hangs() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let folder = folder(&server);
    server.freeze();
    drop(server);
    assert!(gone(&folder), "{folder} is still there");
}

#[test]
fn a_server_ends_with_the_process_that_started_it() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    if std::env::var_os(CHILD).is_some() {
        println!("\nfolder={}", folder(&server));
        std::process::abort();
    }
    let name = "a_server_ends_with_the_process_that_started_it";
    let killed = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(!killed.status.success());
    let printed = String::from_utf8_lossy(&killed.stdout);
    let folder = printed.lines().find_map(|line| line.strip_prefix("folder=")).unwrap();
    assert!(gone(folder), "{folder} is still there");
}
