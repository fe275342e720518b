//! The bytes of chunks: varints and differences.

use super::super::{Member, Pos, RecentCommand, UserNo};
use whimbrel_protocol::{ConversationSeq, MailboxSeq, Nonce};

/// Appends `value`, seven bits a byte, low ones first.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a varint off the front. `None` if there is none.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        if index == 9 && *byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *bytes = &bytes[index + 1..];
            return Some(value);
        }
    }
    None
}

/// Rising positions as they are written: the first one, then differences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Positions {
    bytes: Vec<u8>,
    count: u64,
    last: Pos,
}

impl Positions {
    /// Takes written positions up again, to append to them. `None` if they are damaged.
    pub(super) fn read(bytes: Vec<u8>) -> Option<Self> {
        let (mut count, mut last) = (0, 0);
        for pos in positions(&bytes) {
            (count, last) = (count + 1, pos?);
        }
        Some(Self { bytes, count, last })
    }

    /// Appends a position, which must be higher than the last.
    pub(super) fn push(&mut self, pos: Pos) {
        debug_assert!(pos > self.last, "{pos} after {}", self.last);
        put_varint(&mut self.bytes, pos - self.last);
        self.count += 1;
        self.last = pos;
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The last position; 0 if there is none.
    pub(super) fn last(&self) -> Pos {
        self.last
    }
}

/// The positions in `bytes`, in order; `None` in place of the first that is damaged, and nothing after it.
pub(super) fn positions(bytes: &[u8]) -> impl Iterator<Item = Option<Pos>> {
    let (mut rest, mut last) = (bytes, 0_u64);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let next = take_varint(&mut rest).filter(|difference| *difference > 0).and_then(|difference| last.checked_add(difference));
        match next {
            Some(pos) => last = pos,
            None => rest = &[],
        }
        Some(next)
    })
}

/// Appends commands to those in `out`, whose last position is `last` (0 if `out` is empty).
pub(super) fn put_command(out: &mut Vec<u8>, last: Pos, command: &RecentCommand) {
    put_varint(out, command.pos - last);
    out.extend_from_slice(&command.nonce.0);
}

/// Reads commands. `None` if they are damaged.
pub(super) fn read_commands(mut bytes: &[u8], into: &mut Vec<RecentCommand>) -> Option<()> {
    let mut pos = 0_u64;
    while !bytes.is_empty() {
        pos = pos.checked_add(take_varint(&mut bytes)?)?;
        let (nonce, rest) = bytes.split_first_chunk::<8>()?;
        bytes = rest;
        into.push(RecentCommand { nonce: Nonce(*nonce), pos });
    }
    Some(())
}

pub(super) fn put_members(out: &mut Vec<u8>, members: &[Member]) {
    for member in members {
        put_varint(out, u64::from(member.user.0));
        put_varint(out, member.sent.0);
        put_varint(out, member.delivered.0);
        put_varint(out, member.read.0);
    }
}

/// Reads members. `None` if they are damaged.
pub(super) fn read_members(mut bytes: &[u8]) -> Option<Vec<Member>> {
    let mut members = Vec::new();
    while !bytes.is_empty() {
        let user = UserNo(u32::try_from(take_varint(&mut bytes)?).ok()?);
        let mut mark = || take_varint(&mut bytes).map(ConversationSeq);
        members.push(Member { user, sent: mark()?, delivered: mark()?, read: mark()? });
    }
    Some(members)
}

pub(super) fn put_recipients(out: &mut Vec<u8>, recipients: &[(UserNo, MailboxSeq)]) {
    for (user, seq) in recipients {
        put_varint(out, u64::from(user.0));
        put_varint(out, seq.0);
    }
}

/// Reads recipients. `None` if they are damaged.
pub(super) fn read_recipients(mut bytes: &[u8]) -> Option<Vec<(UserNo, MailboxSeq)>> {
    let mut recipients = Vec::new();
    while !bytes.is_empty() {
        let user = UserNo(u32::try_from(take_varint(&mut bytes)?).ok()?);
        recipients.push((user, MailboxSeq(take_varint(&mut bytes)?)));
    }
    Some(recipients)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_come_back(values in prop::collection::vec(any::<u64>(), 0..20)) {
            let mut bytes = Vec::new();
            for value in &values { put_varint(&mut bytes, *value); }
            let mut rest = &bytes[..];
            for value in &values { prop_assert_eq!(take_varint(&mut rest), Some(*value)); }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn positions_come_back(steps in prop::collection::vec(1..1_000_000_u64, 0..50), split in 0..50_usize) {
            let expected: Vec<u64> = steps.iter().scan(0, |sum, step| { *sum += step; Some(*sum) }).collect();
            let mut chunk = Positions::default();
            for (index, pos) in expected.iter().enumerate() {
                if index == split { chunk = Positions::read(chunk.bytes().to_vec()).unwrap(); }
                chunk.push(*pos);
            }
            prop_assert_eq!(chunk.count(), expected.len() as u64);
            prop_assert_eq!(chunk.last(), expected.last().copied().unwrap_or(0));
            prop_assert_eq!(positions(chunk.bytes()).collect::<Option<Vec<_>>>(), Some(expected));
        }

        #[test]
        fn damaged_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Positions::read(bytes.clone());
            let _ = read_commands(&bytes, &mut Vec::new());
            let _ = read_members(&bytes);
            let _ = read_recipients(&bytes);
        }
    }
}
