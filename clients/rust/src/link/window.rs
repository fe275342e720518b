//! How much may be under way at once: Cubic, and never less than at the beginning.
//!
//! A chat sends so little that its window never grows, while each lost packet makes it smaller. On a network that loses by chance it would
//! be down to two packets within a minute, and then the first message that is not acknowledged holds up all others, and every probe.

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
        Box::new(Window(Arc::clone(&self.0).build(now, current_mtu)))
    }
}

struct Window(Box<dyn Controller>);

impl Controller for Window {
    fn window(&self) -> u64 {
        self.0.window().max(self.0.initial_window())
    }

    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.0.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.0.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.0.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.0.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.0.on_mtu_update(new_mtu);
    }

    fn metrics(&self) -> ControllerMetrics {
        self.0.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self(self.0.clone_box()))
    }

    fn initial_window(&self) -> u64 {
        self.0.initial_window()
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
