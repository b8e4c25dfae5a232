//! Access to clusters whose credentials somebody sent: nothing is read from files, nothing is run, and no name leads to where it must not.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::HeaderValue;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use knm_model::{AccessRules, ClusterCredentials, ClusterIdentity, ClusterName, Timestamp};
use knm_ports::{ClusterOpener, OpenRefused, OpenedCluster};
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config, Error};
use secrecy::ExposeSecret;
use tower_service::Service;

use crate::credentials::{CONNECT_TIMEOUT, KubernetesSource, prepared};
use crate::{KubernetesOptions, cluster, expiry};

/// How long the look-up of a name may take while a cluster is registered.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(5);

/// Makes accesses of credentials that somebody sent.
#[derive(Clone, Debug)]
pub struct KubernetesOpener {
    /// How many objects are asked for at once.
    pub page_size: u32,
    /// How long one answer may take.
    pub request_timeout: Duration,
    /// How many requests are sent in a second at most, to each cluster; 0 is no limit.
    pub max_requests_per_second: u32,
    /// Where servers may be.
    pub rules: AccessRules,
}

/// Credentials that somebody sent, and where the server may be.
#[derive(Clone, Debug)]
pub struct SentCredentials {
    pub(crate) credentials: ClusterCredentials,
    pub(crate) rules: AccessRules,
}

/// A name leads to an address where no server may be.
#[derive(Debug, thiserror::Error)]
#[error("the name of the server leads to an address where it must not be: {0}")]
pub(crate) struct AddressRefused(String);

#[async_trait]
impl ClusterOpener for KubernetesOpener {
    async fn check(&self, credentials: &ClusterCredentials) -> Result<Option<Timestamp>, OpenRefused> {
        let sent = SentCredentials {
            credentials: credentials.clone(),
            rules: self.rules,
        };
        let unusable = |field, message: &str| OpenRefused::Unusable {
            field,
            message: message.to_owned(),
        };
        let config = sent.config().map_err(|(field, message)| unusable(field, message))?;
        config.rustls_client_config().map_err(|_| match &credentials.identity {
            ClusterIdentity::Token(_) => {
                unusable("certificate_authority", "it holds a certificate that cannot be used")
            }
            ClusterIdentity::Certificate { .. } => unusable(
                "client certificate",
                "the certificate or its key cannot be read, or they do not belong together",
            ),
        })?;
        // What is left is the name of the server.
        sent.client(config)
            .map_err(|_| unusable("tls_server_name", "it is not the name of a server"))?;
        let (host, port) = credentials.server.host_and_port();
        if host.parse::<IpAddr>().is_err()
            && let Ok(Ok(addresses)) =
                tokio::time::timeout(LOOK_UP_LIMIT, tokio::net::lookup_host((host.as_str(), port))).await
        {
            for address in addresses {
                self.rules
                    .check_address(address.ip())
                    .map_err(|message| OpenRefused::Unusable {
                        field: "server",
                        message: AddressRefused(message).to_string(),
                    })?;
            }
        }
        Ok(match &credentials.identity {
            ClusterIdentity::Token(token) => knm_model::token_expiry(token.expose_secret()),
            ClusterIdentity::Certificate { certificate, .. } => expiry::of_certificate(certificate.as_bytes()),
        })
    }

    fn open(&self, name: &ClusterName, credentials: &ClusterCredentials) -> Result<OpenedCluster, OpenRefused> {
        let sent = SentCredentials {
            credentials: credentials.clone(),
            rules: self.rules,
        };
        let options = KubernetesOptions {
            cluster: name.clone(),
            source: KubernetesSource::Sent(Box::new(sent)),
            page_size: self.page_size,
            request_timeout: self.request_timeout,
            max_requests_per_second: self.max_requests_per_second,
        };
        let opened = cluster(options, 0);
        Ok(OpenedCluster {
            gateway: opened.gateway,
            reviews: Some(opened.reviews),
        })
    }
}

impl SentCredentials {
    /// What a client is made of, or the field that cannot be used and why.
    pub(crate) fn config(&self) -> Result<Config, (&'static str, &'static str)> {
        let credentials = &self.credentials;
        let url = credentials.server.as_str().parse();
        let mut config = Config::new(url.map_err(|_| ("server", "it is not a url"))?);
        if let Some(pem) = &credentials.certificate_authority {
            let certificates = expiry::certificates(pem.as_bytes());
            let certificates = certificates.filter(|found| !found.is_empty());
            config.root_cert =
                Some(certificates.ok_or(("certificate_authority", "it holds a certificate that cannot be read"))?);
        }
        config.accept_invalid_certs = credentials.insecure_skip_tls_verify;
        config.tls_server_name = credentials.tls_server_name.clone();
        match &credentials.identity {
            ClusterIdentity::Token(token) => {
                let value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()));
                let mut value = value.map_err(|_| ("token", "it holds characters that are none of a token"))?;
                value.set_sensitive(true);
                config.headers.push((http::header::AUTHORIZATION, value));
            }
            ClusterIdentity::Certificate { certificate, key } => {
                config.auth_info.client_certificate_data = Some(STANDARD.encode(certificate));
                config.auth_info.client_key_data = Some(STANDARD.encode(key.expose_secret()).into());
            }
        }
        prepared(&mut config);
        Ok(config)
    }

    /// A client that connects to addresses only where a server may be. Proxies of the environment are not used.
    pub(crate) fn client(&self, config: Config) -> Result<Client, Error> {
        let mut connector = HttpConnector::new_with_resolver(Guarded(self.rules));
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let connector = config.rustls_https_connector_with_connector(connector)?;
        let client: HyperClient<_, Body> = HyperClient::builder(TokioExecutor::new()).build(connector);
        let headers = config.extra_headers_layer()?;
        Ok(ClientBuilder::new(client, "default")
            .with_layer(&config.base_uri_layer())
            .with_layer(&headers)
            .build())
    }
}

/// Looks names up, each time that a connection is made, and refuses those that lead to where no server may be: also those that led
/// somewhere else when the cluster was registered.
#[derive(Clone, Copy)]
struct Guarded(AccessRules);

/// Why a name leads nowhere.
enum LookUpError {
    Refused(AddressRefused),
    Failed(std::io::Error),
}

impl Service<Name> for Guarded {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = LookUpError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let rules = self.0;
        async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let found: Vec<SocketAddr> = found.map_err(LookUpError::Failed)?.collect();
            for address in &found {
                rules
                    .check_address(address.ip())
                    .map_err(|message| LookUpError::Refused(AddressRefused(message)))?;
            }
            Ok(found.into_iter())
        }
        .boxed()
    }
}

impl fmt::Debug for LookUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for LookUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(_) => f.write_str("the name of the server must not be used"),
            Self::Failed(_) => f.write_str("the name of the server cannot be looked up"),
        }
    }
}

impl std::error::Error for LookUpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(refused) => Some(refused),
            Self::Failed(error) => Some(error),
        }
    }
}

#[cfg(test)]
#[path = "registered_tests.rs"]
mod tests;
