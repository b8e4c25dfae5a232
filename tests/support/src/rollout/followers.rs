//! Readers of events that come back with the id of the last one.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::CLUSTER;
use crate::patience::wait_for;
use crate::wire::{Events, SentEvent, Wire};

/// How long a reader waits before it comes back.
const PAUSE: Duration = Duration::from_millis(50);
/// A reader that is refused so often in a row gives up.
const ATTEMPTS: usize = 100;
const TERMINAL: [&str; 4] = ["succeeded", "failed", "partly_failed", "cancelled"];

/// What a reader of an operation's events got.
#[derive(Debug, Default)]
pub struct Followed {
    /// The numbers of its events, as they came.
    pub numbers: Vec<u64>,
    /// How often it came back.
    pub came_back: usize,
    /// What came instead of a stream.
    pub refusals: Vec<String>,
    /// The pods that were asked to go.
    pub evicted: Vec<String>,
    /// Whether the end of the operation was told.
    pub ended: bool,
}

impl Followed {
    /// Whether each event came once and in order, to the last one.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.ended && self.numbers.iter().copied().eq(1..=self.numbers.len() as u64)
    }
}

/// Follows one operation to its end.
pub(super) struct Follower(JoinHandle<Followed>);

impl Follower {
    pub(super) fn start(address: SocketAddr, id: String) -> Self {
        Self(std::thread::spawn(move || follow(address, &id)))
    }

    pub(super) fn end(self) -> Followed {
        self.0.join().expect("a reader ends")
    }
}

fn follow(address: SocketAddr, id: &str) -> Followed {
    let mut followed = Followed::default();
    let path = format!("/api/v1/operations/{id}/events");
    let mut attempts = 0;
    while !followed.ended && attempts < ATTEMPTS {
        let last = followed.numbers.last().map(|number| format!("last-event-id: {number}"));
        match Events::try_open(address, &path, last.as_deref().as_slice()) {
            Ok(mut events) => {
                attempts = 0;
                // However it ends, the reader comes back unless all is told.
                while let Ok(Some(event)) = events.next_event() {
                    followed.take(&event);
                }
            }
            Err(error) => {
                attempts += 1;
                followed.refusals.push(error.to_string());
            }
        }
        if !followed.ended {
            followed.came_back += 1;
            std::thread::sleep(PAUSE);
        }
    }
    followed
}

impl Followed {
    fn take(&mut self, event: &SentEvent) {
        let Ok(number) = event.id.parse() else {
            return;
        };
        self.numbers.push(number);
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        if event.kind == "operation" && data["state"].as_str().is_some_and(|state| TERMINAL.contains(&state)) {
            self.ended = true;
        }
        if data["message"] == "it is on its way out" {
            self.evicted.push(data["uid"].to_string());
        }
    }
}

type Labels = BTreeMap<String, Value>;

/// Watches the nodes of the cluster for as long as the test runs.
pub(super) struct Watcher {
    address: SocketAddr,
    view: Arc<Mutex<View>>,
}

#[derive(Default)]
struct View {
    nodes: Labels,
    last_id: String,
    came_back: usize,
    started_anew: usize,
}

impl Watcher {
    pub(super) fn start(address: SocketAddr) -> Self {
        let view = Arc::new(Mutex::new(View::default()));
        let shared = Arc::clone(&view);
        // It ends with the balancer: nobody answers it any more.
        std::thread::spawn(move || watch(address, &shared));
        Self { address, view }
    }

    /// How often it came back, and how often that began with all nodes.
    pub(super) fn comings_back(&self) -> (usize, usize) {
        let view = look(&self.view);
        (view.came_back, view.started_anew)
    }

    /// What it knows otherwise than the service, once everything should be told.
    pub(super) fn differences(&self) -> Vec<String> {
        let mut differences = Vec::new();
        let mut looks = 0;
        wait_for("the reader of nodes to know all", || {
            differences = self.compare().unwrap_or_else(|error| vec![error.to_string()]);
            looks += 1;
            (differences.is_empty() || 500 < looks).then_some(())
        });
        differences
    }

    fn compare(&self) -> io::Result<Vec<String>> {
        let list = Wire::open(self.address)
            .get(&format!("{CLUSTER}/nodes?limit=1000"), &[])?
            .json();
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let known = &look(&self.view).nodes;
        let differs = |node: &&Value| known.get(node["name"].as_str().unwrap_or_default()) != Some(&node["labels"]);
        let mut differences: Vec<String> = items
            .iter()
            .filter(differs)
            .map(|node| node["name"].to_string())
            .collect();
        if known.len() != items.len() {
            differences.push(format!("{} nodes instead of {}", known.len(), items.len()));
        }
        Ok(differences)
    }
}

fn watch(address: SocketAddr, view: &Mutex<View>) {
    let mut attempts = 0;
    while attempts < ATTEMPTS {
        let last = look(view).last_id.clone();
        let header = format!("last-event-id: {last}");
        let headers: &[&str] = if last.is_empty() { &[] } else { &[&header] };
        if let Ok(mut events) = Events::try_open(address, &format!("{CLUSTER}/watch"), headers) {
            while let Ok(Some(event)) = events.next_event() {
                attempts = 0;
                look(view).take(&event);
            }
        }
        attempts += 1;
        look(view).came_back += 1;
        std::thread::sleep(PAUSE);
    }
}

impl View {
    fn take(&mut self, event: &SentEvent) {
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        let name = data["name"]
            .as_str()
            .or(data["node"]["name"].as_str())
            .unwrap_or_default();
        let labels = data.get("labels").or(data["node"].get("labels"));
        match (event.kind.as_str(), labels) {
            ("snapshot", _) => {
                self.nodes.clear();
                self.started_anew += usize::from(!self.last_id.is_empty());
            }
            ("added" | "modified", Some(labels)) => drop(self.nodes.insert(name.to_owned(), labels.clone())),
            ("deleted", _) => drop(self.nodes.remove(name)),
            _ => {}
        }
        if !event.id.is_empty() {
            self.last_id.clone_from(&event.id);
        }
    }
}

fn look(view: &Mutex<View>) -> MutexGuard<'_, View> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}
