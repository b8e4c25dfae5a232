//! `backup` and `restore` as a user runs them, beside a service that goes on writing.

#![expect(clippy::unwrap_used, reason = "what a test builds is right, or the test is wrong")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use knm_test_support::patience::wait_for;
use knm_test_support::service::{Service, command, run};
use knm_test_support::wire::Wire;
use serde_json::json;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");
const DEMO: &str = "[{name: east, source: {demo: {nodes: 30, seed: 1, changes_per_second: 0}}}]";

struct Place {
    folder: TempDir,
    database: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("data/nodes.db");
        Self { folder, database }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let url = self.database.display().to_string();
        run(PROGRAM, self.folder.path(), arguments, &[("DATABASE_URL", &url)])
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
        let why = text(&output.stderr);
        assert_eq!(why.lines().count(), 1, "{why}");
        why
    }

    fn serve(&self) -> Service {
        let url = self.database.display().to_string();
        let service = Service::start(PROGRAM, &[], &[("DATABASE_URL", &url), ("KNM__CLUSTERS", DEMO)]);
        service.wait_until_ready();
        service
    }

    fn files(&self) -> Vec<String> {
        names(self.folder.path())
    }

    /// Stops a command while its copy is in `folder`, and lets it go on with a signal.
    fn signalled_in_the_middle(&self, arguments: &[&str], folder: &Path, signal: &str) -> Output {
        let has_part = || names(folder).iter().any(|name| name.ends_with(".partial"));
        wait_for("the command to be caught in the middle", || {
            let mut running = command(PROGRAM, self.folder.path())
                .args(arguments)
                .env("DATABASE_URL", &self.database)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            while !has_part() && running.try_wait().unwrap().is_none() {
                thread::yield_now();
            }
            signal_to(&running, "-STOP");
            let is_caught = has_part();
            if is_caught {
                signal_to(&running, signal);
            }
            signal_to(&running, "-CONT");
            let output = running.wait_with_output().unwrap();
            if !is_caught {
                drop(fs::remove_file(self.folder.path().join("two.backup")));
            }
            is_caught.then_some(output)
        })
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// One that has ended hears nothing.
fn signal_to(process: &Child, signal: &str) {
    let sent = command("kill", Path::new("/"))
        .args([signal, &process.id().to_string()])
        .stderr(Stdio::null())
        .status();
    let _ = sent.unwrap();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn label(service: &Service, number: usize) {
    let body = json!({"set": {"number": number.to_string()}});
    let sent =
        Wire::open(service.address()).send_json("PATCH", "/api/v1/clusters/east/nodes/worker-00003/labels", &[], &body);
    assert_eq!(sent.unwrap().status, 200);
}

fn records(service: &Service) -> usize {
    let audit = service.get("/api/v1/audit?limit=1000").json();
    audit["items"].as_array().unwrap().len()
}

fn stop(mut service: Service) {
    service.signal("-TERM");
    assert!(service.wait().success());
}

#[test]
fn a_backup_of_a_service_at_work_is_whole_and_what_was_done_later_goes_with_a_restore() {
    let place = Place::new();
    let service = place.serve();
    for number in 0..5 {
        label(&service, number);
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 5;
            while !is_over.load(Ordering::Relaxed) {
                label(&service, number);
                number += 1;
            }
        });
        let told = place.done(&["backup", "one.backup"]);
        assert!(told.contains("it is whole") && told.contains("audit_records"), "{told}");
        is_over.store(true, Ordering::Relaxed);
    });
    let file = place.folder.path().join("one.backup");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    assert!(
        place
            .refused(&["backup", "one.backup"])
            .contains("one.backup exists already; --overwrite")
    );
    place.done(&["backup", "--overwrite", "one.backup"]);
    let itself = place.refused(&["backup", "--overwrite", "data/nodes.db"]);
    assert!(itself.contains("is the database itself"), "{itself}");
    assert!(
        place
            .refused(&["backup", "no/where.backup"])
            .contains("no/where.backup: its folder")
    );
    let before = records(&service);
    label(&service, 9_999);
    assert_eq!(records(&service), before + 1);

    let held = place.refused(&["restore", "one.backup"]);
    assert!(held.contains("nodes.db is in use: a service"), "{held}");
    stop(service);
    fs::set_permissions(&place.database, fs::Permissions::from_mode(0o640)).unwrap();
    let told = place.done(&["restore", "one.backup"]);
    let kept = told
        .lines()
        .find_map(|line| line.strip_prefix("the database that was there is "))
        .unwrap();
    let kept = Path::new(kept.strip_suffix(" now").unwrap()).to_owned();
    assert!(kept.is_file(), "{told}");
    assert_eq!(
        fs::metadata(&place.database).unwrap().permissions().mode() & 0o777,
        0o640
    );
    let service = place.serve();
    assert_eq!(records(&service), before);
    stop(service);

    // And back again, without a trace.
    let kept = kept.display().to_string();
    let told = place.done(&["restore", "--discard-replaced", &kept]);
    assert!(!told.contains("that was there"), "{told}");
    let service = place.serve();
    assert_eq!(records(&service), before + 1);
    assert_eq!(place.files(), ["data", "one.backup"]);
}

