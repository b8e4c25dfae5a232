//! Tokens of an OpenID provider.

use std::sync::Arc;

use knm_model::{Access, Actor, ActorKind, Authority, Caller, ClaimRules, Timestamp};
use knm_ports::{IdentityTokenError, IdentityTokens};
use serde_json::{Map, Value};

use super::{Found, UnknowableError, is_name};

/// Signs in whoever an OpenID provider knows.
pub struct OidcSignIn {
    /// Reads the tokens.
    pub tokens: Arc<dyn IdentityTokens>,
    /// The claim that has the name which people know.
    pub name_claim: String,
    /// What the claims allow.
    pub rules: ClaimRules,
}

impl OidcSignIn {
    /// What claims allow, by the rules as they are now.
    pub(super) fn access(&self, claims: &Map<String, Value>) -> Access {
        self.rules.access(claims)
    }

    /// Whether a token says to be of the provider, so that it is nobody else's business.
    pub(super) fn is_meant(&self, token: &str) -> bool {
        self.tokens.names_issuer(token)
    }

    /// Who holds a token.
    pub(super) async fn look(
        &self,
        token: &str,
        address: Option<String>,
        now: Timestamp,
    ) -> Result<Found, UnknowableError> {
        let claims = match self.tokens.verify(token, now).await {
            Ok(claims) => claims,
            Err(IdentityTokenError::Refused { why }) => return Ok(Found::Nobody(why)),
            Err(error @ IdentityTokenError::Unavailable { .. }) => return Err(UnknowableError::Provider(error)),
        };
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str).filter(|text| is_name(text));
        let Some(subject) = text("sub") else {
            return Ok(Found::Nobody("the token has no usable claim sub".to_owned()));
        };
        let Some(name) = text(&self.name_claim) else {
            let why = format!(
                "the token has no usable claim {}, which auth.oidc_name_claim names",
                self.name_claim
            );
            return Ok(Found::Nobody(why));
        };
        Ok(Found::Caller(Caller {
            actor: Actor::signed_in(ActorKind::Oidc, name.to_owned(), address),
            authority: Authority::Oidc {
                subject: subject.to_owned(),
                claims: self.rules.relevant(&claims),
                // Whole seconds are enough, and a time that is too far away is the last one.
                exp: claims.get("exp").and_then(Value::as_f64).map(|end| end as i64),
            },
            access: Arc::new(self.access(&claims)),
        }))
    }
}
