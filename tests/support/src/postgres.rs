//! A real PostgreSQL server, from its programs on this machine.
//!
//! Each server has a folder and a port of its own and ends with the process that started it, however that ends. The first one on a
//! machine prepares a template (`initdb`), later ones copy it.

mod certificates;
mod later;
mod programs;
mod template;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use programs::Programs;

/// The superuser's name.
pub const USERNAME: &str = "postgres";
/// The superuser's password: easy to find where it does not belong.
pub const PASSWORD: &str = "hunter2/#%";

/// Starts the server (`$@`), tells its process id, and ends it when standard input ends, which it does with the process that holds the
/// other end. Unless the last word was `stop`, the folder goes too.
const SUPERVISOR: &str = r#"
folder=$1; shift
"$@" >>"$folder/log" 2>&1 </dev/null &
server=$!
echo "$server"
read -r word
for process in $(cat "/proc/$server/task/$server/children" 2>/dev/null) "$server"; do
    kill -CONT "$process" 2>/dev/null
done
kill -QUIT "$server" 2>/dev/null
wait "$server"
[ "$word" = stop ] || rm -rf "$folder"
"#;

/// A server of this test.
pub struct PostgresServer {
    programs: Programs,
    /// Holds the data, the log and the certificates.
    folder: PathBuf,
    port: u16,
    tls: bool,
    /// What is set besides what all servers have.
    settings: Vec<String>,
    running: Option<Running>,
}

struct Running {
    supervisor: Child,
    /// The server's first process, the parent of all others.
    process: u32,
}

impl PostgresServer {
    /// Starts a server without TLS; `None`, after saying so, where its programs are missing.
    ///
    /// # Panics
    /// If it does not start, or if the programs are missing and `KNM_TEST_REQUIRE` asks for them.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// Starts a server without TLS and with these settings, such as `max_connections=20`.
    ///
    /// # Panics
    /// As [`PostgresServer::start`].
    #[must_use]
    pub fn start_with(settings: &[&str]) -> Option<Self> {
        Programs::find().map(|programs| Self::launch(programs, false, settings))
    }

    /// Starts a server with TLS. Its certificate is for `localhost` and signed by [`PostgresServer::root_certificate`].
    ///
    /// # Panics
    /// As [`PostgresServer::start`].
    #[must_use]
    pub fn start_with_tls() -> Option<Self> {
        Programs::find().map(|programs| Self::launch(programs, true, &[]))
    }

    /// The connection string of `database`, at the address 127.0.0.1.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://{USERNAME}:hunter2%2F%23%25@127.0.0.1:{}/{database}",
            self.port
        )
    }

    /// The port at 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate that signed the server's own.
    #[must_use]
    pub fn root_certificate(&self) -> PathBuf {
        self.folder.join("data/root.pem")
    }

    /// Creates an empty database and returns its name.
    pub fn create_database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        self.run(USERNAME, &format!("CREATE DATABASE {name}"));
        name
    }

    /// Runs `statement` on `database` and returns what it prints, columns separated by `|`.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self, database: &str, statement: &str) -> String {
        let output = Command::new(self.programs.path("psql"))
            .args([
                "--host=127.0.0.1",
                "--no-psqlrc",
                "--quiet",
                "--tuples-only",
                "--no-align",
            ])
            .arg(format!("--port={}", self.port))
            .args(["--username", USERNAME, "--dbname", database, "--command", statement])
            .env("PGPASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .output()
            .expect("psql runs");
        let (printed, complaint) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{statement}: {complaint}");
        printed.trim().to_owned()
    }

    /// Stops the server at once, as a crash does; its data stays.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.end("stop\n");
        }
    }

    /// Starts it again at the same port.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_again(&mut self) {
        self.stop();
        self.running = Some(self.spawn().expect("the server starts again; its log"));
    }

    /// Makes the server hang: it still accepts what arrives and answers nothing.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on after [`PostgresServer::freeze`].
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn launch(programs: Programs, tls: bool, settings: &[&str]) -> Self {
        let mut attempts = 3;
        loop {
            attempts -= 1;
            let folder = template::copy(&programs);
            if tls {
                certificates::write(&programs, &folder.join("data"));
            }
            let mut server = Self {
                programs: programs.clone(),
                folder,
                port: free_port(),
                tls,
                settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
                running: None,
            };
            match server.spawn() {
                Ok(running) => {
                    server.running = Some(running);
                    return server;
                }
                // Somebody else may have taken the port meanwhile.
                Err(log) => assert!(0 < attempts, "the server does not start:\n{log}"),
            }
        }
    }

    /// Starts the programs and waits until the server accepts connections; fails with the server's log.
    fn spawn(&self) -> Result<Running, String> {
        let data = self.folder.join("data");
        // What an earlier run left would look like this one.
        drop(fs::remove_file(data.join("postmaster.pid")));
        let mut command = Command::new("sh");
        command
            .args(["-c", SUPERVISOR, "postgres-supervisor"])
            .arg(&self.folder);
        command.args(self.programs.as_server_user("postgres"));
        command.arg("-D").arg(&data).arg("-p").arg(self.port.to_string());
        // Of two values the later one counts.
        for setting in SETTINGS.into_iter().chain(self.settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        if self.tls {
            command.args([
                "-c",
                "ssl=on",
                "-c",
                "ssl_cert_file=server.pem",
                "-c",
                "ssl_key_file=server.key",
            ]);
        }
        let mut supervisor = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let mut process = String::new();
        BufReader::new(supervisor.stdout.take().expect("it is piped"))
            .read_line(&mut process)
            .expect("the server's process id");
        let running = Running {
            supervisor,
            process: process.trim().parse().expect("a process id"),
        };
        if self.becomes_ready(&data, running.process) {
            return Ok(running);
        }
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        running.end("\n");
        Err(log)
    }

    fn becomes_ready(&self, data: &Path, process: u32) -> bool {
        for _ in 0..3000 {
            let status = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            if status.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                return true;
            }
            if !Path::new("/proc").join(process.to_string()).exists() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    fn signal(&self, signal: &str) {
        let Some(running) = &self.running else {
            return;
        };
        // The first process goes first: frozen, it starts no other.
        self.kill(signal, &[running.process]);
        let children = children(running.process);
        if !children.is_empty() {
            self.kill(signal, &children);
        }
    }

    fn kill(&self, signal: &str, processes: &[u32]) {
        // A child may have ended meanwhile; that it is gone is fine.
        drop(
            Command::new("sh")
                .args([
                    "-c",
                    r#"signal=$1; shift; for process; do kill "$signal" "$process"; done"#,
                    "kill",
                    signal,
                ])
                .args(processes.iter().map(u32::to_string))
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .status(),
        );
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        match self.running.take() {
            Some(running) => running.end("\n"),
            None => drop(fs::remove_dir_all(&self.folder)),
        }
    }
}

impl Running {
    fn end(mut self, last_word: &str) {
        if let Some(mut input) = self.supervisor.stdin.take() {
            drop(input.write_all(last_word.as_bytes()));
        }
        drop(self.supervisor.wait());
    }
}

/// Speed instead of safety: the data need not survive the machine, only [`PostgresServer::stop`].
const SETTINGS: [&str; 11] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "fsync=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "autovacuum=off",
    "shared_buffers=16MB",
    "max_connections=100",
    "dynamic_shared_memory_type=mmap",
    "logging_collector=off",
];

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// The processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let children = fs::read_to_string(path).expect("the system tells the children of a process");
    children
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}
