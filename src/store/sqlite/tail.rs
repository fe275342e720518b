//! What is in memory of one index, and the newest records that all of them point at.

use super::super::{Pos, Record, UserNo};
use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use whimbrel_protocol::MailboxSeq;

/// The newest entries of a mailbox or conversation: number and position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tail {
    /// Number of the first of `positions`.
    first: u64,
    positions: VecDeque<Pos>,
    /// Entries up to this one are in the row; those of them that are still here serve live readers.
    flushed: u64,
}

impl Tail {
    /// Nothing, after `head` entries that are in the row.
    pub(super) fn after(head: u64) -> Self {
        Self { first: head + 1, positions: VecDeque::new(), flushed: head }
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn head(&self) -> u64 {
        self.first + self.positions.len() as u64 - 1
    }

    pub(super) fn get(&self, seq: u64) -> Option<Pos> {
        self.positions.get(usize::try_from(seq.checked_sub(self.first)?).ok()?).copied()
    }

    /// The entries from `low` to `high` that are here.
    pub(super) fn range(&self, low: u64, high: u64) -> impl DoubleEndedIterator<Item = (u64, Pos)> {
        let low = low.max(self.first);
        let high = high.min(self.head());
        (low..=high).filter_map(|seq| self.get(seq).map(|pos| (seq, pos)))
    }

    /// About what it takes up in memory.
    pub(super) fn bytes(&self) -> usize {
        self.positions.capacity() * 8
    }

    /// Whether there are entries that the row may not hold.
    pub(super) fn is_unflushed(&self) -> bool {
        self.flushed < self.head()
    }

    /// Takes the entry `seq`, the next one.
    pub(super) fn push(&mut self, seq: u64, pos: Pos) -> Result<(), String> {
        if seq != self.head() + 1 || self.positions.back().is_some_and(|last| *last >= pos) {
            return Err(format!("entry {seq} (record {pos}) after {} (record {:?})", self.head(), self.positions.back()));
        }
        self.positions.push_back(pos);
        Ok(())
    }

    /// All is in the row now. What had been there before is dropped, the rest stays for another round.
    pub(super) fn flushed(&mut self) {
        let gone = usize::try_from((self.flushed + 1).saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.positions.len());
        self.positions.drain(..gone);
        self.first += gone as u64;
        self.flushed = self.head();
    }

    /// Entries up to `floor` are gone.
    pub(super) fn trim(&mut self, floor: u64) {
        while self.first <= floor && self.positions.pop_front().is_some() {
            self.first += 1;
        }
    }
}

/// The newest records, without a gap.
#[derive(Debug, Default)]
pub(super) struct Ring {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
    bytes_max: usize,
}

impl Ring {
    /// At most about so many bytes of records.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    pub(super) fn push(&mut self, record: Arc<Record>) {
        self.bytes += record_bytes(&record);
        self.records.push_back(record);
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.records.pop_front()
        {
            self.bytes -= record_bytes(&oldest);
        }
    }

    pub(super) fn get(&self, pos: Pos) -> Option<&Arc<Record>> {
        let first = self.records.front()?.pos;
        self.records.get(usize::try_from(pos.checked_sub(first)?).ok()?)
    }
}

/// About what a record takes up in memory.
fn record_bytes(record: &Record) -> usize {
    size_of::<Record>() + 32 + record.content_bytes() + record.recipients.len() * size_of::<(UserNo, MailboxSeq)>()
}

/// Hashes the numbers that the store itself gives out; nobody outside can choose them, so a fast hash will do.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NumberHasher(u64);

pub(super) type Numbers = BuildHasherDefault<NumberHasher>;

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        // The table takes its bucket from the low bits and its tag from the high ones: the product is good above, so swap the halves.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}
