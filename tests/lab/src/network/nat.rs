//! A translation of addresses, as home routers and carriers have: UDP leaves from other ports than the phone thinks, and sometimes the
//! translation is forgotten. Connections over TCP may be forgotten too.

use super::packet::{Place, Side, is_opening, place, rewrite, tcp_ends};
use serde::Serialize;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// What the link does to the phone's UDP addresses. Those of TCP are not touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nat {
    /// Nothing.
    #[default]
    Off,
    /// The server sees another port; after a rebinding yet another.
    Ports,
    /// The server sees another port and another address; after a rebinding others.
    Addresses,
}

/// The first port that is given out; one after the other from there.
const PORT_FIRST: u16 = 40_000;
/// The last byte of the first address that is given out.
const HOST_FIRST: u8 = 100;

/// After how many seconds of silence from the phone a link forgets what it keeps of a connection; zero: never. What comes from the phone then gets
/// another UDP port, and is dropped over TCP; what comes for it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Forgets {
    /// Over UDP, where there is a [`Nat`].
    pub udp_s: u16,
    /// Over TCP.
    pub tcp_s: u16,
}

/// Whether something is forgotten that was used last at that time.
fn is_forgotten(used: Instant, after_s: u16, now: Instant) -> bool {
    after_s > 0 && now.duration_since(used) >= Duration::from_secs(after_s.into())
}

/// The mapping in use.
#[derive(Debug)]
pub(super) struct Mapping {
    /// And when the phone used it last.
    outside: HashMap<Place, (Place, Instant)>,
    inside: HashMap<Place, Place>,
    /// Connections over TCP, and when the phone used them last.
    connections: HashMap<(Place, Place), Instant>,
    port: u16,
    host: u8,
}

impl Mapping {
    pub fn new() -> Self {
        Self { outside: HashMap::new(), inside: HashMap::new(), connections: HashMap::new(), port: PORT_FIRST, host: HOST_FIRST }
    }

    /// Forgets everything: who speaks next gets another port, and what still comes to an old one goes nowhere.
    pub fn rebind(&mut self) {
        self.outside.clear();
        self.inside.clear();
        self.host = if self.host == 250 { HOST_FIRST } else { self.host + 1 };
    }

    /// A packet of the phone; `false` if it belongs to a connection that is forgotten.
    #[must_use]
    pub fn outgoing(&mut self, packet: &mut [u8], nat: Nat, forgets: Forgets, now: Instant) -> bool {
        if let Some(ends) = tcp_ends(packet) {
            let known = self.connections.get(&ends).is_some_and(|used| !is_forgotten(*used, forgets.tcp_s, now));
            if known || is_opening(packet) {
                self.connections.insert(ends, now);
            }
            return known || is_opening(packet) || forgets.tcp_s == 0;
        }
        let Some(from) = place(packet, Side::Source).filter(|_| nat != Nat::Off) else { return true };
        if let Some((forgotten, _)) = self.outside.get(&from).filter(|(_, used)| is_forgotten(*used, forgets.udp_s, now)) {
            self.inside.remove(forgotten);
            self.outside.remove(&from);
        }
        let (to, used) = self.outside.entry(from).or_insert_with(|| {
            let [a, b, c, _] = from.0.octets();
            let address = if nat == Nat::Addresses { Ipv4Addr::new(a, b, c, self.host) } else { from.0 };
            let to = (address, self.port);
            self.port = self.port.checked_add(1).unwrap_or(PORT_FIRST);
            self.inside.insert(to, from);
            (to, now)
        });
        *used = now;
        rewrite(packet, Side::Source, *to);
        true
    }

