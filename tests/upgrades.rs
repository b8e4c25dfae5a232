//! Two versions of the program on one database, as a rolling update has them for a while. No second version is built for that: the one before
//! is what its schema says, the one after is this program's schema and something that it does not know.

use std::sync::atomic::{AtomicBool, Ordering};

use knm_test_support::patience::wait_for;
use knm_test_support::postgres::PostgresServer;
use knm_test_support::service::{Service, run};
use knm_test_support::wire::Wire;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");
const MIGRATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres");
const CLUSTERS: &str = "[{name: demo, source: {demo: {nodes: 5, changes_per_second: 0}}}]";
const NODES: &str = "/api/v1/clusters/demo/nodes";

/// As sqlx keeps its book.
const BOOK: &str = "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL,
    installed_on TIMESTAMPTZ NOT NULL DEFAULT now(), success BOOLEAN NOT NULL, checksum BYTEA NOT NULL, execution_time BIGINT NOT NULL)";

/// Notes each lease that is taken or kept, with the schema that there was then.
const NOTE_LEASES: &str = "CREATE TABLE taken_leases (name text, schema bigint);
    CREATE FUNCTION note_lease() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO taken_leases SELECT NEW.name, max(version) FROM _sqlx_migrations;
        RETURN NEW;
    END $$;
    CREATE TRIGGER note BEFORE INSERT OR UPDATE ON leases FOR EACH ROW EXECUTE FUNCTION note_lease()";
const EARLY_LEASES: &str = "SELECT count(*) FILTER (WHERE schema < latest), count(*) FILTER (WHERE schema = latest)
    FROM taken_leases, (SELECT max(version) AS latest FROM _sqlx_migrations) AS book";

const NOT_MERELY_ADDED: &str =
    "UPDATE _sqlx_migrations SET description = 'reshape what everybody knows' WHERE version = 9999";

struct Ground {
    server: PostgresServer,
    database: String,
    url: String,
}

impl Ground {
    fn start() -> Option<Self> {
        let server = PostgresServer::start()?;
        let database = server.create_database();
        let url = server.url(&database);
        Some(Self { server, database, url })
    }

    /// Makes the schema of the version before the last migration.
    fn make_the_schema_before(&self) {
        let mut files: Vec<_> = std::fs::read_dir(MIGRATIONS)
            .expect("a folder")
            .map(|file| file.expect("a file").path())
            .collect();
        files.sort();
        files.pop();
        self.server.run(&self.database, BOOK);
        for file in files {
            let sql = std::fs::read_to_string(&file).expect("a migration");
            let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
            let (version, rest) = name.split_once('_').expect("a number and a name");
            self.server.run(&self.database, &sql);
            let note = format!(
                "INSERT INTO _sqlx_migrations VALUES ({version}, '{}', now(), true, sha384(convert_to($migration${sql}$migration$, 'UTF8')), 1)",
                rest.replace('_', " ")
            );
            self.server.run(&self.database, &note);
        }
    }

    fn serve(&self, variables: &[(&str, &str)]) -> Service {
        let own = [("DATABASE_URL", self.url.as_str()), ("KNM__CLUSTERS", CLUSTERS)];
        Service::start(PROGRAM, &[], &[&own, variables].concat())
    }
}

/// Changes that between them write into every table that requests write into; what was not granted.
fn write(service: &Service, round: usize) -> Vec<String> {
    let mut refused = Vec::new();
    let node = format!("{NODES}/{}", nodes(service)[round % 5]);
    let mut send = |method: &str, path: &str, body: Value, key: &str| {
        let mut wire = Wire::open(service.address());
        let key = format!("idempotency-key: {key}-{round}");
        match wire.send_json(method, path, &[&key], &body) {
            Ok(reply) if (200..300).contains(&reply.status) => {}
            Ok(reply) => refused.push(format!("{method} {path}: {} {}", reply.status, reply.text())),
            Err(error) => refused.push(format!("{method} {path}: {error}")),
        }
    };
    let labels = json!({"set": {"example.com/round": round.to_string()}});
    send("PATCH", &format!("{node}/labels"), labels.clone(), "label");
    send("POST", &format!("{node}/cordon"), json!({"reason": "disk"}), "cordon");
    send("POST", &format!("{node}/uncordon"), json!({}), "uncordon");
    let operation = json!({"kind": "label", "targets": {"nodes": nodes(service)}, "options": labels});
    send("POST", "/api/v1/clusters/demo/operations", operation, "operation");
    let template = json!({"name": format!("template-{round}"), "labels": {"team": "shop"}});
    send("POST", "/api/v1/templates", template, "template");
    refused
}

fn nodes(service: &Service) -> Vec<String> {
    let list = service.get(NODES).json();
    let names = list["items"].as_array().into_iter().flatten();
    names
        .filter_map(|node| node["name"].as_str().map(str::to_owned))
        .collect()
}

