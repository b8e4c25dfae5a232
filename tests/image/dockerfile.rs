//! What can be read from the files of `deploy/docker` without building the image.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::program;
use crate::root::libraries;

/// What the image at the end of the Dockerfile brings of shared libraries: the packages libc6, libgcc-s1, libstdc++6, libgomp1 and libssl3t64.
const PROVIDED: [&str; 15] = [
    "ld-linux-aarch64.so.1",
    "ld-linux-x86-64.so.2",
    "libanl.so.1",
    "libc.so.6",
    "libcrypto.so.3",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libgomp.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
    "libssl.so.3",
    "libstdc++.so.6",
    "libutil.so.1",
];

/// An instruction and what follows it, its lines joined.
struct Instruction {
    word: String,
    rest: String,
}

/// A text file of the project.
pub fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The stages of the Dockerfile; each begins with its FROM.
fn stages() -> Vec<Vec<Instruction>> {
    let text = text("deploy/docker/Dockerfile");
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    let mut stages: Vec<Vec<Instruction>> = Vec::new();
    for line in lines
        .join("\n")
        .replace("\\\n", " ")
        .lines()
        .filter(|line| !line.trim().is_empty())
    {
        let (word, rest) = line.trim().split_once(char::is_whitespace).unwrap();
        if word == "FROM" {
            stages.push(Vec::new());
        }
        let stage = stages.last_mut().expect("it begins with FROM");
        stage.push(Instruction {
            word: word.to_owned(),
            rest: rest.split_whitespace().collect::<Vec<_>>().join(" "),
        });
    }
    stages
}

/// What follows the only instruction of this name in a stage.
fn the<'a>(stage: &'a [Instruction], word: &str) -> &'a str {
    let found: Vec<&str> = stage
        .iter()
        .filter(|one| one.word == word)
        .map(|one| one.rest.as_str())
        .collect();
    assert_eq!(found.len(), 1, "{word}: {found:?}");
    found[0]
}

/// A file of the project with one document.
pub fn yaml(path: &str) -> Value {
    serde_yaml::from_str(&text(path)).unwrap()
}

#[test]
fn it_is_built_by_the_oldest_rust_that_is_promised_on_the_debian_that_it_runs_on() {
    let stages = stages();
    let [build, last] = stages.as_slice() else {
        panic!("there are {} stages, two are expected", stages.len());
    };
    let expected = format!("rust:{}-slim-trixie AS build", env!("CARGO_PKG_RUST_VERSION"));
    assert_eq!(the(build, "FROM"), expected);
    assert_eq!(
        the(last, "FROM"),
        "gcr.io/distroless/cc-debian13:nonroot",
        "trixie is Debian 13"
    );
    let command = the(build, "RUN");
    for part in [
        "--locked",
        "--release",
        "--features \"$FEATURES\"",
        "--mount=type=cache,target=/source/target",
    ] {
        assert!(command.contains(part), "{part}: {command}");
    }
    assert_eq!(the(build, "ARG"), "FEATURES=default");
    let (before, _) = command.split_once("cargo build").expect("it is built by cargo");
    assert!(
        before.contains("-exec touch {} +"),
        "sources that are older than what the cache holds would not be compiled: {command}"
    );
}

