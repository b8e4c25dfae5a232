//! Table `definition_versions`.

use async_trait::async_trait;
use knm_model::{Definition, DefinitionKind, DefinitionName};
use knm_ports::{Definitions, StorageError};
use knm_storage_sql::{DefinitionRow, WatchedPool, definition, json};

use crate::dialect::Driver;

const WHAT: &str = "definition";

const ADD: &str = "INSERT INTO definition_versions (kind, name, version, content_json, changed_at_unix_ms, changed_by)
    VALUES ($1, $2, $3, $4, $5, $6)";
const LIST: &str = "SELECT kind, name, version, content_json, changed_at_unix_ms, changed_by FROM definition_versions AS latest
    WHERE kind = $1 AND content_json IS NOT NULL AND version =
        (SELECT max(version) FROM definition_versions AS any_version WHERE any_version.kind = $1 AND any_version.name = latest.name)
    ORDER BY name";
const VERSIONS: &str =
    "SELECT kind, name, version, content_json, changed_at_unix_ms, changed_by FROM definition_versions
    WHERE kind = $1 AND name = $2 ORDER BY version DESC";

pub(crate) struct SqlDefinitions {
    pool: WatchedPool<Driver>,
}

impl SqlDefinitions {
    pub(crate) fn new(pool: WatchedPool<Driver>) -> Self {
        Self { pool }
    }
}

#[async_trait]
impl Definitions for SqlDefinitions {
    async fn add(&self, definition: &Definition) -> Result<(), StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("definition_versions.add").await?;
                let done = sqlx::query(ADD)
                    .bind(definition.kind.as_str())
                    .bind(definition.name.as_str())
                    .bind(i64::from(definition.version))
                    .bind(definition.content.as_ref().map(json))
                    .bind(definition.changed_at.unix_millis())
                    .bind(definition.changed_by.as_str())
                    .execute(held.connection())
                    .await;
                held.release(WHAT, done).map(drop)
            })
            .await
    }

    async fn list(&self, kind: DefinitionKind) -> Result<Vec<Definition>, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("definition_versions.list").await?;
                let rows = sqlx::query_as::<_, DefinitionRow>(LIST)
                    .bind(kind.as_str())
                    .fetch_all(held.connection())
                    .await;
                held.release(WHAT, rows)?.into_iter().map(definition).collect()
            })
            .await
    }

    async fn versions(&self, kind: DefinitionKind, name: &DefinitionName) -> Result<Vec<Definition>, StorageError> {
        self.pool
            .within_deadline(async {
                let mut held = self.pool.acquire("definition_versions.versions").await?;
                let rows = sqlx::query_as::<_, DefinitionRow>(VERSIONS)
                    .bind(kind.as_str())
                    .bind(name.as_str())
                    .fetch_all(held.connection())
                    .await;
                held.release(WHAT, rows)?.into_iter().map(definition).collect()
            })
            .await
    }
}