fn wait_for_operations_to_end(service: &Service) {
    wait_for("every operation to succeed", || {
        let list = service.get("/api/v1/operations?limit=1000").json();
        let items = list["items"].as_array()?;
        let all = items.iter().all(|operation| operation["state"] == "succeeded");
        (all && !items.is_empty()).then_some(())
    });
}

/// What "the schema of the version before with this program" means: it migrates at its start, or, if it must not, it says so, takes no
/// requests, and begins to work when somebody has migrated.
#[test]
fn on_the_schema_before_it_migrates_or_says_so_and_waits_until_somebody_did() {
    let Some(ground) = Ground::start() else {
        return;
    };
    ground.make_the_schema_before();
    ground.server.run(&ground.database, NOTE_LEASES);
    let waiting = ground.serve(&[("KNM__DATABASE__AUTO_MIGRATE", "false")]);
    let line = waiting.wait_for_line("migrations are not applied and database.auto_migrate is false");
    assert!(line.contains("\"pending\":1"), "{line}");
    waiting.wait_for_status("/health/ready", 503);
    assert_eq!(waiting.get("/health/live").status, 200);
    assert!(
        waiting.get("/readyz?verbose").body.contains("[-]migrations"),
        "{}",
        waiting.get("/readyz?verbose").body
    );

    let migrating = ground.serve(&[]);
    migrating.wait_until_ready();
    waiting.wait_until_ready();
    wait_for("leases to be taken", || {
        let leases = ground.server.run(&ground.database, EARLY_LEASES);
        let (early, late) = leases.split_once('|')?;
        assert_eq!(early, "0", "a replica that waits takes no lease from those that work");
        (late != "0").then_some(())
    });
    wait_for("the cluster to be recorded", || {
        let clusters = waiting.get("/api/v1/clusters").json();
        clusters["items"][0]["registered_at"].is_string().then_some(())
    });
    let complaints: Vec<String> = waiting
        .lines()
        .into_iter()
        .filter(|line| line.contains("could not"))
        .collect();
    assert_eq!(
        complaints,
        Vec::<String>::new(),
        "nothing is tried on a schema that lacks something"
    );

    for (round, service) in [&waiting, &migrating].into_iter().enumerate() {
        service.wait_for_status(&format!("{NODES}?limit=1"), 200);
        wait_for("the nodes", || (nodes(service).len() == 5).then_some(()));
        assert_eq!(write(service, round), Vec::<String>::new());
        wait_for_operations_to_end(service);
    }
}

#[test]
fn a_running_process_goes_on_while_a_later_version_migrates_and_starts_again_afterwards() {
    let Some(ground) = Ground::start() else {
        return;
    };
    let before = ground.serve(&[]);
    before.wait_until_ready();
    wait_for("the nodes", || (nodes(&before).len() == 5).then_some(()));
    assert_eq!(write(&before, 0), Vec::<String>::new());

    let stop = AtomicBool::new(false);
    let (refused, rounds) = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let (mut refused, mut rounds) = (Vec::new(), 1);
            while !stop.load(Ordering::SeqCst) || rounds < 6 {
                refused.extend(write(&before, rounds));
                rounds += 1;
            }
            (refused, rounds)
        });
        ground.server.migrate_to_later(&ground.database);
        stop.store(true, Ordering::SeqCst);
        writing.join().expect("it ends")
    });
    assert_eq!(refused, Vec::<String>::new());
    before.wait_until_ready();
    wait_for_operations_to_end(&before);

    for (number, migrates) in ["true", "false"].into_iter().enumerate() {
        let again = ground.serve(&[("KNM__DATABASE__AUTO_MIGRATE", migrates)]);
        again.wait_until_ready();
        let line = again.wait_for_line("the schema is that of a later version");
        assert!(line.contains("\"INFO\"") && line.contains("9999"), "{line}");
        wait_for("the nodes", || (nodes(&again).len() == 5).then_some(()));
        assert_eq!(write(&again, rounds + number), Vec::<String>::new());
        wait_for_operations_to_end(&again);
    }
}

#[test]
fn a_schema_that_a_later_version_did_not_merely_add_to_ends_the_start_and_tells_what_to_do() {
    let Some(ground) = Ground::start() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let own = [
        ("DATABASE_URL", ground.url.as_str()),
        ("PORT", "0"),
        ("LOG_LEVEL", "error"),
        ("HOME", "/nowhere"),
    ];
    let migrated = run(PROGRAM, folder.path(), &["migrate"], &own);
    assert!(migrated.status.success(), "{migrated:?}");
    ground.server.migrate_to_later(&ground.database);
    ground.server.run(&ground.database, NOT_MERELY_ADDED);

    for migrates in ["true", "false"] {
        let variables = [&own[..], &[("KNM__DATABASE__AUTO_MIGRATE", migrates)]].concat();
        let refused = run(PROGRAM, folder.path(), &["serve"], &variables);

        let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{errors}");
        assert!(
            errors.contains("migration 9999 (reshape what everybody knows)"),
            "{errors}"
        );
        assert!(
            errors.contains("run that version, or restore a backup from before it"),
            "{errors}"
        );
    }
}
