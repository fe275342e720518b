//! What the emulator looks at in an IPv4 packet, and what a NAT changes there.

use std::net::Ipv4Addr;

const UDP: u8 = 17;
const TCP: u8 = 6;
/// Of the flags of TCP.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Its headers and IP's, without options.
const HEADERS: usize = 40;
/// Of UDP's header.
const CHECKSUM_AT: usize = 6;

/// An address and a port.
pub(super) type Place = (Ipv4Addr, u16);

/// Which side of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

impl Side {
    fn address_at(self) -> usize {
        match self {
            Self::Source => 12,
            Self::Destination => 16,
        }
    }

    /// In the header of UDP, and of TCP.
    fn port_at(self) -> usize {
        match self {
            Self::Source => 0,
            Self::Destination => 2,
        }
    }
}

/// Whether it is IPv4 at all.
pub(super) fn is_ipv4(packet: &[u8]) -> bool {
    packet.len() >= 20 && packet[0] >> 4 == 4
}

/// Whether it is a packet of UDP, or a fragment of one.
pub(super) fn is_udp(packet: &[u8]) -> bool {
    is_ipv4(packet) && packet[9] == UDP
}

/// Where the header of UDP begins, if all of it is here.
fn udp_at(packet: &[u8]) -> Option<usize> {
    let at = usize::from(*packet.first()? & 0x0f) * 4;
    let first_fragment = read(packet, 6) & 0x1fff == 0;
    (is_udp(packet) && first_fragment && packet.len() >= at + 8).then_some(at)
}

fn read(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// Address and port of one side, if it is UDP.
pub(super) fn place(packet: &[u8], side: Side) -> Option<Place> {
    let udp = udp_at(packet)?;
    let at = side.address_at();
    let address = Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    Some((address, read(packet, udp + side.port_at())))
}

/// Writes another address and port to one side of a packet of UDP, and mends the checksums of IP and UDP.
pub(super) fn rewrite(packet: &mut [u8], side: Side, (address, port): Place) {
    let Some(udp) = udp_at(packet) else { return };
    let [high, low] = [&address.octets()[..2], &address.octets()[2..]].map(|half| u16::from_be_bytes([half[0], half[1]]));
    let checked = read(packet, udp + CHECKSUM_AT) != 0;
    for (at, new, in_ip) in [(side.address_at(), high, true), (side.address_at() + 2, low, true), (udp + side.port_at(), port, false)] {
        let old = read(packet, at);
        packet[at..at + 2].copy_from_slice(&new.to_be_bytes());
        if in_ip {
            mend(packet, 10, old, new);
        }
        // UDP's checksum covers the addresses too; 0 says that there is none.
        if checked {
            mend(packet, udp + CHECKSUM_AT, old, new);
            if read(packet, udp + CHECKSUM_AT) == 0 {
                packet[udp + CHECKSUM_AT..udp + CHECKSUM_AT + 2].copy_from_slice(&[0xff; 2]);
            }
        }
    }
}

/// Keeps segments of TCP as short as a path wants them, as routers at the ends of such paths do: where a packet opens a connection, the
/// longest segment that it says its sender takes is made to fit.
pub(super) fn clamp_segments(packet: &mut [u8], mtu: usize) {
    let Some(longest) = mtu.checked_sub(HEADERS).and_then(|longest| u16::try_from(longest).ok()) else { return };
    let Some(tcp) = tcp_at(packet).filter(|tcp| packet[tcp + 13] & SYN != 0) else { return };
    let end = (tcp + usize::from(packet[tcp + 12] >> 4) * 4).min(packet.len());
    let mut at = tcp + 20;
    while at + 1 < end {
        match (packet[at], usize::from(packet[at + 1])) {
            // The end, and padding.
            (0, _) => return,
            (1, _) => at += 1,
            (2, 4) if at + 4 <= end && (at - tcp) % 2 == 0 => {
                let said = read(packet, at + 2);
                if said > longest {
                    packet[at + 2..at + 4].copy_from_slice(&longest.to_be_bytes());
                    mend(packet, tcp + 16, said, longest);
                }
                return;
            }
            (_, len) => at += len.max(2),
        }
    }
}

/// Where the header of TCP begins, if all of it is here.
fn tcp_at(packet: &[u8]) -> Option<usize> {
    let at = usize::from(*packet.first()? & 0x0f) * 4;
    let first_fragment = is_ipv4(packet) && read(packet, 6) & 0x1fff == 0;
    (first_fragment && packet[9] == TCP && packet.len() >= at + 20).then_some(at)
}

/// Whether a packet of TCP opens a connection.
pub(super) fn is_opening(packet: &[u8]) -> bool {
    tcp_at(packet).is_some_and(|tcp| packet[tcp + 13] & (SYN | ACK) == SYN)
}

/// From where to where it goes, if it is TCP.
pub(super) fn tcp_ends(packet: &[u8]) -> Option<(Place, Place)> {
    let tcp = tcp_at(packet)?;
    let end = |side: Side| {
        let at = side.address_at();
        (Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]), read(packet, tcp + side.port_at()))
    };
    Some((end(Side::Source), end(Side::Destination)))
}

