//! What exactly one replica does, again and again.

use std::sync::Arc;
use std::time::Duration;

use knm_ports::Leases;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// The pause between two parts of a long round: others want to use the database, too.
const BREATH: Duration = Duration::from_millis(200);

/// Which duty it is, and how it is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// The lease that decides who has it.
    pub(crate) lease: &'static str,
    /// How often it is done.
    pub(crate) every: Duration,
    /// How long it outlives the replica that had it.
    pub(crate) outlives: Duration,
}

/// A duty that this replica has whenever it has its lease.
pub(crate) struct Duty {
    terms: Terms,
    leases: Arc<dyn Leases>,
    owner: String,
    shutdown: CancellationToken,
    rounds: Interval,
}

/// Whose round it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// This replica does it.
    Ours,
    /// Another one does, or nobody can tell.
    Others,
}

impl Duty {
    /// A duty under the name `owner`, which no other replica has, until `shutdown`.
    pub(crate) fn new(terms: Terms, leases: Arc<dyn Leases>, owner: String, shutdown: CancellationToken) -> Self {
        let mut rounds = tokio::time::interval(terms.every);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            terms,
            leases,
            owner,
            shutdown,
            rounds,
        }
    }

    /// Waits for the next round. `None`: there are no more of them, and the duty is given to others.
    pub(crate) async fn turn(&mut self) -> Option<Turn> {
        if self.shutdown.run_until_cancelled(self.rounds.tick()).await.is_some() {
            return Some(self.hold().await);
        }
        // Another replica need not wait until it runs out. A store that is closed already has no use for that.
        let _ = self.leases.release(self.terms.lease, &self.owner).await;
        None
    }

    /// Takes a breath within a long round; whether it goes on then.
    pub(crate) async fn goes_on(&self) -> bool {
        let breath = self.shutdown.run_until_cancelled(tokio::time::sleep(BREATH)).await;
        breath.is_some() && self.hold().await == Turn::Ours
    }

    /// Whether it is still this replica's in the middle of a round.
    pub(crate) async fn is_still_ours(&self) -> bool {
        !self.shutdown.is_cancelled() && self.hold().await == Turn::Ours
    }

    async fn hold(&self) -> Turn {
        let Terms { lease, outlives, .. } = self.terms;
        match self.leases.hold(lease, &self.owner, outlives).await {
            Ok(true) => Turn::Ours,
            Ok(false) => Turn::Others,
            Err(error) => {
                // The database is away or not migrated, which its own checks tell.
                tracing::debug!(
                    lease,
                    error = &error as &dyn std::error::Error,
                    "the lease of a duty could not be taken"
                );
                Turn::Others
            }
        }
    }
}
