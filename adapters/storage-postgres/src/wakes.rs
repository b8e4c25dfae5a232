//! Wakes of all processes that share the database.
//!
//! What this process writes wakes it at once. Others hear of it by NOTIFY, which carries nothing but the operation's id, over one connection
//! of each process that waits in LISTEN and belongs to no pool. While that is away the others look by themselves, as they do anyway.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use knm_ports::{StorageError, Wake, WakeStream, Wakes};
use knm_storage_sql::{Bell, WatchedPool};
use sqlx::Postgres;
use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgListener, PgNotification};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use crate::alone::{LOCK, SHARE};
use crate::dialect::{EVENTS_CHANNEL, WORK_CHANNEL};

/// The channel on which a process hears whether it hears anything.
const ECHO_CHANNEL: &str = "knm_echo";
const CALL: &str = "SELECT pg_notify($1, $2)";
const PROCESS: &str = "SELECT pg_backend_pid()";
/// How the server shows the connection: it belongs to no pool.
const NAME: &str = crate::demand::LISTENER;
/// How often it is tried whether notices arrive: what stands between may forget a connection that is idle without telling.
const ECHO_EVERY: Duration = Duration::from_secs(30);
/// How long a notice may be under way.
const ECHO_LIMIT: Duration = Duration::from_secs(10);
/// How long nobody listens after the connection was lost.
const AFTER_LOSS: Duration = Duration::from_secs(1);
/// The same where notices do not arrive at all.
const AFTER_DEAFNESS: Duration = Duration::from_secs(300);

/// Wakes by LISTEN and NOTIFY.
pub(crate) struct PostgresWakes {
    bell: Bell,
    pool: WatchedPool<Postgres>,
    connect: PgConnectOptions,
    connect_timeout: Duration,
    /// What listens to others, since somebody asked for wakes; it ends with this.
    listening: Mutex<JoinSet<()>>,
}

impl PostgresWakes {
    pub(crate) fn new(
        bell: Bell,
        pool: WatchedPool<Postgres>,
        connect: &PgConnectOptions,
        connect_timeout: Duration,
    ) -> Self {
        Self {
            bell,
            pool,
            connect: connect.clone().application_name(NAME),
            connect_timeout,
            listening: Mutex::default(),
        }
    }
}

impl Wakes for PostgresWakes {
    fn listen(&self) -> WakeStream {
        let wakes = self.bell.listen();
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if listening.is_empty() {
            let ear = Ear {
                bell: self.bell.clone(),
                pool: self.pool.clone(),
                connect: self.connect.clone(),
                connect_timeout: self.connect_timeout,
                is_told_lost: false,
                is_told_deaf: false,
            };
            listening.spawn(ear.listen());
        }
        wakes
    }
}

/// Listens to other processes.
struct Ear {
    bell: Bell,
    pool: WatchedPool<Postgres>,
    connect: PgConnectOptions,
    connect_timeout: Duration,
    /// Whether it was said that the connection is lost, and not found since.
    is_told_lost: bool,
    /// Whether it was said that nothing ever arrives.
    is_told_deaf: bool,
}

/// Why listening over a connection ended.
enum End {
    /// The connection broke, or none could be made.
    Lost(sqlx::Error),
    /// What is sent does not arrive any more.
    Silent,
    /// What is sent never arrived.
    Deaf,
}

impl Ear {
    /// Listens until the pool is closed.
    async fn listen(mut self) {
        let closed = self.pool.closed();
        tokio::select! {
            () = closed => {}
            () = self.listen_on() => {}
        }
    }

    async fn listen_on(&mut self) {
        loop {
            let end = match self.connect().await {
                Ok((listener, name)) => self.hear(listener, &name).await,
                Err(error) => End::Lost(error),
            };
            let rest = match end {
                End::Deaf => AFTER_DEAFNESS,
                End::Lost(_) | End::Silent => AFTER_LOSS,
            };
            self.tell(end);
            tokio::time::sleep(rest).await;
        }
    }

