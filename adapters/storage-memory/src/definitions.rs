//! Templates and bindings.

use std::sync::Arc;

use async_trait::async_trait;
use knm_model::{Definition, DefinitionKind, DefinitionName};
use knm_ports::{Definitions, StorageError};

use crate::{Memory, rounded};

pub(crate) struct MemoryDefinitions(pub(crate) Arc<Memory>);

#[async_trait]
impl Definitions for MemoryDefinitions {
    async fn add(&self, definition: &Definition) -> Result<(), StorageError> {
        let key = (definition.kind, definition.name.clone(), definition.version);
        let mut tables = self.0.open()?;
        if tables.definitions.contains_key(&key) {
            return Err(StorageError::Conflict { what: "definition" });
        }
        let stored = Definition {
            changed_at: rounded(definition.changed_at),
            ..definition.clone()
        };
        tables.definitions.insert(key, stored);
        Ok(())
    }

    async fn list(&self, kind: DefinitionKind) -> Result<Vec<Definition>, StorageError> {
        let tables = self.0.open()?;
        let mut latest: Vec<Definition> = Vec::new();
        // Sorted by name and version: the last one of each name is its latest.
        for stored in tables.definitions.values().filter(|stored| stored.kind == kind) {
            match latest.last_mut() {
                Some(last) if last.name == stored.name => *last = stored.clone(),
                _ => latest.push(stored.clone()),
            }
        }
        latest.retain(|definition| definition.content.is_some());
        Ok(latest)
    }

    async fn versions(&self, kind: DefinitionKind, name: &DefinitionName) -> Result<Vec<Definition>, StorageError> {
        let tables = self.0.open()?;
        let versions = tables
            .definitions
            .range((kind, name.clone(), 0)..=(kind, name.clone(), u32::MAX));
        Ok(versions.map(|(_, stored)| stored.clone()).rev().collect())
    }
}
