//! The service that is measured.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;

/// The file of the built service: `named`, else the one in `KNM_BINARY`, else the release build.
pub fn binary(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let binary = named.map_or_else(default_binary, Path::to_owned);
    binary.canonicalize().map_err(|error| {
        format!(
            "{} is not a built service: {error}; cargo build --release makes one, --binary names it",
            binary.display()
        )
        .into()
    })
}

/// The command `serve` of `program`, listening on `port`, with nothing of this machine's configuration: no file, no cluster.
#[must_use]
pub fn serve(program: Command, folder: &Path, port: u16) -> Command {
    let mut command = alone(program, folder);
    command
        .arg("serve")
        .env("KNM__SERVER__HOST", "127.0.0.1")
        .env("KNM__AUTH__MODE", "none")
        .env("PORT", port.to_string());
    command
}

/// `program` in an environment that tells it nothing, at work in `folder`.
#[must_use]
pub fn alone(mut program: Command, folder: &Path) -> Command {
    program
        .current_dir(folder)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("HOME", folder)
        .env("TMPDIR", folder);
    program
}

fn default_binary() -> PathBuf {
    if let Some(binary) = std::env::var_os("KNM_BINARY") {
        return binary.into();
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Path::new(&target).join("release").join("kube-node-manager")
}
