//! What processes that share a database hear of each other.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use knm_model::{
    Actor, Authority, EventKind, NewEvent, Operation, OperationKind, OperationProgress, OperationState, OperationStep,
    Strategy, Timestamp,
};
use knm_ports::{Storage, StorageError, Wake, WakeStream};
use knm_storage_postgres::{PostgresOptions, SslMode};
use knm_test_support::postgres::{PostgresServer, USERNAME};
use serde_json::{Map, json};
use uuid::Uuid;

/// How long something may take before the test fails: generous, because machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(60);
const LISTENERS: &str = "FROM pg_stat_activity WHERE application_name = 'kube-node-manager listener'";

async fn open(options: &PostgresOptions) -> Storage {
    let storage = knm_storage_postgres::open(options.clone()).await.expect("a database");
    storage.admin.migrate().await.expect("the migrations run");
    storage
}

fn options(server: &PostgresServer) -> PostgresOptions {
    PostgresOptions::from_url(&server.url(&server.create_database())).expect("a connection string")
}

/// Waits for `expected`, and returns what was told before.
async fn until(wakes: &mut WakeStream, expected: Wake) -> Vec<Wake> {
    let mut before = Vec::new();
    let heard = async {
        while let Some(wake) = wakes.next().await {
            if wake == expected {
                return;
            }
            before.push(wake);
        }
    };
    let is_heard = tokio::time::timeout(PATIENCE, heard).await.is_ok();
    assert!(is_heard, "{expected:?} was never told, only {before:?}");
    before
}

/// Waits for what happens by itself.
async fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if happened() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(happened(), "{what}");
}

fn operation(number: u128) -> Operation {
    Operation {
        id: Uuid::from_u128(number),
        kind: OperationKind::Cordon,
        actor: Actor::anonymous(None),
        authority: Authority::Open,
        request_id: None,
        reason: None,
        ticket: None,
        options: Map::new(),
        strategy: Strategy::of(OperationKind::Cordon),
        dry_run: false,
        retry_of: None,
        idempotency: None,
        created_at: at(),
        started_at: None,
        ended_at: None,
        state: OperationState::Queued,
        message: None,
        progress: OperationProgress::default(),
        excused: 0,
    }
}

fn at() -> Timestamp {
    Timestamp::parse("2030-01-01T00:00:00Z").expect("a time")
}

fn event() -> NewEvent {
    NewEvent::new(at(), EventKind::Operation, [("text", json!("something"))])
}

async fn accept(storage: &Storage, number: u128) -> Result<(), StorageError> {
    storage.operations.open(&operation(number), &[], &event()).await
}

#[tokio::test]
async fn another_process_hears_of_what_is_committed_and_of_nothing_else() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let options = options(&server);
    let (writer, reader) = (open(&options).await, open(&options).await);
    accept(&writer, 1).await.expect("the id is free");
    let mut wakes = reader.wakes.listen();
    // From here on it listens.
    until(&mut wakes, Wake::Missed).await;

    accept(&writer, 1).await.expect_err("the id is taken");
    accept(&writer, 2).await.expect("the id is free");
    let id = operation(2).id;
    assert_eq!(until(&mut wakes, Wake::Work(id)).await, []);
    reader
        .operations
        .find(id)
        .await
        .expect("a look-up")
        .expect("it is there");

    let lease = writer
        .work
        .claim("one", PATIENCE, 9)
        .await
        .expect("a claim")
        .remove(1)
        .lease;
    let mut step = OperationStep::at(at(), OperationProgress::default());
    step.events = vec![event(), event()];
    writer.work.advance(&lease, &step).await.expect("a step");
    assert_eq!(until(&mut wakes, Wake::Events(id)).await, []);

    let (asked, from, to) = (event(), OperationState::Queued, OperationState::Paused);
    let moved = writer.operations.request(id, from, to, &asked).await;
    assert!(moved.expect("a wish"));
    assert_eq!(until(&mut wakes, Wake::Work(id)).await, [], "two events are one notice");

    writer.work.hand_over(&[lease]).await.expect("a hand-over");
    assert_eq!(until(&mut wakes, Wake::Work(id)).await, []);
    for storage in [writer, reader] {
        storage.admin.close().await;
    }
}