#[test]
fn the_image_needs_no_shell_no_root_and_no_check_of_its_own() {
    let stages = stages();
    let last = stages.last().unwrap();
    let words: Vec<&str> = last.iter().map(|one| one.word.as_str()).collect();
    assert_eq!(
        words,
        [
            "FROM",
            "LABEL",
            "COPY",
            "USER",
            "WORKDIR",
            "EXPOSE",
            "ENTRYPOINT",
            "CMD"
        ]
    );
    let (user, group) = the(last, "USER").split_once(':').unwrap();
    assert!(user.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0);
    let entry: Value = serde_json::from_str(the(last, "ENTRYPOINT")).expect("a list, which needs no shell");
    let copied = the(last, "COPY");
    assert_eq!(entry, json!(["/usr/local/bin/kube-node-manager"]));
    assert_eq!(copied, "--from=build /usr/local/bin/kube-node-manager /usr/local/bin/");
    let command: Value = serde_json::from_str(the(last, "CMD")).expect("a list, which needs no shell");
    assert_eq!(command, json!(["serve"]));
    let labels = the(last, "LABEL");
    for label in [
        concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""),
        concat!("licenses=\"", env!("CARGO_PKG_LICENSE"), "\""),
        concat!("description=\"", env!("CARGO_PKG_DESCRIPTION"), "\""),
        concat!("title=\"", env!("CARGO_PKG_NAME"), "\""),
    ] {
        let label = format!("org.opencontainers.image.{label}");
        assert!(labels.contains(&label), "{label} is missing in {labels}");
    }
}

#[test]
fn the_image_has_every_library_that_the_program_is_linked_with() {
    let needed = libraries(&program());
    assert!(!needed.is_empty(), "ldd names no library");
    for library in needed {
        let name = library.file_name().unwrap().to_str().unwrap();
        assert!(PROVIDED.contains(&name), "{name} is not in the image");
    }
}

#[test]
fn what_is_sent_to_the_build_is_enough_for_it_and_nothing_else() {
    let rules = text("deploy/docker/Dockerfile.dockerignore");
    let mut rules = rules.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(rules.next(), Some("*"), "all is left out but for what is named");
    let folder = tempfile::tempdir().unwrap();
    for rule in rules {
        let name = rule.strip_prefix('!').unwrap();
        let target = folder.path().join(name);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let copied = Command::new("cp")
            .arg("-R")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(name))
            .arg(&target)
            .status();
        assert!(copied.unwrap().success(), "{name}");
    }
    // It looks for the sources of every crate of the workspace.
    let read = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
}

#[test]
fn the_manifests_fit_the_image() {
    let stages = stages();
    let last = stages.last().unwrap();
    let base = yaml("deploy/kubernetes/base/deployment.yaml");
    let container = &base["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["workingDir"], the(last, "WORKDIR"));
    assert_eq!(json!([container["args"][0]]).to_string(), the(last, "CMD"));
    let volume = yaml("deploy/kubernetes/overlays/sqlite/deployment.yaml");
    let group = &volume["spec"]["template"]["spec"]["securityContext"]["fsGroup"];
    let (_, of_the_image) = the(last, "USER").split_once(':').unwrap();
    assert_eq!(group.to_string(), of_the_image);
}

#[test]
fn the_services_of_compose_can_write_nothing_but_their_volumes_and_have_no_password_of_ours() {
    let compose = yaml("deploy/docker/docker-compose.yaml");
    for (name, service) in compose["services"].as_object().unwrap() {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"], json!(["ALL"]), "{name}");
        assert_eq!(service["security_opt"], json!(["no-new-privileges:true"]), "{name}");
        let variables = service["environment"].as_object().unwrap();
        for secret in variables
            .keys()
            .filter(|name| name.contains("PASSWORD") || name.contains("URL"))
        {
            assert!(secret.ends_with("_FILE"), "{name}: {secret} is no file");
        }
    }
    let service = &compose["services"]["kube-node-manager"];
    assert_eq!(
        service["image"],
        concat!("kube-node-manager:", env!("CARGO_PKG_VERSION"))
    );
    let ports: Vec<&str> = service["ports"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(
        ports.iter().all(|port| port.starts_with("127.0.0.1:")),
        "it is served to others: {ports:?}"
    );
    for (name, secret) in compose["secrets"].as_object().unwrap() {
        let file = secret["file"].as_str().unwrap();
        assert!(
            file.starts_with("${KNM_SECRETS:?"),
            "{name} has a place of its own: {file}"
        );
    }
}
