//! Copies of small frames in datagrams, while the path loses packets: so that what is lost on the stream is rarely waited for.
//!
//! One reliable stream is no better than TCP under loss: everything waits for the retransmission of what was lost. A copy that comes by
//! another way before that is taken instead ([`Downlink`](crate::Downlink) and the server take from either), and costs some bytes only
//! where they are needed. Every copy is a hint: the stream carries everything too.

use alloc::{collections::VecDeque, vec::Vec};
use core::time::Duration;

/// The longest frame that is copied, with its length before it, in bytes: it fits a datagram on every path that QUIC can use.
pub const COPY_MAX: usize = 1_000;
/// When copies follow what went over the stream, so that they travel in other packets, and a short burst of loss does not take them all.
pub const COPY_AFTER: [Duration; 3] = [Duration::from_millis(10), Duration::from_millis(30), Duration::from_millis(50)];
/// Copies that are due within this time of each other share a datagram.
const TOGETHER: Duration = Duration::from_millis(5);
/// Frames that wait to be copied. Who has more to say at once sends in bulk, and waits for retransmissions.
const WAITING_MAX: usize = 32;
/// Packets over which the loss is averaged.
const PACKETS: f32 = 64.0;
/// From this share of packets lost on a path is lossy …
const LOSSY: f32 = 0.02;
/// … until it is below this one; then there are two copies of each frame …
const CLEAN: f32 = 0.01;
/// … and from this share on three. (Packets that only acknowledge are never missed, so a path that loses a tenth looks like less.)
const VERY_LOSSY: f32 = 0.04;

/// What was under way when the path became another one is missed within this time, or three round trips.
const SETTLE: Duration = Duration::from_millis(500);

/// How many of the packets that we send are lost, lately.
#[derive(Debug, Clone, Copy, Default)]
pub struct Loss {
    sent: u64,
    lost: u64,
    /// Of the packets lost lately, from 0 to 1.
    share: f32,
    lossy: bool,
    /// When the counts came last, and until when losses may be those of the path before.
    counted: Duration,
    settled: Duration,
}

impl Loss {
    /// So many packets were sent on this connection until now, and so many of them were lost: counts that rise. Returns `false` if they may
    /// be of the path before.
    pub fn on_counts(&mut self, now: Duration, sent: u64, lost: u64) -> bool {
        let (new, new_lost) = (sent.saturating_sub(self.sent), lost.saturating_sub(self.lost));
        (self.sent, self.lost) = (sent, lost);
        // A loss may be noticed when nothing new was sent.
        let new = new.max(new_lost);
        if new > 0 {
            let share = new_lost as f32 / new as f32;
            self.share += (share - self.share) * (new as f32 / PACKETS).min(1.0);
        }
        self.lossy = self.share >= if self.lossy { CLEAN } else { LOSSY };
        // What was lost since counts before that may have been lost there.
        let is_ours = core::mem::replace(&mut self.counted, now) >= self.settled;
        if !is_ours {
            self.share = 0.0;
            self.lossy = false;
        }
        is_ours
    }

    /// The path is another one, of which nothing is known; the counts go on. What was under way is missed a few round trips later.
    pub fn on_other_path(&mut self, now: Duration, round_trip: Duration) {
        self.share = 0.0;
        self.lossy = false;
        self.settled = now + SETTLE.max(3 * round_trip);
    }

    /// How many copies of each frame the path asks for.
    #[must_use]
    pub fn copies(&self) -> usize {
        match self.share {
            _ if !self.lossy => 0,
            VERY_LOSSY.. => COPY_AFTER.len(),
            _ => 2,
        }
    }
}

#[derive(Debug, Clone)]
struct Waiting {
    frame: Vec<u8>,
    sent_at: Duration,
    copied: usize,
    /// How often it is to be.
    copies: usize,
}

impl Waiting {
    fn due(&self) -> Duration {
        self.sent_at + COPY_AFTER.get(self.copied).copied().unwrap_or_default()
    }
}

/// Frames that go once more, and again.
///
/// Bound: 32 frames of at most [`COPY_MAX`] bytes wait; others are not copied.
#[derive(Debug, Clone, Default)]
pub struct Copies {
    /// In the order in which they went over the stream.
    waiting: VecDeque<Waiting>,
}

