//! What waits to be committed: bounded in number and in bytes, and fair, so that one busy user cannot keep the others waiting.

use crate::store::UserNo;
use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The queue was full; what was pushed is given back.
#[derive(Debug)]
pub(super) struct Full<T>(pub T);

/// Work by lane: the lanes take turns, the work of one lane keeps its order.
pub(super) struct FairQueue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
    max: Bounds,
}

/// How much: pieces of work, and bytes of content in them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub pieces: usize,
    pub bytes: usize,
}

/// Whose turn it is taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// What a user's devices ask for.
    User(UserNo),
    /// One hello: each has a turn of its own, as if it were a user, so that a storm of work keeps nobody outside.
    Hello(u64),
}

struct State<T> {
    /// Work, each piece with its bytes.
    lanes: HashMap<Lane, VecDeque<(usize, T)>>,
    /// Lanes that have work, in the order of their turns.
    turns: VecDeque<Lane>,
    len: usize,
    bytes: usize,
    closed: bool,
}

impl<T> FairQueue<T> {
    pub(super) fn new(max: Bounds) -> Self {
        let state = State { lanes: HashMap::new(), turns: VecDeque::new(), len: 0, bytes: 0, closed: false };
        Self { state: Mutex::new(state), ready: Condvar::new(), max }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing in here panics between two consistent states, so a poisoned lock holds good data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pushes one piece of work with so many bytes of content. What has none is taken however many bytes wait.
    pub(super) fn push(&self, lane: Lane, bytes: usize, work: T) -> Result<(), Full<T>> {
        let mut state = self.lock();
        if state.closed || state.len >= self.max.pieces || (bytes > 0 && state.bytes + bytes > self.max.bytes) {
            return Err(Full(work));
        }
        state.len += 1;
        state.bytes += bytes;
        let queue = state.lanes.entry(lane).or_default();
        queue.push_back((bytes, work));
        if queue.len() == 1 {
            state.turns.push_back(lane);
        }
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Takes up to `max`, the last piece counted in, one piece from each lane in turn; waits for the first. `None` once closed and empty.
    pub(super) fn take(&self, max: Bounds) -> Option<Vec<T>> {
        let mut state = self.lock();
        while state.len == 0 {
            if state.closed {
                return None;
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut batch = Vec::with_capacity(state.len.min(max.pieces));
        let mut taken = 0;
        while batch.len() < max.pieces && taken < max.bytes {
            let Some(lane) = state.turns.pop_front() else { break };
            let Some(queue) = state.lanes.get_mut(&lane) else { continue };
            let work = queue.pop_front();
            if queue.is_empty() {
                state.lanes.remove(&lane);
            } else {
                state.turns.push_back(lane);
            }
            if let Some((bytes, work)) = work {
                state.len -= 1;
                state.bytes -= bytes;
                taken += bytes;
                batch.push(work);
            }
        }
        Some(batch)
    }

    /// Nothing more is taken in; what is there is still handed out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_all();
    }

    /// How much waits.
    pub(super) fn len(&self) -> usize {
        self.lock().len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Lane = Lane::User(UserNo(1));
    const BOB: Lane = Lane::User(UserNo(2));

    fn pieces(pieces: usize) -> Bounds {
        Bounds { pieces, bytes: usize::MAX }
    }

    #[test]
    fn a_busy_user_does_not_keep_others_waiting() {
        let queue = FairQueue::new(pieces(100));
        for number in 0..50 {
            queue.push(ANN, 1, ("ann", number)).unwrap();
        }
        queue.push(BOB, 1, ("bob", 0)).unwrap();
        queue.push(BOB, 1, ("bob", 1)).unwrap();
        assert_eq!(queue.take(pieces(5)).unwrap(), [("ann", 0), ("bob", 0), ("ann", 1), ("bob", 1), ("ann", 2)]);
        assert_eq!(queue.len(), 47);
    }

    #[test]
    fn a_full_queue_gives_the_work_back_and_a_closed_one_ends() {
        let queue = FairQueue::new(pieces(1));
        queue.push(ANN, 1, 1).unwrap();
        assert_eq!(queue.push(BOB, 1, 2).unwrap_err().0, 2);
        queue.close();
        assert_eq!(queue.take(pieces(10)), Some(vec![1]));
        assert_eq!(queue.take(pieces(10)), None);
    }

    #[test]
    fn bytes_are_bounded_too_and_what_has_none_still_gets_in() {
        let queue = FairQueue::new(Bounds { pieces: 10, bytes: 100 });
        queue.push(ANN, 60, 1).unwrap();
        assert_eq!(queue.push(BOB, 41, 2).unwrap_err().0, 2);
        queue.push(BOB, 40, 3).unwrap();
        queue.push(BOB, 0, 4).unwrap();
        assert_eq!(queue.take(Bounds { pieces: 10, bytes: 50 }).unwrap(), [1]);
        queue.push(ANN, 60, 5).unwrap();
        assert_eq!(queue.take(Bounds { pieces: 10, bytes: 1000 }).unwrap(), [3, 5, 4]);
    }
}
