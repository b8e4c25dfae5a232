//! Removes operations that ended long ago.

use std::sync::Arc;
use std::time::Duration;

use knm_ports::{Clock, Leases, Operations, StorageError};
use tokio_util::sync::CancellationToken;

use crate::duty::{Duty, Terms, Turn};

const DUTY: Terms = Terms {
    lease: "operation-keeper",
    every: Duration::from_secs(60),
    outlives: Duration::from_secs(180),
};
/// How many operations are removed at once. Each may have thousands of nodes, and of events many times more.
const BATCH: u32 = 20;

/// Removes operations that ended long ago, with all that belongs to them but their audit records. One replica does so at a time.
pub struct OperationKeeper {
    /// The operations.
    pub operations: Arc<dyn Operations>,
    /// Decides which replica does it.
    pub leases: Arc<dyn Leases>,
    /// Tells how long ago they ended.
    pub clock: Arc<dyn Clock>,
    /// This process, under a name that no other one has.
    pub owner: String,
    /// How long operations are kept after their end.
    pub retention: Duration,
}

impl OperationKeeper {
    /// Removes what is old until `shutdown`.
    pub async fn keep(self, shutdown: CancellationToken) {
        let mut duty = Duty::new(DUTY, Arc::clone(&self.leases), self.owner.clone(), shutdown.clone());
        while let Some(turn) = duty.turn().await {
            if turn == Turn::Others {
                continue;
            }
            if let Some(Err(error)) = shutdown.run_until_cancelled(self.round(&duty)).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "old operations could not be removed"
                );
            }
        }
    }

    async fn round(&self, duty: &Duty) -> Result<(), StorageError> {
        let at = self.clock.now().minus(self.retention);
        let (mut removed, mut at_once) = (0, BATCH);
        loop {
            let batch = match self.operations.remove_ended_before(at, at_once).await {
                Ok(batch) => batch,
                // Together they are too large, which they would be the next time, too.
                Err(StorageError::TimedOut { .. }) if 1 < at_once => {
                    at_once = 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            removed += batch;
            if batch < u64::from(at_once) || !duty.goes_on().await {
                break;
            }
        }
        if 0 < removed {
            tracing::info!(operations = removed, "old operations were removed");
        }
        Ok(())
    }
}
