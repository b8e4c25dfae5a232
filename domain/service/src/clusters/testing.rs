//! Asks a cluster whether the access to it works.

use std::time::Duration;

use futures::StreamExt;
use knm_ports::{ClusterError, ClusterGateway, NodeEvent, chain};
use tokio::time::{Instant, timeout};

use crate::inventory::UnseenReason;

/// How long each answer may take.
const LIMIT: Duration = Duration::from_secs(10);
const UNTRUSTED: &str = "the certificate of the cluster is not trusted: the authority that was given did not sign it, or it is for another name";

/// What came of asking a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessTest {
    /// Whether its API server tells its version.
    pub version: AccessCheck,
    /// Whether it lets us list its nodes.
    pub nodes: AccessCheck,
}

/// What came of one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessCheck {
    /// What was told, or why nothing was: a sentence without anything that the cluster said.
    pub answer: Result<String, &'static str>,
    /// How long that took.
    pub took: Duration,
}

impl AccessTest {
    /// Whether everything worked.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.version.answer.is_ok() && self.nodes.answer.is_ok()
    }
}

pub(super) async fn test(gateway: &dyn ClusterGateway) -> AccessTest {
    let (version, nodes) = tokio::join!(
        check(gateway.server_version()),
        check(async {
            let mut events = gateway.watch_nodes();
            loop {
                match events.next().await {
                    Some(NodeEvent::Replaced(nodes)) => return Ok(nodes.len().to_string()),
                    Some(NodeEvent::Lost(error)) => return Err(error),
                    Some(NodeEvent::Applied(_) | NodeEvent::Deleted(_) | NodeEvent::Alive) => {}
                    None => {
                        return Err(ClusterError::Unreadable {
                            message: "the watch of its nodes ended by itself".to_owned(),
                        });
                    }
                }
            }
        })
    );
    AccessTest { version, nodes }
}

async fn check(asking: impl Future<Output = Result<String, ClusterError>>) -> AccessCheck {
    let started = Instant::now();
    let answer = timeout(LIMIT, asking)
        .await
        .unwrap_or(Err(ClusterError::TimedOut { limit: LIMIT }));
    let answer = answer.map_err(|error| {
        tracing::debug!(error = &error as &dyn std::error::Error, "the test of a cluster failed");
        match chain(&error).contains("invalid peer certificate") {
            true => UNTRUSTED,
            false => UnseenReason::from(&error).sentence(),
        }
    });
    AccessCheck {
        answer,
        took: started.elapsed(),
    }
}
