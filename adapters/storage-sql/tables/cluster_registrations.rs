//! Table `cluster_registrations`.

use async_trait::async_trait;
use knm_model::{ClusterName, ClusterRegistration};
use knm_ports::{ClusterRegistrations, StorageError};
use knm_storage_sql::{ClusterRegistrationRow, WatchedPool, cluster_registration};

use crate::dialect::Driver;

const WHAT: &str = "cluster registration";

const LIST: &str =
    "SELECT name, source, registered_at_unix_ms, changed_at_unix_ms FROM cluster_registrations ORDER BY name";
const FIND: &str =
    "SELECT name, source, registered_at_unix_ms, changed_at_unix_ms FROM cluster_registrations WHERE name = $1";
const INSERT: &str = "INSERT INTO cluster_registrations (name, source, registered_at_unix_ms, changed_at_unix_ms)
    VALUES ($1, $2, $3, $4)";
const REPLACE: &str = "UPDATE cluster_registrations
    SET source = $2, registered_at_unix_ms = $3, changed_at_unix_ms = $4 WHERE name = $1";
const REMOVE: &str = "DELETE FROM cluster_registrations WHERE name = $1";

pub(crate) struct SqlClusterRegistrations {
    pool: WatchedPool<Driver>,
}

impl SqlClusterRegistrations {
    pub(crate) fn new(pool: WatchedPool<Driver>) -> Self {
        Self { pool }
    }

    /// Runs `statement` with the values of `registration` and returns how many rows it changed.
    async fn write(
        &self,
        operation: &'static str,
        statement: &'static str,
        registration: &ClusterRegistration,
    ) -> Result<u64, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire(operation).await?;
                let done = sqlx::query(statement)
                    .bind(registration.name.as_str())
                    .bind(registration.source.as_str())
                    .bind(registration.registered_at.unix_millis())
                    .bind(registration.changed_at.unix_millis())
                    .execute(held.connection())
                    .await;
                Ok(held.release(WHAT, done)?.rows_affected())
            })
            .await
    }
}

#[async_trait]
impl ClusterRegistrations for SqlClusterRegistrations {
    async fn list(&self) -> Result<Vec<ClusterRegistration>, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("cluster_registrations.list").await?;
                let rows = sqlx::query_as::<_, ClusterRegistrationRow>(LIST)
                    .fetch_all(held.connection())
                    .await;
                held.release(WHAT, rows)?
                    .into_iter()
                    .map(cluster_registration)
                    .collect()
            })
            .await
    }

    async fn find(&self, name: &ClusterName) -> Result<Option<ClusterRegistration>, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("cluster_registrations.find").await?;
                let row = sqlx::query_as::<_, ClusterRegistrationRow>(FIND)
                    .bind(name.as_str())
                    .fetch_optional(held.connection())
                    .await;
                held.release(WHAT, row)?.map(cluster_registration).transpose()
            })
            .await
    }

    async fn insert(&self, registration: &ClusterRegistration) -> Result<(), StorageError> {
        self.write("cluster_registrations.insert", INSERT, registration)
            .await
            .map(drop)
    }

    async fn replace(&self, registration: &ClusterRegistration) -> Result<(), StorageError> {
        let rows = self
            .write("cluster_registrations.replace", REPLACE, registration)
            .await?;
        changed(rows)
    }

    async fn remove(&self, name: &ClusterName) -> Result<(), StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("cluster_registrations.remove").await?;
                let done = sqlx::query(REMOVE).bind(name.as_str()).execute(held.connection()).await;
                changed(held.release(WHAT, done)?.rows_affected())
            })
            .await
    }
}

fn changed(rows: u64) -> Result<(), StorageError> {
    if rows == 0 {
        return Err(StorageError::NotFound { what: WHAT });
    }
    Ok(())
}