#[tokio::test]
async fn listening_survives_a_restart_of_the_server() {
    let Some(mut server) = PostgresServer::start() else {
        return;
    };
    let options = options(&server);
    let (writer, reader) = (open(&options).await, open(&options).await);
    let mut wakes = reader.wakes.listen();
    until(&mut wakes, Wake::Missed).await;

    server.stop();
    server.start_again();

    // Without anybody doing anything; what happened meanwhile may be new.
    until(&mut wakes, Wake::Missed).await;
    accept(&writer, 1).await.expect("the database is back");
    assert_eq!(until(&mut wakes, Wake::Work(operation(1).id)).await, []);
    for storage in [writer, reader] {
        storage.admin.close().await;
    }
}

#[tokio::test]
async fn the_connection_that_listens_belongs_to_no_pool_and_ends_with_it() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let options = PostgresOptions {
        max_open_conns: 1,
        max_idle_conns: 1,
        leak_threshold: Duration::from_millis(40),
        ..options(&server)
    };
    let storage = open(&options).await;
    let listeners = || server.run(USERNAME, &format!("SELECT count(*) {LISTENERS}"));
    assert_eq!(listeners(), "0", "nobody asked for wakes");
    let mut wakes = [storage.wakes.listen(), storage.wakes.listen()];
    for wakes in &mut wakes {
        until(wakes, Wake::Missed).await;
    }
    assert_eq!(listeners(), "1");
    for number in 1..=20 {
        accept(&storage, number)
            .await
            .expect("the only connection of the pool is free");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let pool = storage.admin.pool();
    assert_eq!((pool.max_open, pool.leaks), (1, 0), "{pool:?}");
    assert!(pool.open <= 1, "{pool:?}");

    storage.admin.close().await;

    eventually("the listening connection is closed", || listeners() == "0").await;
}

#[tokio::test]
async fn a_server_that_hangs_does_not_hold_up_closing_while_somebody_listens() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let storage = open(&options(&server)).await;
    let mut wakes = storage.wakes.listen();
    until(&mut wakes, Wake::Missed).await;
    server.freeze();
    storage.admin.close().await;
    let refused = storage.admin.ping().await;
    assert!(matches!(refused, Err(StorageError::Unavailable { .. })), "{refused:?}");
}

#[tokio::test]
async fn the_connection_that_listens_is_encrypted_as_the_others_are() {
    let Some(server) = PostgresServer::start_with_tls() else {
        return;
    };
    let options = PostgresOptions {
        host: "localhost".to_owned(),
        ssl_mode: SslMode::VerifyFull,
        ssl_root_cert: Some(server.root_certificate()),
        ..options(&server)
    };
    let storage = open(&options).await;
    until(&mut storage.wakes.listen(), Wake::Missed).await;
    let listeners = LISTENERS.replace("pg_stat_activity", "pg_stat_ssl JOIN pg_stat_activity USING (pid)");
    assert_eq!(server.run(USERNAME, &format!("SELECT ssl {listeners}")), "t");
    storage.admin.close().await;
}

#[tokio::test]
async fn where_notices_do_not_arrive_one_warning_says_so_and_the_process_still_wakes_itself() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let options = PostgresOptions {
        port: proxy_without_notices(server.port()),
        ..options(&server)
    };
    let storage = open(&options).await;
    let mut wakes = storage.wakes.listen();
    until(&mut wakes, Wake::Missed).await;

    accept(&storage, 1).await.expect("the id is free");
    until(&mut wakes, Wake::Work(operation(1).id)).await;

    eventually("a warning", || log.text().contains("WARN")).await;
    let warnings = log.text().lines().filter(|line| line.contains("WARN")).count();
    assert_eq!(warnings, 1, "{}", log.text());
    assert!(log.text().contains("does not pass LISTEN on"), "{}", log.text());
    storage.admin.close().await;
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Passes everything on to the server at `port` and back, but notices, as a proxy that pools transactions does. Returns its own port.
fn proxy_without_notices(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let own = listener.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(("127.0.0.1", port)).expect("the server");
            let (mut from_client, mut to_server) = (
                client.try_clone().expect("a clone"),
                server.try_clone().expect("a clone"),
            );
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from_client, &mut to_server);
                let _ = to_server.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                let _ = pass_messages(server, &client);
                let _ = client.shutdown(Shutdown::Write);
            });
        }
    });
    own
}

/// Messages of the server have a letter, and a length that counts itself.
fn pass_messages(mut from: TcpStream, mut to: &TcpStream) -> std::io::Result<()> {
    loop {
        let mut head = [0; 5];
        from.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut rest = vec![0; usize::try_from(length.saturating_sub(4)).unwrap_or_default()];
        from.read_exact(&mut rest)?;
        if head[0] != b'A' {
            to.write_all(&head)?;
            to.write_all(&rest)?;
        }
    }
}
