//! `migrate-data` as a user runs it: between real databases, with services on both sides, and ended in the middle.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use knm_test_support::patience::wait_for;
use knm_test_support::postgres::PostgresServer;
use knm_test_support::service::{Service, command, run};
use knm_test_support::wire::Wire;
use serde_json::{Value, json};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");
const DEMO: &str = "[{name: east, source: {demo: {nodes: 30, seed: 1, changes_per_second: 0}}}]";
const MOVERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kube-node-manager migrate-data'";
/// What is left of an interrupted move: nothing, whether there are tables or not.
const LEFT: &str = "SELECT coalesce(sum((xpath('/row/c/text()', query_to_xml('SELECT count(*) AS c FROM ' || table_name, false, true, '')))[1]::text::bigint), 0)
    FROM information_schema.tables WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations'";

/// Where a test keeps its files.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn url(&self, name: &str) -> String {
        format!("sqlite://{}", self.file(name).display())
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(PROGRAM, self.0.path(), arguments, &[])
    }

    /// Moves everything, and returns the lines about tables.
    fn moved(&self, from: &str, to: &str) -> Vec<String> {
        let output = self.run(&["migrate-data", "--from", from, "--to", to]);
        let (told, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{errors}");
        assert!(
            told.contains("counts and checksums are the same on both sides"),
            "{told}"
        );
        told.lines()
            .filter(|line| line.ends_with("the same"))
            .map(str::to_owned)
            .collect()
    }

    /// Why nothing is moved, whether it is a dry run or not.
    fn refused(&self, from: &str, to: &str, code: i32) -> String {
        let arguments = ["migrate-data", "--from", from, "--to", to, "--dry-run"];
        let dry = self.run(&arguments);
        let real = self.run(&arguments[..5]);
        for output in [&dry, &real] {
            assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
            assert!(!text(&output.stderr).contains("hunter2"), "it shows the password");
        }
        assert_eq!(text(&dry.stderr), text(&real.stderr));
        text(&real.stderr)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn service(database: &str, keys: &str) -> Service {
    let variables = [
        ("DATABASE_URL", database),
        ("KNM__CLUSTERS", DEMO),
        ("KNM__AUTH__MODE", "tokens"),
        ("KNM__SECRETS__KEY_FILE", keys),
    ];
    let service = Service::start(PROGRAM, &[], &variables);
    service.wait_until_ready();
    service
}

fn stop(mut service: Service) {
    service.signal("-TERM");
    assert!(service.wait().success());
}

fn send(service: &Service, token: &str, method: &str, path: &str, body: &Value) -> Value {
    let header = format!("authorization: Bearer {token}");
    let reply = Wire::open(service.address())
        .send_json(method, path, &[&header], body)
        .unwrap();
    assert!((200..300).contains(&reply.status), "{path}: {}", reply.text());
    reply.json()
}

fn get(service: &Service, token: &str, path: &str) -> Value {
    let header = format!("authorization: Bearer {token}");
    let reply = Wire::open(service.address()).get(path, &[&header]).unwrap();
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply.json()
}

/// Waits until the service has opened the credentials of the cluster that was registered.
fn knows_west(service: &Service, token: &str) {
    wait_for("the registered cluster is there", || {
        let clusters = get(service, token, "/api/v1/clusters");
        let west = clusters["items"]
            .as_array()?
            .iter()
            .find(|cluster| cluster["name"] == "west")?
            .clone();
        (west["server"] == "https://west.example.com:6443/" && west["user"] == "token").then_some(())
    });
}

/// What a service shows of what it stored, as far as it stays the same when nobody does anything.
fn shown(service: &Service, token: &str, operation: &str) -> Vec<Value> {
    vec![
        get(service, token, "/api/v1/audit?limit=1000"),
        get(service, token, &format!("/api/v1/operations/{operation}")),
        get(service, token, "/api/v1/templates"),
        get(service, token, "/api/v1/templates/gpu/versions"),
    ]
}

#[test]
fn a_service_goes_on_with_postgres_where_it_stopped_with_sqlite() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let place = Place::new();
    let key = place.run(&["secrets", "generate-key", "--id", "first"]);
    let keys = place.file("keys").display().to_string();
    std::fs::write(&keys, key.stdout).unwrap();
    let sqlite = place.url("nodes.db");
    let database = server.create_database();
    let postgres = server.url(&database);

    let old = service(&sqlite, &keys);
    let made = run(
        PROGRAM,
        place.0.path(),
        &["token", "create", "--name", "me", "--role", "admin", "--force"],
        &[("DATABASE_URL", &sqlite)],
    );
    let token = text(&made.stdout).trim().to_owned();
    let nodes = get(&old, &token, "/api/v1/clusters/east/nodes?role=worker");
    let names: Vec<&str> = nodes["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|node| node["name"].as_str())
        .collect();
    let [first, second] = [names[0], names[1]];
    send(
        &old,
        &token,
        "POST",
        &format!("/api/v1/clusters/east/nodes/{first}/cordon"),
        &json!({"reason": "disk 🦀 \\N"}),
    );
    let template = json!({"name": "gpu", "description": "for tests", "labels": {"team": "ml"}, "taints": []});
    send(&old, &token, "POST", "/api/v1/templates", &template);
    let changed = json!({"description": "for tests", "labels": {"team": "ops"}, "taints": []});
    send(&old, &token, "PUT", "/api/v1/templates/gpu", &changed);
    let asked = json!({"kind": "cordon", "targets": {"nodes": [second]}, "reason": "later"});
    let operation = send(&old, &token, "POST", "/api/v1/clusters/east/operations", &asked)["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let cluster = json!({"name": "west", "server": "https://west.example.com:6443", "token": "s3cret"});
    send(&old, &token, "POST", "/api/v1/clusters", &cluster);
    wait_for("the operation ends", || {
        (get(&old, &token, &format!("/api/v1/operations/{operation}"))["state"] == "succeeded").then_some(())
    });
    knows_west(&old, &token);
    let before = shown(&old, &token, &operation);
    assert_eq!(before[0]["items"].as_array().map(Vec::len), Some(3), "{before:?}");

    let held = place.refused(&sqlite, &postgres, 1);
    assert!(held.contains("nodes.db is in use: a service"), "{held}");
    // One that is killed holds nothing any more, though it left its log beside the file.
    old.signal("-KILL");
    drop(old);

    let rehearsed = place.run(&["migrate-data", "--from", &sqlite, "--to", &postgres, "--dry-run"]);
    assert!(rehearsed.status.success(), "{}", text(&rehearsed.stderr));
    let told = text(&rehearsed.stdout);
    assert!(
        told.contains("dry run: nothing was written") && told.contains("it would get version"),
        "{told}"
    );
    assert_eq!(
        server.run(&database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"),
        "0"
    );

    let there = run(
        PROGRAM,
        place.0.path(),
        &["migrate-data", "--to", "env:NEW"],
        &[("DATABASE_URL", &sqlite), ("NEW", &postgres)],
    );
    let told = text(&there.stdout);
    assert!(there.status.success(), "{}", text(&there.stderr));
    assert!(told.contains("secrets.key_file with the keys first"), "{told}");
    assert!(
        !told.contains("hunter2") && !text(&there.stderr).contains("hunter2"),
        "{told}"
    );
    let lines: Vec<&str> = told.lines().filter(|line| line.ends_with("the same")).collect();
    assert_eq!(place.moved(&postgres, &place.url("back.db")), lines);

    let holds = "SELECT count(*) FROM cordon_holds WHERE state = 1 AND reason IN ('disk 🦀 \\N', 'later')";
    assert_eq!(server.run(&database, holds), "2");
    let new = service(&postgres, &keys);
    knows_west(&new, &token);
    assert_eq!(shown(&new, &token, &operation), before);
    let held = place.refused(&postgres, &place.url("other.db"), 1);
    assert!(held.contains("is in use: a service"), "{held}");
    let held = place.refused(&sqlite, &postgres, 1);
    assert!(held.contains("is in use: a service"), "{held}");
    stop(new);
    let full = place.refused(&sqlite, &postgres, 1);
    assert!(
        full.contains("is not empty: it has ") && full.contains(" in audit_records"),
        "{full}"
    );

    let back = service(&place.url("back.db"), &keys);
    assert_eq!(shown(&back, &token, &operation)[1..3], before[1..3]);
    stop(back);
}

#[test]
fn what_cannot_be_moved_is_refused_in_a_sentence() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let place = Place::new();
    let database = server.create_database();
    let postgres = server.url(&database);
    let migrated = run(
        PROGRAM,
        place.0.path(),
        &["migrate"],
        &[("DATABASE_URL", &place.url("nodes.db"))],
    );
    assert!(migrated.status.success());
    let sqlite = place.url("nodes.db");

    let cases = [
        (place.url("none.db"), postgres.clone(), 1, "none.db does not exist"),
        (sqlite.clone(), sqlite.clone(), 2, "--to: it is the same as --from"),
        (
            sqlite.clone(),
            "env:NOBODY".to_owned(),
            2,
            "--to: the variable NOBODY is not set",
        ),
        // What a shell makes of env:$NEW.
        (
            sqlite.clone(),
            "env:postgres://me:hunter2@db/x".to_owned(),
            2,
            "--to: the name of a variable stands after env:",
        ),
        (
            sqlite.clone(),
            "env:".to_owned(),
            2,
            "--to: the name of a variable stands after env:",
        ),
        (
            sqlite.clone(),
            "mysql://me:hunter2@db/x".to_owned(),
            2,
            "--to: it must start with postgres://",
        ),
        (
            sqlite.clone(),
            "postgres://me:hunter2@127.0.0.1:1/x".to_owned(),
            1,
            "the database cannot be reached",
        ),
        (sqlite.clone(), format!("{postgres}x"), 1, "does not exist"),
    ];
    for (from, to, code, expected) in cases {
        let why = place.refused(&from, &to, code);
        assert!(why.contains(expected), "{why}");
        assert_eq!(why.lines().count(), 1, "{why}");
    }
    assert!(!place.file("none.db").exists());
    let nothing = place.run(&["migrate-data"]);
    assert_eq!(nothing.status.code(), Some(2));

    let url = &[("DATABASE_URL", postgres.as_str())];
    assert!(run(PROGRAM, place.0.path(), &["migrate"], url).status.success());
    let last = server.run(&database, "SELECT max(version) FROM _sqlx_migrations");
    let last: i64 = last.parse().unwrap();
    server.run(
        &database,
        "INSERT INTO _sqlx_migrations SELECT 9999, 'add what nobody knows', now(), true, checksum, 0 FROM _sqlx_migrations LIMIT 1",
    );
    let newer = place.refused(&sqlite, &postgres, 1);
    assert!(
        newer.contains(&format!(
            "has schema version 9999, and this program moves version {last}"
        )),
        "{newer}"
    );
    server.run(
        &database,
        &format!("DELETE FROM _sqlx_migrations WHERE {last} <= version"),
    );
    let older = place.refused(&postgres, &place.url("new.db"), 1);
    assert!(
        older.contains(&format!("has schema version {}, and", last - 1)) && older.contains("kube-node-manager migrate"),
        "{older}"
    );
    let made = std::fs::read_dir(place.0.path()).unwrap();
    let made: Vec<_> = made.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        !made.iter().any(|name| name.to_string_lossy().starts_with("new.db")),
        "{made:?}"
    );
    assert_eq!(server.run(&database, MOVERS), "0");
}

/// A SQLite database with one table, `orders`, that keeps a rollback journal.
fn somebody_elses_file() -> Vec<u8> {
    const PAGE: usize = 512;
    let sql = b"CREATE TABLE orders(id)";
    let text_of = |length: usize| u8::try_from(13 + 2 * length).unwrap();
    let mut cell = vec![6, text_of(5), text_of(6), text_of(6), 1, text_of(sql.len())];
    for part in [&b"table"[..], b"orders", b"orders", &[2], sql] {
        cell.extend_from_slice(part);
    }
    let mut file = vec![0; 2 * PAGE];
    let mut write = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    write(0, b"SQLite format 3\0\x02\0\x01\x01\0\x40\x20\x20");
    // The counter of changes, pages, the counter of schemas, the format of those, UTF-8, and for which counter the pages are right.
    for (at, number) in [
        (24, 1_u32),
        (28, 2),
        (40, 1),
        (44, 4),
        (56, 1),
        (92, 1),
        (96, 3_045_000),
    ] {
        write(at, &number.to_be_bytes());
    }
    let start = PAGE - cell.len() - 2;
    let place = u16::try_from(start).unwrap().to_be_bytes();
    write(100, &[13, 0, 0, 0, 1, place[0], place[1], 0, place[0], place[1]]);
    write(start, &[u8::try_from(cell.len()).unwrap(), 1]);
    write(start + 2, &cell);
    write(PAGE, &[13, 0, 0, 0, 0, 2, 0, 0]);
    file
}

#[test]
fn the_database_of_somebody_else_is_refused_by_its_tables_and_stays_as_it_was() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let place = Place::new();
    let source = place.url("nodes.db");
    let migrated = run(PROGRAM, place.0.path(), &["migrate"], &[("DATABASE_URL", &source)]);
    assert!(migrated.status.success());
    let database = server.create_database();
    server.run(
        &database,
        "CREATE TABLE orders (id integer); INSERT INTO orders VALUES (1)",
    );
    let file = somebody_elses_file();
    std::fs::write(place.file("shop.db"), &file).unwrap();

    for target in [server.url(&database), place.url("shop.db")] {
        let why = place.refused(&source, &target, 1);
        assert!(
            why.contains("is not empty: it has the tables \"orders\", and no schema"),
            "{why}"
        );
    }

    let tables = "SELECT string_agg(tablename, ' ') FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(server.run(&database, tables), "orders");
    assert!(
        std::fs::read(place.file("shop.db")).unwrap() == file,
        "the file has changed"
    );
    for companion in ["shop.db-wal", "shop.db-shm", "shop.db-journal"] {
        assert!(!place.file(companion).exists(), "{companion}");
    }
}

/// A database with so many records, and what else there may be.
fn many(server: &PostgresServer, place: &Place, records: usize) -> String {
    let database = server.create_database();
    let url = server.url(&database);
    assert!(
        run(PROGRAM, place.0.path(), &["migrate"], &[("DATABASE_URL", &url)])
            .status
            .success()
    );
    server.run(
        &database,
        &format!(
            "INSERT INTO audit_records SELECT lpad(to_hex(n), 32, '0')::uuid, n, 'me', 'user', NULL, 'cordon', 'east', 'worker-' || n % 500,
                NULL, 'r', CASE WHEN n % 2 = 0 THEN 'Gerät \\ kaputt' || chr(10) END, '', '{{}}', 'succeeded', -n, NULL, NULL, '{{}}'
            FROM generate_series(1, {records}) AS n;
            INSERT INTO idempotency_keys VALUES ('me', 'k', sha256('x'), 1, 200, 'application/json', NULL, '\\x00ff');
            INSERT INTO leases SELECT 'lease-' || n, 'gone', n FROM generate_series(1, 3) AS n"
        ),
    );
    url
}

/// Makes whoever adds the record number 3000 wait for a while, at once or when the transaction ends.
const SLOW_WRITING: &str = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3); RETURN NEW; END $$;
    CREATE TRIGGER slow BEFORE INSERT ON audit_records FOR EACH ROW WHEN (NEW.at_unix_ms = 3000) EXECUTE FUNCTION wait()";
