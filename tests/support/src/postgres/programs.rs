//! Where the programs are, and as whom they run.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// PostgreSQL's programs.
#[derive(Clone)]
pub(super) struct Programs {
    folder: PathBuf,
    /// Whom the server runs as when we are root, which it refuses.
    server_user: Option<ServerUser>,
}

#[derive(Clone)]
struct ServerUser {
    uid: u32,
    gid: u32,
}

impl Programs {
    /// Finds them; says loudly that a test is skipped if they are not there.
    pub(super) fn find() -> Option<Self> {
        let folder = debian_folders().into_iter().chain(path_folders()).find(|folder| {
            ["initdb", "postgres", "psql"]
                .iter()
                .all(|program| folder.join(program).is_file())
        });
        let Some(folder) = folder else {
            crate::skip(
                "postgres",
                "initdb, postgres and psql under /usr/lib/postgresql or on the PATH (Debian: apt-get install postgresql)",
            );
            return None;
        };
        Some(Self {
            folder,
            server_user: server_user(),
        })
    }

    /// The path of one of them.
    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }

    /// The command line that runs one of them as somebody who may run a server.
    pub(super) fn as_server_user(&self, program: &str) -> Vec<OsString> {
        let mut line: Vec<OsString> = Vec::new();
        if let Some(user) = &self.server_user {
            line.push("setpriv".into());
            line.push(format!("--reuid={}", user.uid).into());
            line.push(format!("--regid={}", user.gid).into());
            line.push("--clear-groups".into());
        }
        line.push(self.path(program).into());
        line
    }

    /// Gives `path` to whom the server runs as.
    pub(super) fn give_to_server_user(&self, path: &Path) {
        if let Some(user) = &self.server_user {
            chown(path, Some(user.uid), Some(user.gid)).expect("root may give files away");
        }
    }

    /// A word for the version and the user, to tell templates apart.
    pub(super) fn tag(&self) -> String {
        let version = Command::new(self.path("postgres"))
            .arg("--version")
            .output()
            .expect("postgres tells its version");
        let version = String::from_utf8_lossy(&version.stdout);
        // As in "postgres (PostgreSQL) 15.18".
        let version = version.split_whitespace().nth(2).unwrap_or("unknown");
        format!("{version}-{}", our_uid())
    }
}

/// The newest version first.
fn debian_folders() -> Vec<PathBuf> {
    let Ok(versions) = fs::read_dir("/usr/lib/postgresql") else {
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> = versions.flatten().map(|version| version.path().join("bin")).collect();
    let number = |folder: &PathBuf| -> u32 {
        let version = folder.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        version.and_then(|version| version.parse().ok()).unwrap_or(0)
    };
    folders.sort_by_key(|folder| std::cmp::Reverse(number(folder)));
    folders
}

fn path_folders() -> Vec<PathBuf> {
    env::var_os("PATH").map_or_else(Vec::new, |path| env::split_paths(&path).collect())
}

fn server_user() -> Option<ServerUser> {
    if our_uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("the list of users");
    let find = |name: &str| {
        let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let user = fields.into_iter().find(|fields| fields.first() == Some(&name))?;
        Some(ServerUser {
            uid: user.get(2)?.parse().ok()?,
            gid: user.get(3)?.parse().ok()?,
        })
    };
    Some(
        find("postgres")
            .or_else(|| find("nobody"))
            .expect("a user who is not root"),
    )
}

fn our_uid() -> u32 {
    fs::metadata("/proc/self").expect("our own process").uid()
}
