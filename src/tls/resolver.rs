//! Which certificate a handshake gets, and the configurations that ask.

use super::cert::Pair;
use super::{TlsError, default_provider, files};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

/// One certificate that can be swapped.
#[derive(Debug)]
pub(super) struct Resolver(RwLock<Arc<CertifiedKey>>);

impl Resolver {
    pub fn new(pair: &Pair) -> Arc<Self> {
        Arc::new(Self(RwLock::new(pair.key.clone())))
    }

    /// Handshakes that begin from now on get this one.
    pub fn set(&self, pair: &Pair) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = pair.key.clone();
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

pub(super) fn config(resolver: &Arc<Resolver>, alpn: &[&[u8]], versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
    #[expect(clippy::expect_used, reason = "fails only if a provider has no cipher for a version, and this one has some for both")]
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .expect("the provider supports TLS 1.2 and 1.3");
    let mut config = builder.with_no_client_auth().with_cert_resolver(resolver.clone());
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config
}

pub(super) fn reset_secret(dir: &Path) -> Result<[u8; 64], TlsError> {
    let path = dir.join(files::RESET_SECRET);
    let text = files::read(&path).unwrap_or_default().unwrap_or_default();
    if let Some(secret) = STANDARD.decode(text.trim()).ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok()) {
        files::keep_private(&path);
        return Ok(secret);
    }
    let mut secret = [0; 64];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| TlsError::Random)?;
    if let Err(error) = files::write(dir, files::RESET_SECRET, &format!("{}\n", STANDARD.encode(secret))) {
        tracing::warn!(%error, "QUIC clients of this run will notice a restart only by their idle timeout");
    }
    Ok(secret)
}
