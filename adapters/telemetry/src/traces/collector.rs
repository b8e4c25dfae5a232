//! The collector that takes spans, over HTTP.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::TraceSettings;
use crate::endpoint::PATH;

/// How long the collector may take for a batch.
const LIMIT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// No answer is longer.
const LONGEST_ANSWER: usize = 64 * 1024;
const USER_AGENT: &str = concat!("kube-node-manager/", env!("CARGO_PKG_VERSION"));

/// Why the collector did not take a batch.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeliveryError {
    #[error("it did not answer within {LIMIT:?}")]
    TimedOut,
    #[error("it cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("it answers with status {} (redirects are not followed)", .0.as_u16())]
    Status(StatusCode),
    #[error("{0}")]
    Headers(String),
}

pub(crate) struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    headers_file: Option<PathBuf>,
}

impl Collector {
    /// Looks at everything that could be wrong with the settings.
    pub(crate) fn new(settings: &TraceSettings) -> Result<Self, String> {
        let base = settings.endpoint.trim_end_matches('/');
        let base = base.strip_suffix(PATH).unwrap_or(base);
        let url: Uri = format!("{base}{PATH}")
            .parse()
            .map_err(|error| format!("traces.otlp_endpoint: it cannot be used: {error}"))?;
        if let Some(file) = &settings.headers_file {
            let text = std::fs::read_to_string(file);
            headers(file, text)?;
        }
        let roots = match url.scheme_str() {
            Some("https") => roots(settings.ca_file.as_deref())?,
            _ => RootCertStore::empty(),
        };
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("traces.otlp_endpoint: tls cannot be set up: {error}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut connector = HttpConnector::new();
        // The scheme was looked at before; the connector would refuse https.
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Self {
            client,
            url,
            headers_file: settings.headers_file.clone(),
        })
    }

    /// Sends a batch, and says how many spans of it were refused.
    pub(crate) async fn deliver(&self, batch: Bytes) -> Result<usize, DeliveryError> {
        tokio::time::timeout(LIMIT, self.post(batch))
            .await
            .unwrap_or(Err(DeliveryError::TimedOut))
    }

    async fn post(&self, batch: Bytes) -> Result<usize, DeliveryError> {
        let mut request = Request::post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::USER_AGENT, USER_AGENT)
            .body(Full::new(batch))
            .map_err(|error| DeliveryError::Unreachable(error.into()))?;
        if let Some(file) = &self.headers_file {
            // Read each time: what it holds may be replaced while this process runs.
            let text = tokio::fs::read_to_string(file).await;
            let told = headers(file, text).map_err(DeliveryError::Headers)?;
            request.headers_mut().extend(told);
        }
        let answer = self.client.request(request).await;
        let (head, body) = answer
            .map_err(|error| DeliveryError::Unreachable(error.into()))?
            .into_parts();
        let body = Limited::new(body, LONGEST_ANSWER).collect().await;
        if !head.status.is_success() {
            return Err(DeliveryError::Status(head.status));
        }
        // A collector that says nothing understandable beside its success has refused nothing.
        let told = body
            .ok()
            .and_then(|body| ExportTraceServiceResponse::decode(body.to_bytes()).ok());
        let refused = told
            .and_then(|told| told.partial_success)
            .map_or(0, |part| part.rejected_spans);
        Ok(usize::try_from(refused).unwrap_or(0))
    }
}

/// Reads a file with `name: value` in each line. Its errors repeat no value.
fn headers(file: &Path, text: std::io::Result<String>) -> Result<HeaderMap, String> {
    let text = text.map_err(|error| format!("traces.headers_file: {} cannot be read: {error}", file.display()))?;
    let mut headers = HeaderMap::new();
    let lines = text.lines().enumerate().map(|(place, line)| (place + 1, line.trim()));
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let read = line.split_once(':').and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let Some((name, mut value)) = read else {
            return Err(format!(
                "traces.headers_file: line {number} of {} is no header: a name, a colon and a value are allowed",
                file.display()
            ));
        };
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Whom to believe who the collector is: the authorities of this machine and those of the file.
fn roots(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    // Some of them are of kinds that nobody uses any more.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = file {
        let pem = std::fs::read(file)
            .map_err(|error| format!("traces.ca_file: {} cannot be read: {error}", file.display()))?;
        let before = roots.len();
        let unusable = || {
            format!(
                "traces.ca_file: {} has no certificates in pem, or some that cannot be used",
                file.display()
            )
        };
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots
                .add(certificate.map_err(|_| unusable())?)
                .map_err(|_| unusable())?;
        }
        if roots.len() == before {
            return Err(unusable());
        }
    }
    if roots.is_empty() {
        return Err(
            "traces.otlp_endpoint: this machine has no certificates of authorities, so nobody can tell who answers for the collector: \
             install them (ca-certificates), or name a file of them in traces.ca_file"
                .to_owned(),
        );
    }
    Ok(roots)
}