const SLOW_ENDING: &str = "DROP TRIGGER slow ON audit_records;
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON audit_records DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.at_unix_ms = 3000) EXECUTE FUNCTION wait()";
/// Makes whoever reads the last table wait for a while.
const SLOW_READING: &str = "ALTER TABLE leases RENAME TO stored_leases;
    CREATE VIEW leases AS SELECT stored_leases.* FROM stored_leases, pg_sleep(3)";
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE application_name = 'kube-node-manager migrate-data' AND wait_event = 'PgSleep'";

#[test]
fn a_move_that_is_ended_in_the_middle_leaves_nothing_and_may_be_done_again() {
    let Some(mut server) = PostgresServer::start() else {
        return;
    };
    let place = Place::new();
    let from = many(&server, &place, 6_000);
    let source = place.url("nodes.db");
    let expected = place.moved(&from, &source);
    let before = std::fs::read(place.file("nodes.db")).unwrap();
    let database = server.create_database();
    let target = server.url(&database);
    assert!(
        run(PROGRAM, place.0.path(), &["migrate"], &[("DATABASE_URL", &target)])
            .status
            .success()
    );
    server.run(&database, SLOW_WRITING);

    for way in ["-KILL", "-INT", "-TERM", "cut", "cut at the end", "stop"] {
        if way == "cut at the end" {
            server.run(&database, SLOW_ENDING);
        }
        let moving = start(&place, &source, &target);
        wait_for("it is in the middle", || {
            (server.run(&database, WAITING) == "1").then_some(())
        });
        match way {
            "cut" | "cut at the end" => {
                server.run(&database, &MOVERS.replace("count(*)", "pg_terminate_backend(pid)"));
            }
            "stop" => server.stop(),
            signal => signal_to(&moving, signal),
        }
        let output = moving.wait_with_output().unwrap();
        let errors = text(&output.stderr);
        let code = (way != "-KILL").then_some(1);
        assert_eq!(output.status.code(), code, "{way}: {errors}");
        let told = match way {
            "-KILL" => "",
            "-INT" => "interrupted by SIGINT: nothing was moved",
            "-TERM" => "interrupted by SIGTERM: nothing was moved",
            "cut at the end" | "stop" => "it has either all or nothing",
            _ => "cannot be filled; it got no row",
        };
        assert!(errors.contains(told), "{way}: {errors}");
        if way == "stop" {
            server.start_again();
        }
        wait_for("the server undoes it", || {
            (server.run(&database, MOVERS) == "0").then_some(())
        });
        assert_eq!(server.run(&database, LEFT), "0", "{way}");
        assert_eq!(std::fs::read(place.file("nodes.db")).unwrap(), before, "{way}");
    }

    server.run(&database, "DROP TRIGGER slow ON audit_records");
    assert_eq!(place.moved(&source, &target), expected);
}

