//! Leases, by the time of the runtime: tests can pause and advance it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use knm_ports::{Leases, StorageError};
use tokio::time::Instant;

use crate::Memory;

pub(crate) struct MemoryLeases(pub(crate) Arc<Memory>);

pub(crate) struct Lease {
    owner: String,
    taken_at: Instant,
    ttl: Duration,
}

#[async_trait]
impl Leases for MemoryLeases {
    async fn hold(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool, StorageError> {
        let mut tables = self.0.open()?;
        let lease = tables.leases.get(name);
        if lease.is_some_and(|lease| lease.owner != owner && lease.taken_at.elapsed() < lease.ttl) {
            return Ok(false);
        }
        let lease = Lease {
            owner: owner.to_owned(),
            taken_at: Instant::now(),
            ttl,
        };
        tables.leases.insert(name.to_owned(), lease);
        Ok(true)
    }

    async fn release(&self, name: &str, owner: &str) -> Result<(), StorageError> {
        let mut tables = self.0.open()?;
        if tables.leases.get(name).is_some_and(|lease| lease.owner == owner) {
            tables.leases.remove(name);
        }
        Ok(())
    }
}
