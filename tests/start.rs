//! What is said at the start, on the built binary.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use knm_test_support::patience::wait_for;
use knm_test_support::service::{Service, command, run};
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");

/// A demo whose both outputs are read; it is killed when this is dropped, and its folder goes too.
struct Demo {
    process: Child,
    _folder: TempDir,
}

impl Demo {
    fn start(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let process = command(PROGRAM, folder.path())
            .args(["serve", "--demo"])
            .env("PORT", "0")
            .env("TMPDIR", folder.path())
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        Self {
            process,
            _folder: folder,
        }
    }

    fn end(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.end();
    }
}

fn is_ready(address: &str) -> bool {
    let ask = || {
        let mut connection = TcpStream::connect(address)?;
        connection.write_all(b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}

#[test]
fn the_demo_says_where_its_docs_are_at_every_level_and_once() {
    let mut demo = Demo::start(&[("LOG_LEVEL", "warn")]);
    let mut said = BufReader::new(demo.process.stdout.take().unwrap()).lines();
    let (docs, example) = (said.next().unwrap().unwrap(), said.next().unwrap().unwrap());
    let address = docs
        .strip_prefix("docs: http://")
        .and_then(|rest| rest.strip_suffix("/docs"))
        .unwrap_or_else(|| panic!("{docs}"));
    assert_eq!(
        example,
        format!("try:  curl -s http://{address}/api/v1/clusters/demo/nodes")
    );
    wait_for("the demo to be ready", || is_ready(address).then_some(()));
    demo.end();
    assert_eq!(said.count(), 0);
    let mut log = String::new();
    demo.process.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(log, "", "a start without trouble warns of nothing");
}

#[test]
fn a_demo_whose_stdout_nobody_reads_runs_all_the_same() {
    let mut demo = Demo::start(&[("LOG_FORMAT", "json")]);
    drop(demo.process.stdout.take());
    let lines = BufReader::new(demo.process.stderr.take().unwrap()).lines();
    let address = lines
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
        .find_map(|line| line["fields"]["address"].as_str().map(str::to_owned))
        .unwrap();
    wait_for("the demo to be ready", || is_ready(&address).then_some(()));
}

#[test]
fn no_field_of_the_first_lines_collides_with_the_frame_of_bunyan() {
    let mut demo = Demo::start(&[("LOG_FORMAT", "bunyan"), ("SERVICE_NAME", "nodes")]);
    let lines = BufReader::new(demo.process.stderr.take().unwrap()).lines();
    for line in lines.take(5) {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!((&line["v"], &line["name"]), (&0.into(), &"nodes".into()), "{line}");
        assert!(
            line.as_object().unwrap().keys().all(|key| !key.ends_with('_')),
            "{line}"
        );
    }
}

#[test]
fn sqlite_warns_once_that_its_pool_has_one_connection() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, "database:\n  max_open_conns: 25\n  max_idle_conns: 10\n").unwrap();
    let service = Service::start(
        PROGRAM,
        &["--config", file.to_str().unwrap()],
        &[("KNM__CLUSTERS", "[]")],
    );
    service.wait_until_ready();
    let lines = service.lines();
    let warnings: Vec<_> = lines.iter().filter(|line| line.contains("\"WARN\"")).collect();
    assert!(
        matches!(warnings.as_slice(), [one] if one.contains("one connection")),
        "{warnings:?}"
    );
    let detailed = service.get("/health/detailed").json();
    assert_eq!(detailed["details"]["database"]["data"]["max_open_connections"], 1);
}

#[test]
fn a_disk_that_is_full_or_read_only_ends_the_start_with_one_line() {
    let disks = [("size=16k", "no room left"), ("ro", "Read-only file system")];
    for (options, expected) in disks {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("disk")).unwrap();
        let inside = format!("mount -t tmpfs -o {options} tmpfs disk && echo mounted && exec \"$0\" serve");
        let place = format!("sqlite://{}/disk/x.db", folder.path().display());
        // In namespaces of its own, nobody else sees the disk, and no privilege is needed to mount it.
        let output = run(
            "unshare",
            folder.path(),
            &["--user", "--map-root-user", "--mount", "sh", "-c", &inside, PROGRAM],
            &[
                ("DATABASE_URL", &place),
                ("KNM__CLUSTERS", "[]"),
                ("PORT", "0"),
                ("LOG_LEVEL", "warn"),
            ],
        );
        if output.stdout != b"mounted\n" {
            knm_test_support::skip("mounts", "to mount a small disk in a namespace of its own (unshare)");
            return;
        }
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(
            errors.contains(expected) && errors.contains("/disk/x.db"),
            "{options}: {errors}"
        );
    }
}
