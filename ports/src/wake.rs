//! Wakes.

use futures::stream::BoxStream;
use uuid::Uuid;

/// Tells whoever waits for something in the store when to look. A wake is a hint and no truth: what it is about is read from the store, and
/// whoever must not miss anything looks now and then without one, too.
///
/// A store that several processes share passes wakes on to the others as well as it can.
///
/// Contract cases: `knm_contract::storage`.
#[cfg_attr(feature = "mocks", mockall::automock)]
pub trait Wakes: Send + Sync + 'static {
    /// Listens from now on. It must be called on a tokio runtime.
    ///
    /// - MUST tell [`Wake::Work`] of operations that this process opened, moved because of a wish, or handed over, once that can be read.
    /// - MUST tell [`Wake::Events`] of operations of which this process wrote a step that has events, once they can be read.
    /// - MUST tell nothing of what was not written.
    /// - MUST tell [`Wake::Missed`] to whoever listens too slowly to be told everything.
    fn listen(&self) -> WakeStream;
}

/// A stream of wakes that does not end while the store is open.
pub type WakeStream = BoxStream<'static, Wake>;

/// Why somebody should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// There may be work on this operation, or a wish about it. It has a new event, too, unless it was only handed over.
    Work(Uuid),
    /// This operation has new events.
    Events(Uuid),
    /// Nobody knows what happened: everything may be new.
    Missed,
}
