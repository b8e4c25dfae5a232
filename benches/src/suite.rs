//! What is measured, in order, and the bars.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::Failure;
use crate::client::{Answer, Target, fetch};
use crate::contest::{CONNECTIONS, ROUND, Side, contest, round};
use crate::cores::Cores;
use crate::process::{Process, free_port};
use crate::service;
use crate::statistics::{median, percentile};
use crate::table::{Bar, Row};

const LIVE: &str = "/health/live";
const READY: &str = "/health/ready";
const LIST: &str = "/api/v1/clusters/demo/nodes";
const SLICE: &str = "demo.kube-node-manager.io%2Fslice";
const NODES: u64 = 5_000;
const KEPT: u64 = 500;
/// How often a second the restless fleet changes.
const CHANGES: u32 = 500;
const STARTS: usize = 5;
/// Rounds on the quiet and on the restless fleet.
const ROUNDS: usize = 4;
/// How long a fleet may take until all of it is listed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Takes each row as soon as it is measured.
pub type Report<'a> = &'a mut (dyn FnMut(&Row) -> Result<(), Failure> + Send);

/// One run of everything.
pub struct Suite {
    binary: PathBuf,
    cores: Cores,
    /// Databases, bodies and logs of the servers, removed at the end.
    folder: TempDir,
}

/// A list that the service sent.
struct Listed {
    path: String,
    answer: Answer,
}

impl Suite {
    /// Makes a suite for the service in the file `binary`.
    pub fn new(binary: &Path, cores: Cores) -> Result<Self, Failure> {
        Ok(Self {
            binary: binary.to_owned(),
            cores,
            folder: tempfile::Builder::new().prefix("knm-bench-").tempdir()?,
        })
    }

    /// Measures everything.
    pub async fn run(&self, report: Report<'_>) -> Result<Vec<Row>, Failure> {
        let mut rows = vec![self.start_up().await?];
        report(&rows[0])?;
        let service = self.fleet("quiet", 0, &[]).await?;
        let list = whole_list(&service).await?;
        for row in self.contests(&service, &list).await? {
            report(&row)?;
            rows.push(row);
        }
        for row in self.under_change(service).await? {
            report(&row)?;
            rows.push(row);
        }
        Ok(rows)
    }

    async fn start_up(&self) -> Result<Row, Failure> {
        let mut times = Vec::with_capacity(STARTS);
        for number in 0..STARTS {
            let name = format!("start-{number}");
            let database = self.folder.path().join(&name).join("fresh.db");
            let port = free_port()?;
            let mut command = self.service(port);
            command.env("DATABASE_URL", format!("sqlite://{}", database.display()));
            let (process, time) = Process::start(command, port, READY, &self.log(&name)).await?;
            if !database.exists() {
                return Err(format!("{} was not made by the start of the service", database.display()).into());
            }
            process.end().await?;
            times.push(time.as_secs_f64() * 1_000.0);
        }
        let all: Vec<_> = times.iter().map(|time| format!("{time:.0}")).collect();
        Ok(Row {
            what: "start to ready on a fresh SQLite file, in ms",
            measured: median(&times).unwrap_or(f64::NAN),
            bar: Bar::AtMost(150.0),
            detail: format!("median of {}", all.join(", ")),
        })
    }

