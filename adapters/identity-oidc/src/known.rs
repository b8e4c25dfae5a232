//! The keys that are known, and the one task that asks the issuer for them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::fetch::{FetchError, Issuer};
use crate::keys::Keys;

/// How old keys get before the issuer is asked for those of now.
const REFRESH_EVERY: Duration = Duration::from_secs(600);
/// After how long the issuer is asked again if it did not tell.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// How long keys count without a word of the issuer: it may have withdrawn them since, and whoever can keep it away from here must not win by that.
const COUNT_FOR: Duration = Duration::from_secs(24 * 3_600);
/// The issuer is left alone for that long after each question, whoever wants to know: tokens with keys that nobody has are easily made.
const REST: Duration = Duration::from_secs(10);

/// The keys of an issuer, as far as they are known. The task that asks for them ends with this value.
pub(crate) struct KnownKeys {
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
    _asking: JoinSet<()>,
}

#[derive(Clone)]
struct State {
    phase: Phase,
    /// How often the issuer was asked.
    attempts: u64,
    /// Those of the last time that it told, and when that was.
    keys: Option<(Arc<Keys>, Instant)>,
    /// Why it did not tell the last time.
    failure: Option<Arc<FetchError>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It is being asked.
    Asking,
    /// It was just asked and is left alone.
    Resting,
    /// It can be asked.
    Ready,
}

impl State {
    /// The keys that count now.
    fn counting(&self) -> Option<Arc<Keys>> {
        let (keys, since) = self.keys.as_ref()?;
        (since.elapsed() < COUNT_FOR).then(|| Arc::clone(keys))
    }
}

/// Nobody asks the issuer any more: the process ends.
#[derive(Debug, thiserror::Error)]
#[error("the issuer is not asked for its keys any more")]
struct Ended;

impl KnownKeys {
    /// Asks for the keys now, and then as often as it takes.
    pub(crate) fn of(issuer: Issuer) -> Self {
        let (told, state) = watch::channel(State {
            phase: Phase::Asking,
            attempts: 0,
            keys: None,
            failure: None,
        });
        let wanted = Arc::new(Notify::new());
        let mut asking = JoinSet::new();
        asking.spawn(ask(issuer, told, Arc::clone(&wanted)));
        Self {
            state,
            wanted,
            _asking: asking,
        }
    }

    /// The keys that are known; if there are none, those of a question that is waited for.
    pub(crate) async fn now(&self) -> Result<Arc<Keys>, Box<dyn std::error::Error + Send + Sync>> {
        let known = self.state.borrow().counting();
        match known {
            Some(keys) => Ok(keys),
            None => self.told(self.asked().await),
        }
    }

    /// The keys after another question, if the issuer can be asked: those known until now did not suffice.
    pub(crate) async fn later(&self) -> Result<Arc<Keys>, Box<dyn std::error::Error + Send + Sync>> {
        self.told(self.asked().await)
    }

    fn told(&self, state: State) -> Result<Arc<Keys>, Box<dyn std::error::Error + Send + Sync>> {
        match (state.counting(), state.failure) {
            (Some(keys), _) => Ok(keys),
            (None, Some(failure)) => Err(Box::new(failure)),
            (None, None) => Err(Box::new(Ended)),
        }
    }

    /// What is known after the question that is under way, or after another one; what is known now while the issuer is left alone.
    async fn asked(&self) -> State {
        let mut state = self.state.clone();
        let seen = state.borrow_and_update().clone();
        match seen.phase {
            Phase::Resting => return seen,
            Phase::Ready => self.wanted.notify_one(),
            Phase::Asking => {}
        }
        let newer = state.wait_for(|state| seen.attempts < state.attempts).await;
        newer.map_or(seen, |state| state.clone())
    }
}

/// The only one who asks the issuer. It does not depend on who waits: neither many who do nor those who leave change how often it is asked.
async fn ask(issuer: Issuer, told: watch::Sender<State>, wanted: Arc<Notify>) {
    loop {
        let answer = issuer.keys().await;
        let age = match &answer {
            Ok(_) => REFRESH_EVERY,
            Err(_) => TRY_AGAIN_AFTER,
        };
        note(&issuer, &told, answer);
        tokio::time::sleep(REST).await;
        told.send_modify(|state| state.phase = Phase::Ready);
        tokio::select! {
            () = wanted.notified() => {}
            () = tokio::time::sleep(age.saturating_sub(REST)) => {}
        }
        told.send_modify(|state| state.phase = Phase::Asking);
    }
}

/// Logs what is new, and tells all of it at once: nobody sees a question that was answered without its answer.
fn note(issuer: &Issuer, told: &watch::Sender<State>, answer: Result<Keys, FetchError>) {
    let issuer = issuer.name();
    let before = told.borrow().clone();
    let (keys, failure) = match answer {
        Ok(keys) => {
            if before.keys.is_none() || before.failure.is_some() {
                tracing::info!(issuer, count = keys.count(), "the keys of the issuer are known");
            }
            (Some((Arc::new(keys), Instant::now())), None)
        }
        Err(failure) => {
            // Once for each reason, and not every half minute.
            if before
                .failure
                .is_none_or(|last| last.to_string() != failure.to_string())
            {
                let error: &dyn std::error::Error = &failure;
                let consequence = match before.keys.is_some() {
                    true => "those that are known stay for a day since it told them",
                    false => "nobody can sign in with its tokens",
                };
                tracing::warn!(issuer, error, consequence, "the keys of the issuer cannot be read");
            }
            (before.keys, Some(Arc::new(failure)))
        }
    };
    told.send_modify(|state| {
        *state = State {
            phase: Phase::Resting,
            attempts: state.attempts + 1,
            keys,
            failure,
        };
    });
}
