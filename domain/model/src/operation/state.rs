//! How far operations and their nodes are, and how they may move on.

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OperationState {
    /// Accepted; nobody works on it yet.
    Queued,
    /// Under way.
    Running,
    /// Nothing new is begun until somebody resumes it.
    Paused,
    /// It is being stopped.
    Cancelling,
    /// It was stopped.
    Cancelled,
    /// It worked for all nodes that are still there.
    Succeeded,
    /// It worked for no node.
    Failed,
    /// It worked for some nodes.
    PartlyFailed,
}

/// How far a node of an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TargetState {
    /// Not begun.
    Waiting,
    /// Under way.
    Running,
    /// It worked.
    Succeeded,
    /// It did not work.
    Failed,
    /// The node vanished.
    Skipped,
    /// The operation was cancelled before it was done.
    Cancelled,
}

/// What somebody may want of an operation that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wish {
    /// Stop it for good.
    Cancel,
    /// Begin nothing new.
    Pause,
    /// Go on.
    Resume,
}

/// Somebody wants of an operation what it cannot do in its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an operation that is {} cannot be {}", state.as_str(), wish.participle())]
pub struct RefusedWish {
    /// What was wanted.
    pub wish: Wish,
    /// The state.
    pub state: OperationState,
}

impl OperationState {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Running,
        Self::Paused,
        Self::Cancelling,
        Self::Cancelled,
        Self::Succeeded,
        Self::Failed,
        Self::PartlyFailed,
    ];

    /// `queued`, `running`, `paused`, `cancelling`, `cancelled`, `succeeded`, `failed` or `partly_failed`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::PartlyFailed => "partly_failed",
        }
    }

    /// Reads [`OperationState::as_str`] back, `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether an operation may move from here to `next`.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Queued => matches!(next, Self::Running | Self::Paused | Self::Cancelling),
            Self::Running => matches!(
                next,
                Self::Paused | Self::Cancelling | Self::Succeeded | Self::Failed | Self::PartlyFailed
            ),
            Self::Paused => matches!(next, Self::Running | Self::Cancelling),
            Self::Cancelling => next == Self::Cancelled,
            Self::Cancelled | Self::Succeeded | Self::Failed | Self::PartlyFailed => false,
        }
    }

    /// Whether nothing more happens.
    #[must_use]
    pub fn is_ended(self) -> bool {
        match self {
            Self::Queued | Self::Running | Self::Paused | Self::Cancelling => false,
            Self::Cancelled | Self::Succeeded | Self::Failed | Self::PartlyFailed => true,
        }
    }

    /// Whether there is something to do for a replica.
    #[must_use]
    pub fn wants_work(self) -> bool {
        match self {
            Self::Queued | Self::Running | Self::Cancelling => true,
            Self::Paused | Self::Cancelled | Self::Succeeded | Self::Failed | Self::PartlyFailed => false,
        }
    }

    /// Where `wish` moves an operation that is here; the same state if it is as wished already.
    ///
    /// # Errors
    /// [`RefusedWish`] if it cannot be done.
    pub fn wished(self, wish: Wish) -> Result<Self, RefusedWish> {
        let refused = RefusedWish { wish, state: self };
        let (wanted, is_so) = match wish {
            Wish::Cancel => (Self::Cancelling, matches!(self, Self::Cancelling | Self::Cancelled)),
            Wish::Pause => (Self::Paused, self == Self::Paused),
            Wish::Resume => (Self::Running, matches!(self, Self::Running | Self::Queued)),
        };
        match (is_so, self.may_become(wanted)) {
            (true, _) => Ok(self),
            (false, true) => Ok(wanted),
            (false, false) => Err(refused),
        }
    }
}

impl TargetState {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Waiting,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Skipped,
        Self::Cancelled,
    ];

    /// `waiting`, `running`, `succeeded`, `failed`, `skipped` or `cancelled`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads [`TargetState::as_str`] back, `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether nothing more happens to it.
    #[must_use]
    pub fn is_ended(self) -> bool {
        match self {
            Self::Waiting | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Skipped | Self::Cancelled => true,
        }
    }
}

impl Wish {
    /// `cancel`, `pause` or `resume`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    fn participle(self) -> &'static str {
        match self {
            Self::Cancel => "cancelled",
            Self::Pause => "paused",
            Self::Resume => "resumed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::OperationState::*;
    use super::*;

    #[test]
    fn every_move_is_legal_or_not() {
        let legal = [
            (Queued, Running),
            (Queued, Paused),
            (Queued, Cancelling),
            (Running, Paused),
            (Running, Cancelling),
            (Running, Succeeded),
            (Running, Failed),
            (Running, PartlyFailed),
            (Paused, Running),
            (Paused, Cancelling),
            (Cancelling, Cancelled),
        ];
        for from in OperationState::ALL {
            for to in OperationState::ALL {
                assert_eq!(from.may_become(to), legal.contains(&(from, to)), "{from:?} to {to:?}");
            }
            assert!(!from.is_ended() || !from.wants_work());
        }
    }

    #[test]
    fn every_state_can_be_left_but_those_at_the_end() {
        for state in OperationState::ALL {
            let leaves = OperationState::ALL.into_iter().any(|next| state.may_become(next));
            assert_eq!(leaves, !state.is_ended(), "{state:?}");
        }
    }

    #[test]
    fn wishes_move_an_operation_or_are_refused_with_the_reason() {
        let cases = [
            (Queued, [Some(Cancelling), Some(Paused), Some(Queued)]),
            (Running, [Some(Cancelling), Some(Paused), Some(Running)]),
            (Paused, [Some(Cancelling), Some(Paused), Some(Running)]),
            (Cancelling, [Some(Cancelling), None, None]),
            (Cancelled, [Some(Cancelled), None, None]),
            (Succeeded, [None, None, None]),
            (Failed, [None, None, None]),
            (PartlyFailed, [None, None, None]),
        ];
        for (state, expected) in cases {
            for (wish, expected) in [Wish::Cancel, Wish::Pause, Wish::Resume].into_iter().zip(expected) {
                assert_eq!(state.wished(wish).ok(), expected, "{wish:?} in {state:?}");
            }
        }
        let refused = Succeeded.wished(Wish::Pause).unwrap_err();
        assert_eq!(refused.to_string(), "an operation that is succeeded cannot be paused");
    }

    #[test]
    fn words_are_read_back() {
        for state in OperationState::ALL {
            assert_eq!(OperationState::parse(state.as_str()), Some(state));
        }
        for state in TargetState::ALL {
            assert_eq!(TargetState::parse(state.as_str()), Some(state));
        }
        assert_eq!((OperationState::parse("dead"), TargetState::parse("")), (None, None));
    }
}
