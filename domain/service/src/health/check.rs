//! The task that checks the database. Nobody else does, so that any number of probes cause few pings.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use knm_ports::{StorageAdmin, StorageError};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long a check may take, and how long anybody waits for one.
const DEADLINE: Duration = Duration::from_secs(2);
/// A result that is younger than this is good enough for everybody.
const RECENT: Duration = Duration::from_millis(250);
/// The pause between two checks while the database can be used.
const CALM: Duration = Duration::from_secs(5);
/// The pause between two checks while it cannot.
const WORRIED: Duration = Duration::from_millis(500);

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DatabaseState {
    /// Nobody has looked yet.
    NotChecked,
    /// It answers and its schema is up to date.
    Usable,
    /// It answers and its schema is not.
    MigrationsPending,
    /// It does not answer, or not in time.
    Down,
}

impl DatabaseState {
    /// Whether it answered the last ping.
    pub(super) fn answers(self) -> bool {
        match self {
            Self::Usable | Self::MigrationsPending => true,
            Self::NotChecked | Self::Down => false,
        }
    }
}

/// Knows what the last check found, and asks for another one.
pub(super) struct Checker {
    found: watch::Receiver<Found>,
    asked: Arc<Notify>,
    migrated: Arc<AtomicBool>,
}

#[derive(Clone, Copy)]
struct Found {
    state: DatabaseState,
    at: Instant,
}

/// Does the checks.
struct Task {
    storage: Arc<dyn StorageAdmin>,
    found: watch::Sender<Found>,
    asked: Arc<Notify>,
    /// Whether the schema was once found to be up to date: it never becomes older again.
    migrated: Arc<AtomicBool>,
}

impl Checker {
    pub(super) fn start(storage: Arc<dyn StorageAdmin>, shutdown: CancellationToken) -> Self {
        let (sender, found) = watch::channel(Found {
            state: DatabaseState::NotChecked,
            at: Instant::now(),
        });
        let (asked, migrated) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let task = Task {
            storage,
            found: sender,
            asked: Arc::clone(&asked),
            migrated: Arc::clone(&migrated),
        };
        tokio::spawn(shutdown.run_until_cancelled_owned(task.run()));
        Self { found, asked, migrated }
    }

    /// What the last check found.
    pub(super) fn last(&self) -> DatabaseState {
        self.found.borrow().state
    }

    /// What the last check found if that is recent, else what the next one finds; [`DatabaseState::Down`] if that takes too long.
    pub(super) async fn recent(&self) -> DatabaseState {
        let mut found = self.found.clone();
        let last = *found.borrow_and_update();
        if last.state != DatabaseState::NotChecked && last.at.elapsed() < RECENT {
            return last.state;
        }
        self.asked.notify_one();
        match timeout(DEADLINE, found.changed()).await {
            Ok(Ok(())) => found.borrow().state,
            // The checks are over because the service ends, or this one hangs.
            Ok(Err(_)) | Err(_) => DatabaseState::Down,
        }
    }

    /// Whether the schema was once found to be up to date.
    pub(super) fn was_migrated(&self) -> bool {
        self.migrated.load(Ordering::SeqCst)
    }
}

impl Task {
    async fn run(self) {
        loop {
            let before = self.found.borrow().state;
            let outcome = timeout(DEADLINE, self.check())
                .await
                .unwrap_or(Err(StorageError::TimedOut { limit: DEADLINE }));
            let state = match &outcome {
                Ok(0) => DatabaseState::Usable,
                Ok(_) => DatabaseState::MigrationsPending,
                Err(_) => DatabaseState::Down,
            };
            if state != before {
                log(before, &outcome);
            }
            let at = Instant::now();
            self.found.send_replace(Found { state, at });
            let pause = match state {
                DatabaseState::Usable => CALM,
                DatabaseState::NotChecked | DatabaseState::MigrationsPending | DatabaseState::Down => WORRIED,
            };
            self.wait(pause).await;
        }
    }

    /// How many migrations are pending.
    async fn check(&self) -> Result<usize, StorageError> {
        self.storage.ping().await?;
        if self.migrated.load(Ordering::SeqCst) {
            return Ok(0);
        }
        let pending = self.storage.schema().await?.pending;
        self.migrated.store(pending == 0, Ordering::SeqCst);
        Ok(pending)
    }

    /// Waits for `pause`, or until somebody asks; never so short that results of less than [`RECENT`] ago are looked for again.
    async fn wait(&self, pause: Duration) {
        sleep(RECENT).await;
        // Whether somebody asked or the time is up, the next check is due.
        let _ = timeout(pause - RECENT, self.asked.notified()).await;
    }
}

fn log(before: DatabaseState, outcome: &Result<usize, StorageError>) {
    match outcome {
        Ok(0) if before == DatabaseState::NotChecked => tracing::debug!("the database can be used"),
        Ok(0) if before == DatabaseState::MigrationsPending => tracing::info!("the database can be used"),
        Ok(0) => tracing::info!("the database can be used again"),
        // A fresh database, most often: they are applied at this moment.
        Ok(pending) if before == DatabaseState::NotChecked => {
            tracing::info!(pending, "the database cannot be used yet: migrations are not applied");
        }
        Ok(pending) => tracing::warn!(pending, "the database cannot be used: migrations are not applied"),
        Err(error) => tracing::error!(error = error as &dyn Error, "the database cannot be used"),
    }
}
