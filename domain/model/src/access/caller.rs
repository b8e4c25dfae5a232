//! Somebody who signed in.

use std::sync::Arc;

use super::{Access, Authority};
use crate::Actor;

/// Who sent a request, and what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who, for the audit log and for people.
    pub actor: Actor,
    /// By what they may do it, so that it can be asked again later.
    pub authority: Authority,
    /// What they may do now.
    pub access: Arc<Access>,
}

impl Caller {
    /// Somebody at this address where nobody signs in: everybody may do everything.
    #[must_use]
    pub fn open(address: Option<String>) -> Self {
        Self {
            actor: Actor::anonymous(address),
            authority: Authority::Open,
            access: Arc::new(Access::unlimited()),
        }
    }

    /// Nobody, who may do nothing.
    #[must_use]
    pub fn nobody() -> Self {
        Self {
            actor: Actor::anonymous(None),
            authority: Authority::Open,
            access: Arc::new(Access::default()),
        }
    }

    /// This service itself, by one of its parts.
    #[must_use]
    pub fn service(actor: Actor) -> Self {
        Self {
            actor,
            authority: Authority::Service,
            access: Arc::new(Access::unlimited()),
        }
    }

    /// What tells this caller from all others, whatever they call themselves.
    #[must_use]
    pub fn identity(&self) -> String {
        match &self.authority {
            Authority::Open => self.actor.label().to_owned(),
            Authority::Service => "service".to_owned(),
            Authority::Token(id) => format!("token:{id}"),
            // Somebody else may get the name later. The length tells where the id ends, whatever is in it.
            Authority::Kubernetes(identity) => {
                format!("kubernetes:{}:{}:{}", identity.uid.len(), identity.uid, identity.user)
            }
            Authority::Oidc { subject, .. } => format!("oidc:{subject}"),
        }
    }
}
