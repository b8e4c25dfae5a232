//! A pool whose connections are watched.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use knm_ports::{PoolStatus, StorageError};
use sqlx::pool::{Pool, PoolConnection, PoolOptions};
use sqlx::{Connection, Database};
use tokio::time::{Instant, timeout};

use crate::holders::{Holders, Watched};
use crate::metric::Waits;
use crate::{Dialect, Origin};

/// How long giving a connection back or closing it may take before it is dropped as it is.
const FAREWELL: Duration = Duration::from_secs(2);

/// How a pool behaves.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// Which database it is.
    pub dialect: Dialect,
    /// The file or the server, without any secret; errors name it.
    pub place: String,
    /// Most connections that are open.
    pub max_open: u32,
    /// Most idle connections that are kept.
    pub max_idle: u32,
    /// From when on a connection is replaced, `None`: never.
    pub max_lifetime: Option<Duration>,
    /// How long to wait for a connection.
    pub acquire_timeout: Duration,
    /// How long one operation may take, waiting for its connection included.
    pub operation_timeout: Duration,
    /// From when on a held connection counts as leaked.
    pub leak_threshold: Duration,
}

/// A pool of connections that knows who holds them.
pub struct WatchedPool<DB: Database> {
    inner: Arc<Inner<DB>>,
}

struct Inner<DB: Database> {
    pool: Pool<DB>,
    settings: PoolSettings,
    origin: Origin,
    holders: Holders,
    waits: Waits,
    /// Held while surplus idle connections are taken out, so that two at once do not take out too many.
    trimming: Mutex<()>,
}

/// A connection that somebody holds. Dropped without [`Held::release`], it is closed.
pub struct Held<DB: Database> {
    connection: PoolConnection<DB>,
    place: Place<DB>,
    fate: Fate,
}

/// The entry in the book of holders; it ends with the [`Held`] in any case.
struct Place<DB: Database> {
    inner: Arc<Inner<DB>>,
    number: u64,
}

/// A wait for a connection. It counts when it ends, also when whoever waits gives up before the pool does: an operation has a deadline of its own.
struct Wait<'a, DB: Database> {
    inner: &'a Inner<DB>,
    began: Instant,
    /// Whether no connection was to be had; `None` until the pool said so.
    in_vain: Option<bool>,
}

/// What becomes of a connection afterwards.
enum Fate {
    Pooled,
    Closed,
}

impl<DB: Database> WatchedPool<DB> {
    /// A pool that opens its first connection when somebody needs it.
    ///
    /// It must be called on a tokio runtime, where the watching goes on until the pool is closed or dropped.
    pub fn new(
        settings: PoolSettings,
        options: PoolOptions<DB>,
        connect: <DB::Connection as Connection>::Options,
    ) -> Self {
        let settings = PoolSettings {
            max_open: settings.max_open.max(1),
            max_idle: settings.max_idle.min(settings.max_open.max(1)),
            ..settings
        };
        let max_lifetime = settings.max_lifetime;
        // A pooled connection over a network that went silent must cost less than the whole patience of the caller: the rest of it is
        // for a fresh connection.
        let patience = settings.acquire_timeout / 4;
        let pool = options
            .max_connections(settings.max_open)
            .max_lifetime(max_lifetime)
            .idle_timeout(None)
            .acquire_timeout(settings.acquire_timeout)
            .test_before_acquire(false)
            .before_acquire(move |connection, about| {
                Box::pin(async move {
                    if max_lifetime.is_some_and(|limit| limit <= about.age) {
                        return Ok(false);
                    }
                    match timeout(patience, connection.ping()).await {
                        Ok(answer) => answer.map(|()| true),
                        Err(_) => Err(sqlx::Error::PoolTimedOut),
                    }
                })
            })
            .connect_lazy_with(connect);
        let inner = Arc::new(Inner {
            pool,
            origin: Origin {
                dialect: settings.dialect,
                place: settings.place.clone(),
                statement_timeout: settings.operation_timeout,
            },
            holders: Holders::new(settings.leak_threshold),
            waits: Waits::new(),
            settings,
            trimming: Mutex::new(()),
        });
        tokio::spawn(watch(Arc::downgrade(&inner)));
        Self { inner }
    }

