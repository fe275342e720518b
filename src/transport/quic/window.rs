//! How much may be under way at once: Cubic, and never less than at the beginning.
//!
//! A session sends so little that its window never grows, while each lost packet makes it smaller. On a network that loses by chance it would
//! be down to two packets within a minute, and then the first message that is not acknowledged holds up all others, and every probe.

use super::pace::{Pace, Room};
use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

/// Makes the window of each path.
#[derive(Debug, Default)]
pub(super) struct Windows(Arc<CubicConfig>);

impl ControllerFactory for Windows {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Window { cubic: Arc::clone(&self.0).build(now, current_mtu), pace: Pace::new(now) })
    }
}

pub(super) struct Window {
    cubic: Box<dyn Controller>,
    pace: Pace,
}

impl Window {
    /// How much of the answers may go out over this connection; see [`Pace::room`].
    pub fn room_for_answers(connection: &quinn::Connection) -> Room {
        let now = Instant::now();
        match connection.congestion_state().into_any().downcast::<Self>() {
            Ok(window) => window.pace.room(now, window.window()),
            // No connection of ours has another one; if one had, its congestion window would be all that holds.
            Err(_) => Room { as_of: now, bytes: u64::MAX },
        }
    }
}

impl Controller for Window {
    fn window(&self) -> u64 {
        self.cubic.window().max(self.cubic.initial_window())
    }

    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.pace.on_ack(now, sent, bytes);
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.pace.on_end_acks(now, in_flight);
        self.cubic.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.pace.on_lost(lost_bytes);
        self.cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { cubic: self.cubic.clone_box(), pace: self.pace.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn losses_do_not_leave_less_than_the_beginning() {
        let now = Instant::now();
        let mut window = Arc::new(Windows::default()).build(now, 1_452);
        let begun = window.window();
        for minute in 1..20 {
            let at = now + Duration::from_secs(60 * minute);
            window.on_congestion_event(at, at, minute % 5 == 0, 100);
            assert_eq!(window.clone_box().window(), begun);
        }
        assert!(begun >= 8 * 1_452);
    }
}
