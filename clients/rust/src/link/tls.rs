//! Whom to believe: only what was configured.

use super::tickets::{Taking, Tickets};
use super::{Address, LinkError};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CipherSuite, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use whimbrel_protocol::ALPN;
use wtransport::tls::Sha256Digest;
use wtransport::tls::client::ServerHashVerification;

/// The last second of the year 9999: no date is written beyond it.
const LAST_DATE: u64 = 253_402_300_799;

/// Why a hash to pin cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the SHA-256 of a certificate: give 64 hexadecimal digits (colons are fine) or base64")]
pub struct PinError(pub String);

/// Why the configured certificates cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read.
    #[error("the CA in {} cannot be read: {reason} (give a PEM file, or a certs directory with a ca.pem)", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The file holds nothing that certificates could be verified with.
    #[error("{} holds no certificate of a CA: {reason}", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
}

/// Whom to believe.
#[derive(Clone)]
pub(crate) struct Trust {
    anchors: Anchors,
    kept: Arc<Mutex<Option<Kept>>>,
}

/// How QUIC was set up last, and with which announced hashes: the tickets are good for this setup only.
struct Kept {
    announced: Vec<[u8; 32]>,
    config: ClientConfig,
    tickets: Tickets,
}

#[derive(Debug, Clone)]
struct Anchors {
    provider: Arc<CryptoProvider>,
    authority: Option<Arc<WebPkiServerVerifier>>,
    pins: Vec<[u8; 32]>,
}

/// Reads a hash as people copy it.
pub(crate) fn parse_pin(text: &str) -> Result<[u8; 32], PinError> {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
    let text = text.trim();
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | ' ')).collect();
    if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let byte = |at: usize| digits.get(2 * at..2 * at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or_default();
        return Ok(std::array::from_fn(byte));
    }
    let engines = [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD];
    engines.iter().find_map(|engine| engine.decode(text).ok()?.try_into().ok()).ok_or_else(|| PinError(text.into()))
}

impl Trust {
    /// Reads what was configured. Blocks: the file is read.
    pub fn load(ca: Option<&Path>, pins: Vec<[u8; 32]>) -> Result<Self, TrustError> {
        // Named here, not taken from the process: a library must not depend on who installed which provider.
        let provider = Arc::new(provider());
        let authority = ca.map(|path| read_authority(path, &provider)).transpose()?;
        Ok(Self { anchors: Anchors { provider, authority, pins }, kept: Arc::default() })
    }

    /// Whether there is anything that a certificate could be verified with.
    pub fn is_configured(&self) -> bool {
        self.anchors.authority.is_some() || !self.anchors.pins.is_empty()
    }

    /// The same belief, and no ticket.
    pub fn afresh(&self) -> Self {
        Self { anchors: self.anchors.clone(), kept: Arc::default() }
    }

    /// Rustls for TCP.
    pub fn tcp(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        let verifier = Verifier { anchors: self.anchors.clone(), hashes: None };
        Ok(Arc::new(self.config(verifier, rustls::DEFAULT_VERSIONS)?))
    }

    /// Rustls for QUIC. `announced` are hashes that came over a connection that is itself beyond doubt; certificates by hash must keep
    /// the rules of browsers there (at most 14 days, ECDSA P-256).
    pub fn quic(&self, announced: &[[u8; 32]], alpn: &[u8]) -> Result<ClientConfig, rustls::Error> {
        let hashes = self.anchors.pins.iter().chain(announced).copied().map(Sha256Digest::new);
        let verifier = Verifier { anchors: self.anchors.clone(), hashes: Some(Arc::new(ServerHashVerification::new(hashes))) };
        let mut config = self.config(verifier, &[&rustls::version::TLS13])?;
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    }

