//! The watch of the fleet's pods.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use knm_model::NodeName;
use knm_ports::{ClusterError, PodEvent, PodEvents};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, timeout};

use crate::fleet::{Fleet, Told};
use crate::gateway::ALIVE_EVERY;

/// How often it is looked whether time did something to pods, while nothing else happens.
const TICK: Duration = Duration::from_millis(500);

/// Nothing happens before the stream is first polled.
pub(crate) fn open(fleet: Arc<Fleet>) -> PodEvents {
    stream::once(async move {
        let (names, told) = fleet.watch_pods();
        let mut watch = PodWatch {
            fleet,
            told,
            unlisted: None,
            waiting: VecDeque::new(),
        };
        watch.list(names);
        stream::unfold(watch, |mut watch| async move { Some((watch.next().await, watch)) })
    })
    .flatten()
    .boxed()
}

struct PodWatch {
    fleet: Arc<Fleet>,
    told: broadcast::Receiver<Told>,
    /// The nodes whose pods the list still lacks, the next one at the end; `None`: there is no list on its way.
    unlisted: Option<Vec<NodeName>>,
    /// What is told next.
    waiting: VecDeque<PodEvent>,
}

impl PodWatch {
    async fn next(&mut self) -> PodEvent {
        let alive_at = Instant::now() + ALIVE_EVERY;
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return event;
            }
            if self.unlisted.is_some() {
                self.list_on();
                continue;
            }
            if alive_at <= Instant::now() && self.fleet.reachable().is_ok() {
                return PodEvent::Alive;
            }
            let told = match timeout(TICK, self.told.recv()).await {
                Ok(told) => told,
                Err(_) => {
                    // Pods come and go by the time, and tell it when somebody looks.
                    self.fleet.let_time_pass();
                    continue;
                }
            };
            match told {
                Ok(Told::Pods(node)) => {
                    // Out of reach: everything is told when it is back.
                    let pods = self.fleet.pods(&node).unwrap_or_default();
                    let changed = pods.into_iter().map(|pod| PodEvent::Applied(Box::new(pod)));
                    self.waiting.extend(changed);
                }
                Ok(Told::PodGone(uid)) if self.fleet.reachable().is_ok() => return PodEvent::Deleted { uid },
                Ok(Told::Applied(_) | Told::Deleted(_) | Told::PodGone(_)) => {}
                Ok(Told::Lost | Told::Recovered) | Err(RecvError::Lagged(_)) => {
                    let (names, told) = self.fleet.watch_pods();
                    self.told = told;
                    self.list(names);
                }
                // The fleet, which holds the other end, is held here: this cannot be, and waiting is all that is left.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// Begins a list.
    fn list(&mut self, names: Result<Vec<NodeName>, ClusterError>) {
        match names {
            Ok(mut names) => {
                names.reverse();
                self.unlisted = Some(names);
                self.waiting.push_back(PodEvent::Listing);
            }
            Err(error) => {
                self.unlisted = None;
                self.waiting.push_back(PodEvent::Lost(error));
            }
        }
    }

    /// Adds the pods of one more node to the list.
    fn list_on(&mut self) {
        let Some(node) = self.unlisted.as_mut().and_then(Vec::pop) else {
            self.unlisted = None;
            return self.waiting.push_back(PodEvent::Complete);
        };
        match self.fleet.pods(&node) {
            Ok(pods) => self.waiting.push_back(PodEvent::Listed(pods)),
            Err(error) => self.list(Err(error)),
        }
    }
}