    async fn contests(&self, service: &Process, list: &Listed) -> Result<Vec<Row>, Failure> {
        let selected = selection(service).await?;
        let live = fetch(&Target::get(service.port, LIVE)).await?;
        let bare_live = self.bare("live", &live.body).await?;
        let bare_list = self.bare("list", &list.answer.body).await?;
        let bare_selected = self.bare("selected", &selected.answer.body).await?;
        let etag = list.answer.etag.clone().ok_or("the list has no entity tag")?;
        let unchanged = |port, path: &str| Target {
            port,
            path: path.to_owned(),
            token: None,
            etag: Some(etag.clone()),
            status: 304,
        };
        let contests = [
            (
                "/health/live, against bare hyper",
                0.6,
                Target::get(service.port, LIVE),
                &bare_live,
                Target::get(bare_live.port, "/"),
            ),
            (
                "If-None-Match hit on the list, against an empty 304",
                0.5,
                unchanged(service.port, LIST),
                &bare_list,
                unchanged(bare_list.port, "/empty"),
            ),
            (
                "list of 5,000 nodes, against the same bytes",
                0.85,
                Target::get(service.port, LIST),
                &bare_list,
                Target::get(bare_list.port, "/"),
            ),
            (
                "list with a selector that keeps 500, same bytes",
                0.5,
                Target::get(service.port, &selected.path),
                &bare_selected,
                Target::get(bare_selected.port, "/"),
            ),
        ];
        let mut rows = Vec::with_capacity(contests.len());
        for (what, bar, target, bare, bare_target) in contests {
            let ours = Side {
                process: service,
                target,
            };
            let theirs = Side {
                process: bare,
                target: bare_target,
            };
            let outcome = contest(&ours, &theirs).await?;
            rows.push(Row {
                what,
                measured: outcome.ratio,
                bar: Bar::AtLeast(bar),
                detail: outcome.detail,
            });
        }
        Ok(rows)
    }

    /// Measures the quiet fleet and, when that server is gone from their core, the restless one.
    async fn under_change(&self, quiet: Process) -> Result<Vec<Row>, Failure> {
        let quiet_latency = latencies(&quiet).await?;
        let memory = quiet.memory()?;
        quiet.end().await?;
        let alone = self
            .fleet("nodes-alone", 0, &[("KNM__KUBERNETES__WATCH_PODS", "false")])
            .await?;
        let alone_latency = latencies(&alone).await?;
        alone.end().await?;
        let restless = self.fleet("restless", CHANGES, &[]).await?;
        let first = whole_list(&restless).await?;
        let restless_latency = latencies(&restless).await?;
        let last = whole_list(&restless).await?;
        if first.answer.etag == last.answer.etag {
            return Err("the fleet that should change stands still".into());
        }
        restless.end().await?;
        let (quiet_p99, restless_p99) = (quiet_latency.p99, restless_latency.p99);
        Ok(vec![
            Row {
                what: "memory with 5,000 nodes under that load, in MiB",
                measured: alone_latency.most(),
                bar: Bar::AtMost(80.0),
                detail: "the most seen, without their pods".to_owned(),
            },
            Row {
                what: "the same with their 22,000 pods, in MiB",
                measured: quiet_latency.most(),
                // 150,000 pods may take 90 MiB.
                bar: Bar::AtMost(93.0),
                detail: format!(
                    "the most seen; {:.1} after it, {:.1} at its peak",
                    memory.resident, memory.peak
                ),
            },
            Row {
                what: "p99 of the list, 500 changes a second against none",
                measured: restless_p99 / quiet_p99,
                bar: Bar::AtMost(3.0),
                detail: format!("{restless_p99:.1} ms against {quiet_p99:.1} ms, {CONNECTIONS} connections"),
            },
            Row {
                what: "memory after that against before",
                measured: restless_latency.growth(),
                bar: Bar::AtMost(1.1),
                detail: restless_latency.describe(),
            },
        ])
    }

    /// Starts the service with a simulated fleet, and waits until all of it is listed.
    async fn fleet(&self, name: &str, changes: u32, variables: &[(&str, &str)]) -> Result<Process, Failure> {
        let port = free_port()?;
        let mut command = self.service(port);
        command
            .args(["--demo", "--demo-nodes", &NODES.to_string()])
            .args(["--demo-changes-per-second", &changes.to_string()])
            .envs(variables.iter().copied());
        let (process, _) = Process::start(command, port, READY, &self.log(name)).await?;
        Ok(process)
    }

    async fn bare(&self, name: &str, body: &[u8]) -> Result<Process, Failure> {
        let file = self.folder.path().join(name);
        std::fs::write(&file, body)?;
        let port = free_port()?;
        let mut command = self.cores.server(&std::env::current_exe()?);
        command.arg("bare").arg(port.to_string()).arg(file);
        let (process, _) = Process::start(command, port, "/", &self.log(name)).await?;
        Ok(process)
    }

    fn service(&self, port: u16) -> Command {
        service::serve(self.cores.server(&self.binary), self.folder.path(), port)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }
}

/// How the list answered under load.
struct Latencies {
    /// The 99th percentile, in milliseconds.
    p99: f64,
    /// The most memory seen in each round, in MiB.
    resident: Vec<f64>,
}

