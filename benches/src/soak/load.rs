//! Short requests of many kinds at a steady pace, and what became of all requests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::ground::Tokens;
use crate::Failure;
use crate::caller::{Caller, Question, Reply};

pub(super) const CLUSTER: &str = "/api/v1/clusters/demo";
/// How long any answer may take: longer than every deadline of the service.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often one asks again who was told to come later, and after how long.
const TRIES: u32 = 5;
pub(super) const LATER: Duration = Duration::from_secs(1);
/// How many ask at once.
const CALLERS: u32 = 8;
/// How many failures are kept to be told.
const KEPT: usize = 10;

/// What the load does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Working,
    Resting,
    Over,
}

/// What all who ask share.
pub(super) struct Load {
    port: u16,
    pub(super) tokens: Tokens,
    rate: u32,
    phase: watch::Sender<Phase>,
    /// The nodes that there were when the list was last read.
    names: Mutex<Vec<String>>,
    seen: Mutex<Seen>,
}

/// What became of requests.
#[derive(Clone, Default)]
pub(super) struct Seen {
    /// How many were answered as they should be and how many were not, by what was asked for.
    counts: BTreeMap<&'static str, (u64, u64)>,
    failures: Vec<String>,
    /// How often somebody was told to come later, and did.
    put_off: u64,
}

/// What short requests ask for.
#[derive(Clone, Copy)]
enum Kind {
    List,
    ListUnlessSame,
    Filtered,
    Node,
    Pods,
    Summary,
    Labels,
    Taints,
    Cordon,
    Uncordon,
    Plan,
    Audit,
    History,
    Operations,
    Health,
    Nowhere,
    NewConnection,
}

/// The mix: what is asked for one after the other, by each caller from another place on.
const MIX: [Kind; 40] = [
    Kind::ListUnlessSame,
    Kind::Node,
    Kind::Pods,
    Kind::Filtered,
    Kind::Labels,
    Kind::ListUnlessSame,
    Kind::Summary,
    Kind::Node,
    Kind::Audit,
    Kind::Cordon,
    Kind::ListUnlessSame,
    Kind::Node,
    Kind::Filtered,
    Kind::Pods,
    Kind::Nowhere,
    Kind::List,
    Kind::Node,
    Kind::Taints,
    Kind::Summary,
    Kind::NewConnection,
    Kind::ListUnlessSame,
    Kind::Node,
    Kind::Pods,
    Kind::Uncordon,
    Kind::History,
    Kind::ListUnlessSame,
    Kind::Filtered,
    Kind::Node,
    Kind::Labels,
    Kind::Operations,
    Kind::ListUnlessSame,
    Kind::Node,
    Kind::Pods,
    Kind::Summary,
    Kind::Plan,
    Kind::List,
    Kind::Node,
    Kind::Taints,
    Kind::Health,
    Kind::Filtered,
];

impl Load {
    pub(super) async fn new(port: u16, tokens: Tokens, rate: u32) -> Result<Self, Failure> {
        let load = Self {
            port,
            tokens,
            rate,
            phase: watch::Sender::new(Phase::Working),
            names: Mutex::default(),
            seen: Mutex::default(),
        };
        let mut caller = load.caller(&load.tokens.viewer);
        while load.names().is_empty() {
            load.learn(&caller.ask(&Question::get(format!("{CLUSTER}/nodes"))).await?)?;
            sleep(Duration::from_millis(50)).await;
        }
        Ok(load)
    }

    pub(super) fn caller(&self, token: &str) -> Caller {
        Caller::new(self.port, Some(token.to_owned()), PATIENCE)
    }

    /// Somebody from another address, with whatever they call a token.
    pub(super) fn stranger(&self, address: std::net::Ipv4Addr, token: &str) -> Caller {
        Caller::from_address(address, self.port, Some(token.to_owned()), PATIENCE)
    }

