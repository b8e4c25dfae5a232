//! Servers that a run starts, and ends with itself.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::process::Child;
use tokio::time::Instant;

use crate::Failure;
use crate::client::{Target, fetch};
use crate::procfs::{Memory, memory, on_core};

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(20);
/// Small against the start of a process, large against the cost of a refused connection.
const BETWEEN_TRIES: Duration = Duration::from_millis(1);
/// How often the memory of a server is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How much of a log goes into an error.
const LINES: usize = 5;

/// A server; it is killed when this is dropped.
pub struct Process {
    child: Child,
    /// Where it listens on loopback.
    pub port: u16,
    /// Its number.
    pub id: u32,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, whose output goes to the file `log`, and says how long it took until `path` was answered with 200.
    pub async fn start(mut command: Command, port: u16, path: &str, log: &Path) -> Result<(Self, Duration), Failure> {
        let output = File::create(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let program = command.get_program().to_owned();
        let mut command = tokio::process::Command::from(command);
        let start = Instant::now();
        let child = command
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
        let id = child.id().ok_or("a server ended while it started")?;
        let log = log.to_owned();
        let mut process = Self { child, port, id, log };
        let target = Target::get(port, path);
        loop {
            // Refusals are how a server looks before it listens, and 503 before it is ready.
            if let Ok(answer) = fetch(&target).await
                && answer.status == target.status
            {
                return Ok((process, start.elapsed()));
            }
            if let Some(status) = process.child.try_wait()? {
                return Err(process.complaint(&format!("ended with {status}")));
            }
            if PATIENCE < start.elapsed() {
                return Err(process.complaint(&format!("did not answer {path} within {} s", PATIENCE.as_secs())));
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    }

    /// Ends it and waits until it is gone.
    pub async fn end(mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }

    /// Its memory.
    pub fn memory(&self) -> Result<Memory, Failure> {
        memory(self.id)
    }

    /// How long it was on a core.
    pub fn on_core(&self) -> Result<Duration, Failure> {
        on_core(self.id)
    }

    /// Does `work`, and tells the most memory that the server was seen with meanwhile, in MiB.
    pub async fn watched<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<(T, f64), Failure> {
        let mut work = pin!(work);
        let mut most = 0.0_f64;
        let mut looks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                done = &mut work => return Ok((done?, most)),
                _ = looks.tick() => most = most.max(self.memory()?.resident),
            }
        }
    }

    fn complaint(&self, what: &str) -> Failure {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(LINES).collect();
        let last: String = lines.iter().rev().map(|line| format!("\n  {line}")).collect();
        format!("a server {what}; the end of its log:{last}").into()
    }
}

/// A port that nobody listens on.
pub fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_server_that_ends_at_once_is_an_error_with_the_end_of_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let command = shell("for line in 1 2 3 4 5 6; do echo line $line; done; exit 3");
        let started = Process::start(command, free_port().unwrap(), "/", &folder.path().join("log")).await;
        let error = started.err().unwrap().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.contains("line 6") && !error.contains("line 1"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let command = Command::new("/nowhere/server");
        let started = Process::start(command, free_port().unwrap(), "/", &folder.path().join("log")).await;
        let error = started.err().unwrap().to_string();
        assert!(error.contains("/nowhere/server"), "{error}");
    }
}
