//! A translation of addresses, as home routers and carriers have: UDP leaves from other ports than the phone thinks, and sometimes the
//! translation is forgotten.

use super::packet::{Place, Side, place, rewrite};
use serde::Serialize;
use std::collections::HashMap;
use std::net::Ipv4Addr;

/// What the link does to the phone's UDP addresses. TCP passes untouched: real translations forget UDP first.
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

/// The mapping in use.
#[derive(Debug)]
pub(super) struct Mapping {
    outside: HashMap<Place, Place>,
    inside: HashMap<Place, Place>,
    port: u16,
    host: u8,
}

impl Mapping {
    pub fn new() -> Self {
        Self { outside: HashMap::new(), inside: HashMap::new(), port: PORT_FIRST, host: HOST_FIRST }
    }

    /// Forgets everything: who speaks next gets another port, and what still comes to an old one goes nowhere.
    pub fn rebind(&mut self) {
        self.outside.clear();
        self.inside.clear();
        self.host = if self.host == 250 { HOST_FIRST } else { self.host + 1 };
    }

    /// A packet of the phone.
    pub fn outgoing(&mut self, packet: &mut [u8], nat: Nat) {
        if nat == Nat::Off {
            return;
        }
        let Some(from) = place(packet, Side::Source) else { return };
        let to = *self.outside.entry(from).or_insert_with(|| {
            let [a, b, c, _] = from.0.octets();
            let address = if nat == Nat::Addresses { Ipv4Addr::new(a, b, c, self.host) } else { from.0 };
            let to = (address, self.port);
            self.port = self.port.checked_add(1).unwrap_or(PORT_FIRST);
            self.inside.insert(to, from);
            to
        });
        rewrite(packet, Side::Source, to);
    }

    /// A packet for the phone; `false` if it is for nobody.
    #[must_use]
    pub fn incoming(&self, packet: &mut [u8], nat: Nat) -> bool {
        let Some(to) = place(packet, Side::Destination).filter(|_| nat != Nat::Off) else { return true };
        match self.inside.get(&to) {
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
    use super::super::packet::tests::{sound, udp};
    use super::*;

    #[test]
    fn answers_find_back_until_the_translation_is_forgotten() {
        let (phone, server) = ((Ipv4Addr::new(10, 81, 1, 2), 5_000), (Ipv4Addr::new(10, 81, 0, 1), 8443));
        for nat in [Nat::Ports, Nat::Addresses] {
            let mut mapping = Mapping::new();
            let mut seen = Vec::new();
            for _ in 0..3 {
                for _ in 0..2 {
                    let mut packet = udp(phone, server, b"question");
                    mapping.outgoing(&mut packet, nat);
                    let outside = place(&packet, Side::Source).unwrap();
                    assert!(sound(&packet) && outside.1 != phone.1);
                    assert_eq!(outside.0 != phone.0, nat == Nat::Addresses);
                    let mut answer = udp(server, outside, b"answer");
                    assert!(mapping.incoming(&mut answer, nat) && sound(&answer));
                    assert_eq!(place(&answer, Side::Destination), Some(phone));
                    seen.push(outside);
                }
                mapping.rebind();
                let mut late = udp(server, *seen.last().unwrap(), b"late");
                assert!(!mapping.incoming(&mut late, nat), "an old port leads nowhere");
            }
            assert!(seen[0] == seen[1] && seen[2] == seen[3] && seen[1] != seen[2] && seen[3] != seen[4], "{seen:?}");
        }
        let mut packet = udp(phone, server, b"");
        Mapping::new().outgoing(&mut packet, Nat::Off);
        assert_eq!(place(&packet, Side::Source), Some(phone));
    }
}
