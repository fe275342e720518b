//! Keys for a server that a test plays: a CA, and certificates for 127.0.0.1.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_rustls::TlsAcceptor;
use wtransport::endpoint::endpoint_side;
use wtransport::tls::{Certificate, CertificateChain, PrivateKey};
use wtransport::{Endpoint, Identity, ServerConfig};

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A CA that a client may be told of.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Keys that this CA signed, valid for so many days.
    pub fn keys(&self, days: u32) -> Keys {
        let mut params = CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
        params.not_before = (SystemTime::now() - DAY / 24).into();
        params.not_after = (SystemTime::now() + DAY * days).into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Keys { certificate: certificate.der().clone(), key: key.serialize_der() }
    }
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Keys {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Keys {
    pub fn hash(&self) -> Vec<u8> {
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.certificate).as_ref().to_vec()
    }

    pub fn hash_base64(&self) -> String {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(self.hash())
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// QUIC that is offered as HTTP/3, and nothing behind it.
    pub fn bare_endpoint(&self) -> quinn::Endpoint {
        self.bare_endpoint_on(std::net::UdpSocket::bind("127.0.0.1:0").unwrap())
    }

    /// The same on a socket that is there already.
    pub fn bare_endpoint_on(&self, socket: std::net::UdpSocket) -> quinn::Endpoint {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![wtransport::proto::WEBTRANSPORT_ALPN.to_vec()];
        let config = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(config));
        quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(config), socket, Arc::new(quinn::TokioRuntime)).unwrap()
    }

    pub fn quic_endpoint(&self) -> Endpoint<endpoint_side::Server> {
        let certificate = Certificate::from_der(self.certificate.to_vec()).unwrap();
        let key = PrivateKey::from_der_pkcs8(self.key.clone());
        let identity = Identity::new(CertificateChain::single(certificate), key);
        let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        Endpoint::server(ServerConfig::builder().with_bind_address(address).with_identity(identity).build()).unwrap()
    }
}