    /// A connection that listens, and the name under which it calls itself. It is from a pool of its own, which knows nothing of limits,
    /// leaks and lifetimes.
    async fn connect(&self) -> Result<(PgListener, String), sqlx::Error> {
        let pool = PoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(self.connect_timeout)
            .connect_lazy_with(self.connect.clone());
        let listening = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.eager_reconnect(false);
            listener
                .listen_all([WORK_CHANNEL, EVENTS_CHANNEL, ECHO_CHANNEL])
                .await?;
            let process: i32 = sqlx::query_scalar(PROCESS).fetch_one(&mut listener).await?;
            Ok((listener, process.to_string()))
        };
        timeout(self.connect_timeout * 2, listening)
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// Passes on what arrives until nothing does any more.
    async fn hear(&mut self, mut listener: PgListener, name: &str) -> End {
        self.is_told_lost = false;
        // What was sent until now was perhaps not heard.
        self.bell.ring(&[Wake::Missed]);
        let (echo, echoes) = watch::channel(());
        let mut is_marked = false;
        let receiving = async {
            loop {
                match listener.try_recv().await {
                    Ok(Some(notice)) if notice.channel() == ECHO_CHANNEL => {
                        // Others call themselves on the same channel.
                        if notice.payload() == name {
                            echo.send_replace(());
                            // Whoever hears itself has a session of its own, which a lock can belong to.
                            if !is_marked {
                                is_marked = match mark(&mut listener).await {
                                    Ok(is_marked) => is_marked,
                                    Err(error) => return End::Lost(error),
                                };
                            }
                        }
                    }
                    Ok(Some(notice)) => self.bell.ring(wake(&notice).as_slice()),
                    Ok(None) => return End::Lost(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                    Err(error) => return End::Lost(error),
                }
            }
        };
        tokio::select! {
            end = receiving => end,
            end = check(&self.pool, name, echoes) => end,
        }
    }

    /// Tells what people may want to know, once.
    fn tell(&mut self, end: End) {
        match end {
            End::Lost(error) => {
                let error = self.pool.origin().storage_error("the listening connection", error);
                let error = &error as &dyn std::error::Error;
                match self.is_told_lost {
                    false => tracing::info!(
                        error,
                        "other replicas are not heard for now: what they do is found by looking"
                    ),
                    true => tracing::debug!(error, "other replicas are still not heard"),
                }
                self.is_told_lost = true;
            }
            End::Silent => tracing::info!("the connection that listens to other replicas went silent and is replaced"),
            End::Deaf if !self.is_told_deaf => {
                self.is_told_deaf = true;
                tracing::warn!(
                    "notices of the database do not arrive: what other replicas do is found by looking; a proxy between that pools \
                     transactions does not pass LISTEN on"
                );
            }
            End::Deaf => tracing::debug!("notices of the database still do not arrive"),
        }
    }
}

/// Tells those who want the database for themselves that a service works with it: for as long as this connection lives.
async fn mark(listener: &mut PgListener) -> Result<bool, sqlx::Error> {
    let is_marked: bool = sqlx::query_scalar(SHARE).bind(LOCK).fetch_one(listener).await?;
    if !is_marked {
        tracing::warn!("migrate-data works on the database: nothing can be written until that has ended");
    }
    Ok(is_marked)
}

/// Calls `name` now and then, until that is not heard over the connection that listens.
async fn check(pool: &WatchedPool<Postgres>, name: &str, mut echoes: watch::Receiver<()>) -> End {
    let mut end = End::Deaf;
    loop {
        // A database that is too busy to be called tells nothing about the connection.
        if call(pool, name).await.is_ok() {
            if timeout(ECHO_LIMIT, echoes.changed()).await.is_err() {
                return end;
            }
            end = End::Silent;
        }
        tokio::time::sleep(ECHO_EVERY).await;
    }
}

/// Calls over a connection of the pool: what listens behind a proxy could hear its own voice.
async fn call(pool: &WatchedPool<Postgres>, name: &str) -> Result<(), StorageError> {
    pool.within_deadline(async {
        let mut held = pool.acquire("wakes.call").await?;
        let called = sqlx::query(CALL)
            .bind(ECHO_CHANNEL)
            .bind(name)
            .execute(held.connection())
            .await;
        held.release("notice", called).map(drop)
    })
    .await
}

/// What a notice of a process says; nothing if it is not from this program.
fn wake(notice: &PgNotification) -> Option<Wake> {
    let operation = Uuid::parse_str(notice.payload()).ok()?;
    match notice.channel() {
        WORK_CHANNEL => Some(Wake::Work(operation)),
        EVENTS_CHANNEL => Some(Wake::Events(operation)),
        _ => None,
    }
}