    pub(super) fn turn(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Waits while the load rests; false when it is over.
    pub(super) async fn goes_on(&self) -> bool {
        let mut phase = self.phase.subscribe();
        let phase = phase.wait_for(|phase| *phase != Phase::Resting).await;
        phase.is_ok_and(|phase| *phase == Phase::Working)
    }

    /// Waits until the load rests or is over.
    pub(super) async fn pauses(&self) {
        // It cannot fail: the sender lives in the load.
        let _ = self.phase.subscribe().wait_for(|phase| *phase != Phase::Working).await;
    }

    /// One of the nodes that there are, another one for most numbers.
    pub(super) fn node(&self, number: u64) -> String {
        let names = self.names();
        let place = spread(number) % names.len().max(1) as u64;
        names.get(place as usize).cloned().unwrap_or_default()
    }

    pub(super) fn learn(&self, list: &Reply) -> Result<(), Failure> {
        if list.status != 200 {
            return Ok(());
        }
        let list = list.json()?;
        let items = list["items"].as_array().into_iter().flatten();
        *self.names() = items
            .filter_map(|node| Some(node["name"].as_str()?.to_owned()))
            .collect();
        Ok(())
    }

    /// Asks and counts: one of these statuses is right, any other is a failure. The answer, if it was right. Who is told that the service cannot
    /// answer now comes again, as every client should: a machine with other work may keep a database for seconds.
    pub(super) async fn ask(
        &self,
        caller: &mut Caller,
        what: &'static str,
        question: &Question,
        right: &[u16],
    ) -> Option<Reply> {
        let mut asked = caller.ask(question).await;
        for _ in 1..TRIES {
            if !asked.as_ref().is_ok_and(|reply| is_for_now(reply.status)) {
                break;
            }
            self.note_put_off();
            sleep(LATER).await;
            asked = caller.ask(question).await;
        }
        match asked {
            Ok(reply) if right.contains(&reply.status) => {
                self.note(what, Ok(()));
                Some(reply)
            }
            Ok(reply) => {
                let told = format!("{}: {} {}", question.describe(), reply.status, reply.text());
                self.note(what, Err(told));
                None
            }
            Err(failure) => {
                self.note(what, Err(format!("{}: {failure}", question.describe())));
                None
            }
        }
    }

    pub(super) fn note(&self, what: &'static str, outcome: Result<(), String>) {
        let mut seen = self.lock_seen();
        let counts = seen.counts.entry(what).or_default();
        match outcome {
            Ok(()) => counts.0 += 1,
            Err(failure) => {
                counts.1 += 1;
                if seen.failures.len() < KEPT {
                    seen.failures.push(failure);
                }
            }
        }
    }

    /// Notes that somebody was told to come later.
    pub(super) fn note_put_off(&self) {
        self.lock_seen().put_off += 1;
    }

    pub(super) fn seen(&self) -> Seen {
        self.lock_seen().clone()
    }

    fn names(&self) -> MutexGuard<'_, Vec<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// How many requests there were.
    pub(super) fn requests(&self) -> u64 {
        self.counts.values().map(|(right, wrong)| right + wrong).sum()
    }

    pub(super) fn failed(&self) -> u64 {
        self.counts.values().map(|(_, wrong)| wrong).sum()
    }

    pub(super) fn put_off(&self) -> u64 {
        self.put_off
    }

    pub(super) fn failures(&self) -> &[String] {
        &self.failures
    }

    pub(super) fn describe(&self) -> String {
        let mut text = format!("{} requests:", self.requests());
        for (what, (right, wrong)) in &self.counts {
            // Writing into a text cannot fail.
            let _ = write!(text, " {what} {right}");
            if 0 < *wrong {
                let _ = write!(text, " ({wrong} FAILED)");
            }
            text.push(';');
        }
        text.pop();
        text
    }
}

/// Starts all who send short requests.
pub(super) fn start(load: &Arc<Load>, tasks: &mut JoinSet<()>) {
    for number in 0..CALLERS {
        tasks.spawn(keep_asking(Arc::clone(load), number));
    }
}

async fn keep_asking(load: Arc<Load>, number: u32) {
    let mut caller = load.caller(&load.tokens.operator);
    let mut ticks = interval(Duration::from_secs(1) * CALLERS / load.rate.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut etag = None;
    let place = number as usize * MIX.len() / CALLERS as usize;
    for (turn, kind) in (0_u64..).zip(MIX.iter().cycle().skip(place)) {
        if !load.goes_on().await {
            return;
        }
        ticks.tick().await;
        kind.ask(&load, &mut caller, u64::from(number) << 32 | turn, &mut etag)
            .await;
    }
}

impl Kind {
    async fn ask(self, load: &Load, caller: &mut Caller, number: u64, etag: &mut Option<String>) {
        let node = load.node(number);
        let at_node = |rest: &str| format!("{CLUSTER}/nodes/{node}{rest}");
        let changed = |method: Method, rest: &str, body| Question::of(method, at_node(rest), Some(body));
        // A node may go between the moment at which it is chosen and the one at which it is asked for.
        let (found, done): (&[u16], &[u16]) = (&[200, 404], &[200, 404, 409]);
        let is_even = number.is_multiple_of(2);
        let (what, question, right) = match self {
            Self::List => ("lists", Question::get(format!("{CLUSTER}/nodes")), &[200][..]),
            Self::ListUnlessSame => {
                let question = Question::get(format!("{CLUSTER}/nodes")).unless(etag.clone());
                ("lists if changed", question, &[200, 304][..])
            }
            Self::Filtered => {
                let filters = [
                    "status=ready&sort=-memory&limit=50",
                    "label_selector=pool%3Dworker&fields=name,zone,allocatable",
                    "search=worker-0001&sort=age",
                    "schedulable=false",
                ];
                let filter = filters[spread(number) as usize % filters.len()];
                (
                    "filtered lists",
                    Question::get(format!("/api/v1/nodes?{filter}")),
                    &[200][..],
                )
            }
            Self::Node => ("nodes", Question::get(at_node("")), found),
            Self::Pods => ("pods", Question::get(at_node("/pods")), found),
            Self::Summary => ("summaries", Question::get(format!("{CLUSTER}/summary")), &[200][..]),
            Self::Labels => {
                let body = match is_even {
                    true => json!({"set": {"soak": format!("round-{}", number % 1_000)}}),
                    false => json!({"remove": ["soak"]}),
                };
                ("labels", changed(Method::PATCH, "/labels", body), done)
            }
            Self::Taints => {
                let taint = json!({"key": "soak", "value": "yes", "effect": "PreferNoSchedule"});
                let body = match is_even {
                    true => json!({"add": [taint]}),
                    false => json!({"remove": [{"key": "soak", "effect": "PreferNoSchedule"}]}),
                };
                let question = changed(Method::PATCH, "/taints", body);
                (
                    "taints",
                    question.with("idempotency-key", format!("soak-{number}")),
                    done,
                )
            }
            Self::Cordon => {
                let body = json!({"reason": "soaking", "ticket": "SOAK-1"});
                ("cordons", changed(Method::POST, "/cordon", body), done)
            }
            Self::Uncordon => (
                "uncordons",
                changed(Method::POST, "/uncordon", json!({"force": true})),
                done,
            ),
            Self::Plan => {
                let body = json!({"ignore_daemonsets": true});
                ("plans", changed(Method::POST, "/drain/plan", body), found)
            }
            Self::Audit => {
                let filters = [
                    "limit=50",
                    "action=node.label&limit=50",
                    "actor=operator&outcome=succeeded&limit=20",
                ];
                let filter = filters[spread(number) as usize % filters.len()];
                (
                    "audit pages",
                    Question::get(format!("/api/v1/audit?{filter}")),
                    &[200][..],
                )
            }
            Self::History => ("histories", Question::get(at_node("/history?limit=20")), found),
            Self::Operations => (
                "operation lists",
                Question::get("/api/v1/operations?limit=20"),
                &[200][..],
            ),
            Self::Health => {
                let paths = [
                    "/health",
                    "/health/ready",
                    "/health/detailed",
                    "/readyz?verbose",
                    "/metrics",
                ];
                let path = paths[spread(number) as usize % paths.len()];
                ("health and metrics", Question::get(path), &[200][..])
            }
            Self::Nowhere => {
                // Each at a path that nobody asked for before: nothing may be kept for it.
                let paths = [
                    format!("/nowhere/{number}"),
                    format!("/api/v1/clusters/demo/nodes/no-{number}"),
                ];
                let path = paths[usize::from(is_even)].clone();
                ("not found", Question::get(path), &[404][..])
            }
            Self::NewConnection => {
                caller.hang_up();
                ("new connections", Question::get("/api/v1/clusters"), &[200][..])
            }
        };
        let Some(reply) = load.ask(caller, what, &question, right).await else {
            return;
        };
        if matches!(self, Self::List | Self::ListUnlessSame) && reply.status == 200 {
            *etag = reply.etag();
            if let Err(failure) = load.learn(&reply) {
                load.note(what, Err(failure.to_string()));
            }
        }
    }
}

/// Whether a status says that the service cannot answer now, and may a moment later.
pub(super) fn is_for_now(status: u16) -> bool {
    matches!(status, 503 | 504)
}

/// Numbers that look random, one for each.
pub(super) fn spread(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) >> 8
}