#[test]
fn what_is_no_whole_backup_is_refused_and_the_database_stays() {
    let place = Place::new();
    place.done(&["migrate"]);
    place.done(&["token", "create", "--name", "me", "--role", "admin"]);
    place.done(&["backup", "good"]);
    let good = fs::read(place.folder.path().join("good")).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(place.folder.path().join(name), bytes).unwrap();
    write("half", &good[..good.len() / 2]);
    let mut bytes = good.clone();
    // The page of an index or a table, not the first one.
    bytes[8_192..12_288].fill(7);
    write("damaged", &bytes);
    write("notes", "remember the milk\n".repeat(500).as_bytes());
    write("empty", b"");
    write("live", &good);
    write("live-wal", b"something");
    let before = place.done(&["token", "list"]);

    for name in ["half", "damaged", "notes", "empty", "live", "missing", "data"] {
        let why = place.refused(&["restore", name]);
        assert!(why.contains(name), "{why}");
        assert_eq!(place.done(&["token", "list"]), before, "{name}");
    }
    let left: Vec<String> = place
        .files()
        .into_iter()
        .filter(|name| name.contains("partial"))
        .collect();
    assert_eq!(left, [""; 0]);
    let told = place.done(&["restore", "good"]);
    assert!(
        told.contains("warning: API tokens in it that are accepted: 1, also those"),
        "{told}"
    );
    assert!(!told.contains("operations in it that are not over"), "{told}");
    assert_eq!(place.done(&["token", "list"]), before);
}

#[test]
fn a_log_that_a_killed_service_left_is_no_part_of_what_is_restored() {
    let place = Place::new();
    let service = place.serve();
    label(&service, 1);
    place.done(&["backup", "one.backup"]);
    label(&service, 2);
    let before = records(&service);
    // It cannot fold its log into the file.
    service.signal("-KILL");
    drop(service);
    assert!(place.database.with_file_name("nodes.db-wal").metadata().unwrap().len() > 0);
    // As the README has it for upgrades: what a copy of the file alone would lack is in a backup.
    place.done(&["backup", "two.backup"]);

    let told = place.done(&["restore", "one.backup"]);
    let service = place.serve();
    assert_eq!(records(&service), before - 1);
    stop(service);
    // What the killed one wrote last is in what was kept.
    let kept = told
        .lines()
        .find_map(|line| line.strip_prefix("the database that was there is "))
        .unwrap();
    place.done(&["restore", kept.strip_suffix(" now").unwrap()]);
    let service = place.serve();
    assert_eq!(records(&service), before);
    stop(service);
    place.done(&["restore", "one.backup"]);
    place.done(&["restore", "two.backup"]);
    assert_eq!(records(&place.serve()), before);
}

/// Whatever the moment is in which the signal comes: either there is nothing, or it was done.
#[test]
fn a_signal_ends_both_without_leaving_a_part() {
    let place = Place::new();
    place.done(&["migrate"]);
    place.done(&["backup", "one.backup"]);
    let data = place.database.parent().unwrap();
    for (signal, name) in [("-TERM", "SIGTERM"), ("-INT", "SIGINT")] {
        for (arguments, folder, left) in [
            (["backup", "two.backup"], place.folder.path(), "there is no new backup"),
            (["restore", "one.backup"], data, "the database is as it was"),
        ] {
            let output = place.signalled_in_the_middle(&arguments, folder, signal);

            let errors = text(&output.stderr);
            match output.status.code() {
                Some(0) => {}
                code => {
                    assert_eq!(code, Some(1), "{errors}");
                    assert!(errors.contains(&format!("interrupted by {name}: {left}")), "{errors}");
                }
            }
            let is_part = |name: &String| name.contains("partial");
            assert!(!names(folder).iter().any(is_part), "{:?}", names(folder));
            drop(fs::remove_file(place.folder.path().join("two.backup")));
        }
    }
    place.done(&["token", "list"]);
}

#[test]
fn with_postgres_the_commands_say_what_to_use() {
    let folder = tempfile::tempdir().unwrap();
    for (command, tool) in [("backup", "pg_dump"), ("restore", "pg_restore")] {
        let output = run(
            PROGRAM,
            folder.path(),
            &[command, "file"],
            &[("DATABASE_URL", "postgres://db/nodes")],
        );
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(tool), "{}", text(&output.stderr));
    }
}
