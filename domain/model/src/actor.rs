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
    pub const ALL: [Self; 3] = [Self::Anonymous, Self::Service, Self::Outside];

    /// `anonymous`, `service` or `outside`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
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
