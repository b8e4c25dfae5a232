//! A real Prometheus server, and the tool that checks its rules, from their programs on this machine.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::wire::Wire;

/// Starts the server (`$@`) and ends it when standard input ends, which it does with the process that holds the other end.
const SUPERVISOR: &str = r#"
"$@" 2>&1 </dev/null &
server=$!
read -r _
# A shell tells what it kills.
exec 2>/dev/null
kill -KILL "$server"
wait "$server"
"#;

/// A server of this test; it ends when this is dropped.
pub struct Prometheus {
    supervisor: Child,
    address: SocketAddr,
    /// Holds its configuration and its data.
    _folder: tempfile::TempDir,
}

/// Runs `promtool` in `folder`; `None`, after saying so, where it is missing.
///
/// # Panics
/// If it is missing and `KNM_TEST_REQUIRE` asks for it.
#[must_use]
pub fn promtool(folder: &Path, arguments: &[&str]) -> Option<Output> {
    let output = Command::new("promtool").current_dir(folder).args(arguments).output();
    if output.is_err() {
        crate::skip("prometheus", "promtool, which comes with Debian's package prometheus");
    }
    output.ok()
}

impl Prometheus {
    /// Starts a server that scrapes `target` once a second as the job `kube-node-manager`, and evaluates these `rules` as often; `None`, after
    /// saying so, where its program is missing.
    ///
    /// # Panics
    /// If it does not start, or if it is missing and `KNM_TEST_REQUIRE` asks for it.
    #[must_use]
    pub fn start(target: SocketAddr, rules: &Path) -> Option<Self> {
        if Command::new("prometheus").arg("--version").output().is_err() {
            crate::skip("prometheus", "Prometheus, Debian's package prometheus");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let configuration = serde_json::json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [{"job_name": "kube-node-manager", "static_configs": [{"targets": [target]}]}],
        });
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, configuration.to_string()).expect("it can be written");
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "sh", "prometheus"])
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut lines = BufReader::new(supervisor.stdout.take().expect("it is piped")).lines();
        let mut said = Vec::new();
        let address = loop {
            let Some(Ok(line)) = lines.next() else {
                unreachable!("Prometheus ended: {}", said.join("\n"));
            };
            let told = line.split_once("msg=\"Listening on\" address=");
            if let Some(address) = told.and_then(|(_, address)| address.trim().parse().ok()) {
                break address;
            }
            said.push(line);
        };
        // What it says later is of no interest, but it must be able to say it.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self {
            supervisor,
            address,
            _folder: folder,
        })
    }

    /// What the API of the server answers at `path`, below `/api/v1`; the parameters are still to be encoded.
    ///
    /// # Errors
    /// What the server says is wrong.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let parameters: Vec<String> = parameters
            .iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
            .collect();
        let target = format!("/api/v1/{path}?{}", parameters.join("&"));
        let reply = Wire::open(self.address).get(&target, &[]).expect("an answer");
        let mut answer = reply.json();
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].take()),
            _ => Err(answer["error"].to_string()),
        }
    }

    /// The values of the series that `expression` has now.
    ///
    /// # Errors
    /// What is wrong with the expression.
    ///
    /// # Panics
    /// If there is no answer, or none that was expected.
    pub fn values(&self, expression: &str) -> Result<Vec<f64>, String> {
        let data = self.ask("query", &[("query", expression)])?;
        let Some("vector") = data["resultType"].as_str() else {
            return Err(format!("it is no vector: {data}"));
        };
        let series = data["result"].as_array().expect("a list");
        let value = |one: &Value| one["value"][1].as_str().and_then(|text| text.parse().ok());
        Ok(series.iter().map(|one| value(one).expect("a number")).collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        // It may have ended already.
        drop(self.supervisor.wait());
    }
}