    /// A packet for the phone; `false` if it is for nobody.
    #[must_use]
    pub fn incoming(&self, packet: &mut [u8], nat: Nat, forgets: Forgets, now: Instant) -> bool {
        if let Some((from, to)) = tcp_ends(packet) {
            return forgets.tcp_s == 0 || self.connections.get(&(to, from)).is_some_and(|used| !is_forgotten(*used, forgets.tcp_s, now));
        }
        let Some(to) = place(packet, Side::Destination).filter(|_| nat != Nat::Off) else { return true };
        let inside = self.inside.get(&to);
        let used = inside.and_then(|inside| self.outside.get(inside)).map(|(_, used)| *used);
        match inside.filter(|_| used.is_some_and(|used| !is_forgotten(used, forgets.udp_s, now))) {
            Some(inside) => {
                rewrite(packet, Side::Destination, *inside);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::{sound, tcp, udp};
    use super::*;

    const NEVER: Forgets = Forgets { udp_s: 0, tcp_s: 0 };

    #[test]
    fn answers_find_back_until_the_translation_is_forgotten() {
        let (phone, server) = ((Ipv4Addr::new(10, 81, 1, 2), 5_000), (Ipv4Addr::new(10, 81, 0, 1), 8443));
        let now = Instant::now();
        for nat in [Nat::Ports, Nat::Addresses] {
            let mut mapping = Mapping::new();
            let mut seen = Vec::new();
            for _ in 0..3 {
                for _ in 0..2 {
                    let mut packet = udp(phone, server, b"question");
                    assert!(mapping.outgoing(&mut packet, nat, NEVER, now));
                    let outside = place(&packet, Side::Source).unwrap();
                    assert!(sound(&packet) && outside.1 != phone.1);
                    assert_eq!(outside.0 != phone.0, nat == Nat::Addresses);
                    let mut answer = udp(server, outside, b"answer");
                    assert!(mapping.incoming(&mut answer, nat, NEVER, now) && sound(&answer));
                    assert_eq!(place(&answer, Side::Destination), Some(phone));
                    seen.push(outside);
                }
                mapping.rebind();
                let mut late = udp(server, *seen.last().unwrap(), b"late");
                assert!(!mapping.incoming(&mut late, nat, NEVER, now), "an old port leads nowhere");
            }
            assert!(seen[0] == seen[1] && seen[2] == seen[3] && seen[1] != seen[2] && seen[3] != seen[4], "{seen:?}");
        }
        let mut packet = udp(phone, server, b"");
        assert!(Mapping::new().outgoing(&mut packet, Nat::Off, NEVER, now));
        assert_eq!(place(&packet, Side::Source), Some(phone));
    }

    #[test]
    fn silence_of_the_phone_is_what_makes_a_link_forget() {
        let (phone, server) = ((Ipv4Addr::new(10, 81, 1, 2), 5_000), (Ipv4Addr::new(10, 81, 0, 1), 8443));
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let forgets = Forgets { udp_s: 30, tcp_s: 60 };
        let mut mapping = Mapping::new();
        let mut says = |seconds| {
            let mut packet = udp(phone, server, b"question");
            assert!(mapping.outgoing(&mut packet, Nat::Ports, forgets, at(seconds)));
            let outside = place(&packet, Side::Source).unwrap();
            let hears = |seconds| mapping.incoming(&mut udp(server, outside, b"answer"), Nat::Ports, forgets, at(seconds));
            (outside, hears(seconds + 29), hears(seconds + 30))
        };
        let [first, same, other] = [0, 29, 59].map(&mut says);
        assert_eq!((first.1, first.2), (true, false), "and what came for it was no reason to keep it");
        assert_eq!(first.0, same.0);
        assert_ne!(same.0, other.0);

        let mut mapping = Mapping::new();
        let mut says = |opening, seconds| mapping.outgoing(&mut tcp(phone, server, opening), Nat::Ports, forgets, at(seconds));
        assert!(!says(false, 0), "nobody knows it");
        assert!(says(true, 0) && says(false, 59) && says(false, 118));
        assert!(!says(false, 178) && !says(false, 179));
        assert!(says(true, 180));
        let hears = |seconds| mapping.incoming(&mut tcp(server, phone, false), Nat::Ports, forgets, at(seconds));
        assert!(hears(239) && !hears(240));
    }
}
