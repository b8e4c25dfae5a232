//! Certificates for the service, and clients that trust them.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};

/// Makes certificates that its clients trust.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate for `localhost` with its key, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let mut root = CertificateParams::new(Vec::new()).expect("no names");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.distinguished_name.push(DnType::CommonName, "test root");
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(root, key).expect("a root certificate"))
    }

    /// A certificate for `localhost` until the first day of `year`.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn certify(&self, year: i32) -> Certified {
        let key = KeyPair::generate().expect("a key");
        let mut server = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        server.not_before = date_time_ymd(2000, 1, 1);
        server.not_after = date_time_ymd(year, 1, 1);
        let certificate = server.signed_by(&key, &self.0).expect("a server certificate");
        Certified {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A client that speaks TLS 1.2 and 1.3.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        self.client_of(&[&version::TLS12, &version::TLS13])
    }

    /// A client that speaks these versions.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn client_of(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let root: CertificateDer<'static> = self.0.as_ref().der().clone();
        roots.add(root).expect("a root certificate");
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions that there are")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(client)
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
