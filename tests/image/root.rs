//! A root folder with the program, what it is linked with, and what an image and a runtime of containers put beside it.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use knm_test_support::service::{Service, run};
use knm_test_support::skip;
use tempfile::TempDir;

use crate::program;

/// Nobody's number: no file here knows it.
pub const USER: u32 = 54_321;
const PROGRAM: &str = "usr/local/bin/kube-node-manager";
/// Where its file is looked for.
const WORKING: &str = "etc/kube-node-manager";
/// The volume that it may write to.
const VOLUME: &str = "var/lib/kube-node-manager";
const AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";
const ACCOUNT: &str = "var/run/secrets/kubernetes.io/serviceaccount";

/// What the script below begins with is told by [`Root::entrance`]. It mounts what does not change for reading only, and becomes the program, in the
/// same process. It begins as root, because nobody else may do that.
const ENTRANCE: &str = r#"
set -e
[ "$1" = inside ] || exec unshare --mount --propagation private "$0" inside "$@"
shift
mount --bind "$root" "$root"
mount --bind "$binary" "$root/$program"
mount --bind "$data" "$root/$volume"
mount --rbind /proc "$root/proc"
mount -o remount,bind,ro "$root/$program"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs --inh-caps=-all \
    unshare --root="$root" --wd="/$working" --setgid="$user" --setuid="$user" "/$program" "$@"
"#;

/// Removed when this is dropped.
pub struct Root {
    folder: TempDir,
}

impl Root {
    /// Makes one; `None`, after saying so, where this process may not mount.
    pub fn make() -> Option<Self> {
        if !may_mount() {
            skip("chroot", "the rights to mount and to change the root, as root has them");
            return None;
        }
        let root = Self {
            folder: TempDir::with_prefix("knm-image-").expect("a folder"),
        };
        // Who is not root gets through to the program, and to nothing else of the folder.
        fs::set_permissions(root.folder.path(), fs::Permissions::from_mode(0o755)).expect("our own folder");
        for library in libraries(&program()) {
            root.copy(&library);
        }
        root.write(AUTHORITIES, "");
        root.write(PROGRAM, "");
        root.write("etc/hosts", "127.0.0.1 localhost\n");
        for folder in ["root/proc", "data"] {
            fs::create_dir_all(root.folder.path().join(folder)).expect("our own folder");
        }
        for folder in [WORKING, VOLUME] {
            fs::create_dir_all(root.path(folder)).expect("our own folder");
        }
        chown(root.data(), Some(USER), Some(USER)).expect("root may give folders away");
        Some(root)
    }

    /// The volume that the program may write to; it is at `/var/lib/kube-node-manager` there.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Adds an authority to those that the image knows.
    pub fn trust(&mut self, certificate: &str) {
        self.write(AUTHORITIES, certificate);
    }

    /// Gives it this file of the configuration.
    pub fn configure(&mut self, text: &str) {
        self.write(&format!("{WORKING}/config.yaml"), text);
    }

    /// Puts the files of a service account where a kubelet does.
    pub fn mount_service_account(&mut self, token: &str, authority: &str, namespace: &str) {
        for (name, content) in [("token", token), ("ca.crt", authority), ("namespace", namespace)] {
            self.write(&format!("{ACCOUNT}/{name}"), content);
        }
    }

    /// Names the only name server.
    pub fn resolve_with(&mut self, server: IpAddr) {
        self.write("etc/resolv.conf", &format!("nameserver {server}\n"));
    }

    /// Starts the service in it.
    pub fn serve(&self, variables: &[(&str, &str)]) -> Service {
        Service::start(&self.entrance(), &[], variables)
    }

    /// Runs the program in it to its end.
    pub fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        run(&self.entrance(), self.folder.path(), arguments, variables)
    }

    /// The path of a script that is the program in this root.
    fn entrance(&self) -> String {
        let script = format!(
            "#!/bin/sh\nroot='{}' binary='{}' data='{}'\n\
             program='{PROGRAM}' volume='{VOLUME}' working='{WORKING}' user='{USER}'{ENTRANCE}",
            self.path("").display(),
            program(),
            self.data().display(),
        );
        let entrance = self.folder.path().join("enter");
        if !entrance.exists() {
            fs::write(&entrance, script).expect("our own folder");
            fs::set_permissions(&entrance, fs::Permissions::from_mode(0o700)).expect("our own file");
        }
        entrance.display().to_string()
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join("root").join(inside)
    }

    fn write(&self, inside: &str, content: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().expect("it is in a folder")).expect("our own folder");
        fs::write(path, content).expect("our own folder");
    }

    fn copy(&self, library: &Path) {
        let target = self.path(
            library
                .strip_prefix("/")
                .expect("an absolute path")
                .to_str()
                .expect("text"),
        );
        fs::create_dir_all(target.parent().expect("it is in a folder")).expect("our own folder");
        fs::copy(library, target).expect("a library that the program is linked with");
    }
}

/// The files of what a program is linked with, and what links it.
pub fn libraries(program: &str) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd runs");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

fn may_mount() -> bool {
    let tried = Command::new("unshare")
        .args(["--mount", "--root=/", "--setgid=1", "--setuid=1", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}
