//! A machine that was suspended. The clock of its time-outs stood still meanwhile on most systems, and the world did not: address translations
//! have forgotten us, and the server has given us up.

use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// The wall clock runs ahead by this much only if the machine slept, or somebody set it; then nothing is lost but a packet.
const AHEAD: Duration = Duration::from_secs(5);

/// What the wall clock says.
#[cfg(not(test))]
pub(super) fn wall() -> SystemTime {
    SystemTime::now()
}

/// What it says where time is virtual.
#[cfg(test)]
pub(super) fn wall() -> SystemTime {
    tests::virtual_wall()
}

/// The two clocks, as they were looked at last.
#[derive(Debug)]
pub(super) struct Sleep {
    now: Instant,
    wall: SystemTime,
}

impl Sleep {
    pub fn new(now: Instant, wall: SystemTime) -> Self {
        Self { now, wall }
    }

    /// Whether the machine slept since the last look.
    pub fn is_over(&mut self, now: Instant, wall: SystemTime) -> bool {
        let passed = now.duration_since(std::mem::replace(&mut self.now, now));
        // One that was set back tells nothing.
        let by_wall = wall.duration_since(std::mem::replace(&mut self.wall, wall)).unwrap_or_default();
        by_wall >= passed + AHEAD
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        static SLEPT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// The machine of this test slept for so long.
    pub(crate) fn sleep(time: Duration) {
        SLEPT.set(SLEPT.get() + time);
    }

    pub(super) fn virtual_wall() -> SystemTime {
        // Any moment before the test.
        let since = Instant::now().duration_since(*START.get_or_init(Instant::now));
        SystemTime::UNIX_EPOCH + since + SLEPT.get()
    }

    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();

    #[test]
    fn who_slept_is_told_from_who_waited_and_whose_clock_was_set() {
        let second = Duration::from_secs(1);
        let (mut now, mut wall) = (Instant::now(), SystemTime::now());
        let mut sleep = Sleep::new(now, wall);
        let mut passes = |by_clock: u32, by_wall: i32| {
            now += second * by_clock;
            wall = if by_wall < 0 { wall - second * by_wall.unsigned_abs() } else { wall + second * by_wall.unsigned_abs() };
            sleep.is_over(now, wall)
        };
        assert!(!passes(300, 300));
        assert!(!passes(300, 304), "a clock that is corrected");
        assert!(passes(2, 3_600));
        assert!(!passes(2, 2), "once");
        assert!(!passes(10, -3_600));
        assert!(!passes(10, 10));
    }
}