    /// Where errors come from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.inner.origin
    }

    /// Takes a connection for `operation`, which is what the log names when it is held for too long.
    ///
    /// # Errors
    /// [`StorageError::TimedOut`] if all are in use for too long, [`StorageError::Unavailable`] and others if none can be opened.
    pub async fn acquire(&self, operation: &'static str) -> Result<Held<DB>, StorageError> {
        self.hold(operation, Watched::Yes).await
    }

    /// Takes a connection for an `operation` that takes long by its nature: it is no leak.
    ///
    /// # Errors
    /// As [`WatchedPool::acquire`].
    pub async fn acquire_for_long(&self, operation: &'static str) -> Result<Held<DB>, StorageError> {
        self.hold(operation, Watched::No).await
    }

    /// Gives `operation` the time that one operation may take.
    ///
    /// # Errors
    /// [`StorageError::TimedOut`] if it took longer; else its own.
    pub async fn within_deadline<T>(
        &self,
        operation: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let limit = self.inner.settings.operation_timeout;
        timeout(limit, operation)
            .await
            .unwrap_or(Err(StorageError::TimedOut { limit }))
    }

    /// The figures at this moment.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let Inner {
            pool,
            settings,
            holders,
            ..
        } = &*self.inner;
        let open = pool.size();
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX).min(open);
        PoolStatus {
            max_open: settings.max_open,
            max_idle: settings.max_idle,
            open,
            in_use: open - idle,
            idle,
            leaks: holders.leaks(),
        }
    }

    /// Closes all connections. It waits for those that are in use, but not for ever.
    pub async fn close(&self) {
        if timeout(FAREWELL, self.inner.pool.close()).await.is_err() {
            tracing::warn!(
                held = self.inner.holders.count(),
                "the database was closed without waiting for all connections"
            );
        }
    }

    /// Waits until it is closed.
    pub fn closed(&self) -> impl Future<Output = ()> + use<DB> {
        self.inner.pool.close_event()
    }

    async fn hold(&self, operation: &'static str, watched: Watched) -> Result<Held<DB>, StorageError> {
        let mut wait = Wait {
            inner: &self.inner,
            began: Instant::now(),
            in_vain: None,
        };
        let connection = self.connection(operation, wait.began).await;
        wait.in_vain = Some(matches!(connection, Err(StorageError::TimedOut { .. })));
        drop(wait);
        Ok(Held {
            connection: connection?,
            place: Place {
                number: self.inner.holders.enter(operation, watched),
                inner: Arc::clone(&self.inner),
            },
            fate: Fate::Closed,
        })
    }

    /// A connection of the pool, which is waited for since it `began`.
    async fn connection(&self, operation: &'static str, began: Instant) -> Result<PoolConnection<DB>, StorageError> {
        let limit = self.inner.settings.acquire_timeout;
        loop {
            let error = match self.inner.pool.acquire().await {
                Ok(connection) => return Ok(connection),
                Err(sqlx::Error::PoolTimedOut) if self.inner.is_exhausted() => StorageError::TimedOut { limit },
                Err(error) => self.inner.origin.storage_error(operation, error),
            };
            // A SQLite file that others open or close at this moment is busy without SQLite waiting for it.
            if !matches!(error, StorageError::TimedOut { .. }) || limit <= began.elapsed() {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl<DB: Database> Clone for WatchedPool<DB> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<DB: Database> Held<DB> {
    /// The connection.
    pub fn connection(&mut self) -> &mut DB::Connection {
        &mut self.connection
    }

    /// Gives the connection back after `result`, whose error is translated; `what` it was about is named by conflicts.
    /// A connection that broke is closed instead.
    ///
    /// # Errors
    /// The translated error of `result`.
    pub fn release<T>(mut self, what: &'static str, result: Result<T, sqlx::Error>) -> Result<T, StorageError> {
        let result = result.map_err(|error| self.place.inner.origin.storage_error(what, error));
        self.fate = match &result {
            Err(error) if error.is_transient() => Fate::Closed,
            Ok(_) | Err(_) => Fate::Pooled,
        };
        result
    }
}

impl<DB: Database> Drop for Held<DB> {
    fn drop(&mut self) {
        // From here on the future owns the connection and its place in the pool; dropped as it is, it gives up both at once.
        let returned = self.connection.return_to_pool();
        match self.fate {
            Fate::Closed => drop(returned),
            Fate::Pooled => {
                let inner = Arc::clone(&self.place.inner);
                tokio::spawn(async move {
                    // The pool talks to the database before it keeps a connection. If that hangs, the connection is dropped.
                    if timeout(FAREWELL, returned).await.is_err() {
                        tracing::debug!("a database connection did not answer when it was given back");
                    }
                    inner.trim().await;
                });
            }
        }
    }
}

impl<DB: Database> Drop for Place<DB> {
    fn drop(&mut self) {
        self.inner.holders.leave(self.number);
    }
}

impl<DB: Database> Drop for Wait<'_, DB> {
    fn drop(&mut self) {
        self.inner.waits.ended(self.began.elapsed());
        if self.in_vain.unwrap_or_else(|| self.inner.is_exhausted()) {
            self.inner.waits.in_vain();
        }
    }
}

impl<DB: Database> Inner<DB> {
    fn is_exhausted(&self) -> bool {
        usize::try_from(self.settings.max_open).is_ok_and(|most| most <= self.holders.count())
    }

    /// Closes idle connections above the limit. It runs after a connection came back and not in the pool's own hook before that: there,
    /// all connections of a burst would see an idle count from before the burst and stay.
    async fn trim(&self) {
        while let Some(surplus) = self.surplus() {
            if timeout(FAREWELL, surplus.close()).await.is_err() {
                tracing::debug!("a database connection did not answer when it was closed");
            }
        }
    }

    fn surplus(&self) -> Option<PoolConnection<DB>> {
        let _one_at_a_time = self.trimming.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX);
        if idle <= self.settings.max_idle {
            return None;
        }
        self.pool.try_acquire()
    }

    /// Passes each idle connection through the pool's own check on return, which closes those that lived long enough.
    async fn retire(&self) {
        for _ in 0..self.pool.num_idle() {
            let Some(mut idle) = self.pool.try_acquire() else {
                return;
            };
            if timeout(FAREWELL, idle.return_to_pool()).await.is_err() {
                tracing::debug!("an idle database connection did not answer");
            }
        }
    }
}

/// Looks for leaks and for connections that lived long enough, until the pool is closed or dropped.
async fn watch<DB: Database>(watched: Weak<Inner<DB>>) {
    let Some(settings) = watched.upgrade().map(|inner| inner.settings.clone()) else {
        return;
    };
    let quarter = |limit: Duration, most: u64| (limit / 4).clamp(Duration::from_millis(10), Duration::from_secs(most));
    let retire_every = settings.max_lifetime.map(|limit| quarter(limit, 30));
    let inspect_every = quarter(settings.leak_threshold, 5);
    let tick = retire_every.map_or(inspect_every, |every| every.min(inspect_every));
    let mut retired_at = Instant::now();
    loop {
        tokio::time::sleep(tick).await;
        let Some(inner) = watched.upgrade() else {
            return;
        };
        if inner.pool.is_closed() {
            return;
        }
        inner.holders.inspect();
        if retire_every.is_some_and(|every| every <= retired_at.elapsed()) {
            inner.retire().await;
            retired_at = Instant::now();
        }
    }
}