#[test]
fn a_second_signal_while_the_transaction_ends_ends_the_program_which_says_that_it_does_not_know() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let place = Place::new();
    let source = place.url("nodes.db");
    place.moved(&many(&server, &place, 3_001), &source);
    let database = server.create_database();
    let target = server.url(&database);
    let migrated = run(PROGRAM, place.0.path(), &["migrate"], &[("DATABASE_URL", &target)]);
    assert!(migrated.status.success());
    server.run(&database, SLOW_WRITING);
    server.run(&database, SLOW_ENDING);

    let moving = start(&place, &source, &target);
    wait_for("it is at the end", || {
        (server.run(&database, WAITING) == "1").then_some(())
    });
    // Two of the same kind could arrive as one.
    signal_to(&moving, "-INT");
    signal_to(&moving, "-TERM");
    let output = moving.wait_with_output().unwrap();

    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("the transaction is ending, which is waited for")
            && errors.contains("while the transaction ended: ")
            && errors.contains("has either all or nothing"),
        "{errors}"
    );
}

#[test]
fn a_signal_ends_a_move_that_waits_for_a_server_that_does_not_answer() {
    let place = Place::new();
    let url = place.url("nodes.db");
    let migrated = run(PROGRAM, place.0.path(), &["migrate"], &[("DATABASE_URL", &url)]);
    assert!(migrated.status.success());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("postgres://me@{}/nodes?sslmode=disable", silent.local_addr().unwrap());

    let moving = start(&place, &url, &target);
    let _connection = silent.accept().unwrap();
    signal_to(&moving, "-INT");
    let output = moving.wait_with_output().unwrap();

    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("interrupted by SIGINT: nothing was moved"), "{errors}");
}