impl Copies {
    /// A frame, behind its length, went over the stream, and is to be copied so many times (at most three).
    pub fn push(&mut self, frame: &[u8], copies: usize, now: Duration) {
        let copies = copies.min(COPY_AFTER.len());
        if copies > 0 && frame.len() <= COPY_MAX && self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(Waiting { frame: frame.to_vec(), sent_at: now, copied: 0, copies });
        }
    }

    /// When [`poll_transmit`](Self::poll_transmit) has something.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.waiting.iter().map(Waiting::due).min()
    }

    /// What to send in a datagram now, if anything: at most so many bytes. Call it until there is nothing.
    pub fn poll_transmit(&mut self, now: Duration, most: usize) -> Option<Vec<u8>> {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return None;
        }
        let mut datagram = Vec::new();
        for waiting in &mut self.waiting {
            if waiting.frame.len() > most {
                // It does not fit this path.
                waiting.copied = waiting.copies;
            } else if waiting.due() <= now + TOGETHER && datagram.len() + waiting.frame.len() <= most {
                datagram.extend_from_slice(&waiting.frame);
                waiting.copied += 1;
            }
        }
        self.waiting.retain(|waiting| waiting.copied < waiting.copies);
        if self.waiting.is_empty() {
            // An idle session keeps nothing of it.
            self.waiting = VecDeque::new();
        }
        (!datagram.is_empty()).then_some(datagram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u32) -> Duration {
        ms * MS
    }

    /// Lets time pass until nothing waits any more; returns when which datagrams went.
    fn all(copies: &mut Copies, most: usize) -> Vec<(u128, Vec<u8>)> {
        let mut sent = Vec::new();
        while let Some(due) = copies.poll_timeout() {
            assert_eq!(copies.poll_transmit(due - MS, most), None, "too early");
            while let Some(datagram) = copies.poll_transmit(due, most) {
                sent.push((due.as_millis(), datagram));
            }
        }
        sent
    }

    #[test]
    fn each_frame_goes_again_and_later() {
        let mut copies = Copies::default();
        assert_eq!((copies.poll_timeout(), copies.poll_transmit(at(9), 1200)), (None, None));
        copies.push(b"a", 2, at(100));
        assert_eq!(all(&mut copies, 1200), [(110, b"a".to_vec()), (130, b"a".to_vec())]);
        assert_eq!(copies.waiting.capacity(), 0);
        copies.push(b"b", 9, at(200));
        assert_eq!(all(&mut copies, 1200).len(), 3);
        copies.push(b"b", 0, at(300));
        assert_eq!(copies.poll_timeout(), None);
    }

    #[test]
    fn what_is_due_together_shares_a_datagram() {
        let mut copies = Copies::default();
        for (ms, frame) in [(0, b"a"), (20, b"b"), (23, b"c")] {
            copies.push(frame, 2, at(ms));
        }
        let sent: Vec<_> = all(&mut copies, 1200);
        assert_eq!(sent, [(10, b"a".to_vec()), (30, b"abc".to_vec()), (50, b"bc".to_vec())]);
    }

    #[test]
    fn what_does_not_fit_goes_in_another_or_not_at_all() {
        let mut copies = Copies::default();
        for fill in 0..3 {
            copies.push(&[fill; 500], 2, at(0));
        }
        copies.push(&[9; COPY_MAX + 1], 2, at(0));
        let sent: Vec<_> = all(&mut copies, 1_100).into_iter().map(|(ms, datagram)| (ms, datagram.len())).collect();
        assert_eq!(sent, [(10, 1_000), (10, 500), (30, 1_000), (30, 500)]);
        // A path that takes only shorter ones.
        copies.push(&[1; 500], 2, at(0));
        copies.push(&[2; 300], 2, at(0));
        assert_eq!(all(&mut copies, 400), [(10, vec![2; 300]), (30, vec![2; 300])]);
        copies.push(&[1; 500], 2, at(0));
        assert_eq!(copies.poll_transmit(at(10), 400), None);
        assert_eq!(copies.poll_timeout(), None);
    }

    #[test]
    fn bulk_is_not_copied() {
        let mut copies = Copies::default();
        for _ in 0..1_000 {
            copies.push(&[0; 10], 2, at(0));
        }
        let bytes: usize = all(&mut copies, 1_200).iter().map(|(_, datagram)| datagram.len()).sum();
        assert_eq!(bytes, WAITING_MAX * 10 * 2);
    }

    #[test]
    fn a_lossy_path_is_known_after_some_packets_and_forgotten_after_more() {
        let mut loss = Loss::default();
        let (mut now, mut sent, mut lost) = (at(1), 1_000, 50);
        loss.on_counts(now, 0, 0);
        loss.on_other_path(now, 40 * MS);
        let mut step = |loss: &mut Loss, every: u64, packets: u64| {
            for packet in 1..=packets {
                now += 100 * MS;
                sent += 1;
                lost += u64::from(every > 0 && packet % every == 0);
                loss.on_counts(now, sent, lost);
            }
            loss.copies()
        };
        // What happened before on this connection was one step.
        assert_eq!(step(&mut loss, 0, 600), 0);
        assert_eq!(step(&mut loss, 200, 1_000), 0, "one in two hundred is nothing");
        assert_eq!(step(&mut loss, 10, 25), 2, "one in ten is something: {}", loss.share);
        assert_eq!(step(&mut loss, 10, 400), 3);
        assert!((0.05..0.15).contains(&loss.share));
        assert_eq!(step(&mut loss, 0, 90), 2, "not over at once");
        assert_eq!(step(&mut loss, 0, 200), 0);
        // A loss that shows when nothing was sent since.
        let mut loss = Loss::default();
        loss.on_counts(at(0), 10, 0);
        loss.on_counts(at(50), 10, 2);
        assert_eq!(loss.copies(), 2);
    }

    #[test]
    fn what_was_lost_on_the_path_before_does_not_count_for_this_one_however_late_it_is_seen() {
        for (round_trip, settled) in [(40, 500), (400, 1_200)] {
            for pause in [0, settled - 1, settled + 1, 60_000] {
                let mut loss = Loss::default();
                loss.on_counts(at(1), 100, 50);
                assert_eq!(loss.copies(), 3);
                loss.on_other_path(at(1_000), round_trip * MS);
                assert_eq!(loss.copies(), 0);
                assert!(!loss.on_counts(at(1_000 + pause), 120, 70));
                assert_eq!(loss.copies(), 0, "after {pause} ms");
                // These may be of either, if they begin before it has settled.
                assert_eq!(loss.on_counts(at(1_000 + settled + pause), 140, 90), pause >= settled);
                assert!(loss.on_counts(at(1_000 + 2 * settled + pause), 160, 110));
                assert!(loss.copies() > 0);
            }
        }
    }
}
