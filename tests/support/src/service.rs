//! The built binary as a black box.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a step of a test may take before the test fails: generous, because machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked whether something happened.
const GLANCE: Duration = Duration::from_millis(10);

/// A running service, killed when this is dropped.
pub struct Service {
    process: Child,
    address: SocketAddr,
    log: Log,
    /// The working folder of the process.
    folder: tempfile::TempDir,
}

/// What the process wrote to stderr.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its head, as it came.
    pub head: String,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic_with(&format!("{error}: {}", self.body)))
    }
}

/// A command for `program` in an environment that says nothing about the configuration, in `folder`.
#[must_use]
pub fn command(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir(folder).stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Runs `program` to its end.
///
/// # Panics
/// If it cannot be started.
#[must_use]
pub fn run(program: &str, folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    command(program, folder)
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .expect("the program starts")
}

impl Service {
    /// Starts `program serve` on a free port of loopback with these arguments and variables, and waits until it says where it listens.
    ///
    /// # Panics
    /// If it ends before.
    #[must_use]
    pub fn start(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = command(program, folder.path())
            .arg("serve")
            .args(arguments)
            .envs([
                ("PORT", "0"),
                ("KNM__SERVER__HOST", "127.0.0.1"),
                ("KNM__AUTH__MODE", "none"),
                ("LOG_FORMAT", "json"),
                // Tests ask as fast as they can.
                ("KNM__LIMITS__REQUESTS_PER_SECOND", "0"),
                ("KNM__LIMITS__CALLER_REQUESTS_PER_SECOND", "0"),
            ])
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = Log::default();
        let (stderr, lines) = (process.stderr.take().expect("it is piped"), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let mut service = Self {
            process,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            log,
            folder,
        };
        service.address = service.wait_for_address();
        service
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn wait_until_ready(&self) {
        self.wait_for_status("/health/ready", 200);
    }

    /// Waits until `path` answers with `status`.
    ///
    /// # Panics
    /// If that does not happen.
    pub fn wait_for_status(&self, path: &str, status: u16) {
        self.wait_until(&format!("{path} answers {status}"), || {
            self.try_get(path).is_ok_and(|answer| answer.status == status)
        });
    }

    /// Waits until the log has a line that contains `text`, and returns it.
    ///
    /// # Panics
    /// If there is none in time.
    pub fn wait_for_line(&self, text: &str) -> String {
        let found = || self.lines().into_iter().find(|line| line.contains(text));
        self.wait_until(&format!("the log says \"{text}\""), || found().is_some());
        found().unwrap_or_default()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The working folder of the process.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The lines that it logged.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.log.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The answer to GET `path`.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        self.try_get(path)
            .unwrap_or_else(|error| panic_with(&format!("{path}: {error}\n{}", self.lines().join("\n"))))
    }

    /// The answer to GET `path`, or why there is none.
    ///
    /// # Errors
    /// What the connection said.
    pub fn try_get(&self, path: &str) -> std::io::Result<Answer> {
        let mut connection = TcpStream::connect(self.address)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        write!(
            connection,
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        )?;
        let mut text = Vec::new();
        connection.read_to_end(&mut text)?;
        read_answer(&String::from_utf8_lossy(&text)).ok_or_else(|| std::io::Error::other("no HTTP answer"))
    }

    /// Sends a signal, such as `-TERM`.
    ///
    /// # Panics
    /// If it cannot be sent.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("sh")
            .args(["-c", r#"kill "$1" "$2""#, "kill", signal, &self.id().to_string()])
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "{signal} cannot be sent");
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// If it does not end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut rest = PATIENCE;
        loop {
            if let Ok(Some(status)) = self.process.try_wait() {
                return status;
            }
            rest = rest
                .checked_sub(GLANCE)
                .unwrap_or_else(|| panic_with(&format!("it does not end\n{}", self.lines().join("\n"))));
            std::thread::sleep(GLANCE);
        }
    }

    /// Waits until something happened; `what` says it when that was in vain.
    ///
    /// # Panics
    /// If it does not happen.
    pub fn wait_until(&self, what: &str, mut happened: impl FnMut() -> bool) {
        let mut rest = PATIENCE;
        while !happened() {
            rest = rest
                .checked_sub(GLANCE)
                .unwrap_or_else(|| panic_with(&format!("waited in vain until {what}\n{}", self.lines().join("\n"))));
            std::thread::sleep(GLANCE);
        }
    }

    fn wait_for_address(&mut self) -> SocketAddr {
        let mut rest = PATIENCE;
        loop {
            if let Some(address) = self.lines().iter().find_map(|line| address_in(line)) {
                return address;
            }
            let ended = matches!(self.process.try_wait(), Ok(Some(_)));
            rest = rest.checked_sub(GLANCE).unwrap_or_default();
            if ended || rest.is_zero() {
                panic_with::<()>(&format!("it does not listen\n{}", self.lines().join("\n")));
            }
            std::thread::sleep(GLANCE);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The address in the line that announces it, in any format of the log.
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, told) = line.split_once("server starting")?;
    told.split(|character: char| !(character.is_ascii_digit() || ".:".contains(character)))
        .find_map(|part| part.trim_matches(':').parse().ok())
}

fn read_answer(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some(Answer {
        status: head.split(' ').nth(1)?.parse().ok()?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

#[expect(clippy::panic, reason = "this is for tests, where a panic is a failure")]
fn panic_with<T>(text: &str) -> T {
    panic!("{text}")
}
