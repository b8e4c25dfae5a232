//! API tokens.

use std::cmp::Reverse;
use std::sync::Arc;

use async_trait::async_trait;
use knm_model::{ApiToken, Timestamp, TokenId};
use knm_ports::{ApiTokens, StorageError};

use crate::{Memory, rounded};

const WHAT: &str = "API token";

pub(crate) struct MemoryApiTokens(pub(crate) Arc<Memory>);

#[async_trait]
impl ApiTokens for MemoryApiTokens {
    async fn list(&self) -> Result<Vec<ApiToken>, StorageError> {
        let mut tokens: Vec<ApiToken> = self.0.open()?.tokens.values().cloned().collect();
        // Those of the same time stay sorted by id.
        tokens.sort_by_key(|token| Reverse(token.created_at));
        Ok(tokens)
    }

    async fn find(&self, id: TokenId) -> Result<Option<ApiToken>, StorageError> {
        Ok(self.0.open()?.tokens.get(&id).cloned())
    }

    async fn insert(&self, token: &ApiToken) -> Result<(), StorageError> {
        let mut tables = self.0.open()?;
        let has_name = |other: &ApiToken| other.revoked.is_none() && other.name == token.name;
        let is_name_taken = token.revoked.is_none() && tables.tokens.values().any(has_name);
        if is_name_taken || tables.tokens.contains_key(&token.id) {
            return Err(StorageError::Conflict { what: WHAT });
        }
        let stored = ApiToken {
            created_at: rounded(token.created_at),
            expires_at: rounded(token.expires_at),
            revoked: token.revoked.as_ref().map(|(at, by)| (rounded(*at), by.clone())),
            last_used_at: token.last_used_at.map(rounded),
            ..token.clone()
        };
        tables.tokens.insert(stored.id, stored);
        Ok(())
    }

    async fn revoke(&self, id: TokenId, at: Timestamp, by: &str) -> Result<(), StorageError> {
        match self.0.open()?.tokens.get_mut(&id) {
            Some(token) => {
                token.revoked.get_or_insert_with(|| (rounded(at), by.to_owned()));
                Ok(())
            }
            None => Err(StorageError::NotFound { what: WHAT }),
        }
    }

    async fn used(&self, id: TokenId, at: Timestamp) -> Result<(), StorageError> {
        if let Some(token) = self.0.open()?.tokens.get_mut(&id) {
            // Any time is later than none.
            token.last_used_at = token.last_used_at.max(Some(rounded(at)));
        }
        Ok(())
    }
}