    /// The same for QUIC alone, with tickets that are kept from one connection to the next: who comes back may say its first words at once
    /// (0-RTT).
    pub(super) fn resuming(&self, announced: &[[u8; 32]], taking: Taking) -> Result<QuicClientConfig, String> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let same = kept.take().filter(|kept| kept.announced == announced);
        let kept = match same {
            Some(same) => kept.insert(same),
            None => {
                let mut config = self.quic(announced, ALPN.as_bytes()).map_err(|why| why.to_string())?;
                config.enable_early_data = true;
                kept.insert(Kept { announced: announced.to_vec(), config, tickets: Tickets::default() })
            }
        };
        let mut config = kept.config.clone();
        config.resumption = Resumption::store(Arc::new(kept.tickets.taking(taking)));
        QuicClientConfig::try_from(config).map_err(|why| why.to_string())
    }

    fn config(&self, verifier: Verifier, versions: &[&'static rustls::SupportedProtocolVersion]) -> Result<ClientConfig, rustls::Error> {
        Ok(ClientConfig::builder_with_provider(Arc::clone(&self.anchors.provider))
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth())
    }
}

/// With AES-128 first, which browsers prefer too: its hash, SHA-256, is what processors compute by themselves, unlike the SHA-384 of AES-256,
/// and a handshake is mostly hashes. Breaking either is out of anybody's reach.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // The sort is stable: the others keep their order.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

fn read_authority(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, TrustError> {
    let path = if path.is_dir() { path.join("ca.pem") } else { path.to_owned() };
    let bytes = std::fs::read(&path).map_err(|why| TrustError::Unreadable { path: path.clone(), reason: why.to_string() })?;
    let none = |reason: String| TrustError::NoCertificate { path: path.clone(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|why| none(why.to_string()))?;
        roots.add(certificate).map_err(|why| none(why.to_string()))?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build().map_err(|why| none(why.to_string()))
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("anchors", &self.anchors).finish_non_exhaustive()
    }
}

/// Why there is no TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub why: String,
    /// What to do about it; nothing where the next attempt may go better by itself.
    pub mend: Option<String>,
}

/// Opens TLS over a TCP connection.
pub(crate) async fn handshake(trust: &Trust, address: &Address, tcp: TcpStream) -> Result<TlsStream<TcpStream>, LinkError> {
    let server = address.authority();
    shake(trust, address, tcp).await.map_err(|Fault { why, mend }| match mend {
        Some(mend) => LinkError::Mismatch(format!("TLS with {server}: {why}: {mend}")),
        None => LinkError::Unreachable(format!("TLS with {server} failed: {why}")),
    })
}

/// The same, with what is wrong and what to do apart.
pub(crate) async fn shake(trust: &Trust, address: &Address, tcp: TcpStream) -> Result<TlsStream<TcpStream>, Fault> {
    let fault = |why: String, mend: &str| Fault { why, mend: Some(mend.into()) };
    if !trust.is_configured() {
        let mend = "give the CA that signed it (`--ca`), or the hash of the certificate to pin (`--pin`)";
        return Err(fault("nothing to verify its certificate with".into(), mend));
    }
    let name = ServerName::try_from(address.host.clone())
        .map_err(|why| fault(format!("{:?} is not a name for TLS: {why}", address.host), "use the server's name or address"))?;
    let config = trust.tcp().map_err(|why| fault(format!("it cannot be set up: {why}"), "this is a fault of this program"))?;
    TlsConnector::from(config).connect(name, tcp).await.map_err(|why| fault_of(&why).unwrap_or(Fault { why: why.to_string(), mend: None }))
}