/// RFC 1624, equation 3: the checksum after one word changed.
fn mend(packet: &mut [u8], at: usize, old: u16, new: u16) {
    let mut sum = u32::from(!read(packet, at)) + u32::from(!old) + u32::from(new);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    // Two folds of three words leave 16 bits.
    packet[at..at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn sum(words: impl IntoIterator<Item = u16>) -> u16 {
        let mut sum: u32 = words.into_iter().map(u32::from).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    fn words(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
        bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
    }

    /// Whether both checksums are right, computed anew.
    pub fn sound(packet: &[u8]) -> bool {
        let udp = &packet[20..];
        let pseudo = words(&packet[12..20]).chain([u16::from(UDP), udp.len() as u16]);
        sum(words(&packet[..20])) == 0xffff && (read(udp, 6) == 0 || sum(pseudo.chain(words(udp))) == 0xffff)
    }

    /// A packet of UDP with right checksums.
    pub fn udp(from: Place, to: Place, body: &[u8]) -> Vec<u8> {
        let len = 28 + body.len() as u16;
        let mut packet = vec![0x45, 0, (len >> 8) as u8, len as u8, 0, 7, 0x40, 0, 64, UDP, 0, 0];
        packet.extend(from.0.octets());
        packet.extend(to.0.octets());
        for word in [from.1, to.1, len - 20, 0] {
            packet.extend(word.to_be_bytes());
        }
        packet.extend(body);
        let header = !sum(words(&packet[..20]));
        packet[10..12].copy_from_slice(&header.to_be_bytes());
        let pseudo: Vec<u16> = words(&packet[12..20]).chain([u16::from(UDP), len - 20]).chain(words(&packet[20..])).collect();
        let check = !sum(pseudo);
        packet[26..28].copy_from_slice(&if check == 0 { 0xffff } else { check }.to_be_bytes());
        packet
    }

    /// A packet of TCP, without checksums, that opens a connection or belongs to one.
    pub fn tcp(from: Place, to: Place, opening: bool) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 40, 0, 7, 0x40, 0, 64, TCP, 0, 0];
        packet.extend(from.0.octets());
        packet.extend(to.0.octets());
        packet.extend([from.1, to.1].iter().flat_map(|port| port.to_be_bytes()));
        packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, if opening { SYN } else { ACK }, 0xff, 0xff, 0, 0, 0, 0]);
        packet
    }

    #[test]
    fn segments_of_tcp_are_made_to_fit_where_a_connection_is_opened() {
        // No-operations before the option, and a window scale behind it.
        let options = [1, 1, 2, 4, 0x05, 0xb4, 3, 3, 7, 0, 0, 0];
        let mut packet = vec![0x45, 0, 0, 52, 0, 7, 0x40, 0, 64, TCP, 0, 0, 10, 81, 1, 2, 10, 81, 0, 1];
        packet.extend([0x9c, 0x40, 0x20, 0xfb, 0, 0, 0, 1, 0, 0, 0, 0, 8 << 4, SYN, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend(options);
        let right = |packet: &[u8]| {
            let pseudo = words(&packet[12..20]).chain([u16::from(TCP), packet.len() as u16 - 20]);
            sum(pseudo.chain(words(&packet[20..]))) == 0xffff
        };
        let pseudo: Vec<u16> = words(&packet[12..20]).chain([u16::from(TCP), 32]).chain(words(&packet[20..])).collect();
        packet[36..38].copy_from_slice(&(!sum(pseudo)).to_be_bytes());
        assert!(right(&packet));
        let before = packet.clone();
        clamp_segments(&mut packet, 1_500);
        assert_eq!(packet, before);
        clamp_segments(&mut packet, 1_200);
        assert!(right(&packet) && read(&packet, 44) == 1_160);
        // No other packet is touched.
        let mut later = before.clone();
        later[33] = 0x10;
        clamp_segments(&mut later, 1_200);
        assert_eq!(read(&later, 44), 1_460);
    }

    #[test]
    fn checksums_are_right_after_every_rewrite() {
        let peer = (Ipv4Addr::new(10, 81, 0, 1), 8443);
        for number in 0..5_000u16 {
            let from = (Ipv4Addr::new(10, 81, 1, 2), number.wrapping_mul(13));
            let body: Vec<u8> = (0..number % 50).map(|byte| (byte * 7) as u8).collect();
            let mut packet = udp(from, peer, &body);
            assert!(sound(&packet), "the test's own packet");
            let new = (Ipv4Addr::new(10, 81, (number % 7) as u8, 100), number.wrapping_mul(31));
            rewrite(&mut packet, Side::Source, new);
            assert!(sound(&packet) && place(&packet, Side::Source) == Some(new) && place(&packet, Side::Destination) == Some(peer));
            rewrite(&mut packet, Side::Destination, from);
            assert!(sound(&packet) && place(&packet, Side::Destination) == Some(from));
            packet[27] ^= 1;
            assert!(!sound(&packet), "the check itself");
        }
    }
}
