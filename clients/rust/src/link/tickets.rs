//! Tickets of servers: what a connection is resumed with, and said early with. Each is good for one connection.

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Tickets that are kept: a server gives two with each connection, and the newest last longest.
const KEPT_MAX: usize = 8;
/// Of these some stay for an attempt that has a reason to hope.
const RESERVE: usize = 2;

/// Who may take a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taking {
    /// The first attempt after a session, or on another network.
    Any,
    /// One that repeats what failed: else an outage would use all of them up before the network is back.
    BeyondReserve,
    /// One that has nothing to say early.
    Nothing,
}

/// The tickets that servers gave. They live in memory: rustls has no form of them that could be written to a disk.
#[derive(Debug, Default)]
pub(super) struct Tickets(Arc<Mutex<Kept>>);

/// Where they are taken and brought, by somebody who may take these.
#[derive(Debug)]
pub(super) struct SessionStore {
    kept: Arc<Mutex<Kept>>,
    taking: Taking,
}

#[derive(Debug, Default)]
struct Kept {
    /// The oldest first.
    tickets: VecDeque<(ServerName<'static>, Tls13ClientSessionValue)>,
    group: Option<NamedGroup>,
}

impl Tickets {
    /// The tickets, for somebody who may take these.
    pub fn taking(&self, taking: Taking) -> SessionStore {
        SessionStore { kept: Arc::clone(&self.0), taking }
    }
}

impl SessionStore {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for SessionStore {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.kept().group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept().group
    }

    // QUIC is TLS 1.3.
    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut kept = self.kept();
        if kept.tickets.len() == KEPT_MAX {
            kept.tickets.pop_front();
        }
        kept.tickets.push_back((server, ticket));
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut kept = self.kept();
        let reserve = match self.taking {
            Taking::Any => 0,
            Taking::BeyondReserve => RESERVE,
            Taking::Nothing => return None,
        };
        let of_server = kept.tickets.iter().filter(|(of, _)| of == server).count();
        if of_server <= reserve {
            return None;
        }
        let newest = kept.tickets.iter().rposition(|(of, _)| of == server)?;
        kept.tickets.remove(newest).map(|(_, ticket)| ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Trust;
    use rustls::client::Resumption;
    use rustls::{ClientConnection, Connection, ServerConnection};

    /// A connection from its beginning to its end; the server gives two tickets with it.
    fn connect(server: &Arc<rustls::ServerConfig>, client: &rustls::ClientConfig, name: &'static str) {
        let name = ServerName::try_from(name).unwrap();
        let client = ClientConnection::new(Arc::new(client.clone()), name).unwrap();
        let mut ends = [Connection::from(client), Connection::from(ServerConnection::new(Arc::clone(server)).unwrap())];
        for turn in 0..12 {
            let mut bytes = Vec::new();
            while ends[turn % 2].wants_write() {
                ends[turn % 2].write_tls(&mut bytes).unwrap();
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                ends[1 - turn % 2].read_tls(&mut rest).unwrap();
                ends[1 - turn % 2].process_new_packets().unwrap();
            }
        }
        assert!(!ends[0].is_handshaking());
    }

    #[test]
    fn who_repeats_what_failed_leaves_some() {
        let key = rcgen::generate_simple_self_signed(["here".into(), "there".into()]).unwrap();
        let pin = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.cert.der()).as_ref().try_into().unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], key.signing_key.serialize_der().try_into().unwrap())
            .unwrap();
        let server = Arc::new(server);
        let mut client = rustls::ClientConfig::clone(&Trust::load(None, vec![pin]).unwrap().tcp().unwrap());

        let tickets = Tickets::default();
        let [here, there] = ["here", "there"].map(|name| ServerName::try_from(name).unwrap());
        let take = |taking, server| tickets.taking(taking).take_tls13_ticket(server).is_some();
        let count = || tickets.0.lock().unwrap().tickets.len();
        assert!(!take(Taking::Any, &here));
        client.resumption = Resumption::store(Arc::new(tickets.taking(Taking::Nothing)));
        connect(&server, &client, "here");
        connect(&server, &client, "here");
        assert_eq!(count(), 4, "who takes nothing still brings");
        assert!(!take(Taking::Nothing, &here) && !take(Taking::Any, &there));
        assert_eq!([(); 3].map(|()| take(Taking::BeyondReserve, &here)), [true, true, false]);
        assert_eq!([(); 3].map(|()| take(Taking::Any, &here)), [true, true, false]);
        for _ in 0..2 * KEPT_MAX {
            connect(&server, &client, "there");
        }
        assert_eq!(count(), KEPT_MAX);
    }
}
