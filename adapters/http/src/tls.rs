//! TLS without a proxy: the own certificate, and how it is exchanged while the service runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use knm_model::Timestamp;
use knm_ports::Clock;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

use crate::metric::CERTIFICATE_EXPIRY;

/// How long before its end a certificate is warned of, and how often.
const NOTICE: Duration = Duration::from_secs(14 * DAY);
const AGAIN: Duration = Duration::from_secs(DAY);
const DAY: u64 = 86_400;

/// Where the certificate and its key are, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The own certificate, and after it those that lead to one that callers trust.
    pub cert_file: PathBuf,
    /// The key of the own certificate.
    pub key_file: PathBuf,
}

/// Why TLS cannot be served with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("the file {} cannot be read", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// There is no certificate in its file.
    #[error("the file {} has no certificate that can be read: PEM is expected, the own certificate first", .file.display())]
    Certificate {
        /// The file.
        file: PathBuf,
    },
    /// There is no key in its file.
    #[error("the file {} has no private key that can be read: one in PEM without a password is expected", .file.display())]
    Key {
        /// The file.
        file: PathBuf,
    },
    /// The two do not belong together, or are of a kind that cannot be used.
    #[error("the certificate in {} cannot be used with the key in {}", .files.cert_file.display(), .files.key_file.display())]
    Pair {
        /// The files.
        files: TlsFiles,
        /// What is wrong with them.
        #[source]
        source: tokio_rustls::rustls::Error,
    },
}

/// The certificate that is served, and what is known of its files.
pub struct Tls {
    files: TlsFiles,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    config: Arc<ServerConfig>,
    expires: Timestamp,
    /// When its end was last warned of.
    warned: Option<Timestamp>,
    /// What the files were when they were looked at last, be it that they could not be used.
    seen: [u8; 32],
}

/// What the files hold.
struct Pair {
    config: Arc<ServerConfig>,
    expires: Timestamp,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] that names the file.
    pub async fn open(files: TlsFiles, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let texts = read_both(&files).await?;
        let seen = digest_of(&Ok(&texts));
        let pair = Pair::of(&texts, &files)?;
        let tls = Self {
            files,
            clock,
            state: Mutex::new(State {
                config: pair.config,
                expires: pair.expires,
                warned: None,
                seen,
            }),
        };
        tls.tell_end();
        Ok(tls)
    }

    /// Looks whether the files have changed, and serves the new certificate from the next connection on. Files that cannot be used change
    /// nothing and are one line in the log.
    pub async fn look(&self) {
        let texts = read_both(&self.files).await;
        let seen = digest_of(&texts.as_ref().map_err(|error| knm_ports::chain(error).to_string()));
        if self.state().seen != seen {
            self.state().seen = seen;
            match texts.and_then(|texts| Pair::of(&texts, &self.files)) {
                Ok(pair) => self.exchange(pair),
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the certificate stays as it is"
                ),
            }
        }
        self.tell_end();
    }

    fn exchange(&self, pair: Pair) {
        let mut state = self.state();
        state.config = pair.config;
        state.expires = pair.expires;
        state.warned = None;
        tracing::info!(expires = %pair.expires, "certificate read again");
    }

    /// Sets the metric, and warns of a certificate that ends soon.
    fn tell_end(&self) {
        let mut state = self.state();
        metrics::gauge!(CERTIFICATE_EXPIRY).set(state.expires.unix_seconds());
        let now = self.clock.now();
        let is_told = state.warned.is_some_and(|warned| now.since(warned) < AGAIN);
        if now.plus(NOTICE) < state.expires || is_told {
            return;
        }
        state.warned = Some(now);
        let file = self.files.cert_file.display();
        if now < state.expires {
            let days = state.expires.since(now).as_secs() / DAY;
            tracing::warn!(%file, expires = %state.expires, "the certificate ends in {days} days");
        } else {
            tracing::warn!(%file, expires = %state.expires, "the certificate has ended: callers refuse it");
        }
    }

    /// Exchanges greetings with a peer.
    ///
    /// # Errors
    /// Why there is no TLS with this peer, and the connection to it.
    pub(crate) async fn greet(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, (io::Error, TcpStream)> {
        let config = Arc::clone(&self.state().config);
        TlsAcceptor::from(config).accept(stream).into_fallible().await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pair {
    fn of((certificates, key): &(Vec<u8>, Vec<u8>), files: &TlsFiles) -> Result<Self, TlsError> {
        let no_certificate = || TlsError::Certificate {
            file: files.cert_file.clone(),
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<_, _>>()
            .map_err(|_| no_certificate())?;
        let expires = chain.first().and_then(end_of).ok_or_else(no_certificate)?;
        // What went wrong in there may quote the key.
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Key {
            file: files.key_file.clone(),
        })?;
        let unusable = |source| TlsError::Pair {
            files: files.clone(),
            source,
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            expires,
        })
    }
}

/// When a certificate ends.
fn end_of(certificate: &CertificateDer<'static>) -> Option<Timestamp> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = certificate.validity().not_after.timestamp();
    Timestamp::from_unix_millis(seconds.checked_mul(1_000)?)
}

async fn read_both(files: &TlsFiles) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
    Ok((read(&files.cert_file).await?, read(&files.key_file).await?))
}

/// Opened anew each time: what a Kubernetes secret is mounted as are links that are exchanged.
async fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    tokio::fs::read(file).await.map_err(|source| TlsError::Unreadable {
        file: file.to_owned(),
        source,
    })
}

/// What tells one content of the files from another. The files are small, and times and sizes do not tell all changes.
fn digest_of(texts: &Result<&(Vec<u8>, Vec<u8>), String>) -> [u8; 32] {
    let mut digest = Sha256::new();
    match texts {
        Ok((certificate, key)) => {
            digest.update((certificate.len() as u64).to_be_bytes());
            digest.update(certificate);
            digest.update(key);
        }
        Err(error) => digest.update(error),
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests;