impl Latencies {
    fn most(&self) -> f64 {
        self.resident.iter().copied().fold(f64::NAN, f64::max)
    }

    /// The last round against the first.
    fn growth(&self) -> f64 {
        match (self.resident.first(), self.resident.last()) {
            (Some(first), Some(last)) => last / first,
            _ => f64::NAN,
        }
    }

    fn describe(&self) -> String {
        let rounds: Vec<_> = self.resident.iter().map(|most| format!("{most:.1}")).collect();
        format!("most in each round, in MiB: {}", rounds.join(", "))
    }
}

/// Asks for the whole list, once to warm up and then in rounds that count.
async fn latencies(service: &Process) -> Result<Latencies, Failure> {
    let side = Side {
        process: service,
        target: Target::get(service.port, LIST),
    };
    round(&side, ROUND).await?;
    let mut all = Vec::new();
    let mut resident = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let round = round(&side, ROUND).await?;
        all.extend(round.run.latencies);
        resident.push(round.resident);
    }
    Ok(Latencies {
        p99: percentile(&all, 99).unwrap_or(f64::NAN),
        resident,
    })
}

/// The list, once all nodes are on it.
async fn whole_list(service: &Process) -> Result<Listed, Failure> {
    let start = Instant::now();
    loop {
        let listed = list(service, LIST).await;
        match listed {
            Ok((listed, NODES)) if knows_pods(&listed) => return Ok(listed),
            Ok((_, total)) if PATIENCE < start.elapsed() => {
                return Err(format!("{total} nodes are listed where {NODES} with their pods are expected").into());
            }
            Err(error) if PATIENCE < start.elapsed() => return Err(error),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Whether every node tells what its pods ask for; that comes a little later than the nodes do, and makes it another list.
fn knows_pods(listed: &Listed) -> bool {
    let unknown: &[u8] = b"\"requested\":null";
    !listed.answer.body.windows(unknown.len()).any(|part| part == unknown)
}

/// A list with a selector that keeps one node of ten.
async fn selection(service: &Process) -> Result<Listed, Failure> {
    let mut totals = Vec::new();
    for slice in 0..10 {
        let path = format!("{LIST}?label_selector={SLICE}%3D{slice}");
        let (listed, total) = list(service, &path).await?;
        if total == KEPT {
            return Ok(listed);
        }
        totals.push(total);
    }
    Err(format!("no slice keeps {KEPT} nodes: they keep {totals:?}").into())
}

async fn list(service: &Process, path: &str) -> Result<(Listed, u64), Failure> {
    let answer = fetch(&Target::get(service.port, path)).await?;
    if answer.status != 200 {
        return Err(format!("{path} answered {} where 200 was expected", answer.status).into());
    }
    let total = total(&answer.body).map_err(|error| format!("{path}: {error}"))?;
    let path = path.to_owned();
    Ok((Listed { path, answer }, total))
}

/// How many nodes a list has: what it says, which must be what it holds.
fn total(body: &[u8]) -> Result<u64, Failure> {
    let list: serde_json::Value = serde_json::from_slice(body)?;
    let items = list["items"].as_array().ok_or("a list without items")?.len() as u64;
    match list["total"].as_u64() {
        Some(total) if total == items => Ok(total),
        total => Err(format!("a list of {items} nodes says that it has {total:?}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_must_hold_as_many_nodes_as_it_says() {
        assert_eq!(total(br#"{"items":[1,2],"total":2}"#).unwrap(), 2);
        for wrong in [r#"{"items":[1],"total":2}"#, r#"{"items":[]}"#, r#"{"total":0}"#, "["] {
            assert!(total(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn growth_is_the_last_round_against_the_first_and_unknown_without_rounds() {
        let of = |resident: &[f64]| Latencies {
            p99: 1.0,
            resident: resident.to_vec(),
        };
        assert_eq!(of(&[40.0, 70.0, 50.0]).growth(), 1.25);
        assert_eq!(of(&[40.0, 70.0, 50.0]).most(), 70.0);
        assert!(of(&[]).growth().is_nan());
        assert!(of(&[]).most().is_nan());
    }
}
