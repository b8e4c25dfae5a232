//! Table `registered_clusters`.

use async_trait::async_trait;
use knm_model::{ClusterName, RegisteredCluster, SealedSecret};
use knm_ports::{RegisteredClusters, StorageError};
use knm_storage_sql::{RegisteredClusterRow, WatchedPool, registered_cluster};
use uuid::Uuid;

use crate::dialect::Driver;

const WHAT: &str = "registered cluster";

const LIST: &str = "SELECT name, revision, key_id, nonce_bytes, ciphertext_bytes, server, user_name,
        expires_at_unix_ms, registered_at_unix_ms, changed_at_unix_ms
    FROM registered_clusters ORDER BY name";
const FIND: &str = "SELECT name, revision, key_id, nonce_bytes, ciphertext_bytes, server, user_name,
        expires_at_unix_ms, registered_at_unix_ms, changed_at_unix_ms
    FROM registered_clusters WHERE name = $1";
const COUNT: &str = "SELECT count(*) FROM registered_clusters";
const INSERT: &str =
    "INSERT INTO registered_clusters (name, revision, key_id, nonce_bytes, ciphertext_bytes, server, user_name,
        expires_at_unix_ms, registered_at_unix_ms, changed_at_unix_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const REPLACE: &str = "UPDATE registered_clusters
    SET revision = $3, key_id = $4, nonce_bytes = $5, ciphertext_bytes = $6, server = $7, user_name = $8,
        expires_at_unix_ms = $9, changed_at_unix_ms = $10
    WHERE name = $1 AND revision = $2";
const RESEAL: &str = "UPDATE registered_clusters SET key_id = $4, nonce_bytes = $5, ciphertext_bytes = $6
    WHERE name = $1 AND revision = $2 AND nonce_bytes = $3";
const REMOVE: &str = "DELETE FROM registered_clusters WHERE name = $1 AND revision = $2";

pub(crate) struct SqlRegisteredClusters {
    pool: WatchedPool<Driver>,
}

impl SqlRegisteredClusters {
    pub(crate) fn new(pool: WatchedPool<Driver>) -> Self {
        Self { pool }
    }

    /// What it means that a statement changed so many rows that was about one revision of a cluster.
    async fn changed(&self, rows: u64, name: &ClusterName) -> Result<(), StorageError> {
        if 0 < rows {
            return Ok(());
        }
        Err(match self.find(name).await? {
            Some(_) => StorageError::Conflict { what: WHAT },
            None => StorageError::NotFound { what: WHAT },
        })
    }
}

#[async_trait]
impl RegisteredClusters for SqlRegisteredClusters {
    async fn list(&self) -> Result<Vec<RegisteredCluster>, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("registered_clusters.list").await?;
                let rows = sqlx::query_as::<_, RegisteredClusterRow>(LIST)
                    .fetch_all(held.connection())
                    .await;
                held.release(WHAT, rows)?.into_iter().map(registered_cluster).collect()
            })
            .await
    }

    async fn find(&self, name: &ClusterName) -> Result<Option<RegisteredCluster>, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("registered_clusters.find").await?;
                let row = sqlx::query_as::<_, RegisteredClusterRow>(FIND)
                    .bind(name.as_str())
                    .fetch_optional(held.connection())
                    .await;
                held.release(WHAT, row)?.map(registered_cluster).transpose()
            })
            .await
    }

    async fn insert(&self, cluster: &RegisteredCluster, most: u32) -> Result<bool, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("registered_clusters.insert").await?;
                let counted: Result<i64, sqlx::Error> = sqlx::query_scalar(COUNT).fetch_one(held.connection()).await;
                let count = match counted {
                    Ok(count) => count,
                    Err(error) => return held.release(WHAT, Err(error)),
                };
                if i64::from(most) <= count {
                    held.release(WHAT, Ok(()))?;
                    let taken = self.find(&cluster.name).await?;
                    return match taken {
                        Some(_) => Err(StorageError::Conflict { what: WHAT }),
                        None => Ok(false),
                    };
                }
                let done = sqlx::query(INSERT)
                    .bind(cluster.name.as_str())
                    .bind(cluster.revision.to_string())
                    .bind(cluster.sealed.key_id.as_str())
                    .bind(cluster.sealed.nonce.as_slice())
                    .bind(cluster.sealed.ciphertext.as_slice())
                    .bind(cluster.server.as_str())
                    .bind(cluster.user.as_str())
                    .bind(cluster.expires_at.map(knm_model::Timestamp::unix_millis))
                    .bind(cluster.registered_at.unix_millis())
                    .bind(cluster.changed_at.unix_millis())
                    .execute(held.connection())
                    .await;
                held.release(WHAT, done).map(|_| true)
            })
            .await
    }

    async fn replace(&self, cluster: &RegisteredCluster, known: Uuid) -> Result<(), StorageError> {
        let rows = self
            .pool
            .within_deadline(async {
                let mut held = self.pool.acquire("registered_clusters.replace").await?;
                let done = sqlx::query(REPLACE)
                    .bind(cluster.name.as_str())
                    .bind(known.to_string())
                    .bind(cluster.revision.to_string())
                    .bind(cluster.sealed.key_id.as_str())
                    .bind(cluster.sealed.nonce.as_slice())
                    .bind(cluster.sealed.ciphertext.as_slice())
                    .bind(cluster.server.as_str())
                    .bind(cluster.user.as_str())
                    .bind(cluster.expires_at.map(knm_model::Timestamp::unix_millis))
                    .bind(cluster.changed_at.unix_millis())
                    .execute(held.connection())
                    .await;
                Ok(held.release(WHAT, done)?.rows_affected())
            })
            .await?;
        self.changed(rows, &cluster.name).await
    }

    async fn reseal(&self, from: &RegisteredCluster, to: &SealedSecret) -> Result<bool, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("registered_clusters.reseal").await?;
                let done = sqlx::query(RESEAL)
                    .bind(from.name.as_str())
                    .bind(from.revision.to_string())
                    .bind(from.sealed.nonce.as_slice())
                    .bind(to.key_id.as_str())
                    .bind(to.nonce.as_slice())
                    .bind(to.ciphertext.as_slice())
                    .execute(held.connection())
                    .await;
                Ok(0 < held.release(WHAT, done)?.rows_affected())
            })
            .await
    }

    async fn remove(&self, name: &ClusterName, known: Uuid) -> Result<(), StorageError> {
        let rows = self
            .pool
            .within_deadline(async {
                let mut held = self.pool.acquire("registered_clusters.remove").await?;
                let done = sqlx::query(REMOVE)
                    .bind(name.as_str())
                    .bind(known.to_string())
                    .execute(held.connection())
                    .await;
                Ok(held.release(WHAT, done)?.rows_affected())
            })
            .await?;
        self.changed(rows, name).await
    }
}
