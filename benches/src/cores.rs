//! Who runs where: the servers share one core, and the load stays away from it.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Failure;

/// The core of the servers, if the load can keep off it.
#[derive(Clone, Copy, Debug)]
pub enum Cores {
    /// Servers on core 0, the load on all others.
    Apart,
    /// This machine has one core, or no `taskset`: everything runs everywhere.
    Shared,
}

impl Cores {
    /// Moves this process, and the threads that it will start, off the core of the servers.
    pub fn claim() -> Result<Self, Failure> {
        let cores = std::thread::available_parallelism()?.get();
        if cores < 2 {
            return Ok(Self::Shared);
        }
        let moved = Command::new("taskset")
            .args(["--all-tasks", "--pid", "--cpu-list", &format!("1-{}", cores - 1)])
            .arg(std::process::id().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        Ok(match moved {
            Ok(status) if status.success() => Self::Apart,
            _ => Self::Shared,
        })
    }

    /// The command that starts `program` where servers run.
    #[must_use]
    pub fn server(self, program: &Path) -> Command {
        match self {
            Self::Apart => {
                let mut command = Command::new("taskset");
                command.args(["--cpu-list", "0"]).arg(program);
                command
            }
            Self::Shared => Command::new(program),
        }
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apart => "the servers on core 0, the load on the others",
            Self::Shared => "servers and load on the same cores, so the numbers are worth little",
        })
    }
}
