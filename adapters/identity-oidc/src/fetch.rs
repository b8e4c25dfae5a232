//! Questions to an issuer over HTTP: two documents, read with limits.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::OpenError;
use crate::address;
use crate::keys::{Keys, PublishedKeys};

/// No document of an issuer is longer.
const LONGEST_DOCUMENT: usize = 512 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const USER_AGENT: &str = concat!("kube-node-manager/", env!("CARGO_PKG_VERSION"));
const DISCOVERY: &str = "what it says about itself";
const KEYS: &str = "its keys";

/// Why the keys of an issuer cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("the issuer did not answer within {limit:?} when asked for {what}")]
    TimedOut { what: &'static str, limit: Duration },
    #[error("the issuer cannot be reached for {what}")]
    Unreachable {
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the issuer answers with status {} when asked for {what} (redirects are not followed)", code.as_u16())]
    Status { what: &'static str, code: StatusCode },
    #[error("the issuer tells more than {LONGEST_DOCUMENT} bytes when asked for {what}, or breaks off")]
    Body {
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the issuer tells something else than json with {what}")]
    NotJson {
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "the issuer calls itself \"{told}\", and the configuration calls it \"{configured}\": both must be the same"
    )]
    OtherIssuer { told: String, configured: String },
    #[error("the issuer says that its keys are at \"{place}\": {why}")]
    Place { place: String, why: &'static str },
    #[error("the keys of the issuer cannot be used: {0}")]
    Keys(&'static str),
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Asks one issuer.
pub(crate) struct Issuer {
    name: String,
    discovery: Url,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    limit: Duration,
}

impl Issuer {
    pub(crate) fn new(name: String, discovery: Url, roots: RootCertStore, limit: Duration) -> Result<Self, OpenError> {
        if roots.is_empty() && discovery.scheme() == "https" {
            return Err(OpenError::NoAuthorities);
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|source| OpenError::Tls { source })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut connector = HttpConnector::new();
        // Which scheme is allowed was decided before; the connector would refuse https.
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        // It is asked every few minutes: no connection is worth keeping for so long.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self {
            name,
            discovery,
            client,
            limit,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The keys that it has now.
    pub(crate) async fn keys(&self) -> Result<Keys, FetchError> {
        let about: Discovery = self.document(DISCOVERY, &self.discovery).await?;
        if about.issuer != self.name {
            return Err(FetchError::OtherIssuer {
                told: knm_model::excerpt(&about.issuer),
                configured: self.name.clone(),
            });
        }
        let place = address::keys(&about.jwks_uri, &self.discovery).map_err(|why| FetchError::Place {
            place: knm_model::excerpt(&about.jwks_uri),
            why,
        })?;
        let published: PublishedKeys = self.document(KEYS, &place).await?;
        Keys::read(published).map_err(FetchError::Keys)
    }

    async fn document<T: DeserializeOwned>(&self, what: &'static str, place: &Url) -> Result<T, FetchError> {
        let body = tokio::time::timeout(self.limit, self.body(what, place))
            .await
            .unwrap_or(Err(FetchError::TimedOut {
                what,
                limit: self.limit,
            }))?;
        serde_json::from_slice(&body).map_err(|source| FetchError::NotJson { what, source })
    }

    async fn body(&self, what: &'static str, place: &Url) -> Result<Bytes, FetchError> {
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| FetchError::Unreachable { what, source };
        let uri: Uri = place.as_str().parse().map_err(|error| unreachable(Box::new(error)))?;
        let request = Request::get(uri)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, USER_AGENT)
            .body(Empty::new())
            .map_err(|error| unreachable(Box::new(error)))?;
        let answer = self
            .client
            .request(request)
            .await
            .map_err(|error| unreachable(Box::new(error)))?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status {
                what,
                code: answer.status(),
            });
        }
        let body = Limited::new(answer.into_body(), LONGEST_DOCUMENT).collect().await;
        body.map(http_body_util::Collected::to_bytes)
            .map_err(|source| FetchError::Body { what, source })
    }
}

/// Who says who an issuer is: the authorities in the file and no others, or those of this machine.
pub(crate) async fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, OpenError> {
    let Some(path) = ca_file else {
        return Ok(roots_of_this_machine());
    };
    let pem = tokio::fs::read(path)
        .await
        .map_err(|source| OpenError::UnreadableAuthorities {
            path: path.to_owned(),
            source,
        })?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let added = certificate.ok().map(|one| roots.add(one));
        if !matches!(added, Some(Ok(()))) {
            return Err(OpenError::NotAuthorities { path: path.to_owned() });
        }
    }
    match roots.is_empty() {
        true => Err(OpenError::NotAuthorities { path: path.to_owned() }),
        false => Ok(roots),
    }
}

fn roots_of_this_machine() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // Some of them are of kinds that nobody uses any more.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}