#[test]
fn an_sqlite_file_whose_filling_is_ended_in_the_middle_is_empty() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let place = Place::new();
    let from = many(&server, &place, 6_000);
    let database = from.rsplit('/').next().unwrap();
    server.run(database, SLOW_READING);
    let to = place.url("nodes.db");
    for signal in ["-KILL", "-INT"] {
        let mut moving = start(&place, &from, &to);
        // All other tables were written then.
        let is_at_the_last = format!("{WAITING} AND query LIKE 'SELECT name, owner%'");
        wait_for("it is in the middle", || {
            (server.run(database, &is_at_the_last) == "1").then_some(())
        });
        signal_to(&moving, signal);
        assert!(!moving.wait().unwrap().success());
        wait_for("the server notices", || {
            (server.run(database, MOVERS) == "0").then_some(())
        });
        let empty = place.run(&["migrate-data", "--from", &from, "--to", &to, "--dry-run"]);
        assert!(empty.status.success(), "{signal}: {}", text(&empty.stderr));
    }
    assert_eq!(place.moved(&from, &to).len(), 11);
}

fn start(place: &Place, from: &str, to: &str) -> Child {
    command(PROGRAM, place.0.path())
        .args(["migrate-data", "--from", from, "--to", to])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn signal_to(process: &Child, signal: &str) {
    let sent = command("kill", Path::new("/"))
        .args([signal, &process.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}
