//! What is known of the networks that this device was on: which transport goes first there, and how long silence may last.
//!
//! A network is told by the address that the system has on it. Two networks with the same addresses are one for us, which costs a head start
//! of the wrong transport and no more.

use super::quiet::{Bearing, Path};
use super::{Completed, Driver};
use crate::link::Address;
use crate::{Transport, TransportKind};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// How long a WebSocket goes first on a network because nothing else got through there: networks change.
const WEBSOCKET_FOR: Duration = Duration::from_secs(3_600);
/// Networks that are remembered for a server.
const KNOWN_MAX: usize = 16;

/// Under which key the networks are remembered.
pub(crate) fn networks_key(server: &Address) -> String {
    format!("networks {}", server.authority())
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Network {
    name: String,
    /// When a WebSocket was the only thing that got through, in seconds of Unix time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    websocket: Option<u64>,
    #[serde(default)]
    bearing: Bearing,
}

/// The networks, and the one that this device is on.
#[derive(Debug, Clone)]
pub(crate) struct Networks {
    /// Where the server is, as far as that can be told without asking anybody.
    towards: SocketAddr,
    here: Network,
    /// The one that was left last comes last.
    others: VecDeque<Network>,
    /// What is known is not stored yet.
    unsaved: bool,
}

impl Networks {
    /// What a note tells of them. One that cannot be read tells nothing.
    pub fn load(server: &Address, note: Option<&str>) -> Self {
        let others: VecDeque<Network> = note.and_then(|note| serde_json::from_str(note).ok()).unwrap_or_default();
        let mut networks = Self { towards: towards(server), here: Network::default(), others, unsaved: false };
        networks.look();
        networks
    }

    /// Looks which network this is now. Says whether it is one, and another than before.
    pub fn look(&mut self) -> bool {
        let name = local_address(self.towards).map_or_else(String::new, name);
        let is_another = !name.is_empty() && name != self.here.name;
        self.enter(name);
        is_another
    }

    fn enter(&mut self, name: String) {
        if self.here.name == name {
            return;
        }
        let known = self.others.iter().position(|network| network.name == name).and_then(|at| self.others.remove(at));
        let left = std::mem::replace(&mut self.here, known.unwrap_or(Network { name, ..Network::default() }));
        // Where there is no address there is nothing to know.
        if !left.name.is_empty() {
            self.others.push_back(left);
        }
        while self.others.len() >= KNOWN_MAX {
            self.others.pop_front();
        }
    }

    /// What this one is called; nothing if there is none.
    pub fn name(&self) -> &str {
        &self.here.name
    }

    /// The transport that goes first here.
    pub fn favourite(&self) -> TransportKind {
        let age = self.here.websocket.map(|since| unix_seconds().saturating_sub(since));
        if age.is_some_and(|age| age < WEBSOCKET_FOR.as_secs()) { TransportKind::WebSocket } else { TransportKind::Quic }
    }

    /// This transport goes first here from now on, for a while.
    pub fn prefer(&mut self, transport: TransportKind) {
        let websocket = (transport == TransportKind::WebSocket).then(unix_seconds);
        self.unsaved |= std::mem::replace(&mut self.here.websocket, websocket) != websocket;
    }

    /// The way that sessions over this transport take here.
    pub fn path(&self, transport: TransportKind) -> Path {
        *self.here.bearing.of(transport)
    }

    /// Something was found out of it.
    pub fn learn(&mut self, transport: TransportKind, path: Path) {
        self.unsaved |= std::mem::replace(self.here.bearing.of_mut(transport), path) != path;
    }

    /// What to store, if that is another thing than what is stored.
    fn unsaved_note(&mut self) -> Option<String> {
        if !std::mem::take(&mut self.unsaved) {
            return None;
        }
        let known: Vec<&Network> = self.others.iter().chain([&self.here]).collect();
        // Strings and numbers: it does not fail.
        serde_json::to_string(&known).ok()
    }
}

impl Driver {
    /// Remembers what worked here.
    pub(super) fn remember(&mut self, transport: TransportKind) {
        if self.config.transport == Transport::Auto && self.networks.favourite() != transport {
            self.networks.prefer(transport);
        }
        self.save_networks();
    }

    /// Stores what is known of the networks, for the next run.
    pub(super) fn save_networks(&mut self) {
        let Some(value) = self.networks.unsaved_note() else { return };
        let key = networks_key(&self.config.server);
        let noted = self.keeper.call(move |store| store.set_note(&key, &value));
        self.jobs.push(Box::pin(async move {
            // A hint: losing it costs 200 ms, or some packets, in the next run.
            let _ = noted.await;
            Completed::Noted
        }));
    }
}

pub(super) fn unix_seconds() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

/// An address of the server if its URL has one, or else one that is nobody's (RFC 5737): the way there is the way to the Internet.
fn towards(server: &Address) -> SocketAddr {
    let ip = match server.host.parse() {
        Ok(ip) => ip,
        Err(_) if server.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        Err(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
    };
    SocketAddr::new(ip, server.port)
}

/// The address from which the system would send to this peer now. Sends nothing.
pub(super) fn local_address(peer: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(peer).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// What a network is called in which this address is: its first 24 or 64 bits.
fn name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(note: Option<&str>) -> Networks {
        Networks::load(&Address::parse("http://127.0.0.1:8080").unwrap(), note)
    }

    #[test]
    fn what_gets_through_is_remembered_for_each_network_and_for_a_while() {
        let mut networks = networks(None);
        assert_eq!(networks.favourite(), TransportKind::Quic);
        assert_eq!(networks.unsaved_note(), None);
        networks.enter("10.0.0.0/24".into());
        networks.prefer(TransportKind::WebSocket);
        networks.enter("100.64.0.0/24".into());
        assert_eq!(networks.favourite(), TransportKind::Quic, "another network");
        networks.prefer(TransportKind::Quic);
        let note = networks.unsaved_note().unwrap();
        assert_eq!(networks.unsaved_note(), None, "once is enough");
        let mut again = super::tests::networks(Some(&note));
        assert_eq!(again.favourite(), TransportKind::Quic);
        again.enter("10.0.0.0/24".into());
        assert_eq!(again.favourite(), TransportKind::WebSocket);
        again.here.websocket = again.here.websocket.map(|since| since - WEBSOCKET_FOR.as_secs());
        assert_eq!(again.favourite(), TransportKind::Quic, "that was long ago");
        again.prefer(TransportKind::WebSocket);
        assert!(again.unsaved_note().is_some(), "another hour begins, for the next run too");
    }

    #[test]
    fn how_long_silence_may_last_is_remembered_for_each_network_and_kind_of_path() {
        let mut networks = networks(Some(r#"[{"name":"10.0.0.0/24"}]"#));
        networks.enter("10.0.0.0/24".into());
        let first = networks.path(TransportKind::Quic);
        assert_eq!(first, Path::default(), "a note of an older version tells nothing of it");
        let longer = first.on_borne(30, 0);
        networks.learn(TransportKind::WebTransport, longer);
        assert_eq!(networks.path(TransportKind::WebSocket), first);
        networks.enter("10.1.1.0/24".into());
        assert_eq!(networks.path(TransportKind::Quic), first);
        let mut again = super::tests::networks(networks.unsaved_note().as_deref());
        networks.learn(TransportKind::Quic, first);
        assert_eq!(networks.unsaved_note(), None, "nothing new");
        again.enter("10.0.0.0/24".into());
        assert_eq!(again.path(TransportKind::Quic), longer);
    }

    #[test]
    fn the_oldest_networks_are_forgotten_and_a_note_that_is_none_tells_nothing() {
        let mut networks = networks(Some("not JSON"));
        for number in 0..100 {
            networks.enter(format!("10.0.{number}.0/24"));
            networks.enter("10.9.9.0/24".into());
        }
        assert_eq!(networks.others.len() + 1, KNOWN_MAX);
        assert!(networks.others.iter().any(|network| network.name == "10.0.99.0/24"));
        assert_eq!(networks.here.name, "10.9.9.0/24");
    }

    #[test]
    fn networks_are_told_by_their_addresses() {
        assert_eq!(name("10.1.2.3".parse().unwrap()), "10.1.2.0/24");
        assert_eq!(name("2001:db8:1:2:3:4:5:6".parse().unwrap()), "2001:db8:1:2::/64");
        assert_eq!(networks(None).here.name, "127.0.0.0/24");
        let named = Address::parse("https://chat.example.org").unwrap();
        assert_eq!(towards(&named), "192.0.2.1:443".parse().unwrap());
    }
}
