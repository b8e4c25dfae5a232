//! What opening a database accepts and refuses.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use knm_ports::StorageError;
use knm_storage_postgres::{PostgresOptions, SslMode};
use knm_test_support::postgres::{PASSWORD, PostgresServer, USERNAME};

fn options(server: &PostgresServer, ssl_mode: SslMode) -> PostgresOptions {
    let mut options = PostgresOptions::from_url(&server.url(USERNAME)).expect("a connection string");
    options.ssl_mode = ssl_mode;
    options
}

/// Opens, and tells whether the connection is encrypted.
async fn encrypted(server: &PostgresServer, options: PostgresOptions) -> Result<bool, StorageError> {
    let storage = knm_storage_postgres::open(options).await?;
    storage.admin.ping().await?;
    let answer = server.run(
        USERNAME,
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'kube-node-manager'",
    );
    storage.admin.close().await;
    Ok(answer == "t")
}

/// All that an error says, its sources included.
fn chain(error: &StorageError) -> String {
    let mut text = format!("{error} / {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text} / {error}");
        source = error.source();
    }
    text
}

#[tokio::test]
async fn without_tls_only_the_modes_that_do_not_insist_connect() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    for mode in [SslMode::Disable, SslMode::Prefer] {
        assert!(!encrypted(&server, options(&server, mode)).await.unwrap(), "{mode:?}");
    }
    for mode in [SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
        let refused = encrypted(&server, options(&server, mode)).await;
        assert!(
            matches!(refused, Err(StorageError::Refused { .. })),
            "{mode:?}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn with_tls_each_mode_checks_what_it_promises() {
    let Some(server) = PostgresServer::start_with_tls() else {
        return;
    };
    // The certificate is for localhost; the address is not in it.
    let with = |mode, host: &str, root: Option<PathBuf>| PostgresOptions {
        host: host.to_owned(),
        ssl_root_cert: root,
        ..options(&server, mode)
    };
    let root = || Some(server.root_certificate());
    let cases = [
        (with(SslMode::Disable, "127.0.0.1", None), Some(false)),
        (with(SslMode::Prefer, "127.0.0.1", None), Some(true)),
        (with(SslMode::Require, "127.0.0.1", None), Some(true)),
        (with(SslMode::VerifyCa, "127.0.0.1", None), None),
        (with(SslMode::VerifyCa, "127.0.0.1", root()), Some(true)),
        (with(SslMode::VerifyFull, "127.0.0.1", root()), None),
        (with(SslMode::VerifyFull, "localhost", None), None),
        (with(SslMode::VerifyFull, "localhost", root()), Some(true)),
    ];
    for (options, expected) in cases {
        let case = format!("{options:?}");
        match (encrypted(&server, options).await, expected) {
            (Ok(encrypted), Some(expected)) => assert_eq!(encrypted, expected, "{case}"),
            (Err(StorageError::Refused { .. }), None) => {}
            (other, _) => panic!("{case}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_root_certificate_that_is_not_there_is_refused_by_name() {
    let options = PostgresOptions {
        ssl_mode: SslMode::VerifyFull,
        ssl_root_cert: Some(PathBuf::from("/nowhere/root.pem")),
        ..PostgresOptions::default()
    };
    let error = knm_storage_postgres::open(options).await.err().unwrap();
    assert!(matches!(error, StorageError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("/nowhere/root.pem"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_shown_nowhere() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let options = PostgresOptions {
        password: format!("{PASSWORD}-wrong").into(),
        ..options(&server, SslMode::Disable)
    };
    let error = knm_storage_postgres::open(options).await.err().unwrap();
    assert!(matches!(error, StorageError::Refused { .. }), "{error:?}");
    assert!(
        error.to_string().contains(&format!("at 127.0.0.1:{}", server.port())),
        "{error}"
    );
    assert!(!chain(&error).contains(PASSWORD), "{}", chain(&error));
}

#[tokio::test]
async fn an_unknown_database_is_refused_by_name() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let options = PostgresOptions {
        database: "absent".to_owned(),
        ..options(&server, SslMode::Disable)
    };
    let error = knm_storage_postgres::open(options).await.err().unwrap();
    assert!(matches!(error, StorageError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("\"absent\""), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable_and_the_reason_is_kept() {
    let Some(mut server) = PostgresServer::start() else {
        return;
    };
    let options = options(&server, SslMode::Disable);
    server.stop();
    let error = knm_storage_postgres::open(options).await.err().unwrap();
    assert!(matches!(error, StorageError::Unavailable { .. }), "{error:?}");
    assert!(chain(&error).contains("refused"), "{}", chain(&error));
    assert!(!chain(&error).contains(PASSWORD), "{}", chain(&error));
}

#[tokio::test]
async fn a_server_that_hangs_does_not_hold_up_opening_for_ever() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let options = PostgresOptions {
        acquire_timeout: Duration::from_millis(200),
        ..options(&server, SslMode::Disable)
    };
    server.freeze();
    let error = knm_storage_postgres::open(options).await.err().unwrap();
    assert!(matches!(error, StorageError::TimedOut { .. }), "{error:?}");
}
