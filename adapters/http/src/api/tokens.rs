//! API tokens: who may do what.

use std::sync::Arc;

use knm_model::{Caller, NewToken};
use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::Path;

use super::Group;
use crate::Shared;
use crate::answer::{Deleted, MadeOnce, Ready};
use crate::body::Written;
use crate::problem::{Failure, OfAudit, OfMaking, OfStored, Problem};
use crate::view::{MadeTokenView, NewTokenBody, TokenListView};

pub(crate) struct TokensApi;

#[OpenApi]
impl TokensApi {
    /// List API tokens
    ///
    /// All of them, the latest first, never with a secret.
    #[oai(
        path = "/api/v1/tokens",
        method = "get",
        tag = "Group::Tokens",
        operation_id = "listTokens"
    )]
    async fn list(&self, shared: Data<&Arc<Shared>>) -> Result<Ready<TokenListView>, Failure<OfAudit>> {
        let tokens = shared.tokens.list().await?;
        Ok(Ready::of(&TokenListView::of(&tokens, shared.health.now())))
    }

    /// Make an API token
    ///
    /// The answer has the secret, this once: only a hash of it is kept. Nobody makes a token that allows more than they may do themselves. There
    /// is no `Idempotency-Key` here, because the answer cannot be kept.
    #[oai(
        path = "/api/v1/tokens",
        method = "post",
        tag = "Group::Tokens",
        operation_id = "createToken"
    )]
    async fn make(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
        body: Written<NewTokenBody>,
    ) -> Result<MadeOnce<MadeTokenView>, Failure<OfMaking>> {
        let now = shared.health.now();
        let new =
            NewToken::parse(&body.0.name, &body.0.grant(), body.0.expires_in_days, now).map_err(Problem::invalid)?;
        let made = shared.tokens.make(new, &caller).await?;
        Ok(MadeOnce::new(&MadeTokenView::of(&made, now)))
    }

    /// Revoke an API token
    ///
    /// For good: here at once, on other replicas within two seconds. Streams that were opened with it end soon after. One that is revoked
    /// already stays so.
    #[oai(
        path = "/api/v1/tokens/:id",
        method = "delete",
        tag = "Group::Tokens",
        operation_id = "revokeToken"
    )]
    async fn revoke(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
        /// The token's id.
        id: Path<String>,
    ) -> Result<Deleted, Failure<OfStored>> {
        shared.tokens.revoke(&id.0, caller.actor.label()).await?;
        Ok(Deleted)
    }
}
