//! A panic is a line of the log before anything ends because of it.

use std::env;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use knm_model::Timestamp;
use knm_ports::Clock;
use knm_telemetry::{Identity, LogFormat, LogSettings, start_logs};

/// Set for the copy of a test that panics.
const CHILD: &str = "KNM_TEST_PANIC_CHILD";

struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp::parse("2030-01-01T00:00:00Z").expect("a time")
    }
}

fn log() {
    let settings = LogSettings {
        format: LogFormat::Json,
        level: "error".to_owned(),
    };
    let identity = Identity {
        service: "nodes".to_owned(),
        version: "1.0.0".to_owned(),
        hostname: "pod-1".to_owned(),
    };
    // It writes as long as the process lives, without what is returned.
    drop(start_logs(&settings, identity, Arc::new(StoppedClock), None).expect("the log starts"));
}

/// Runs `test` of this file again, in a process of its own.
fn in_a_process(test: &str) -> Output {
    Command::new(env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .output()
        .expect("it starts")
}

/// The one line of the log.
fn line(output: &Output) -> serde_json::Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    let mut lines = errors.lines().filter(|line| line.starts_with('{'));
    let (Some(line), None) = (lines.next(), lines.next()) else {
        unreachable!("one line is expected:\n{errors}");
    };
    serde_json::from_str(line).expect("json")
}

#[test]
fn a_part_that_panics_leaves_a_line_with_its_request_and_the_process_goes_on() {
    if env::var_os(CHILD).is_some() {
        log();
        let part = std::thread::spawn(|| {
            let request = tracing::error_span!("request", request_id = "r-1");
            request.in_scope(|| panic!("boom\nboom"));
        });
        assert!(part.join().is_err());
        // Nobody flushes from here on.
        std::process::exit(42);
    }
    let output = in_a_process("a_part_that_panics_leaves_a_line_with_its_request_and_the_process_goes_on");
    assert_eq!(output.status.code(), Some(42));
    let line = line(&output);
    assert_eq!((&line["level"], &line["request_id"]), (&"ERROR".into(), &"r-1".into()));
    assert_eq!(line["message"], "a part of the program panicked");
    assert_eq!(line["fields"]["panic"], "boom\nboom");
    let place = line["fields"]["place"].as_str().unwrap();
    assert!(place.contains("panics.rs:"), "{place}");
}

#[test]
fn a_program_that_panics_leaves_a_line_and_does_not_end_well() {
    if env::var_os(CHILD).is_some() {
        log();
        panic!("boom");
    }
    let output = in_a_process("a_program_that_panics_leaves_a_line_and_does_not_end_well");
    assert!(!output.status.success());
    assert_eq!(line(&output)["fields"]["panic"], "boom");
}
