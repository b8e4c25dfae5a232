//! A prepared data folder that every server copies.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::programs::Programs;
use super::{PASSWORD, USERNAME};

/// A new folder for a server, with the data in `data`.
pub(super) fn copy(programs: &Programs) -> PathBuf {
    let template = prepare(programs);
    let folder = tempfile::Builder::new()
        .prefix("knm-postgres-")
        .tempdir()
        .expect("a folder of its own")
        .keep();
    programs.give_to_server_user(&folder);
    let copied = Command::new("cp")
        .args(["--archive", "--reflink=auto"])
        .arg(&template)
        .arg(folder.join("data"))
        .status()
        .expect("cp runs");
    assert!(copied.success(), "the template cannot be copied: {copied}");
    folder
}

/// The template of this version and user; made by the first who needs it.
fn prepare(programs: &Programs) -> PathBuf {
    let base = env::temp_dir().join(format!("knm-postgres-template-{}", programs.tag()));
    fs::create_dir_all(&base).expect("a folder for the template");
    let lock = File::create(base.join("lock")).expect("a lock file");
    lock.lock().expect("the lock of the template");
    let (template, half) = (base.join("data"), base.join("half"));
    if !template.exists() {
        programs.give_to_server_user(&base);
        // What is there was left by somebody who did not finish.
        drop(fs::remove_dir_all(&half));
        make(programs, &base, &half);
        fs::rename(&half, &template).expect("the template gets its name");
    }
    template
}

fn make(programs: &Programs, base: &Path, data: &Path) {
    let password = base.join("password");
    fs::write(&password, PASSWORD).expect("the password's file");
    programs.give_to_server_user(&password);
    let mut line: Vec<OsString> = programs.as_server_user("initdb");
    let program = line.remove(0);
    let output = Command::new(program)
        .args(line)
        .arg("-D")
        .arg(data)
        .arg(format!("--pwfile={}", password.display()))
        .arg(format!("--username={USERNAME}"))
        .args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"])
        .args(["--wal-segsize=1", "--no-sync", "--no-instructions"])
        .stdin(Stdio::null())
        .current_dir(base)
        .output()
        .expect("initdb runs");
    assert!(
        output.status.success(),
        "initdb failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
