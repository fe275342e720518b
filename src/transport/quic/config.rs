//! Transport settings for a chat: many connections that are mostly idle, messages of some hundred bytes, paths that change.

use super::window::Windows;
use super::{BindError, QuicOptions};
use aws_lc_rs::hmac;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use std::sync::Arc;
use std::time::Duration;
use whimbrel_protocol::codec::MAX_FRAME;

/// What one stream may have under way to us: a frame of the longest kind and a start on the next.
const STREAM_WINDOW: u32 = 2 * MAX_FRAME as u32;
/// What one connection may: whatever it opens, it costs no more than this.
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// What may be under way, unacknowledged, to one client.
pub(super) const SEND_WINDOW: u64 = 256 * 1024;
/// Datagrams that wait for us, or for the network: the oldest are dropped beyond this.
const DATAGRAM_BUFFER: usize = 4 * 1024;
/// The session's stream, one for HTTP/3's request, and one for each query that waits; each that is allowed costs a little memory at once.
const BIDI_STREAMS: u32 = 16;
/// HTTP/3 needs three.
const UNI_STREAMS: u32 = 8;
/// Connections that wait for us to look at their first packet.
const MAX_INCOMING: usize = 1024;
/// What each of them may send meanwhile, and all together.
const INCOMING_BUFFER: u64 = 16 * 1024;
const INCOMING_BUFFERS: u64 = 4 * 1024 * 1024;
/// After a restart every client of the run before is told that its connection is gone; this many a second.
const RESET_INTERVAL: Duration = Duration::from_millis(1);

/// An endpoint whose connection IDs and reset tokens are the same in the next run.
pub(super) fn endpoint(secret: &[u8; 64]) -> EndpointConfig {
    let (id_key, reset_key) = secret.split_at(8);
    let id_key = id_key.iter().fold(0, |key, byte| key << 8 | u64::from(*byte));
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, reset_key)));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    config.min_reset_interval(RESET_INTERVAL);
    config
}

/// The server's side of every connection.
pub(super) fn server(tls: Arc<rustls::ServerConfig>, options: &QuicOptions) -> Result<ServerConfig, BindError> {
    let crypto = QuicServerConfig::try_from(tls).map_err(|_| BindError::NoInitialCipher)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport(options)))
        .migration(true)
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFERS);
    Ok(config)
}

fn transport(options: &QuicOptions) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDI_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .congestion_controller_factory(Arc::<Windows>::default())
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        // Each connection would find out, with several long packets each way that hold nothing, whether longer ones than 1,200 bytes fit its
        // network, and again on each other network. A chat has little to fill them with.
        .mtu_discovery_config(None)
        // A longer time than fits is no time-out at all.
        .max_idle_timeout(IdleTimeout::try_from(options.max_idle).ok());
    config
}
