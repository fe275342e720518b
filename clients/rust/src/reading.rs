//! Marks of reading, coalesced: who reads while messages pour in sends one a second for each conversation, not one for each message.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use whimbrel_protocol::{ConversationId, ConversationSeq};

/// The least time between two marks of a conversation.
pub const READ_MARK_EVERY: Duration = Duration::from_secs(1);
/// Conversations remembered before those whose time is over are dropped.
const REMEMBERED_MAX: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Reading {
    marks: Mutex<HashMap<ConversationId, Mark>>,
}

#[derive(Debug)]
struct Mark {
    /// Highest that was asked for.
    wanted: ConversationSeq,
    /// Not before this.
    next: Instant,
    /// A call waits for its time, and takes along what others want meanwhile.
    waits: bool,
}

/// The call that waits. If it is dropped before its time, the next call takes its place.
struct Turn<'a>(&'a Reading, ConversationId);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(mark) = self.0.lock().get_mut(&self.1) {
            mark.waits = false;
        }
    }
}

impl Reading {
    fn lock(&self) -> MutexGuard<'_, HashMap<ConversationId, Mark>> {
        // Nothing under this lock can panic.
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a mark may be made; returns up to where. `None` if another call that waits makes it.
    pub async fn turn(&self, conversation: ConversationId, seq: ConversationSeq) -> Option<ConversationSeq> {
        let next = {
            let mut marks = self.lock();
            let now = Instant::now();
            if marks.len() >= REMEMBERED_MAX {
                marks.retain(|_, mark| mark.waits || mark.next > now);
            }
            let mark = marks.entry(conversation).or_insert(Mark { wanted: seq, next: now, waits: false });
            mark.wanted = mark.wanted.max(seq);
            if std::mem::replace(&mut mark.waits, true) {
                return None;
            }
            mark.next
        };
        let turn = Turn(self, conversation);
        tokio::time::sleep_until(next).await;
        let mut marks = self.lock();
        // Its drop would take the lock by itself, and what neither waits nor has a later time may be dropped in between.
        std::mem::forget(turn);
        let now = Instant::now();
        let mark = marks.entry(conversation).or_insert(Mark { wanted: seq, next: now, waits: false });
        (mark.waits, mark.next) = (false, now + READ_MARK_EVERY);
        Some(mark.wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const HERE: ConversationId = ConversationId(1);
    const THERE: ConversationId = ConversationId(2);

    #[tokio::test(start_paused = true)]
    async fn the_first_goes_at_once_and_the_rest_together_a_second_later() {
        let reading = Arc::new(Reading::default());
        let begun = Instant::now();
        assert_eq!(reading.turn(HERE, ConversationSeq(1)).await, Some(ConversationSeq(1)));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let waiting = tokio::spawn({
            let reading = reading.clone();
            async move { reading.turn(HERE, ConversationSeq(2)).await }
        });
        tokio::task::yield_now().await;
        for seq in [4, 3] {
            assert_eq!(reading.turn(HERE, ConversationSeq(seq)).await, None, "it goes with the one that waits");
        }
        assert_eq!(reading.turn(THERE, ConversationSeq(9)).await, Some(ConversationSeq(9)), "each conversation by itself");
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(waiting.await.unwrap(), Some(ConversationSeq(4)));
        assert_eq!(begun.elapsed(), READ_MARK_EVERY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_given_up_does_not_block_the_next() {
        let reading = Reading::default();
        reading.turn(HERE, ConversationSeq(1)).await;
        assert!(tokio::time::timeout(Duration::from_millis(10), reading.turn(HERE, ConversationSeq(5))).await.is_err());
        assert_eq!(reading.turn(HERE, ConversationSeq(2)).await, Some(ConversationSeq(5)), "nor is what it wanted forgotten");
    }

    /// Another thread, with a clock that is far ahead, drops with each of its calls whatever may be dropped.
    #[test]
    fn a_mark_is_never_lost_to_a_call_that_drops_others() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (mine, other) = (runtime(), runtime());
        let reading = Reading::default();
        let crowd = (0..REMEMBERED_MAX as u64).map(|number| ConversationId(1000 + number));
        let next = mine.block_on(async { Instant::now() });
        reading.lock().extend(crowd.map(|id| (id, Mark { wanted: ConversationSeq(1), next, waits: true })));
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                other.block_on(async {
                    tokio::time::advance(READ_MARK_EVERY * 1_000_000).await;
                    while !over.load(std::sync::atomic::Ordering::Relaxed) {
                        reading.turn(THERE, ConversationSeq(1)).await;
                    }
                });
            });
            let lost = mine.block_on(async {
                for seq in (1..=20_000).map(ConversationSeq) {
                    if reading.turn(HERE, seq).await != Some(seq) {
                        return Some(seq);
                    }
                }
                None
            });
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(lost, None);
        });
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let reading = Reading::default();
        for number in 0..10 * REMEMBERED_MAX as u64 {
            reading.turn(ConversationId(number), ConversationSeq(1)).await;
            tokio::time::advance(READ_MARK_EVERY / 16).await;
        }
        assert!(reading.lock().len() <= REMEMBERED_MAX);
    }
}
