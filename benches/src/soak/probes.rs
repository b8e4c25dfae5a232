//! The same few requests over and over: how long they take tells how the service is.

use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::time::Instant;

use super::load::{CLUSTER, Load};
use crate::caller::{Caller, Question};

/// What is probed.
pub(super) const NAMES: [&str; 4] = ["live", "page", "node", "write"];
/// How long one waits between two rounds.
pub(super) const PAUSE: Duration = Duration::from_millis(250);
/// A node of the control plane, which the simulation lets be.
const NODE: &str = "control-plane-00000";

/// Whoever probes.
pub(super) struct Prober {
    caller: Caller,
    round: u64,
}

impl Prober {
    pub(super) fn new(load: &Load) -> Self {
        Self {
            caller: load.caller(&load.tokens.operator),
            round: 0,
        }
    }

    /// Asks each once; the milliseconds that each took, `None` where it failed.
    pub(super) async fn round(&mut self, load: &Load) -> [Option<f64>; 4] {
        self.round += 1;
        let label = json!({"set": {"soak-probe": format!("round-{}", self.round % 1_000)}});
        let node = format!("{CLUSTER}/nodes/{NODE}");
        let questions = [
            Question::get("/health/live"),
            Question::get(format!("{CLUSTER}/nodes?limit=50")),
            Question::get(&node),
            Question::of(Method::PATCH, format!("{node}/labels"), Some(label)),
        ];
        let mut took = [None; 4];
        for (question, took) in questions.iter().zip(&mut took) {
            let start = Instant::now();
            if load.ask(&mut self.caller, "probes", question, &[200]).await.is_some() {
                *took = Some(start.elapsed().as_secs_f64() * 1_000.0);
            }
        }
        took
    }
}