/// What is wrong with a handshake that will fail the next time too.
fn fault_of(why: &std::io::Error) -> Option<Fault> {
    use rustls::{CertificateError as Certificate, Error};
    let (why, mend) = match why.get_ref()?.downcast_ref::<Error>()? {
        Error::InvalidCertificate(certificate) => match certificate {
            Certificate::ApplicationVerificationFailure => (
                "its certificate is not the pinned one".into(),
                "the server has another by now (in its folder `whimbrel certs show` tells the hash, under tcp; or give its CA instead, which \
                 outlives certificates), or somebody else answers in its place",
            ),
            // The latter where two CAs have the same name.
            Certificate::UnknownIssuer | Certificate::BadSignature => (
                "its certificate is not signed by the CA that was given, nor pinned".into(),
                "give the CA of this server (`certs/ca.pem` in its folder), or somebody else answers in its place",
            ),
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                let names = match certificate {
                    Certificate::NotValidForNameContext { presented, .. } => format!(" ({})", presented.join(", ")),
                    _ => String::new(),
                };
                (
                    format!("its certificate is for other names{names}"),
                    "use the name or address it was made for, or have the server's certificate made for this one",
                )
            }
            Certificate::Expired | Certificate::ExpiredContext { .. } => {
                let dates = match certificate {
                    Certificate::ExpiredContext { time, not_after } => dates(*time, "good until", *not_after),
                    _ => String::new(),
                };
                (
                    format!("its certificate has expired{dates}"),
                    "the server needs a new one (`whimbrel certs renew`), unless this machine's clock is wrong",
                )
            }
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                let dates = match certificate {
                    Certificate::NotValidYetContext { time, not_before } => dates(*time, "good from", *not_before),
                    _ => String::new(),
                };
                (format!("its certificate is not valid yet{dates}"), "is this machine's clock right, and the server's?")
            }
            _ => return None,
        },
        Error::InvalidMessage(_) => {
            ("what answers there does not speak TLS".into(), "with http:// it might be reached, or TLS is at another port")
        }
        _ => return None,
    };
    Some(Fault { why, mend: Some(mend.into()) })
}

/// When a certificate begins or ends, beside what this machine's clock says: whoever reads it sees which of them is wrong.
fn dates(now: UnixTime, until: &str, limit: UnixTime) -> String {
    let date = |time: UnixTime| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.as_secs().min(LAST_DATE)));
    format!(" ({until} {}; this machine's clock says {})", date(limit), date(now))
}

/// Believes a certificate by its hash, or because a configured CA signed it.
#[derive(Debug)]
struct Verifier {
    anchors: Anchors,
    /// For QUIC: the pins and what was announced, by the rules of browsers. On TCP a pin is the whole condition: who pins a certificate
    /// by hand names exactly this key, whatever its dates.
    hashes: Option<Arc<ServerHashVerification>>,
}

impl Verifier {
    fn by_hash(&self, certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<ServerCertVerified, rustls::Error> {
        match &self.hashes {
            Some(hashes) => hashes.verify_server_cert(certificate, &[], name, &[], now),
            None => {
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
                if self.anchors.pins.iter().any(|pin| pin == digest.as_ref()) {
                    Ok(ServerCertVerified::assertion())
                } else {
                    Err(rustls::CertificateError::ApplicationVerificationFailure.into())
                }
            }
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let by_hash = self.by_hash(certificate, name, now);
        match &self.anchors.authority {
            Some(authority) if by_hash.is_err() => authority.verify_server_cert(certificate, intermediates, name, ocsp, now),
            _ => by_hash,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.anchors.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.anchors.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.anchors.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_people_copy_them() {
        let hash: [u8; 32] = std::array::from_fn(|at| u8::try_from(at * 7 % 256).unwrap());
        let hex: Vec<String> = hash.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(parse_pin(&hex.concat()), Ok(hash));
        assert_eq!(parse_pin(&format!(" {} ", hex.join(":"))), Ok(hash));
        use base64::Engine as _;
        assert_eq!(parse_pin(&base64::engine::general_purpose::STANDARD.encode(hash)), Ok(hash));
        assert_eq!(parse_pin(&base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash)), Ok(hash));
        for bad in ["", "abc", "zz", &hex.concat()[..62]] {
            assert!(parse_pin(bad).is_err(), "{bad}");
        }
    }
}
