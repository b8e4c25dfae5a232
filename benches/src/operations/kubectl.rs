//! kubectl as it is installed here, with its own defaults.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::Failure;
use crate::service::alone;

/// The other side of the comparisons.
pub struct Kubectl {
    program: PathBuf,
    version: String,
    /// Where it keeps what it discovered.
    home: PathBuf,
}

impl Kubectl {
    /// Looks for it on the `PATH`.
    pub async fn find(home: &Path) -> Result<Option<Self>, Failure> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut candidates = std::env::split_paths(&path).map(|folder| folder.join("kubectl"));
        let Some(program) = candidates.find(|candidate| candidate.is_file()) else {
            return Ok(None);
        };
        let mut kubectl = Self {
            program,
            version: String::new(),
            home: home.to_owned(),
        };
        let told = kubectl.output(&["version", "--client"], None).await?;
        kubectl.version = told.lines().next().unwrap_or_default().to_owned();
        Ok(Some(kubectl))
    }

    /// What it says of its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Runs it to its end on the cluster of `kubeconfig`, and says how long it took.
    pub async fn time(&self, kubeconfig: &Path, arguments: &[&str]) -> Result<Duration, Failure> {
        let start = Instant::now();
        self.output(arguments, Some(kubeconfig)).await?;
        Ok(start.elapsed())
    }

    /// What it prints; a failure if it fails.
    async fn output(&self, arguments: &[&str], kubeconfig: Option<&Path>) -> Result<String, Failure> {
        let mut command = alone(Command::new(&self.program), &self.home);
        command
            .args(arguments)
            .envs(kubeconfig.map(|file| ("KUBECONFIG", file)))
            .stdin(Stdio::null());
        let output = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .output()
            .await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        let last = complaint.lines().last().unwrap_or_default();
        let what = arguments.first().unwrap_or(&"");
        Err(format!("kubectl {what} ended with {}: {last}", output.status).into())
    }
}
