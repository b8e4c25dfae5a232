//! Who does something.

/// Who asked for a change. Never invented: what is not known is said to be unknown.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Actor {
    /// The name, as the kind of sign-in tells it; `None` for those who did not sign in.
    pub name: Option<String>,
    /// How we know.
    pub kind: ActorKind,
    /// The network address that the request came from; `None` for what nobody asked for by a request.
    pub address: Option<String>,
}

/// How it is known who somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActorKind {
    /// A caller who did not sign in.
    Anonymous,
    /// The holder of an API token, by the token's name.
    Token,
    /// A user of a cluster, by the cluster's word.
    Kubernetes,
    /// A user of an OpenID provider.
    Oidc,
    /// This service itself: holds that ran out, interrupted work that is taken up again.
    Service,
    /// Somebody who changed the cluster without this service, such as by kubectl.
    Outside,
}

impl Actor {
    /// A caller who did not sign in, at this address.
    #[must_use]
    pub fn anonymous(address: Option<String>) -> Self {
        Self {
            name: None,
            kind: ActorKind::Anonymous,
            address,
        }
    }

    /// A caller who signed in as `name`, at this address.
    #[must_use]
    pub fn signed_in(kind: ActorKind, name: String, address: Option<String>) -> Self {
        Self {
            name: Some(name),
            kind,
            address,
        }
    }

    /// This service itself.
    #[must_use]
    pub fn service() -> Self {
        Self {
            name: None,
            kind: ActorKind::Service,
            address: None,
        }
    }

    /// Somebody who changed the cluster without this service.
    #[must_use]
    pub fn outside() -> Self {
        Self {
            name: None,
            kind: ActorKind::Outside,
            address: None,
        }
    }

    /// What stands on a node for this actor: the name, or the word for those without one.
    #[must_use]
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(self.kind.as_str())
    }
}

impl ActorKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Anonymous,
        Self::Token,
        Self::Kubernetes,
        Self::Oidc,
        Self::Service,
        Self::Outside,
    ];

    /// `anonymous`, `token`, `kubernetes`, `oidc`, `service` or `outside`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Token => "token",
            Self::Kubernetes => "kubernetes",
            Self::Oidc => "oidc",
            Self::Service => "service",
            Self::Outside => "outside",
        }
    }

    /// Reads [`ActorKind::as_str`] back, `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}
