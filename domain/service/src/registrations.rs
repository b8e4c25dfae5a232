//! Records which clusters this service was set up with.

use std::sync::Arc;

use knm_model::{ClusterName, ClusterRegistration, ClusterSource};
use knm_ports::{Clock, ClusterRegistrations, StorageError};

/// How often another replica may get in between before that is an error.
const ATTEMPTS: usize = 3;

/// Keeps the stored registrations in step with the configuration.
pub struct Registrations {
    store: Arc<dyn ClusterRegistrations>,
    clock: Arc<dyn Clock>,
}

impl Registrations {
    /// Keeps them in `store`.
    pub fn new(store: Arc<dyn ClusterRegistrations>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Records that these clusters are configured and returns what is stored of each: a new one is added, one whose source changed
    /// is changed and keeps the time of its first registration, any other is left alone. Replicas may do so at the same time.
    ///
    /// # Errors
    /// The first [`StorageError`] that is not another replica doing the same.
    pub async fn record(
        &self,
        clusters: &[(ClusterName, ClusterSource)],
    ) -> Result<Vec<ClusterRegistration>, StorageError> {
        let mut recorded = Vec::with_capacity(clusters.len());
        for (name, source) in clusters {
            recorded.push(self.record_one(name, *source).await?);
        }
        Ok(recorded)
    }

    async fn record_one(&self, name: &ClusterName, source: ClusterSource) -> Result<ClusterRegistration, StorageError> {
        for _ in 1..ATTEMPTS {
            match self.try_record(name, source).await {
                Err(StorageError::Conflict { .. } | StorageError::NotFound { .. }) => {}
                settled => return settled,
            }
        }
        self.try_record(name, source).await
    }

    async fn try_record(&self, name: &ClusterName, source: ClusterSource) -> Result<ClusterRegistration, StorageError> {
        let now = self.clock.now();
        match self.store.find(name).await? {
            None => {
                let registration = ClusterRegistration {
                    name: name.clone(),
                    source,
                    registered_at: now,
                    changed_at: now,
                };
                self.store.insert(&registration).await?;
                Ok(registration)
            }
            Some(known) if known.source == source => Ok(known),
            Some(known) => {
                let registration = ClusterRegistration {
                    source,
                    changed_at: now,
                    ..known
                };
                self.store.replace(&registration).await?;
                Ok(registration)
            }
        }
    }
}
